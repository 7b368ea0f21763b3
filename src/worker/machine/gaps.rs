//! What was given up of the log (`worker/accepted.rs`), as the machine meets it: what it crosses, and what that does to stamps and
//! to the dedup window.

use super::{
    Halt, Last, Machine, NO_PACK, Seq, Stamp,
    bugs::{self, Bug},
};
use crate::worker::accepted::Gap;

/// How a lane gets to its next record.
pub(super) struct Way {
    seq: Seq,
    /// The stamp that it has behind what was given up before the record, if anything was.
    crossed: Option<Stamp>,
    /// The stamp before the record's.
    pub(super) before: Stamp,
    /// What the record itself was given up with.
    gap: Option<Gap>,
}

impl Way {
    /// The record's stamp: its gap's, or the one that follows.
    pub(super) fn stamp(&self, follows: impl FnOnce(Stamp) -> Stamp) -> Stamp {
        self.gap.map_or_else(|| follows(self.before), |gap| gap.stamp(self.seq))
    }
}

impl Machine {
    /// Crosses packs that were given up and are not in the log any more, which begins at `start`. The next mark says so,
    /// under a name that no pack has.
    pub fn cross(&mut self, start: Seq) {
        let (next, Some(stamp)) = self.accepted.cross(self.next, start) else { return };
        let seq = Seq(next.0 - 1);
        self.leap_to(stamp);
        self.last = Some(Last { seq, stamp, pack: NO_PACK, leader_epoch: None });
        (self.next, self.stamp) = (next, stamp);
    }

    /// How the lane gets to the record at `seq`, which must be the next one that was not given up.
    pub(super) fn way_to(&self, seq: Seq) -> Result<Way, Halt> {
        let (next, crossed) = self.accepted.cross(self.next, seq);
        if seq != next {
            return Err(Halt::Missing { expected: next, found: seq });
        }
        Ok(Way { seq, crossed, before: crossed.unwrap_or(self.stamp), gap: self.accepted.gap_at(seq).copied() })
    }

    /// Goes it.
    pub(super) fn go(&mut self, way: &Way) {
        if let Some(stamp) = way.crossed {
            // Nothing was applied of what was crossed.
            self.applied.clear();
            self.leap_to(stamp);
            (self.next, self.stamp) = (way.seq, stamp);
        }
        if let Some(gap) = way.gap {
            self.leap_to(gap.floor);
        }
    }

    /// The stamps go on from here, further than time has: what the window holds is as old as it was.
    fn leap_to(&mut self, stamp: Stamp) {
        if !bugs::on(Bug::GapAgesWindow) {
            self.window.leap(stamp.0.saturating_sub(self.stamp.0).max(0));
        }
    }

    /// The first seq that it folds, as things stand: below it everything is stored or given up.
    pub fn folds_from(&self) -> Seq {
        self.accepted.past(self.next)
    }
}
