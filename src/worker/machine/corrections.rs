//! Packs that carry corrections: what of them this version applies, and how.

use super::{Machine, Read};
use crate::{
    item::{Seq, Stamp},
    pack::{Correction, Pack},
    worker::fold::{Misplaced, Missing},
};

/// What a pack's corrections carry that no lane applies yet.
pub(super) fn unsupported(pack: &Pack) -> Option<&'static str> {
    let is_total = |correction: &Correction| correction.grain_ms == 0 && correction.bucket_ms == 0;
    if pack.corrections.iter().any(|correction| !is_total(correction)) {
        return Some("a correction of a time bucket");
    }
    if pack.corrections.iter().any(|correction| correction.total().is_none()) {
        return Some("a correction by an amount");
    }
    let beside = pack.increments.is_some() || !pack.events.is_empty();
    (beside && !pack.corrections.is_empty()).then_some("corrections beside items")
}

impl Machine {
    /// Resolves the rows that are to be corrected; what is missing is added to `missing`.
    pub(super) fn prepare_corrections(
        &mut self,
        epoch: u32,
        read: &Read,
        missing: &mut Missing,
    ) -> Result<(), Misplaced> {
        let named = read.pack.corrections.iter().map(|correction| (&correction.key[..], correction.counter));
        self.fold.prepare_rows(epoch, named, &mut self.corrected, missing)
    }

    /// Corrects the rows that were prepared. They are no items: control totals count what came in, and a correction makes
    /// the rows agree with it again.
    pub(super) fn apply_corrections(&mut self, read: &Read, stamp: Stamp) {
        for (row, correction) in self.corrected.iter().zip(&read.pack.corrections) {
            let total = correction.total().expect("others halt the lane when the record is decoded");
            self.fold.correct(*row, read.seq, stamp, Seq(correction.as_of), total);
        }
    }
}
