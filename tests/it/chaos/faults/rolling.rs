//! A rolling upgrade to a build that reads and writes the next format of packs and has one more table, and the way back, process
//! by process, under load.
//!
//! Forwards: the schema first, then the workers, then the ingests, and only then `ingest.format`. Back: the same from its end.
//! Workers of the old build can take over once nothing that they may have to read again is in the new format: their checkpoints
//! and the windows of ids have passed it.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use super::super::{
    cluster::{Cluster, holds},
    pace::Pace,
    row::Row,
    site::{PATIENCE, Plan, Site},
};
use crate::e2e::{
    place::Place,
    process::{PROGRAM, output, program},
};

/// `dedup.window` here: what the way back has to wait for.
const WINDOW: Duration = Duration::from_secs(8);
/// And what comes on top: a flush, the checkpoint's delay, and that the checkpoint must have moved.
const BEHIND: Duration = Duration::from_secs(6);

pub fn forwards_and_back(cluster: &Cluster, pace: &Pace) -> Result<Vec<Row>, String> {
    let next = std::env::var("TALLYMARK_CHAOS_NEXT")
        .map_err(|_| "tests/chaos names the next build in TALLYMARK_CHAOS_NEXT")?;
    let mut plan = Plan::new(cluster, pace, "rolling");
    plan.place = plan.place.set(&format!("dedup.window={}s", WINDOW.as_secs()));
    let (old, new) = (plan.place.clone(), plan.place.clone().set("ingest.format=2"));
    let mut site = Site::start(plan)?;
    let began = Instant::now();

    let (code, _, stderr) = output(&mut program(&next, &[&["schema", "apply"], &old.flags()[..]].concat()));
    site.expect(holds(code == 0, || format!("schema apply of the next build: {stderr}")));
    workers(&mut site, &next)?;
    ingests(&mut site, &next, &old)?;
    ingests(&mut site, &next, &new)?;
    site.notes.push(format!("forwards in {:.1} s", began.elapsed().as_secs_f64()));
    site.goes_on()?;

    let began = Instant::now();
    ingests(&mut site, &next, &old)?;
    let written = Instant::now();
    ingests(&mut site, PROGRAM, &old)?;
    sleep((WINDOW + BEHIND).saturating_sub(written.elapsed()));
    workers(&mut site, PROGRAM)?;
    site.notes.push(format!("back in {:.1} s", began.elapsed().as_secs_f64()));
    site.goes_on()?;

    let mut rows = site.finish("rolling");
    for row in &mut rows {
        let failed = row.failed_twice;
        row.problems.extend(holds(failed == 0, || format!("{failed} requests failed twice")).err());
    }
    Ok(rows)
}

/// Each worker is followed by one of the other build, and leaves.
fn workers(site: &mut Site, path: &str) -> Result<(), String> {
    for _ in 0..site.workers.len() {
        let worker = site.place.start_program(path, "worker");
        site.put_worker(worker);
        leaves(site.workers.remove(0))?;
        site.lanes_run(PATIENCE)?;
    }
    Ok(())
}

fn ingests(site: &mut Site, path: &str, place: &Place) -> Result<(), String> {
    for number in 0..site.ingests.len() {
        let ingest = place.start_program(path, "ingest");
        leaves(site.put_ingest(number, ingest))?;
        site.goes_on()?;
    }
    Ok(())
}

fn leaves(server: crate::e2e::process::Server) -> Result<(), String> {
    let status = server.stop();
    holds(status.success(), || format!("a process left with {status}"))
}
