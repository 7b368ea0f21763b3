//! Lag as it is measured: the service over doubles of log and store.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tallymark::{
    item::{Lane, Seq, TopicId},
    lag::{Deps, Handle, Options, Service, Snapshot, Status},
    store::HaltRow,
    units::Span,
    worker::board::{Board, State},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support_lag::{FakeLog, FakeStore, Mood};

struct Rig {
    log: Arc<FakeLog>,
    store: Arc<FakeStore>,
    board: Board,
    handle: Handle,
    _stop: DropGuard,
}

fn quick() -> Options {
    Options {
        interval: Span::from_millis(10),
        stall: Span::from_millis(200),
        timeout: Span::from_millis(100),
        ..Options::default()
    }
}

fn rig(partitions: u32, options: Options) -> Rig {
    let (log, store, board) = (FakeLog::new(partitions), FakeStore::new(), Board::default());
    let deps = Deps { log: log.clone(), store: store.clone(), board: board.clone() };
    let (service, handle) = Service::new(options, deps);
    let stop = CancellationToken::new();
    tokio::spawn(service.run(stop.clone()));
    Rig { log, store, board, handle, _stop: stop.drop_guard() }
}

impl Rig {
    async fn until(&self, what: &str, holds: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let mut seen = self.handle.subscribe();
        let found = tokio::time::timeout(Duration::from_secs(20), seen.wait_for(|snapshot| holds(snapshot))).await;
        match found {
            Ok(found) => found.expect("the service runs").clone(),
            Err(_) => panic!("never seen: {what}; last: {:?}", self.handle.snapshot()),
        }
    }

    fn reason(&self, partition: usize) -> String {
        self.handle.snapshot().lanes[partition].reason.clone().unwrap_or_default()
    }
}

#[tokio::test]
async fn lag_is_what_the_log_has_and_the_store_has_not_by_lane_and_in_sum() {
    let rig = rig(2, Options { interval: Span::from_millis(10), ..Options::default() });
    let epoch = rig.store.put_epoch(TopicId([7; 16]), 2);
    rig.store.put(rig.log.lane(0), Some(6), Some(3));
    // The same partition of a former life of the topic says nothing about this one.
    rig.store.put(Lane { topic_id: TopicId([1; 16]), partition: 1 }, Some(900), Some(900));
    rig.log.append_aged(0, 10, 5_000);
    rig.log.append_aged(1, 4, 2_000);
    let seen = rig.until("seven packs", |seen| seen.lag_packs == 7).await;
    let lane = &seen.lanes[0];
    assert_eq!((lane.end, lane.stored, lane.checkpoint, lane.lag_packs), (10, Some(6), Some(3), 3));
    assert_eq!(lane.epoch, Some(epoch.to_string()));
    assert_eq!(lane.worker, None);
    let lane = &seen.lanes[1];
    assert_eq!((lane.end, lane.stored, lane.checkpoint, lane.lag_packs), (4, None, None, 4));
    let age = seen.lag_seconds.expect("the log told when they were appended");
    assert!((5.0..25.0).contains(&age), "{age}");
    assert_eq!(Some(age), seen.lanes[0].lag_seconds);
    assert!(seen.lanes[1].lag_seconds.unwrap() < age);
    assert!(rig.handle.lag_ms().unwrap() >= 5_000);
}

#[tokio::test]
async fn the_snapshot_is_the_json_of_the_api() {
    let rig = rig(1, Options { interval: Span::from_millis(10), ..Options::default() });
    rig.board.update(0, |lane| {
        lane.state = State::Running;
        lane.next = Seq(2);
        lane.stored = Seq(2);
        lane.checkpoint = Seq(1);
    });
    rig.log.append_aged(0, 2, 0);
    let seen = rig.until("two packs, stored", |seen| seen.lanes[0].end == 2 && seen.lag_packs == 0).await;
    let worker = seen.lanes[0].worker.clone().expect("this process runs it");
    assert_eq!(
        serde_json::to_value(&*seen).unwrap(),
        json!({
            "status": "OK", "lag_packs": 0, "lag_seconds": 0.0, "drain_seconds": 0.0, "apply_rate": 0.0,
            "lanes": [{
                "partition": 0, "epoch": null, "end": 2, "stored": 1, "checkpoint": 0, "lag_packs": 0,
                "lag_seconds": 0.0, "status": "OK", "reason": null, "worker": worker,
            }],
        })
    );
    assert_eq!(serde_json::from_str::<Snapshot>(&serde_json::to_string(&*seen).unwrap()).unwrap().lanes, seen.lanes);
}

