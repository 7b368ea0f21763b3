//! Whether an idempotent producer may write yet.
//!
//! It asks a broker for its producer id in the background. Where no broker is connected at that moment, or the broker has
//! to wait for its own controller, the library asks again only after 500 ms, and every append waits with it. Nothing but
//! the library's statistics tells when the id is there (`STATISTICS.md`, `eos.idemp_state`).

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

use serde::Deserialize;

/// How often the library tells, in milliseconds: what a start waits at most for having been told. It goes on telling, which costs.
pub(super) const INTERVAL_MS: &str = "500";

#[derive(Deserialize)]
struct Statistics {
    eos: Option<Eos>,
}

#[derive(Deserialize)]
struct Eos {
    idemp_state: String,
}

/// A producer's id, awaited.
#[derive(Default)]
pub(super) struct Assigned {
    is: Mutex<bool>,
    changed: Condvar,
}

impl Assigned {
    /// Takes in what the library says of itself, a JSON object.
    pub(super) fn note(&self, statistics: &[u8]) {
        let mut is = self.is.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked once: what a producer that is at work says is not read.
        if *is {
            return;
        }
        let told = serde_json::from_slice::<Statistics>(statistics);
        if told.is_ok_and(|told| told.eos.is_some_and(|eos| eos.idemp_state == "Assigned")) {
            *is = true;
            self.changed.notify_all();
        }
    }

    /// Whether the producer has its id, waiting at most `longest` for it. Blocks.
    pub(super) fn wait(&self, longest: Duration) -> bool {
        let is = self.is.lock().unwrap_or_else(PoisonError::into_inner);
        let (is, _) = self.changed.wait_timeout_while(is, longest, |is| !*is).unwrap_or_else(PoisonError::into_inner);
        *is
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_producer_that_has_its_id_may_write() {
        let assigned = Assigned::default();
        for told in [r#"{"name":"x"}"#, r#"{"eos":{"idemp_state":"WaitPID","producer_id":-1}}"#, "{"] {
            assigned.note(told.as_bytes());
            assert!(!assigned.wait(Duration::ZERO), "{told}");
        }
        assigned.note(br#"{"brokers":{"b":{"nodeid":1}},"eos":{"idemp_state":"Assigned","producer_id":7}}"#);
        assert!(assigned.wait(Duration::ZERO));
    }
}
