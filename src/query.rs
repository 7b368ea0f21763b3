//! The query room: totals, series, events and receipts over HTTP.
//!
//! - [`routes`] is the router, and what every route has in common: time limit, metrics, the namespace header;
//! - `params` reads query strings, before anything is looked up; `pages` reads and writes cursors;
//! - `layout` knows where the store keeps the rows of a series or a counter; `merge` reads many shards in one order;
//! - `freshness` compares the log's ends with what is stored: what an answer may miss;
//! - `read_through` answers from the hot view and loads what it lacks; `scan` reads every series of a counter;
//! - `totals`, `groups`, `counters`, `series`, `events` and `receipts` are the answers.
//!
//! Promises: an answer that may miss something acknowledged says `stale`; a sum past 64 bits is refused, never wrapped; a
//! query holds bounded memory and ends within `query.timeout`. When the hot view is away the store answers; when the
//! store is away too, a 503 says so. Writing is nobody's business here.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::{
    hot::{self, HotView},
    log::Log,
    problem::Problem,
    progress::Progress,
    store::{self, Store},
    units::Span,
};

mod counters;
mod events;
mod freshness;
mod groups;
mod layout;
mod merge;
mod metered;
mod pages;
mod params;
mod read_through;
mod receipts;
mod routes;
mod scan;
mod series;
mod tags;
mod totals;

pub use routes::routes;
pub(crate) use {freshness::rfc3339, params::Params};

/// Settings under `query.`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How long a query may take.
    pub timeout: Span,
    /// Most series that one query may read.
    pub max_series: usize,
    /// Queries that read every series of a counter at once; others wait for their turn.
    pub scans: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { timeout: Span::from_secs(10), max_series: 2_000_000, scans: 4 }
    }
}

/// How far the store is behind the log now, in milliseconds; `None` while nobody has measured it.
pub type LagMs = Arc<dyn Fn() -> Option<i64> + Send + Sync>;

/// What queries read from.
pub struct Deps {
    /// Totals and events.
    pub store: Arc<dyn Store>,
    /// Totals that include what is not in the store yet.
    pub hot: Arc<dyn HotView>,
    /// Where the log ends.
    pub log: Arc<dyn Log>,
    /// What is stored.
    pub progress: Arc<Progress>,
    /// How far the store is behind.
    pub lag_ms: LagMs,
}

/// Answers queries. Cheap to clone; it has no task of its own.
#[derive(Clone)]
pub struct Handle(Arc<Inner>);

impl Handle {
    /// Answers from `deps` within the bounds of `options`; of the hot view's settings the timeout and `negative_ttl` count.
    pub fn new(options: &Options, hot: &hot::Options, deps: Deps) -> Self {
        Self(Arc::new(Inner {
            timeout: options.timeout.0,
            max_series: options.max_series,
            hot_timeout: hot.timeout.0,
            scans: Semaphore::new(options.scans.clamp(1, Semaphore::MAX_PERMITS)),
            hot_holds: deps.hot.describe().1,
            store: deps.store,
            hot: deps.hot,
            log: deps.log,
            progress: deps.progress,
            lag_ms: deps.lag_ms,
            unknown: read_through::Unknown::new(hot.negative_ttl.0),
            flights: read_through::Flights::default(),
            metrics: metered::Handles::new(),
            store_away: AtomicBool::new(false),
        }))
    }
}

struct Inner {
    timeout: Duration,
    max_series: usize,
    hot_timeout: Duration,
    scans: Semaphore,
    /// Whether the hot view holds anything by design.
    hot_holds: bool,
    store: Arc<dyn Store>,
    hot: Arc<dyn HotView>,
    log: Arc<dyn Log>,
    progress: Arc<Progress>,
    lag_ms: LagMs,
    unknown: read_through::Unknown,
    flights: read_through::Flights,
    metrics: metered::Handles,
    store_away: AtomicBool,
}

/// Why a query has no answer.
#[derive(Clone, Debug)]
enum Error {
    /// The store did not answer.
    Store(Arc<store::Error>),
    /// The request, or what it asks for, is at fault.
    Problem(Problem),
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl Inner {
    /// Tells the client of an error, and the log of the first of a row of store errors.
    fn problem(&self, error: Error) -> Problem {
        match error {
            Error::Problem(problem) => problem,
            Error::Store(error) => {
                self.metrics.store_error(error.kind);
                if !self.store_away.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, kind = error.kind.label(), "the store does not answer queries");
                }
                Problem::unavailable("store_unavailable", format!("the store did not answer: {error}; try again"))
            }
        }
    }

    /// Notes that the store has answered.
    fn store_answered(&self) {
        if self.store_away.load(Ordering::Relaxed) && self.store_away.swap(false, Ordering::Relaxed) {
            tracing::info!("the store answers queries again");
        }
    }
}

/// A sum as a JSON integer: past 64 bits it is refused.
fn number(sum: i128, of: impl fmt::Display) -> Result<i64, Problem> {
    i64::try_from(sum).map_err(|_| {
        let detail = format!("the sum of {of} is {sum}, which does not fit a 64-bit integer; ask for fewer series");
        Problem::new(axum::http::StatusCode::UNPROCESSABLE_ENTITY, "overflow", detail)
    })
}
