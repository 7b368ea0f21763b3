//! The store's and the log's trouble: a lane pauses, tries again, and nothing is lost or counted twice.

use std::time::Duration;

use tallymark::{
    item::{Namespace, Seq},
    store::{Events as _, EventsBy, EventsPage},
    units::Span,
    worker::board::State,
};

use super::{
    fixture::{NEVER, World, embedded, sums},
    packs::{pack, series_of, shard},
    store::{ALL, Fault, Op},
};
use tokio::time::timeout;

use crate::support::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_store_is_down_a_lane_pauses_at_its_bounds_the_log_grows_and_then_it_drains_to_zero() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::over(embedded(&dir.path().join("log"))).await;
    world.options.flush_rows = 20;
    let running = world.start();
    let series = series_of(0, 1, 400);
    // Every shard has been read: the lane could go on folding without the store.
    for series in &series[..20] {
        world.append(0, pack().add(series, 1)).await;
    }
    running.stored(0, 20).await;
    world.store.fail_all(Fault::Away, ALL);
    for (n, series) in series[20..200].iter().enumerate() {
        world.append(0, pack().once(series, 1, &n.to_string())).await;
    }
    until("the lane is paused and full", || {
        let lane = running.lane(0);
        lane.state == State::Paused && lane.next >= Seq(40)
    })
    .await;
    let reason = running.lane(0).reason.unwrap();
    assert!(reason.contains("the store does not answer: the store was told to be away"), "{reason}");
    for (n, series) in series[200..].iter().enumerate() {
        world.append(0, pack().once(series, 1, &n.to_string())).await;
    }
    assert_eq!(world.end(0).await, Seq(400), "ingest goes on");
    let lane = running.lane(0);
    assert_eq!((lane.stored, lane.state), (Seq(20), State::Paused));
    assert!(lane.next <= Seq(20 + 2 * 20), "one flush waits and one gathers: {lane:?}");
    assert!(lane.oldest_unstored_ms.is_some());

    world.store.recover();
    running.stored(0, 400).await;
    let lane = running.lane(0);
    assert_eq!((lane.next, lane.state, lane.reason, lane.oldest_unstored_ms), (Seq(400), State::Running, None, None));
    assert_eq!(world.totals().await, sums(series.iter().map(|series| (series.as_str(), 1))));
    running.stop().await;
}

#[tokio::test]
async fn a_lane_that_cannot_even_start_waits_for_the_store_and_says_so() {
    let world = World::new(1).await;
    world.append(0, pack().add("visits k=a", 1)).await;
    world.store.fail_all(Fault::Away, ALL);
    let running = world.start();
    until("it is paused", || running.lane(0).state == State::Paused).await;
    world.store.recover();
    running.stored(0, 1).await;
    assert_eq!(running.lane(0).state, State::Running);
    running.stop().await;
    assert_eq!(world.totals().await, sums([("visits k=a", 1)]));
}

#[tokio::test]
async fn events_that_wait_are_bounded_by_their_bytes_and_a_shutdown_stores_them() {
    let mut world = World::new(1).await;
    world.flush_at(1_000_000, 20 << 10);
    let running = world.start();
    world.store.fail_all(Fault::Away, &[Op::Events]);
    for n in 0..100 {
        world.append(0, pack().event("signup", "user", &n.to_string(), 1000)).await;
    }
    until("one flush waits and one gathers", || running.lane(0).next >= Seq(30)).await;
    until("it is paused", || running.lane(0).state == State::Paused).await;
    assert!(running.lane(0).next <= Seq(40), "{:?}", running.lane(0));
    world.store.recover();
    running.applied(0, 100).await;
    running.stop().await;
    let page = EventsPage {
        namespace: Namespace::default(),
        by: EventsBy::Subject("user".into()),
        from_ms: 0,
        to_ms: i64::MAX,
        before: None,
        limit: 1000,
    };
    assert_eq!(world.store.events(&page).await.unwrap().len(), 100);
    assert_eq!(world.store.known("test.packs").await[0].stored, Some(Seq(99)));
}

