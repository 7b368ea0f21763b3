//! One entry: per lane a base and the pending deltas above it, and what it still waits for.
//!
//! Invariant: a part's pending deltas all lie at or above its `covered`, sorted by seq, each seq once. So the value is the
//! plain sum of bases and pending deltas, whatever came late or twice (H1). Positions are one past a seq; 0: nothing yet.

use smallvec::SmallVec;

use super::lanes::{Lanes, Number};
use crate::{
    hot::{HotKind, View},
    item::Seq,
};

/// A 128-bit sum that is aligned to 8 bytes only: entries are many.
#[derive(Clone, Copy, Default)]
struct Sum {
    high: i64,
    low: u64,
}

impl From<i128> for Sum {
    fn from(sum: i128) -> Self {
        Self { high: (sum >> 64) as i64, low: sum as u64 }
    }
}

impl Sum {
    fn get(self) -> i128 {
        i128::from(self.high) << 64 | i128::from(self.low)
    }
}

/// Pending deltas that a part has room for once it has had two. It keeps that room: a series that is counted between every
/// two flushes would ask the allocator for it each time.
const SPILLED: usize = 4;

/// What one lane gives to an entry.
struct Part {
    lane: Number,
    /// The base is the lane's total over every seq below this.
    covered: u64,
    /// One past the highest seq that was left out; stale until `covered` reaches it.
    left_out: u64,
    base: Sum,
    pending: SmallVec<[(u64, Sum); 1]>,
}

impl Part {
    /// Raises the base and drops the pending deltas that it covers. Answers how many were dropped; `None` when it is late.
    fn raise(&mut self, covered: u64, total: i128) -> Option<usize> {
        if covered <= self.covered {
            return None;
        }
        self.covered = covered;
        self.base = total.into();
        let dropped = self.pending.partition_point(|(seq, _)| *seq < covered);
        self.pending.drain(..dropped);
        if self.pending.capacity() > SPILLED && self.pending.len() < self.pending.capacity() / 4 {
            self.pending.shrink_to_fit();
        }
        Some(dropped)
    }

    /// What the part says of the lane's total over every seq below `end`.
    fn below(&self, end: u64) -> i128 {
        let pending = self.pending.iter().take_while(|(seq, _)| *seq < end);
        pending.fold(self.base.get(), |sum, (_, amount)| sum.wrapping_add(amount.get()))
    }
}

/// A load under way, and what the last one left to wait for.
#[derive(Default)]
struct Load {
    /// 0: none is under way.
    token: u64,
    /// Stale until each lane's publishes below its end are through.
    waits: Vec<(Number, u64)>,
}

/// What became of a published base.
pub(super) enum Settled {
    /// The entry's base was as high already.
    Covered,
    /// The base rose; `drifted` when the entry had claimed another total for that seq.
    Raised { drifted: bool },
}

/// One entry of the view.
pub(super) struct Entry {
    pub(super) hash: u64,
    pub(super) kind: HotKind,
    /// Used since the clock's hand came by.
    pub(super) recent: bool,
    full: bool,
    pending: u32,
    pub(super) key: Box<[u8]>,
    /// Sorted by lane; a series has one, for its shard belongs to one lane.
    parts: SmallVec<[Part; 1]>,
    load: Option<Box<Load>>,
}

impl Entry {
    pub(super) fn new(hash: u64, kind: HotKind, key: &[u8]) -> Self {
        let key = key.into();
        Self { hash, kind, recent: true, full: false, pending: 0, key, parts: SmallVec::new(), load: None }
    }

    /// Approximate bytes, with what the allocator and the table's index add.
    pub(super) fn cost(&self) -> usize {
        const FIXED: usize = size_of::<Entry>() + 32;
        // A spilled vector holds up to twice what is in it.
        let spilled = |len: usize, size: usize| if len > 1 { len * size * 2 } else { 0 };
        let load = self.load.as_ref().map_or(0, |load| size_of::<Load>() + 16 + load.waits.len() * 16);
        FIXED
            + self.key.len()
            + spilled(self.parts.len(), size_of::<Part>())
            + spilled(self.pending as usize, size_of::<(u64, Sum)>())
            + load
    }

