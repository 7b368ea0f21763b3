//! What a fetching client has read and nobody has taken yet: a bounded queue per partition, and what its threads have to
//! do next.
//!
//! Pure bookkeeping under one lock, shared by the thread that polls, the thread that works, and the cursors. What is to be
//! done is kept as what is wanted, not as a queue of orders: it is bounded by the partitions, and the last wish counts.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::super::{Error, Record};
use crate::retry::Kind;

/// What the library keeps for a record beside its bytes, about: small records count for something too.
const RECORD_OVERHEAD: usize = 200;
/// Commits of so much time go together.
const COMMIT_EVERY: Duration = Duration::from_millis(200);

/// One open partition.
pub(super) struct Slot {
    /// Which cursor it belongs to.
    pub cursor: u64,
    /// The offset that comes next.
    pub next: u64,
    /// The leader epoch of the record before.
    pub epoch: Option<i32>,
    queue: VecDeque<Record>,
    bytes: usize,
    paused: bool,
    /// Something odd has been met: the cursor has to find out where it stands before it goes on.
    pub suspect: bool,
    /// What the cursor is to be told.
    pub failed: Option<Error>,
    /// Told when there is something new.
    pub news: Arc<Notify>,
}

/// What a message meant for its slot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is in the queue, or it was not wanted.
    Fine,
    /// It is in the queue, which is full: no more of this partition for now.
    Full,
}

/// What is to be done at the library, all at once.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Whether the group is to be told that what it revoked has stopped.
    pub answer: bool,
    /// Partitions to stop fetching.
    pub stop: BTreeSet<u32>,
    /// Partitions to fetch from an offset on, with the leader epoch before it.
    pub start: BTreeMap<u32, (u64, Option<i32>)>,
    /// Partitions that have room again.
    pub resume: BTreeSet<u32>,
    /// Offsets to commit.
    pub commits: BTreeMap<u32, u64>,
    /// Nothing any more: end.
    pub close: bool,
}

#[derive(Default)]
struct State {
    slots: BTreeMap<u32, Slot>,
    work: Work,
    /// Commits are sent together, not before this.
    commit_after: Option<Instant>,
    committed: Option<Instant>,
    /// The group waits for an answer: nothing may be unassigned before that.
    owing: bool,
    /// Why nothing can be fetched any more.
    broken: Option<(Kind, String)>,
    cursors: u64,
}

/// The slots of one client.
pub(super) struct Slots {
    state: Mutex<State>,
    work: Condvar,
    /// Told when nothing can be fetched any more.
    pub broken: Notify,
    /// A partition is paused when this much waits, and resumed when the cursor has taken it.
    full_bytes: usize,
}

