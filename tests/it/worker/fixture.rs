//! A small world around the worker: a log, a store, a hot view, and services that are started and stopped.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use tallymark::{
    hot,
    item::{Epoch, Lane, Namespace, Seq, Shard, TopicId},
    log::{self, Log, embedded::Embedded},
    pack::FORMAT,
    retry,
    store::{self, EpochRow, Ledger as _, ShardKey, TotalRow},
    units::{Size, Span},
    worker::{
        self, Deps, Options, Service,
        board::{Board, LaneStatus, State},
    },
};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    log::Scripted,
    packs::{Draft, SHARDS},
    store::Faulty,
};
use crate::support::{MemoryLog, until};

/// So long that it never comes.
pub const NEVER: Span = Span::from_secs(3600);

/// What outlives a service.
pub struct World {
    pub log: Arc<Scripted>,
    pub store: Arc<Faulty>,
    pub hot: hot::Shared,
    pub options: Options,
    pub store_options: store::Options,
    pub retry: retry::Options,
    pub publish_budget: usize,
}

/// A service and what it shows.
pub struct Running {
    board: Board,
    stop: CancellationToken,
    task: JoinHandle<Result<(), worker::Error>>,
}

/// The layout of these counts, and what it pins.
pub fn epoch(topic_id: TopicId, partitions: u32, shards: u32) -> EpochRow {
    EpochRow {
        epoch: Epoch::of(topic_id, partitions, shards),
        topic_id,
        cluster_id: String::new(),
        partitions,
        shards,
        dedup_window_us: 600_000_000,
        dedup_max_ids: 1_000_000,
        created_ms: 0,
    }
}

/// The embedded log in this folder.
pub fn embedded(dir: &Path) -> Arc<dyn Log> {
    Arc::new(Embedded::open(dir, "test.packs", &log::Options { partitions: 1, ..Default::default() }).unwrap())
}

impl World {
    /// Over a log in memory, its epoch begun, everything quick.
    pub async fn new(partitions: u32) -> Self {
        Self::over(MemoryLog::new(partitions)).await
    }

    /// Over this log.
    pub async fn over(log: Arc<dyn Log>) -> Self {
        let world = Self {
            log: Arc::new(Scripted::over(log)),
            store: Arc::default(),
            hot: Arc::new(hot::none::Disabled),
            options: Options {
                flush_age: Span::from_millis(10),
                checkpoint_delay: Span::from_millis(0),
                ..Options::default()
            },
            store_options: store::Options { shards: SHARDS, ..Default::default() },
            retry: retry::Options { initial: Span::from_millis(2), max: Span::from_millis(20) },
            publish_budget: 1_000_000,
        };
        let topology = world.log.topology();
        world.begin(&epoch(topology.topic_id, topology.partitions, SHARDS)).await;
        world
    }

    /// With these flush bounds and nothing else that flushes.
    pub fn flush_at(&mut self, rows: usize, bytes: u64) {
        self.options.flush_age = NEVER;
        self.options.flush_rows = rows;
        self.options.flush_bytes = Size(bytes);
    }

    pub async fn begin(&self, epoch: &EpochRow) {
        self.store.begin_epoch(&self.log.topology().topic, epoch).await.unwrap();
    }

    pub fn lane(&self, partition: u32) -> Lane {
        Lane { topic_id: self.log.topology().topic_id, partition }
    }

    pub async fn append(&self, partition: u32, draft: Draft) -> Seq {
        let counts = self.log.topology().partitions;
        let draft = if counts == 1 { draft } else { draft.counts(counts, SHARDS) };
        self.log.append(partition, FORMAT, draft.encode()).await.unwrap().seq.unwrap()
    }

    /// One past the log's end.
    pub async fn end(&self, partition: u32) -> Seq {
        self.log.bounds(partition).await.unwrap().end
    }

