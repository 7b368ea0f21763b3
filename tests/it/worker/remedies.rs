//! What an operator accepts: the lane goes on without a restart, whoever runs it computes the same, and nothing counts twice.

use std::{sync::Arc, time::Duration};

use tallymark::{
    clock,
    hot::{self, Delta, HotKey, HotKind, LoadedBase, View, memory::Memory},
    item::{PackId, Seq},
    lanes::plan::{self, Plan, Scene},
    log::Log as _,
    pack::FORMAT,
    store::{HaltRow, Ledger as _, Remedies as _, Remedy, RemedyRow},
    worker::{accepted::Accepted, board::State},
};

use super::{
    fixture::{NEVER, Running, World, epoch, sums},
    packs::{SHARDS, key, pack},
    store::{Fault, Op},
};
use crate::support::until;

const SERIES: &str = "visits k=a";

impl World {
    fn topic(&self) -> String {
        self.log.topology().topic.clone()
    }

    async fn noted(&self) -> Option<HaltRow> {
        let halts = self.store.halts(&self.topic()).await.unwrap();
        halts.into_iter().find(|halt| halt.lane == self.lane(0))
    }

    /// What accepting the gap of lane 0 would do, as things stand.
    async fn gap(&self, range: Option<(u64, u64)>) -> Result<Plan, String> {
        let (topic, lane) = (self.topic(), self.lane(0));
        let rows = self.store.lanes(&topic).await.unwrap();
        let epochs = self.store.epochs(&topic).await.unwrap();
        let accepted = Accepted::of(lane, &self.store.remedies(&topic).await.unwrap());
        let halt = self.noted().await;
        let scene = Scene {
            lane,
            bounds: self.log.bounds(0).await.unwrap(),
            row: rows.iter().find(|row| row.lane == lane),
            epochs: &epochs,
            accepted: &accepted,
            halt: halt.as_ref(),
            now_ms: clock::now_ms(),
        };
        plan::gap(&scene, range.map(|(from, to)| (Seq(from), Seq(to))))
    }

    async fn record(&self, plan: &Plan) {
        for what in &plan.remedies {
            let row = RemedyRow {
                at_ms: clock::now_ms(),
                id: rand::random(),
                topic_id: plan.topic_id,
                what: *what,
                who: String::new(),
                why: String::new(),
                says: plan.says.join(" "),
            };
            self.store.record_remedy(&self.topic(), &row).await.unwrap();
        }
    }

    /// Waits until lane 0 has halted for a gap and said so, and accepts it.
    pub(super) async fn accept_gap(&self, running: &Running) -> Plan {
        running.halted(0).await;
        when("it is noted", async || self.noted().await).await;
        let plan = self.gap(None).await.unwrap();
        self.record(&plan).await;
        goes_on(running).await;
        plan
    }

    /// Packs of one item each, with an id each, from this number on.
    pub(super) async fn append_numbered(&self, numbers: std::ops::Range<u64>) {
        for n in numbers {
            self.append(0, pack().once(SERIES, 1 << n, &n.to_string())).await;
        }
    }
}

/// Waits for what is there some time.
async fn when<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited too long until {what}");
        tokio::task::yield_now().await;
    }
}

/// Waits until lane 0 runs again.
async fn goes_on(running: &Running) {
    until("it goes on", || running.lane(0).state == State::Running).await;
}

/// The sum of these numbers' amounts.
fn of(numbers: impl IntoIterator<Item = u64>) -> std::collections::BTreeMap<String, i128> {
    sums([(SERIES, numbers.into_iter().map(|n| 1_i128 << n).sum())])
}

/// A world whose checkpoint is behind the packs 0 to 2.
async fn three_behind_the_checkpoint() -> World {
    let world = World::new(1).await;
    let running = world.start();
    world.append_numbered(0..3).await;
    running.checkpointed(0, 3).await;
    running.stop().await;
    world
}

