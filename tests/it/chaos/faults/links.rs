//! Slow and broken links, one after the other, on processes that go on: each row has a load of its own.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use super::super::{
    cluster::{Cluster, holds},
    pace::Pace,
    proxy::{Link, Mode},
    row::Row,
    site::{Plan, Site},
};
use crate::stack;

/// Longer than any deadline of the ingests here, and shorter than a client's patience.
const ANSWERED: Duration = Duration::from_secs(13);

/// Every link of the site, and its name.
struct Links {
    clients: [Link; 2],
    ingest_kafka: Link,
    worker_kafka: Link,
    worker_store: Link,
    ingest_redis: Link,
    worker_redis: Link,
}

const CLIENTS: &str = "client-ingest";
const MODES: [(Mode, &str); 4] =
    [(Mode::Reset, "reset"), (Mode::HalfOpen, "half-open"), (Mode::Trickle, "1 B/s"), (Mode::Latency, "latency")];

impl Links {
    fn all(&self) -> [(&'static str, Vec<&Link>); 6] {
        [
            (CLIENTS, self.clients.iter().collect()),
            ("ingest-kafka", vec![&self.ingest_kafka]),
            ("worker-kafka", vec![&self.worker_kafka]),
            ("worker-store", vec![&self.worker_store]),
            ("ingest-redis", vec![&self.ingest_redis]),
            ("worker-redis", vec![&self.worker_redis]),
        ]
    }
}

/// What the short form makes: each link once, and the store's twice.
const SHORT: [(&str, Mode); 6] = [
    (CLIENTS, Mode::Reset),
    ("ingest-kafka", Mode::HalfOpen),
    ("worker-kafka", Mode::Trickle),
    ("worker-store", Mode::HalfOpen),
    ("worker-store", Mode::Reset),
    ("ingest-redis", Mode::Trickle),
];

pub fn all(cluster: &Cluster, pace: &Pace) -> Result<Vec<Row>, String> {
    let mut plan = Plan::new(cluster, pace, "links");
    plan.place = plan.place.set("store.timeout=2s").set("log.append_timeout=4s").set("ingest.ack_timeout=6s");
    let (redis, store) = (stack::redis(), Link::to_store());
    let hot = || Link::to(&redis);
    let (ingest_kafka, worker_kafka) = (Link::to_kafka(1), Link::to_kafka(2));
    let (ingest_redis, worker_redis) = (hot(), hot());
    plan.ingest = Some(plan.place.clone().log_at(&ingest_kafka.address).hot_at(&ingest_redis.address));
    let worker = plan.place.clone().log_at(&worker_kafka.address).store_at(&store.address);
    plan.worker = Some(worker.hot_at(&worker_redis.address));
    let mut site = Site::start(plan)?;
    let clients = [0, 1].map(|n: usize| Link::to(site.ingests[n].url.strip_prefix("http://").expect("its address")));
    site.fronts = clients.iter().map(|link| format!("http://{}", link.address)).collect();
    let links = Links { clients, ingest_kafka, worker_kafka, worker_store: store, ingest_redis, worker_redis };
    // The first load knew no fronts.
    let mut rows = Vec::new();
    let first = site.count("links, all clear");
    rows.push(first);
    for (name, links) in links.all() {
        for (mode, what) in MODES {
            if pace.long || SHORT.contains(&(name, mode)) {
                rows.push(one(&mut site, pace, name, &links, mode, what));
            }
        }
    }
    Ok(site.rows(rows))
}

fn one(site: &mut Site, pace: &Pace, name: &str, links: &[&Link], mode: Mode, what: &str) -> Row {
    site.row(&format!("{name} {what}"), |site| {
        let began = Instant::now();
        links.iter().for_each(|link| link.set(mode));
        sleep(pace.link);
        links.iter().for_each(|link| link.set(Mode::Clear));
        let on = site.goes_on();
        site.expect(on);
        if name == CLIENTS {
            return Ok(());
        }
        let attempts = site.load().between(began, Instant::now());
        let slowest = attempts.iter().map(|attempt| attempt.ended - attempt.began).max().unwrap_or_default();
        site.notes.push(format!("slowest answer {:.1} s", slowest.as_secs_f64()));
        site.expect(holds(slowest < ANSWERED, || format!("no deadline fired: an answer took {slowest:?}")));
        let refused = attempts.iter().filter(|attempt| attempt.status != Some(202)).count();
        holds(refused == 0 || !name.ends_with("redis"), || format!("{refused} requests were not answered 202"))
    })
}
