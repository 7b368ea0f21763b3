//! A table of entries within a bound of bytes: a slab, an index by hash, and a clock's hand that evicts.
//!
//! What is over the bound goes at once, whole entries at a time (H4): the hand passes over entries that were used since it
//! last came by, once. Whoever changes an entry does so through [`Table::change`] or [`Table::upsert`], which keep the
//! count of bytes.

use hashbrown::HashTable;

use super::entry::Entry;
use crate::hot::HotKind;

/// An entry's name with its hash.
pub(super) struct Name<'a> {
    pub(super) hash: u64,
    pub(super) kind: HotKind,
    pub(super) key: &'a [u8],
}

impl Name<'_> {
    fn names(&self, entry: &Entry) -> bool {
        entry.hash == self.hash && entry.kind == self.kind && *entry.key == *self.key
    }
}

const INDEXED: &str = "the index names filled slots only";

/// One table of the view.
pub(super) struct Table {
    slots: Vec<Option<Entry>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hand: usize,
    bytes: usize,
    limit: usize,
}

impl Table {
    pub(super) fn new(limit: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), index: HashTable::new(), hand: 0, bytes: 0, limit }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn find(&self, name: &Name<'_>) -> Option<usize> {
        let names = |at: &u32| self.slots[*at as usize].as_ref().is_some_and(|entry| name.names(entry));
        self.index.find(name.hash, names).map(|at| *at as usize)
    }

    pub(super) fn contains(&self, name: &Name<'_>) -> bool {
        self.find(name).is_some()
    }

    /// Changes an entry that exists.
    pub(super) fn change<R>(&mut self, name: &Name<'_>, change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        let at = self.find(name)?;
        Some(self.change_at(at, change))
    }

    /// Changes an entry, which is made when there is none.
    pub(super) fn upsert<R>(&mut self, name: &Name<'_>, change: impl FnOnce(&mut Entry) -> R) -> R {
        if let Some(at) = self.find(name) {
            return self.change_at(at, change);
        }
        let mut entry = Entry::new(name.hash, name.kind, name.key);
        let result = change(&mut entry);
        // Not spared by the hand until it is used again: what comes once must not crowd out what comes often.
        entry.recent = false;
        self.insert(entry);
        self.evict();
        result
    }

    fn change_at<R>(&mut self, at: usize, change: impl FnOnce(&mut Entry) -> R) -> R {
        let entry = self.slots[at].as_mut().expect(INDEXED);
        let before = entry.cost();
        let result = change(entry);
        self.bytes = self.bytes - before + entry.cost();
        self.evict();
        result
    }

    /// Changes every entry.
    pub(super) fn change_all(&mut self, mut change: impl FnMut(&mut Entry)) {
        for at in 0..self.slots.len() {
            if self.slots[at].is_some() {
                self.change_at(at, &mut change);
            }
        }
    }

    fn insert(&mut self, entry: Entry) {
        self.bytes += entry.cost();
        let hash = entry.hash;
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = Some(entry);
                at
            }
            None => {
                self.slots.push(Some(entry));
                u32::try_from(self.slots.len() - 1).expect("a table of 2^32 entries does not fit its bound of bytes")
            }
        };
        let slots = &self.slots;
        self.index.insert_unique(hash, at, |at| slots[*at as usize].as_ref().expect(INDEXED).hash);
    }

    fn evict(&mut self) {
        while self.bytes > self.limit && !self.index.is_empty() {
            self.hand = if self.hand + 1 < self.slots.len() { self.hand + 1 } else { 0 };
            match &mut self.slots[self.hand] {
                None => {}
                Some(entry) if entry.recent => entry.recent = false,
                filled => {
                    let entry = filled.take().expect(INDEXED);
                    self.bytes -= entry.cost();
                    let at = u32::try_from(self.hand).expect("slots are numbered in 32 bits");
                    if let Ok(indexed) = self.index.find_entry(entry.hash, |indexed| *indexed == at) {
                        indexed.remove();
                    }
                    self.free.push(at);
                }
            }
        }
    }
}