#[tokio::test]
async fn packs_that_bring_nothing_but_duplicates_are_bounded_too() {
    let mut world = World::new(1).await;
    world.flush_at(1_000_000, 1600);
    let running = world.start();
    world.store.hold(&[Op::Rows]);
    world.append(0, pack().once("visits k=a", 1, "id").urgent()).await;
    for _ in 0..1000 {
        world.append(0, pack().once("visits k=a", 1, "id")).await;
    }
    // What waits for each of them is when its ingest closed it: eight bytes.
    running.applied(0, 150).await;
    assert!(running.lane(0).next <= Seq(250), "{:?}", running.lane(0));
    world.store.release();
    running.applied(0, 1001).await;
    running.stop().await;
    assert_eq!(world.totals().await, sums([("visits k=a", 1)]));
}

#[tokio::test]
async fn an_answer_that_is_lost_after_the_effect_is_asked_for_again_and_changes_nothing() {
    let world = World::new(1).await;
    for op in ALL {
        world.store.fail(Fault::AnswerLost, 2, move |asked, _| asked == *op);
    }
    let running = world.start();
    for n in 0..20 {
        let draft = pack().once("visits k=a", 1, &n.to_string()).add("visits k=b", 2).event("e", "", "id", 10);
        world.append(0, draft).await;
    }
    running.checkpointed(0, 20).await;
    running.stop().await;
    assert_eq!(world.totals().await, sums([("visits k=a", 20), ("visits k=b", 40)]));
    for op in [Op::Rows, Op::Events, Op::Slice, Op::Lanes, Op::Checkpoint, Op::Stored, Op::Epochs] {
        assert_eq!(world.store.failed(op), 2, "{op:?}");
    }
    let rows = world.rows().await;
    assert!(rows.values().all(|row| row.seq == Seq(19)), "{rows:?}");
}

#[tokio::test]
async fn a_refusal_for_good_halts_the_lane_and_says_why_and_the_others_go_on() {
    let world = World::new(2).await;
    let (refused, fine) = (&series_of(0, 2, 1)[0], &series_of(1, 2, 1)[0]);
    world.store.fail(Fault::Refused, usize::MAX, |op, key| {
        op == Op::Rows && key.is_some_and(|key| key.shard.partition(2) == 0)
    });
    let running = world.start();
    world.append(0, pack().add(refused, 1)).await;
    world.append(1, pack().add(fine, 1)).await;
    let reason = running.halted(0).await;
    assert!(reason.contains("the store refuses to take rows: the store was told to refuse"), "{reason}");
    for _ in 0..10 {
        world.append(1, pack().add(fine, 1)).await;
    }
    running.stored(1, 11).await;
    assert_eq!(running.lane(1).state, State::Running);
    assert_eq!(running.lane(0).stored, Seq(0));
    running.stop().await;
    assert_eq!(world.totals().await, sums([(fine.as_str(), 11)]));
}

#[tokio::test]
async fn what_follows_a_refused_flush_is_not_called_stored_and_a_restart_makes_it_whole() {
    let mut world = World::new(1).await;
    world.options.flush_age = NEVER;
    let series = series_of(0, 1, 50);
    let refused = &series[0];
    let other = series.iter().find(|other| shard(other) != shard(refused)).unwrap();
    let running = world.start();
    world.store.hold(&[Op::Rows]);
    world.append(0, pack().add(refused, 1).urgent()).await;
    until("its flush is under way", || world.store.in_flight() > 0).await;
    world.append(0, pack().add(other, 1)).await;
    running.applied(0, 2).await;
    let bad = shard(refused);
    world
        .store
        .fail(Fault::Refused, usize::MAX, move |op, key| op == Op::Rows && key.is_some_and(|key| key.shard == bad));
    world.store.release();
    running.halted(0).await;
    running.stop().await;
    let known = world.store.known("test.packs").await;
    assert!(known.iter().all(|lane| lane.stored.is_none() && lane.checkpoint.is_none()), "{known:?}");

    world.store.recover();
    let running = world.start();
    running.applied(0, 2).await;
    running.stop().await;
    assert_eq!(world.totals().await, sums([(refused.as_str(), 1), (other.as_str(), 1)]));
    assert_eq!(world.store.known("test.packs").await[0].stored, Some(Seq(1)));
}

