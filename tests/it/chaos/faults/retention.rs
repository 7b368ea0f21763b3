//! Retention overtakes a lane that nobody runs: it halts with an alarm and its remedy, and the others go on.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::{
    cluster::{Cluster, holds, until},
    pace::Pace,
    row::Row,
    site::{PATIENCE, Plan, Site},
};
use crate::{
    e2e::process::{Server, block_on, get_json},
    kafka::support::Topic,
    stack,
};

const ALARM: Duration = Duration::from_secs(30);

/// What a process shows of a lane.
fn lane(server: &Server, partition: u64) -> Value {
    let lag = get_json(&format!("{}/api/v1/lag", server.admin)).map(|(_, lag)| lag).unwrap_or_default();
    let lanes = lag["lanes"].as_array().cloned().unwrap_or_default();
    lanes.into_iter().find(|lane| lane["partition"] == partition).unwrap_or_default()
}

pub fn overtakes(cluster: &Cluster, pace: &Pace) -> Result<Vec<Row>, String> {
    let mut site = Site::start(Plan::new(cluster, pace, "retention"))?;
    for worker in std::mem::take(&mut site.workers) {
        let status = worker.stop();
        site.expect(holds(status.success(), || format!("a worker left with {status}")));
    }
    let mut end = 0;
    until("packs wait in lane 0", PATIENCE, || {
        let shown = lane(&site.ingests[0], 0);
        end = shown["end"].as_i64().unwrap_or_default();
        holds(shown["lag_packs"].as_i64().unwrap_or_default() > 20, || shown.to_string())
    })?;
    let topic = Topic::named(&stack::kafka(), &site.place.topic);
    block_on(topic.remove_before(0, end));

    let began = Instant::now();
    for _ in 0..3 {
        site.add_worker();
    }
    let mut said = String::new();
    let halted = until("lane 0 halts", ALARM, || {
        let shown: Vec<Value> = site.workers.iter().map(|worker| lane(worker, 0)).collect();
        let halted = shown.iter().find(|lane| lane["status"] == "HALTED");
        said = halted.map(|lane| lane["reason"].as_str().unwrap_or_default().to_owned()).unwrap_or_default();
        holds(halted.is_some(), || format!("{shown:?}"))
    });
    site.notes.push(format!("lane 0 halted {:.1} s after the workers' start: {said}", began.elapsed().as_secs_f64()));
    site.expect(halted);
    site.expect(holds(said.contains("accept") || said.contains("restore"), || format!("no remedy is named: {said}")));
    let stored: Vec<i64> = (1..6).map(|n| lane(&site.ingests[0], n)["stored"].as_i64().unwrap_or(-1)).collect();
    let on = until("the others go on", PATIENCE, || {
        let now: Vec<i64> = (1..6).map(|n| lane(&site.ingests[0], n)["stored"].as_i64().unwrap_or(-1)).collect();
        holds(now.iter().zip(&stored).all(|(now, then)| now > then), || format!("{stored:?}, then {now:?}"))
    });
    site.expect(on);
    let codes: Vec<i32> = site.workers.iter().map(|worker| worker.lag_check().0).collect();
    site.expect(holds(codes.contains(&4), || format!("`tallymark lag --check` ends with {codes:?}")));
    let mut row = site.uncounted("retention overtakes");
    row.problems.extend(site.leave().err());
    Ok(vec![row])
}
