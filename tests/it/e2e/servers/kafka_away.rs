//! Kafka away while the program runs: crashed and frozen. Nothing is acknowledged meanwhile, memory stays within its bounds,
//! and afterwards everything goes on by itself and each item counts once.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use serde_json::json;

use super::super::{
    load::{Load, Noted},
    place::Place,
    process::{PATIENCE, Server, post_whole, wait_until},
};
use crate::kafka::broker::Broker;

/// How soon after the broker's return items are acknowledged again.
const RECOVERY: Duration = Duration::from_secs(10);
/// `log.buffer` and `ingest.buffer`: what may be kept for clients and for the log.
const BUFFERS: u64 = (4 + 8) << 20;
/// What may come on top, however much is sent: each of the requests that are there at once, as it is read and parsed, the
/// packs' own copies, and what the allocator keeps.
const BESIDE: u64 = 84 << 20;
/// What is sent: many times of what may be kept, and twice of what memory may grow by.
const FLOOD: u64 = 192 << 20;

fn place(broker: &Broker) -> Place {
    Place::new()
        .log_at(&broker.address())
        .set("log.append_timeout=2s")
        .set("log.buffer=4MiB")
        .set("ingest.buffer=8MiB")
        .made()
}

#[test]
fn a_broker_that_crashes_and_hangs_costs_503s_and_afterwards_each_item_counts_once() {
    let began = Instant::now();
    let phase = |what: &str| eprintln!("{:5.1} s: {what}", began.elapsed().as_secs_f64());
    let mut broker = Broker::start(None);
    phase("there is a broker");
    let place = place(&broker);
    let (ingest, worker) = (place.start("ingest"), place.start("worker"));
    let load = Load::start(&ingest, 4);
    load.goes_on_by(500);
    phase("killed");

    broker.kill();
    let gone = Instant::now();
    refusals(&ingest, &worker, &load, gone);
    phase("everybody is told");
    memory_is_bounded(&ingest);
    phase("the flood is over");
    assert_refused(&load.since(gone));
    broker.restart();
    phase("it is back");
    recovers(&ingest, &worker, &load);
    phase("frozen");

    // Frozen: some of what is refused may be in the log all the same.
    broker.signal("-STOP");
    // What was on its way when it froze may have been answered.
    let gone = Instant::now() + Duration::from_millis(100);
    refusals(&ingest, &worker, &load, gone);
    assert_refused(&load.since(gone));
    broker.signal("-CONT");
    phase("it goes on");
    recovers(&ingest, &worker, &load);
    phase("all is well");

    load.finish().assert_stored(&ingest);
    phase("all is stored");
    assert!(worker.stop().success() && ingest.stop().success());
}

/// Waits until everybody has been told, and every process says so.
fn refusals(ingest: &Server, worker: &Server, load: &Load, gone: Instant) {
    wait_until("requests are refused", || load.since(gone).len() >= 4);
    wait_until("the ingest is not ready, and says why", || {
        let (status, answer, log) = ingest.readiness("log");
        status == 503 && answer["status"] == "unavailable" && log["status"] == "failing" && log["detail"].is_string()
    });
    wait_until("the worker is degraded, and lives", || {
        let (status, answer, log) = worker.readiness("log");
        status == 200 && answer["status"] == "degraded" && log["status"] == "failing"
    });
    assert_eq!(worker.get_admin("/health/livez").0, 200);
    wait_until("lag says that the log cannot be asked", || {
        let (_, lag) = worker.get_admin("/api/v1/lag");
        lag["status"] != "OK" && lag["lanes"][0]["reason"].as_str().is_some_and(|why| why.contains("the log"))
    });
    let (code, said) = worker.lag_check();
    assert_eq!(code, 1, "{said}");
}

fn assert_refused(noted: &[Noted]) {
    assert!(!noted.is_empty());
    for Noted { answer, .. } in noted {
        let answer = answer.as_ref().expect("the ingest is there and answers");
        assert!(matches!(answer.status, 429 | 503), "no 2xx without the log: {answer:?}");
        assert!(answer.retry_after.is_some_and(|seconds| seconds >= 1), "{answer:?}");
        assert_eq!(answer.content_type, "application/problem+json");
        assert!(answer.body["code"].is_string() && answer.body["status"] == answer.status, "{answer:?}");
    }
    let is_503 = |noted: &&Noted| noted.answer.as_ref().is_some_and(|answer| answer.status == 503);
    let first = noted.iter().find(is_503).expect("some are answered 503").answer.as_ref().unwrap();
    let code = first.body["code"].as_str().unwrap();
    assert!(matches!(code, "log_unavailable" | "ack_timeout"), "{first:?}");
    assert!(first.body["detail"].as_str().unwrap().contains("retry with the same ids"), "{first:?}");
}

/// Nobody restarts anything.
fn recovers(ingest: &Server, worker: &Server, load: &Load) {
    let back = Instant::now();
    load.goes_on_by(200);
    assert!(back.elapsed() < RECOVERY, "items are acknowledged {:?} after the return", back.elapsed());
    for server in [ingest, worker] {
        wait_until("it is ready", || server.readiness("log").1["status"] == "ready");
    }
}

/// Sends far more than may be kept, and looks at the memory of the process that refuses it.
fn memory_is_bounded(ingest: &Server) {
    let filler = "x".repeat(20 << 10);
    let event = |n| json!({"name": "flood", "subject": format!("s{n}"), "properties": {"filler": filler}});
    let body = json!((0..25).map(event).collect::<Vec<_>>()).to_string();
    let (url, sent, deadline) = (format!("{}/v1/events", ingest.url), AtomicU64::new(0), Instant::now() + PATIENCE);
    let before = ingest.memory();
    let mut highest = before;
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                while sent.load(Ordering::Relaxed) < FLOOD && Instant::now() < deadline {
                    let status = post_whole(&url, &body).map(|answer| answer.status);
                    assert!(matches!(status, Some(429 | 503)), "{status:?}");
                    sent.fetch_add(body.len() as u64, Ordering::Relaxed);
                }
            });
        }
        wait_until("the flood has been refused", || {
            highest = highest.max(ingest.memory());
            sent.load(Ordering::Relaxed) >= FLOOD
        });
    });
    highest = highest.max(ingest.memory());
    let figures = format!("{} MiB before, at most {} while {} were refused", before >> 20, highest >> 20, FLOOD >> 20);
    eprintln!("memory: {figures}");
    assert!(highest <= before + BUFFERS + BESIDE, "{figures}");
}
