//! Nodes of the store down: with one the quorum is there, with two it is not.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use super::super::{
    cluster::{Cluster, holds, until},
    pace::Pace,
    row::Row,
    site::{PATIENCE, Plan, Site},
};

/// What lanes may have had under way when the quorum went.
const ON_ITS_WAY: Duration = Duration::from_secs(3);

pub fn one(cluster: &Cluster, pace: &Pace) -> Result<Vec<Row>, String> {
    let mut site = Site::start(Plan::new(cluster, pace, "one-node"))?;
    let killed = Instant::now();
    cluster.kill(&["store-2"])?;
    site.goes_on()?;
    // What is acknowledged now is stored while the node is down.
    let stored = site.of_lanes("stored");
    let on = until("lanes store on", PATIENCE, || {
        let now = site.of_lanes("stored");
        holds(now > stored, || format!("{now} packs, and {stored} before"))
    });
    site.expect(on);
    sleep(pace.outage.saturating_sub(killed.elapsed()));
    cluster.start(&["store-2"])?;
    site.goes_on()?;
    Ok(site.finish("one-node"))
}

pub fn two(cluster: &Cluster, pace: &Pace) -> Result<Vec<Row>, String> {
    const GONE: &[&str] = &["store-2", "store-3"];
    let mut site = Site::start(Plan::new(cluster, pace, "two-nodes"))?;
    cluster.kill(GONE)?;
    let killed = Instant::now();
    sleep(ON_ITS_WAY);
    let before = [site.of_lanes("stored"), site.of_lanes("checkpoint")];
    site.goes_on()?;
    sleep(pace.outage.saturating_sub(killed.elapsed()));
    let after = [site.of_lanes("stored"), site.of_lanes("checkpoint")];
    site.expect(holds(before == after, || {
        format!("without a quorum [stored, checkpoint] moved from {before:?} to {after:?}")
    }));
    cluster.start(GONE)?;
    site.goes_on()?;
    Ok(site.finish("two-nodes"))
}
