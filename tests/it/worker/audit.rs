//! The audit over the real worker: rows that somebody garbles, loses or invents behind the lanes' backs are found at equal seqs
//! and mended through the log; lag, load and what retention has removed are never called wrong.

use std::sync::Arc;

use tallymark::{
    audit::{self, Deps, From, Options, Report, report::Kind},
    hot::{self, HotView as _},
    item::{Seq, Stamp},
    log::Log as _,
    pack::FORMAT,
    store::{Checkpoint, EpochRow, Ledger as _, RowName, TotalRow},
    units::Span,
};

use super::{
    fixture::{NEVER, World, epoch, sums},
    packs::{key, pack, series_of, shard},
};
use crate::support::until;

async fn audit_with(world: &World, options: &Options) -> Report {
    let deps = Deps { log: world.log.clone(), store: world.store.clone(), hot: world.hot.clone() };
    audit::run(&deps, options, |_| {}).await.unwrap()
}

async fn audit(world: &World) -> Report {
    audit_with(world, &Options { naive: true, ..Options::default() }).await
}

async fn repair(world: &World) -> Report {
    audit_with(world, &Options { repair: true, ..Options::default() }).await
}

/// What is wrong, largest first: kind, series (`*`: the whole counter), found and expected.
fn wrong(report: &Report) -> Vec<(Kind, String, Option<i128>, Option<i128>)> {
    let mut wrong: Vec<_> = report
        .worst
        .iter()
        .map(|drift| (drift.kind, drift.tags.clone().unwrap_or("*".to_owned()), drift.found, drift.expected))
        .collect();
    wrong.sort();
    wrong
}

/// Puts another total into a series' row, as if it had been written after the lane's last write.
async fn garble(world: &World, series: &str, change: impl Fn(&mut TotalRow)) {
    let key = world.shard_key(shard(series));
    let name = series.split_once(' ').unwrap().1;
    let mut row = world.store.rows(&key).await.into_iter().find(|row| &*row.name.tags == name).unwrap();
    change(&mut row);
    row.stamp.0 += 1;
    world.store.plant(&key, row).await;
}

/// Begins the first epoch, which pins the dedup window: none, so that it is full at once.
async fn without_window(world: &World) {
    let epoch = epoch(world.lane(0).topic_id, 1, 2);
    world.begin(&EpochRow { dedup_window_us: 0, created_ms: -1, ..epoch }).await;
}

async fn some_packs(world: &World) {
    for n in 0..10 {
        let draft = pack().add("visits k=0", 1).add("visits k=1", 10).once("visits k=2", 100, &format!("{}", n / 2));
        world.append(0, draft).await;
    }
}

#[tokio::test]
async fn what_a_lane_has_stored_is_clean_and_lag_is_no_drift() {
    let world = World::new(1).await;
    assert!(audit(&world).await.clean, "nothing was ever counted");
    let running = world.start();
    some_packs(&world).await;
    running.checkpointed(0, 10).await;
    running.stop().await;
    let report = audit(&world).await;
    assert!(report.clean, "{report:?}");
    assert_eq!((report.counts.fine, report.counts.unchecked), (4, 0));
    let lane = &report.lanes[0];
    assert_eq!((lane.whole, lane.items, lane.duplicates, lane.naive), (true, 25, 5, Some(true)));
    let control = lane.control.unwrap();
    assert!(control.agrees() && control.to == 9 && control.log.amount == 610, "{control:?}");
    assert_eq!(lane.sum.unwrap().rows, 610);

    // Packs that nobody has applied, in rows that are there and in one that is not.
    world.append(0, pack().add("visits k=0", 5).add("visits k=9", 7)).await;
    let report = audit(&world).await;
    assert!(report.clean && report.counts.fine == 4, "{report:?}");
}

