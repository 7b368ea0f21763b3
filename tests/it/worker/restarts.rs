//! Servers of the store that forget what they have acknowledged (law 5): the lanes see that they have started again, and
//! go back to their checkpoints. The clock runs when everything waits, so a schedule's times are exact.

use std::{collections::VecDeque, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tallymark::{
    item::{Namespace, Seq},
    store::{Events as _, EventsBy, EventsPage, Generation, memory::Rows},
    units::Span,
};
use tokio::time::{Instant, sleep};

use super::{
    fixture::{Running, World, sums},
    packs::{pack, series_of},
    store::{ALL, Fault, Op},
};
use crate::support::until;

/// How far the checkpoint trails.
const DELAY: Duration = Duration::from_secs(3);
/// A server forgets no more than this: less than two thirds of the delay.
const FORGOTTEN: Duration = Duration::from_millis(1_900);
/// Longer than it takes until the servers are asked again.
const ASKED: Duration = Duration::from_secs(1);

async fn world(servers: &[&str]) -> World {
    let mut world = World::new(1).await;
    world.options.checkpoint_delay = Span(DELAY);
    world.options.flush_age = Span::from_millis(40);
    for server in servers {
        world.is_in(server, 1);
    }
    world
}

impl World {
    /// The server answers, in this life.
    fn is_in(&self, server: &str, life: i64) {
        self.store.memory().set_server(server, Some(Generation(life)));
    }

    fn is_away(&self, server: &str) {
        self.store.memory().set_server(server, None);
    }

    /// A pack for a series, with an event of the same name.
    async fn count(&self, series: &str, id: u64) {
        self.append(0, pack().add(series, 1).event("e", "s", &format!("{id:05}"), 5)).await;
    }

    /// The ids of the events, by name and by subject.
    async fn event_ids(&self, by: EventsBy) -> Vec<String> {
        let namespace = Namespace::default();
        let page = EventsPage { namespace, by, from_ms: 0, to_ms: i64::MAX, before: None, limit: usize::MAX };
        let mut ids: Vec<_> = self.store.events(&page).await.unwrap().iter().map(|row| row.id.to_string()).collect();
        ids.sort();
        ids
    }

    /// Whether the store has one event for each of so many ids, and these totals.
    async fn holds(&self, expected: &[(&str, i128)], events: u64, what: &str) {
        assert_eq!(self.totals().await, sums(expected.iter().copied()), "{what}");
        let ids: Vec<_> = (0..events).map(|id| format!("{id:05}")).collect();
        assert_eq!(self.event_ids(EventsBy::Name("e".into())).await, ids, "{what}");
        assert_eq!(self.event_ids(EventsBy::Subject("s".into())).await, ids, "{what}");
    }

    /// How often the lane was taken over.
    fn runs(&self) -> usize {
        self.store.done(Op::Lanes).len()
    }
}

async fn checkpoint_passes(running: &Running, end: u64, within: Duration) {
    let deadline = Instant::now() + within;
    while running.lane(0).checkpoint < Seq(end) {
        assert!(Instant::now() < deadline, "the checkpoint does not pass {end}: {:?}", running.lane(0));
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_server_has_forgotten_when_it_starts_again_is_written_again() {
    let world = world(&["a"]).await;
    let series = series_of(0, 1, 2);
    let running = world.start();
    world.count(&series[0], 0).await;
    running.checkpointed(0, 1).await;
    let before = world.store.memory().rows();
    world.count(&series[1], 1).await;
    running.stored(0, 2).await;

    world.store.memory().forget_since(before);
    world.is_in("a", 2);
    world.holds(&[(&series[0], 1)], 1, "the store lacks what it has acknowledged").await;
    running.checkpointed(0, 2).await;
    running.stop().await;
    world.holds(&[(&series[0], 1), (&series[1], 1)], 2, "the lane repeats it").await;
    assert_eq!(world.runs(), 2);
}

/// What a schedule may do at its next step.
struct Cut {
    /// When the servers are there again.
    back: Instant,
    life: i64,
}

async fn schedule(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let what = format!("seed {seed}");
    let world = world(&["a"]).await;
    let series = series_of(0, 1, 12);
    let running = world.start();
    let mut counted = vec![0; series.len()];
    let (mut events, mut life, mut cut) = (0, 1, None::<Cut>);
    let mut history: VecDeque<(Instant, Rows)> = VecDeque::new();
    for _ in 0..rng.random_range(20..80) {
        sleep(Duration::from_millis(rng.random_range(0..300))).await;
        while history.front().is_some_and(|(at, _)| at.elapsed() > FORGOTTEN) {
            history.pop_front();
        }
        history.push_back((Instant::now(), world.store.memory().rows()));
        if cut.as_ref().is_some_and(|cut| cut.back <= Instant::now()) {
            let cut = cut.take().unwrap();
            world.is_in("a", cut.life);
            world.store.recover();
        }
        if rng.random_bool(0.8) {
            let chosen = rng.random_range(0..series.len());
            world.count(&series[chosen], events).await;
            (counted[chosen], events) = (counted[chosen] + 1, events + 1);
        }
        if cut.is_none() && rng.random_bool(0.1) {
            // What was written since is gone, up to as long ago as it may be.
            let (_, rows) = history.remove(rng.random_range(0..history.len())).unwrap();
            history.clear();
            world.store.memory().forget_since(rows);
            life += 1;
            if rng.random_bool(0.3) {
                world.is_in("a", life);
            } else {
                world.is_away("a");
                world.store.fail_all(Fault::Away, ALL);
                // Most come back before they are given up, some do not.
                cut = Some(Cut { back: Instant::now() + Duration::from_millis(rng.random_range(0..20_000)), life });
            }
        }
    }
    if let Some(cut) = cut {
        world.is_in("a", cut.life);
        world.store.recover();
    }
    checkpoint_passes(&running, world.end(0).await.0, 5 * DELAY).await;
    running.stop().await;
    let expected = series.iter().zip(&counted).filter(|(_, count)| **count > 0);
    let expected: Vec<_> = expected.map(|(series, count)| (series.as_str(), *count)).collect();
    world.holds(&expected, events, &what).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_servers_forget_and_whenever_they_start_again_the_checkpoint_never_leads() {
    for seed in 0..300 {
        schedule(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_waits_for_a_server_that_does_not_answer_and_a_lost_connection_alone_repeats_nothing() {
    let world = world(&["a", "b"]).await;
    let series = series_of(0, 1, 1);
    let running = world.start();
    world.count(&series[0], 0).await;
    running.checkpointed(0, 1).await;
    world.is_away("b");
    sleep(ASKED).await;
    world.count(&series[0], 1).await;
    running.stored(0, 2).await;
    sleep(2 * DELAY).await;
    assert_eq!(running.lane(0).checkpoint, Seq(1), "it is held");
    world.is_in("b", 1);
    checkpoint_passes(&running, 2, ASKED).await;
    assert_eq!(world.runs(), 1, "nothing is repeated");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stays_away_is_given_up_and_the_lanes_go_on_without_it() {
    let world = world(&["a", "b"]).await;
    let series = series_of(0, 1, 1);
    let running = world.start();
    world.count(&series[0], 0).await;
    running.checkpointed(0, 1).await;
    world.is_away("b");
    sleep(ASKED).await;
    world.count(&series[0], 1).await;
    sleep(3 * DELAY).await;
    assert_eq!((running.lane(0).checkpoint, world.runs()), (Seq(1), 1), "it is waited for");
    checkpoint_passes(&running, 2, 3 * DELAY).await;
    assert_eq!(world.runs(), 2, "what it may have forgotten was repeated, once");
    world.count(&series[0], 2).await;
    checkpoint_passes(&running, 3, DELAY + ASKED).await;
    sleep(10 * DELAY).await;
    assert_eq!(world.runs(), 2);
    // It is there again and had only been out of reach; and then it starts again.
    world.is_in("b", 1);
    sleep(ASKED).await;
    assert_eq!(world.runs(), 2);
    world.is_in("b", 2);
    until("the lane goes back to its checkpoint", || world.runs() == 3).await;
    running.stop().await;
    world.holds(&[(&series[0], 3)], 3, "at the end").await;
}

#[tokio::test(start_paused = true)]
async fn a_lane_whose_flush_hangs_goes_back_at_once_and_one_that_is_stopped_meanwhile_ends() {
    let world = world(&["a"]).await;
    let series = series_of(0, 1, 1);
    let running = world.start();
    world.count(&series[0], 0).await;
    running.stored(0, 1).await;
    world.store.hold(&[Op::Rows]);
    world.count(&series[0], 1).await;
    until("its flush is under way", || world.store.in_flight() > 0).await;
    world.is_in("a", 2);
    until("the lane goes back to its checkpoint", || world.runs() == 2).await;
    world.store.release();
    running.stored(0, 2).await;
    // Again, and now the store is away, so that it cannot be taken over.
    world.store.fail_all(Fault::Away, ALL);
    world.is_in("a", 3);
    until("it cannot read its checkpoint", || world.store.failed(Op::Lanes) > 0).await;
    running.stop().await;
    world.holds(&[(&series[0], 2)], 2, "at the end").await;
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_does_not_trail_waits_for_nobody() {
    let mut world = world(&["a"]).await;
    world.options.checkpoint_delay = Span::from_millis(0);
    world.is_away("a");
    let running = world.start();
    world.count("visits k=a", 0).await;
    running.checkpointed(0, 1).await;
    running.stop().await;
}
