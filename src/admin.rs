//! The admin port: what operators and their tools look at. Nothing here changes anything but a replay of dead letters and a repair
//! (`audit`), which append to the log.
//!
//! `/` is the dashboard (three embedded files, no framework, nothing from elsewhere), `/health/livez` and
//! `/health/readyz` answer probes from cached checks, `/metrics` is for Prometheus, `/api/v1/lag` and its stream are the
//! lag room's snapshot, `/api/v1/overview` the rates that the dashboard draws.
//!
//! Every answer comes from memory, so that the page that says what is wrong works when everything else does not. Only
//! `/api/v1/lag` asks for a measurement of its own, within `lag.timeout`: a script that has just posted items must not be
//! told of the time before. Streams are bounded, and end when the process drains.

use std::sync::Arc;

use axum::{
    Router,
    extract::State as Extract,
    http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{lag, problem::Problem, units::Span};

mod audit;
pub mod dead_letters;
pub mod health;
pub mod overview;
mod prometheus;
mod stream;

pub use audit::audit_route;
pub use health::{Check, Health, Lifecycle};
pub use overview::Overview;

/// Settings under `admin.`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How often each dependency is checked.
    pub health_interval: Span,
    /// How long a check waits for an answer; without one the dependency counts as failing.
    pub health_timeout: Span,
    /// Streams of lag that are open at once; beyond it: 503.
    pub max_streams: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { health_interval: Span::from_secs(3), health_timeout: Span::from_secs(2), max_streams: 64 }
    }
}

/// Renders the process's metrics in the Prometheus text format.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// What the routes answer from.
#[derive(Clone)]
pub struct State {
    /// The lag room.
    pub lag: lag::Handle,
    /// Lifecycle and dependencies.
    pub health: Health,
    /// Rates and their last minutes.
    pub overview: Overview,
    /// The metrics.
    pub metrics: Render,
    /// Streams end when this is cancelled; cancel it when the drain begins, or the open streams hold it up.
    pub shutdown: CancellationToken,
    /// Streams of lag that are open at once.
    pub max_streams: usize,
}

/// The routes of the admin port.
pub fn routes(state: State) -> Router {
    let streams = stream::Streams {
        lag: state.lag.clone(),
        shutdown: state.shutdown.clone(),
        free: Arc::new(Semaphore::new(state.max_streams)),
        most: state.max_streams,
    };
    Router::new()
        .route("/", get(|| asset("text/html; charset=utf-8", include_str!("admin/dashboard.html"))))
        .route("/dashboard.css", get(|| asset("text/css; charset=utf-8", include_str!("admin/dashboard.css"))))
        .route("/dashboard.js", get(|| asset("text/javascript; charset=utf-8", include_str!("admin/dashboard.js"))))
        .route("/health/livez", get(livez))
        .route("/health/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/overview", get(overview))
        .merge(lag_route(state.lag.clone()))
        .with_state(state)
        .route("/api/v1/lag/stream", get(stream::lag).with_state(streams))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(axum::middleware::map_response(harden))
}

/// `/api/v1/lag` by itself, for a process that has nothing else to show.
pub fn lag_route<S: Clone + Send + Sync + 'static>(handle: lag::Handle) -> Router<S> {
    Router::new().route("/api/v1/lag", get(lag)).with_state(handle)
}

/// What the page may do: load itself and ask its own server, nothing else.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Everything here is about now.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

type Asset = ([(HeaderName, &'static str); 1], &'static str);

async fn asset(content_type: &'static str, body: &'static str) -> Asset {
    ([(header::CONTENT_TYPE, content_type)], body)
}

async fn livez(Extract(state): Extract<State>) -> Response {
    json(StatusCode::OK, &state.health.live())
}

async fn readyz(Extract(state): Extract<State>) -> Response {
    let (report, ready) = state.health.ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &report)
}

async fn metrics(Extract(state): Extract<State>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (state.metrics)()).into_response()
}

async fn lag(Extract(handle): Extract<lag::Handle>) -> Response {
    json(StatusCode::OK, &*handle.measure().await)
}

async fn overview(Extract(state): Extract<State>) -> Response {
    json(StatusCode::OK, &*state.overview.report())
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("strings and numbers serialize");
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn unknown_path(uri: Uri) -> Problem {
    let detail = format!("there is no `{}` on the admin port; items and queries have their own port", uri.path());
    Problem::new(StatusCode::NOT_FOUND, "not_found", detail)
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("`{}` answers GET, not {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}