#[tokio::test]
async fn lost_doubled_stale_and_foreign_rows_are_found_and_mended_and_then_it_is_clean() {
    let world = World::new(1).await;
    let running = world.start();
    some_packs(&world).await;
    running.checkpointed(0, 10).await;
    let early = world.store.memory().rows();
    world.append(0, pack().add("visits k=5", 3)).await;
    running.checkpointed(0, 11).await;
    running.stop().await;
    let before = world.rows().await;
    // The rows of the last pack are gone, or as they were.
    world.store.memory().forget_since(early);
    garble(&world, "visits k=0", |row| row.total -= 4).await;
    garble(&world, "visits k=1", |row| row.total *= 2).await;
    let foreign = TotalRow {
        name: RowName { counter: "visits".into(), tags: "k=77".into() },
        total: 1_000,
        seq: Seq(4),
        stamp: Stamp(5),
    };
    world.store.plant(&world.shard_key(shard("visits k=77")), foreign).await;

    let report = audit(&world).await;
    assert!(!report.clean);
    let expected = [
        (Kind::Lost, "k=0", Some(6), Some(10)),
        (Kind::Lost, "k=5", None, Some(3)),
        (Kind::Doubled, "k=1", Some(200), Some(100)),
        (Kind::Stale, "*", Some(610), Some(613)),
        (Kind::Foreign, "k=77", Some(1_000), Some(0)),
    ];
    let expected: Vec<_> = expected.map(|(kind, tags, found, total)| (kind, tags.to_owned(), found, total)).to_vec();
    assert_eq!(wrong(&report), expected, "{report:?}");
    assert_eq!(report.counts.fine, 1, "k=2");
    assert_eq!(report.worst[0].expected, Some(0), "the largest first");
    assert_eq!(world.end(0).await, Seq(11), "an audit alone appends nothing");

    let mended = repair(&world).await;
    assert_eq!(mended.repairs.iter().map(|repair| repair.rows).sum::<u64>(), 5, "{mended:?}");
    // Nobody has applied it yet: it is wrong still, and not repaired again.
    let waiting = repair(&world).await;
    assert_eq!((waiting.clean, waiting.counts.pending, waiting.repairs.len()), (false, 5, 0), "{waiting:?}");
    let running = world.start();
    let end = world.end(0).await.0;
    running.checkpointed(0, end).await;
    running.stop().await;
    let report = audit(&world).await;
    assert!(report.clean, "{report:?}");
    let mut totals = world.totals().await;
    assert_eq!(totals.remove("visits k=77"), Some(0));
    assert_eq!(totals, before.into_iter().map(|(name, row)| (name, row.total)).collect());
    let again = repair(&world).await;
    assert!(again.clean && again.repairs.is_empty() && world.end(0).await.0 == end, "nothing left to repair");
}

#[tokio::test]
async fn a_row_that_the_lane_has_right_in_memory_is_mended_and_not_corrected_twice() {
    let world = World::new(1).await;
    let running = world.start();
    some_packs(&world).await;
    running.checkpointed(0, 10).await;
    // The lane lives on, and knows nothing of it.
    garble(&world, "visits k=0", |row| row.total += 500).await;
    // Two operators at once.
    let (first, second) = tokio::join!(repair(&world), repair(&world));
    assert!(!first.clean && !second.clean);
    world.append(0, pack().add("visits k=0", 1)).await;
    let end = world.end(0).await.0;
    running.checkpointed(0, end).await;
    assert_eq!(world.totals().await, sums([("visits k=0", 11), ("visits k=1", 100), ("visits k=2", 500)]));
    let report = audit(&world).await;
    assert!(report.clean, "{report:?}");
    running.stop().await;
}

#[tokio::test]
async fn a_lane_that_has_loaded_a_wrong_row_is_found_while_it_counts_and_mended() {
    let world = World::new(1).await;
    let running = world.start();
    some_packs(&world).await;
    running.checkpointed(0, 10).await;
    running.stop().await;
    garble(&world, "visits k=0", |row| row.total += 500).await;
    let running = world.start();
    for n in 0..20 {
        world.append(0, pack().add("visits k=0", 1)).await;
        running.stored(0, 11 + n).await;
        let report = audit(&world).await;
        assert!(report.counts.doubled == 1 || report.counts.moved == 1, "{report:?}");
    }
    running.checkpointed(0, 30).await;
    let report = repair(&world).await;
    assert_eq!(wrong(&report), [(Kind::Doubled, "k=0".to_owned(), Some(530), Some(30))]);
    running.checkpointed(0, 31).await;
    world.append(0, pack().add("visits k=0", 1)).await;
    running.checkpointed(0, 32).await;
    assert_eq!(world.totals().await["visits k=0"], 31);
    assert!(audit(&world).await.clean);
    running.stop().await;
}

#[tokio::test]
async fn an_audit_under_load_reports_nothing() {
    let mut world = World::new(2).await;
    world.hot = Arc::new(hot::memory::Memory::new(&hot::Options::default()));
    let world = Arc::new(world);
    let running = world.start();
    let load = tokio::spawn({
        let world = world.clone();
        async move {
            let series = [series_of(0, 2, 30), series_of(1, 2, 30)];
            for n in 0..400_usize {
                for (partition, of) in (0..).zip(&series) {
                    let draft = pack().add(&of[n % 30], 1).once(&of[n * 7 % 30], 3, &format!("{}", n / 3));
                    world.append(partition, draft).await;
                }
                tokio::task::yield_now().await;
            }
        }
    });
    let mut audits = 0;
    while !load.is_finished() {
        let report = audit(&world).await;
        assert!(report.clean, "{report:?}");
        audits += 1;
    }
    load.await.unwrap();
    running.stored(0, 400).await;
    running.stored(1, 400).await;
    let report = audit(&world).await;
    assert!(audits > 0 && report.clean && report.counts.moved == 0 && report.counts.fine > 60, "{report:?}");
    running.stop().await;
}

