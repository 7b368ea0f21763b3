//! What is shown of lanes and remedies: plain data, which serialises to the JSON of `/api/v1/lanes`.

use serde::{Deserialize, Serialize};

use super::words;
use crate::{
    item::Epoch,
    lag::{LaneLag, Snapshot, Status},
    log::Topology,
    store::{EpochRow, HaltRow, RemedyRow},
};

/// The lanes of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lanes {
    /// The worst status of any lane.
    pub status: Status,
    /// The topic.
    pub topic: String,
    /// Which life of it.
    pub topic_id: String,
    /// Its partitions now.
    pub partitions: u32,
    /// What is to be done before a lane halts for it.
    pub notices: Vec<String>,
    /// The lanes, by partition.
    pub lanes: Vec<LaneView>,
}

/// One lane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaneView {
    /// Its partition of the log.
    pub partition: u32,
    /// The log epoch of the last pack it applied, or else the topic's newest.
    pub epoch: Option<String>,
    /// The verdict.
    pub status: Status,
    /// The lane's checkpoint.
    pub checkpoint: Option<u64>,
    /// The last pack that is in the store.
    pub stored: Option<u64>,
    /// One past the last pack in the log.
    pub end: u64,
    /// The process that runs it, as far as is known.
    pub worker: Option<String>,
    /// Why it is not OK, and what to do.
    pub reason: Option<String>,
    /// A word for what it has halted for.
    pub halt: Option<String>,
    /// The command that remedies it, if one does.
    pub command: Option<String>,
    /// Since when it has halted, in milliseconds since 1970.
    pub since_ms: Option<i64>,
}

/// One remedy that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordView {
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// What, in a few words.
    pub what: String,
    /// A word for its kind.
    pub kind: String,
    /// The life of the topic that it is about.
    pub topic_id: String,
    /// The lane that it is about.
    pub partition: Option<u32>,
    /// See `store::Remedy`.
    pub from: Option<u64>,
    /// See `store::Remedy`.
    pub to: Option<u64>,
    /// By whom, as they said.
    pub who: String,
    /// Why, as they said.
    pub why: String,
    /// What they were told that it would do.
    pub says: String,
}

impl Lanes {
    /// Puts together what is measured and what is said.
    pub(super) fn of(
        topology: &Topology,
        partitions: u32,
        measured: &Snapshot,
        epochs: &[EpochRow],
        halts: &[HaltRow],
    ) -> Self {
        let halt_of = |lane: &LaneLag| halts.iter().find(|halt| halt.lane.partition == lane.partition);
        let lanes: Vec<LaneView> = measured.lanes.iter().map(|lane| LaneView::of(lane, halt_of(lane))).collect();
        let own = |epoch: &&EpochRow| epoch.topic_id == topology.topic_id;
        let mut notices = Vec::new();
        if epochs.iter().any(|epoch| own(&epoch))
            && !epochs.iter().filter(own).any(|epoch| epoch.partitions == partitions)
        {
            notices.push(format!(
                "the topic has {partitions} partitions, and no epoch has as many; begin it with `tallymark lanes begin-epoch` \
                 before an ingest is restarted"
            ));
        }
        Self {
            status: lanes.iter().map(|lane| lane.status).max().unwrap_or(Status::Ok),
            topic: topology.topic.clone(),
            topic_id: topology.topic_id.to_string(),
            partitions,
            notices,
            lanes,
        }
    }
}

impl LaneView {
    fn of(lane: &LaneLag, halt: Option<&HaltRow>) -> Self {
        let worker = halt.map(|halt| halt.worker.clone()).filter(|worker| !worker.is_empty());
        Self {
            partition: lane.partition,
            epoch: lane.epoch.clone(),
            status: if halt.is_some() { Status::Halted } else { lane.status },
            checkpoint: lane.checkpoint,
            stored: lane.stored,
            end: lane.end,
            worker: lane.worker.clone().or(worker),
            reason: halt.map(|halt| halt.reason.clone()).or_else(|| lane.reason.clone()),
            halt: halt.map(|halt| halt.kind.clone()),
            command: halt.and_then(|halt| halt.command.clone()),
            since_ms: halt.map(|halt| halt.since_ms).filter(|since_ms| *since_ms > 0),
        }
    }
}

impl RecordView {
    pub(super) fn of(row: &RemedyRow) -> Self {
        let columns = row.what.columns();
        let epoch = columns.partitions.zip(columns.shards);
        let epoch = epoch.map(|(partitions, shards)| Epoch::of(row.topic_id, partitions, shards));
        Self {
            at_ms: row.at_ms,
            what: epoch.map_or_else(|| words(&row.what), |epoch| format!("{} ({epoch})", words(&row.what))),
            kind: columns.kind,
            topic_id: row.topic_id.to_string(),
            partition: columns.partition,
            from: columns.from,
            to: columns.to,
            who: row.who.clone(),
            why: row.why.clone(),
            says: row.says.clone(),
        }
    }
}
