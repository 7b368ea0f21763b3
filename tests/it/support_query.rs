//! A small world for queries: an in-memory store, a log that knows its ends, the in-process hot view, and hands that play
//! ingest ([`World::count`]) and a lane ([`World::flush`]) in between.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicI64, Ordering},
};

use axum::{Router, body::Body, http::Request};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tallymark::{
    hot::{self, Base, Delta, HotKey, HotKind, Shared, memory::Memory, none::Disabled},
    item::{Epoch, Lane, Namespace, Seq, SeriesRef, Shard, Stamp, TopicId, series_hash, write_tags},
    log::{Log, Topology},
    progress::Progress,
    query::{self, Deps, Handle},
    receipt::Receipt,
    store::{EpochRow, EventRow, Events as _, Ledger as _, RowName, ShardKey, TotalRow, Totals as _},
};
use tower::ServiceExt as _;

pub mod log;
pub mod store;

use log::Ends;
pub use store::MemoryStore;

pub const PARTITIONS: u32 = 4;
pub const SHARDS: u32 = 16;
pub const TOPIC: &str = "tallymark.packs";

/// One increment on its way.
struct Logged {
    lane: Lane,
    seq: Seq,
    namespace: Namespace,
    epoch: Epoch,
    shard: Shard,
    name: RowName,
    amount: i128,
}

/// See the module.
pub struct World {
    pub store: Arc<MemoryStore>,
    pub hot: Shared,
    pub log: Arc<Ends>,
    pub lag_ms: Arc<AtomicI64>,
    pub router: Router,
    unstored: Mutex<Vec<Logged>>,
}

/// How a world differs from the usual one.
pub struct Setup {
    pub query: query::Options,
    pub hot: hot::Options,
    pub holds: bool,
}

impl Default for Setup {
    fn default() -> Self {
        // Tests of answers must not fail because a busy machine took 50 ms.
        let hot = hot::Options { timeout: tallymark::units::Span::from_secs(10), ..hot::Options::default() };
        Self { query: query::Options::default(), hot, holds: true }
    }
}

pub fn topic_id() -> TopicId {
    TopicId([3; 16])
}

fn epoch_row(topic_id: TopicId, shards: u32) -> EpochRow {
    EpochRow {
        epoch: Epoch::of(topic_id, PARTITIONS, shards),
        topic_id,
        cluster_id: "here".to_owned(),
        partitions: PARTITIONS,
        shards,
        dedup_window_us: 600_000_000,
        dedup_max_ids: 1_000_000,
        created_ms: 0,
    }
}

impl World {
    pub async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    pub async fn with(setup: Setup) -> Self {
        let store = Arc::new(MemoryStore::default());
        store.begin_epoch(TOPIC, &epoch_row(topic_id(), SHARDS)).await.unwrap();
        Self::over(store, setup)
    }

    /// A process that starts over this store, with an empty hot view.
    pub fn over(store: Arc<MemoryStore>, setup: Setup) -> Self {
        let hot: Shared = if setup.holds { Arc::new(Memory::new(&setup.hot)) } else { Arc::new(Disabled) };
        let topology = Topology {
            topic: TOPIC.to_owned(),
            topic_id: topic_id(),
            cluster_id: "here".to_owned(),
            partitions: PARTITIONS,
        };
        let log = Arc::new(Ends::new(topology));
        let lag_ms = Arc::new(AtomicI64::new(0));
        let lag = lag_ms.clone();
        let deps = Deps {
            store: store.clone(),
            hot: hot.clone(),
            log: log.clone(),
            progress: Arc::new(Progress::new(store.clone(), TOPIC)),
            lag_ms: Arc::new(move || Some(lag.load(Ordering::Relaxed)).filter(|lag| *lag >= 0)),
        };
        let router = query::routes(Handle::new(&setup.query, &setup.hot, deps));
        Self { store, hot, log, lag_ms, router, unstored: Mutex::default() }
    }

    /// Ingest: an increment is in the log and in the hot view. Its receipt.
    pub async fn count(&self, counter: &str, tags: &[(&str, &str)], amount: i64) -> Receipt {
        self.count_in("default", counter, tags, amount).await
    }

    pub async fn count_in(&self, namespace: &str, counter: &str, tags: &[(&str, &str)], amount: i64) -> Receipt {
        let receipt = self.log_only(namespace, counter, tags, amount);
        let (partition, seq) = receipt.packs[0];
        let deltas = hot_keys(namespace, counter, &canonical(tags)).map(|key| Delta { key, amount: amount.into() });
        self.hot.add(Lane { topic_id: topic_id(), partition }, seq, deltas.into()).await.unwrap();
        receipt
    }

    /// Ingest with `hot=skip`.
    pub fn log_only(&self, namespace: &str, counter: &str, tags: &[(&str, &str)], amount: i64) -> Receipt {
        let tags = canonical(tags);
        let key = SeriesRef { namespace, counter, tags: &tags }.to_key();
        let shard = Shard::of(series_hash(&key), SHARDS);
        let partition = shard.partition(PARTITIONS);
        let seq = self.log.append(partition);
        self.unstored.lock().unwrap().push(Logged {
            lane: Lane { topic_id: topic_id(), partition },
            seq,
            namespace: Namespace::parse(namespace).unwrap(),
            epoch: Epoch::of(topic_id(), PARTITIONS, SHARDS),
            shard,
            name: RowName { counter: counter.into(), tags: tags.into() },
            amount: amount.into(),
        });
        Receipt { topic_id: topic_id(), packs: vec![(partition, seq)] }
    }