    pub fn start(&self) -> Running {
        let board = Board::default();
        let deps = Deps {
            log: self.log.clone(),
            store: self.store.clone(),
            hot: self.hot.clone(),
            board: board.clone(),
            store_options: self.store_options.clone(),
            retry: self.retry.clone(),
            publish_budget: self.publish_budget,
        };
        let (service, stop) = (Service::new(self.options.clone(), deps), CancellationToken::new());
        let task = tokio::spawn(service.run(stop.clone()));
        Running { board, stop, task }
    }

    /// A shard of the log's own layout.
    pub fn shard_key(&self, shard: Shard) -> ShardKey {
        let topology = self.log.topology();
        self.shard_key_of(shard, Epoch::of(topology.topic_id, topology.partitions, SHARDS))
    }

    pub fn shard_key_of(&self, shard: Shard, epoch: Epoch) -> ShardKey {
        ShardKey { namespace: Namespace::default(), shard, epoch }
    }

    /// Every row of the log's own layout, by series; a counter's total is named `visits *`.
    pub async fn rows(&self) -> BTreeMap<String, TotalRow> {
        let topology = self.log.topology();
        self.rows_of(Epoch::of(topology.topic_id, topology.partitions, SHARDS), SHARDS).await
    }

    pub async fn rows_of(&self, epoch: Epoch, shards: u32) -> BTreeMap<String, TotalRow> {
        let mut all = BTreeMap::new();
        for shard in -(self.log.topology().partitions as i32)..shards as i32 {
            for row in self.store.rows(&self.shard_key_of(Shard(shard), epoch)).await {
                let tags = if shard < 0 { "*" } else { &row.name.tags };
                let key = format!("{} {tags}", row.name.counter).trim_end().to_owned();
                // The lanes' totals of one counter are rows of their own.
                all.entry(key).and_modify(|there: &mut TotalRow| there.total += row.total).or_insert(row);
            }
        }
        all
    }

    pub async fn totals(&self) -> BTreeMap<String, i128> {
        self.rows().await.into_iter().map(|(name, row)| (name, row.total)).collect()
    }
}

/// What totals must be when these series of `visits` have these sums.
pub fn sums<'a>(series: impl IntoIterator<Item = (&'a str, i128)>) -> BTreeMap<String, i128> {
    let mut sums = BTreeMap::new();
    for (series, sum) in series {
        *sums.entry(series.to_owned()).or_default() += sum;
        *sums.entry("visits *".to_owned()).or_default() += sum;
    }
    sums
}

impl Running {
    pub fn lane(&self, partition: u32) -> LaneStatus {
        self.board.lanes().remove(&partition).unwrap_or_default()
    }

    /// Waits until this lane has stored everything below `end`.
    pub async fn stored(&self, partition: u32, end: u64) {
        until(&format!("lane {partition} has stored {end}"), || {
            let lane = self.lane(partition);
            assert_ne!(lane.state, State::Halted, "{:?}", lane.reason);
            lane.stored >= Seq(end)
        })
        .await;
    }

    /// Waits until this lane has applied everything below `end`.
    pub async fn applied(&self, partition: u32, end: u64) {
        until(&format!("lane {partition} has applied {end}"), || self.lane(partition).next >= Seq(end)).await;
    }

    /// Waits until the checkpoint has passed everything below `end`.
    pub async fn checkpointed(&self, partition: u32, end: u64) {
        until(&format!("the checkpoint of {partition} is {end}"), || self.lane(partition).checkpoint >= Seq(end)).await;
    }

    /// Waits until the lane has halted; answers why.
    pub async fn halted(&self, partition: u32) -> String {
        until(&format!("lane {partition} halts"), || self.lane(partition).state == State::Halted).await;
        self.lane(partition).reason.expect("a halted lane says why")
    }

    /// Stops the service as a shutdown does.
    pub async fn stop(self) {
        self.stop.cancel();
        let ended = timeout(Duration::from_secs(10), self.task).await;
        ended.expect("it drains").expect("it does not panic").expect("no lane ended by a bug");
    }

    /// Stops it as kill −9 does.
    pub async fn crash(self) {
        self.task.abort();
        assert!(self.task.await.is_err_and(|error| error.is_cancelled()));
    }
}
