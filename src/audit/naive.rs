//! The naive recount: the sums of a lane's items by the definition of a duplicate, without a line of the lane's code.
//!
//! Only the record's codec and the hash of an event's id are shared. It is slow and plain on purpose: what it and the lane
//! agree on is hardly a mistake that both have made. Memory: a sum for each series, and each id that is within its window.

use std::collections::{HashMap, HashSet};

use crate::{
    item::{Coordinates, IdScope},
    log::Record,
    pack,
    store::{Counted, EpochRow},
    worker::poison,
};

/// An hour ahead of the ingest's clock a broker's clock is no longer believed.
const AHEAD_MS: i64 = 3_600_000;

/// When an id was noted last: its place among all notes, and the stamp.
#[derive(Clone, Copy)]
struct Noted {
    place: u64,
    stamp: i64,
}

/// The sums of one lane.
pub(super) struct Naive {
    window_us: i64,
    max_ids: u64,
    stamp: i64,
    notes: u64,
    noted: HashMap<[u8; 16], Noted>,
    replayed: HashSet<Coordinates>,
    counting: bool,
    sums: HashMap<(u32, u32, Vec<u8>), i128>,
    counted: Counted,
}

impl Naive {
    /// A recount from `counted.since` on, with the window that the lane's first epoch has pinned.
    pub(super) fn new(epochs: &[EpochRow], counted: Counted) -> Self {
        let (window_us, max_ids) = epochs.first().map_or((0, 1), |epoch| (epoch.dedup_window_us, epoch.dedup_max_ids));
        Self {
            window_us,
            max_ids: max_ids.max(1),
            stamp: 0,
            notes: 0,
            noted: HashMap::new(),
            replayed: HashSet::new(),
            counting: false,
            sums: HashMap::new(),
            counted,
        }
    }

    /// From the next record on items count; those before it are only noted.
    pub(super) fn begin(&mut self) {
        self.counting = true;
    }

    fn is_live(&self, noted: Noted) -> bool {
        noted.stamp >= self.stamp.saturating_sub(self.window_us) && noted.place + self.max_ids >= self.notes
    }

    /// Notes an id; answers whether it had been noted within the window.
    fn seen(&mut self, id: [u8; 16]) -> bool {
        let before = self.noted.get(&id).copied();
        let seen = before.is_some_and(|before| self.is_live(before));
        self.noted.insert(id, Noted { place: self.notes, stamp: self.stamp });
        self.notes += 1;
        seen
    }

    /// The replay of this dead letter was applied before.
    pub(super) fn know_replayed(&mut self, at: Coordinates) {
        self.replayed.insert(at);
    }

    /// Counts a record, unless it is a dead letter: that verdict is the lane's.
    pub(super) fn add(&mut self, record: &Record, is_letter: bool) {
        let pack = pack::decode(record.format, record.payload.clone()).ok().filter(|_| !is_letter);
        let Some(pack) = pack else {
            self.stamp = self.stamp.saturating_add(1);
            return;
        };
        let clock_ms = record.append_ms.min(pack.receive_ms.saturating_add(AHEAD_MS));
        self.stamp = self.stamp.saturating_add(1).max(clock_ms.saturating_mul(1000));
        // What is past its window is let go now and then, so that only the window is in memory.
        if self.noted.len() as u64 > 2 * self.max_ids.min(1 << 20) {
            let mut noted = std::mem::take(&mut self.noted);
            noted.retain(|_, noted| self.is_live(*noted));
            self.noted = noted;
        }
        let twice = self.seen(pack.pack_id().0);
        let replayed = poison::replayed(&pack);
        let again = twice || replayed.is_some_and(|at| self.replayed.contains(&at));
        if let Some(at) = replayed.filter(|_| self.counting && !twice) {
            self.replayed.insert(at);
        }
        if let Some(increments) = &pack.increments {
            let keys: Vec<&[u8]> = increments.dictionary().map(|entry| entry.key).collect();
            for item in increments.iter() {
                let seen = item.id.is_some_and(|id| self.seen(id.0));
                if self.count(seen || again) {
                    let amount = i128::from(item.amount);
                    let key = (pack.partitions, pack.shards, keys[item.series as usize].to_vec());
                    *self.sums.entry(key).or_default() += amount;
                    self.counted.amount += amount;
                }
            }
        }
        for event in &pack.events {
            let id = IdScope::event(&event.namespace, &event.name).id(event.id.as_bytes());
            let seen = self.seen(id.0);
            self.count(seen || again);
        }
    }

    fn count(&mut self, dropped: bool) -> bool {
        if self.counting {
            let count = if dropped { &mut self.counted.duplicates } else { &mut self.counted.items };
            *count += 1;
        }
        self.counting && !dropped
    }

    /// What was counted.
    pub(super) fn counted(&self) -> Counted {
        self.counted
    }

    /// The sums by (partitions, shards, key).
    pub(super) fn sums(&self) -> &HashMap<(u32, u32, Vec<u8>), i128> {
        &self.sums
    }
}
