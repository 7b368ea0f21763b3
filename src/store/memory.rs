//! A store in memory: the same laws as every backend's, nothing kept. For tests and the model, whose faults are put
//! around it.
//!
//! One mutex over plain maps, so that a mutation is atomic and every read sees what was answered before it. Nothing is
//! ever written, so a checkpoint is as durable as everything else (S5), which is not at all.
//!
//! It may be told to forget, as servers do that lose their last seconds to a power cut, and which servers it has (S6).

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;

use crate::{
    item::{Coordinates, Epoch, Lane, Namespace, Seq, Stamp},
    retry::Kind,
};

use super::{
    Checkpoint, EpochRow, Error, EventRow, Events, EventsBy, EventsPage, Generation, Generations, HaltRow, LaneRow,
    Ledger, LetterRow, Letters, Remedies, RemedyRow, Replayed, RowName, ShardKey, Slice, TotalRow, Totals,
};

/// A partition of the events: a namespace, and a name or a subject.
type EventsOf = (Namespace, Arc<str>);
/// A row of it: time, id, and the name where the partition does not say it.
type EventKey = (i64, Arc<str>, Arc<str>);

/// Totals, events and dead letters, as they were at some time.
#[derive(Clone, Default)]
pub struct Rows {
    totals: BTreeMap<ShardKey, BTreeMap<RowName, TotalRow>>,
    events: BTreeMap<EventsOf, BTreeMap<EventKey, EventRow>>,
    events_by_subject: BTreeMap<EventsOf, BTreeMap<EventKey, EventRow>>,
    letters: BTreeMap<(String, Coordinates), Option<Replayed>>,
}

#[derive(Default)]
struct Tables {
    rows: Rows,
    servers: BTreeMap<String, Option<Generation>>,
    checkpoints: BTreeMap<(String, Lane), Checkpoint>,
    stored: BTreeMap<(String, Lane), (Stamp, Seq)>,
    epochs: BTreeMap<(String, Epoch), EpochRow>,
    halts: BTreeMap<(String, Lane), HaltRow>,
    remedies: BTreeMap<(String, i64, [u8; 16]), RemedyRow>,
}

