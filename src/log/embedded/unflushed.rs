//! How many bytes wait in memtables, told by the memtables themselves.
//!
//! fjall's own count cannot be relied on: a batch is added to it after the journal's lock is released, so a flush that
//! overtakes it takes away more than is there, the count stops at zero, and what is then added stays for ever. Once that
//! exceeds what may wait, appends wait for a flusher that has nothing to do. A sealed memtable does not tell its size,
//! so that is what the active one last had before another took its place.

/// What a partition's memtables look like at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sight {
    /// Which memtable is the active one.
    pub(super) id: u64,
    /// Its bytes.
    pub(super) active: u64,
    /// How many are sealed and not in a table yet.
    pub(super) sealed: usize,
}

/// The count. It is looked at before each group is written, so it misses one group at most.
#[derive(Debug)]
pub(super) struct Unflushed {
    partitions: Vec<Memtables>,
    /// What opening found sealed, until nothing is.
    recovered: u64,
}

#[derive(Debug)]
struct Memtables {
    id: u64,
    active: u64,
    sealed: u64,
}

impl Unflushed {
    /// The count of a database that has just been opened, with `total` bytes in all memtables.
    pub(super) fn new(total: u64, sights: impl Iterator<Item = Sight>) -> Self {
        let partitions: Vec<_> =
            sights.map(|sight| Memtables { id: sight.id, active: sight.active, sealed: 0 }).collect();
        let active: u64 = partitions.iter().map(|partition| partition.active).sum();
        Self { partitions, recovered: total.saturating_sub(active) }
    }

    /// Looks again, at the partitions in the same order; answers the bytes.
    pub(super) fn bytes(&mut self, sights: impl Iterator<Item = Sight>) -> u64 {
        let (mut bytes, mut none_sealed) = (0, true);
        for (partition, sight) in self.partitions.iter_mut().zip(sights) {
            if partition.id != sight.id {
                partition.id = sight.id;
                partition.sealed += partition.active;
            }
            partition.active = sight.active;
            if sight.sealed == 0 {
                partition.sealed = 0;
            }
            none_sealed &= sight.sealed == 0;
            bytes += partition.active + partition.sealed;
        }
        if none_sealed {
            self.recovered = 0;
        }
        bytes + self.recovered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(id: u64, active: u64, sealed: usize) -> Sight {
        Sight { id, active, sealed }
    }

    #[test]
    fn a_sealed_memtable_counts_until_none_is_sealed() {
        let mut unflushed = Unflushed::new(0, [sight(0, 0, 0), sight(0, 0, 0)].into_iter());
        let mut bytes = |a, b| unflushed.bytes([a, b].into_iter());
        assert_eq!(bytes(sight(0, 10, 0), sight(0, 5, 0)), 15);
        assert_eq!(bytes(sight(1, 1, 1), sight(0, 6, 0)), 17);
        assert_eq!(bytes(sight(2, 2, 2), sight(0, 6, 0)), 19);
        assert_eq!(bytes(sight(2, 2, 1), sight(1, 1, 1)), 20);
        assert_eq!(bytes(sight(2, 2, 0), sight(1, 1, 1)), 9);
        assert_eq!(bytes(sight(2, 3, 0), sight(1, 1, 0)), 4);
    }

    #[test]
    fn a_memtable_that_was_flushed_between_two_looks_leaves_nothing() {
        let mut unflushed = Unflushed::new(0, [sight(0, 7, 0)].into_iter());
        assert_eq!(unflushed.bytes([sight(3, 1, 0)].into_iter()), 1);
    }

    #[test]
    fn what_was_recovered_counts_until_nothing_is_sealed() {
        let mut unflushed = Unflushed::new(100, [sight(0, 30, 2), sight(4, 20, 0)].into_iter());
        assert_eq!(unflushed.bytes([sight(0, 31, 1), sight(4, 20, 0)].into_iter()), 101);
        assert_eq!(unflushed.bytes([sight(0, 31, 0), sight(4, 20, 0)].into_iter()), 51);
    }
}
