//! What a remedy does, decided from what is found, and told in words. Pure: time is an argument.
//!
//! **The floor of an accepted gap** (`worker/accepted.rs`) must not lie below any stamp that was ever computed for the lane.
//! Stamps are append times, at most an hour ahead of the ingest's clock, or the one before plus one (law 3): so none is above
//! now + 1 h, or above a known stamp plus the packs since. A quarter of an hour is added for clocks that disagree (an ingest
//! that is 5 minutes off is not ready). Log time stands still until the clock has passed the floor, and the leap to it makes no
//! id older: so the dedup window is longer for so long, never shorter.

use serde::{Deserialize, Serialize};

use super::Pins;
use crate::{
    item::{Epoch, Lane, Seq, Stamp, TopicId},
    log::{Bounds, Topology},
    store::{EpochRow, HaltRow, LaneRow, Remedy},
    units::Span,
    worker::{accepted::Accepted, halt::Halt, resume},
};

/// How far a stamp may be ahead of this machine's clock, in milliseconds.
const AHEAD_MS: i64 = 75 * 60 * 1000;

/// What is wished for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "remedy", rename_all = "snake_case", deny_unknown_fields)]
pub enum Wish {
    /// That a lane goes on without packs that are gone.
    AcceptGap {
        /// The lane.
        partition: u32,
        /// No more than these: the first, and one past the last.
        #[serde(default)]
        range: Option<(u64, u64)>,
    },
    /// That a lane goes on though the log contradicts the claims of a pack.
    AcceptClaim {
        /// The lane.
        partition: u32,
        /// That pack, and no other.
        #[serde(default)]
        seq: Option<u64>,
    },
    /// That the log's present layout counts.
    BeginEpoch {},
}

/// What a remedy would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What it does, keeps and loses, sentence by sentence.
    pub says: Vec<String>,
    /// The same name, the same deed.
    pub name: String,
    /// The life of the topic that it is about.
    pub topic_id: TopicId,
    /// The epochs that begin.
    pub epochs: Vec<EpochRow>,
    /// What is recorded; nothing: there is nothing to do.
    pub remedies: Vec<Remedy>,
}

/// A lane and its log as they are found.
pub struct Scene<'a> {
    /// The lane.
    pub lane: Lane,
    /// What the log has.
    pub bounds: Bounds,
    /// What the store has.
    pub row: Option<&'a LaneRow>,
    /// The topic's epochs.
    pub epochs: &'a [EpochRow],
    /// What was accepted before.
    pub accepted: &'a Accepted,
    /// What the lane says.
    pub halt: Option<&'a HaltRow>,
    /// This machine's clock.
    pub now_ms: i64,
}

type Decided = Result<Plan, String>;

fn packs(count: u64) -> String {
    if count == 1 { "1 pack".to_owned() } else { format!("{count} packs") }
}

fn name(of: impl std::fmt::Debug) -> String {
    blake3::hash(format!("{of:?}").as_bytes()).to_hex()[..16].to_owned()
}

/// Why a lane needs another remedy than the one that is wished for.
fn otherwise(partition: u32, halt: Option<&HaltRow>, wished: &str) -> String {
    match halt {
        None => format!("lane {partition} has not halted; there is nothing to accept"),
        Some(HaltRow { reason, .. }) => format!("lane {partition} has not halted for {wished}: {reason}"),
    }
}