#[tokio::test]
async fn before_the_first_measurement_every_lane_warns_that_there_is_none() {
    let (log, store) = (FakeLog::new(3), FakeStore::new());
    let (_service, handle) = Service::new(quick(), Deps { log, store, board: Board::default() });
    let seen = handle.snapshot();
    assert_eq!((seen.status, seen.lanes.len(), handle.lag_ms()), (Status::Warn, 3, None));
    assert!(seen.lanes[0].reason.as_ref().unwrap().contains("not measured yet"));
}

#[tokio::test]
async fn packs_that_nobody_stores_are_a_stop_and_with_a_worker_a_stall() {
    let rig = rig(2, quick());
    rig.board.update(1, |lane| lane.state = State::Running);
    rig.log.append_aged(0, 1, 0);
    rig.log.append_aged(1, 1, 0);
    let seen = rig
        .until("STOP and STALL", |seen| seen.lanes[0].status == Status::Stop && seen.lanes[1].status == Status::Stall)
        .await;
    assert_eq!(seen.status, Status::Stop, "the group's status is the worst");
    assert!(rig.reason(0).contains("tallymark run worker"));
    assert_eq!(seen.drain_seconds, None);
    rig.store.put(rig.log.lane(0), Some(0), None);
    rig.board.update(1, |lane| lane.stored = Seq(1));
    rig.until("OK again", |seen| seen.status == Status::Ok && seen.drain_seconds == Some(0.0)).await;
}

#[tokio::test]
async fn a_lane_that_halted_in_another_process_is_halted_here_until_it_is_cleared() {
    let rig = rig(2, quick());
    let halt = HaltRow {
        lane: rig.log.lane(1),
        kind: "gap".to_owned(),
        reason: "10 packs are gone".to_owned(),
        command: None,
        from: None,
        to: None,
        partitions: None,
        shards: None,
        worker: "there-7".to_owned(),
        since_ms: 1,
    };
    let former = Lane { topic_id: TopicId([1; 16]), partition: 0 };
    rig.store.halts.lock().unwrap().extend([HaltRow { lane: former, ..halt.clone() }, halt]);
    let seen = rig.until("HALTED", |seen| seen.status == Status::Halted).await;
    assert_eq!(
        (seen.lanes[0].status, seen.lanes[1].status),
        (Status::Ok, Status::Halted),
        "another life is another lane"
    );
    assert_eq!(seen.lanes[1].worker.as_deref(), Some("there-7"));
    assert_eq!(rig.reason(1), "10 packs are gone");
    // Taken over here, it is known better.
    rig.board.update(1, |lane| lane.state = State::Running);
    rig.until("OK", |seen| seen.status == Status::Ok).await;
    rig.board.remove(1);
    rig.until("HALTED again", |seen| seen.status == Status::Halted).await;
    rig.store.halts.lock().unwrap().clear();
    rig.until("OK again", |seen| seen.status == Status::Ok).await;
}

#[tokio::test]
async fn a_halted_lane_says_in_its_own_words_why() {
    let rig = rig(1, quick());
    rig.board.update(0, |lane| {
        lane.state = State::Halted;
        lane.reason = Some("the log begins after the checkpoint; restore it".to_owned());
    });
    rig.until("HALTED", |seen| seen.status == Status::Halted).await;
    assert_eq!(rig.reason(0), "the log begins after the checkpoint; restore it");
}

#[tokio::test]
async fn a_log_or_a_store_that_goes_back_is_a_rewind_until_it_has_caught_up() {
    let rig = rig(1, quick());
    rig.log.append_aged(0, 10, 0);
    rig.store.put(rig.log.lane(0), Some(9), Some(9));
    rig.until("OK", |seen| seen.status == Status::Ok && seen.lanes[0].stored == Some(9)).await;
    rig.store.put(rig.log.lane(0), Some(4), Some(4));
    rig.until("REWIND of the store", |seen| seen.status == Status::Rewind && seen.lag_packs == 5).await;
    rig.store.put(rig.log.lane(0), Some(9), Some(9));
    rig.until("OK again", |seen| seen.status == Status::Ok).await;
    rig.log.cut(0, 6);
    rig.until("REWIND of the log", |seen| seen.status == Status::Rewind && seen.lanes[0].end == 6).await;
    assert!(rig.reason(0).contains("--log and --store"), "{}", rig.reason(0));
}

#[tokio::test]
async fn packs_that_retention_removed_before_they_were_stored_are_no_small_lag() {
    let rig = rig(1, quick());
    rig.log.append_aged(0, 10, 3_000);
    rig.store.put(rig.log.lane(0), Some(2), Some(2));
    rig.until("lag", |seen| seen.lag_packs == 7).await;
    rig.log.remove_below(0, 5);
    let seen = rig.until("STALL", |seen| seen.lanes[0].reason.as_ref().is_some_and(|r| r.contains("retention"))).await;
    assert_eq!(seen.status, Status::Stall);
    assert!(seen.lag_seconds.unwrap() >= 3.0);
}

