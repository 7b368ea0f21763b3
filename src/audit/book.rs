//! The rows of one lane as the log gives them, beside what store and hot view say of them: which of them differ. Pure.
//!
//! Everything is compared at equal seqs. A row in the store names the last pack that counts in it, and holds the lane's
//! total as of that pack; the hot view's base names the seq that it is as of. So the book keeps the total that the log
//! gives at exactly those seqs while the log goes by, and how far a lane lags behind its log plays no part. What lies above
//! a row's seq matters only up to the lane's checkpoint, which was read before the row: everything up to it is stored.

use std::collections::HashMap;

use super::report::Kind;
use crate::{
    item::{Seq, Stamp},
    store::{RowName, ShardKey, TotalRow},
};

/// A row as the store has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) total: i128,
    pub(super) seq: Seq,
    pub(super) stamp: Stamp,
}

impl From<&TotalRow> for Seen {
    fn from(row: &TotalRow) -> Self {
        Self { total: row.total, seq: row.seq, stamp: row.stamp }
    }
}

/// What the log gives a row at one of its packs: the sum of what counted since the recount began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Point {
    seq: Seq,
    stamp: Stamp,
    sum: i128,
}

/// What is known of one row.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    seen: Option<Seen>,
    hot: Option<(i128, Seq)>,
    /// The last pack that counts in it at or below the seq of the row, of the hot base, and of the checkpoint; and of all.
    at_seen: Option<Point>,
    at_hot: Option<Point>,
    at_checkpoint: Option<Point>,
    now: Option<Point>,
    /// The first and the last pack above the row's seq.
    first_above: Option<Seq>,
    /// Its total before the recount began, where it is known.
    base: Option<i128>,
    /// What a correction has put into the recount's total that is not in its sum.
    offset: i128,
    /// The last correction that has set it.
    corrected: Option<Seq>,
    /// It has changed at every look.
    moved: bool,
}

/// What the log says of the lane beside its rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// The first seq whose items are counted.
    pub(super) from: Seq,
    /// Whether that is the lane's first record.
    pub(super) whole: bool,
    /// The checkpoint that was read before the rows.
    pub(super) checkpoint: Option<Seq>,
}

/// What is wrong with a row, or that nothing can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    Unchecked,
    /// Its kind, and the total that it should have, where that is known.
    Drift(Kind, Option<i128>),
}

/// The rows of a lane.
pub(super) struct Book {
    extent: Extent,
    shards: HashMap<ShardKey, HashMap<RowName, Row>>,
    rows: usize,
}

impl Book {
    pub(super) fn new(extent: Extent) -> Self {
        Self { extent, shards: HashMap::new(), rows: 0 }
    }

    /// Items count from here on.
    pub(super) fn set_from(&mut self, from: Seq) {
        self.extent.from = from;
    }

    /// What the log says of the lane beside its rows.
    pub(super) fn extent(&self) -> Extent {
        self.extent
    }

    /// Gives a row up that has changed at every look.
    pub(super) fn set_moving(&mut self, key: &ShardKey, name: &RowName) {
        self.row(key, name).moved = true;
    }

    /// Whether a row has changed so that it must be looked at again.
    pub(super) fn is_moving(&self, key: &ShardKey, name: &RowName) -> bool {
        self.shards.get(key).and_then(|rows| rows.get(name)).is_some_and(|row| row.moved)
    }

    /// How many rows are known.
    pub(super) fn len(&self) -> usize {
        self.rows
    }

    fn row(&mut self, key: &ShardKey, name: &RowName) -> &mut Row {
        if !self.shards.contains_key(key) {
            self.shards.insert(key.clone(), HashMap::new());
        }
        let shard = self.shards.get_mut(key).expect("inserted above");
        if !shard.contains_key(name) {
            let base = self.extent.whole.then_some(0);
            shard.insert(name.clone(), Row { base, ..Row::default() });
            self.rows += 1;
        }
        shard.get_mut(name).expect("inserted above")
    }

