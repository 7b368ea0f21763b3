//! What this process's lanes are doing, for whoever watches: lag, health, the dashboard.

use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
};

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
pub struct Board(Arc<RwLock<BTreeMap<u32, LaneStatus>>>);

impl Board {
    /// Changes a lane's entry; makes one for a lane that has none.
    pub fn update(&self, partition: u32, change: impl FnOnce(&mut LaneStatus)) {
        change(self.0.write().expect(UNPOISONED).entry(partition).or_default());
    }

    /// Removes a lane that another process runs now.
    pub fn remove(&self, partition: u32) {
        self.0.write().expect(UNPOISONED).remove(&partition);
    }

    /// All lanes, as they are now.
    pub fn lanes(&self) -> BTreeMap<u32, LaneStatus> {
        self.0.read().expect(UNPOISONED).clone()
    }
}

const UNPOISONED: &str = "nobody panics while holding the board";
