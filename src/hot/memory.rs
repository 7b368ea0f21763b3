//! The hot view of one process: tables of entries behind one mutex each, chosen by the key's hash.
//!
//! [`entry`] holds what one entry knows and the laws of its value; [`table`] finds entries, counts their bytes and evicts
//! whole ones; [`lanes`] gives lanes short numbers and remembers how far each one's publishes are through. This file only
//! puts them behind the port.
//!
//! A counter's total enters the view when it is counted, a series when it is read: there are few counters and any number
//! of series, and one that nobody asks for is only work (a third of the view's share of the program, when measured). A
//! load makes the entry before it reads, so that from then on nothing passes it by.
//!
//! `add` is on the way of every acknowledgement, so it takes one hash, one uncontended lock and, for a series that is
//! there already, no allocation. Keys are copied when an entry is made: a key that comes as a slice of a pack must not
//! keep the pack alive. Nothing survives a restart (law 8).

use std::{
    hash::BuildHasher as _,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use hashbrown::DefaultHashBuilder;

use self::{
    entry::{Entry, Settled},
    lanes::Lanes,
    table::{Name, Table},
};
use super::{Base, Delta, Error, HotKey, HotKind, HotView, LoadedBase, Options, Published, Token, View};
use crate::item::{Lane, Seq};

mod entry;
mod lanes;
mod table;

/// Most tables; a small memory bound gets fewer, so that one table's share is not less than an entry.
const MAX_TABLES: usize = 64;
const MIN_TABLE_BYTES: usize = 1 << 20;

/// The in-process hot view.
pub struct Memory {
    tables: Box<[Mutex<Table>]>,
    hasher: DefaultHashBuilder,
    lanes: Lanes,
    last_token: AtomicU64,
    max_pending: usize,
}

impl Memory {
    /// An empty view within these bounds.
    pub fn new(options: &Options) -> Self {
        let bytes = options.memory.as_usize();
        let tables = (bytes / MIN_TABLE_BYTES).clamp(1, MAX_TABLES).next_power_of_two();
        Self {
            tables: (0..tables).map(|_| Mutex::new(Table::new(bytes / tables))).collect(),
            hasher: DefaultHashBuilder::default(),
            lanes: Lanes::default(),
            last_token: AtomicU64::new(0),
            max_pending: options.max_pending,
        }
    }

    /// Approximate bytes of all entries; never above `hot.memory`.
    pub fn bytes(&self) -> usize {
        self.tables.iter().map(|table| lock(table).bytes()).sum()
    }

    fn name<'a>(&self, key: &'a HotKey) -> Name<'a> {
        let hash = self.hasher.hash_one((key.kind, &key.key[..]));
        Name { hash, kind: key.kind, key: &key.key }
    }

    fn table(&self, name: &Name<'_>) -> MutexGuard<'_, Table> {
        // The table itself uses the hash's low and top bits.
        let at = (name.hash >> 32) as usize & (self.tables.len() - 1);
        lock(&self.tables[at])
    }
}

/// A panic under the lock can only have lost an update, and anything may be lost here (H2).
fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl HotView for Memory {
    async fn add(&self, lane: Lane, seq: Seq, deltas: Vec<Delta>) -> Result<(), Error> {
        let lane = self.lanes.number(lane);
        for delta in &deltas {
            let name = self.name(&delta.key);
            let add = |entry: &mut Entry| entry.add(lane, seq.0, delta.amount, self.max_pending);
            let mut table = self.table(&name);
            match delta.key.kind {
                HotKind::Counter => table.upsert(&name, add),
                // Nobody has read it: there is nothing to keep up to date.
                HotKind::Series => table.change(&name, add).unwrap_or(()),
            }
        }
        Ok(())
    }

    async fn publish(&self, lane: Lane, seq: Seq, bases: &[Base]) -> Result<Published, Error> {
        let lane = self.lanes.number(lane);
        let mut published = Published::default();
        for base in bases {
            let name = self.name(&base.key);
            let settled =
                self.table(&name).change(&name, |entry| entry.publish(lane, seq.next().0, base.total, &self.lanes));
            match settled {
                None | Some(Settled::Covered) => {}
                Some(Settled::Raised { drifted }) => {
                    published.written += 1;
                    published.drifted += usize::from(drifted);
                }
            }
        }
        Ok(published)
    }

    async fn known(&self, keys: &[HotKey]) -> Result<Vec<bool>, Error> {
        Ok(keys.iter().map(|key| self.name(key)).map(|name| self.table(&name).contains(&name)).collect())
    }

    async fn read(&self, keys: &[HotKey]) -> Result<Vec<View>, Error> {
        let read = |key| {
            let name = self.name(key);
            self.table(&name).change(&name, |entry| entry.view(&self.lanes)).unwrap_or(View::Miss)
        };
        Ok(keys.iter().map(read).collect())
    }

    async fn bases(&self, lane: Lane, keys: &[HotKey]) -> Result<Vec<Option<(i128, Seq)>>, Error> {
        let lane = self.lanes.number(lane);
        let base = |key| {
            let name = self.name(key);
            self.table(&name).change(&name, |entry| entry.base(lane)).flatten()
        };
        Ok(keys.iter().map(base).collect())
    }

    async fn begin_load(&self, key: &HotKey) -> Result<Token, Error> {
        let token = self.last_token.fetch_add(1, Ordering::Relaxed) + 1;
        let name = self.name(key);
        self.table(&name).upsert(&name, |entry| entry.begin_load(token));
        Ok(Token(token))
    }

    async fn finish_load(
        &self,
        key: &HotKey,
        token: Token,
        bases: &[LoadedBase],
        ends: &[(Lane, Seq)],
    ) -> Result<bool, Error> {
        let bases: Vec<_> = bases
            .iter()
            .filter_map(|loaded| loaded.base.map(|(total, seq)| (self.lanes.number(loaded.lane), seq.next().0, total)))
            .collect();
        let waits: Vec<_> = ends.iter().map(|(lane, end)| (self.lanes.number(*lane), end.0)).collect();
        let name = self.name(key);
        let counted = self.table(&name).change(&name, |entry| entry.finish_load(token.0, &bases, waits, &self.lanes));
        Ok(counted.unwrap_or(false))
    }

    async fn published(&self, lane: Lane, seq: Seq) -> Result<(), Error> {
        self.lanes.published(lane, seq.next().0);
        Ok(())
    }

    fn describe(&self) -> (&'static str, bool) {
        ("memory", true)
    }
}
