//! The group of workers changes once a second: one comes, the next second the one that has been there longest goes, lanes and all.

use std::time::{Duration, Instant};

use super::super::{
    cluster::{Cluster, holds},
    pace::Pace,
    row::Row,
    site::{PATIENCE, Plan, Site},
};

const EVERY: Duration = Duration::from_secs(1);

pub fn once_a_second(cluster: &Cluster, pace: &Pace) -> Result<Vec<Row>, String> {
    let mut site = Site::start(Plan::new(cluster, pace, "rebalances"))?;
    let (began, mut changes, mut left) = (Instant::now(), 0, Ok(()));
    let before = stored_by_all(&site);
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
    let after = stored_by_all(&site);
    site.expect(holds(after > before, || format!("nothing was stored meanwhile: {before} before, {after} after")));
    let took = site.lanes_run(PATIENCE)?.as_secs_f64();
    site.notes.push(format!("{changes} changes in {spell:.1} s; every lane runs {took:.1} s after the last"));
    site.goes_on()?;
    Ok(site.finish("rebalances"))
}

/// Packs that the store has of all lanes, whoever runs them.
fn stored_by_all(site: &Site) -> i64 {
    let (_, lag) = site.ingests[0].get_admin("/api/v1/lag");
    lag["lanes"].as_array().map_or(0, |lanes| lanes.iter().map(|lane| lane["stored"].as_i64().unwrap_or(-1)).sum())
}
