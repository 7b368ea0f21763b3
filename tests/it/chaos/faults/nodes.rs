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

const FIRST: &str = "store-2";
const SECOND: &str = "store-3";
/// What lanes may have had under way when the quorum went.
const ON_ITS_WAY: Duration = Duration::from_secs(3);

pub fn all(cluster: &Cluster, pace: &Pace) -> Result<Vec<Row>, String> {
    let mut site = Site::start(Plan::new(cluster, pace, "nodes"))?;
    let rows = vec![
        site.row("one store node down", |site| one(site, cluster, pace)),
        // The second goes while the first is down still.
        site.row("two store nodes down", |site| two(site, cluster, pace)),
    ];
    Ok(site.rows(rows))
}

fn one(site: &mut Site, cluster: &Cluster, pace: &Pace) -> Result<(), String> {
    let killed = Instant::now();
    cluster.kill(&[FIRST])?;
    site.goes_on()?;
    // What is acknowledged now is stored while the node is down.
    let stored = site.of_lanes("stored");
    let on = until("lanes store on", PATIENCE, || {
        let now = site.of_lanes("stored");
        holds(now > stored, || format!("{now} packs, and {stored} before"))
    });
    site.expect(on);
    sleep(pace.outage.saturating_sub(killed.elapsed()));
    site.goes_on()
}

fn two(site: &mut Site, cluster: &Cluster, pace: &Pace) -> Result<(), String> {
    cluster.kill(&[SECOND])?;
    let killed = Instant::now();
    sleep(ON_ITS_WAY);
    let before = [site.of_lanes("stored"), site.of_lanes("checkpoint")];
    site.goes_on()?;
    sleep(pace.outage.saturating_sub(killed.elapsed()));
    let after = [site.of_lanes("stored"), site.of_lanes("checkpoint")];
    site.expect(holds(before == after, || {
        format!("without a quorum [stored, checkpoint] moved from {before:?} to {after:?}")
    }));
    cluster.start(&[FIRST, SECOND])?;
    site.goes_on()
}