#[tokio::test]
async fn a_silent_store_or_log_leaves_the_last_figures_and_a_warning_and_the_age_grows_on() {
    for (mood, word) in
        [(Mood::Fails("connection refused".to_owned()), "connection refused"), (Mood::Hangs, "no answer within 100ms")]
    {
        let rig = rig(1, Options { stall: Span::from_secs(60), ..quick() });
        rig.log.append_aged(0, 5, 1_000);
        rig.store.put(rig.log.lane(0), Some(1), None);
        let before = rig.until("three packs", |seen| seen.lag_packs == 3 && seen.status == Status::Ok).await;
        rig.store.set_mood(mood.clone());
        rig.until("a warning", |seen| seen.status == Status::Warn).await;
        assert!(rig.reason(0).contains(word) && rig.reason(0).contains("the store could not"), "{}", rig.reason(0));
        rig.log.append_aged(0, 1, 0);
        let seen = rig.until("the log's end goes on", |seen| seen.lanes[0].end == 6).await;
        assert_eq!(seen.lanes[0].stored, Some(1));
        assert!(seen.lag_seconds.unwrap() > before.lag_seconds.unwrap());
        rig.log.set_mood(mood);
        rig.until("neither", |seen| seen.lanes[0].reason.as_ref().is_some_and(|r| r.contains("neither log"))).await;
        assert_eq!(rig.handle.snapshot().lag_packs, 4);
        rig.log.set_mood(Mood::Answers);
        rig.store.set_mood(Mood::Answers);
        rig.until("OK again", |seen| seen.status == Status::Ok).await;
    }
}

#[tokio::test]
async fn a_store_that_passes_the_end_that_a_silent_log_told_last_has_not_rewound() {
    let rig = rig(1, quick());
    rig.log.append_aged(0, 5, 0);
    rig.store.put(rig.log.lane(0), Some(4), None);
    rig.until("OK", |seen| seen.status == Status::Ok && seen.lanes[0].end == 5).await;
    rig.log.set_mood(Mood::Fails("away".to_owned()));
    rig.until("a warning", |seen| seen.status == Status::Warn).await;
    rig.store.put(rig.log.lane(0), Some(7), None);
    let seen = rig.until("stored 7", |seen| seen.lanes[0].stored == Some(7)).await;
    assert_eq!((seen.status, seen.lag_packs), (Status::Warn, 0));
}

#[tokio::test]
async fn what_is_measured_is_in_the_metrics_too() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let (log, store) = (FakeLog::new(2), FakeStore::new());
    log.append_aged(0, 10, 7_000_000);
    store.put(log.lane(0), Some(6), Some(3));
    let deps = Deps { log, store, board: Board::default() };
    let (service, handle) = metrics::with_local_recorder(&recorder, || Service::new(quick(), deps));
    let stop = CancellationToken::new();
    tokio::spawn(service.run(stop.clone()));
    let _stop = stop.drop_guard();
    handle.subscribe().wait_for(|seen| seen.status == Status::Stop).await.unwrap();
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    let lines = [
        "tallymark_lag_packs{partition=\"0\"} 3",
        "tallymark_lag_packs{partition=\"1\"} 0",
        "tallymark_lag_seconds{partition=\"0\"} 70",
        "tallymark_lane_status{partition=\"0\"} 3",
        "tallymark_log_end_seq{partition=\"0\"} 10",
        "tallymark_stored_seq{partition=\"0\"} 6",
        "tallymark_stored_seq{partition=\"1\"} -1",
        "tallymark_checkpoint_seq{partition=\"0\"} 3",
    ];
    for line in lines {
        while !recorder.handle().render().contains(line) {
            assert!(tokio::time::Instant::now() < until, "{line} is not in\n{}", recorder.handle().render());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn the_service_ends_when_it_is_told_to_even_while_the_store_hangs() {
    let (log, store) = (FakeLog::new(1), FakeStore::new());
    store.set_mood(Mood::Hangs);
    let options = Options { timeout: Span::from_secs(600), ..quick() };
    let (service, handle) = Service::new(options, Deps { log, store, board: Board::default() });
    let stop = CancellationToken::new();
    let run = tokio::spawn(service.run(stop.clone()));
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(20), run).await.expect("it ends").unwrap();
    assert!(handle.subscribe().changed().await.is_err(), "subscribers hear of the end");
}
