//! The log port: what a durable, partitioned, append-only log promises to ingest and to the lanes.
//!
//! Laws every backend keeps, and `tests/it/contract/log.rs` proves for each:
//! - **L1** `append` answers `Ok` only when the record survives the loss of power (of a minority of replicas, where
//!   there are several). An error of kind [`Kind::Permanent`] means: certainly not appended. Any other: unknown.
//! - **L2** Offsets of a partition are contiguous from 0. A record, once readable, is readable at the same offset with
//!   the same bytes until retention removes it from the front.
//! - **L3** `append_ms` is the log's own clock at the append, in milliseconds since 1970. It may go backwards.
//! - **L4** A record is readable only when it is durable, and from then on for every reader; `bounds().end` is one past it.
//! - **L5** A record that is damaged at rest is delivered with [`Record::damage`], never skipped.
//! - **L6** A cursor delivers every offset from where it was opened, in order, once; a caller that does not poll
//!   exerts backpressure. An offset below `bounds().start` answers [`Error::gone`].
//!
//! Backends: [`embedded`] (local disk), [`kafka`]. Which one runs is decided in `app.rs` alone.

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::{
    item::{Seq, TopicId},
    retry::{Classified, Kind},
    units::{Size, Span},
};

mod dead;
pub mod embedded;
pub mod kafka;

pub use dead::{Class, DeadLetter, DeadLetters, Found, Place};

/// Settings under `log.`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Partitions of a log that is made now. 0: the backend's default (8, embedded 4). An existing log keeps its own.
    pub partitions: u32,
    /// Bytes that the embedded log keeps over all partitions; never past what a lane still needs.
    pub retention_bytes: Size,
    /// How long a topic that is made now keeps its records.
    pub retention: Span,
    /// Copies of each partition of a topic that is made now.
    pub replication: u32,
    /// The group of workers; empty: called as the topic.
    pub group: String,
    /// How long an append may take.
    pub append_timeout: Span,
    /// How long a question to the brokers may take.
    pub request_timeout: Span,
    /// Bytes of records that are handed to the brokers and not acknowledged.
    pub buffer: Size,
    /// Connections to each broker that records are appended over.
    pub connections: usize,
    /// How often it is checked that the topic is still the same.
    pub identity_interval: Span,
    /// Whether the connections to the brokers are encrypted.
    pub tls: bool,
    /// Certificates of the authorities that the brokers' certificates are checked against; empty: the system's.
    pub ca_file: String,
    /// This client's certificate, where the brokers ask for one.
    pub cert_file: String,
    /// Its private key.
    pub key_file: String,
    /// How to log in with the user and password of the URL.
    pub sasl_mechanism: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            partitions: 0,
            retention_bytes: Size::gib(10),
            retention: Span::from_secs(7 * 86_400),
            replication: 3,
            group: String::new(),
            append_timeout: Span::from_secs(10),
            request_timeout: Span::from_secs(5),
            buffer: Size::mib(64),
            connections: 4,
            identity_interval: Span::from_secs(10),
            tls: false,
            ca_file: String::new(),
            cert_file: String::new(),
            key_file: String::new(),
            sasl_mechanism: "none".to_owned(),
        }
    }
}

/// What a log is, for as long as it is the same log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// The topic's name.
    pub topic: String,
    /// Which life of the topic this is.
    pub topic_id: TopicId,
    /// The cluster's own name for itself.
    pub cluster_id: String,
    /// How many partitions it has.
    pub partitions: u32,
}

/// One record as it is read.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its offset.
    pub seq: Seq,
    /// The log's clock at the append, in milliseconds since 1970.
    pub append_ms: i64,
    /// The leader epoch it was appended under, where the log has leaders.
    pub leader_epoch: Option<i32>,
    /// The format version in its header; 0 without one.
    pub format: u32,
    /// Its bytes, as appended.
    pub payload: Bytes,
    /// Why the bytes cannot be trusted, when the log's own checksum says so.
    pub damage: Option<String>,
}

/// The answer to an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The record's offset; a log may acknowledge without one.
    pub seq: Option<Seq>,
    /// The log's clock at the append, in milliseconds since 1970.
    pub append_ms: i64,
}

/// The readable part of a partition: `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that is still there.
    pub start: Seq,
    /// One past the last.
    pub end: Seq,
}

/// A change of which lanes this process runs.
#[derive(Debug)]
pub enum Change {
    /// Run these partitions from now on.
    Assigned(Vec<u32>),
    /// Stop these, then say so: another process waits for it.
    Revoked {
        /// The partitions to stop.
        partitions: Vec<u32>,
        /// Sent when they have stopped.
        released: oneshot::Sender<()>,
    },
    /// These are somebody else's already: stop without ceremony.
    Lost(Vec<u32>),
}

/// What went wrong with the log.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Whether trying again can help, and, for an append, what is known of its effect (L1).
    pub kind: Kind,
    /// What failed, and what to do.
    pub message: String,
    /// Whether an offset was asked for that the log no longer has, or does not have yet.
    pub gone: bool,
    /// What the backend said.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of this kind, without a source.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), gone: false, source: None }
    }

    /// The offset asked for is not in the log.
    pub fn gone(message: impl Into<String>) -> Self {
        Self { gone: true, ..Self::new(Kind::Fatal, message) }
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

/// A partitioned append-only log. See the module's laws.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// What this log is. Constant while the process runs; that it is another log now is reported by `check`.
    fn topology(&self) -> &Topology;

    /// Partitions that it has now: more than its topology's when some were added since it was opened. Appends keep to the
    /// topology's; the others may be read.
    fn partitions(&self) -> u32 {
        self.topology().partitions
    }

    /// Why this is not the log any more that was opened, and never will be again, if that is known. Asks nobody.
    fn lost(&self) -> Option<String> {
        None
    }

    /// Appends one record and answers when it is durable (L1). `format` goes into its header.
    ///
    /// Concurrent appends may share one sync. Order between appends that overlap in time is not promised.
    async fn append(&self, partition: u32, format: u32, payload: Bytes) -> Result<Appended, Error>;

    /// The readable part of a partition, now.
    async fn bounds(&self, partition: u32) -> Result<Bounds, Error>;

    /// Reads from `from` on, at least one record and about `max_bytes` at most; nothing at or past the end.
    async fn read(&self, partition: u32, from: Seq, max_bytes: usize) -> Result<Vec<Record>, Error>;

    /// Opens a cursor at `from`, which must be within the bounds or their end.
    async fn open(&self, partition: u32, from: Seq, leader_epoch: Option<i32>) -> Result<Box<dyn Cursor>, Error>;

    /// Joins the group of workers. The channel ends when this process has left it.
    async fn join(&self) -> Result<mpsc::Receiver<Change>, Error>;

    /// Tells the log how far a lane has come: outside tools may read `checkpoint`; what lies below `needed` may be
    /// removed by retention. Never read back by us.
    async fn progress(&self, partition: u32, checkpoint: Seq, needed: Seq) -> Result<(), Error>;

    /// Whether the log can take an append now; the error says what is wrong.
    async fn check(&self) -> Result<(), Error>;

    /// Where records go that no lane can apply. With a log that has no such place they halt their lane.
    fn dead_letters(&self) -> Option<&dyn DeadLetters> {
        None
    }
}

/// A reader of one partition.
#[async_trait]
pub trait Cursor: Send {
    /// Waits for the next records: at least one, in order, without a gap. Cancelling it loses nothing.
    async fn next(&mut self) -> Result<Vec<Record>, Error>;
}