#[tokio::test]
async fn a_lane_that_retention_has_overtaken_goes_on_behind_the_gap_once_it_is_accepted() {
    let world = three_behind_the_checkpoint().await;
    world.append_numbered(3..8).await;
    world.log.remove_before(6);
    let running = world.start();
    let reason = running.halted(0).await;
    assert!(reason.contains("the log starts at 6, the lane goes on at 3: 3 packs are gone"), "{reason}");
    assert!(reason.ends_with("`tallymark lanes accept-gap 0 3..6`"), "{reason}");
    let plan = world.accept_gap(&running).await;
    assert!(plan.says[1].starts_with("Lost: 3 packs (3 to 5)."), "{:?}", plan.says);
    running.stored(0, 8).await;
    running.checkpointed(0, 8).await;
    assert_eq!(world.noted().await, None, "a lane that runs says nothing of a halt");
    assert_eq!(running.lane(0).halt, None);
    // A retry of what was counted after the gap is dropped.
    world.append(0, pack().once(SERIES, 1 << 7, "7")).await;
    running.stored(0, 9).await;
    running.stop().await;
    assert_eq!(world.totals().await, of([0, 1, 2, 6, 7]));
}

#[tokio::test]
async fn more_than_was_looked_at_is_not_accepted_and_a_lane_that_runs_has_nothing_to_accept() {
    let world = three_behind_the_checkpoint().await;
    assert!(world.gap(None).await.unwrap_err().contains("has not halted"), "nobody has said that it has");
    world.append_numbered(3..8).await;
    world.log.remove_before(6);
    let running = world.start();
    running.halted(0).await;
    when("it is noted", async || world.noted().await).await;
    for range in [(3, 5), (4, 6)] {
        assert!(world.gap(Some(range)).await.unwrap_err().contains("lacks 3..6, which is more"), "{range:?}");
    }
    // The front goes on while the operator thinks: what was accepted is not what is found.
    let plan = world.gap(Some((3, 6))).await.unwrap();
    world.log.remove_before(7);
    world.record(&plan).await;
    until("it lacks the rest", || running.lane(0).reason.is_some_and(|reason| reason.contains("goes on at 6"))).await;
    assert_ne!(world.gap(None).await.unwrap().name, plan.name, "carrying out the former plan would be refused");
    let rest = world.accept_gap(&running).await;
    assert!(matches!(rest.remedies[0], Remedy::Gap { from: Seq(6), to: Seq(7), .. }), "{rest:?}");
    running.stored(0, 8).await;
    running.stop().await;
    assert_eq!(world.totals().await, of([0, 1, 2, 7]));
}

#[tokio::test]
async fn whoever_takes_the_lane_over_right_after_computes_the_same() {
    let mut world = three_behind_the_checkpoint().await;
    world.append_numbered(3..8).await;
    world.log.remove_before(6);
    // Nothing is written down any more but the remedy: each owner begins where the first did.
    world.options.checkpoint_delay = NEVER;
    let running = world.start();
    world.accept_gap(&running).await;
    running.stored(0, 8).await;
    running.crash().await;
    let first = world.rows().await;
    let running = world.start();
    running.stored(0, 8).await;
    world.append_numbered(8..10).await;
    world.append(0, pack().once(SERIES, 1 << 6, "6")).await;
    running.stored(0, 11).await;
    running.crash().await;
    let second = world.rows().await;
    assert_eq!(second[SERIES].total, first[SERIES].total + (1 << 8) + (1 << 9));
    world.options.checkpoint_delay = tallymark::units::Span::from_millis(0);
    let running = world.start();
    running.checkpointed(0, 11).await;
    running.stop().await;
    assert_eq!(world.rows().await, second, "total, seq and stamp");
    // And over a checkpoint that was written behind the gap, whose window reaches back into it.
    let running = world.start();
    world.append(0, pack().once(SERIES, 1 << 9, "9").once(SERIES, 1 << 10, "10")).await;
    running.stored(0, 12).await;
    running.stop().await;
    assert_eq!(world.totals().await, of([0, 1, 2, 6, 7, 8, 9, 10]));
}

