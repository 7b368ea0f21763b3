//! The embedded store: the CQL tables as ordered keys on the local disk (crate `fjall`).
//!
//! - S1, S3: a write is answered when it is in the journal, in the operating system's hands, and in memory. It outlives
//!   the process (kill −9), not the power: what a power cut takes, the lanes repeat from their checkpoint.
//! - S2: a mutation of totals compares the stamps that it would write over, under a lock that its rows' other writers take
//!   too; events of every stamp are kept in order, and the newest is read.
//! - S5: [`Store::write_checkpoint`] syncs the journal, which every row before it went through.
//! - Every mutation is atomic. Errors say what to do; a full disk is transient and the store recovers by itself.
//!
//! Rooms: `keys` and `values` (what rows look like on disk), `tables` (the open tables, the stamp rule, bounds of memory),
//! `stamps` (stamps known without a read), `totals` and `events` (rows to keys and back), `lanes` (checkpoints in memory), `letters` (dead letters),
//! `engine` (health, opening again), `fault` (what errors mean). Retrying is `worker/flush.rs`'s.

use std::{
    ops::{Bound, Range},
    path::Path,
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::{
    item::{Lane, Seq, Stamp},
    metrics,
    retry::Kind,
    store::{
        self, Checkpoint, EpochRow, Error, EventRow, Events, EventsPage, LaneRow, Ledger, RowName, ShardKey, Slice,
        TotalRow, Totals,
    },
};

mod engine;
mod events;
mod fault;
mod keys;
mod lanes;
mod letters;
mod stamps;
mod tables;
mod totals;
mod values;

use engine::Engine;
use fault::Fault;
use keys::{KeyReader, LaneHalf};
use tables::{Entry, Table, lock};

/// Threads that write at a time. The engine has one journal: more would only queue for it.
const WRITERS: usize = 2;
/// Threads that read slices and pages at a time.
const READERS: usize = 4;
/// Rows that are read by name without leaving the async task.
const FEW: usize = 16;

/// A store in a folder of this machine. One process at a time may have it open.
pub struct Embedded {
    engine: Arc<Engine>,
    writers: Arc<Semaphore>,
    readers: Arc<Semaphore>,
    event_mutations: metrics::Counter,
}

impl Embedded {
    /// Opens the store in `dir`, making it if it is not there. Blocks: what a killed process left in the journal is
    /// replayed, which takes up to a few seconds.
    ///
    /// # Errors
    /// [`Kind::Fatal`] when another process has it open, or its files are damaged or not this process's to write;
    /// [`Kind::Transient`] when the disk is full.
    pub fn open(dir: &Path, options: &store::Options) -> Result<Self, Error> {
        std::fs::create_dir_all(dir).map_err(|error| Fault::Engine(error.into()).tell(dir))?;
        Ok(Self {
            engine: Arc::new(Engine::open(dir)?),
            writers: Arc::new(Semaphore::new(options.in_flight.clamp(1, WRITERS))),
            readers: Arc::new(Semaphore::new(READERS)),
            event_mutations: metrics::STORE_MUTATIONS.counter(&["events"]),
        })
    }

    async fn blocking<T, W>(&self, permits: &Arc<Semaphore>, work: W) -> Result<T, Error>
    where
        T: Send + 'static,
        W: FnOnce(&Engine) -> Result<T, Error> + Send + 'static,
    {
        // The permit goes with the work, which goes on when its caller has gone.
        let permit = permits.clone().acquire_owned().await.expect("this semaphore is never closed");
        let engine = self.engine.clone();
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&engine);
            drop(permit);
            done
        });
        done.await
            .unwrap_or_else(|error| Err(Error::new(Kind::Transient, "the store's work was cut short").with(error)))
    }
}

#[async_trait]
impl Totals for Embedded {
    async fn write_totals(&self, key: &ShardKey, rows: &[TotalRow]) -> Result<(), Error> {
        let (key, rows) = (key.clone(), totals::entries(key, rows));
        self.blocking(&self.writers, move |engine| engine.write(|tables| tables.upsert_totals(&key, rows))).await
    }

    async fn totals(&self, key: &ShardKey, slice: &Slice) -> Result<Vec<TotalRow>, Error> {
        let (key, slice) = (key.clone(), slice.clone());
        self.blocking(&self.readers, move |engine| engine.read(|tables| totals::read_slice(tables, &key, &slice))).await
    }

    async fn shards(&self) -> Result<Vec<ShardKey>, Error> {
        self.blocking(&self.readers, move |engine| engine.read(totals::read_shards)).await
    }

    async fn totals_named(&self, key: &ShardKey, names: &[RowName]) -> Result<Vec<Option<TotalRow>>, Error> {
        if names.len() <= FEW {
            return self.engine.glance(|tables| totals::read_named(tables, key, names));
        }
        let (key, names) = (key.clone(), names.to_vec());
        self.blocking(&self.readers, move |engine| engine.read(|tables| totals::read_named(tables, &key, &names))).await
    }
}

