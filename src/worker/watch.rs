//! The watch over the store's servers: asks them every few seconds which of their lives they are in, one asker for all
//! lanes of the process. What the answers mean is `lives`'s; what follows from it is the lanes': they end their run when a
//! server has started again, and hold their checkpoints while nothing is sure.
//!
//! **When a checkpoint may be written.** Let a row be acknowledged at `a`. A server holds it in memory until it syncs, for
//! `S` at most (its commit log's period), and forgets it if its power goes before `a + S`. An asking that begins at `q`, and
//! finds the server in the life that it was in before `a`, says that its power had not gone by `q`: whatever answers after a
//! cut is another life. So the row is safe from `q ≥ a + S` on. We do not know `S`; that it is shorter than
//! `worker.checkpoint_delay`, `D`, is what law 5 rests on anyway. A checkpoint passes the row at `a + D` at the earliest, and
//! [`Belief::until`] lets it do so only when `q ≥ a + D · 2/3`: that is `q ≥ a + S` as long as `S ≤ D · 2/3` (20 s of 30;
//! servers have 10 s). The last third is for the asking itself: one begins every `D/6`, so in good times a `q` that is late
//! enough has been answered when `a + D` comes, and no checkpoint waits for one.
//!
//! What was acknowledged before the first asking has no life to be compared with: lanes begin after it.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    lives::{Lives, News},
    told::{Teller, Told},
};
use crate::{
    metrics,
    store::{Generations, Store},
};

/// No longer than this between two askings.
const MOST: Duration = Duration::from_secs(5);
/// And no shorter.
const LEAST: Duration = Duration::from_millis(10);
/// A server may be away for so many times the checkpoint's delay before the lanes go on without it.
const PATIENCE: u32 = 4;

/// What the lanes may believe.
#[derive(Clone, Copy, Debug)]
pub(super) enum Belief {
    /// Nobody was asked yet.
    Nothing,
    /// No server forgets what it has acknowledged while this process lives.
    Everything,
    /// The servers are watched.
    Watched {
        /// How often one has started again.
        restarts: u64,
        /// When the last asking began that left nobody to wait for.
        sure: Option<Instant>,
    },
}

impl Belief {
    /// How often a server has started again; `None` before the first asking.
    pub(super) fn restarts(self) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::Everything => Some(0),
            Self::Watched { restarts, .. } => Some(restarts),
        }
    }

    /// Until when a checkpoint that trails by `delay` may be due and be written (see the module), in milliseconds since
    /// `started`.
    pub(super) fn until_ms(self, delay: Duration, started: Instant) -> i64 {
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        match self {
            Self::Nothing | Self::Watched { sure: None, .. } => i64::MIN,
            Self::Everything => i64::MAX,
            // Acknowledged at `a`, due at `a + delay`: that sure ≥ a + delay · 2/3 means a + delay ≤ sure + delay / 3.
            Self::Watched { sure: Some(sure), .. } => {
                let until = sure + delay / 3;
                ms(until.saturating_duration_since(started)) - ms(started.saturating_duration_since(until))
            }
        }
    }
}

/// The asker.
pub(super) struct Watch {
    store: Arc<dyn Store>,
    delay: Duration,
    belief: Teller<Belief>,
}

impl Watch {
    /// One that has not asked yet, and where it will say what it hears.
    pub(super) fn new(store: Arc<dyn Store>, delay: Duration) -> (Self, Told<Belief>) {
        let belief = Teller::new(Belief::Nothing);
        let told = belief.listen();
        (Self { store, delay, belief }, told)
    }

    /// Asks until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.ask() => {}
        }
    }

    async fn ask(&self) {
        let started = Instant::now();
        // A checkpoint that does not trail says that the store loses nothing.
        let mut answers = if self.delay.is_zero() { Generations::new() } else { self.store.generations().await };
        if answers.is_empty() {
            self.belief.tell(Belief::Everything);
            return std::future::pending().await;
        }
        let every = (self.delay / 6).clamp(LEAST, MOST);
        let (restarted, away) = (metrics::STORE_RESTARTS.counter(&[]), metrics::STORE_AWAY.gauge(&[]));
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let mut lives = Lives::new(ms(self.delay.saturating_mul(PATIENCE)));
        let mut began = started;
        loop {
            let before = lives.restarts();
            for (server, news) in lives.heard(ms(began - started), answers) {
                tell(&server, news);
            }
            restarted.increment(lives.restarts() - before);
            away.set(lives.away() as f64);
            let sure = lives.sure_ms().map(|sure| started + Duration::from_millis(sure.unsigned_abs()));
            self.belief.tell(Belief::Watched { restarts: lives.restarts(), sure });
            tokio::time::sleep_until(began + every).await;
            began = Instant::now();
            answers = self.store.generations().await;
        }
    }
}

fn tell(server: &str, news: News) {
    match news {
        News::Restarted => tracing::warn!(server, "store server has started again, lanes repeat what it may have lost"),
        News::Away(error) => tracing::warn!(server, error, "store server does not answer, checkpoints wait for it"),
        News::GivenUp => {
            tracing::warn!(server, "store server stays away, lanes repeat what it may have lost and go on without it")
        }
        News::Back => tracing::info!(server, "store server answers again"),
    }
}