#[tokio::test]
async fn rows_whose_history_is_gone_are_unchecked_and_the_lane_s_sum_still_tells() {
    let world = World::new(1).await;
    let running = world.start();
    some_packs(&world).await;
    running.checkpointed(0, 10).await;
    running.stop().await;
    // Retention has removed the first packs. The window cannot be full before the log ends.
    world.log.set_bounds(3, 10);
    let report = audit(&world).await;
    let lane = &report.lanes[0];
    assert!(report.clean && !lane.whole, "{report:?}");
    assert_eq!((report.counts.fine, report.counts.unchecked), (0, 4));
    assert_eq!(lane.sum.map(|sum| (sum.rows, sum.checkpoint)), Some((610, 610)));
    garble(&world, "visits k=1", |row| row.total += 1).await;
    let report = audit(&world).await;
    assert!(!report.clean && report.counts.drift() == 0, "one of them is wrong, and nobody knows which: {report:?}");
    assert_eq!(report.lanes[0].sum.unwrap().rows, 611);
    let report = repair(&world).await;
    assert_eq!((report.repairs.len(), world.end(0).await), (0, Seq(10)), "what is not known is not repaired");
}

#[tokio::test]
async fn between_two_checkpoints_a_log_without_its_beginning_is_checked_by_its_control_totals() {
    let mut world = World::new(1).await;
    world.options.checkpoint_delay = Span::from_millis(0);
    without_window(&world).await;
    let running = world.start();
    some_packs(&world).await;
    running.checkpointed(0, 10).await;
    running.stop().await;
    let topic = tallymark::log::Log::topology(&*world.log).topic.clone();
    let from = Options { from: Some(From::Seq(4)), naive: true, ..Options::default() };
    let report = audit_with(&world, &from).await;
    assert!(report.clean, "{report:?}");
    assert_eq!((report.lanes[0].from, report.lanes[0].whole, report.counts.unchecked), (4, false, 4));

    // A checkpoint that claims more than the log has.
    let row = world.store.known(&topic).await.remove(0).checkpoint.unwrap();
    let mut lies = Checkpoint { stamp: Stamp(row.stamp.0 + 1), ..row };
    lies.counted.items += 1;
    world.store.write_checkpoint(&topic, &lies).await.unwrap();
    let report = audit(&world).await;
    let control = report.lanes[0].control.unwrap();
    assert!(!report.clean && !control.agrees(), "{report:?}");
    assert_eq!(control.checkpoints.items, control.log.items + 1);
}

