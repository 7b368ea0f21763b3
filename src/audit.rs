//! The audit: recounts the log and compares store, checkpoints and hot view with it; repairs what differs through the log.
//!
//! `recount` runs one lane's records through the lane's own code with no store behind it, `naive` counts them once more
//! without that code, `book` keeps what the log gives each row at exactly the seqs that store and hot view name, and says
//! which of them differ (pure); `lane` reads one lane's log and rows, `events` looks for its events; `repair` appends corrections; [`report`] is what comes
//! out. Lanes are taken one after the other.
//!
//! Promises: lag is no drift, for everything is compared at equal seqs; a row that changes meanwhile is looked at again
//! and never reported for having changed; what cannot be known (a total whose history retention has removed) is counted as
//! unchecked and never called fine; nothing is ever written but corrections to the log (law 10). Memory: some 1.2 KB for
//! each row of one lane, bounded by [`Options::max_rows`]. Reading the arguments is `cli`'s, opening the backends `app`'s.

use std::sync::Arc;

use crate::{
    hot,
    item::{Epoch, Namespace, Seq, SeriesRef, Shard, series_hash},
    log::Log,
    retry::{Classified, Kind},
    store::{EpochRow, RowName, ShardKey, Store},
};

mod book;
mod events;
mod lane;
mod naive;
mod recount;
mod repair;
pub mod report;

pub use report::Report;

/// What an audit reads.
#[derive(Clone)]
pub struct Deps {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The hot view.
    pub hot: hot::Shared,
}

/// From where on the log is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// From this seq of each lane.
    Seq(u64),
    /// From the first record of each lane that was appended at this time or later, in milliseconds since 1970.
    Time(i64),
}

/// How to audit.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// From where on; as far back as the log reaches when not given.
    pub from: Option<From>,
    /// Count once more without the lane's code.
    pub naive: bool,
    /// Append corrections for the rows that differ.
    pub repair: bool,
    /// Look for each event as well.
    pub events: bool,
    /// Most differences that are listed.
    pub worst: usize,
    /// Most rows of one lane that are kept in memory.
    pub max_rows: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { from: None, naive: false, repair: false, events: true, worst: 20, max_rows: 2_000_000 }
    }
}

/// How far an audit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Progress {
    /// The lane that is being read.
    pub partition: u32,
    /// How many lanes there are.
    pub partitions: u32,
    /// Records of it that were read.
    pub read: u64,
    /// Of so many.
    pub records: u64,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log failed.
    #[error("the log: {0}")]
    Log(#[from] crate::log::Error),
    /// The store failed.
    #[error("the store: {0}")]
    Store(#[from] crate::store::Error),
    /// The lane's own code cannot go on, so neither can the lane.
    #[error("lane {partition} cannot be recounted: {reason}")]
    Lane {
        /// Its partition.
        partition: u32,
        /// Why.
        reason: String,
    },
    /// The log went from under the audit.
    #[error("the log of lane {partition} ended at {at}, below what it had said; is it being truncated?")]
    Short {
        /// Its partition.
        partition: u32,
        /// Where.
        at: Seq,
    },
    /// The store knows nothing of this log.
    #[error(
        "the store has no epoch of this log's topic id: nothing was ever stored from it, or the topic was recreated; see `tallymark lanes`"
    )]
    NoEpoch,
    /// More rows than may be kept.
    #[error(
        "lane {partition} has more than {max_rows} rows, and each takes about 1.2 KB here; where there is memory for it, raise --max-rows"
    )]
    TooManyRows {
        /// Its partition.
        partition: u32,
        /// The bound.
        max_rows: usize,
    },
}

impl Classified for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Log(error) => error.kind(),
            Self::Store(error) => error.kind(),
            _ => Kind::Permanent,
        }
    }
}

/// Audits every lane of the log.
///
/// # Errors
/// Log or store cannot be read, a lane's own code cannot go on, or a bound is reached.
pub async fn run(deps: &Deps, options: &Options, mut progress: impl FnMut(Progress) + Send) -> Result<Report, Error> {
    let topology = deps.log.topology();
    let topic = topology.topic.clone();
    let mut epochs = deps.store.epochs(&topic).await?;
    epochs.retain(|epoch| epoch.topic_id == topology.topic_id);
    if epochs.is_empty() {
        return Err(Error::NoEpoch);
    }
    let shards = deps.store.shards().await?;
    let mut report = Report::default();
    if !deps.hot.describe().1 {
        report.notes.push("there is no hot view to compare".to_owned());
    }
    let mut drifts = Vec::new();
    let partitions = deps.log.partitions();
    for partition in 0..partitions {
        let lane = lane::Pass { deps, options, epochs: &epochs, shards: &shards, partition };
        let found = lane.run(|read, records| progress(Progress { partition, partitions, read, records })).await?;
        report.counts.add(&found.report.counts);
        report.lanes.push(found.report);
        report.notes.extend(found.notes);
        report.repairs.extend(found.repairs);
        drifts.extend(found.drifts);
        drifts.sort_by_key(|drift: &report::Drift| std::cmp::Reverse(drift.size()));
        drifts.truncate(options.worst);
    }
    report.worst = drifts;
    let agrees = report.lanes.iter().all(|lane| {
        lane.control.is_none_or(|control| control.agrees())
            && lane.sum.is_none_or(|sum| sum.rows == sum.checkpoint)
            && lane.naive != Some(false)
    });
    report.clean = report.counts.drift() == 0 && agrees;
    Ok(report)
}

/// The rows of a series and of its counter in a lane: where they stand under this epoch.
fn rows_of(key: &[u8], epoch: &EpochRow, partition: u32) -> Option<[(ShardKey, RowName); 2]> {
    let series = SeriesRef::from_key(key)?;
    let namespace = Namespace::parse(series.namespace).ok()?;
    let place = |shard| ShardKey { namespace: namespace.clone(), shard, epoch: epoch.epoch };
    let name = |tags: &str| RowName { counter: series.counter.into(), tags: tags.into() };
    let shard = Shard::of(series_hash(key), epoch.shards);
    Some([(place(shard), name(series.tags)), (place(Shard::reserved(partition)), name(""))])
}

/// The series key of a row; a whole counter's is that of its untagged series.
fn key_of(key: &ShardKey, name: &RowName) -> Vec<u8> {
    SeriesRef { namespace: key.namespace.as_str(), counter: &name.counter, tags: &name.tags }.to_key()
}

/// The epoch of this name.
fn epoch_of(epochs: &[EpochRow], name: Epoch) -> Option<&EpochRow> {
    epochs.iter().find(|epoch| epoch.epoch == name)
}
