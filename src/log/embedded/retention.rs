//! Which old tables may go, and which go first: a decision over plain data.
//!
//! A table is a contiguous range of one partition's records in one file. Only whole tables at a partition's front are
//! removed, oldest first over all partitions, until what is left fits with a little to spare, so that many go at once
//! and each partition's manifest is seldom written; never a record that its partition still has to keep.

/// A part of what is kept is removed beyond need, to have room for some time.
const SPARE: u64 = 16;

/// A table on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// The last seq in it.
    pub(super) last: u64,
    /// Its size.
    pub(super) bytes: u64,
    /// When it was written; only compared.
    pub(super) created: u128,
}

/// A partition's tables, in order of seq, and the first record that it has to keep.
#[derive(Clone, Debug)]
pub(super) struct Front {
    /// Its tables.
    pub(super) tables: Vec<Table>,
    /// The first seq that has to stay.
    pub(super) floor: u64,
}

/// For each partition the seq that its log shall start at, if any of its tables goes, so that at most `keep` bytes are
/// left.
pub(super) fn new_starts(partitions: &[Front], keep: u64) -> Vec<Option<u64>> {
    let mut total: u64 = partitions.iter().flat_map(|front| &front.tables).map(|table| table.bytes).sum();
    let mut gone = vec![0; partitions.len()];
    let enough = if total > keep { keep - keep / SPARE } else { keep };
    while total > enough {
        let oldest = partitions
            .iter()
            .enumerate()
            .filter_map(|(index, front)| Some((index, front.tables.get(gone[index])?, front.floor)))
            .filter(|(_, table, floor)| table.last < *floor)
            .min_by_key(|(_, table, _)| table.created);
        let Some((index, table, _)) = oldest else { break };
        gone[index] += 1;
        total -= table.bytes;
    }
    partitions.iter().zip(gone).map(|(front, gone)| Some(front.tables.get(gone.checked_sub(1)?)?.last + 1)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fronts() -> impl Strategy<Value = Vec<Front>> {
        let table = (1_u64..20, 1_u64..1000, 0_u128..100);
        proptest::collection::vec((proptest::collection::vec(table, 0..8), 0_u64..150), 0..5).prop_map(|partitions| {
            partitions
                .into_iter()
                .map(|(tables, floor)| {
                    let mut next = 0;
                    let tables = tables.into_iter().map(|(records, bytes, created)| {
                        next += records;
                        Table { last: next - 1, bytes, created }
                    });
                    Front { tables: tables.collect(), floor }
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn nothing_needed_goes_nothing_goes_without_need_and_what_is_left_fits_if_it_can(partitions in fronts(), keep in 0_u64..5000) {
            let starts = new_starts(&partitions, keep);
            let mut left = 0;
            let mut removable = 0;
            let mut newest_gone = None;
            for (front, start) in partitions.iter().zip(&starts) {
                let start = start.unwrap_or(0);
                prop_assert!(start <= front.floor);
                prop_assert!(start == 0 || front.tables.iter().any(|table| table.last + 1 == start), "a cut within a table");
                left += front.tables.iter().filter(|table| table.last >= start).map(|table| table.bytes).sum::<u64>();
                removable += front.tables.iter().filter(|table| table.last >= start && table.last < front.floor).count();
                let gone = front.tables.iter().rfind(|table| table.last < start);
                newest_gone = newest_gone.max(gone.map(|table| table.bytes));
            }
            prop_assert!(left <= keep || removable == 0);
            let total: u64 = partitions.iter().flat_map(|front| &front.tables).map(|table| table.bytes).sum();
            if total <= keep {
                prop_assert!(starts.iter().all(Option::is_none));
            } else if let Some(bytes) = newest_gone {
                prop_assert!(left + bytes > keep - keep / SPARE || starts.iter().flatten().count() > 1, "more went than had to");
            }
        }
    }

    #[test]
    fn the_oldest_goes_first_over_all_partitions() {
        let table = |last, created| Table { last, bytes: 100, created };
        let busy = Front { tables: vec![table(9, 5), table(19, 6), table(29, 7)], floor: 100 };
        let idle = Front { tables: vec![table(3, 1)], floor: 100 };
        assert_eq!(new_starts(&[busy.clone(), idle.clone()], 320), [None, Some(4)]);
        assert_eq!(new_starts(&[busy.clone(), idle.clone()], 310), [Some(10), Some(4)], "with some to spare");
        let needed = Front { floor: 3, ..idle };
        assert_eq!(new_starts(&[busy, needed], 250), [Some(20), None]);
    }
}
