//! Schedules that have names: each was a way to break a law once, here or elsewhere. Where chance decides what a quorum
//! sees, several seeds are tried. Every one ends as a random one does: all is made good, the lanes drain, and the laws hold.

use std::time::Duration;

use bytes::Bytes;
use tallymark::{
    item::Seq,
    pack::FORMAT,
    store::Ledger as _,
    units::{Size, Span},
    worker::{Options, board::State},
};
use tokio::time::{Instant, sleep};

use super::{
    gate::Gate,
    halts::Expected,
    hot,
    ingest::Item,
    letters, log, schedule,
    sim::Sim,
    store::Client,
    worker::Settings,
    world::{Shape, World},
};

pub fn shape() -> Shape {
    let settings = Settings { options: Options::default(), batch_rows: 100, in_flight: 32, publish_budget: 50_000 };
    Shape {
        partitions: 1,
        shards: 4,
        series: 6,
        ingests: 2,
        window_ms: 600_000,
        max_ids: 1_000_000,
        settings,
        synced_within: Duration::from_secs(10),
        hot_memory: Size::mib(1),
        hot_pending: 512,
    }
}

/// A schedule over a world of this shape, once for each seed; then what every world must end with.
pub fn play<F: AsyncFn(&mut World)>(seeds: u64, shape: &Shape, schedule: F) {
    for seed in 0..seeds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (violation, trace) = runtime.block_on(async {
            tallymark::retry::seed_jitter(seed);
            let sim = Sim::new(seed, true);
            let mut world = World::new(sim.clone(), shape.clone());
            schedule(&mut world).await;
            if sim.violation().is_none() {
                schedule::end(&mut world).await;
            }
            (sim.violation(), sim.trace())
        });
        assert_eq!(violation, None, "seed {seed}\n{}", trace.join("\n"));
    }
}

pub fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

impl World {
    pub fn add(&self, series: usize, amount: i64) {
        self.intake.ask(0, vec![Item::Increment { series, amount, id: None }]);
    }

    pub fn once(&self, series: usize, amount: i64) -> Vec<Item> {
        let items = vec![Item::Increment { series, amount, id: Some(self.intake.fresh_id()) }];
        self.intake.ask(0, items.clone());
        items
    }

