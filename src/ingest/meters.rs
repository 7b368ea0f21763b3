//! The metric handles of ingest, registered once and kept.

use std::time::Duration;

use metrics::{Counter, Histogram};

use super::batch::Kind;
use crate::{
    metrics::{
        HOT_SKIPPED, HTTP_REQUESTS, HTTP_SECONDS, INGEST_ITEMS, INGEST_REFUSED, INGEST_REJECTED, LOG_APPEND_FAILURES,
        LOG_APPEND_SECONDS, PACK_BYTES, PACK_ITEMS, PACK_REQUESTS,
    },
    problem::ItemError,
    retry,
};

const ROUTES: [&str; 2] = ["/v1/increments", "/v1/events"];
const STATUSES: [&str; 9] = ["200", "202", "400", "405", "408", "413", "415", "429", "503"];
/// Every code that an item can be refused with.
const CODES: [&str; 12] = [
    "empty",
    "malformed",
    "malformed_json",
    "missing",
    "not_an_integer",
    "out_of_range",
    "repeated_field",
    "too_deep",
    "too_long",
    "too_many",
    "unknown_field",
    "wrong_type",
];
const REASONS: [&str; 5] = ["overloaded", "draining", "log_unavailable", "ack_timeout", "body_timeout"];

pub(super) struct Meters {
    requests: [[Counter; STATUSES.len()]; ROUTES.len()],
    seconds: [Histogram; ROUTES.len()],
    items: [Counter; 2],
    rejected: [Counter; CODES.len()],
    refused: [Counter; REASONS.len()],
    pub pack_bytes: Histogram,
    pub pack_items: Histogram,
    pub pack_requests: Histogram,
    pub append_seconds: Histogram,
    append_failures: [Counter; 3],
    pub hot_timeout: Counter,
    pub hot_error: Counter,
    pub hot_no_offset: Counter,
}

impl Meters {
    pub(super) fn new() -> Self {
        Self {
            requests: ROUTES.map(|route| STATUSES.map(|status| HTTP_REQUESTS.counter(&[route, status]))),
            seconds: ROUTES.map(|route| HTTP_SECONDS.histogram(&[route])),
            items: [Kind::Increment, Kind::Event].map(|kind| INGEST_ITEMS.counter(&[kind.label()])),
            rejected: CODES.map(|code| INGEST_REJECTED.counter(&[code])),
            refused: REASONS.map(|reason| INGEST_REFUSED.counter(&[reason])),
            pack_bytes: PACK_BYTES.histogram(&[]),
            pack_items: PACK_ITEMS.histogram(&[]),
            pack_requests: PACK_REQUESTS.histogram(&[]),
            append_seconds: LOG_APPEND_SECONDS.histogram(&[]),
            append_failures: [retry::Kind::Transient, retry::Kind::Permanent, retry::Kind::Fatal]
                .map(|kind| LOG_APPEND_FAILURES.counter(&[kind.label()])),
            hot_timeout: HOT_SKIPPED.counter(&["timeout"]),
            hot_error: HOT_SKIPPED.counter(&["error"]),
            hot_no_offset: HOT_SKIPPED.counter(&["no_offset"]),
        }
    }

    pub(super) fn answered(&self, kind: Kind, status: &str, took: Duration) {
        if let Some(at) = STATUSES.iter().position(|known| *known == status) {
            self.requests[kind as usize][at].increment(1);
        }
        self.seconds[kind as usize].record(took);
    }

    pub(super) fn acknowledged(&self, increments: usize, events: usize) {
        for (counter, count) in self.items.iter().zip([increments, events]) {
            if count > 0 {
                counter.increment(count as u64);
            }
        }
    }

    pub(super) fn rejected(&self, errors: &[ItemError]) {
        for error in errors {
            if let Some(at) = CODES.iter().position(|code| *code == error.code) {
                self.rejected[at].increment(1);
            }
        }
    }

    /// Counts a request that was refused for want of room or of the log; other codes are the client's.
    pub(super) fn refused(&self, code: &str) {
        if let Some(at) = REASONS.iter().position(|reason| *reason == code) {
            self.refused[at].increment(1);
        }
    }

    pub(super) fn append_failed(&self, kind: retry::Kind) {
        let at = match kind {
            retry::Kind::Transient => 0,
            retry::Kind::Permanent => 1,
            retry::Kind::Fatal => 2,
        };
        self.append_failures[at].increment(1);
    }
}
