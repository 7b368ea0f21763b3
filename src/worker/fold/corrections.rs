//! Corrections: setting a row to what the log gives it (law 10).
//!
//! A correction says what a row is as of a seq, not what to add to it: it was computed from the log, by somebody who saw the
//! store hold something else, and whether the lane has what the store held, or has kept the right total in memory all along,
//! nobody outside knows. So it counts when no pack from that seq on counts in the row yet, and then the row is right whatever
//! it was before; otherwise it is void, and whoever made it looks again. Applied twice, or by two workers, or again after a
//! crash, it gives the same row.

use super::{Fold, Misplaced, Missing, Role, rows::RowId};
use crate::item::{Seq, Stamp, series_hash};

impl Fold {
    /// Resolves the rows that corrections name, by key and whether the whole counter's is meant; `rows` gets one entry each,
    /// valid once nothing is missing any more.
    ///
    /// # Errors
    /// When one belongs into another lane.
    pub fn prepare_rows<'a>(
        &mut self,
        epoch: u32,
        named: impl Iterator<Item = (&'a [u8], bool)>,
        rows: &mut Vec<RowId>,
        missing: &mut Missing,
    ) -> Result<(), Misplaced> {
        rows.clear();
        for (key, counter) in named {
            let role = if counter { Role::Counter } else { Role::Series };
            rows.push(self.resolve(epoch, key, series_hash(key), role, missing)?);
        }
        Ok(())
    }

    /// Sets a row to `total`, which the log below `as_of` gives it, unless a pack from there on counts in it.
    pub fn correct(&mut self, id: RowId, seq: Seq, stamp: Stamp, as_of: Seq, total: i128) {
        let row = &mut self.rows[id as usize];
        debug_assert!(row.loaded, "load, then fold");
        row.pending = row.pending.saturating_add(1);
        if !row.named {
            row.named = true;
            self.named.push(id);
        }
        let covered = seq < row.base_end;
        if !covered && row.base_end.max(row.touched_end) > as_of {
            return;
        }
        if !row.dirty {
            row.dirty = true;
            self.dirty += 1;
        }
        row.touched_end = seq.next();
        // The base covers it already: written again as it is, with its own stamp (law 4).
        if !covered {
            row.total = total;
            row.seq = seq;
            row.stamp = stamp;
        }
    }
}
