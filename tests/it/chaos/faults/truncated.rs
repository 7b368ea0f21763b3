//! A log that has lost its end, on every broker at once, as power cuts and unclean elections leave it: the lane halts with an
//! alarm and its remedy, and the others go on.

use std::{
    fs::{self, OpenOptions},
    path::PathBuf,
    time::{Duration, Instant},
};

use super::{
    super::{
        cluster::{Cluster, holds, until},
        pace::Pace,
        row::Row,
        site::{PATIENCE, Plan, Site},
    },
    retention::{ALARM, halts, lane, others_go_on},
};

const BROKERS: &[&str] = &["kafka-1", "kafka-2", "kafka-3"];

/// The files of one partition's newest segment, one for each broker.
fn segments(cluster: &Cluster, topic: &str, partition: u32) -> Result<Vec<PathBuf>, String> {
    let newest = |broker: &&str| {
        let folder = cluster.folder().join(broker).join("data").join(format!("{topic}-{partition}"));
        let files = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let logs = files.filter_map(|file| file.ok().map(|file| file.path()));
        let logs = logs.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.max().ok_or_else(|| format!("{} has no segment", folder.display()))
    };
    BROKERS.iter().map(newest).collect()
}

/// Half of what every broker has of the partition is gone.
fn cut(cluster: &Cluster, topic: &str, partition: u32) -> Result<u64, String> {
    let files = segments(cluster, topic, partition)?;
    let size = |path: &PathBuf| fs::metadata(path).map(|about| about.len()).map_err(|error| error.to_string());
    let sizes = files.iter().map(size).collect::<Result<Vec<_>, _>>()?;
    let kept = sizes.iter().min().copied().unwrap_or_default() / 2;
    for file in &files {
        let opened = OpenOptions::new().write(true).open(file).and_then(|file| file.set_len(kept));
        opened.map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(kept)
}

pub fn on_every_broker(cluster: &Cluster, pace: &Pace) -> Result<Vec<Row>, String> {
    let mut site = Site::start(Plan::new(cluster, pace, "truncated"))?;
    until("much of lane 0 is stored", PATIENCE, || {
        let shown = lane(&site.ingests[0], 0);
        holds(shown["stored"].as_i64().unwrap_or_default() > 30, || shown.to_string())
    })?;
    cluster.kill(BROKERS)?;
    let kept = cut(cluster, &site.place.topic, 0)?;
    cluster.start(BROKERS)?;
    let began = Instant::now();
    let said = halts(&mut site, ALARM);
    let took: Duration = began.elapsed();
    site.notes.push(format!(
        "cut to {kept} bytes; lane 0 halted {:.1} s after the brokers answer: {said}",
        took.as_secs_f64()
    ));
    others_go_on(&mut site);
    let mut row = site.uncounted("log truncated");
    row.problems.extend(site.leave().err());
    Ok(vec![row])
}
