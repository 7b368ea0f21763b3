//! One lane, recounted: its log through the lane's own code, with no store behind it. Pure.
//!
//! [`Recount::add`] takes records in order: first those that only fill the dedup window, then those that count. Every row
//! that a pack changes is told to the [`Book`]; control totals are kept at the seqs that were asked for.

use std::collections::BTreeMap;

use super::{
    Error,
    book::Book,
    naive::Naive,
    report::{Control, Tally},
};
use crate::{
    item::{Coordinates, Lane, Seq, Stamp},
    log::Record,
    store::{Checkpoint, Counted, EpochRow, Replayed, ShardKey},
    worker::{
        halt::Halt,
        machine::{Machine, Read},
        poison::Refusal,
    },
};

/// The window fills, and nothing is counted yet.
struct Fills {
    /// The stamp of the first record.
    first: Option<Stamp>,
    window_us: i64,
    max_ids: u64,
}

/// A lane that counts and stores nothing.
pub(super) struct Recount {
    lane: Lane,
    machine: Machine,
    naive: Option<Naive>,
    /// From here on items count.
    from: Option<Seq>,
    fills: Option<Fills>,
    not_before: Seq,
    begin: Seq,
    /// Control totals at these seqs, once the log has passed them.
    marks: BTreeMap<Seq, Option<Counted>>,
}

impl Recount {
    /// A recount that reads from `begin` on. Items count from `not_before` on at the earliest: when `begin` is the lane's
    /// first record at once, otherwise when the window is full, so that no duplicate is taken for new.
    pub(super) fn new(lane: Lane, begin: Seq, not_before: Seq, epochs: &[EpochRow], naive: bool) -> Self {
        let machine = Machine::new(lane, begin, Stamp(0), epochs.to_vec(), usize::MAX);
        let of_topic: Vec<_> = epochs.iter().filter(|epoch| epoch.topic_id == lane.topic_id).cloned().collect();
        let window = of_topic.first().map_or((0, 1), |epoch| (epoch.dedup_window_us, epoch.dedup_max_ids));
        let whole = begin == Seq(0) && not_before == Seq(0);
        let mut naive = naive.then(|| Naive::new(&of_topic, Counted::since(begin)));
        if let Some(naive) = naive.as_mut().filter(|_| whole) {
            naive.begin();
        }
        Self {
            lane,
            machine,
            naive,
            from: whole.then_some(Seq(0)),
            fills: (!whole).then_some(Fills { first: None, window_us: window.0, max_ids: window.1 }),
            not_before,
            begin,
            marks: BTreeMap::new(),
        }
    }

    /// Keeps the control totals at this seq.
    pub(super) fn mark(&mut self, seq: Seq) {
        if seq >= self.machine.next() {
            self.marks.entry(seq).or_insert(None);
        }
    }

    /// The next seq that it takes.
    pub(super) fn next(&self) -> Seq {
        self.machine.next()
    }

    /// The first seq whose items counted; `None` while the window fills.
    pub(super) fn from(&self) -> Option<Seq> {
        self.from
    }

    /// What was counted.
    pub(super) fn counted(&self) -> Counted {
        *self.machine.counted()
    }

    /// How many rows it keeps.
    pub(super) fn rows(&self) -> usize {
        self.machine.fold().len()
    }

    /// Takes what the store knows: records that are dead letters for good.
    pub(super) fn know_letters(&mut self, letters: Vec<Seq>) {
        self.machine.know_letters(letters);
    }

    /// Takes which pack has applied the replay of a dead letter. One that this recount meets itself it knows by then.
    pub(super) fn install_replay(&mut self, at: Coordinates, by: Option<Replayed>) {
        let earlier = by.filter(|by| by.topic_id != self.lane.topic_id || by.seq < self.begin);
        if let Some(naive) = self.naive.as_mut().filter(|_| earlier.is_some()) {
            naive.know_replayed(at);
        }
        self.machine.install_replay(at, earlier);
    }

    /// Takes the next record. It is a dead letter where it is one for its lane, whose code judges it.
    ///
    /// Answers the dead letter that it replays, when what has become of that must be installed first; then it is to be given again.
    pub(super) fn add(&mut self, record: &Record, book: &mut Book) -> Result<Option<Coordinates>, Error> {
        let partition = self.lane.partition;
        let halted = |halt: Halt| Error::Lane { partition, reason: halt.to_string() };
        let read = match self.machine.judge_whole(record) {
            Ok(read) => Some(read),
            Err(Refusal::Poison(_)) => None,
            Err(Refusal::Halt(halt)) => return Err(halted(halt)),
        };
        if let Some(at) = read.as_ref().and_then(|read| self.machine.lacks_replay(read)) {
            return Ok(Some(at));
        }
        let stamp = match &read {
            Some(read) => self.machine.stamp().after(record.append_ms, read.receive_ms()),
            None => self.machine.letter_stamp(),
        };
        self.begin_to_count(record.seq, stamp);
        match (&read, &mut self.fills) {
            (None, _) => self.machine.bury(record).map_err(halted)?,
            (Some(read), Some(_)) => self.machine.rebuild(read).map_err(halted)?,
            (Some(read), None) => self.apply(read, book)?,
        }
        if let Some(Fills { first, .. }) = &mut self.fills {
            first.get_or_insert(self.machine.stamp());
        }
        if let Some(naive) = &mut self.naive {
            naive.add(record, read.is_none());
        }
        if let Some(kept) = self.marks.get_mut(&record.seq) {
            *kept = self.from.is_some().then_some(*self.machine.counted());
        }
        Ok(None)
    }