    /// The lanes: everything in the log is stored and published.
    pub async fn flush(&self) {
        let unstored = std::mem::take(&mut *self.unstored.lock().unwrap());
        for logged in unstored {
            let Logged { lane, seq, namespace, epoch, shard, name, amount } = logged;
            let whole = RowName { counter: name.counter.clone(), tags: "".into() };
            let reserved = Shard::reserved(lane.partition);
            let keys = hot_keys(namespace.as_str(), &name.counter, &name.tags);
            for ((shard, name), key) in [(shard, name), (reserved, whole)].into_iter().zip(keys) {
                let place = ShardKey { namespace: namespace.clone(), shard, epoch };
                let old = self.store.totals_named(&place, std::slice::from_ref(&name)).await.unwrap().remove(0);
                let total = old.map_or(0, |row| row.total) + amount;
                let row = TotalRow { name, total, seq, stamp: Stamp(seq.0 as i64 + 1) };
                self.store.write_totals(&place, &[row]).await.unwrap();
                self.hot.publish(lane, seq, &[Base { key, total }]).await.unwrap();
            }
            self.store.write_stored(TOPIC, lane, seq, Stamp(seq.0 as i64 + 1)).await.unwrap();
            self.hot.published(lane, seq).await.unwrap();
        }
    }

    /// Rows of an older life of the topic.
    pub async fn older_life(&self, counter: &str, total: i128) {
        let older = epoch_row(TopicId([2; 16]), SHARDS / 2);
        self.store.begin_epoch(TOPIC, &older).await.unwrap();
        let namespace = Namespace::default();
        let hash = series_hash(&SeriesRef { namespace: "default", counter, tags: "" }.to_key());
        let shard = Shard::of(hash, older.shards);
        for shard in [shard, Shard::reserved(shard.partition(PARTITIONS))] {
            let place = ShardKey { namespace: namespace.clone(), shard, epoch: older.epoch };
            let name = RowName { counter: counter.into(), tags: "".into() };
            let row = TotalRow { name, total, seq: Seq(9), stamp: Stamp(9) };
            self.store.write_totals(&place, &[row]).await.unwrap();
        }
    }

    /// How far a lane of that older life came.
    pub async fn older_lane_stored(&self, partition: u32, seq: u64) -> Lane {
        let lane = Lane { topic_id: TopicId([2; 16]), partition };
        self.store.write_stored(TOPIC, lane, Seq(seq), Stamp(1)).await.unwrap();
        lane
    }

    /// Stores an event.
    pub async fn event(&self, name: &str, subject: Option<&str>, time_ms: i64, id: &str, properties: &'static str) {
        let row = EventRow {
            namespace: Namespace::default(),
            name: name.into(),
            subject: subject.map(Into::into),
            time_ms,
            id: id.into(),
            properties: properties.as_bytes().into(),
            received_ms: time_ms,
            stamp: Stamp(1),
        };
        self.store.write_events(&[row]).await.unwrap();
    }

    /// GET: status and JSON.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.get_in(None, path).await
    }

    pub async fn get_in(&self, namespace: Option<&str>, path: &str) -> (u16, Value) {
        let mut request = Request::get(path);
        if let Some(namespace) = namespace {
            request = request.header("Tallymark-Namespace", namespace);
        }
        let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
        let retry_after = response.headers().contains_key("retry-after");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{path}: {body:?}"));
        if status == 200 {
            assert_eq!(content_type, "application/json", "{path}");
        } else {
            assert_eq!(content_type, "application/problem+json", "{path}");
            assert_eq!(body["status"], status, "{path}");
            assert_eq!(retry_after, status == 503, "{path}");
        }
        (status, body)
    }

    /// GET: the body as it is sent.
    pub async fn raw(&self, path: &str) -> String {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().into()).unwrap()
    }

    /// GET that must succeed.
    pub async fn ok(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// GET that must fail: status and code.
    pub async fn refused(&self, path: &str) -> (u16, String) {
        let (status, body) = self.get(path).await;
        (status, body["code"].as_str().unwrap_or_else(|| panic!("{path}: {status} {body}")).to_owned())
    }

    /// Where the log ends in every partition.
    pub async fn end(&self, partition: u32) -> Seq {
        self.log.bounds(partition).await.unwrap().end
    }
}

fn canonical(tags: &[(&str, &str)]) -> String {
    let mut tags = tags.to_vec();
    tags.sort_unstable();
    let mut text = Vec::new();
    write_tags(&mut text, &tags);
    String::from_utf8(text).unwrap()
}

fn hot_keys(namespace: &str, counter: &str, tags: &str) -> [HotKey; 2] {
    let key = |tags| SeriesRef { namespace, counter, tags }.to_key().into();
    [HotKey { kind: HotKind::Series, key: key(tags) }, HotKey { kind: HotKind::Counter, key: key("") }]
}
