//! What a measurement says: plain data, which serialises to the JSON that `/api/v1/lag` serves.
//!
//! Positions: `end` is one past the last pack in the log; `stored` and `checkpoint` are the last seq that is covered, or
//! null before the first. So `lag_packs` = `end` − (`stored` + 1), with −1 in the place of null.

use serde::{Deserialize, Serialize};

use super::status::Status;

/// The lag of all lanes at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The worst status of any lane.
    pub status: Status,
    /// Packs in the log and not in the store, over all lanes.
    pub lag_packs: u64,
    /// Age of the oldest pack that is not in the store; 0 without lag, null while it is not known.
    pub lag_seconds: Option<f64>,
    /// Estimate of the time until everything in the log is stored: the slowest lane's. 0 without lag; null while a lane
    /// with lag is not gaining on the log.
    pub drain_seconds: Option<f64>,
    /// Items that this process's lanes applied per second over the last ten seconds; null when it runs none.
    pub apply_rate: Option<f64>,
    /// The lanes, by partition.
    pub lanes: Vec<LaneLag>,
    /// When it was measured, in milliseconds since 1970; 0: not yet.
    #[serde(skip)]
    pub measured_ms: i64,
}

/// The lag of one lane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaneLag {
    /// Its partition of the log.
    pub partition: u32,
    /// The log epoch of the last pack it applied, or else the topic's newest; null while neither is known.
    pub epoch: Option<String>,
    /// One past the last pack in the log.
    pub end: u64,
    /// The last pack that is in the store.
    pub stored: Option<u64>,
    /// The lane's checkpoint.
    pub checkpoint: Option<u64>,
    /// Packs in the log and not in the store.
    pub lag_packs: u64,
    /// Age of the oldest of them; 0 without any, null while it is not known.
    pub lag_seconds: Option<f64>,
    /// The verdict.
    pub status: Status,
    /// Why it is not OK, and what to do; null when it is.
    pub reason: Option<String>,
    /// The process that runs the lane, as far as this process knows: its own name, or null.
    pub worker: Option<String>,
}

/// What one lane adds to the group's figures, besides what it shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pace {
    /// Its part of [`Snapshot::drain_seconds`].
    pub drain_seconds: Option<f64>,
    /// Its part of [`Snapshot::apply_rate`].
    pub apply_rate: Option<f64>,
}

impl Snapshot {
    /// What is known before the first measurement.
    pub(super) fn unmeasured(partitions: u32) -> Self {
        let lane = |partition| LaneLag {
            partition,
            epoch: None,
            end: 0,
            stored: None,
            checkpoint: None,
            lag_packs: 0,
            lag_seconds: None,
            status: Status::Warn,
            reason: Some("not measured yet; the first figures come within seconds of the start".to_owned()),
            worker: None,
        };
        let pace = Pace { drain_seconds: None, apply_rate: None };
        Self::of((0..partitions).map(|partition| (lane(partition), pace)), 0)
    }

    /// The group's figures from its lanes'.
    pub(super) fn of(lanes: impl IntoIterator<Item = (LaneLag, Pace)>, measured_ms: i64) -> Self {
        let (lanes, paces): (Vec<_>, Vec<_>) = lanes.into_iter().unzip();
        // One lane whose age or drain time is unknown makes the group's unknown: the known ones may be far smaller.
        let most = |most: f64, seconds: Option<f64>| Some(most.max(seconds?));
        let lag_seconds = lanes.iter().map(|lane| lane.lag_seconds).try_fold(0.0, most);
        let drain_seconds = paces.iter().map(|pace| pace.drain_seconds).try_fold(0.0, most);
        let rates: Vec<f64> = paces.iter().filter_map(|pace| pace.apply_rate).collect();
        Self {
            status: lanes.iter().map(|lane| lane.status).max().unwrap_or(Status::Ok),
            lag_packs: lanes.iter().fold(0, |sum: u64, lane| sum.saturating_add(lane.lag_packs)),
            lag_seconds: lag_seconds.map(to_millis),
            drain_seconds: drain_seconds.map(to_millis),
            apply_rate: (!rates.is_empty()).then(|| to_millis(rates.iter().sum())),
            lanes,
            measured_ms,
        }
    }
}

/// Rounds to three decimals: no reader wants more, and the JSON stays short.
pub(super) fn to_millis(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
