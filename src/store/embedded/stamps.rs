//! What is known of the stamps of rows without reading them.
//!
//! Measured: the read before a write costs more than the write when memtables and unmerged files pile up. A slot holds a
//! row's hash and the stamp that the table has it at, exactly: only the holder of the row's lock writes the row, and notes
//! it here after the table has it. What is not here is read. A row's slot goes to a newer one of its set when the set is
//! full. The hash has a seed of its own each time the store opens, so that no client can choose rows that share one.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::item::Stamp;

/// Slots in which a row may be.
const WAYS: usize = 4;

/// The stamps of some rows, in a fixed number of slots that take memory once they are used.
pub struct Stamps {
    seed: u64,
    /// Hash and stamp; a hash of 0 is an empty slot.
    slots: Vec<[u64; 2]>,
}

impl Stamps {
    /// Room for this many rows, rounded up to a power of two.
    pub fn new(rows: usize) -> Self {
        Self { seed: rand::random(), slots: vec![[0; 2]; rows.max(WAYS).next_power_of_two()] }
    }

    /// The hash that the row with this key goes by.
    pub fn hash(&self, key: &[u8]) -> u64 {
        xxh3_64_with_seed(key, self.seed).max(1)
    }

    fn set(&self, hash: u64) -> usize {
        hash as usize & (self.slots.len() - 1) & !(WAYS - 1)
    }

    /// The stamp that the table has the row at, if it is known.
    pub fn get(&self, hash: u64) -> Option<Stamp> {
        let set = self.set(hash);
        let slot = self.slots[set..set + WAYS].iter().find(|slot| slot[0] == hash)?;
        Some(Stamp(slot[1].cast_signed()))
    }

    /// Notes that the table has the row at this stamp.
    pub fn note(&mut self, hash: u64, stamp: Stamp) {
        let set = self.set(hash);
        let slots = &mut self.slots[set..set + WAYS];
        let at = slots.iter().position(|slot| slot[0] == hash).or_else(|| slots.iter().position(|slot| slot[0] == 0));
        // Stamps are close to the wall clock, so the oldest is the row that was written longest ago.
        let oldest = || (0..WAYS).min_by_key(|at| slots[*at][1].cast_signed()).unwrap_or(0);
        let at = at.unwrap_or_else(oldest);
        slots[at] = [hash, stamp.0.cast_unsigned()];
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_it_knows_is_what_was_noted_last(notes in prop::collection::vec((0..40u8, any::<i64>()), 0..200)) {
            let mut stamps = Stamps::new(16);
            let mut last = HashMap::new();
            for (key, stamp) in notes {
                let hash = stamps.hash(&[key]);
                stamps.note(hash, Stamp(stamp));
                prop_assert_eq!(stamps.get(hash), Some(Stamp(stamp)));
                last.insert(key, Stamp(stamp));
                for (key, stamp) in &last {
                    let known = stamps.get(stamps.hash(&[*key]));
                    prop_assert!(known.is_none() || known == Some(*stamp));
                }
            }
        }
    }

    #[test]
    fn a_full_set_forgets_the_row_written_longest_ago() {
        let mut stamps = Stamps::new(WAYS);
        for hash in 1..=WAYS as u64 {
            stamps.note(hash, Stamp(-100 + hash as i64));
        }
        stamps.note(1, Stamp(50));
        stamps.note(77, Stamp(51));
        assert_eq!(stamps.get(2), None);
        assert_eq!([1, 3, 4, 77].map(|hash| stamps.get(hash).is_some()), [true; 4]);
    }
}
