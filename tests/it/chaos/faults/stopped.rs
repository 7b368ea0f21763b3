//! A worker that hangs until the group has gone on without it, and wakes with everything in its hands.

use super::super::{
    cluster::{Cluster, holds, until},
    pace::Pace,
    row::Row,
    site::{PATIENCE, Plan, Site, lanes},
};

pub fn worker(cluster: &Cluster, pace: &Pace) -> Result<Vec<Row>, String> {
    let mut site = Site::start(Plan::new(cluster, pace, "stop-worker"))?;
    site.workers[0].signal("STOP");
    std::thread::sleep(pace.session * 2);
    // Asked only of those that can answer.
    let frozen = site.workers.remove(0);
    let others = site.lanes_run(PATIENCE);
    site.expect(others.map(drop));
    frozen.signal("CONT");
    site.workers.push(frozen);
    let rejoined = until("it has lanes again", PATIENCE, || {
        let all: Vec<usize> = site.workers.iter().map(lanes).collect();
        holds(all.iter().all(|lanes| *lanes > 0), || format!("the workers run {all:?}"))
    });
    site.expect(rejoined);
    site.goes_on()?;
    Ok(site.finish("stop-worker"))
}
