//! What an operator has accepted of a lane's log (law 6): gaps, and claims that do not hold. Pure.
//!
//! Law 2 holds still: a lane is a function of its log and of these records, which never change. So whoever takes the lane
//! over, however soon after, computes the same:
//! - A pack in an accepted gap counts as given up whether or not it is still in the log: its ids are noted, nothing of it
//!   is folded. The lane goes on at the gap's end.
//! - Its stamp is the gap's: `floor + 1 + (seq - from)`. The chain of stamps cannot be computed over packs that are gone, so
//!   it begins anew after the gap, above `floor`, and no stamp that was ever computed before the remedy is above that. So
//!   whatever is written from then on is newer than every row that there is. The dedup window does not take the leap for time
//!   that has passed: what it holds stays as old as it is, or the retry of an item from before the gap would count again.
//! - A row that was written before the remedy (its stamp is not above `floor`) and names a pack behind the gap's begin stays
//!   true, total and all: but no pack computes its stamp any more, so it is not asked for (law 4). Rows that are written
//!   afterwards are above `floor`, and are held against the log as ever.
//! - A checkpoint from before that lies behind the gap is passed over: a worker that lived on wrote it, and what it stored on
//!   the way may have lost against rows above `floor` that lack it. The lane begins again at the gap.

use std::collections::BTreeSet;

use crate::{
    item::{Lane, Seq, Stamp},
    store::{Remedy, RemedyRow},
};

/// Packs that were given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first.
    pub from: Seq,
    /// One past the last: where the lane goes on.
    pub to: Seq,
    /// No stamp from before is higher.
    pub floor: Stamp,
}

impl Gap {
    fn contains(&self, seq: Seq) -> bool {
        self.from <= seq && seq < self.to
    }

    /// The stamp of one of its packs, whether or not it is there.
    pub fn stamp(&self, seq: Seq) -> Stamp {
        let into = i64::try_from(seq.0 - self.from.0).unwrap_or(i64::MAX);
        Stamp(self.floor.0.saturating_add(1).saturating_add(into))
    }

    /// The stamp of its last pack: the chain goes on behind it.
    pub fn last_stamp(&self) -> Stamp {
        self.stamp(Seq(self.to.0 - 1))
    }
}

/// Everything that was accepted of one lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Oldest first.
    gaps: Vec<Gap>,
    claims: BTreeSet<Seq>,
}

impl Accepted {
    /// What these remedies, oldest first, say of a lane.
    pub fn of(lane: Lane, remedies: &[RemedyRow]) -> Self {
        let mut accepted = Self::default();
        for remedy in remedies.iter().filter(|remedy| remedy.topic_id == lane.topic_id) {
            match remedy.what {
                Remedy::Gap { partition, from, to, floor } if partition == lane.partition && from < to => {
                    accepted.gaps.push(Gap { from, to, floor });
                }
                Remedy::Claims { partition, seq } if partition == lane.partition => {
                    accepted.claims.insert(seq);
                }
                _ => {}
            }
        }
        accepted
    }

    /// Whether nothing was.
    pub fn is_empty(&self) -> bool {
        self.gaps.is_empty() && self.claims.is_empty()
    }

    /// The gaps, oldest first.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// The gap that a pack is in: the one that reaches furthest, of those the oldest.
    pub fn gap_at(&self, seq: Seq) -> Option<&Gap> {
        let mut found: Option<&Gap> = None;
        for gap in self.gaps.iter().filter(|gap| gap.contains(seq)) {
            if found.is_none_or(|found| gap.to > found.to) {
                found = Some(gap);
            }
        }
        found
    }

    /// The first seq from `next` on that was not given up.
    pub fn past(&self, mut next: Seq) -> Seq {
        while let Some(gap) = self.gap_at(next) {
            next = gap.to;
        }
        next
    }

    /// How far a lane that wants `next` gets towards `target` over packs that are given up: where it stands then, and the
    /// stamp before that, if it gets on at all.
    pub fn cross(&self, mut next: Seq, target: Seq) -> (Seq, Option<Stamp>) {
        let mut stamp = None;
        while next < target
            && let Some(gap) = self.gap_at(next)
        {
            next = gap.to.min(target);
            stamp = Some(gap.stamp(Seq(next.0 - 1)));
        }
        (next, stamp)
    }

    /// Whether a row with this seq and stamp was written before a gap at or below it was accepted: no pack computes its stamp
    /// any more.
    pub fn is_from_before(&self, seq: Seq, stamp: Stamp) -> bool {
        self.gaps.iter().any(|gap| gap.from <= seq && stamp <= gap.floor)
    }