#[tokio::test]
async fn a_dead_letter_amid_what_was_given_up_and_is_stored_is_passed_by_every_owner_alike() {
    let mut world = three_behind_the_checkpoint().await;
    world.options.checkpoint_delay = NEVER;
    world.append_numbered(3..5).await;
    world.log.append(0, FORMAT, b"\xff no pack".to_vec().into()).await.unwrap();
    world.append_numbered(5..8).await;
    let running = world.start();
    running.stored(0, 9).await;
    running.crash().await;
    world.log.remove_before(5);
    let running = world.start();
    let plan = world.accept_gap(&running).await;
    assert!(matches!(plan.remedies[0], Remedy::Gap { from: Seq(3), to: Seq(9), .. }), "{plan:?}");
    world.append_numbered(8..9).await;
    running.stored(0, 10).await;
    running.crash().await;
    let first = world.rows().await;
    let running = world.start();
    running.stored(0, 10).await;
    world.append(0, pack().once(SERIES, 1 << 7, "7").once(SERIES, 1 << 9, "9")).await;
    running.stored(0, 11).await;
    running.stop().await;
    let second = world.rows().await;
    assert_eq!(second[SERIES].total, first[SERIES].total + (1 << 9), "the ids of what is stored are known");
    assert_eq!(world.totals().await, of(0..10));
}

#[tokio::test]
async fn what_is_stored_beyond_the_gap_is_not_counted_again_and_its_ids_are_known() {
    let mut world = three_behind_the_checkpoint().await;
    world.options.checkpoint_delay = NEVER;
    world.append_numbered(3..9).await;
    let running = world.start();
    running.stored(0, 9).await;
    running.crash().await;
    world.log.remove_before(6);
    let running = world.start();
    let plan = world.accept_gap(&running).await;
    assert!(matches!(plan.remedies[0], Remedy::Gap { from: Seq(3), to: Seq(9), .. }), "{plan:?}");
    assert!(plan.says[1].starts_with("Nothing is lost"), "{:?}", plan.says);
    until("it runs", || running.lane(0).state == State::Running).await;
    world.append(0, pack().once(SERIES, 1 << 7, "7").once(SERIES, 1 << 9, "9")).await;
    running.stored(0, 10).await;
    running.stop().await;
    assert_eq!(world.totals().await, of(0..10));
}

#[tokio::test]
async fn rows_that_a_crashed_owner_wrote_beyond_the_gap_stay_true() {
    let mut world = three_behind_the_checkpoint().await;
    world.options.checkpoint_delay = NEVER;
    world.append_numbered(3..9).await;
    // It dies between its rows and the word that they are stored.
    world.store.fail_all(Fault::Away, &[Op::Stored]);
    let running = world.start();
    when("its rows are there", async || (world.totals().await == of(0..9)).then_some(())).await;
    running.crash().await;
    world.store.recover();
    world.log.remove_before(6);
    let running = world.start();
    let plan = world.accept_gap(&running).await;
    assert!(matches!(plan.remedies[0], Remedy::Gap { from: Seq(3), to: Seq(6), .. }), "{plan:?}");
    running.stored(0, 9).await;
    assert_eq!(world.totals().await, of(0..9), "as it was: what the rows say covers what is read again");
    world.append_numbered(9..10).await;
    running.stored(0, 10).await;
    running.stop().await;
    assert_eq!(world.totals().await, of(0..10));
}

#[tokio::test]
async fn a_log_that_was_emptied_past_the_checkpoint_holds_nobody_up_once_that_is_accepted() {
    let world = three_behind_the_checkpoint().await;
    world.append_numbered(3..8).await;
    world.log.remove_before(8);
    let running = world.start();
    world.accept_gap(&running).await;
    // Nothing comes any more, and still everything is said to be done with.
    running.stored(0, 8).await;
    running.checkpointed(0, 8).await;
    running.stop().await;
    let running = world.start();
    world.append_numbered(8..9).await;
    running.checkpointed(0, 9).await;
    running.stop().await;
    assert_eq!(world.totals().await, of([0, 1, 2, 8]));
}

