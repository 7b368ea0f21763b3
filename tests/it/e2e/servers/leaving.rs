//! SIGTERM on the real servers: the lanes go to another worker at once, an answer that waits for the store is given, and what
//! cannot be stored in time is nobody's loss.

use std::time::{Duration, Instant};

use super::super::{
    load::Load,
    place::Place,
    process::{Server, block_on, post_whole, wait_until},
};
use crate::support_wire::Wire;

/// Sends SIGTERM and waits: how it ended, and how long that took.
fn leaves(mut server: Server) -> (Option<i32>, Duration, Server) {
    let stopped = Instant::now();
    server.signal("TERM");
    let code = server.wait().code();
    (code, stopped.elapsed(), server)
}

#[test]
fn a_worker_that_cannot_store_in_time_ends_with_1_within_its_deadline_and_nothing_is_lost() {
    let wire = block_on(Wire::to_store());
    let place = Place::new().made();
    let ingest = place.start("ingest");
    let behind = place.store_at(&wire.address).set("store.timeout=1s").set("shutdown.deadline=8s");
    let worker = behind.start("worker");
    let load = Load::start(&ingest, 2);
    load.goes_on_by(500);
    wait_until("it stores", || ingest.stored("load").is_some_and(|total| total > 100));
    wire.hush();
    // More than is under way, so that something is applied and cannot be flushed.
    wait_until("its lanes wait for the store", || {
        let (_, lag) = worker.get_admin("/api/v1/lag");
        lag["lanes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|lane| lane["reason"].as_str().is_some_and(|why| why.contains("store")))
    });
    load.goes_on_by(200);
    let (code, took, worker) = leaves(worker);
    assert_eq!(code, Some(1));
    eprintln!("it ended {took:?} after SIGTERM");
    assert!(took < Duration::from_secs(12), "8 s, and a moment for the end of its threads: {took:?}");
    let said = worker.last_words();
    assert!(said.contains("shutdown.deadline (8s)") && said.contains("worker"), "{said}");
    assert!(said.contains("what was acknowledged is in the log"), "{said}");
    drop(worker);

    wire.speak();
    let worker = behind.start("worker");
    load.goes_on_by(200);
    load.finish().assert_stored(&ingest);
    let (code, took, _) = leaves(worker);
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert!(ingest.stop().success());
}

#[test]
fn an_answer_that_waits_for_the_store_is_given_when_its_ingest_leaves() {
    let place = Place::new().made();
    // Nobody stores anything: there is no worker.
    let ingest = place.start("ingest");
    let url = format!("{}/v1/increments?ack=stored&timeout=60s", ingest.url);
    let asking = std::thread::spawn(move || post_whole(&url, r#"{"counter": "c"}"#));
    wait_until("it is in the log", || ingest.get_admin("/api/v1/lag").1["lag_packs"] == 1);
    let (code, took, _) = leaves(ingest);
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(20), "{took:?}");
    let answer = asking.join().unwrap().expect("it is answered");
    assert!(answer.status == 202 && answer.body["stored"] == false, "{answer:?}");
}

#[test]
fn lanes_go_to_another_worker_when_theirs_leaves_long_before_the_session_would_run_out() {
    let place = Place::new().set("worker.session_timeout=45s").made();
    let ingest = place.start("ingest");
    let (stays, goes) = (place.start("worker"), place.start("worker"));
    let lanes = |worker: &Server| {
        let (_, lag) = worker.get_admin("/api/v1/lag");
        lag["lanes"].as_array().unwrap().iter().filter(|lane| lane["worker"].is_string()).count()
    };
    wait_until("they share the lanes", || (lanes(&stays), lanes(&goes)) == (2, 2));
    let load = Load::start(&ingest, 2);
    load.goes_on_by(500);
    let (code, took, _) = leaves(goes);
    assert_eq!(code, Some(0));
    eprintln!("it left {took:?} after SIGTERM");
    wait_until("the other has them all", || lanes(&stays) == 4);
    load.goes_on_by(200);
    load.finish().assert_stored(&ingest);
    assert!(stays.stop().success() && ingest.stop().success());
}
