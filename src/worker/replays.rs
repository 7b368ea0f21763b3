//! Replays: which packs have applied which dead letters, so that each is applied once, however often its replay is appended
//! and however late (law 6).
//!
//! An entry is loaded before a replay is applied, like a row's base (law 4); once applied it is owed to the store, with the
//! pack's own stamp, and written again whenever the pack is met again. Only a *later* pack for the same coordinates is
//! dropped: the one that applied them is applied again after a crash. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    item::{Coordinates, Seq, TopicId},
    store::Replayed,
};

/// The dead letters whose replays a lane has met since its checkpoint.
#[derive(Debug, Default)]
pub struct Replays {
    known: BTreeMap<Coordinates, Option<Replayed>>,
    owed: BTreeSet<Coordinates>,
}

impl Replays {
    /// Whether it must be read from the store what has become of this dead letter.
    pub fn lacks(&self, at: Coordinates) -> bool {
        !self.known.contains_key(&at)
    }

    /// Takes what was read. What the lane has done since is newer.
    pub fn install(&mut self, at: Coordinates, by: Option<Replayed>) {
        self.known.entry(at).or_insert(by);
    }

    /// Whether an earlier pack than the one at `seq` of this topic has applied it. One of another life of the topic is earlier.
    pub fn is_applied_before(&self, at: Coordinates, topic_id: TopicId, seq: Seq) -> bool {
        let by = self.known.get(&at).copied().flatten();
        by.is_some_and(|by| by.topic_id != topic_id || by.seq < seq)
    }

    /// This pack has applied it.
    pub fn apply(&mut self, at: Coordinates, by: Replayed) {
        self.known.insert(at, Some(by));
        self.owed.insert(at);
    }

    /// Hands out what is owed to the store.
    pub fn take(&mut self) -> Vec<(Coordinates, Replayed)> {
        let owed = std::mem::take(&mut self.owed).into_iter();
        owed.filter_map(|at| Some((at, self.known.get(&at).copied().flatten()?))).collect()
    }

    /// How many are owed to the store.
    pub fn owed(&self) -> usize {
        self.owed.len()
    }

    /// Forgets what the checkpoint has passed, and can be read again: everything but what packs from `covered` on have done.
    pub fn forget_below(&mut self, topic_id: TopicId, covered: Seq) {
        let Self { known, owed } = self;
        known.retain(|at, by| owed.contains(at) || by.is_some_and(|by| by.topic_id == topic_id && by.seq >= covered));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::{Lane, Stamp};

    const TOPIC: TopicId = TopicId([1; 16]);

    fn at(seq: u64) -> Coordinates {
        Coordinates { lane: Lane { topic_id: TOPIC, partition: 0 }, seq: Seq(seq) }
    }

    fn by(seq: u64) -> Replayed {
        Replayed { topic_id: TOPIC, seq: Seq(seq), stamp: Stamp(seq as i64 * 10) }
    }

    #[test]
    fn only_a_later_pack_is_dropped() {
        let mut replays = Replays::default();
        assert!(replays.lacks(at(3)));
        replays.install(at(3), None);
        assert!(!replays.lacks(at(3)) && !replays.is_applied_before(at(3), TOPIC, Seq(20)));
        replays.apply(at(3), by(20));
        assert!(!replays.is_applied_before(at(3), TOPIC, Seq(20)), "met again");
        assert!(replays.is_applied_before(at(3), TOPIC, Seq(21)));
        assert!(replays.is_applied_before(at(3), TopicId([2; 16]), Seq(0)), "another life comes later");
    }

    #[test]
    fn what_was_read_does_not_undo_what_was_done() {
        let mut replays = Replays::default();
        replays.apply(at(3), by(20));
        replays.install(at(3), None);
        assert_eq!(replays.take(), [(at(3), by(20))]);
        assert_eq!(replays.take(), []);
        replays.apply(at(3), by(20));
        assert_eq!(replays.take(), [(at(3), by(20))], "met again, owed again");
    }

    #[test]
    fn what_the_checkpoint_has_passed_is_read_again_and_what_is_owed_is_kept() {
        let mut replays = Replays::default();
        replays.apply(at(1), by(20));
        replays.take();
        replays.apply(at(2), by(30));
        replays.take();
        replays.apply(at(3), by(25));
        replays.install(at(4), None);
        replays.forget_below(TOPIC, Seq(30));
        assert!(replays.lacks(at(1)) && replays.lacks(at(4)));
        assert!(!replays.lacks(at(2)) && !replays.lacks(at(3)));
        assert_eq!(replays.owed(), 1);
    }
}
