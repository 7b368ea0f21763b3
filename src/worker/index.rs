//! An index from hashes to places: what the dedup window and the fold look things up in, a million times a second.
//!
//! Open addressing with linear probing over one array of 64-bit slots, half of each a tag of the hash, half the place: a
//! look-up costs one cache line, asks its caller only about places whose tag fits, and a removal leaves no tombstone.
//! [`Index::touch`] lets a caller that is about to look up many hashes bring their slots nearer all at once. Hashes are
//! mixed with a secret, so that a client that chooses its ids or names cannot foresee which of them meet in a slot.
//!
//! Memory: 8 bytes a slot, at most five eighths of them in use.

use std::hash::{BuildHasher as _, RandomState};

/// Places by hash. Several places may have the same hash; which one is meant the caller decides.
#[derive(Debug)]
pub(super) struct Index {
    /// A tag in the upper half, never 0, and a place in the lower; 0 is empty.
    slots: Vec<u64>,
    /// A slot's home is its tag's uppermost bits.
    shift: u32,
    len: usize,
    secret: u64,
}

const SMALLEST_BITS: u32 = 4;

impl Index {
    pub(super) fn new() -> Self {
        Self {
            slots: vec![0; 1 << SMALLEST_BITS],
            shift: 64 - SMALLEST_BITS,
            len: 0,
            secret: RandomState::new().hash_one(0),
        }
    }

    fn slot(&self, hash: u64, place: u32) -> u64 {
        let product = u128::from(hash ^ self.secret) * 0x9e37_79b9_7f4a_7c15;
        let mixed = (product >> 64) as u64 ^ product as u64;
        (mixed & !u64::from(u32::MAX)) | 1 << 32 | u64::from(place)
    }

    fn home(&self, slot: u64) -> usize {
        (slot >> self.shift) as usize
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }

    /// The first slot whose tag fits and whose place is the one that is meant; otherwise the empty one that ends the search.
    fn search(&self, hash: u64, mut is_meant: impl FnMut(u32) -> bool) -> (usize, bool) {
        let wanted = self.slot(hash, 0);
        let mut at = self.home(wanted);
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return (at, false);
            }
            if (slot ^ wanted) >> 32 == 0 && is_meant(slot as u32) {
                return (at, true);
            }
            at = self.after(at);
        }
    }

    /// The place with this hash that is meant.
    pub(super) fn find(&self, hash: u64, is_meant: impl FnMut(u32) -> bool) -> Option<u32> {
        let (at, found) = self.search(hash, is_meant);
        found.then(|| self.slots[at] as u32)
    }

    /// Reads what a look-up of this hash reads first, and hands it out only so that the read is not optimised away. Reads
    /// in a row wait for memory together; look-ups in a row wait one after another.
    pub(super) fn touch(&self, hash: u64) -> u64 {
        self.slots[self.home(self.slot(hash, 0))]
    }

    /// Sets the place of what is meant to `place`, or adds it; answers whether it was there.
    pub(super) fn set(&mut self, hash: u64, place: u32, is_meant: impl FnMut(u32) -> bool) -> bool {
        let (at, found) = self.search(hash, is_meant);
        self.slots[at] = self.slot(hash, place);
        if !found {
            self.len += 1;
            if self.len * 8 > self.slots.len() * 5 {
                self.grow();
            }
        }
        found
    }

    /// Removes this place, if it is there.
    pub(super) fn remove(&mut self, hash: u64, place: u32) {
        let (mut hole, found) = self.search(hash, |at| at == place);
        if !found {
            return;
        }
        let mask = self.slots.len() - 1;
        let mut next = self.after(hole);
        while self.slots[next] != 0 {
            // It may fill the hole if the hole is not before its home.
            let from_home = next.wrapping_sub(self.home(self.slots[next])) & mask;
            if from_home >= next.wrapping_sub(hole) & mask {
                self.slots[hole] = self.slots[next];
                hole = next;
            }
            next = self.after(next);
        }
        self.slots[hole] = 0;
        self.len -= 1;
    }

    fn grow(&mut self) {
        assert!(self.shift > 32, "an index holds fewer than 2^31 places");
        self.shift -= 1;
        let twice = vec![0; self.slots.len() * 2];
        for slot in std::mem::replace(&mut self.slots, twice) {
            if slot != 0 {
                let mut at = self.home(slot);
                while self.slots[at] != 0 {
                    at = self.after(at);
                }
                self.slots[at] = slot;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds_whatever_collides(steps in proptest::collection::vec((any::<bool>(), 0..60u32), 0..400), hashes in 1..64u32) {
            let hash = |key: u32| u64::from(key % hashes);
            let (mut index, mut map) = (Index::new(), HashMap::new());
            // A place is a key and how often it was set: only the key is meant.
            for (turn, (set, key)) in steps.into_iter().enumerate() {
                let is_meant = |place: u32| place / 1000 == key;
                if set {
                    let place = key * 1000 + turn as u32;
                    prop_assert_eq!(index.set(hash(key), place, is_meant), map.insert(key, place).is_some());
                } else if let Some(place) = map.remove(&key) {
                    index.remove(hash(key), place + 1_000_000);
                    index.remove(hash(key), place);
                }
                prop_assert_eq!(index.len, map.len());
                for key in 0..60 {
                    prop_assert_eq!(index.find(hash(key), |place| place / 1000 == key), map.get(&key).copied());
                }
            }
        }
    }
}