#[async_trait]
impl Events for Embedded {
    async fn write_events(&self, rows: &[EventRow]) -> Result<(), Error> {
        let rows = events::entries(rows);
        self.blocking(&self.writers, move |engine| engine.write(|tables| tables.insert(rows))).await?;
        self.event_mutations.increment(1);
        Ok(())
    }

    async fn events(&self, page: &EventsPage) -> Result<Vec<EventRow>, Error> {
        let page = page.clone();
        self.blocking(&self.readers, move |engine| engine.read(|tables| events::read(tables, &page))).await
    }
}

#[async_trait]
impl Ledger for Embedded {
    async fn lanes(&self, topic: &str) -> Result<Vec<LaneRow>, Error> {
        self.engine.glance(|tables| Ok(tables.lanes.of(topic)))
    }

    async fn write_checkpoint(&self, topic: &str, checkpoint: &Checkpoint) -> Result<(), Error> {
        let (topic, checkpoint) = (topic.to_owned(), checkpoint.clone());
        let work = move |engine: &Engine| {
            let _turn = lock(&engine.lanes);
            engine.write(|tables| {
                let newer = tables.lanes.checkpoint_stamp(&topic, checkpoint.lane) < Some(checkpoint.stamp);
                if newer {
                    let key = keys::lane(&topic, checkpoint.lane, LaneHalf::Checkpoint);
                    tables.put(Table::Checkpoints, key, values::checkpoint(&checkpoint))?;
                }
                // Also where the checkpoint stays: what was acknowledged before is as durable as it is.
                tables.sync()?;
                if newer {
                    tables.lanes.set_checkpoint(&topic, checkpoint);
                }
                Ok(())
            })
        };
        self.blocking(&self.writers, work).await
    }

    async fn write_stored(&self, topic: &str, lane: Lane, stored: Seq, stamp: Stamp) -> Result<(), Error> {
        let topic = topic.to_owned();
        let work = move |engine: &Engine| {
            let _turn = lock(&engine.lanes);
            engine.write(|tables| {
                if tables.lanes.stored_stamp(&topic, lane) < Some(stamp) {
                    let key = keys::lane(&topic, lane, LaneHalf::Stored);
                    tables.put(Table::Checkpoints, key, values::stored(stored, stamp))?;
                    tables.lanes.set_stored(&topic, lane, stored, stamp);
                }
                Ok(())
            })
        };
        self.blocking(&self.writers, work).await
    }

    async fn epochs(&self, topic: &str) -> Result<Vec<EpochRow>, Error> {
        self.engine.glance(|tables| {
            let mut prefix = Vec::new();
            keys::push_text(&mut prefix, topic);
            let mut rows = Vec::new();
            for found in tables.keyspace(Table::Epochs).prefix(&prefix) {
                let (key, value) = tables::row(found)?;
                rows.push(values::read_epoch(KeyReader::new(&key, prefix.len())?.epoch()?, &value)?);
            }
            rows.sort_by_key(|row| (row.created_ms, row.epoch));
            Ok(rows)
        })
    }

    async fn begin_epoch(&self, topic: &str, epoch: &EpochRow) -> Result<(), Error> {
        let (key, value) = (keys::epoch(topic, epoch.epoch), values::epoch(epoch));
        let work = move |engine: &Engine| {
            let _turn = lock(&engine.lanes);
            engine.write(|tables| {
                if tables.get(Table::Epochs, &key)?.is_none() {
                    tables.put(Table::Epochs, key, value)?;
                }
                // Rows and checkpoints are named by it, so it is not the one to be lost.
                tables.sync()
            })
        };
        self.blocking(&self.writers, work).await
    }
}

/// One allocation for the rows of a mutation: the memtable keeps slices of it until they are all written out.
struct Mutation<T> {
    bytes: Vec<u8>,
    rows: Vec<(T, Range<usize>, Range<usize>)>,
}

impl<T> Mutation<T> {
    fn with_capacity(rows: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), rows: Vec::with_capacity(rows) }
    }

    fn push(&mut self, label: T, key: impl FnOnce(&mut Vec<u8>), value: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        key(&mut self.bytes);
        let middle = self.bytes.len();
        value(&mut self.bytes);
        self.rows.push((label, start..middle, middle..self.bytes.len()));
    }

    fn finish(mut self) -> Vec<(T, Entry)> {
        self.bytes.shrink_to_fit();
        let bytes = Bytes::from(self.bytes);
        let entry = |(label, key, value)| (label, Entry { key: bytes.slice(key), value: bytes.slice(value) });
        self.rows.into_iter().map(entry).collect()
    }
}

/// Whether nothing lies between two keys.
fn is_empty(start: &Bound<Vec<u8>>, end: &Bound<Vec<u8>>) -> bool {
    match (start, end) {
        (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end)) => start >= end,
        _ => false,
    }
}
