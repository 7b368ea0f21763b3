//! The group of workers changes once a second: a member comes, and goes again before it has done anything.

use std::time::{Duration, Instant};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer as _},
};

use super::super::{
    cluster::{Cluster, holds},
    pace::Pace,
    row::Row,
    site::{PATIENCE, Plan, Site},
};
use crate::{e2e::place::Place, stack};

const EVERY: Duration = Duration::from_secs(1);

/// Joins, stays for a moment, and leaves.
fn visit(place: &Place, until: Instant) -> Result<(), String> {
    let member: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", stack::kafka())
        .set("group.id", &place.topic)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", "6000")
        .set("enable.auto.commit", "false")
        .create()
        .map_err(|error| error.to_string())?;
    member.subscribe(&[&place.topic]).map_err(|error| error.to_string())?;
    while Instant::now() < until {
        let _ = member.poll(Duration::from_millis(20));
    }
    Ok(())
}

pub fn once_a_second(cluster: &Cluster, pace: &Pace) -> Result<Vec<Row>, String> {
    let mut site = Site::start(Plan::new(cluster, pace, "rebalances"))?;
    let stored = |site: &Site| site.of_lanes("stored");
    let (before, end, mut visits) = (stored(&site), Instant::now() + pace.spell, 0);
    while Instant::now() < end {
        let next = Instant::now() + EVERY;
        visit(&site.place, Instant::now() + EVERY / 2)?;
        visits += 1;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let took = site.lanes_run(PATIENCE)?;
    let after = stored(&site);
    site.notes.push(format!("{visits} visits; every lane runs {:.1} s after the last", took.as_secs_f64()));
    site.expect(holds(after > before, || format!("nothing was stored meanwhile: {before} before, {after} after")));
    site.goes_on()?;
    Ok(site.finish("rebalances"))
}
