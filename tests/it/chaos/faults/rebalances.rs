//! The group of workers changes once a second: one comes, the next second the one that has been there longest goes, lanes and all.

use std::time::{Duration, Instant};

use super::super::{
    cluster::holds,
    pace::Pace,
    site::{PATIENCE, Site},
};

const EVERY: Duration = Duration::from_secs(1);
/// No lane stands still for so long.
const STILL: Duration = Duration::from_secs(30);

pub(super) fn once_a_second(site: &mut Site, pace: &Pace) -> Result<(), String> {
    let (began, mut changes, mut left) = (Instant::now(), 0, Ok(()));
    let before = stored_by_all(site);
    while began.elapsed() < pace.spell {
        let next = Instant::now() + EVERY;
        if changes % 2 == 0 {
            site.add_worker();
        } else {
            let status = site.workers.remove(0).stop();
            left = left.and(holds(status.success(), || format!("a worker left with {status}")));
        }
        changes += 1;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let spell = began.elapsed().as_secs_f64();
    site.expect(left);
    let after = stored_by_all(site);
    let moved: Vec<i64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
    // In some seconds not every lane need have come to it.
    let enough = if pace.long { moved.iter().all(|packs| *packs > 0) } else { moved.iter().any(|packs| *packs > 0) };
    site.expect(holds(enough, || format!("packs stored of each lane meanwhile: {moved:?}")));
    let longest = site.watch.pauses().into_iter().max().unwrap_or_default();
    site.expect(holds(longest < STILL, || format!("a lane stood still for {longest:?}")));
    let took = site.lanes_run(PATIENCE)?.as_secs_f64();
    site.notes.push(format!("{changes} changes in {spell:.1} s; every lane runs {took:.1} s after the last"));
    site.goes_on()
}

/// Packs that the store has of each lane, whoever runs it.
fn stored_by_all(site: &Site) -> Vec<i64> {
    let (_, lag) = site.ingests[0].get_admin("/api/v1/lag");
    let lanes = lag["lanes"].as_array().cloned().unwrap_or_default();
    lanes.iter().map(|lane| lane["stored"].as_i64().unwrap_or(-1)).collect()
}