    /// Where a lane begins again whose checkpoint was written before a gap was accepted and lies behind it: by a worker that had
    /// read what is gone now, and did not know that it was given up. The stamps from there on are not the lane's.
    pub fn overrules(&self, seq: Seq, stamp: Stamp) -> Option<Seq> {
        let overruling = self.gaps.iter().filter(|gap| gap.to <= seq.next() && stamp <= gap.floor);
        overruling.map(|gap| gap.from).min()
    }

    /// Whether the claims of the pack at `seq` that do not hold are accepted.
    pub fn forgives_claims_of(&self, seq: Seq) -> bool {
        self.claims.contains(&seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::TopicId;

    const LANE: Lane = Lane { topic_id: TopicId([1; 16]), partition: 2 };

    fn accepted(gaps: &[(u64, u64, i64)]) -> Accepted {
        let row = |(from, to, floor): &(u64, u64, i64)| RemedyRow {
            at_ms: 0,
            id: [0; 16],
            topic_id: LANE.topic_id,
            what: Remedy::Gap { partition: 2, from: Seq(*from), to: Seq(*to), floor: Stamp(*floor) },
            who: String::new(),
            why: String::new(),
            says: String::new(),
        };
        Accepted::of(LANE, &gaps.iter().map(row).collect::<Vec<_>>())
    }

    #[test]
    fn a_gap_is_crossed_to_its_end_and_one_that_leads_on_with_it() {
        let two = accepted(&[(10, 20, 1_000), (20, 23, 5_000), (40, 50, 9_000)]);
        assert_eq!(two.cross(Seq(10), Seq(23)), (Seq(23), Some(Stamp(5_003))));
        assert_eq!(two.cross(Seq(12), Seq(15)), (Seq(15), Some(Stamp(1_005))), "what is left of it is noted");
        assert_eq!(two.cross(Seq(10), Seq(30)), (Seq(23), Some(Stamp(5_003))), "more is gone than was accepted");
        assert_eq!(two.cross(Seq(9), Seq(23)), (Seq(9), None), "it begins before what was accepted");
        assert_eq!(two.past(Seq(12)), Seq(23));
        assert_eq!(two.past(Seq(23)), Seq(23));
    }

    #[test]
    fn of_two_remedies_for_one_gap_the_one_that_reaches_further_counts_and_of_equal_ones_the_older() {
        let wider = accepted(&[(10, 20, 1_000), (10, 25, 2_000)]);
        assert_eq!(wider.gap_at(Seq(12)).map(|gap| gap.stamp(Seq(12))), Some(Stamp(2_003)));
        let twice = accepted(&[(10, 20, 1_000), (10, 20, 2_000)]);
        assert_eq!(twice.gap_at(Seq(12)).map(|gap| gap.stamp(Seq(12))), Some(Stamp(1_003)));
    }

    #[test]
    fn rows_from_before_are_told_by_their_stamp_and_only_at_or_behind_the_gap() {
        let gap = accepted(&[(10, 20, 1_000)]);
        assert!(gap.is_from_before(Seq(25), Stamp(1_000)));
        assert!(!gap.is_from_before(Seq(25), Stamp(1_001)));
        assert!(!gap.is_from_before(Seq(9), Stamp(900)), "what was stored before the gap is computed as ever");
    }

    #[test]
    fn a_checkpoint_from_before_counts_up_to_the_gap_and_not_behind_it() {
        let gap = accepted(&[(10, 20, 1_000)]);
        assert_eq!(gap.overrules(Seq(9), Stamp(900)), None);
        assert_eq!(gap.overrules(Seq(18), Stamp(900)), None, "what is left of the gap is crossed");
        assert_eq!(gap.overrules(Seq(19), Stamp(900)), Some(Seq(10)), "the next stamp follows the gap's last");
        assert_eq!(gap.overrules(Seq(25), Stamp(1_000)), Some(Seq(10)));
        assert_eq!(gap.overrules(Seq(25), Stamp(1_001)), None, "its writer knew of it");
    }

    #[test]
    fn other_lanes_and_other_lives_have_remedies_of_their_own() {
        let mut row = RemedyRow {
            at_ms: 0,
            id: [0; 16],
            topic_id: LANE.topic_id,
            what: Remedy::Claims { partition: 2, seq: Seq(7) },
            who: String::new(),
            why: String::new(),
            says: String::new(),
        };
        assert!(Accepted::of(LANE, std::slice::from_ref(&row)).forgives_claims_of(Seq(7)));
        assert!(Accepted::of(Lane { partition: 1, ..LANE }, std::slice::from_ref(&row)).is_empty());
        row.topic_id = TopicId([9; 16]);
        assert!(Accepted::of(LANE, &[row]).is_empty());
    }
}