    /// What the owner of a lane shows, once that holds.
    pub async fn until(&mut self, what: &str, holds: impl Fn(State, Seq, Seq) -> bool) {
        let deadline = Instant::now() + secs(300);
        while self.sim.violation().is_none() {
            self.look().await;
            let owner = self.broker.group.owner(0);
            let process = self.processes.iter().find(|process| Some(process.number) == owner);
            let status = process.and_then(|process| process.lanes().remove(&0));
            if status.is_some_and(|status| holds(status.state, status.stored, status.checkpoint)) {
                return;
            }
            if Instant::now() > deadline {
                self.sim.violated(|| format!("waited too long until {what}"));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn stored(&mut self) {
        sleep(Duration::from_millis(100)).await;
        let end = self.broker.bounds_of(0).end;
        self.until("all is stored", |_, stored, _| stored >= end).await;
    }

    pub async fn checkpointed(&mut self) {
        sleep(Duration::from_millis(100)).await;
        let end = self.broker.bounds_of(0).end;
        self.until("the checkpoint has passed all", |_, _, checkpoint| checkpoint >= end).await;
    }

    pub async fn halted(&mut self) {
        self.until("the lane has halted", |state, _, _| state == State::Halted).await;
    }
}

#[test]
fn a_forgetful_node_of_an_exact_quorum_and_an_evicted_row() {
    let mut shape = shape();
    shape.series = 12;
    shape.settings.options.max_rows = 10;
    shape.settings.options.slice_rows = 2;
    play(40, &shape, async |world| {
        world.start();
        world.add(0, 5);
        world.checkpointed().await;
        // Two of three take it, and one of these two forgets it.
        world.set_up(2, false);
        world.add(0, 7);
        world.stored().await;
        world.set_up(2, true);
        world.power_cut(0, secs(10));
        // Others need its place in memory; then it is met again, before anybody has asked the servers.
        for series in 1..12 {
            world.add(series, 1);
        }
        world.add(0, 11);
        world.stored().await;
    });
}

#[test]
fn a_zombie_and_a_row_whose_deltas_sum_to_zero() {
    play(20, &shape(), async |world| {
        world.start();
        world.add(0, 5);
        world.checkpointed().await;
        world.add(0, 5);
        sleep(Duration::from_millis(500)).await;
        // Its flush is due, and hangs on the way.
        world.freeze(0);
        sleep(secs(12)).await;
        world.start();
        world.intake.ask(
            0,
            vec![
                Item::Increment { series: 0, amount: 9, id: None },
                Item::Increment { series: 0, amount: -9, id: None },
            ],
        );
        sleep(secs(15)).await;
        world.recover(0);
        sleep(secs(5)).await;
    });
}

#[test]
fn a_flush_of_the_view_between_a_loaders_read_and_its_publish() {
    play(60, &shape(), async |world| {
        world.start();
        world.add(0, 5);
        world.stored().await;
        world.view.set_trouble(hot::Trouble { slow_ms: 3000, ..hot::Trouble::default() });
        world.load(0, 1);
        sleep(Duration::from_millis(world.sim.chance.between(0, 4000))).await;
        world.add(0, 7);
        world.view.flush();
        sleep(Duration::from_millis(world.sim.chance.between(0, 4000))).await;
        world.add(0, 11);
        sleep(secs(20)).await;
        world.check_view("when all is published").await;
    });
}

#[test]
fn an_entry_evicted_between_two_writes() {
    let mut shape = shape();
    (shape.series, shape.hot_memory) = (24, Size(4096));
    play(20, &shape, async |world| {
        world.start();
        for round in 0..6 {
            for series in 0..24 {
                world.add(series, 1 + round);
                world.load(series, (round % 2) as usize);
                sleep(Duration::from_millis(world.sim.chance.below(300))).await;
            }
        }
        world.stored().await;
        world.check_view("when all is published").await;
    });
}

#[test]
fn the_view_away_while_a_publish_is_owed_and_then_its_worker_is_killed() {
    play(20, &shape(), async |world| {
        world.start();
        let twice = world.once(0, 5);
        world.stored().await;
        world.load(0, 0);
        world.load(0, 1);
        sleep(secs(1)).await;
        // Too much is shown until the lane has dropped it, and the lane cannot say so.
        world.intake.ask(1, twice);
        sleep(Duration::from_millis(200)).await;
        world.view.set_trouble(hot::Trouble { away: true, ..hot::Trouble::default() });
        world.checkpointed().await;
        world.crash(0).await;
        world.view.set_trouble(hot::Trouble::default());
        world.start();
        sleep(secs(40)).await;
        world.check_view("after a takeover").await;
    });
}

#[test]
fn a_pack_appended_twice_whose_items_carry_no_id() {
    play(5, &shape(), async |world| {
        world.start();
        world.broker.set_trouble(log::Trouble { twice: 1000, ..log::Trouble::default() });
        for series in 0..6 {
            world.add(series, 3);
        }
        world.checkpointed().await;
        world.crash(0).await;
        world.add(0, 4);
        world.start();
        world.checkpointed().await;
    });
}

#[test]
fn sums_past_64_bits_that_come_back() {
    play(5, &shape(), async |world| {
        world.start();
        let both = |amount: i64| vec![Item::Increment { series: 0, amount, id: None }; 3];
        world.intake.ask(0, both(i64::MAX));
        world.stored().await;
        world.intake.ask(0, both(i64::MIN));
        world.stored().await;
        world.crash(0).await;
        world.start();
        world.intake.ask(0, both(1));
        world.checkpointed().await;
    });
}

#[test]
fn retention_that_empties_an_idle_lane() {
    let shape = Shape { window_ms: 90_000, ..shape() };
    play(5, &shape, async |world| {
        world.start();
        world.add(0, 5);
        world.add(1, 7);
        world.checkpointed().await;
        for _ in 0..20 {
            sleep(secs(10)).await;
            world.look().await;
        }
        world.retain(0);
        let bounds = world.broker.bounds_of(0);
        assert_eq!((bounds.start, bounds.end), (Seq(2), Seq(2)), "nothing is left");
        world.crash(0).await;
        world.start();
        sleep(secs(20)).await;
        world.add(0, 1);
        world.checkpointed().await;
    });
}

#[test]
fn partitions_added_under_the_same_topic_id() {
    let shape = Shape { partitions: 2, series: 16, ..shape() };
    play(10, &shape, async |world| {
        world.start();
        for series in 0..16 {
            world.add(series, 3);
        }
        sleep(secs(5)).await;
        world.is_loose = true;
        world.broker.add_partitions(1);
        world.intake.restart(0);
        // The other ingest still writes in the old layout.
        for series in 0..16 {
            world.add(series, 1);
            world.intake.ask(1, vec![Item::Increment { series, amount: 2, id: None }]);
            sleep(Duration::from_millis(100)).await;
        }
    });
}

#[test]
fn a_first_start_against_a_log_that_does_not_begin_at_0() {
    play(2, &shape(), async |world| {
        world.add(0, 1);
        world.add(0, 2);
        sleep(secs(1)).await;
        world.broker.remove_front(0, 1);
        world.sim.taint(world.lane(0));
        world.damaged.insert(0, Expected { kinds: vec!["Gap"], must: true, ..Expected::default() });
        world.start();
        world.halted().await;
    });
}

#[test]
fn a_log_cut_behind_rows_that_are_stored_already() {
    play(10, &shape(), async |world| {
        world.start();
        world.add(0, 1);
        world.checkpointed().await;
        world.add(0, 2);
        world.add(0, 3);
        world.stored().await;
        world.crash(0).await;
        world.sim.taint(world.lane(0));
        world.broker.cut(0, 1);
        // It grows again, past what is stored, by packs of whoever knows nothing.
        (0..2).for_each(|at| world.intake.restart(at));
        for _ in 0..world.sim.chance.below(5) {
            world.add(0, 5);
            sleep(secs(1)).await;
        }
        let kinds = vec!["Cut", "Replaced", "Stamp", "Base"];
        world.damaged.insert(0, Expected { kinds, must: true, ..Expected::default() });
        world.start();
        world.halted().await;
    });
}

#[test]
fn a_log_cut_and_grown_past_what_is_stored_where_no_row_tells() {
    play(20, &shape(), async |world| {
        world.start();
        world.add(0, 1);
        world.checkpointed().await;
        // Of events no row is read again.
        let event = |world: &World| vec![Item::Event { id: world.intake.fresh_id(), with_subject: false }];
        for _ in 0..10 {
            world.intake.ask(0, event(world));
            sleep(Duration::from_millis(100)).await;
        }
        world.stored().await;
        world.crash(0).await;
        world.sim.taint(world.lane(0));
        world.broker.cut(0, 1);
        (0..2).for_each(|at| world.intake.restart(at));
        for _ in 0..14 {
            world.intake.ask(0, event(world));
            sleep(Duration::from_millis(100)).await;
        }
        world.damaged.insert(0, Expected { kinds: vec!["Base"], must: true, ..Expected::default() });
        // Somebody may store less of it than was stored of the log as it was.
        world.broker.set_trouble(log::Trouble { slow_ms: 2000, ..log::Trouble::default() });
        world.start();
        sleep(Duration::from_millis(world.sim.chance.between(9_000, 20_000))).await;
        world.crash(0).await;
        world.broker.set_trouble(log::Trouble::default());
        world.start();
        world.halted().await;
    });
}

#[test]
fn a_newer_format_met_by_an_older_worker() {
    play(2, &shape(), async |world| {
        world.start();
        world.add(0, 1);
        sleep(secs(1)).await;
        world.broker.put(0, FORMAT + 1, Bytes::from_static(b"of the future"), None);
        world.add(0, 2);
        world.halted().await;
    });
}

#[test]
fn another_dedup_window_in_the_middle_of_a_rolling_restart() {
    play(5, &shape(), async |world| {
        world.start();
        let items = world.once(0, 5);
        world.checkpointed().await;
        // The next worker is configured otherwise, and begins the epoch as it knows it.
        let mut other = world.watcher.epochs().remove(0);
        (other.dedup_window_us, other.dedup_max_ids, other.created_ms) = (1, 1, 9);
        let client = Client::new(world.servers.clone(), Gate::new(), 0);
        client.begin_epoch("", &other).await.unwrap();
        world.start();
        world.broker.group.shuffle();
        sleep(secs(20)).await;
        world.intake.ask(1, items.clone());
        world.leave(0);
        sleep(secs(20)).await;
        world.intake.ask(0, items);
        world.checkpointed().await;
    });
}

#[test]
fn retries_at_the_edge_of_the_window_after_a_clock_blip() {
    let mut shape = Shape { window_ms: 20_000, ..shape() };
    shape.settings.options.checkpoint_delay = Span::from_secs(6);
    shape.synced_within = secs(2);
    play(40, &shape, async |world| {
        // Which of them count the stamps decide, and every worker must find the same.
        world.is_loose = true;
        world.start();
        let items = world.once(0, 5);
        sleep(secs(8)).await;
        world.broker.set_skew(0, [2_000, -2_000, 3_600_000][world.sim.chance.below(3) as usize]);
        world.once(1, 1);
        sleep(secs(1)).await;
        world.broker.set_skew(0, 0);
        sleep(Duration::from_millis(10_900 + world.sim.chance.below(200))).await;
        world.intake.ask(1, items.clone());
        if world.sim.chance.permille(500) {
            world.crash(0).await;
            world.start();
        }
        sleep(Duration::from_millis(19_900 + world.sim.chance.below(200))).await;
        world.intake.ask(0, items);
        world.checkpointed().await;
    });
}

#[test]
fn the_dead_letter_log_away_when_a_lane_meets_what_nobody_can_read() {
    play(10, &shape(), async |world| {
        let away = letters::Trouble { away: true, ..letters::Trouble::default() };
        world.broker.set_trouble(log::Trouble { letters: away, ..log::Trouble::default() });
        world.start();
        world.add(0, 1);
        world.checkpointed().await;
        let before = world.broker.bounds_of(0).end.0;
        world.intake.put_damaged(0);
        world.add(0, 2);
        // Long enough for every checkpoint: none passes the letter.
        for _ in 0..60 {
            sleep(secs(1)).await;
            world.until("it waits", |_, stored, checkpoint| stored.0.max(checkpoint.0) <= before).await;
        }
        if world.sim.chance.permille(500) {
            world.crash(0).await;
            world.start();
        }
        world.broker.set_trouble(log::Trouble::default());
        world.stored().await;
        world.intake.replay(0);
        world.checkpointed().await;
        world.crash(0).await;
        world.intake.replay(1);
        world.start();
        world.checkpointed().await;
    });
}

#[test]
fn a_halted_lane_whose_last_rows_the_store_forgets() {
    play(5, &shape(), async |world| {
        world.start();
        world.add(0, 1);
        sleep(Duration::from_millis(100)).await;
        world.broker.put(0, FORMAT + 1, Bytes::from_static(b"of the future"), None);
        world.halted().await;
        (0..3).for_each(|at| world.power_cut(at, secs(10)));
    });
}
