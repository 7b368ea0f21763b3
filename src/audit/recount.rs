//! One lane, recounted: its log through the lane's own code, with no store behind it. Pure.
//!
//! [`Recount::add`] takes records in order: first those that only fill the dedup window, then those that count. Every row
//! that a pack changes is told to the [`Book`]; control totals are kept at the seqs that were asked for. Dead letters are passed
//! as the lane passes them, and what the store knows of replays from before the recount is told by whoever reads the log.

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
    store::{Checkpoint, Counted, EpochRow, EventRow, Replayed, ShardKey},
    worker::{
        accepted::Accepted,
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
    partition: u32,
    machine: Machine,
    naive: Option<Naive>,
    /// From here on items count.
    from: Option<Seq>,
    fills: Option<Fills>,
    not_before: Seq,
    begin: Seq,
    /// Events up to here are handed out.
    events_to: Option<Seq>,
    events: Vec<(Seq, EventRow)>,
    /// Control totals at these seqs, once the log has passed them.
    marks: BTreeMap<Seq, Option<Counted>>,
}

impl Recount {
    /// A recount that reads from `begin` on. Items count from `not_before` on at the earliest: when `begin` is the lane's
    /// first record at once, otherwise when the window is full, so that no duplicate is taken for new.
    /// `letters`: the records that the store knows as dead letters of the lane.
    pub(super) fn new(
        lane: Lane,
        begin: Seq,
        not_before: Seq,
        epochs: &[EpochRow],
        letters: &[Seq],
        accepted: &Accepted,
        naive: bool,
    ) -> Self {
        // Behind a gap stamps go on from the gap's own (`worker/accepted.rs`).
        let before = accepted.gaps().iter().filter(|gap| gap.to == begin).map(|gap| gap.last_stamp()).max();
        let before = before.unwrap_or(Stamp(0));
        let machine = Machine::new(lane, begin, before, epochs.to_vec(), usize::MAX);
        let mut machine = machine.with(accepted.clone());
        machine.know_letters(letters.iter().copied());
        let of_topic: Vec<_> = epochs.iter().filter(|epoch| epoch.topic_id == lane.topic_id).cloned().collect();
        let window = of_topic.first().map_or((0, 1), |epoch| (epoch.dedup_window_us, epoch.dedup_max_ids));
        let whole = begin == Seq(0) && not_before == Seq(0);
        let mut naive = naive.then(|| Naive::new(&of_topic, Counted::since(begin), before));
        if let Some(naive) = naive.as_mut().filter(|_| whole) {
            naive.begin();
        }
        Self {
            partition: lane.partition,
            machine,
            naive,
            from: whole.then_some(Seq(0)),
            fills: (!whole).then_some(Fills { first: None, window_us: window.0, max_ids: window.1 }),
            not_before,
            begin,
            events_to: None,
            events: Vec::new(),
            marks: BTreeMap::new(),
        }
    }

    /// Keeps the control totals at this seq.
    pub(super) fn mark(&mut self, seq: Seq) {
        if seq >= self.machine.next() {
            self.marks.entry(seq).or_insert(None);
        }
    }

    /// Keeps the events up to this seq, to be handed out.
    pub(super) fn keep_events_to(&mut self, seq: Option<Seq>) {
        self.events_to = seq;
    }

    /// The events of what was taken since it was asked last.
    pub(super) fn take_events(&mut self) -> Vec<(Seq, EventRow)> {
        std::mem::take(&mut self.events)
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

    /// Takes the next record. When it replays a dead letter, and it is not known what has become of that, it is not taken: this
    /// is to be told first ([`Recount::tell_replayed`]).
    pub(super) fn add(&mut self, record: &Record, book: &mut Book) -> Result<Option<Coordinates>, Error> {
        match self.machine.judge_whole(record) {
            Ok(read) => {
                self.begin_to_count(record.seq, self.machine.stamp().after(record.append_ms, read.receive_ms()));
                if let Some(at) = self.machine.lacks_replay(&read).filter(|_| self.fills.is_none()) {
                    return Ok(Some(at));
                }
                self.take(record, &read, book)?;
            }
            Err(Refusal::Poison(_)) => {
                let stamp = self.machine.letter_stamp(record.seq).map_err(|halt| halted(self.partition, &halt))?;
                self.begin_to_count(record.seq, stamp);
                self.machine.bury(record).map_err(|halt| halted(self.partition, &halt))?;
                if let Some(naive) = &mut self.naive {
                    naive.pass();
                }
            }
            Err(Refusal::Halt(halt)) => return Err(halted(self.partition, &halt)),
        }
        if let Some(kept) = self.marks.get_mut(&record.seq) {
            *kept = self.from.is_some().then_some(*self.machine.counted());
        }
        Ok(None)
    }

    fn take(&mut self, record: &Record, read: &Read, book: &mut Book) -> Result<(), Error> {
        match &mut self.fills {
            Some(Fills { first, .. }) => {
                self.machine.rebuild(read).map_err(|halt| halted(self.partition, &halt))?;
                first.get_or_insert(self.machine.stamp());
            }
            None => self.apply(read, book)?,
        }
        if let Some(naive) = &mut self.naive {
            naive.add(record);
        }
        Ok(())
    }

    /// Takes what the store knows of a dead letter's replay. Packs that are recounted speak for themselves.
    pub(super) fn tell_replayed(&mut self, lane: Lane, at: Coordinates, by: Option<Replayed>) {
        let is_counted = |by: &Replayed| by.topic_id == lane.topic_id && self.from.is_some_and(|from| by.seq >= from);
        let by = by.filter(|by| !is_counted(by));
        if let Some(naive) = self.naive.as_mut().filter(|_| by.is_some()) {
            naive.has_replayed(at);
        }
        self.machine.install_replay(at, by);
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
        loop {
            let missing = match self.machine.prepare(read) {
                Ok(missing) => missing,
                Err(Refusal::Halt(halt)) => return Err(halted(self.partition, &halt)),
                Err(Refusal::Poison(poison)) => {
                    let reason = format!("record {} is none of its: {}", read.seq, poison.reason);
                    return Err(Error::Lane { partition: self.partition, reason });
                }
            };
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
        self.machine.apply(read).map_err(|halt| halted(self.partition, &halt))?;
        // There are no bases that they could be held against.
        self.machine.forget_applied(self.machine.next());
        let claim = read.corrects().map(|as_of| self.from.is_some_and(|from| as_of >= from));
        let (taken, events) = self.machine.take();
        if self.events_to.is_some_and(|to| read.seq <= to) {
            self.events.extend(events.into_iter().map(|row| (read.seq, row)));
        }
        for (key, rows) in taken.shards {
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
            for (key, name) in super::rows_of(key, epoch, self.partition)? {
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

fn halted(partition: u32, halt: &Halt) -> Error {
    Error::Lane { partition, reason: halt.to_string() }
}
