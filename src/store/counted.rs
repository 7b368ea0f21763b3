//! Control totals: what a lane has counted since its first record, carried by every checkpoint.
//!
//! They depend on the log's prefix alone, like everything of a lane (law 2): whatever the batches, the crashes and the
//! replays, two workers that stand at the same seq have the same ones. So any two checkpoints of a lane and the log between
//! them can be checked against each other ([`Counted::since`], [`Counted::minus`]), and a checkpoint against the rows: the
//! amount is the sum of the lane's series, in the same ring. Pure.

use crate::item::Seq;

/// What a lane has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The first seq that is counted: 0, unless the checkpoint before it was written by a program that did not count.
    pub since: Seq,
    /// Items that counted: increments and events.
    pub items: u64,
    /// Items that were dropped as duplicates.
    pub duplicates: u64,
    /// The sum of the increments that counted. It wraps at 128 bits: the ring that totals are folded in, which 2^64
    /// increments do not leave, so that a difference of two sums is what really came in between.
    pub amount: i128,
}

impl Counted {
    /// Nothing yet, counting from this seq on.
    pub fn since(since: Seq) -> Self {
        Self { since, items: 0, duplicates: 0, amount: 0 }
    }

    /// Counts a pack.
    pub fn add(&mut self, items: u64, duplicates: u64, amount: i128) {
        self.items = self.items.wrapping_add(items);
        self.duplicates = self.duplicates.wrapping_add(duplicates);
        self.amount = self.amount.wrapping_add(amount);
    }

    /// What was counted after `earlier`, which is of the same lane and stands at `at`; `None` when the two were not counted from
    /// the same seq on, so that nothing can be said.
    pub fn minus(&self, earlier: &Self, at: Seq) -> Option<Self> {
        (self.since == earlier.since).then(|| Self {
            since: at.next(),
            items: self.items.wrapping_sub(earlier.items),
            duplicates: self.duplicates.wrapping_sub(earlier.duplicates),
            amount: self.amount.wrapping_sub(earlier.amount),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_lies_between_two_is_what_was_added_between_them_even_where_a_sum_wraps(
            packs in proptest::collection::vec((0..5_u64, 0..5_u64, prop_oneof![any::<i128>(), -3..4_i128]), 0..20), cut in 0..20usize,
        ) {
            let cut = cut.min(packs.len());
            let count = |since: u64, packs: &[(u64, u64, i128)]| {
                let mut counted = Counted::since(Seq(since));
                packs.iter().for_each(|(items, duplicates, amount)| counted.add(*items, *duplicates, *amount));
                counted
            };
            let (earlier, later) = (count(0, &packs[..cut]), count(0, &packs));
            // The earlier one stands at the seq of its last pack.
            if let Some(at) = cut.checked_sub(1) {
                let at = Seq(at as u64);
                prop_assert_eq!(later.minus(&earlier, at), Some(count(cut as u64, &packs[cut..])));
                prop_assert_eq!(later.minus(&count(1, &packs[..cut]), at), None);
            }
        }
    }
}
