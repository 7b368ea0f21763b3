//! What librdkafka says while it works: its log lines and its global errors, passed on to `tracing` without a flood, and
//! the reason why nobody answers, kept for whoever has to explain it.
//!
//! A broker that is away makes every client of the process complain twice a second. Of lines of one kind one is written
//! in ten seconds, with the number of those that were left out.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    client::ClientContext, config::RDKafkaLogLevel, consumer::ConsumerContext, error::KafkaError,
    types::RDKafkaErrorCode,
};

/// One line of a kind is written in this time.
const QUIET: Duration = Duration::from_secs(10);
/// Kinds that are told apart. There are some twenty.
const KINDS: usize = 64;

/// What the clients of a process have said.
#[derive(Default)]
pub(super) struct Chatter {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When a line of the kind was written last, and how many were not since.
    kinds: HashMap<String, (Instant, u64)>,
    /// The most telling complaint so far, and its rank.
    reason: Option<(u8, String)>,
}

impl Chatter {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a line of this kind may be written now, and how many were left out before it.
    fn admit(&self, kind: &str, now: Instant) -> Option<u64> {
        let mut state = self.lock();
        if let Some((last, left_out)) = state.kinds.get_mut(kind) {
            if now.duration_since(*last) < QUIET {
                *left_out += 1;
                return None;
            }
            *last = now;
            return Some(std::mem::take(left_out));
        }
        if state.kinds.len() < KINDS {
            state.kinds.insert(kind.to_owned(), (now, 0));
        }
        Some(0)
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if matches!(level, RDKafkaLogLevel::Debug) {
            tracing::debug!(facility, message, "kafka client");
            return;
        }
        let Some(left_out) = self.admit(facility, Instant::now()) else { return };
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => tracing::warn!(facility, message, left_out, "kafka client"),
            _ => tracing::info!(facility, message, left_out, "kafka client"),
        }
    }

    fn error(&self, code: RDKafkaErrorCode, reason: &str) {
        let rank = match code {
            RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL => 3,
            RDKafkaErrorCode::Resolve => 2,
            RDKafkaErrorCode::BrokerTransportFailure => 1,
            _ => 0,
        };
        {
            let mut state = self.lock();
            if state.reason.as_ref().is_none_or(|(known, _)| rank >= *known) {
                state.reason = Some((rank, reason.to_owned()));
            }
        }
        let kind = format!("{code:?}");
        if let Some(left_out) = self.admit(&kind, Instant::now()) {
            tracing::warn!(code = kind, reason, left_out, "kafka client reports an error");
        }
    }

    /// Why the brokers cannot be reached, as the clients have met it.
    pub(super) fn reason(&self) -> Option<String> {
        self.lock().reason.as_ref().map(|(_, reason)| reason.clone())
    }

    /// Whether what keeps the clients away is that they are not let in.
    pub(super) fn is_refused(&self) -> bool {
        self.lock().reason.as_ref().is_some_and(|(rank, _)| *rank == 3)
    }
}

/// The context of a client that has no other duties.
#[derive(Clone, Default)]
pub(super) struct Context(pub Arc<Chatter>);

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown), reason);
    }
}

impl ConsumerContext for Context {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_kind_are_thinned_out_and_counted() {
        let chatter = Chatter::default();
        let begin = Instant::now();
        assert_eq!(chatter.admit("FAIL", begin), Some(0));
        for second in 1..10 {
            assert_eq!(chatter.admit("FAIL", begin + Duration::from_secs(second)), None);
        }
        assert_eq!(chatter.admit("TERM", begin + Duration::from_secs(5)), Some(0), "another kind");
        assert_eq!(chatter.admit("FAIL", begin + Duration::from_secs(10)), Some(9));
        assert_eq!(chatter.admit("FAIL", begin + Duration::from_secs(11)), None);
    }

    #[test]
    fn a_refusal_explains_more_than_a_lost_connection() {
        let chatter = Chatter::default();
        assert_eq!(chatter.reason(), None);
        chatter.error(RDKafkaErrorCode::BrokerTransportFailure, "connection refused");
        chatter.error(RDKafkaErrorCode::Authentication, "wrong password");
        chatter.error(RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down");
        assert_eq!(chatter.reason().as_deref(), Some("wrong password"));
        assert!(chatter.is_refused());
    }
}
