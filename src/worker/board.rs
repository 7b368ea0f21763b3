//! What this process's lanes are doing, for whoever watches: lag, health, the dashboard.

use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
};

use super::halt::Halt;
use crate::item::{Epoch, Seq};

/// What a lane is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Reading its checkpoint, checking the log, rebuilding its dedup window.
    Starting,
    /// Applying packs.
    Running,
    /// Waiting for the store; the reason says why.
    Paused,
    /// Stopped for good until somebody acts (law 6); the reason says why and what to do.
    Halted,
}

/// One lane, as its worker sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneStatus {
    /// What it is doing.
    pub state: State,
    /// Why, when it is not running.
    pub reason: Option<String>,
    /// What it has halted for, and since when in milliseconds since 1970.
    pub halt: Option<(Halt, i64)>,
    /// The epoch of the last pack applied.
    pub epoch: Option<Epoch>,
    /// The next seq that it will apply.
    pub next: Seq,
    /// One past the last seq that a quorum of the store has accepted.
    pub stored: Seq,
    /// One past the checkpoint.
    pub checkpoint: Seq,
    /// Append time of the oldest pack that is applied and not stored, in milliseconds since 1970.
    pub oldest_unstored_ms: Option<i64>,
    /// Items applied since the lane started here, duplicates included.
    pub items: u64,
}

impl Default for LaneStatus {
    fn default() -> Self {
        Self {
            state: State::Starting,
            reason: None,
            halt: None,
            epoch: None,
            next: Seq(0),
            stored: Seq(0),
            checkpoint: Seq(0),
            oldest_unstored_ms: None,
            items: 0,
        }
    }
}

/// The lanes that this process runs, by partition. Cheap to clone; all clones are the same board.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<RwLock<BTreeMap<u32, Entry>>>);

#[derive(Debug, Default)]
struct Entry {
    status: LaneStatus,
    /// What the lane waits for: each pause that has not ended, and why.
    pauses: BTreeMap<u64, String>,
}

/// While it is kept, its lane is shown as paused: several things that a lane waits for may overlap.
#[derive(Debug)]
pub struct Pause {
    board: Board,
    partition: u32,
    id: u64,
}

impl Drop for Pause {
    fn drop(&mut self) {
        if let Some(entry) = self.board.0.write().expect(UNPOISONED).get_mut(&self.partition) {
            entry.pauses.remove(&self.id);
        }
    }
}

impl Board {
    /// Changes a lane's entry; makes one for a lane that has none.
    pub fn update(&self, partition: u32, change: impl FnOnce(&mut LaneStatus)) {
        change(&mut self.0.write().expect(UNPOISONED).entry(partition).or_default().status);
    }

    /// Shows a lane as paused until the answer is dropped.
    pub fn pause(&self, partition: u32, reason: String) -> Pause {
        let mut lanes = self.0.write().expect(UNPOISONED);
        let pauses = &mut lanes.entry(partition).or_default().pauses;
        let id = pauses.last_key_value().map_or(0, |(last, _)| last + 1);
        pauses.insert(id, reason);
        Pause { board: self.clone(), partition, id }
    }

    /// Removes a lane that another process runs now.
    pub fn remove(&self, partition: u32) {
        self.0.write().expect(UNPOISONED).remove(&partition);
    }

    /// All lanes, as they are now: paused for the newest of the reasons, if there is any.
    pub fn lanes(&self) -> BTreeMap<u32, LaneStatus> {
        let lanes = self.0.read().expect(UNPOISONED);
        lanes.iter().map(|(partition, entry)| (*partition, entry.shown())).collect()
    }
}

impl Entry {
    fn shown(&self) -> LaneStatus {
        let mut status = self.status.clone();
        if status.state != State::Halted
            && let Some((_, reason)) = self.pauses.last_key_value()
        {
            status.state = State::Paused;
            status.reason = Some(reason.clone());
        }
        status
    }
}

const UNPOISONED: &str = "nobody panics while holding the board";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_paused_for_as_long_as_anything_pauses_it_and_then_what_it_was() {
        let board = Board::default();
        let shown = || {
            let lane = board.lanes().remove(&3).unwrap();
            (lane.state, lane.reason)
        };
        board.update(3, |lane| lane.state = State::Running);
        let first = board.pause(3, "first".to_owned());
        let second = board.pause(3, "second".to_owned());
        assert_eq!(shown(), (State::Paused, Some("second".to_owned())));
        drop(second);
        assert_eq!(shown(), (State::Paused, Some("first".to_owned())));
        let third = board.pause(3, "third".to_owned());
        drop(first);
        assert_eq!(shown(), (State::Paused, Some("third".to_owned())));
        drop(third);
        assert_eq!(shown(), (State::Running, None));
    }

    #[test]
    fn a_halt_outranks_a_pause_and_a_lane_that_went_leaves_none_behind() {
        let board = Board::default();
        let pause = board.pause(0, "the store does not answer".to_owned());
        board.update(0, |lane| (lane.state, lane.reason) = (State::Halted, Some("cut".to_owned())));
        assert_eq!(board.lanes()[&0].reason.as_deref(), Some("cut"));
        board.remove(0);
        drop(pause);
        assert!(board.lanes().is_empty());
        board.update(0, |_| ());
        assert_eq!(board.lanes()[&0].state, State::Starting);
    }
}