/// Accepting that packs are gone from a lane's log.
pub fn gap(scene: &Scene<'_>, range: Option<(Seq, Seq)>) -> Decided {
    let Scene { lane, bounds, row, epochs, accepted, halt, now_ms } = *scene;
    let partition = lane.partition;
    let halted_for_it = halt.filter(|halt| matches!(halt.kind.as_str(), "gap" | "missing"));
    let Some(halt) = halted_for_it else { return Err(otherwise(partition, halt, "a gap")) };
    let stored = row.and_then(|row| {
        let checkpoint = row.checkpoint.as_ref().map(|checkpoint| checkpoint.seq);
        row.stored.max(checkpoint)
    });
    let (from, gone_to) = if halt.kind == "missing" {
        let (Some(from), Some(to)) = (halt.from, halt.to) else { return Err(halt.reason.clone()) };
        if accepted.cross(from, to).0 >= to {
            return Err(already(partition));
        }
        (from, to)
    } else {
        match resume::check(lane, bounds, row, epochs, accepted) {
            Err(Halt::Gap { start, next }) => (next, start),
            Err(other) => return Err(format!("lane {partition}: {}", other.told(partition))),
            Ok(()) => return Err(already(partition)),
        }
    };
    if let Some(stored) = stored
        && bounds.end <= stored
    {
        let cut = Halt::Cut { end: bounds.end, seq: stored };
        return Err(format!("lane {partition}: {}", cut.told(partition)));
    }
    if let Some((first, last)) = range
        && (from < first || gone_to > last)
    {
        return Err(format!(
            "lane {partition} lacks {from}..{gone_to}, which is more than {first}..{last}; look at it again with `tallymark lanes`"
        ));
    }
    // What is stored is not counted again, though it may be in the log still.
    let to = stored.map_or(gone_to, |stored| gone_to.max(stored.next()));
    let lost_from = stored.map_or(from, |stored| from.max(stored.next()));
    let lost = gone_to.0.saturating_sub(lost_from.0);
    let mut says = vec![format!("Lane {partition} goes on at {to}.")];
    if lost > 0 {
        says.push(format!(
            "Lost: {} ({lost_from} to {}). What they carried is not counted, now or later.",
            packs(lost),
            gone_to.0 - 1
        ));
    } else {
        says.push("Nothing is lost: what is gone from the log is in the store.".to_owned());
    }
    says.push("Kept: everything that is stored, and everything from there on.".to_owned());
    says.push(format!(
        "Retries: the ids of the packs that are gone are forgotten, so an item of theirs that is sent again counts (as new if \
         it was lost, twice if it was stored before {gone_to})."
    ));
    let floor = floor(scene, now_ms);
    let remedy = Remedy::Gap { partition, from, to, floor };
    Ok(Plan {
        name: name(("gap", lane, from, gone_to, to)),
        says,
        topic_id: lane.topic_id,
        epochs: Vec::new(),
        remedies: vec![remedy],
    })
}

fn already(partition: u32) -> String {
    format!("lane {partition} lacks nothing any more: it goes on by itself within seconds")
}

/// No stamp that was ever computed for the lane is higher. See the module.
fn floor(scene: &Scene<'_>, now_ms: i64) -> Stamp {
    let clock = now_ms.saturating_add(AHEAD_MS).saturating_mul(1000);
    let since = |seq: Seq| i64::try_from(scene.bounds.end.0.saturating_sub(seq.0)).unwrap_or(i64::MAX);
    let checkpoint = scene.row.and_then(|row| row.checkpoint.as_ref());
    let checkpoint = checkpoint.map(|checkpoint| (checkpoint.seq, checkpoint.stamp));
    let known = checkpoint.into_iter().chain(scene.row.and_then(LaneRow::stored_at));
    let known = known.map(|(seq, stamp)| stamp.0.saturating_add(since(seq)));
    let gaps =
        scene.accepted.gaps().iter().map(|gap| gap.last_stamp().0.saturating_add(since(gap.to)).saturating_add(1));
    Stamp(gaps.chain(known).fold(clock, i64::max))
}

/// Accepting that acknowledged packs are not in the log.
pub fn claim(lane: Lane, halt: Option<&HaltRow>, seq: Option<Seq>) -> Decided {
    let partition = lane.partition;
    let Some(halt) = halt.filter(|halt| halt.kind == "claim") else {
        return Err(otherwise(partition, halt, "a claim"));
    };
    let found = halt.from.ok_or_else(|| halt.reason.clone())?;
    if let Some(seq) = seq
        && seq != found
    {
        return Err(format!(
            "lane {partition} has halted for the claims of pack {found}, not of {seq}; look at it again with `tallymark lanes`"
        ));
    }
    let what = halt.reason.split(';').next().unwrap_or_default();
    Ok(Plan {
        says: vec![
            format!("Lane {partition} goes on though {what}."),
            format!(
                "Lost: the packs that pack {found} says were acknowledged, and that are not where it says. Their items are \
                     not counted, unless their senders send them again."
            ),
            "Kept: everything that is stored, and everything that is in the log.".to_owned(),
        ],
        name: name(("claim", lane, found)),
        topic_id: lane.topic_id,
        epochs: Vec::new(),
        remedies: vec![Remedy::Claims { partition, seq: found }],
    })
}

