//! The store port in maps, with the stamp rule; it can be away, and it can be held up.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use tallymark::{
    item::{Lane, Namespace, Seq, Stamp},
    retry::Kind,
    store::{
        Checkpoint, EpochRow, Error, EventRow, Events, EventsBy, EventsPage, LaneRow, Ledger, RowName, ShardKey, Slice,
        TotalRow, Totals,
    },
};
use tokio::sync::RwLock;

/// Newest first, as pages are.
type EventKey = (Namespace, bool, Arc<str>, Reverse<(i64, Arc<str>, Arc<str>)>);

/// A lane's checkpoint, and its `stored` with its stamp.
type LaneState = (Option<Checkpoint>, Option<(Seq, Stamp)>);

#[derive(Default)]
struct Tables {
    totals: BTreeMap<ShardKey, BTreeMap<RowName, TotalRow>>,
    events: BTreeMap<EventKey, EventRow>,
    lanes: BTreeMap<(String, Lane), LaneState>,
    epochs: Vec<(String, EpochRow)>,
}

/// See the module.
#[derive(Default)]
pub struct MemoryStore {
    tables: Mutex<Tables>,
    /// Whether every call fails.
    pub away: AtomicBool,
    /// Reads of totals so far.
    pub reads: AtomicUsize,
    /// Whoever holds it for writing holds up every read of totals.
    pub gate: RwLock<()>,
}

impl MemoryStore {
    fn answer<T>(&self, answer: impl FnOnce(&mut Tables) -> T) -> Result<T, Error> {
        if self.away.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::Transient, "the store is away"));
        }
        Ok(answer(&mut self.tables.lock().unwrap()))
    }

    async fn read<T>(&self, answer: impl FnOnce(&mut Tables) -> T) -> Result<T, Error> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let _open = self.gate.read().await;
        self.answer(answer)
    }
}

#[async_trait]
impl Totals for MemoryStore {
    async fn write_totals(&self, key: &ShardKey, rows: &[TotalRow]) -> Result<(), Error> {
        self.answer(|tables| {
            let shard = tables.totals.entry(key.clone()).or_default();
            for row in rows {
                let old = shard.entry(row.name.clone()).or_insert_with(|| row.clone());
                if old.stamp < row.stamp {
                    *old = row.clone();
                }
            }
        })
    }

    async fn totals(&self, key: &ShardKey, slice: &Slice) -> Result<Vec<TotalRow>, Error> {
        self.read(|tables| {
            let rows = tables.totals.get(key).into_iter().flat_map(BTreeMap::values);
            let asked = rows
                .filter(|row| slice.counter.as_ref().is_none_or(|counter| row.name.counter == *counter))
                .filter(|row| slice.after.as_ref().is_none_or(|after| row.name > *after));
            asked.take(slice.limit).cloned().collect()
        })
        .await
    }

    async fn totals_named(&self, key: &ShardKey, names: &[RowName]) -> Result<Vec<Option<TotalRow>>, Error> {
        self.read(|tables| {
            names.iter().map(|name| tables.totals.get(key).and_then(|shard| shard.get(name)).cloned()).collect()
        })
        .await
    }
}

#[async_trait]
impl Events for MemoryStore {
    async fn write_events(&self, rows: &[EventRow]) -> Result<(), Error> {
        self.answer(|tables| {
            for row in rows {
                let order = Reverse((row.time_ms, row.id.clone(), row.name.clone()));
                let by_name = (row.namespace.clone(), false, row.name.clone(), order.clone());
                let by_subject = row.subject.clone().map(|subject| (row.namespace.clone(), true, subject, order));
                for key in [Some(by_name), by_subject].into_iter().flatten() {
                    let old = tables.events.entry(key).or_insert_with(|| row.clone());
                    if old.stamp < row.stamp {
                        *old = row.clone();
                    }
                }
            }
        })
    }

    async fn events(&self, page: &EventsPage) -> Result<Vec<EventRow>, Error> {
        let (by_subject, value) = match &page.by {
            EventsBy::Name(name) => (false, name),
            EventsBy::Subject(subject) => (true, subject),
        };
        self.answer(|tables| {
            let listed = tables.events.iter().filter(|((namespace, kind, of, _), _)| {
                *namespace == page.namespace && *kind == by_subject && of == value
            });
            let asked = listed
                .map(|(_, row)| row)
                .filter(|row| (page.from_ms..page.to_ms).contains(&row.time_ms))
                .filter(|row| page.before.as_ref().is_none_or(|before| (row.time_ms, row.id.clone()) < *before));
            asked.take(page.limit).cloned().collect()
        })
    }
}

#[async_trait]
impl Ledger for MemoryStore {
    async fn lanes(&self, topic: &str) -> Result<Vec<LaneRow>, Error> {
        self.answer(|tables| {
            let lanes = tables.lanes.iter().filter(|((of, _), _)| of == topic);
            let row = |((_, lane), (checkpoint, stored)): (&(String, Lane), &LaneState)| LaneRow {
                lane: *lane,
                checkpoint: checkpoint.clone(),
                stored: stored.map(|(seq, _)| seq),
                stored_stamp: stored.map(|(_, stamp)| stamp),
            };
            lanes.map(row).collect()
        })
    }

    async fn write_checkpoint(&self, topic: &str, checkpoint: &Checkpoint) -> Result<(), Error> {
        self.answer(|tables| {
            let (old, _) = tables.lanes.entry((topic.to_owned(), checkpoint.lane)).or_default();
            if old.as_ref().is_none_or(|old| old.stamp < checkpoint.stamp) {
                *old = Some(checkpoint.clone());
            }
        })
    }

    async fn write_stored(&self, topic: &str, lane: Lane, stored: Seq, stamp: Stamp) -> Result<(), Error> {
        self.answer(|tables| {
            let (_, old) = tables.lanes.entry((topic.to_owned(), lane)).or_default();
            if old.is_none_or(|(_, old)| old < stamp) {
                *old = Some((stored, stamp));
            }
        })
    }

    async fn epochs(&self, topic: &str) -> Result<Vec<EpochRow>, Error> {
        self.answer(|tables| tables.epochs.iter().filter(|(of, _)| of == topic).map(|(_, row)| row.clone()).collect())
    }

    async fn begin_epoch(&self, topic: &str, epoch: &EpochRow) -> Result<(), Error> {
        self.answer(|tables| {
            let known = tables.epochs.iter().any(|(of, row)| of == topic && row.epoch == epoch.epoch);
            if !known {
                tables.epochs.push((topic.to_owned(), epoch.clone()));
            }
        })
    }
}

crate::support_remedies::no_remedies!(MemoryStore);