    /// Notes a row of the store, before the log is read.
    pub(super) fn see(&mut self, key: &ShardKey, row: &TotalRow) {
        self.row(key, &row.name).seen = Some(row.into());
    }

    /// Notes the hot view's base for this lane, before the log is read.
    pub(super) fn see_hot(&mut self, key: &ShardKey, name: &RowName, total: i128, seq: Seq) {
        self.row(key, name).hot = Some((total, seq));
    }

    /// Notes a row as the lane's code has it after a pack that counts in it, or after a correction: `claim` is then whether
    /// the recount had seen every pack that the correction was computed from later than its beginning.
    pub(super) fn touch(&mut self, key: &ShardKey, row: &TotalRow, claim: Option<bool>) {
        let checkpoint = self.extent.checkpoint;
        let known = self.row(key, &row.name);
        let before = known.now.map_or(0, |now| now.sum);
        let sum = match claim {
            None => row.total.wrapping_sub(known.offset),
            Some(sound) => {
                // It adds nothing: it says what the sum is.
                known.offset = row.total.wrapping_sub(before);
                known.corrected = Some(row.seq);
                if sound && known.base.is_none() {
                    known.base = Some(known.offset);
                }
                before
            }
        };
        let point = Point { seq: row.seq, stamp: row.stamp, sum };
        known.now = Some(point);
        match known.seen {
            Some(seen) if row.seq <= seen.seq => known.at_seen = Some(point),
            _ => known.first_above = known.first_above.or(Some(row.seq)),
        }
        if known.hot.is_some_and(|(_, at)| row.seq <= at) {
            known.at_hot = Some(point);
        }
        if checkpoint.is_some_and(|at| row.seq <= at) {
            known.at_checkpoint = Some(point);
        }
    }

    /// Every row that was seen or counted.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&ShardKey, &RowName, &Row)> {
        self.shards.iter().flat_map(|(key, rows)| rows.iter().map(move |(name, row)| (key, name, row)))
    }

    /// The rows that differ from the log as it was read so far.
    pub(super) fn suspects(&mut self, next: Seq) -> Vec<(ShardKey, RowName)> {
        let extent = self.extent;
        let mut suspects = Vec::new();
        for (key, rows) in &mut self.shards {
            for (name, row) in rows {
                if let Verdict::Drift(..) = row.judge(&extent, next) {
                    suspects.push((key.clone(), name.clone()));
                }
            }
        }
        suspects.sort();
        suspects
    }

    /// Looks at a row again. Answers how far the log must be read before it can be judged; `None`: it is as it was.
    pub(super) fn look_again(&mut self, key: &ShardKey, name: &RowName, seen: Option<Seen>) -> Option<Seq> {
        let row = self.row(key, name);
        row.moved = false;
        if row.seen == seen {
            return None;
        }
        row.seen = seen;
        row.at_seen = None;
        row.first_above = None;
        let (Some(seen), Some(now)) = (seen, row.now) else {
            row.first_above = row.now.map(|now| now.seq);
            return seen.map(|seen| seen.seq);
        };
        if now.seq <= seen.seq {
            row.at_seen = Some(now);
        } else {
            // Of the packs in between only the last is known: another look will find the row beyond them.
            row.moved = true;
        }
        Some(seen.seq)
    }

    /// What was counted of a row.
    pub(super) fn counted(&self, key: &ShardKey, name: &RowName) -> Option<i128> {
        Some(self.shards.get(key)?.get(name)?.counted())
    }

    pub(super) fn judge(&self, key: &ShardKey, name: &RowName, next: Seq) -> Verdict {
        self.shards.get(key).and_then(|rows| rows.get(name)).map_or(Verdict::Fine, |row| row.judge(&self.extent, next))
    }

    /// The sum of the lane's series as of its checkpoint, as the store has them.
    pub(super) fn sum_at_checkpoint(&self) -> i128 {
        let series = self.rows().filter(|(key, ..)| key.shard.0 >= 0);
        series.fold(0, |sum: i128, (_, _, row)| {
            let Some(seen) = row.seen else { return sum };
            let above = match (row.at_seen, self.extent.checkpoint) {
                (Some(point), Some(at)) if point.seq > at => {
                    point.sum.wrapping_sub(row.at_checkpoint.map_or(0, |point| point.sum))
                }
                _ => 0,
            };
            sum.wrapping_add(seen.total).wrapping_sub(above)
        })
    }
}

