//! The store port: where totals and events live for good.
//!
//! Laws every backend keeps, and `tests/it/contract/store.rs` proves for each:
//! - **S1** A write answers `Ok` only when a quorum has accepted it. Any error means: unknown; writing again is safe.
//! - **S2** Every row carries the stamp it was written with. A write with an older stamp than the row's has no effect; an
//!   equal stamp always carries the same row. So replays and late writes of a zombie converge.
//! - **S3** A read that follows a write's `Ok` sees it, or something newer.
//! - **S4** Rows of one shard come in order of (counter, series), bytewise.
//! - **S5** [`Store::write_checkpoint`] answers `Ok` only when everything that was acknowledged before it is at least as
//!   durable as the checkpoint itself (law 5: the checkpoint never leads, not even over a loss of power).
//! - **S6** A server that has started again, and may have forgotten the last that it acknowledged, answers
//!   [`Store::generations`] with another generation than before, from its first answer on. A lost connection alone does not
//!   change it. A store that goes down with this process alone names no server.
//! - **S7** What is known of a dead letter's replay outlives every later word that it is a dead letter, whatever the stamps.
//!
//! Backends: [`embedded`] (local disk), [`scylla`] (CQL), [`memory`] (tests and the model). Which one runs is decided in
//! `app.rs` alone.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    item::{Epoch, Lane, Namespace, PackId, Seq, Shard, Stamp, TopicId},
    retry::{Classified, Kind},
    units::Span,
};

mod counted;
pub mod embedded;
mod letters;
pub mod memory;
mod remedies;
pub mod scylla;

pub use counted::Counted;
pub use letters::{LetterRow, Letters, Replayed};
pub use remedies::{Columns, HaltRow, Remedies, Remedy, RemedyRow};

/// What `store.datacenter` is while nobody names one.
pub const ANY_DATACENTER: &str = "auto";

/// Settings under `store.`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Shards of the hash space; fixed when the schema is made.
    pub shards: u32,
    /// Most rows of one mutation.
    pub batch_rows: usize,
    /// Mutations in flight, over all lanes of the process.
    pub in_flight: usize,
    /// Copies of every row, in a keyspace that is made now.
    pub replication: u32,
    /// The datacenter whose quorum is asked; [`ANY_DATACENTER`]: the only one.
    pub datacenter: String,
    /// How long one request may take.
    pub timeout: Span,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            shards: 256,
            batch_rows: 100,
            in_flight: 32,
            replication: 3,
            datacenter: ANY_DATACENTER.to_owned(),
            timeout: Span::from_secs(5),
        }
    }
}

/// A partition of the totals: the unit that one mutation writes and one slice reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardKey {
    /// The tenant.
    pub namespace: Namespace,
    /// The shard; negative for a lane's whole-counter totals.
    pub shard: Shard,
    /// The layout that the rows were written under.
    pub epoch: Epoch,
}

/// The name of a row within its shard: a counter and canonical tags. Whole-counter totals have empty tags.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowName {
    /// The counter.
    pub counter: Arc<str>,
    /// Its canonical tags.
    pub tags: Arc<str>,
}

/// One row of `counter_totals`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TotalRow {
    /// Which row.
    pub name: RowName,
    /// The lane's total, absolute.
    pub total: i128,
    /// The last pack with an undropped item for the row.
    pub seq: Seq,
    /// That pack's stamp: the write timestamp.
    pub stamp: Stamp,
}

/// Which rows of a shard to read.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Slice {
    /// Only this counter.
    pub counter: Option<Arc<str>>,
    /// Only rows after this one.
    pub after: Option<RowName>,
    /// At most so many.
    pub limit: usize,
}

/// One event, as stored and as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// The tenant.
    pub namespace: Namespace,
    /// What happened.
    pub name: Arc<str>,
    /// To whom, if to anybody.
    pub subject: Option<Arc<str>>,
    /// When, in milliseconds since 1970.
    pub time_ms: i64,
    /// The client's id.
    pub id: Arc<str>,
    /// A JSON object as received; empty without one.
    pub properties: Bytes,
    /// When ingest received it, in milliseconds since 1970.
    pub received_ms: i64,
    /// The write timestamp: its pack's stamp.
    pub stamp: Stamp,
}

/// By what events are listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventsBy {
    /// All of one name.
    Name(Arc<str>),
    /// All of one subject.
    Subject(Arc<str>),
}

/// A page of events, newest first: descending (time, id), and by subject descending (time, id, name).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsPage {
    /// The tenant.
    pub namespace: Namespace,
    /// Which events.
    pub by: EventsBy,
    /// Not before this time, in milliseconds since 1970.
    pub from_ms: i64,
    /// Before this time.
    pub to_ms: i64,
    /// Only events that sort after this (time, id) in the page's order, i.e. are older.
    pub before: Option<(i64, Arc<str>)>,
    /// At most so many.
    pub limit: usize,
}

