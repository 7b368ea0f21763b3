//! The worker: lanes that read the log, deduplicate, fold, flush, and move the checkpoint.
//!
//! - [`assignment`]: which lanes this process runs; the service.
//! - `tenure`: a lane from its assignment to its end; `lane`: its loop; `load`: what it reads; `resume`: taking it over; `halt`: why it stops; `halting`:
//!   what it does then.
//! - [`machine`]: the lane as a pure function of its log; [`dedup`], [`fold`], [`claims`], [`accepted`],
//!   `stamp`, `index`: its parts.
//! - [`poison`]: what no lane can apply; [`replays`]: which dead letters were applied after all.
//! - [`flush`]: writing and publishing, the only room that retries writes; `budget`: what publishing may cost, `siblings`: what
//!   a lane has in several layouts; [`trail`]: when the checkpoint may move.
//! - [`told`]: how they are told something together. `watch`: which of the store's servers have started again, and may have forgotten; [`lives`]: what their answers mean.
//! - [`board`]: what the lanes are doing, for whoever watches.
//!
//! The pure rooms know no async, no I/O and no clock. The laws they keep are told in `docs/architecture.md`.

use serde::{Deserialize, Serialize};

use crate::units::{Size, Span};

pub mod accepted;
pub mod assignment;
pub mod board;
mod budget;
pub mod claims;
pub mod dedup;
pub mod flush;
pub mod fold;
pub mod halt;
mod halting;
mod index;
mod lane;
pub mod lives;
mod load;
pub mod machine;
mod meters;
pub mod poison;
pub mod replays;
pub(crate) mod resume;
mod siblings;
mod stamp;
mod tenure;
pub mod told;
pub mod trail;
mod watch;

pub use assignment::{Deps, Error, Service};

/// Settings under `worker.`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// A lane flushes when its oldest unflushed delta is this old,
    pub flush_age: Span,
    /// or when so many rows wait to be written,
    pub flush_rows: usize,
    /// or when what waits takes so much memory.
    pub flush_bytes: Size,
    /// How far the checkpoint trails behind what is stored.
    pub checkpoint_delay: Span,
    /// Rows that a lane keeps in memory; at the bound clean rows are evicted, or the lane pauses.
    pub max_rows: usize,
    /// A shard with more rows than this is read row by row instead of as one slice.
    pub slice_rows: usize,
    /// Bytes of packs that a lane reads ahead of Kafka.
    pub read_bytes: Size,
    /// How long a worker may be silent before its lanes go to another.
    pub session_timeout: Span,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            flush_age: Span::from_secs(1),
            flush_rows: 50_000,
            flush_bytes: Size::mib(32),
            checkpoint_delay: Span::from_secs(30),
            max_rows: 1_000_000,
            slice_rows: 10_000,
            read_bytes: Size::mib(8),
            session_timeout: Span::from_secs(10),
        }
    }
}

/// Settings under `dedup.`: pinned in the epoch when it begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DedupOptions {
    /// How long an id is remembered, in log time.
    pub window: Span,
    /// How many ids a lane remembers at most.
    pub max_ids: u64,
}

impl Default for DedupOptions {
    fn default() -> Self {
        Self { window: Span::from_secs(600), max_ids: 1_000_000 }
    }
}