/// Beginning the epochs that the log's present life lacks: of its partitions, and of the counts that lanes have halted for.
pub fn epoch(
    topology: &Topology,
    partitions: u32,
    epochs: &[EpochRow],
    rows: &[LaneRow],
    halts: &[HaltRow],
    pins: Pins,
    now_ms: i64,
) -> Decided {
    let topic_id = topology.topic_id;
    let own = || epochs.iter().filter(|epoch| epoch.topic_id == topic_id);
    let shards = own().next().or(epochs.last()).map_or(pins.shards, |epoch| epoch.shards);
    let (window_us, max_ids) = own()
        .next()
        .map_or((pins.dedup_window_us, pins.dedup_max_ids), |epoch| (epoch.dedup_window_us, epoch.dedup_max_ids));
    let mut counts = vec![(partitions, shards)];
    counts.extend(halts.iter().filter_map(|halt| halt.partitions.zip(halt.shards)));
    counts.sort_unstable();
    counts.dedup();
    if let Some((more, _)) = counts.iter().find(|(count, _)| *count > partitions) {
        return Err(format!(
            "a pack was routed for {more} partitions, and the topic `{}` has {partitions}: it is not this topic's. Find out \
             which ingest wrote it",
            topology.topic
        ));
    }
    counts.retain(|counts| !own().any(|epoch| (epoch.partitions, epoch.shards) == *counts));
    // One that begins after another must also sort after it.
    let after = epochs.last().map_or(now_ms, |last| now_ms.max(last.created_ms.saturating_add(1)));
    let begun: Vec<EpochRow> = (after..)
        .zip(&counts)
        .map(|(created_ms, (partitions, shards))| EpochRow {
            epoch: Epoch::of(topic_id, *partitions, *shards),
            topic_id,
            cluster_id: topology.cluster_id.clone(),
            partitions: *partitions,
            shards: *shards,
            dedup_window_us: window_us,
            dedup_max_ids: max_ids,
            created_ms,
        })
        .collect();
    let plan = |says: Vec<String>| Plan {
        says,
        name: name(("epoch", topic_id, &counts)),
        topic_id,
        epochs: begun.clone(),
        remedies: counts
            .iter()
            .map(|(partitions, shards)| Remedy::Epoch { partitions: *partitions, shards: *shards })
            .collect(),
    };
    if counts.is_empty() {
        return Ok(plan(vec![format!(
            "The epoch of the topic `{}` as it is ({partitions} partitions) has begun already: there is nothing to do.",
            topology.topic
        )]));
    }
    let mut says = Vec::new();
    match (own().next_back(), epochs.last()) {
        (Some(last), _) => {
            for (count, shards) in &counts {
                says.push(format!(
                    "The topic `{}` had {} partitions: the epoch of {count} partitions ({shards} shards) begins.",
                    topology.topic, last.partitions
                ));
            }
            says.push(
                "Lanes that were there go on, stamps and dedup window too; lanes of new partitions begin at 0."
                    .to_owned(),
            );
            says.push("Kept: everything. Rows of both layouts count, and packs of both may come.".to_owned());
            says.push(
                "A retry across the change may count twice: an item may go to another partition than it did before. An ingest \
                 takes the new layout when it is restarted."
                    .to_owned(),
            );
        }
        (None, None) => {
            says.push(format!("The first epoch of the topic `{}` begins: {partitions} partitions.", topology.topic))
        }
        (None, Some(last)) => {
            says.push(format!(
                "The topic `{}` was {} with {} partitions, and is {topic_id} with {partitions}: a new log epoch begins, with \
                 {shards} shards and a dedup window of {} or {max_ids} ids.",
                topology.topic,
                last.topic_id,
                last.partitions,
                Span(std::time::Duration::from_micros(window_us.unsigned_abs())),
            ));
            if last.cluster_id != topology.cluster_id {
                says.push(format!(
                    "It is in another cluster: `{}`, before `{}`. Make sure that log.url names the right one.",
                    topology.cluster_id, last.cluster_id
                ));
            }
            says.push("Its lanes begin at 0. Kept: what was stored of the old topic still counts.".to_owned());
            says.push(format!("Lost: what the old topic held and was not stored, that is, after {}.", far(rows, last)));
            says.push("Retries of items from before the change count again.".to_owned());
        }
    }
    Ok(plan(says))
}

/// How far the lanes of an epoch's topic were stored.
fn far(rows: &[LaneRow], epoch: &EpochRow) -> String {
    let of = |partition| {
        let row = rows.iter().find(|row| row.lane == Lane { topic_id: epoch.topic_id, partition });
        let stored = row.and_then(|row| row.stored.max(row.checkpoint.as_ref().map(|checkpoint| checkpoint.seq)));
        stored.map_or_else(|| "nothing".to_owned(), |seq| seq.to_string())
    };
    let lanes: Vec<String> =
        (0..epoch.partitions.min(16)).map(|partition| format!("{} of lane {partition}", of(partition))).collect();
    let more = if epoch.partitions > 16 { ", …" } else { "" };
    format!("{}{more}", lanes.join(", "))
}