/// How far a lane is: everything up to `seq` is in the store. Written at `stamp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The lane.
    pub lane: Lane,
    /// The last seq that is covered.
    pub seq: Seq,
    /// The leader epoch of the record at `seq`, where the log has leaders.
    pub leader_epoch: Option<i32>,
    /// The pack at `seq`; an unreadable record is named by the first 16 bytes of its BLAKE3.
    pub pack: PackId,
    /// The stamp of `seq`.
    pub stamp: Stamp,
    /// Where the dedup window begins: it is rebuilt by noting `[dedup_from, seq]`.
    pub dedup_from: Seq,
    /// The stamp before `dedup_from`.
    pub dedup_stamp: Stamp,
    /// The highest base that was read beyond the lane's position and not met again in the log yet.
    pub unmet_base: Option<Seq>,
    /// What the lane has counted up to `seq`.
    pub counted: Counted,
}

/// What the store knows of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneRow {
    /// The lane.
    pub lane: Lane,
    /// Its checkpoint, once there is one.
    pub checkpoint: Option<Checkpoint>,
    /// What a quorum has accepted; may lead the checkpoint.
    pub stored: Option<Seq>,
    /// The stamp that `stored` was written at: the one of its pack, which the log must compute again.
    pub stored_stamp: Option<Stamp>,
}

impl LaneRow {
    /// A lane of which nothing is known.
    pub fn blank(lane: Lane) -> Self {
        Self { lane, checkpoint: None, stored: None, stored_stamp: None }
    }

    /// `stored` and its stamp.
    pub fn stored_at(&self) -> Option<(Seq, Stamp)> {
        self.stored.zip(self.stored_stamp)
    }
}

/// A layout of the log, and what it pins (law 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochRow {
    /// Its name.
    pub epoch: Epoch,
    /// The topic's life.
    pub topic_id: TopicId,
    /// The log's cluster.
    pub cluster_id: String,
    /// Partitions of the log.
    pub partitions: u32,
    /// Shards of the hash space.
    pub shards: u32,
    /// How long an id is remembered, in microseconds of log time.
    pub dedup_window_us: i64,
    /// How many ids a lane remembers.
    pub dedup_max_ids: u64,
    /// When it was begun, in milliseconds since 1970.
    pub created_ms: i64,
}

/// Which of its lives a server is in: another number after each start, and nothing else can be told from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(pub i64);

/// Every server that a write may have been acknowledged by, under a name that it keeps for good: its generation, or why it
/// did not answer.
pub type Generations = BTreeMap<String, Result<Generation, Error>>;

/// What went wrong with the store.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Whether trying again can help.
    pub kind: Kind,
    /// What failed, and what to do.
    pub message: String,
    /// What the backend said.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of this kind, without a source.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The same error with what caused it.
    pub fn with(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl Classified for Error {
    fn kind(&self) -> Kind {
        self.kind
    }
}

/// The durable store: everything that a worker needs of it. See the module's laws.
pub trait Store: Totals + Events + Ledger + Letters + Remedies {}

impl<S: Totals + Events + Ledger + Letters + Remedies> Store for S {}

/// Totals, a row for each series and lane.
#[async_trait]
pub trait Totals: Send + Sync + 'static {
    /// Upserts rows of one shard as one mutation, each at its own stamp. Rows are sorted and each name occurs once.
    async fn write_totals(&self, key: &ShardKey, rows: &[TotalRow]) -> Result<(), Error>;

    /// Reads rows of a shard, in order.
    async fn totals(&self, key: &ShardKey, slice: &Slice) -> Result<Vec<TotalRow>, Error>;

    /// Reads the named rows; a row that is not there is `None`, in the order of `names`.
    async fn totals_named(&self, key: &ShardKey, names: &[RowName]) -> Result<Vec<Option<TotalRow>>, Error>;

    /// Every shard that has rows, of all namespaces and epochs, in no order. It reads the whole table's keys: for an audit.
    async fn shards(&self) -> Result<Vec<ShardKey>, Error> {
        Err(Error::new(Kind::Permanent, "this store cannot list its shards"))
    }
}

/// Events, by name and by subject.
#[async_trait]
pub trait Events: Send + Sync + 'static {
    /// Upserts events, by name and by subject, in as many mutations as it takes: thousands are better than hundreds, and
    /// those of a subject are best side by side. An error says nothing of any of them.
    async fn write_events(&self, rows: &[EventRow]) -> Result<(), Error>;

    /// Reads a page of events.
    async fn events(&self, page: &EventsPage) -> Result<Vec<EventRow>, Error>;
}

/// What lanes and operators keep in the store beside the data. Topics are named because a store may serve several.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Every lane of a topic, of all its lives.
    async fn lanes(&self, topic: &str) -> Result<Vec<LaneRow>, Error>;

    /// Moves a lane's checkpoint (S5), at the checkpoint's stamp.
    async fn write_checkpoint(&self, topic: &str, checkpoint: &Checkpoint) -> Result<(), Error>;

    /// Moves a lane's `stored`, at `stamp`.
    async fn write_stored(&self, topic: &str, lane: Lane, stored: Seq, stamp: Stamp) -> Result<(), Error>;

    /// The epochs of a topic, oldest first.
    async fn epochs(&self, topic: &str) -> Result<Vec<EpochRow>, Error>;

    /// Begins an epoch. Beginning it again changes nothing.
    async fn begin_epoch(&self, topic: &str, epoch: &EpochRow) -> Result<(), Error>;

    /// Asks each server by itself which of its lives it is in (S6). Takes `store.timeout` at most.
    async fn generations(&self) -> Generations {
        Generations::new()
    }
}