#[tokio::test]
async fn a_wrong_base_in_the_hot_view_is_found_and_a_correction_rewrites_it() {
    let mut world = World::new(1).await;
    let view = Arc::new(hot::memory::Memory::new(&hot::Options::default()));
    world.hot = view.clone();
    let running = world.start();
    some_packs(&world).await;
    running.checkpointed(0, 10).await;
    let (lane, entry) = (world.lane(0), hot::HotKey { kind: hot::HotKind::Series, key: key("visits k=0").into() });
    let token = view.begin_load(&entry).await.unwrap();
    let base = hot::LoadedBase { lane, base: Some((777, Seq(9))) };
    assert!(view.finish_load(&entry, token, &[base], &[]).await.unwrap());
    let report = audit(&world).await;
    assert_eq!(wrong(&report), [(Kind::Hot, "k=0".to_owned(), Some(777), Some(10))], "{report:?}");
    assert_eq!((report.counts.hot, report.counts.fine), (1, 4));
    assert_eq!(repair(&world).await.repairs.len(), 1);
    running.stored(0, 11).await;
    until("the view is rewritten", || true).await;
    let value = || async { view.read(std::slice::from_ref(&entry)).await.unwrap() };
    for _ in 0..1_000 {
        if value().await == [hot::View::Full { total: 10, stale: false }] {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(audit(&world).await.clean);
    running.stop().await;
}

#[tokio::test]
async fn too_many_rows_are_refused_by_name() {
    let mut world = World::new(1).await;
    world.options.flush_age = NEVER;
    some_packs(&world).await;
    let running = world.start();
    running.applied(0, 10).await;
    running.stop().await;
    let deps = Deps { log: world.log.clone(), store: world.store.clone(), hot: world.hot.clone() };
    let refused = audit::run(&deps, &Options { max_rows: 3, ..Options::default() }, |_| {}).await.unwrap_err();
    assert!(refused.to_string().contains("--max-rows"), "{refused}");
}

#[tokio::test]
async fn dead_letters_are_passed_and_their_replays_counted_once_as_the_lane_does() {
    let world = World::new(1).await;
    let running = world.start();
    world.append(0, pack().add("visits k=0", 1)).await;
    world.log.append(0, FORMAT, [0xff_u8; 40].to_vec().into()).await.unwrap();
    world.append(0, pack().add("visits k=0", 10)).await;
    let lane = world.lane(0);
    // The letter's replay, and once more under another id.
    for _ in 0..2 {
        let mut replay = tallymark::pack::decode(1, pack().add("visits k=1", 100).encode()).unwrap();
        let topic_id = bytes::Bytes::copy_from_slice(&lane.topic_id.0);
        replay.replayed = Some(tallymark::pack::Coordinates { topic_id, partition: 0, seq: 1 });
        world.log.append(0, FORMAT, replay.encode_record()).await.unwrap();
    }
    running.checkpointed(0, 5).await;
    running.stop().await;
    let report = audit(&world).await;
    assert!(report.clean && report.counts.fine == 3, "{report:?}");
    let lane = &report.lanes[0];
    assert_eq!((lane.items, lane.duplicates, lane.naive), (3, 1, Some(true)));
    assert_eq!(world.totals().await, sums([("visits k=0", 11), ("visits k=1", 100)]));
}

#[tokio::test]
async fn behind_an_accepted_gap_nothing_is_called_wrong_and_the_control_totals_are_held_against_the_log() {
    let mut world = World::new(1).await;
    world.options.checkpoint_delay = Span::from_millis(0);
    without_window(&world).await;
    let running = world.start();
    world.append_numbered(0..3).await;
    running.checkpointed(0, 3).await;
    running.stop().await;
    world.append_numbered(3..8).await;
    world.log.remove_before(6);
    let running = world.start();
    world.accept_gap(&running).await;
    running.checkpointed(0, 8).await;
    world.append_numbered(8..12).await;
    running.checkpointed(0, 12).await;
    running.stop().await;
    let report = audit(&world).await;
    let lane = &report.lanes[0];
    assert!(report.clean && !lane.whole && lane.from >= 6, "{report:?}");
    assert_eq!((report.counts.drift(), lane.naive), (0, Some(true)), "{report:?}");
    assert!(lane.items >= 4, "{lane:?}");

    // What comes after is compared as ever: of a row that begins there, all of it.
    let running = world.start();
    world.append(0, pack().add("visits k=new", 5)).await;
    running.checkpointed(0, 13).await;
    running.stop().await;
    let topic = world.log.topology().topic.clone();
    let row = world.store.known(&topic).await.remove(0).checkpoint.unwrap();
    let mut lies = Checkpoint { stamp: Stamp(row.stamp.0 + 1), ..row };
    lies.counted.amount += 1;
    world.store.write_checkpoint(&topic, &lies).await.unwrap();
    let report = audit(&world).await;
    assert!(!report.clean, "its sum is not what its rows add up to: {report:?}");
}

#[tokio::test]
async fn every_event_that_a_checkpoint_covers_is_looked_for_and_one_that_is_lacking_is_lost() {
    let world = World::new(1).await;
    let running = world.start();
    for n in 0..5 {
        world
            .append(0, pack().event("signup", "", &n.to_string(), 10).event("login", "alice", &(n / 2).to_string(), 10))
            .await;
    }
    running.checkpointed(0, 5).await;
    let before = world.store.memory().rows();
    world.append(0, pack().event("signup", "bob", "9", 10).add("visits k=0", 1)).await;
    running.checkpointed(0, 6).await;
    running.stop().await;
    // What no checkpoint covers is lag, and no drift.
    world.append(0, pack().event("signup", "", "10", 10)).await;
    let report = audit(&world).await;
    assert!(report.clean && report.counts.events == 9, "{report:?}");

    world.store.memory().forget_since(before);
    let report = repair(&world).await;
    assert!(!report.clean && report.counts.events == 8, "{report:?}");
    let events: Vec<_> =
        report.worst.iter().filter_map(|drift| Some((drift.kind, drift.event.as_ref()?.id.clone()))).collect();
    assert_eq!(events, [(Kind::Lost, "9".to_owned())]);
    assert!(report.notes.iter().any(|note| note.contains("1 events cannot be repaired")), "{:?}", report.notes);
    let skipped = audit_with(&world, &Options { events: false, ..Options::default() }).await;
    assert_eq!((skipped.counts.events, skipped.worst.iter().filter(|drift| drift.event.is_some()).count()), (0, 0));
}
