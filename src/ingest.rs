//! HTTP in: from a request's bytes to an acknowledgement of the log.
//!
//! A handler reads a body, parses it in one pass, and appends its items to the open packs of the partitions that their
//! series or subjects belong to. One task per partition closes packs and hands them to the log; one acknowledgement
//! answers every request that shares the pack (group commit). A 2xx is sent only after it (law 1).
//!
//! Promises: a request is accepted whole or not at all (`partial=true` apart); what is accepted and not acknowledged is
//! bounded by `ingest.buffer`; a client that goes away costs nobody else anything; a drain answers all that was accepted.
//!
//! Leaves to others: durability (`log`), what the items mean (`worker`), showing totals at once (`hot`).
//!
//! The pure parts, [`Parser`], [`Batch`] and [`Builder`], know no HTTP: the benches call them by themselves.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    hot::HotView,
    log::Log,
    progress::Progress,
    units::{Size, Span},
};

mod ack;
mod batch;
mod body;
mod budget;
mod builder;
mod encoding;
mod event;
mod increment;
mod json;
mod limits;
mod meters;
mod packer;
mod params;
mod parser;
mod routes;
mod shared;
mod text;
mod time;
mod trace;

pub use batch::{Batch, Kind};
pub use builder::{Builder, Closed, Head};
pub use limits::Limits;
pub use parser::{Framing, Parser, Unreadable};
pub use routes::{method_not_allowed, not_found, routes};
pub use time::parse_rfc3339_ms;

use shared::Shared;

/// Settings under `ingest.`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Largest body as sent.
    pub max_body: Size,
    /// Largest body after decompression.
    pub max_decoded: Size,
    /// Most items of one request.
    pub max_items: usize,
    /// How far ahead of now an item's time may be.
    pub max_future: Span,
    /// How old an item may be; 0: no bound.
    pub max_age: Span,
    /// How long a body may take to arrive; beyond it: 408.
    pub body_timeout: Span,
    /// How long a pack waits for more items.
    pub linger: Span,
    /// A pack closes at this size.
    pub pack_bytes: Size,
    /// Unacknowledged packs of one partition.
    pub in_flight: usize,
    /// Bytes of bodies being read and of items that are accepted into packs and not acknowledged; beyond it: 429.
    pub buffer: Size,
    /// How long a request waits for the log; beyond it: 503.
    pub ack_timeout: Span,
    /// The format version that packs are written in.
    pub format: u32,
    /// The time buckets that every increment counts into: `minute`, `hour`, `day`.
    pub grains: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_body: Size::mib(5),
            max_decoded: Size::mib(20),
            max_items: 10_000,
            max_future: Span::from_secs(86_400),
            max_age: Span::default(),
            body_timeout: Span::from_secs(30),
            linger: Span::from_millis(1),
            pack_bytes: Size::kib(256),
            in_flight: 2,
            buffer: Size::mib(64),
            ack_timeout: Span::from_secs(10),
            format: crate::pack::WRITTEN,
            grains: vec!["hour".to_owned(), "day".to_owned()],
        }
    }
}

/// Why ingest cannot be built or has stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that does not work, with the remedy.
    #[error("ingest.{key}: {message}")]
    Setting {
        /// The setting below `ingest.`.
        key: &'static str,
        /// What is wrong with its value, and what to write instead.
        message: String,
    },
    /// The log or the store does not fit.
    #[error("{0}")]
    Unfit(String),
    /// A task of a partition ended by itself: an invariant does not hold.
    #[error("the packer of a partition stopped by itself: {0}; restart this process and report it")]
    Packer(String),
}

/// What ingest needs from the rest of the program.
#[derive(Clone)]
pub struct Deps {
    /// Where packs go.
    pub log: Arc<dyn Log>,
    /// Where totals are shown at once.
    pub hot: Arc<dyn HotView>,
    /// Answers `ack=stored`.
    pub progress: Arc<Progress>,
    /// The store's shard count, which routes increments.
    pub shards: u32,
    /// How long an acknowledgement waits for the hot view at most (`hot.timeout`).
    pub hot_timeout: Duration,
}

/// Owns the packers. Runs until it is told to stop, then drains.
pub struct Service {
    shared: Arc<Shared>,
}

/// Accepts items. Cheap to clone; what it accepts is acknowledged only while the [`Service`] runs.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Service {
    /// Checks the settings and builds the packers, one for each partition of the log.
    ///
    /// # Errors
    /// A setting that does not work, named with its remedy.
    pub fn new(options: Options, deps: Deps) -> Result<(Self, Handle), Error> {
        let limits = Limits::new(&options)?;
        let shared = Arc::new(Shared::new(limits, deps)?);
        Ok((Self { shared: shared.clone() }, Handle { shared }))
    }

    /// Packs what is accepted. At `shutdown` intake stops (503 `draining`), what was accepted is written without
    /// lingering, and this returns when every accepted pack is answered.
    ///
    /// # Errors
    /// [`Error::Packer`] when a partition's task ends by itself; intake is closed then.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut packers = JoinSet::new();
        for partition in 0..self.shared.packers.len() {
            packers.spawn(packer::run(self.shared.clone(), partition));
        }
        let early = tokio::select! {
            () = shutdown.cancelled() => None,
            ended = packers.join_next() => ended,
        };
        self.shared.close();
        let mut failure = early.map(|ended| {
            Error::Packer(ended.err().map_or_else(|| "it ended early".to_owned(), |error| error.to_string()))
        });
        while let Some(ended) = packers.join_next().await {
            if let Err(error) = ended {
                failure.get_or_insert_with(|| Error::Packer(error.to_string()));
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

impl Handle {
    /// Bytes of bodies being read and of items in open or unacknowledged packs.
    pub fn buffered_bytes(&self) -> usize {
        self.shared.budget.used()
    }

    /// How far this process's clock is ahead of the log's, as of the last acknowledgement, in milliseconds. Beyond five
    /// minutes either way an ingest is not ready (law 7).
    pub fn clock_ahead_ms(&self) -> i64 {
        self.shared.clock_ahead_ms.load(Ordering::Relaxed)
    }
}
