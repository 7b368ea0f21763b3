//! Lag: what is in the log and not in the store, per lane and for the group, in packs and in seconds.
//!
//! Every `lag.interval` the sampler asks the log where each partition ends, the store how far each lane has come and the
//! board what this process's lanes are doing, and publishes a [`Snapshot`]. The figures ([`track`]) and the verdict
//! ([`status`]) are pure; only `sampler` does I/O, each question with a deadline, so that a snapshot is never older than
//! a few seconds: when the log or the store cannot be asked, the last figures stay, the age of the oldest pack goes on
//! growing, and the lane's status is at least WARN and says so.
//!
//! Who else uses it: `admin` serves the snapshot, the query room says in its answers how far the store trails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use crate::{clock, log::Log, store::Store, units::Span, worker::board::Board};

mod model;
mod sampler;
pub mod status;
pub mod track;

pub use model::{LaneLag, Snapshot};
pub use status::Status;

/// Settings under `lag.`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How often lag is measured.
    pub interval: Span,
    /// A lane whose oldest unstored pack is older than this is in WARN.
    pub warn: Span,
    /// A lane that has lag and has not moved for this long is in STALL, or in STOP if nobody runs it.
    pub stall: Span,
    /// Over how long a lane's lag must grow for a WARN before `warn` is reached.
    pub window: Span,
    /// How long a measurement waits for the log or the store to answer.
    pub timeout: Span,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            interval: Span::from_secs(1),
            warn: Span::from_secs(30),
            stall: Span::from_secs(10),
            window: Span::from_secs(60),
            timeout: Span::from_secs(2),
        }
    }
}

/// No measuring more often than this, whatever `lag.interval` says: it would load what it measures.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// What lag is measured from.
pub struct Deps {
    /// Where each partition ends, and when its packs were appended.
    pub log: Arc<dyn Log>,
    /// How far each lane has come, whichever process runs it.
    pub store: Arc<dyn Store>,
    /// What this process's lanes are doing.
    pub board: Board,
}

/// Measures lag until it is told to stop.
///
/// The recorder of metrics must be installed before [`Service::new`]: the gauges are registered there.
pub struct Service {
    sampler: sampler::Sampler,
    interval: Duration,
    snapshots: watch::Sender<Arc<Snapshot>>,
    answers: watch::Sender<(u64, Arc<Snapshot>)>,
    ask: Arc<Ask>,
}

/// Questions between two measurements: whoever just posted items wants to know of them now.
#[derive(Debug)]
struct Ask {
    asked: AtomicU64,
    wake: Notify,
    timeout: Duration,
}

impl Service {
    /// A service and a handle that reads what it measures. Until the first measurement every lane is in WARN and says
    /// that it has not been measured.
    pub fn new(options: Options, deps: Deps) -> (Self, Handle) {
        let partitions = deps.log.topology().partitions;
        let (snapshots, seen) = watch::channel(Arc::new(Snapshot::unmeasured(partitions)));
        let interval = options.interval.0.max(SHORTEST_INTERVAL);
        let (answers, answered) = watch::channel((0, seen.borrow().clone()));
        let ask = Arc::new(Ask { asked: AtomicU64::new(0), wake: Notify::new(), timeout: options.timeout.0 });
        let sampler = sampler::Sampler::new(options, deps);
        let service = Self { sampler, interval, snapshots, answers, ask: ask.clone() };
        (service, Handle { seen, answered, ask })
    }

    /// For a process that has the log and the store for itself, and runs no lane: nobody else can be running one.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.sampler.alone();
        self
    }

    /// Measures at once and then every `lag.interval`, until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let started = Instant::now();
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let measure = async {
            loop {
                let due = tokio::select! {
                    _ = ticks.tick() => true,
                    () = self.ask.wake.notified() => false,
                };
                // Whoever asked before this line is answered by a measurement that began after the question.
                let asked = self.ask.asked.load(Ordering::Acquire);
                let snapshot = Arc::new(self.sampler.sample(|| (started.elapsed(), clock::now_ms())).await);
                if due {
                    self.snapshots.send_replace(snapshot.clone());
                }
                self.answers.send_replace((asked, snapshot));
                tokio::time::sleep(SHORTEST_INTERVAL).await;
            }
        };
        // A measurement that is cut off has changed nothing but the sampler's own memory, which ends with it.
        shutdown.run_until_cancelled(measure).await;
    }
}

/// Reads what the service measured last. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    seen: watch::Receiver<Arc<Snapshot>>,
    answered: watch::Receiver<(u64, Arc<Snapshot>)>,
    ask: Arc<Ask>,
}

impl Handle {
    /// A measurement that begins after this call; the last one when the service does not answer in time.
    pub async fn measure(&self) -> Arc<Snapshot> {
        let mut answered = self.answered.clone();
        let question = self.ask.asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.ask.wake.notify_one();
        let answer =
            tokio::time::timeout(self.ask.timeout, answered.wait_for(|(answered, _)| *answered >= question)).await;
        match answer {
            Ok(Ok(answer)) => answer.1.clone(),
            Ok(Err(_)) | Err(_) => self.snapshot(),
        }
    }

    /// The last measurement.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.seen.borrow().clone()
    }

    /// Every measurement from now on; a slow reader sees the newest only. Ends with the service.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.seen.clone()
    }

    /// The age of the oldest pack that is not in the store, in milliseconds; `None` while it is not known.
    pub fn lag_ms(&self) -> Option<i64> {
        #[expect(clippy::cast_possible_truncation, reason = "an age in milliseconds, far below 2^53")]
        self.seen.borrow().lag_seconds.map(|seconds| (seconds * 1000.0).round() as i64)
    }
}
