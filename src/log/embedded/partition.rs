//! What is published of one partition: its bounds, its newest records, and how far its lane has come.
//!
//! The committer is the only one who moves `end`, after the sync that covers it; everybody reads below it (L4). The
//! newest records are kept in memory, so that a lane that keeps up never touches the disk; they are the very buffers
//! that were appended, and bounded by bytes.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::watch;

use crate::{
    item::Seq,
    log::{Bounds, Record},
};

/// Nothing is removed of a partition whose lane has not reported.
const NEVER_REPORTED: u64 = 0;

/// The published state of a partition.
pub(super) struct Partition {
    start: AtomicU64,
    end: watch::Sender<u64>,
    needed: AtomicU64,
    recent: Mutex<Recent>,
}

#[derive(Default)]
struct Recent {
    records: VecDeque<Record>,
    bytes: usize,
    limit: usize,
}

impl Partition {
    /// A partition with these bounds that keeps its newest `recent_bytes` in memory.
    pub(super) fn new(bounds: Bounds, recent_bytes: usize) -> Self {
        Self {
            start: AtomicU64::new(bounds.start.0),
            end: watch::Sender::new(bounds.end.0),
            needed: AtomicU64::new(NEVER_REPORTED),
            recent: Mutex::new(Recent { limit: recent_bytes, ..Recent::default() }),
        }
    }

    /// What can be read now.
    pub(super) fn bounds(&self) -> Bounds {
        Bounds { start: Seq(self.start.load(Ordering::Acquire)), end: Seq(*self.end.borrow()) }
    }

    /// Hears of every move of the end.
    pub(super) fn watch_end(&self) -> watch::Receiver<u64> {
        self.end.subscribe()
    }

    /// Wakes every cursor, without a change.
    pub(super) fn wake(&self) {
        self.end.send_modify(|_| {});
    }

    /// Moves the start; it never goes back.
    pub(super) fn set_start(&self, start: u64) {
        self.start.fetch_max(start, Ordering::AcqRel);
    }

    /// Makes durable records readable; they continue the partition.
    pub(super) fn publish(&self, records: impl Iterator<Item = Record>) {
        let mut end = None;
        {
            let mut recent = self.recent();
            for record in records {
                end = Some(record.seq.0 + 1);
                recent.bytes += weight(&record);
                recent.records.push_back(record);
            }
            while recent.bytes > recent.limit
                && let Some(oldest) = recent.records.pop_front()
            {
                recent.bytes -= weight(&oldest);
            }
        }
        if let Some(end) = end {
            self.end.send_replace(end);
        }
    }

    /// Sets the end to what is on disk after the storage was reopened, where it may be past what was published.
    pub(super) fn republish(&self, end: u64) {
        if end == *self.end.borrow() {
            return;
        }
        let mut recent = self.recent();
        recent.records.clear();
        recent.bytes = 0;
        drop(recent);
        self.end.send_replace(end);
    }

    /// Records from `from` on and before `end`, if memory has them: at least one, and about `max_bytes` at most.
    pub(super) fn recent_from(&self, from: u64, end: u64, max_bytes: usize) -> Option<Vec<Record>> {
        let recent = self.recent();
        let first = recent.records.front()?.seq.0;
        let skip = usize::try_from(from.checked_sub(first)?).ok()?;
        let mut bytes = 0;
        let records: Vec<_> = recent
            .records
            .iter()
            .skip(skip)
            .take_while(|record| record.seq.0 < end)
            .take_while(|record| {
                let fits = bytes < max_bytes;
                bytes += record.payload.len();
                fits
            })
            .cloned()
            .collect();
        (!records.is_empty()).then_some(records)
    }

    /// Notes that the lane needs nothing below `needed`.
    pub(super) fn set_needed(&self, needed: Seq) {
        self.needed.store(needed.0, Ordering::Release);
    }

    /// The first record that has to stay: what the lane needs, and in any case the last one, so that the partition's
    /// end outlives a restart.
    pub(super) fn floor(&self) -> u64 {
        self.needed.load(Ordering::Acquire).min(self.end.borrow().saturating_sub(1))
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn weight(record: &Record) -> usize {
    record.payload.len() + size_of::<Record>()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(seq: u64, bytes: usize) -> Record {
        let payload = Bytes::from(vec![7; bytes]);
        Record { seq: Seq(seq), append_ms: 0, leader_epoch: None, format: 1, payload, damage: None }
    }

    fn seqs(records: &[Record]) -> Vec<u64> {
        records.iter().map(|record| record.seq.0).collect()
    }

    #[test]
    fn memory_keeps_the_newest_records_within_its_bytes() {
        let limit = 4 * (1000 + size_of::<Record>());
        let partition = Partition::new(Bounds { start: Seq(0), end: Seq(10) }, limit);
        partition.publish((10..20).map(|seq| record(seq, 1000)));
        assert_eq!(partition.bounds(), Bounds { start: Seq(0), end: Seq(20) });
        assert!(partition.recent_from(15, 20, usize::MAX).is_none());
        assert_eq!(seqs(&partition.recent_from(16, 20, usize::MAX).unwrap()), [16, 17, 18, 19]);
        assert_eq!(seqs(&partition.recent_from(17, 19, usize::MAX).unwrap()), [17, 18]);
        assert_eq!(seqs(&partition.recent_from(16, 20, 1001).unwrap()), [16, 17]);
        assert!(partition.recent_from(20, 20, usize::MAX).is_none());
    }

    #[test]
    fn a_record_larger_than_memory_is_left_to_the_disk() {
        let partition = Partition::new(Bounds { start: Seq(0), end: Seq(0) }, 100);
        partition.publish([record(0, 1000)].into_iter());
        assert!(partition.recent_from(0, 1, usize::MAX).is_none());
        assert_eq!(partition.bounds().end, Seq(1));
    }

    #[test]
    fn what_the_disk_has_beyond_the_published_end_is_read_from_disk() {
        let partition = Partition::new(Bounds { start: Seq(0), end: Seq(0) }, 10_000);
        partition.publish((0..3).map(|seq| record(seq, 10)));
        partition.republish(3);
        assert!(partition.recent_from(2, 3, usize::MAX).is_some());
        partition.republish(5);
        assert!(partition.recent_from(2, 5, usize::MAX).is_none());
        assert_eq!(partition.bounds().end, Seq(5));
    }

    #[test]
    fn the_last_record_stays_whatever_the_lane_needs() {
        let partition = Partition::new(Bounds { start: Seq(0), end: Seq(5) }, 0);
        assert_eq!(partition.floor(), 0);
        partition.set_needed(Seq(3));
        assert_eq!(partition.floor(), 3);
        partition.set_needed(Seq(99));
        assert_eq!(partition.floor(), 4);
    }
}