    fn part(&mut self, lane: Number) -> &mut Part {
        let at = match self.parts.binary_search_by_key(&lane, |part| part.lane) {
            Ok(at) => at,
            Err(at) => {
                let part = Part { lane, covered: 0, left_out: 0, base: Sum::default(), pending: SmallVec::new() };
                self.parts.insert(at, part);
                at
            }
        };
        &mut self.parts[at]
    }

    /// Adds the delta of the pack at `seq`, once, unless the base covers it.
    pub(super) fn add(&mut self, lane: Number, seq: u64, amount: i128, max_pending: usize) {
        self.recent = true;
        let room = (self.pending as usize) < max_pending;
        let part = self.part(lane);
        if seq < part.covered {
            return;
        }
        // Nearly always the newest: acknowledgements of a lane come about in order.
        let at = match part.pending.last() {
            Some((last, _)) if *last >= seq => match part.pending.binary_search_by_key(&seq, |(seq, _)| *seq) {
                Ok(_) => return,
                Err(at) => at,
            },
            _ => part.pending.len(),
        };
        if room {
            if part.pending.len() == 1 && !part.pending.spilled() {
                part.pending.grow(SPILLED);
            }
            part.pending.insert(at, (seq, amount.into()));
            self.pending += 1;
        } else {
            part.left_out = part.left_out.max(seq + 1);
        }
    }

    /// Sets the base of a lane as of everything below `end`.
    pub(super) fn publish(&mut self, lane: Number, end: u64, total: i128, lanes: &Lanes) -> Settled {
        // What says of itself that it may miss something is not wrong when it does.
        let claimed = self.full && !self.waits_for(lane, lanes);
        let part = self.part(lane);
        let drifted = claimed && part.left_out <= part.covered && part.below(end) != total;
        match part.raise(end, total) {
            None => Settled::Covered,
            Some(dropped) => {
                self.pending -= dropped as u32;
                Settled::Raised { drifted }
            }
        }
    }

    fn waits_for(&self, lane: Number, lanes: &Lanes) -> bool {
        let waits = self.load.as_ref().map_or(&[][..], |load| &load.waits);
        waits.iter().any(|(waiting, end)| *waiting == lane && !lanes.reached(*waiting, *end))
    }

    /// The value, or a miss.
    pub(super) fn view(&mut self, lanes: &Lanes) -> View {
        self.recent = true;
        if !self.full {
            return View::Miss;
        }
        self.forget_reached(lanes);
        let waiting = self.load.as_ref().is_some_and(|load| !load.waits.is_empty());
        let stale = waiting || self.parts.iter().any(|part| part.left_out > part.covered);
        let total = self.parts.iter().fold(0_i128, |sum, part| sum.wrapping_add(part.below(u64::MAX)));
        View::Full { total, stale }
    }

    fn forget_reached(&mut self, lanes: &Lanes) {
        if let Some(load) = &mut self.load {
            load.waits.retain(|(lane, end)| !lanes.reached(*lane, *end));
            if load.waits.is_empty() && load.token == 0 {
                self.load = None;
            }
        }
    }

    /// The lane's base and the seq that it is as of.
    pub(super) fn base(&self, lane: Number) -> Option<(i128, Seq)> {
        let part = self.parts.iter().find(|part| part.lane == lane)?;
        Some((part.base.get(), Seq(part.covered.checked_sub(1)?)))
    }

    /// A load begins: the newest one counts.
    pub(super) fn begin_load(&mut self, token: u64) {
        self.recent = true;
        self.load.get_or_insert_default().token = token;
    }

    /// Ends a load: answers whether it counted.
    pub(super) fn finish_load(
        &mut self,
        token: u64,
        bases: &[(Number, u64, i128)],
        waits: Vec<(Number, u64)>,
        lanes: &Lanes,
    ) -> bool {
        match &mut self.load {
            Some(load) if load.token == token => {
                load.token = 0;
                load.waits = waits;
            }
            _ => return false,
        }
        for (lane, covered, total) in bases {
            let dropped = self.part(*lane).raise(*covered, *total);
            self.pending -= dropped.unwrap_or(0) as u32;
        }
        self.full = true;
        self.forget_reached(lanes);
        true
    }
}