#[tokio::test]
async fn a_checkpoint_that_failed_is_written_again_and_never_after_a_newer_one() {
    let mut world = World::new(1).await;
    world.options.flush_age = Span::from_millis(1);
    world.retry.initial = Span::from_millis(30);
    world.retry.max = Span::from_millis(30);
    let running = world.start();
    let mut end = 0;
    for round in 0..8 {
        world.store.fail(Fault::Away, 1, |op, _| op == Op::Checkpoint);
        world.append(0, pack().add("visits k=a", 1)).await;
        until("it failed", || world.store.failed(Op::Checkpoint) > round).await;
        end += 1;
        // The one that failed comes up again while these are written.
        for _ in 0..12 {
            world.append(0, pack().add("visits k=a", 1)).await;
            end += 1;
            running.checkpointed(0, end).await;
        }
    }
    // And alone, without a newer one.
    world.store.fail(Fault::Away, 2, |op, _| op == Op::Checkpoint);
    world.append(0, pack().add("visits k=a", 1)).await;
    running.checkpointed(0, end + 1).await;
    running.stop().await;
    let seqs: Vec<_> = world.store.done(Op::Checkpoint).into_iter().map(|call| call.checkpoint.unwrap().seq).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_fails_for_a_while_is_read_again_and_a_quiet_one_is_not_read_without_end() {
    let world = World::new(1).await;
    world.append(0, pack().add("visits k=a", 1)).await;
    world.log.fail_reads(3);
    let running = world.start();
    running.stored(0, 1).await;
    // Now there is nothing to read after the failure.
    world.log.fail_reads(3);
    until("the reads have failed", || world.log.failures_left() == 0).await;
    // On a clock that runs when everything waits: the lane looks at its clocks twice a second.
    let many = world.log.polls() + 40;
    let counted = until("it is read without end", || world.log.polls() > many);
    assert!(timeout(Duration::from_secs(5), counted).await.is_err(), "more than 40 reads in 5 s");
    world.append(0, pack().add("visits k=a", 1)).await;
    running.stored(0, 2).await;
    running.stop().await;
    assert_eq!(world.totals().await, sums([("visits k=a", 2)]));
}

#[tokio::test]
async fn a_slow_store_has_no_more_in_flight_than_it_is_given_and_loses_nothing() {
    let mut world = World::new(2).await;
    world.store_options.in_flight = 3;
    world.store_options.batch_rows = 4;
    let running = world.start();
    world.store.hold(&[Op::Rows]);
    let series = [series_of(0, 2, 60), series_of(1, 2, 60)];
    for (partition, series) in (0..).zip(&series) {
        let draft = series.iter().fold(pack(), |draft, series| draft.add(series, 1));
        world.append(partition, draft).await;
    }
    until("it has all it may have", || world.store.in_flight() == 3).await;
    assert_eq!((running.lane(0).stored, running.lane(1).stored), (Seq(0), Seq(0)));
    world.store.release();
    running.stored(0, 1).await;
    running.stored(1, 1).await;
    running.stop().await;
    assert_eq!(world.store.most_in_flight(), 3);
    assert!(world.store.done(Op::Rows).iter().all(|call| call.size <= 4));
    assert_eq!(world.totals().await, sums(series.iter().flatten().map(|series| (series.as_str(), 1))));
}