/// A store that lives as long as its value.
#[derive(Default)]
pub struct Memory(Mutex<Tables>);

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Totals, events and dead letters as they are now.
    pub fn rows(&self) -> Rows {
        self.tables().rows.clone()
    }

    /// Forgets the totals, events and dead letters that were written since these were taken. What the lanes have said of themselves
    /// stays: another server may have kept that.
    pub fn forget_since(&self, rows: Rows) {
        self.tables().rows = rows;
    }

    /// This server is in this life from now on; `None`: it does not answer.
    pub fn set_server(&self, name: &str, generation: Option<Generation>) {
        self.tables().servers.insert(name.to_owned(), generation);
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stamp rule: a row gives way to a newer one.
fn upsert<K: Ord, R>(table: &mut BTreeMap<K, R>, key: K, row: R, stamp: impl Fn(&R) -> Stamp) {
    let at = stamp(&row);
    if table.get(&key).is_none_or(|there| stamp(there) < at) {
        table.insert(key, row);
    }
}

#[async_trait]
impl Totals for Memory {
    async fn write_totals(&self, key: &ShardKey, rows: &[TotalRow]) -> Result<(), Error> {
        let mut tables = self.tables();
        let shard = tables.rows.totals.entry(key.clone()).or_default();
        for row in rows {
            upsert(shard, row.name.clone(), row.clone(), |row| row.stamp);
        }
        Ok(())
    }

    async fn totals(&self, key: &ShardKey, slice: &Slice) -> Result<Vec<TotalRow>, Error> {
        let tables = self.tables();
        let Some(shard) = tables.rows.totals.get(key) else { return Ok(Vec::new()) };
        let after = slice.after.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let wanted = |name: &RowName| slice.counter.as_ref().is_none_or(|counter| *counter == name.counter);
        let rows = shard.range((after, Bound::Unbounded)).filter(|(name, _)| wanted(name));
        Ok(rows.take(slice.limit).map(|(_, row)| row.clone()).collect())
    }

    async fn shards(&self) -> Result<Vec<ShardKey>, Error> {
        let tables = self.tables();
        let with_rows = tables.rows.totals.iter().filter(|(_, rows)| !rows.is_empty());
        Ok(with_rows.map(|(key, _)| key.clone()).collect())
    }

    async fn totals_named(&self, key: &ShardKey, names: &[RowName]) -> Result<Vec<Option<TotalRow>>, Error> {
        let tables = self.tables();
        let shard = tables.rows.totals.get(key);
        Ok(names.iter().map(|name| shard?.get(name).cloned()).collect())
    }
}

#[async_trait]
impl Events for Memory {
    async fn write_events(&self, rows: &[EventRow]) -> Result<(), Error> {
        let mut tables = self.tables();
        for row in rows {
            let by_name = tables.rows.events.entry((row.namespace.clone(), row.name.clone())).or_default();
            upsert(by_name, (row.time_ms, row.id.clone(), "".into()), row.clone(), |row| row.stamp);
            if let Some(subject) = &row.subject {
                let by_subject =
                    tables.rows.events_by_subject.entry((row.namespace.clone(), subject.clone())).or_default();
                upsert(by_subject, (row.time_ms, row.id.clone(), row.name.clone()), row.clone(), |row| row.stamp);
            }
        }
        Ok(())
    }

    async fn events(&self, page: &EventsPage) -> Result<Vec<EventRow>, Error> {
        let tables = self.tables();
        let (table, of) = match &page.by {
            EventsBy::Name(name) => (&tables.rows.events, name),
            EventsBy::Subject(subject) => (&tables.rows.events_by_subject, subject),
        };
        let before = |row: &EventRow| {
            page.before.as_ref().is_none_or(|(time_ms, id)| (row.time_ms, &*row.id) < (*time_ms, &**id))
        };
        let rows = table.get(&(page.namespace.clone(), of.clone())).into_iter().flat_map(|rows| rows.values().rev());
        let rows = rows.filter(|row| (page.from_ms..page.to_ms).contains(&row.time_ms) && before(row));
        Ok(rows.take(page.limit).cloned().collect())
    }
}

#[async_trait]
impl Ledger for Memory {
    async fn lanes(&self, topic: &str) -> Result<Vec<LaneRow>, Error> {
        let tables = self.tables();
        let mut lanes = BTreeMap::new();
        for ((_, lane), checkpoint) in tables.checkpoints.iter().filter(|((of, _), _)| of == topic) {
            lanes.entry(*lane).or_insert_with(|| LaneRow::blank(*lane)).checkpoint = Some(checkpoint.clone());
        }
        for ((_, lane), (stamp, seq)) in tables.stored.iter().filter(|((of, _), _)| of == topic) {
            let row = lanes.entry(*lane).or_insert_with(|| LaneRow::blank(*lane));
            (row.stored, row.stored_stamp) = (Some(*seq), Some(*stamp));
        }
        Ok(lanes.into_values().collect())
    }

    async fn write_checkpoint(&self, topic: &str, checkpoint: &Checkpoint) -> Result<(), Error> {
        let key = (topic.to_owned(), checkpoint.lane);
        upsert(&mut self.tables().checkpoints, key, checkpoint.clone(), |row| row.stamp);
        Ok(())
    }

    async fn write_stored(&self, topic: &str, lane: Lane, stored: Seq, stamp: Stamp) -> Result<(), Error> {
        upsert(&mut self.tables().stored, (topic.to_owned(), lane), (stamp, stored), |row| row.0);
        Ok(())
    }

    async fn epochs(&self, topic: &str) -> Result<Vec<EpochRow>, Error> {
        let tables = self.tables();
        let rows = tables.epochs.iter().filter(|((of, _), _)| of == topic);
        let mut rows: Vec<_> = rows.map(|(_, row)| row.clone()).collect();
        rows.sort_by_key(|row| (row.created_ms, row.epoch));
        Ok(rows)
    }

    async fn begin_epoch(&self, topic: &str, epoch: &EpochRow) -> Result<(), Error> {
        self.tables().epochs.entry((topic.to_owned(), epoch.epoch)).or_insert_with(|| epoch.clone());
        Ok(())
    }

    async fn generations(&self) -> Generations {
        let tables = self.tables();
        let away = || Error::new(Kind::Transient, "the server was told to be away");
        tables.servers.iter().map(|(name, generation)| (name.clone(), generation.ok_or_else(away))).collect()
    }
}

#[async_trait]
impl Letters for Memory {
    async fn write_letter(&self, topic: &str, at: Coordinates, _stamp: Stamp) -> Result<(), Error> {
        self.tables().rows.letters.entry((topic.to_owned(), at)).or_insert(None);
        Ok(())
    }

    async fn write_replayed(&self, topic: &str, at: Coordinates, by: Replayed) -> Result<(), Error> {
        let mut tables = self.tables();
        let there = tables.rows.letters.entry((topic.to_owned(), at)).or_insert(None);
        if there.is_none_or(|there| there.stamp < by.stamp) {
            *there = Some(by);
        }
        Ok(())
    }

    async fn letters(
        &self,
        topic: &str,
        lane: Lane,
        from: Seq,
        to: Seq,
        limit: usize,
    ) -> Result<Vec<LetterRow>, Error> {
        let tables = self.tables();
        let key = |seq: Seq| (topic.to_owned(), Coordinates { lane, seq });
        if from > to {
            return Ok(Vec::new());
        }
        let rows = tables.rows.letters.range(key(from)..=key(to)).take(limit);
        Ok(rows.map(|((_, at), replayed)| LetterRow { seq: at.seq, replayed: *replayed }).collect())
    }
}

#[async_trait]
impl Remedies for Memory {
    async fn halts(&self, topic: &str) -> Result<Vec<HaltRow>, Error> {
        let tables = self.tables();
        Ok(tables.halts.iter().filter(|((of, _), _)| of == topic).map(|(_, row)| row.clone()).collect())
    }

    async fn write_halt(&self, topic: &str, halt: &HaltRow) -> Result<(), Error> {
        self.tables().halts.insert((topic.to_owned(), halt.lane), halt.clone());
        Ok(())
    }

    async fn clear_halt(&self, topic: &str, lane: Lane) -> Result<(), Error> {
        self.tables().halts.remove(&(topic.to_owned(), lane));
        Ok(())
    }

    async fn remedies(&self, topic: &str) -> Result<Vec<RemedyRow>, Error> {
        let tables = self.tables();
        Ok(tables.remedies.iter().filter(|((of, ..), _)| of == topic).map(|(_, row)| row.clone()).collect())
    }

    async fn record_remedy(&self, topic: &str, remedy: &RemedyRow) -> Result<(), Error> {
        let key = (topic.to_owned(), remedy.at_ms, remedy.id);
        self.tables().remedies.entry(key).or_insert_with(|| remedy.clone());
        Ok(())
    }
}
