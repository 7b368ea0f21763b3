//! The hot-view port: totals that include what is not in the store yet. Disposable (law 8).
//!
//! One entry per ([`HotKey`]: kind, namespace, series). It holds, per lane, a base `total@seq` (the total as of that seq
//! of the lane) and the pending deltas of packs, each under its (lane, seq). Its value is the sum of the bases plus the
//! pending deltas whose seq is above their lane's base.
//!
//! Laws every backend keeps, and `tests/it/contract/hot.rs` proves for each:
//! - **H1** Every write is idempotent and may be repeated or late: a base only rises, a pending delta at or below its
//!   lane's base is ignored, the same (lane, seq) is written once.
//! - **H2** Anything may be lost at any time. What is left never shows a value as [`View::Full`] that is not the sum above.
//! - **H3** A load counts only if its token is still in the entry when it finishes; bases published since it began win when higher.
//! - **H4** Bounded: past `hot.max_pending` deltas in one entry the rest is left out and the entry is stale until the base of
//!   the lane passes them; past the memory bound entries are evicted whole.
//!
//! Backends: [`memory`], [`redis`], [`none`]. Which one runs is decided in `app.rs` alone.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    item::{Lane, Seq},
    retry::Kind,
    units::{Size, Span},
};

pub mod memory;
pub mod none;
pub mod redis;

/// Settings under `hot.`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How long an acknowledgement waits for the hot view at most.
    pub timeout: Span,
    /// Most pending deltas in one entry.
    pub max_pending: usize,
    /// Entries that the lanes of a process publish a second at most.
    pub publish_budget: usize,
    /// Most memory of the in-process view; entries are evicted beyond it.
    pub memory: Size,
    /// How long a counter that nobody has counted is remembered as unknown.
    pub negative_ttl: Span,
    /// How long an entry in Redis lives after it was last published or loaded.
    pub ttl: Span,
    /// What every key in Redis begins with.
    pub prefix: String,
    /// The certificates that `rediss:` trusts, a file in PEM; empty: those of the system.
    pub ca_file: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeout: Span::from_millis(50),
            max_pending: 512,
            publish_budget: 50_000,
            memory: Size::mib(256),
            negative_ttl: Span::from_secs(1),
            ttl: Span::from_secs(3600),
            prefix: "tallymark".to_owned(),
            ca_file: String::new(),
        }
    }
}

/// What an entry counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HotKind {
    /// One series.
    Series,
    /// A whole counter, over all its series.
    Counter,
}

/// The name of an entry: for [`HotKind::Counter`] the key bytes of the counter's untagged series.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HotKey {
    /// What it counts.
    pub kind: HotKind,
    /// Series key bytes, see `item::write_series_key`.
    pub key: Bytes,
}

/// A pack's sum for one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Which entry.
    pub key: HotKey,
    /// The pack's sum for it.
    pub amount: i128,
}

/// A lane's total for one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Which entry.
    pub key: HotKey,
    /// The lane's total as of the published seq.
    pub total: i128,
}

/// One lane's part of a load: its total for the entry as of a seq; nothing when the lane has stored nothing yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadedBase {
    /// The lane.
    pub lane: Lane,
    /// Its total, and the seq it is as of.
    pub base: Option<(i128, Seq)>,
}

/// A load's token: whoever finishes a load must have begun it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// What the view says of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// Nothing, or not every lane's base: read the store.
    Miss,
    /// The value, including everything pending.
    Full {
        /// The sum.
        total: i128,
        /// Set while the value may miss something acknowledged.
        stale: bool,
    },
}

/// What a publish found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Published {
    /// Entries that exist and were written.
    pub written: usize,
    /// Entries whose view differed from the truth at the published seq.
    pub drifted: usize,
}

/// What went wrong with the hot view.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Whether trying again can help.
    pub kind: Kind,
    /// What failed.
    pub message: String,
    /// What the backend said.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The hot view. See the module's laws.
#[async_trait]
pub trait HotView: Send + Sync + 'static {
    /// Adds a pack's deltas, after the log has acknowledged it at `seq` of `lane`. Makes the entry of a counter that has none;
    /// whether also that of a series that nobody has read is the backend's choice.
    ///
    /// Keys may be slices of one buffer of the whole pack: a backend that keeps a key copies it.
    async fn add(&self, lane: Lane, seq: Seq, deltas: Vec<Delta>) -> Result<(), Error>;

    /// Sets bases as of `seq` of `lane` in the entries that exist, and drops the pending deltas that they cover.
    async fn publish(&self, lane: Lane, seq: Seq, bases: &[Base]) -> Result<Published, Error>;

    /// Which of these entries exist: the others need no publish.
    async fn known(&self, keys: &[HotKey]) -> Result<Vec<bool>, Error>;

    /// Reads entries, in the order of `keys`.
    async fn read(&self, keys: &[HotKey]) -> Result<Vec<View>, Error>;

    /// The lane's base in each of these entries, and the seq that it is as of; `None` where there is none. For an audit:
    /// a view that keeps none says so of all.
    async fn bases(&self, _lane: Lane, keys: &[HotKey]) -> Result<Vec<Option<(i128, Seq)>>, Error> {
        Ok(vec![None; keys.len()])
    }

    /// Entries that publishes of this lane have met since it was asked last, and that claim to know packs far above what was
    /// published: nobody's publish will ever reach them if the log has no such packs. A bounded number, each with what it claims.
    fn doubtful(&self, _lane: Lane) -> Vec<(HotKey, Seq)> {
        Vec::new()
    }

    /// Forgets entries, whole: whoever asks for them loads them again.
    async fn forget(&self, _keys: &[HotKey]) -> Result<(), Error> {
        Ok(())
    }

    /// Begins to load an entry: from now on publishes reach it.
    async fn begin_load(&self, key: &HotKey) -> Result<Token, Error>;

    /// Finishes a load: sets the bases and marks the entry full, if the token is still there. `ends` are the lanes' ends as
    /// of the load, one past the last seq (as in `log::Bounds`), of the lanes that had not stored everything by then: the
    /// entry is stale until the publishes of everything below each end are through. Answers whether it counted.
    async fn finish_load(
        &self,
        key: &HotKey,
        token: Token,
        bases: &[LoadedBase],
        ends: &[(Lane, Seq)],
    ) -> Result<bool, Error>;

    /// Notes that a lane's publishes up to `seq` are through.
    async fn published(&self, lane: Lane, seq: Seq) -> Result<(), Error>;

    /// From now on this process publishes everything of a lane from seq `from` on, and nothing below it. What lies below it
    /// and was not published by anybody is lost: a backend that outlives the process shows no entry as full that may lack it.
    fn publishes_from(&self, _lane: Lane, _from: Seq) {}

    /// A word for people: the backend's name; `false` when it holds nothing by design.
    fn describe(&self) -> (&'static str, bool);
}

/// A shared hot view.
pub type Shared = Arc<dyn HotView>;