impl Slots {
    pub(super) fn new(full_bytes: usize) -> Self {
        Self { state: Mutex::default(), work: Condvar::new(), broken: Notify::new(), full_bytes: full_bytes.max(1) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a partition for a new cursor, at `next`; an older cursor of it is told so. Answers the cursor's number.
    pub(super) fn open(&self, partition: u32, next: u64, epoch: Option<i32>) -> (u64, Arc<Notify>) {
        let mut state = self.lock();
        state.cursors += 1;
        let (cursor, news) = (state.cursors, Arc::new(Notify::new()));
        let slot = Slot {
            cursor,
            next,
            epoch,
            queue: VecDeque::new(),
            bytes: 0,
            paused: false,
            suspect: false,
            failed: None,
            news: news.clone(),
        };
        if let Some(old) = state.slots.insert(partition, slot) {
            old.news.notify_one();
        }
        state.work.stop.remove(&partition);
        state.work.start.insert(partition, (next, epoch));
        self.work.notify_one();
        (cursor, news)
    }

    /// Fetches on from `next`, after the cursor has found out where it stands.
    pub(super) fn reopen(&self, partition: u32, cursor: u64, next: u64, epoch: Option<i32>) {
        let mut state = self.lock();
        let Some(slot) = state.slots.get_mut(&partition).filter(|slot| slot.cursor == cursor) else { return };
        (slot.next, slot.epoch) = (next, epoch);
        (slot.queue, slot.bytes) = (VecDeque::new(), 0);
        (slot.suspect, slot.paused) = (false, false);
        state.work.resume.remove(&partition);
        state.work.start.insert(partition, (next, epoch));
        self.work.notify_one();
    }

    /// The cursor is gone.
    pub(super) fn close(&self, partition: u32, cursor: u64) {
        let mut state = self.lock();
        if state.slots.get(&partition).is_some_and(|slot| slot.cursor == cursor) {
            self.drop_slot(&mut state, partition);
        }
    }

    /// These are not ours any more: their cursors end with an error that may pass, for whoever runs them is stopping. What
    /// they have to commit is committed before they go.
    pub(super) fn revoke(&self, partitions: &[u32]) {
        let mut state = self.lock();
        for partition in partitions {
            self.drop_slot(&mut state, *partition);
        }
        if !state.work.commits.is_empty() {
            state.commit_after = Some(Instant::now());
        }
    }

    /// These have been somebody else's for a while: nothing of theirs is ours to commit.
    pub(super) fn lose(&self, partitions: &[u32]) {
        let mut state = self.lock();
        for partition in partitions {
            self.drop_slot(&mut state, *partition);
            state.work.commits.remove(partition);
        }
    }

    /// Takes what is still to be committed at the end.
    pub(super) fn last_commits(&self) -> BTreeMap<u32, u64> {
        std::mem::take(&mut self.lock().work.commits)
    }

    fn drop_slot(&self, state: &mut State, partition: u32) {
        if let Some(slot) = state.slots.remove(&partition) {
            slot.news.notify_one();
        }
        state.work.start.remove(&partition);
        state.work.resume.remove(&partition);
        state.work.stop.insert(partition);
        self.work.notify_one();
    }

    /// A record has come.
    pub(super) fn push(&self, partition: u32, record: Record) -> Taken {
        let mut state = self.lock();
        let Some(slot) = state.slots.get_mut(&partition).filter(|slot| !slot.suspect) else { return Taken::Fine };
        // What was under way while the partition was opened anew.
        if record.seq.0 < slot.next {
            return Taken::Fine;
        }
        // Epochs of one log never fall.
        let fell = slot.epoch.zip(record.leader_epoch).is_some_and(|(before, now)| now < before);
        if record.seq.0 > slot.next || fell {
            slot.suspect = true;
            slot.news.notify_one();
            return Taken::Fine;
        }
        slot.next += 1;
        slot.epoch = record.leader_epoch;
        slot.bytes += record.payload.len() + RECORD_OVERHEAD;
        slot.queue.push_back(record);
        slot.news.notify_one();
        if slot.bytes < self.full_bytes || slot.paused {
            return Taken::Fine;
        }
        slot.paused = true;
        Taken::Full
    }

    /// Whether the partition is to be paused, still.
    pub(super) fn is_full(&self, partition: u32) -> bool {
        self.lock().slots.get(&partition).is_some_and(|slot| slot.paused)
    }

    /// Something was met that may concern any of the partitions.
    pub(super) fn suspect_all(&self) {
        for slot in self.lock().slots.values_mut() {
            slot.suspect = true;
            slot.news.notify_one();
        }
    }

    /// Nothing can be fetched any more.
    pub(super) fn break_all(&self, kind: Kind, why: &str) {
        let mut state = self.lock();
        state.broken = Some((kind, why.to_owned()));
        state.slots.values().for_each(|slot| slot.news.notify_one());
        self.broken.notify_one();
    }

    /// One partition cannot be fetched.
    pub(super) fn fail(&self, partition: u32, error: Error) {
        if let Some(slot) = self.lock().slots.get_mut(&partition) {
            slot.failed = Some(error);
            slot.news.notify_one();
        }
    }

    /// What has come for a cursor: records, `None` when there is nothing yet, or a slot to look into.
    pub(super) fn take(&self, partition: u32, cursor: u64) -> Result<Found, Error> {
        let mut state = self.lock();
        if let Some((kind, why)) = &state.broken {
            return Err(Error::new(*kind, why));
        }
        let state = &mut *state;
        let slot = state.slots.get_mut(&partition).filter(|slot| slot.cursor == cursor).ok_or_else(|| {
            Error::new(Kind::Transient, format!("partition {partition} is not read by this cursor any more"))
        })?;
        if let Some(failed) = slot.failed.take() {
            // It was not started: try again when the cursor comes back.
            state.work.start.insert(partition, (slot.next, slot.epoch));
            return Err(failed);
        }
        if slot.queue.is_empty() {
            return Ok(if slot.suspect { Found::Suspect { next: slot.next } } else { Found::Nothing });
        }
        slot.bytes = 0;
        if std::mem::take(&mut slot.paused) {
            state.work.resume.insert(partition);
            self.work.notify_one();
        }
        Ok(Found::Records(slot.queue.drain(..).collect()))
    }

    /// Commits an offset, soon, with others.
    pub(super) fn commit(&self, partition: u32, offset: u64) {
        let mut state = self.lock();
        if !state.slots.contains_key(&partition) {
            return;
        }
        state.work.commits.insert(partition, offset);
        if state.commit_after.is_none() {
            let now = Instant::now();
            state.commit_after = Some(state.committed.map_or(now, |last| now.max(last + COMMIT_EVERY)));
        }
        self.work.notify_one();
    }

    /// A commit has failed: again later, unless there is a newer one or the partition has gone.
    pub(super) fn commit_again(&self, partition: u32, offset: u64, after: Duration) {
        let mut state = self.lock();
        if !state.slots.contains_key(&partition) {
            return;
        }
        state.work.commits.entry(partition).or_insert(offset);
        state.commit_after = Some(Instant::now() + after);
        self.work.notify_one();
    }

    /// The group waits for an answer.
    pub(super) fn owe(&self) {
        self.lock().owing = true;
    }

    /// What the group has revoked has stopped.
    pub(super) fn answer(&self) {
        let mut state = self.lock();
        state.owing = false;
        state.work.answer = true;
        self.work.notify_one();
    }

    /// Ends the client's threads.
    pub(super) fn shut(&self) {
        self.lock().work.close = true;
        self.work.notify_all();
    }

    pub(super) fn is_shut(&self) -> bool {
        self.lock().work.close
    }

    /// Waits for something to do.
    pub(super) fn next_work(&self) -> Work {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let wait = state.commit_after.map(|after| after.saturating_duration_since(now));
            let due = wait.is_some_and(|wait| wait.is_zero());
            let (work, free) = (&state.work, !state.owing);
            let moves = free && !(work.stop.is_empty() && work.start.is_empty());
            if work.close || due || work.answer || moves || !work.resume.is_empty() {
                break;
            }
            state = match wait {
                Some(wait) => {
                    let waited = self.work.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner);
                    waited.0
                }
                None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        let due = state.commit_after.is_some_and(|after| after <= Instant::now());
        let commits = if due { std::mem::take(&mut state.work.commits) } else { BTreeMap::new() };
        if due {
            state.commit_after = None;
            state.committed = Some(Instant::now());
        }
        let free = !state.owing;
        let work = &mut state.work;
        Work {
            answer: std::mem::take(&mut work.answer),
            stop: if free { std::mem::take(&mut work.stop) } else { BTreeSet::new() },
            start: if free { std::mem::take(&mut work.start) } else { BTreeMap::new() },
            resume: std::mem::take(&mut work.resume),
            commits,
            close: work.close,
        }
    }
}

/// What a cursor finds.
pub(super) enum Found {
    /// Records in order.
    Records(Vec<Record>),
    /// Nothing yet.
    Nothing,
    /// It has to find out where it stands.
    Suspect {
        /// The offset that comes next.
        next: u64,
    },
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::item::Seq;

    fn record(seq: u64, epoch: i32, bytes: usize) -> Record {
        Record {
            seq: Seq(seq),
            append_ms: 0,
            leader_epoch: Some(epoch),
            format: 1,
            payload: Bytes::from(vec![0; bytes]),
            damage: None,
        }
    }

    fn seqs(found: Result<Found, Error>) -> Vec<u64> {
        match found {
            Ok(Found::Records(records)) => records.iter().map(|record| record.seq.0).collect(),
            Ok(Found::Nothing) => vec![],
            _ => panic!("neither records nor nothing"),
        }
    }

    #[test]
    fn a_full_slot_is_paused_once_and_resumed_when_it_is_taken() {
        let slots = Slots::new(1_000);
        let (cursor, _) = slots.open(3, 7, None);
        assert_eq!(slots.push(3, record(7, 0, 700)), Taken::Fine);
        assert_eq!(slots.push(3, record(8, 0, 700)), Taken::Full);
        assert_eq!(slots.push(3, record(9, 0, 700)), Taken::Fine, "it is paused already");
        assert!(slots.is_full(3));
        assert_eq!(seqs(slots.take(3, cursor)), [7, 8, 9]);
        assert!(!slots.is_full(3));
        assert!(slots.next_work().resume.contains(&3));
        assert!(seqs(slots.take(3, cursor)).is_empty());
    }

    #[test]
    fn what_comes_twice_is_left_out_and_a_gap_or_a_fallen_epoch_is_suspect() {
        for odd in [record(9, 4, 1), record(8, 2, 1)] {
            let slots = Slots::new(1_000);
            let (cursor, _) = slots.open(0, 7, Some(3));
            slots.push(0, record(6, 3, 1));
            slots.push(0, record(7, 3, 1));
            slots.push(0, record(7, 3, 1));
            slots.push(0, odd);
            slots.push(0, record(8, 3, 1));
            assert_eq!(seqs(slots.take(0, cursor)), [7], "what was in order comes first");
            assert!(matches!(slots.take(0, cursor), Ok(Found::Suspect { next: 8 })));
            slots.reopen(0, cursor, 8, Some(3));
            slots.push(0, record(8, 3, 1));
            assert_eq!(seqs(slots.take(0, cursor)), [8]);
        }
    }

    #[test]
    fn nothing_is_moved_while_the_group_waits_for_an_answer() {
        let slots = Slots::new(1_000);
        let (cursor, _) = slots.open(0, 0, None);
        slots.open(1, 0, None);
        assert_eq!(slots.next_work().start.len(), 2);
        slots.owe();
        slots.close(0, cursor);
        slots.commit(1, 5);
        let work = slots.next_work();
        assert_eq!((work.commits.len(), work.stop.len(), work.answer), (1, 0, false));
        slots.revoke(&[0, 1]);
        slots.answer();
        let work = slots.next_work();
        assert!(work.answer && work.stop == BTreeSet::from([0, 1]), "all at once: {work:?}");
    }

    #[test]
    fn a_partition_that_is_opened_again_belongs_to_the_new_cursor_alone() {
        let slots = Slots::new(1_000);
        let (old, _) = slots.open(0, 0, None);
        let (new, _) = slots.open(0, 5, None);
        assert!(slots.take(0, old).is_err());
        slots.close(0, old);
        slots.push(0, record(5, 0, 1));
        assert_eq!(seqs(slots.take(0, new)), [5]);
        let work = slots.next_work();
        assert_eq!((work.start.get(&0), work.stop.len()), (Some(&(5, None)), 0));
    }

    #[test]
    fn commits_go_together_and_a_failed_one_does_not_undo_a_newer_one() {
        let slots = Slots::new(1_000);
        slots.open(0, 0, None);
        slots.next_work();
        slots.commit(0, 1);
        slots.commit(0, 2);
        slots.commit(9, 1);
        assert_eq!(slots.next_work().commits, BTreeMap::from([(0, 2)]), "nothing for what is not open");
        slots.commit(0, 3);
        slots.commit_again(0, 2, Duration::ZERO);
        assert_eq!(slots.next_work().commits, BTreeMap::from([(0, 3)]));
    }
}
