//! Redis flushed, killed, and out of memory under each policy: nobody is refused for it, and no answer that lacks something is
//! called fresh.

use std::{
    thread::park_timeout,
    time::{Duration, Instant},
};

use super::super::{
    cluster::{Cluster, holds, until},
    pace::Pace,
    row::Row,
    site::{Plan, Site},
};
use crate::{
    e2e::process::{block_on, get_json},
    redis::server::Server as Redis,
};

const HEALED: Duration = Duration::from_secs(60);
const POLICIES: [&str; 8] = [
    "noeviction",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
];
/// Of which the short form takes the first.
const SHORT: usize = 2;

pub fn all(cluster: &Cluster, pace: &Pace) -> Result<Vec<Row>, String> {
    let mut redis = block_on(Redis::start(&[]));
    let mut plan = Plan::new(cluster, pace, "redis");
    plan.place = plan.place.hot_at(&redis.address());
    let mut site = Site::start(plan)?;
    let healed = heals(&site);
    site.expect(healed.map(drop));
    let mut rows = vec![site.count("redis, all well")];

    rows.push(one(&mut site, "redis flushed", |site| {
        for _ in 0..5 {
            let () = block_on(redis.ask(&["FLUSHALL"]));
            reads(site, Duration::from_secs(1))?;
        }
        Ok(())
    }));
    rows.push(one(&mut site, "redis killed", |site| {
        redis.kill();
        let read = reads(site, pace.link);
        block_on(redis.start_again());
        read
    }));
    for policy in &POLICIES[..if pace.long { POLICIES.len() } else { SHORT }] {
        rows.push(one(&mut site, &format!("redis {policy}"), |site| {
            let set = |what: &str, value: &str| {
                let () = block_on(redis.ask(&["CONFIG", "SET", what, value]));
            };
            set("maxmemory-policy", policy);
            // Less than it has now: what is there must go, or nothing comes.
            set("maxmemory", "1mb");
            let read = reads(site, pace.link);
            set("maxmemory", "0");
            read
        }));
    }
    Ok(site.rows(rows))
}

fn one(site: &mut Site, fault: &str, make: impl FnOnce(&Site) -> Result<(), String>) -> Row {
    site.row(fault, |site| {
        let began = Instant::now();
        let made = make(site);
        site.expect(made);
        match heals(site) {
            Ok(took) => site.notes.push(format!("healed {:.1} s later", took.as_secs_f64())),
            Err(why) => site.problems.push(why),
        }
        let attempts = site.load().between(began, Instant::now());
        let refused = attempts.iter().filter(|attempt| attempt.status != Some(202)).count();
        holds(refused == 0, || format!("{refused} of {} requests were not answered 202", attempts.len()))
    })
}

/// Reads the counter's total while it grows: where from, and whether it is called fresh; an error when it is and lacks something.
fn read(site: &Site) -> Result<Option<(bool, bool)>, String> {
    let (least, _) = site.load().bounds();
    let answer = get_json(&format!("{}/v1/counters/{}", site.ingests[1].url, site.counter));
    let (_, most) = site.load().bounds();
    match answer {
        Some((200, answer)) => {
            let (total, stale) = (answer["total"].as_i64().unwrap_or_default(), answer["stale"] == true);
            let right = stale || (least..=most).contains(&total);
            holds(right, || format!("{answer} is called fresh, and {least} were acknowledged of {most}"))?;
            Ok(Some((answer["source"] == "hot", stale)))
        }
        // Nothing of it has been stored yet, and nothing else knows it.
        Some((404, _)) => Ok(None),
        other => Err(format!("a read is answered {other:?}")),
    }
}

fn reads(site: &Site, span: Duration) -> Result<(), String> {
    let end = Instant::now() + span;
    while Instant::now() < end {
        read(site)?;
        park_timeout(Duration::from_millis(50));
    }
    Ok(())
}

/// Waits until the view answers, and lacks nothing.
fn heals(site: &Site) -> Result<Duration, String> {
    let began = Instant::now();
    until("the view is whole", HEALED, || {
        let seen = read(site)?;
        holds(seen == Some((true, false)), || format!("(hot, stale) is {seen:?}"))
    })?;
    Ok(began.elapsed())
}
