//! Retention overtakes a lane that nobody runs: it halts with an alarm and its remedy, the others go on, and so does this one once
//! its loss is accepted. What a lane that must halt is held to.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::{
    cluster::{Cluster, PARTITIONS, holds, until},
    pace::Pace,
    row::Row,
    site::{PATIENCE, Plan, Site},
};
use crate::{
    e2e::process::{Server, block_on, get_json, output, tallymark},
    kafka::support::Topic,
    stack,
};

/// How soon a lane that must halt has halted.
pub(super) const ALARM: Duration = Duration::from_secs(30);

/// What a process shows of a lane.
pub(super) fn lane(server: &Server, partition: u64) -> Value {
    let lag = get_json(&format!("{}/api/v1/lag", server.admin)).map(|(_, lag)| lag).unwrap_or_default();
    let lanes = lag["lanes"].as_array().cloned().unwrap_or_default();
    lanes.into_iter().find(|lane| lane["partition"] == partition).unwrap_or_default()
}

/// Waits until lane 0 has halted: shown with a remedy, and by the exit code of `tallymark lag --check`. Answers the reason.
pub(super) fn halts(site: &mut Site, within: Duration) -> String {
    let mut said = String::new();
    let halted = until("lane 0 halts", within, || {
        let shown: Vec<Value> = site.workers.iter().map(|worker| lane(worker, 0)).collect();
        let halted = shown.iter().find(|lane| lane["status"] == "HALTED");
        said = halted.map(|lane| lane["reason"].as_str().unwrap_or_default().to_owned()).unwrap_or_default();
        holds(halted.is_some(), || format!("{shown:?}"))
    });
    site.expect(halted);
    site.expect(holds(said.contains("accept") || said.contains("restore"), || format!("no remedy is named: {said}")));
    let codes: Vec<i32> = site.workers.iter().map(|worker| worker.lag_check().0).collect();
    site.expect(holds(codes.contains(&4), || format!("`tallymark lag --check` ends with {codes:?}")));
    said
}

/// Waits until every lane but 0 has stored more.
pub(super) fn others_go_on(site: &mut Site) {
    let stored = |site: &Site| -> Vec<i64> {
        (1..PARTITIONS as u64).map(|n| lane(&site.ingests[0], n)["stored"].as_i64().unwrap_or(-1)).collect()
    };
    let then = stored(site);
    let on = until("the others go on", PATIENCE, || {
        let now = stored(site);
        holds(now.iter().zip(&then).all(|(now, then)| now > then), || format!("{then:?}, then {now:?}"))
    });
    site.expect(on);
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
    site.add_workers(3);
    let said = halts(&mut site, ALARM);
    site.notes.push(format!("lane 0 halted {:.1} s after the workers' start: {said}", began.elapsed().as_secs_f64()));
    others_go_on(&mut site);
    let accepted = accept(&site);
    site.expect(accepted);
    let mut row = site.uncounted("retention overtakes");
    row.problems.extend(site.leave().err());
    Ok(vec![row])
}

/// The operator takes the command that the lane names, and the lane goes on.
fn accept(site: &Site) -> Result<(), String> {
    let server = &site.ingests[0];
    let listed = output(&mut tallymark(&["lanes", "--json", "--admin-url", &server.admin])).1;
    let listed: Value = serde_json::from_str(&listed).map_err(|error| format!("{error}: {listed}"))?;
    let lanes = listed["lanes"].as_array().cloned().unwrap_or_default();
    let halted = lanes.iter().find(|lane| lane["partition"] == 0 && lane["command"].is_string());
    let command = halted.and_then(|lane| lane["command"].as_str()).ok_or_else(|| listed.to_string())?;
    let words: Vec<&str> = command.split(' ').skip(1).chain(["--yes", "--admin-url", &server.admin]).collect();
    let (code, said, why) = output(&mut tallymark(&words));
    holds(code == 0 && said.contains("Lost: "), || format!("{words:?} ends with {code}: {said}{why}"))?;
    until("lane 0 goes on, and everything is stored", PATIENCE, || {
        let shown = lane(server, 0);
        holds(shown["status"] == "OK", || shown.to_string())
    })
}
