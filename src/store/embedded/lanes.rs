//! The lanes' rows in memory: what is asked for every few milliseconds while somebody waits for `stored`, and written at
//! every flush, so that the table would have to step over thousands of old versions to answer.
//!
//! There is one row a lane, as many as the log has had partitions. The table is the durable copy; a row changes here only
//! after it has changed there, and is loaded from there when the store opens.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
};

use fjall::Keyspace;

use crate::{
    item::{Lane, Seq, Stamp},
    store::{Checkpoint, LaneRow},
};

use super::{
    fault::Fault,
    keys::{KeyReader, LaneHalf},
    tables, values,
};

#[derive(Clone, Debug, Default)]
struct Row {
    checkpoint: Option<Checkpoint>,
    stored: Option<(Seq, Stamp)>,
}

/// The lanes of every topic.
#[derive(Debug, Default)]
pub struct LaneRows(RwLock<BTreeMap<String, BTreeMap<Lane, Row>>>);

impl LaneRows {
    /// Reads the table.
    pub fn load(table: &Keyspace) -> Result<Self, Fault> {
        let rows = Self::default();
        for guard in table.iter() {
            let (key, value) = tables::row(guard)?;
            let mut reader = KeyReader::new(&key, 0)?;
            let topic = reader.text()?.into_owned();
            let (lane, half) = reader.lane()?;
            rows.change(&topic, lane, |row| {
                match half {
                    LaneHalf::Checkpoint => row.checkpoint = Some(values::read_checkpoint(lane, &value)?),
                    LaneHalf::Stored => row.stored = Some(values::read_stored(&value)?),
                }
                Ok::<_, Fault>(())
            })?;
        }
        Ok(rows)
    }

    fn change<T>(&self, topic: &str, lane: Lane, change: impl FnOnce(&mut Row) -> T) -> T {
        let mut topics = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if !topics.contains_key(topic) {
            topics.insert(topic.to_owned(), BTreeMap::new());
        }
        change(topics.get_mut(topic).expect("inserted above").entry(lane).or_default())
    }

    fn row(&self, topic: &str, lane: Lane) -> Option<Row> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(topic)?.get(&lane).cloned()
    }

    /// Every lane of a topic.
    pub fn of(&self, topic: &str) -> Vec<LaneRow> {
        let topics = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let rows = topics.get(topic).into_iter().flatten();
        rows.map(|(lane, row)| LaneRow {
            lane: *lane,
            checkpoint: row.checkpoint.clone(),
            stored: row.stored.map(|(seq, _)| seq),
            stored_stamp: row.stored.map(|(_, stamp)| stamp),
        })
        .collect()
    }

    /// The stamp of a lane's checkpoint.
    pub fn checkpoint_stamp(&self, topic: &str, lane: Lane) -> Option<Stamp> {
        Some(self.row(topic, lane)?.checkpoint?.stamp)
    }

    /// The stamp of a lane's `stored`.
    pub fn stored_stamp(&self, topic: &str, lane: Lane) -> Option<Stamp> {
        Some(self.row(topic, lane)?.stored?.1)
    }

    /// Notes a checkpoint that the table has.
    pub fn set_checkpoint(&self, topic: &str, checkpoint: Checkpoint) {
        self.change(topic, checkpoint.lane, |row| row.checkpoint = Some(checkpoint));
    }

    /// Notes a `stored` that the table has.
    pub fn set_stored(&self, topic: &str, lane: Lane, stored: Seq, stamp: Stamp) {
        self.change(topic, lane, |row| row.stored = Some((stored, stamp)));
    }
}