#[tokio::test]
async fn a_first_start_against_a_log_that_does_not_begin_at_0_waits_for_a_word() {
    let world = World::new(1).await;
    world.append_numbered(0..5).await;
    world.log.remove_before(3);
    let running = world.start();
    world.accept_gap(&running).await;
    running.stored(0, 5).await;
    running.stop().await;
    assert_eq!(world.totals().await, of([3, 4]));
}

#[tokio::test]
async fn a_lane_that_is_overtaken_while_it_runs_says_so_and_goes_on_when_it_may() {
    let mut world = World::new(1).await;
    world.options.flush_rows = 1;
    let running = world.start();
    world.append_numbered(0..2).await;
    running.checkpointed(0, 2).await;
    world.store.fail_all(Fault::Away, &[Op::Rows]);
    // One flush is under way and another waits: it is full, and does not read on.
    for n in 2..4 {
        world.append_numbered(n..n + 1).await;
        running.applied(0, n + 1).await;
    }
    world.append_numbered(4..9).await;
    world.log.remove_before(8);
    world.store.recover();
    let reason = running.halted(0).await;
    assert!(reason.contains("the log starts at 8") && reason.contains("accept-gap"), "{reason}");
    world.accept_gap(&running).await;
    running.stored(0, 9).await;
    running.stop().await;
    assert_eq!(world.totals().await, of([0, 1, 2, 3, 8]), "what was applied before is stored");
}

#[tokio::test]
async fn a_log_that_was_cut_under_stored_rows_is_not_gone_on_with() {
    let world = three_behind_the_checkpoint().await;
    world.log.set_bounds(4, 2);
    let running = world.start();
    running.halted(0).await;
    when("it is noted", async || world.noted().await).await;
    let refused = world.gap(None).await.unwrap_err();
    assert!(refused.contains("the log was cut") && refused.contains("begin-epoch"), "{refused}");
    running.stop().await;
}

#[tokio::test]
async fn accepted_claims_are_those_of_one_pack_and_the_lane_goes_on_by_itself() {
    let world = World::new(1).await;
    let topic = world.lane(0).topic_id;
    let running = world.start();
    world.append(0, pack().add(SERIES, 1)).await;
    world.append(0, pack().add(SERIES, 2).claims(topic, 0, PackId([1; 16]))).await;
    world.append(0, pack().add(SERIES, 4)).await;
    let reason = running.halted(0).await;
    assert!(reason.ends_with("accept the loss with `tallymark lanes accept-claim 0 1`"), "{reason}");
    let halt = when("it is noted", async || world.noted().await).await;
    assert!(plan::claim(world.lane(0), Some(&halt), Some(Seq(2))).unwrap_err().contains("of pack 1, not of 2"));
    assert!(world.gap(None).await.unwrap_err().contains("has not halted for a gap"));
    world.record(&plan::claim(world.lane(0), Some(&halt), Some(Seq(1))).unwrap()).await;
    goes_on(&running).await;
    running.stored(0, 3).await;
    world.append(0, pack().add(SERIES, 8).claims(topic, 2, PackId([2; 16]))).await;
    let reason = running.halted(0).await;
    assert!(reason.contains("accept-claim 0 3"), "the next one is another loss: {reason}");
    running.stop().await;
    assert_eq!(world.totals().await, sums([(SERIES, 7)]));
}

#[tokio::test]
async fn an_epoch_that_is_begun_lets_its_lanes_go_on_without_a_restart() {
    let world = World::new(1).await;
    let running = world.start();
    world.append(0, pack().add(SERIES, 1)).await;
    world.append(0, pack().add(SERIES, 10).counts(1, 2 * SHARDS)).await;
    running.halted(0).await;
    let begun = epoch(world.lane(0).topic_id, 1, 2 * SHARDS);
    world.begin(&begun).await;
    goes_on(&running).await;
    running.stored(0, 2).await;
    assert_eq!(world.rows_of(begun.epoch, 2 * SHARDS).await[SERIES].total, 10);
    running.stop().await;
}

