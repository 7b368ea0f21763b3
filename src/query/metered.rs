//! Metric handles of the query room, taken from the catalogue once.

use std::time::Duration;

use axum::http::StatusCode;
use metrics::{Counter, Histogram};

use crate::{metrics as catalogue, retry::Kind};

/// A route, as metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Counters,
    Counter,
    Series,
    Events,
    Receipt,
}

const ROUTES: [(Route, &str); 5] = [
    (Route::Counters, "/v1/counters"),
    (Route::Counter, "/v1/counters/{counter}"),
    (Route::Series, "/v1/series"),
    (Route::Events, "/v1/events"),
    (Route::Receipt, "/v1/receipts/{receipt}"),
];

/// Every status that a query answers with.
const STATUSES: [StatusCode; 7] = [
    StatusCode::OK,
    StatusCode::BAD_REQUEST,
    StatusCode::NOT_FOUND,
    StatusCode::UNPROCESSABLE_ENTITY,
    StatusCode::INTERNAL_SERVER_ERROR,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
];

struct PerRoute {
    answers: Vec<(StatusCode, Counter)>,
    seconds: Histogram,
}

/// The handles.
pub(super) struct Handles {
    routes: Vec<PerRoute>,
    /// Reads of the hot view that were answered in full.
    pub(super) hit: Counter,
    /// Reads that were answered, and may miss something.
    pub(super) stale: Counter,
    /// Reads that the store had to answer.
    pub(super) miss: Counter,
    /// Reads that failed.
    pub(super) error: Counter,
    store_errors: [(Kind, Counter); 3],
}

impl Handles {
    pub(super) fn new() -> Self {
        let per_route = |(_, pattern): &(Route, &str)| PerRoute {
            answers: STATUSES
                .iter()
                .map(|status| (*status, catalogue::HTTP_REQUESTS.counter(&[pattern, status.as_str()])))
                .collect(),
            seconds: catalogue::HTTP_SECONDS.histogram(&[pattern]),
        };
        let reads = |result| catalogue::HOT_READS.counter(&[result]);
        Self {
            routes: ROUTES.iter().map(per_route).collect(),
            hit: reads("hit"),
            stale: reads("stale"),
            miss: reads("miss"),
            error: reads("error"),
            store_errors: [Kind::Transient, Kind::Permanent, Kind::Fatal]
                .map(|kind| (kind, catalogue::STORE_ERRORS.counter(&[kind.label()]))),
        }
    }

    pub(super) fn answered(&self, route: Route, status: StatusCode, took: Duration) {
        let at = ROUTES.iter().position(|(known, _)| *known == route).expect("every route is listed");
        self.routes[at].seconds.record(took.as_secs_f64());
        if let Some((_, counter)) = self.routes[at].answers.iter().find(|(known, _)| *known == status) {
            counter.increment(1);
        }
    }

    pub(super) fn store_error(&self, kind: Kind) {
        if let Some((_, counter)) = self.store_errors.iter().find(|(known, _)| *known == kind) {
            counter.increment(1);
        }
    }
}
