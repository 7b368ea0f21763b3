//! The router, and what every route has in common.

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde::Serialize;

use super::{Error, Handle, Inner, counters, events, metered::Route, receipts, series, totals};
use crate::{problem::Problem, units::Span};

/// The routes of the query room. Methods and paths that it does not serve are left to whoever merges routers.
pub fn routes(handle: Handle) -> Router {
    Router::new()
        .route("/v1/counters", get(get_counters))
        .route("/v1/counters/{*counter}", get(get_counter))
        .route("/v1/series", get(get_series))
        .route("/v1/events", get(get_events))
        .route("/v1/receipts/{*receipt}", get(get_receipt))
        .with_state(handle)
}

async fn get_counters(State(Handle(inner)): State<Handle>, uri: Uri, headers: HeaderMap) -> Response {
    answer(&inner, Route::Counters, counters::get(&inner, &uri, &headers)).await
}

async fn get_counter(State(Handle(inner)): State<Handle>, uri: Uri, headers: HeaderMap) -> Response {
    answer(&inner, Route::Counter, totals::get(&inner, &uri, &headers)).await
}

async fn get_series(State(Handle(inner)): State<Handle>, uri: Uri, headers: HeaderMap) -> Response {
    answer(&inner, Route::Series, series::get(&inner, &uri, &headers)).await
}

async fn get_events(State(Handle(inner)): State<Handle>, uri: Uri, headers: HeaderMap) -> Response {
    answer(&inner, Route::Events, events::get(&inner, &uri, &headers)).await
}

async fn get_receipt(State(Handle(inner)): State<Handle>, uri: Uri, headers: HeaderMap) -> Response {
    answer(&inner, Route::Receipt, receipts::get(&inner, &uri, &headers)).await
}

/// Waits for an answer for as long as a query may take.
async fn answer(inner: &Arc<Inner>, route: Route, answer: impl Future<Output = Result<Response, Error>>) -> Response {
    let began = Instant::now();
    let response = match tokio::time::timeout(inner.timeout, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => inner.problem(error).into_response(),
        Err(_) => {
            let detail = format!("no answer within {} (query.timeout)", Span(inner.timeout));
            Problem::new(StatusCode::GATEWAY_TIMEOUT, "timeout", detail).into_response()
        }
    };
    inner.metrics.answered(route, response.status(), began.elapsed());
    response
}

/// 200 with a body that changes from moment to moment.
pub(super) fn json(body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("texts, numbers and raw values serialize");
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
