//! What the store has said of packs that lie ahead of the lane: each must be met in the log, with the same stamp, or the log is
//! not the one that it was (laws 4 and 6). Rows name the packs that their bases cover; the lane's own row says how far it was stored.

use super::{Fold, Halt, Machine, Seq, Stamp};

impl Machine {
    /// The rows, for installing what was missing; every base goes through `meet`.
    pub fn install(&mut self, install: impl FnOnce(&mut Fold, &mut dyn FnMut(Seq, Stamp))) {
        let Self { fold, unmet, next, broken_base, accepted, letters, applied, .. } = self;
        let first = next.0 - applied.len() as u64;
        install(fold, &mut |seq, stamp| {
            if accepted.is_from_before(seq, stamp) {
                return;
            }
            if accepted.gap_at(seq).is_some() || letters.contains(&seq) {
                // Nothing is written in a gap afterwards; and a row names a record that nothing was folded from.
                *broken_base = Some(seq);
            } else if seq >= *next {
                match unmet.insert(seq, stamp) {
                    Some(other) if other != stamp => *broken_base = Some(seq),
                    _ => {}
                }
            } else if let Some(at) = seq.0.checked_sub(first)
                && applied[at as usize] != stamp
            {
                // The log went past it already, with another record.
                *broken_base = Some(seq);
            }
        });
    }

    /// The highest base that was read ahead of the lane and not met yet.
    pub fn highest_unmet(&self) -> Option<Seq> {
        let read = self.unmet.last_key_value().map(|(seq, _)| *seq);
        read.max(self.carried_unmet.filter(|seq| *seq >= self.next))
    }

    /// Takes what the store says to have of the lane, and the stamp of that: rows that no later pack names are held against the log
    /// by it alone.
    pub fn expect_stored(&mut self, stored: Option<(Seq, Stamp)>) {
        self.stored = stored.filter(|(seq, _)| *seq >= self.next);
    }

    /// What the store has said to have, when that is more than is applied up to `seq`.
    pub fn stored_beyond(&self, seq: Seq) -> Option<Seq> {
        self.stored.map(|(stored, _)| stored).filter(|stored| *stored > seq)
    }

    /// The record at `seq` computes this stamp: the one that the store has said to have, if it has. What is broken stays expected, so
    /// that what was applied before it takes nothing from the store's word.
    pub(super) fn meet_stored(&mut self, seq: Seq, stamp: Stamp) -> Result<(), Halt> {
        let Some((stored, expected)) = self.stored.filter(|(stored, _)| *stored <= seq) else { return Ok(()) };
        if stored == seq && expected != stamp && !self.accepted.is_from_before(stored, expected) {
            return Err(Halt::Base { seq });
        }
        self.stored = None;
        Ok(())
    }
}
