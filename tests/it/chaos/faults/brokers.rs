//! Brokers killed: one that leads, and then another beside it.

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

/// How soon there must be a 2xx again.
const RECOVERY: Duration = Duration::from_secs(30);
/// What was on its way when the second broker went may have been acknowledged.
const ON_ITS_WAY: Duration = Duration::from_secs(1);
/// What an ingest may grow by while it refuses: `ingest.buffer`, `log.buffer`, and what is in hand.
const GROWTH: u64 = 256 << 20;

pub fn all(cluster: &Cluster, pace: &Pace) -> Result<Vec<Row>, String> {
    let mut plan = Plan::new(cluster, pace, "brokers");
    if !pace.long {
        // A client is told after ten seconds otherwise, and that is nearly the whole outage.
        plan.place = plan.place.set("log.append_timeout=3s").set("ingest.ack_timeout=4s");
    }
    let mut site = Site::start(plan)?;
    let mut down = String::new();
    let rows = vec![
        site.row("leader killed", |site| {
            down = leader(site, cluster, pace)?;
            Ok(())
        }),
        // The second goes while the first is down still.
        site.row("two brokers killed", |site| two(site, cluster, pace, &down)),
    ];
    Ok(site.rows(rows))
}

/// Kills the leader of a partition, and answers which it was.
fn leader(site: &mut Site, cluster: &Cluster, pace: &Pace) -> Result<String, String> {
    let leader = cluster.leader(&site.place, 0)?;
    cluster.kill(&[&leader])?;
    let killed = Instant::now();
    site.goes_on()?;
    let back = killed.elapsed();
    site.notes.push(format!("{leader} killed; 200 items more {:.1} s later", back.as_secs_f64()));
    site.expect(holds(back < RECOVERY, || format!("2xx only {back:?} after the leader was killed")));
    sleep(pace.outage.saturating_sub(killed.elapsed()));
    let mut moved = String::new();
    let another = until("somebody else leads", PATIENCE, || {
        moved = cluster.leader(&site.place, 0)?;
        holds(moved != leader, || format!("{moved} leads"))
    });
    site.expect(another);
    site.goes_on()?;
    Ok(leader)
}

fn two(site: &mut Site, cluster: &Cluster, pace: &Pace, down: &str) -> Result<(), String> {
    let second = ["kafka-3", "kafka-2", "kafka-1"].into_iter().find(|name| *name != down).ok_or("no broker is left")?;
    let before = site.ingests.iter().map(|ingest| ingest.memory()).max().unwrap_or_default();
    cluster.kill(&[second])?;
    let gone = Instant::now() + ON_ITS_WAY;
    sleep(pace.outage);
    let memory = site.ingests.iter().map(|ingest| ingest.memory()).max().unwrap_or_default();
    let attempts = site.load().between(gone, Instant::now());
    let accepted = attempts.iter().filter(|attempt| matches!(attempt.status, Some(200..=299))).count();
    let refused = attempts.iter().filter(|attempt| attempt.status == Some(503)).count();
    site.expect(holds(accepted == 0, || format!("{accepted} requests were answered 2xx without a quorum")));
    site.expect(holds(refused > 0, || "no request was answered 503".to_owned()));
    site.expect(holds(memory < before + GROWTH, || format!("an ingest grew from {before} to {memory} bytes")));
    cluster.start(&[down, second])?;
    let back = Instant::now();
    site.goes_on()?;
    let took = back.elapsed();
    site.notes
        .push(format!("{refused} times 503; 200 items more {:.1} s after the brokers answer", took.as_secs_f64()));
    site.expect(holds(took < RECOVERY, || format!("2xx only {took:?} after the brokers' return")));
    Ok(())
}
