//! The memory of a lane: rows are evicted and loaded again, and at the bound the lane waits.

use tallymark::{item::Seq, worker::board::State};

use super::{
    fixture::{NEVER, World, sums},
    packs::{pack, series_of},
    store::Op,
};
use crate::support::until;

#[tokio::test]
async fn rows_that_do_not_fit_are_evicted_and_loaded_again_and_the_totals_are_exact() {
    let mut world = World::new(1).await;
    world.options.max_rows = 12;
    world.options.flush_age = NEVER;
    let running = world.start();
    let series = series_of(0, 1, 30);
    for round in 0..4 {
        for series in &series {
            // The first two rounds are sent twice: their ids are remembered whatever becomes of the rows.
            world.append(0, pack().once(series, 1, &(round / 2).to_string()).add(series, 10)).await;
        }
    }
    running.applied(0, 120).await;
    running.stop().await;
    assert_eq!(world.totals().await, sums(series.iter().map(|series| (series.as_str(), 42))));
    assert!(!world.store.done(Op::Named).is_empty(), "rows were read again by name");
}

#[tokio::test]
async fn a_full_lane_waits_for_its_checkpoint_and_goes_on() {
    let mut world = World::new(1).await;
    world.options.max_rows = 8;
    world.options.flush_age = NEVER;
    let running = world.start();
    world.store.hold(&[Op::Checkpoint]);
    let series = series_of(0, 1, 20);
    for series in &series {
        world.append(0, pack().add(series, 1)).await;
    }
    until("the checkpoint is on its way", || world.store.in_flight() == 1).await;
    until("what it has is stored", || running.lane(0).stored == running.lane(0).next).await;
    let lane = running.lane(0);
    assert!(lane.next <= Seq(8) && lane.state == State::Paused, "{lane:?}");
    assert!(lane.reason.is_some_and(|reason| reason.contains("worker.max_rows")));
    world.store.release();
    running.applied(0, 20).await;
    assert_eq!(running.lane(0).state, State::Running);
    running.stop().await;
    assert_eq!(world.totals().await, sums(series.iter().map(|series| (series.as_str(), 1))));
}

#[tokio::test]
async fn a_pack_that_alone_is_larger_than_the_bound_is_taken_all_the_same() {
    let mut world = World::new(1).await;
    world.options.max_rows = 4;
    let running = world.start();
    let series = series_of(0, 1, 10);
    let large = || series.iter().fold(pack(), |draft, series| draft.add(series, 1));
    for _ in 0..3 {
        world.append(0, large()).await;
        world.append(0, pack().add(&series[0], 1)).await;
    }
    running.stored(0, 6).await;
    running.stop().await;
    let expected = series.iter().map(|name| (name.as_str(), if *name == series[0] { 6 } else { 3 }));
    assert_eq!(world.totals().await, sums(expected));
}

#[tokio::test]
async fn a_shard_that_is_too_large_for_a_slice_is_read_row_by_row() {
    let mut world = World::new(1).await;
    let series = series_of(0, 1, 40);
    let running = world.start();
    world.append(0, series.iter().fold(pack(), |draft, series| draft.add(series, 1))).await;
    running.checkpointed(0, 1).await;
    running.stop().await;
    assert!(world.store.done(Op::Named).is_empty(), "a slice answers for the absent rows too");
    let before = world.store.done(Op::Slice).len();

    world.options.slice_rows = 3;
    let running = world.start();
    for _ in 0..3 {
        world.append(0, series[..5].iter().fold(pack(), |draft, series| draft.add(series, 1))).await;
    }
    running.stored(0, 4).await;
    running.stop().await;
    let named: usize = world.store.done(Op::Named).iter().map(|call| call.size).sum();
    assert_eq!(named, 5, "five series, each read once; their counter's shard is small enough");
    let slices = world.store.done(Op::Slice).split_off(before);
    assert!(slices.iter().all(|call| call.size == 4), "one row more than allowed tells: {slices:?}");
    let expected = series.iter().enumerate().map(|(at, series)| (series.as_str(), if at < 5 { 4 } else { 1 }));
    assert_eq!(world.totals().await, sums(expected));
}
