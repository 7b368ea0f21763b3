//! Processes that are killed every five seconds, and one that hangs: one site, a row each.

use std::time::{Duration, Instant};

use super::super::{
    cluster::{Cluster, holds},
    pace::Pace,
    row::Row,
    site::{PATIENCE, Plan, Site},
};

/// Between two kills.
const EVERY: Duration = Duration::from_secs(5);
/// What a takeover may take beside the session timeout.
const TAKEOVER: Duration = Duration::from_secs(10);

pub fn all(cluster: &Cluster, pace: &Pace) -> Result<Vec<Row>, String> {
    let mut site = Site::start(Plan::new(cluster, pace, "kills"))?;
    let rows = vec![
        site.row("kill -9 of an ingest", |site| ingests(site, pace)),
        site.row("kill -9 of a worker", |site| workers(site, pace)),
        site.row("SIGSTOP of a worker", |site| stopped(site, pace)),
    ];
    Ok(site.rows(rows))
}

/// Does something every five seconds, for a while.
fn again_and_again(pace: &Pace, mut kill: impl FnMut(usize) -> Result<(), String>) -> Result<usize, String> {
    let (end, mut round) = (Instant::now() + pace.spell, 0);
    while Instant::now() < end {
        let next = Instant::now() + EVERY;
        kill(round)?;
        round += 1;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(round)
}

fn ingests(site: &mut Site, pace: &Pace) -> Result<(), String> {
    let kills = again_and_again(pace, |round| {
        site.replace_ingest(round % 2).kill();
        site.goes_on()
    })?;
    site.notes.push(format!("{kills} ingests killed"));
    Ok(())
}

fn workers(site: &mut Site, pace: &Pace) -> Result<(), String> {
    // Nobody comes in its place: the others take over.
    site.workers.remove(0).kill();
    let took = site.lanes_run(PATIENCE)?;
    site.notes.push(format!("its lanes are others' {:.1} s after the kill", took.as_secs_f64()));
    site.expect(holds(took < pace.session + TAKEOVER, || format!("a takeover took {took:?}")));
    let kills = again_and_again(pace, |_| {
        site.add_worker();
        // The oldest: the others may have taken its lanes a moment ago, or wait for them.
        site.workers.remove(0).kill();
        site.goes_on()
    })?;
    site.notes.push(format!("{} workers killed", kills + 1));
    site.add_worker();
    let took = site.lanes_run(PATIENCE)?;
    site.notes.push(format!("every lane runs {:.1} s after the last", took.as_secs_f64()));
    Ok(())
}

/// A worker hangs until the group has gone on without it, and wakes with everything in its hands.
fn stopped(site: &mut Site, pace: &Pace) -> Result<(), String> {
    site.all_have_lanes()?;
    site.workers[0].signal("STOP");
    std::thread::sleep(pace.session * 2);
    // Asked only of those that can answer.
    let frozen = site.workers.remove(0);
    let others = site.lanes_run(PATIENCE);
    site.expect(others.map(drop));
    frozen.signal("CONT");
    site.workers.push(frozen);
    let rejoined = site.all_have_lanes();
    site.expect(rejoined);
    site.goes_on()
}