#[tokio::test]
async fn a_halt_that_nobody_remedies_is_looked_at_again_and_again_and_stays() {
    let world = World::new(1).await;
    let running = world.start();
    world.append(0, pack().add(SERIES, 1)).await;
    world.log.append(0, FORMAT + 1, pack().add(SERIES, 1).encode()).await.unwrap();
    running.halted(0).await;
    let halt = when("it is noted", async || world.noted().await).await;
    assert_eq!((halt.kind.as_str(), halt.from, halt.command), ("newer", Some(Seq(1)), None));
    let asked = |world: &World| world.store.done(Op::Epochs).len();
    let before = asked(&world);
    until("it has asked twice", || asked(&world) >= before + 2).await;
    assert_eq!(running.lane(0).state, State::Halted);
    running.stop().await;
}

#[tokio::test]
async fn the_hot_view_does_not_show_what_was_given_up() {
    let mut world = three_behind_the_checkpoint().await;
    world.hot = Arc::new(Memory::new(&hot::Options::default()));
    world.append_numbered(3..8).await;
    let (lane, entry) = (world.lane(0), HotKey { kind: HotKind::Counter, key: key("visits").into() });
    for n in 3..8 {
        let delta = Delta { key: entry.clone(), amount: 1 << n };
        world.hot.add(lane, Seq(n), vec![delta]).await.unwrap();
    }
    let load = async |total: i128, seq: u64| {
        let token = world.hot.begin_load(&entry).await.unwrap();
        let base = LoadedBase { lane, base: Some((total, Seq(seq))) };
        assert!(world.hot.finish_load(&entry, token, &[base], &[]).await.unwrap());
    };
    let read = async || world.hot.read(std::slice::from_ref(&entry)).await.unwrap().remove(0);
    load(7, 2).await;
    assert_eq!(read().await, View::Full { total: 255, stale: false });
    world.log.remove_before(6);
    let running = world.start();
    world.accept_gap(&running).await;
    running.stored(0, 8).await;
    running.stop().await;
    let total = world.totals().await["visits *"];
    assert_eq!(total, 7 + 64 + 128);
    if read().await == View::Miss {
        load(total, 7).await;
    }
    assert_eq!(read().await, View::Full { total, stale: false });
}

#[tokio::test]
async fn the_hot_view_has_the_sum_over_the_layouts_of_a_lane() {
    let mut world = World::new(1).await;
    world.hot = Arc::new(Memory::new(&hot::Options::default()));
    world.begin(&epoch(world.lane(0).topic_id, 1, 2 * SHARDS)).await;
    let entries = [(HotKind::Counter, "visits"), (HotKind::Series, SERIES)];
    let entries = entries.map(|(kind, series)| HotKey { kind, key: key(series).into() });
    for entry in &entries {
        let token = world.hot.begin_load(entry).await.unwrap();
        let base = LoadedBase { lane: world.lane(0), base: None };
        assert!(world.hot.finish_load(entry, token, &[base], &[]).await.unwrap());
    }
    let running = world.start();
    let mut expected = 0;
    for (n, shards) in [SHARDS, 2 * SHARDS, SHARDS, 2 * SHARDS].into_iter().enumerate() {
        let (seq, amount) = (Seq(n as u64), 1 << n);
        world.append(0, pack().add(SERIES, amount).counts(1, shards)).await;
        let deltas = entries.iter().map(|key| Delta { key: key.clone(), amount: amount.into() }).collect();
        world.hot.add(world.lane(0), seq, deltas).await.unwrap();
        running.checkpointed(0, seq.0 + 1).await;
        expected += i128::from(amount);
        let shown = world.hot.read(&entries).await.unwrap();
        assert_eq!(shown, [(); 2].map(|()| View::Full { total: expected, stale: false }), "after pack {n}");
    }
    running.stop().await;
}
