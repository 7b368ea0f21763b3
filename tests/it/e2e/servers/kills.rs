//! kill −9 of each role under a steady load, with retries by id: each item counts once, and what a worker ran another takes
//! over in time.

use std::time::{Duration, Instant};

use super::super::{load::Load, place::Place, process::Server, process::wait_until};

#[test]
fn each_item_counts_once_though_ingests_and_workers_are_killed_again_and_again() {
    let place = Place::new().made();
    let mut ingest = place.start("ingest");
    let mut workers = [place.start("worker"), place.start("worker")];
    let load = Load::start(&ingest, 4);
    for round in 0..4 {
        load.goes_on_by(500);
        std::mem::replace(&mut ingest, place.start("ingest")).kill();
        load.redirect(&ingest);
        load.goes_on_by(500);
        // At once, or a lane that the other has just taken over would be killed there too late.
        let worker = &mut workers[round % 2];
        std::mem::replace(worker, place.start("worker")).kill();
    }
    load.goes_on_by(500);
    load.finish().assert_stored(&ingest);
    for server in workers.into_iter().chain([ingest]) {
        assert!(server.stop().success());
    }
}

/// Lanes that this worker runs.
fn lanes(worker: &Server) -> usize {
    let (_, lag) = worker.get_admin("/api/v1/lag");
    lag["lanes"].as_array().unwrap().iter().filter(|lane| lane["worker"].is_string()).count()
}

#[test]
fn a_worker_takes_over_from_one_that_was_killed_within_the_session_timeout_and_ten_seconds() {
    const SESSION: Duration = Duration::from_secs(6);
    let place = Place::new().made();
    let (ingest, stays, goes) = (place.start("ingest"), place.start("worker"), place.start("worker"));
    wait_until("they share the lanes", || (lanes(&stays), lanes(&goes)) == (2, 2));
    let load = Load::start(&ingest, 2);
    load.goes_on_by(500);
    let killed = Instant::now();
    goes.kill();
    // Enough for every lane to have something that nobody has applied.
    load.goes_on_by(500);
    let totals = load.finish();
    assert_ne!(ingest.get_admin("/api/v1/lag").1["lag_packs"], 0, "the lanes of the dead wait");
    ingest.settle_well();
    let taken_over = killed.elapsed();
    eprintln!("lag is zero {taken_over:?} after the kill");
    assert!(taken_over < SESSION + Duration::from_secs(10), "{taken_over:?}");
    assert_eq!(lanes(&stays), 4);
    totals.assert_stored(&ingest);
    assert!(stays.stop().success() && ingest.stop().success());
}