impl Row {
    pub(super) fn seen(&self) -> Option<Seen> {
        self.seen
    }

    pub(super) fn hot(&self) -> Option<(i128, Seq)> {
        self.hot
    }

    pub(super) fn is_moving(&self) -> bool {
        self.moved
    }

    /// Whether a correction waits in the log, above the row that the store has.
    pub(super) fn is_pending(&self) -> bool {
        self.corrected > self.seen.map(|seen| seen.seq)
    }

    /// What was counted of it.
    pub(super) fn counted(&self) -> i128 {
        self.now.map_or(0, |now| now.sum)
    }

    /// The total as of everything that was read of the log; `None` when it is not known.
    pub(super) fn truth(&self) -> Option<i128> {
        Some(self.base?.wrapping_add(self.now.map_or(0, |now| now.sum)))
    }

    fn truth_at(&self, point: Option<Point>) -> Option<i128> {
        Some(self.base?.wrapping_add(point.map_or(0, |point| point.sum)))
    }

    /// What the store has of it, against the log read up to `next`.
    pub(super) fn judge(&self, extent: &Extent, next: Seq) -> Verdict {
        if self.moved {
            return Verdict::Unchecked;
        }
        let covered = |seq: Option<Seq>| seq.is_some_and(|seq| extent.checkpoint.is_some_and(|at| seq <= at));
        let Some(seen) = self.seen else {
            // Not stored yet, unless the checkpoint says that it is.
            let lost = covered(self.first_above);
            return if lost { Verdict::Drift(Kind::Lost, self.truth_at(self.at_checkpoint)) } else { Verdict::Fine };
        };
        if seen.seq >= next {
            return Verdict::Drift(Kind::Foreign, self.truth());
        }
        let expected = self.truth_at(self.at_seen);
        let is_explained = self.at_seen.is_some_and(|point| point.seq == seen.seq);
        if !is_explained && (extent.whole || seen.seq >= extent.from) {
            return Verdict::Drift(Kind::Foreign, expected);
        }
        if covered(self.first_above) {
            return Verdict::Drift(Kind::Stale, self.truth_at(self.at_checkpoint));
        }
        match expected {
            None => Verdict::Unchecked,
            Some(expected) if seen.total < expected => Verdict::Drift(Kind::Lost, Some(expected)),
            Some(expected) if seen.total > expected => Verdict::Drift(Kind::Doubled, Some(expected)),
            // Right by its numbers, and written by somebody else: a lane writes at its packs' stamps, and may lose to it.
            Some(expected) if extent.whole && self.at_seen.is_some_and(|point| point.stamp != seen.stamp) => {
                Verdict::Drift(Kind::Foreign, Some(expected))
            }
            Some(_) => Verdict::Fine,
        }
    }

    /// What the hot view has of it, against the log read up to `next`.
    pub(super) fn judge_hot(&self, next: Seq) -> Option<Verdict> {
        let (total, at) = self.hot?;
        if at >= next {
            return Some(Verdict::Drift(Kind::Hot, self.truth()));
        }
        Some(match self.truth_at(self.at_hot) {
            None => Verdict::Unchecked,
            Some(expected) if expected != total => Verdict::Drift(Kind::Hot, Some(expected)),
            Some(_) => Verdict::Fine,
        })
    }
}

#[cfg(test)]
mod tests;
