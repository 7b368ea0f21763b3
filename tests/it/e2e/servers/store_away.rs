//! The store away while the program runs, cut off and silent: items are acknowledged as before, lag grows and is shown, and
//! drains to nothing when the store is back.

use std::time::{Duration, Instant};

use super::super::{
    load::Load,
    place::Place,
    process::{Server, block_on, get_json, post_whole, wait_until},
};
use crate::support_wire::Wire;

#[test]
fn without_the_store_items_are_taken_lag_is_shown_and_drains_when_it_is_back() {
    let wire = block_on(Wire::to_store());
    let place = Place::new().store_at(&wire.address).set("store.timeout=1s").made();
    let ingest = place.start("ingest");
    let worker = place.set("lag.stall=3s").start("worker");
    let load = Load::start(&ingest, 2);
    load.goes_on_by(500);
    wait_until("the hot view has the total", || ingest.get("/v1/counters/load").1["source"] == "hot");

    wire.cut();
    away(&ingest, &worker, &load);
    wire.mend();
    back(&ingest, &worker);

    wire.hush();
    away(&ingest, &worker, &load);
    wire.speak();
    back(&ingest, &worker);

    load.finish().assert_stored(&ingest);
    assert_eq!(worker.lag_check().0, 0);
    assert!(worker.stop().success() && ingest.stop().success());
}

/// What is true while it is away.
fn away(ingest: &Server, worker: &Server, load: &Load) {
    let gone = Instant::now();
    let packs = |server: &Server| server.get_admin("/api/v1/lag").1["lag_packs"].as_u64().unwrap();
    for server in [ingest, worker] {
        wait_until("it is degraded and ready", || {
            let (status, answer, store) = server.readiness("store");
            assert_eq!(status, 200, "{answer}");
            answer["status"] == "degraded" && store["status"] == "failing" && store["detail"].is_string()
        });
    }
    let lag = packs(worker);
    load.goes_on_by(500);
    wait_until("lag grows", || packs(worker) > lag + 10 && packs(ingest) > lag + 10);
    wait_until("the worker's lanes are shown as stalled, with the reason", || {
        let (_, lag) = worker.get_admin("/api/v1/lag");
        let reasons = lag["lanes"].as_array().unwrap().iter().filter_map(|lane| lane["reason"].as_str());
        lag["status"] == "STALL"
            && lag["lag_seconds"].as_f64().is_some_and(|seconds| seconds > 3.0)
            && reasons.clone().any(|why| why.contains("store"))
    });
    assert_ne!(ingest.get_admin("/api/v1/lag").1["status"], "OK");
    for server in [ingest, worker] {
        let (code, said) = server.lag_check();
        assert!(code == 1 && said.contains("store"), "{code}: {said}");
    }
    // Reads: the hot view has the total; what only the store knows is refused until it is back.
    let (status, total) = ingest.get("/v1/counters/load");
    assert!(status == 200 && total["source"] == "hot", "{status}: {total}");
    let began = Instant::now();
    let asked = get_json(&format!("{}/v1/counters/load?consistency=stored", ingest.url)).unwrap();
    assert!(asked.0 == 503 && asked.1["code"] == "store_unavailable", "{asked:?}");
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    // Durable is what was asked for; stored it is not.
    let url = format!("{}/v1/increments?ack=stored&timeout=200ms", ingest.url);
    let answer = post_whole(&url, r#"{"counter": "other"}"#).unwrap();
    assert!(answer.status == 202 && answer.body["stored"] == false, "{answer:?}");
    for noted in load.since(gone) {
        let status = noted.answer.map(|answer| answer.status);
        assert_eq!(status, Some(202), "the store's trouble is the store's");
    }
}

/// By itself.
fn back(ingest: &Server, worker: &Server) {
    let back = Instant::now();
    for server in [worker, ingest] {
        wait_until("it is ready", || server.readiness("store").1["status"] == "ready");
    }
    // The load goes on: what was there when the store came back is through.
    wait_until("the lanes have caught up", || {
        // That nothing was seen to be stored while the store was away is no sign that nobody stores.
        let (_, lag) = ingest.get_admin("/api/v1/lag");
        assert_ne!(lag["status"], "STOP", "{lag}");
        let (_, lag) = worker.get_admin("/api/v1/lag");
        lag["status"] == "OK" && lag["lag_seconds"].as_f64().is_some_and(|seconds| seconds < 3.0)
    });
    eprintln!("the lanes have caught up {:?} after the store is back", back.elapsed());
}
