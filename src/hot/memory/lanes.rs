//! Short numbers for lanes, and how far each lane's publishes are through.
//!
//! A lane is 20 bytes and there are few of them, so entries hold its number. Positions are kept as one past a seq, so that
//! 0 says: nothing yet.

use std::sync::{
    PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use crate::item::Lane;

/// A lane's number in this process.
pub(super) type Number = u32;

/// Every lane that was ever named. As many as the topic has had partitions, over all its lives.
#[derive(Default)]
pub(super) struct Lanes {
    known: RwLock<Vec<(Lane, AtomicU64)>>,
}

impl Lanes {
    /// The lane's number, given now if it has none.
    pub(super) fn number(&self, lane: Lane) -> Number {
        let find = |known: &[(Lane, AtomicU64)]| known.iter().position(|(known, _)| *known == lane);
        let found = find(&self.known.read().unwrap_or_else(PoisonError::into_inner));
        let position = found.unwrap_or_else(|| {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            find(&known).unwrap_or_else(|| {
                known.push((lane, AtomicU64::new(0)));
                known.len() - 1
            })
        });
        Number::try_from(position).expect("a topic has fewer than 2^32 lanes")
    }

    /// Notes that the lane's publishes below `end` are through. Never lowers what is known.
    pub(super) fn published(&self, lane: Lane, end: u64) {
        let number = self.number(lane) as usize;
        self.known.read().unwrap_or_else(PoisonError::into_inner)[number].1.fetch_max(end, Ordering::AcqRel);
    }

    /// Whether the lane's publishes below `end` are through.
    pub(super) fn reached(&self, lane: Number, end: u64) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known[lane as usize].1.load(Ordering::Acquire) >= end
    }
}
