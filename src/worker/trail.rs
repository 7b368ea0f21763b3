//! The trailing checkpoint: which mark may be written, and when (law 5).
//!
//! A mark is what the lane was at a seq; it is handed in once a quorum of the store has accepted everything up to that
//! seq, and becomes the checkpoint `delay` later, so that a store that loses its last seconds is repaired by replay. Pure:
//! time is an argument, in milliseconds of any steady clock.

use std::collections::VecDeque;

use crate::store::Checkpoint;

/// Of the marks within one such span of time the last is kept.
const SPACING_MS: i64 = 100;

/// Marks that wait to become the checkpoint.
#[derive(Debug)]
pub struct Trail {
    delay_ms: i64,
    /// Older marks, spaced.
    waiting: VecDeque<(i64, Checkpoint)>,
    /// The newest mark.
    newest: Option<(i64, Checkpoint)>,
}

impl Trail {
    /// A trail of this length.
    pub fn new(delay_ms: i64) -> Self {
        Self { delay_ms, waiting: VecDeque::new(), newest: None }
    }

    /// Everything up to this mark was stored at `now_ms`.
    pub fn stored(&mut self, now_ms: i64, mark: Checkpoint) {
        if let Some((at, previous)) = self.newest.replace((now_ms, mark)) {
            let bucket = |at: i64| at.div_euclid(SPACING_MS);
            if self.waiting.back().is_some_and(|(last, _)| bucket(*last) == bucket(at)) {
                self.waiting.pop_back();
            }
            self.waiting.push_back((at, previous));
        }
    }

    /// The highest mark whose time has come.
    pub fn due(&mut self, now_ms: i64) -> Option<Checkpoint> {
        let is_due = |at: i64| at.saturating_add(self.delay_ms) <= now_ms;
        let mut due = None;
        while self.waiting.front().is_some_and(|(at, _)| is_due(*at)) {
            due = self.waiting.pop_front();
        }
        if self.newest.as_ref().is_some_and(|(at, _)| is_due(*at)) {
            due = self.newest.take();
        }
        due.map(|(_, mark)| mark)
    }

    /// When the next mark is due, if any waits.
    pub fn next_due_ms(&self) -> Option<i64> {
        self.waiting.front().or(self.newest.as_ref()).map(|(at, _)| at.saturating_add(self.delay_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        item::{Lane, PackId, Seq, Stamp, TopicId},
        store::Counted,
    };
    use proptest::prelude::*;

    fn mark(seq: u64) -> Checkpoint {
        Checkpoint {
            lane: Lane { topic_id: TopicId([0; 16]), partition: 0 },
            seq: Seq(seq),
            leader_epoch: None,
            pack: PackId([0; 16]),
            stamp: Stamp(0),
            dedup_from: Seq(0),
            dedup_stamp: Stamp(0),
            unmet_base: None,
            counted: Counted::since(Seq(0)),
        }
    }

    proptest! {
        #[test]
        fn the_checkpoint_trails_by_the_delay_never_goes_back_and_reaches_the_last_mark(
            steps in proptest::collection::vec(0..300i64, 1..60), delay in 0..2_000i64,
        ) {
            let (mut trail, mut now, mut last) = (Trail::new(delay), 0, None);
            let mut stored_at = Vec::new();
            for (seq, step) in steps.iter().enumerate() {
                now += step;
                trail.stored(now, mark(seq as u64));
                stored_at.push(now);
                if let Some(due) = trail.due(now) {
                    prop_assert!(stored_at[due.seq.0 as usize] + delay <= now);
                    prop_assert!(last < Some(due.seq));
                    last = Some(due.seq);
                    // No mark is held back by more than the spacing.
                    let ready = stored_at.iter().filter(|at| **at + delay + SPACING_MS <= now).count() as u64;
                    prop_assert!(due.seq.0 + 1 >= ready);
                }
                prop_assert!(trail.waiting.len() as i64 <= delay / SPACING_MS + 2);
            }
            let end = trail.due(now + delay);
            prop_assert_eq!(end.map_or(last, |end| Some(end.seq)), Some(Seq(steps.len() as u64 - 1)));
            prop_assert_eq!(trail.next_due_ms(), None);
        }
    }
}
