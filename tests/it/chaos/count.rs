//! What is counted afterwards, by HTTP as a user would, and from the tables with plain CQL.

use std::collections::BTreeMap;

use super::books::Found;
use crate::{
    e2e::{
        place::Place,
        process::{block_on, get_json},
    },
    support_scylla,
};

/// Reads a counter's series and a name's events over HTTP.
pub fn by_http(url: &str, counter: &str) -> Result<Found, String> {
    let mut found = Found::default();
    let get = |path: String| match get_json(&format!("{url}{path}")) {
        Some((200, answer)) => Ok(answer),
        other => Err(format!("{path}: {other:?}")),
    };
    let answer = get(format!("/v1/counters/{counter}?by=key&top=1000&consistency=stored"))?;
    for group in answer["groups"].as_array().into_iter().flatten() {
        let key = group["tags"]["key"].as_str().unwrap_or_default();
        found.totals.insert(key.to_owned(), group["total"].as_i64().unwrap_or_default());
    }
    let sum: i64 = found.totals.values().sum();
    let whole = get(format!("/v1/counters/{counter}?consistency=stored"))?["total"].as_i64();
    if whole != Some(sum) {
        return Err(format!("the counter's own total is {whole:?}, and its series add up to {sum}"));
    }
    let mut cursor = String::new();
    loop {
        let answer = get(format!("/v1/events?name={counter}&limit=1000{cursor}"))?;
        for event in answer["events"].as_array().into_iter().flatten() {
            *found.events.entry(event["id"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
        match answer["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(found),
        }
    }
}

/// The rows of the tables, added up over all epochs of the place's topic: what anybody would find there.
pub fn by_cql(place: &Place, counter: &str) -> Result<BTreeMap<String, i64>, String> {
    block_on(async {
        let epochs = format!("SELECT epoch FROM {}.epochs WHERE topic = '{}'", place.keyspace, place.topic);
        let epochs: Vec<(Vec<u8>,)> = support_scylla::rows(&epochs).await;
        let shards: Vec<String> = (0..256).map(|shard: i32| shard.to_string()).collect();
        let mut totals: BTreeMap<String, i64> = BTreeMap::new();
        for (epoch,) in epochs {
            let epoch: String = epoch.iter().map(|byte| format!("{byte:02x}")).collect();
            for shards in shards.chunks(64) {
                let rows = format!(
                    "SELECT series, CAST(total AS bigint) FROM {}.counter_totals WHERE namespace = 'default' AND shard IN ({}) \
                     AND epoch = 0x{epoch} AND counter = '{counter}'",
                    place.keyspace,
                    shards.join(",")
                );
                let rows: Vec<(String, i64)> = support_scylla::rows(&rows).await;
                for (series, total) in rows {
                    let key = series.rsplit('=').next().unwrap_or_default().to_owned();
                    *totals.entry(key).or_default() += total;
                }
            }
        }
        Ok(totals)
    })
}

/// Both ways must say the same.
pub fn agree(found: &Found, totals: &BTreeMap<String, i64>) -> Result<(), String> {
    if &found.totals == totals {
        return Ok(());
    }
    let differ = found.totals.iter().filter(|(key, total)| totals.get(*key) != Some(total)).take(3).collect::<Vec<_>>();
    Err(format!(
        "HTTP and the tables do not say the same: {differ:?} by HTTP, {} series there and {} here",
        found.totals.len(),
        totals.len()
    ))
}
