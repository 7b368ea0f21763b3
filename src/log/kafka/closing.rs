//! Ending clients: librdkafka's need a moment to say goodbye, and must not hold up the runtime meanwhile.
//!
//! Whoever drops a client hands it to a thread here. Dropping the log waits for these threads, for a moment: a member that
//! has left its group in good order is replaced at once, one that just vanished when its session has run out.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

/// How long the end of the log waits for its clients: a member that leaves a group that is changing waits for that.
const PATIENCE: Duration = Duration::from_secs(5);

/// The clients of a log that are ending.
#[derive(Clone, Default)]
pub(super) struct Closing(Arc<(Mutex<usize>, Condvar)>);

/// Counts as one that is ending until it is dropped.
pub(super) struct Ending(Closing);

impl Drop for Ending {
    fn drop(&mut self) {
        let (running, changed) = &*self.0.0;
        *running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        changed.notify_all();
    }
}

impl Closing {
    /// Whoever holds the answer is waited for.
    pub(super) fn begin(&self) -> Ending {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Ending(self.clone())
    }

    /// Runs something that takes a while on a thread of its own.
    pub(super) fn run(&self, end: impl FnOnce() + Send + 'static) {
        let ending = self.begin();
        let spawned = thread::Builder::new().name("log-closer".to_owned()).spawn(move || {
            end();
            drop(ending);
        });
        // Without a thread the closure has been dropped by now, and what it held with it.
        if let Err(error) = spawned {
            tracing::warn!(error = %error, "no thread to end a client on");
        }
    }

    /// Waits until everything has ended, or for as long as that is worth.
    pub(super) fn wait(&self) {
        let (running, changed) = &*self.0;
        let running = running.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(running, PATIENCE, |running| *running > 0);
        let left = waited.map_or_else(|poisoned| *poisoned.into_inner().0, |(running, _)| *running);
        if left > 0 {
            tracing::warn!(clients = left, "clients of the log have not ended in time");
        }
    }
}
