//! Three replicas: rows with stamps, what each has not synced yet, and what each is told to do. Quorums are `store`'s.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use tallymark::{
    item::{Epoch, Lane, Namespace, Seq, Stamp},
    store::{Checkpoint, EpochRow, EventRow, Replayed, RowName, ShardKey, TotalRow},
};
use tokio::time::Instant;

/// A row's name, over all tables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Total(ShardKey, RowName),
    Event(Namespace, Arc<str>, i64, Arc<str>),
    Subject(Namespace, Arc<str>, i64, Arc<str>, Arc<str>),
    Checkpoint(Lane),
    Stored(Lane),
    Epoch(Epoch),
    Letter(Lane, Seq),
    Replayed(Lane, Seq),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Total(TotalRow),
    Event(EventRow),
    Checkpoint(Checkpoint),
    Stored(Seq),
    Epoch(EpochRow),
    Letter,
    Replayed(Replayed),
}

/// One row of a mutation.
#[derive(Clone, Debug)]
pub struct Put {
    pub key: Key,
    pub stamp: Stamp,
    pub value: Value,
}

type Cell = (Stamp, Value);

/// One server.
pub struct Node {
    rows: BTreeMap<Key, Cell>,
    /// What was written since it synced last, and what had been there.
    unsynced: VecDeque<(Instant, Key, Option<Cell>)>,
    pub up: bool,
    /// Gone for good.
    pub lost: bool,
    pub generation: i64,
}

impl Node {
    pub fn new() -> Self {
        Self { rows: BTreeMap::new(), unsynced: VecDeque::new(), up: true, lost: false, generation: 1 }
    }

    pub fn answers(&self) -> bool {
        self.up && !self.lost
    }

    /// Takes a row as servers do: the higher stamp wins. What it held with an equal stamp is answered when it differs.
    pub fn put(&mut self, put: &Put, synced_within: Duration) -> Option<Value> {
        let before = self.rows.get(&put.key);
        if let Some((stamp, there)) = before {
            if *stamp > put.stamp || (*stamp == put.stamp && *there == put.value) {
                return None;
            }
            if *stamp == put.stamp {
                return Some(there.clone());
            }
        }
        let now = Instant::now();
        while self.unsynced.front().is_some_and(|(at, ..)| now - *at >= synced_within) {
            self.unsynced.pop_front();
        }
        let before = self.rows.insert(put.key.clone(), (put.stamp, put.value.clone()));
        self.unsynced.push_back((now, put.key.clone(), before));
        None
    }

    /// Holds this row for good.
    pub fn plant(&mut self, put: &Put) {
        self.rows.insert(put.key.clone(), (put.stamp, put.value.clone()));
    }

    pub fn get(&self, key: &Key) -> Option<&Cell> {
        self.rows.get(key)
    }

    pub fn from(&self, key: Key) -> impl Iterator<Item = (&Key, &Cell)> {
        self.rows.range((Bound::Included(key), Bound::Unbounded))
    }

    /// Its power goes: what it has written within this time is forgotten. Answers how many writes that were.
    pub fn forget(&mut self, within: Duration) -> usize {
        let mut forgotten = 0;
        let now = Instant::now();
        while let Some((at, ..)) = self.unsynced.back()
            && now - *at < within
        {
            let (_, key, before) = self.unsynced.pop_back().expect("it was looked at");
            match before {
                Some(cell) => self.rows.insert(key, cell),
                None => self.rows.remove(&key),
            };
            forgotten += 1;
        }
        self.unsynced.clear();
        self.generation += 1;
        forgotten
    }
}