    /// Items count from `seq` on, whose stamp this is, when everything that the window could hold by then has been noted: what
    /// came before the first record that was read is past its time, or its number.
    fn begin_to_count(&mut self, seq: Seq, stamp: Stamp) {
        let Some(Fills { first, window_us, max_ids }) = &self.fills else { return };
        let is_past = first.is_some_and(|first| stamp.0.saturating_sub(first.0) >= *window_us);
        let is_full = self.begin == Seq(0) || is_past || self.machine.window().len() as u64 >= *max_ids;
        if is_full && seq >= self.not_before {
            self.fills = None;
            self.from = Some(seq);
            if let Some(naive) = &mut self.naive {
                naive.begin();
            }
            // A checkpoint right before the first item that counts stands at nothing counted.
            if let Some(kept) = seq.0.checked_sub(1).and_then(|before| self.marks.get_mut(&Seq(before))) {
                *kept = Some(*self.machine.counted());
            }
        }
    }

    fn apply(&mut self, read: &Read, book: &mut Book) -> Result<(), Error> {
        let partition = self.lane.partition;
        let halted = |halt: Halt| Error::Lane { partition, reason: halt.to_string() };
        loop {
            let missing = self.machine.prepare(read).map_err(|refusal| match refusal {
                Refusal::Halt(halt) => halted(halt),
                // Its placement has been judged.
                Refusal::Poison(poison) => Error::Lane { partition, reason: poison.reason },
            })?;
            if missing.is_empty() {
                break;
            }
            // There is no store behind it: no row has a base.
            self.machine.install(|fold, _| {
                for shard in missing.shards {
                    fold.install(shard, Some(Vec::new()), |_, _| {});
                }
                for (shard, names) in missing.rows {
                    fold.install_named(shard, &names, vec![None; names.len()], |_, _| {});
                }
            });
        }
        self.machine.apply(read).map_err(halted)?;
        self.machine.take_replayed();
        let claim = read.corrects().map(|as_of| self.from.is_some_and(|from| as_of >= from));
        for (key, rows) in self.machine.take().0.shards {
            rows.iter().for_each(|row| book.touch(&key, row, claim));
        }
        Ok(())
    }

    /// The control totals of two checkpoints against the log between them; of one, against the log from the lane's beginning.
    /// `None`: the log between them was not counted.
    pub(super) fn control(&self, earlier: Option<&Checkpoint>, later: &Checkpoint) -> Option<Control> {
        let at = |seq: Seq| self.marks.get(&seq).copied().flatten();
        let to = at(later.seq)?;
        let (after, claimed, counted) = match earlier {
            Some(earlier) if earlier.seq < later.seq => {
                let since = earlier.seq;
                let counted = to.minus(&at(since)?, since)?;
                (Some(since), later.counted.minus(&earlier.counted, since)?, counted)
            }
            _ => match later.counted.since.0.checked_sub(1) {
                None if self.from == Some(Seq(0)) && self.begin == Seq(0) => (None, later.counted, to),
                None => return None,
                Some(before) => (Some(Seq(before)), later.counted, to.minus(&at(Seq(before))?, Seq(before))?),
            },
        };
        let (checkpoints, log) = (Tally::from(claimed), Tally::from(counted));
        Some(Control { after: after.map(|seq| seq.0), to: later.seq.0, checkpoints, log })
    }

    /// Whether the naive recount came to the same, in every row and in the control totals.
    pub(super) fn naive_agrees(&self, book: &Book, epochs: &[EpochRow]) -> Option<bool> {
        let naive = self.naive.as_ref()?;
        if naive.counted() != self.counted() {
            return Some(false);
        }
        let mut sums: std::collections::HashMap<(ShardKey, crate::store::RowName), i128> = Default::default();
        for ((partitions, shards, key), sum) in naive.sums() {
            let epoch = epochs.iter().find(|epoch| epoch.partitions == *partitions && epoch.shards == *shards)?;
            for (key, name) in super::rows_of(key, epoch, self.lane.partition)? {
                *sums.entry((key, name)).or_default() += sum;
            }
        }
        Some(
            book.rows()
                .all(|(key, name, row)| row.counted() == sums.get(&(key.clone(), name.clone())).copied().unwrap_or(0))
                && sums.iter().all(|((key, name), sum)| book.counted(key, name).unwrap_or(0) == *sum),
        )
    }
}
