//! The admin port over HTTP: paths, types, health, the stream, and that its reference page is up to date.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{Method, Request, Response, StatusCode, header},
};
use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tallymark::{
    admin::{self, Check, Health, Lifecycle, health, overview},
    lag,
    lanes::{self, Desk},
    metrics,
    metrics::Shape,
    units::Span,
    worker::board::Board,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt as _;

use crate::support_lag::{FakeLog, FakeStore, Mood};

const PATIENCE: Duration = Duration::from_secs(20);

struct Rig {
    router: Router,
    health: Health,
    shutdown: CancellationToken,
    dependencies: [Arc<Mutex<Mood>>; 3],
    _stop: DropGuard,
}

fn check(name: &'static str, required: bool, mood: &Arc<Mutex<Mood>>) -> Check {
    let mood = mood.clone();
    Check::new(name, format!("memory:{name}"), required, move || {
        let mood = mood.lock().unwrap().clone();
        async move { mood.answer().await }
    })
}

fn rig() -> Rig {
    let stop = CancellationToken::new();
    let options = admin::Options {
        health_interval: Span::from_millis(10),
        health_timeout: Span::from_millis(100),
        max_streams: 2,
    };
    let (log, store, board) = (FakeLog::new(2), FakeStore::new(), Board::default());
    let deps = lag::Deps { log: log.clone(), store: store.clone(), board: board.clone() };
    let (lag_service, lag) = lag::Service::new(lag::Options::default(), deps);
    let (opened, pins) = (log.clone(), lanes::Pins { shards: 256, dedup_window_us: 1, dedup_max_ids: 1 });
    let reopen: lanes::Reopen = Arc::new(move || {
        let log: Arc<dyn tallymark::log::Log> = opened.clone();
        Box::pin(async move { Ok(log) })
    });
    let desk = Desk::new(lanes::Deps { log, store, board, lag: lag.clone(), reopen, pins, alone: false });
    tokio::spawn(lag_service.run(stop.clone()));
    let dependencies: [Arc<Mutex<Mood>>; 3] = Default::default();
    let checks = vec![
        check("log", true, &dependencies[0]),
        check("store", false, &dependencies[1]),
        check("hot", false, &dependencies[2]),
    ];
    let (health_service, health) = health::Service::new(&options, "all", checks);
    tokio::spawn(health_service.run(stop.clone()));
    let items = Arc::new(Mutex::new(0));
    let render: admin::Render = Arc::new(move || {
        *items.lock().unwrap() += 100;
        format!("# TYPE tallymark_ingest_items_total counter\ntallymark_ingest_items_total {}\n", items.lock().unwrap())
    });
    let info = overview::Info { role: "all".to_owned(), ingest_url: Some("http://127.0.0.1:8080".to_owned()) };
    let (overview_service, overview) = overview::Service::new(info, render.clone(), lag.clone());
    tokio::spawn(overview_service.every(Duration::from_millis(10)).run(stop.clone()));
    let shutdown = stop.child_token();
    let state = admin::State {
        lag,
        lanes: desk,
        health: health.clone(),
        overview,
        metrics: render,
        shutdown: shutdown.clone(),
        max_streams: options.max_streams,
    };
    Rig { router: admin::routes(state), health, shutdown, dependencies, _stop: stop.drop_guard() }
}

impl Rig {
    async fn send(&self, method: Method, path: &str) -> Response<Body> {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn json(&self, path: &str) -> (StatusCode, Value) {
        let answer = self.send(Method::GET, path).await;
        let status = answer.status();
        (status, serde_json::from_slice(&text(answer).await.into_bytes()).unwrap())
    }

    async fn until(&self, path: &str, holds: impl Fn(StatusCode, &Value) -> bool) -> Value {
        let mut last = Value::Null;
        let wait = async {
            loop {
                let (status, body) = self.json(path).await;
                if holds(status, &body) {
                    return body;
                }
                last = body;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{path} stays {last}"))
    }
}

async fn text(answer: Response<Body>) -> String {
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

fn content_type(answer: &Response<Body>) -> &str {
    answer.headers()[header::CONTENT_TYPE].to_str().unwrap()
}

#[tokio::test]
async fn every_path_answers_with_its_type_and_may_load_nothing_from_elsewhere() {
    let rig = rig();
    for (path, expected) in [
        ("/", "text/html; charset=utf-8"),
        ("/dashboard.css", "text/css; charset=utf-8"),
        ("/dashboard.js", "text/javascript; charset=utf-8"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/health/livez", "application/json"),
        ("/api/v1/lag", "application/json"),
        ("/api/v1/overview", "application/json"),
        ("/api/v1/lag/stream", "text/event-stream"),
    ] {
        let answer = rig.send(Method::GET, path).await;
        assert_eq!((answer.status(), content_type(&answer)), (StatusCode::OK, expected), "{path}");
        let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{path}");
        assert!(answer.headers().contains_key(header::CACHE_CONTROL), "{path}");
    }
    let page = text(rig.send(Method::GET, "/").await).await;
    let outside = ["http://", "https://", "//cdn", "<style", "onclick", " style="];
    for outside in outside {
        assert!(!page.contains(outside), "the page contains {outside}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_and_so_is_another_method() {
    let rig = rig();
    for path in ["/nothing", "/v1/increments", "/v1/counters", "/health", "/api/v1/lag/"] {
        let answer = rig.send(Method::GET, path).await;
        assert_eq!(
            (answer.status(), content_type(&answer)),
            (StatusCode::NOT_FOUND, "application/problem+json"),
            "{path}"
        );
        let body: Value = serde_json::from_str(&text(answer).await).unwrap();
        assert_eq!((&body["code"], &body["status"]), (&json!("not_found"), &json!(404)));
    }
    for path in ["/", "/health/readyz", "/metrics", "/api/v1/lag", "/api/v1/lag/stream"] {
        let answer = rig.send(Method::POST, path).await;
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(answer.headers()[header::ALLOW], "GET,HEAD", "{path}");
        assert_eq!(content_type(&answer), "application/problem+json", "{path}");
    }
    let answer = rig.send(Method::HEAD, "/health/livez").await;
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn lag_has_exactly_the_fields_of_the_api() {
    let rig = rig();
    let seen = rig.until("/api/v1/lag", |_, seen| seen["status"] == "OK").await;
    let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(fields(&seen), ["apply_rate", "drain_seconds", "lag_packs", "lag_seconds", "lanes", "status"]);
    assert_eq!(seen["lanes"].as_array().unwrap().len(), 2);
    assert_eq!(
        fields(&seen["lanes"][0]),
        ["checkpoint", "end", "epoch", "lag_packs", "lag_seconds", "partition", "reason", "status", "stored", "worker"]
    );
}

#[tokio::test]
async fn readiness_follows_the_life_of_the_process_and_the_log_and_names_every_dependency() {
    let rig = rig();
    let live = |body: &Value| body["status"] == "live";
    rig.until("/health/readyz", |status, body| status == 503 && body["status"] == "starting").await;
    rig.until("/health/livez", |status, body| status == 200 && live(body)).await;
    rig.health.set(Lifecycle::Ready);
    let body = rig.until("/health/readyz", |status, body| status == 200 && body["status"] == "ready").await;
    assert_eq!(body["dependencies"]["log"]["target"], "memory:log");
    assert_eq!(body["role"], "all");
    rig.until("/health/readyz", |_, body| {
        ["log", "store", "hot"].iter().all(|name| body["dependencies"][name]["status"] == "ok")
    })
    .await;

    for (index, name) in [(1, "store"), (2, "hot")] {
        *rig.dependencies[index].lock().unwrap() = Mood::Fails("connection refused".to_owned());
        let degraded = |status: StatusCode, body: &Value| status == 200 && body["status"] == "degraded";
        let body = rig.until("/health/readyz", degraded).await;
        assert_eq!(body["dependencies"][name]["status"], "failing");
        assert_eq!(body["dependencies"][name]["detail"], "connection refused");
        *rig.dependencies[index].lock().unwrap() = Mood::Answers;
        rig.until("/health/readyz", |status, body| status == 200 && body["status"] == "ready").await;
    }

    *rig.dependencies[0].lock().unwrap() = Mood::Hangs;
    let body = rig.until("/health/readyz", |status, body| status == 503 && body["status"] == "unavailable").await;
    assert_eq!(body["dependencies"]["log"]["detail"], "no answer within 100ms");
    rig.until("/health/livez", |status, body| status == 200 && live(body) && body["readiness"] == "unavailable").await;
    *rig.dependencies[0].lock().unwrap() = Mood::Answers;
    rig.until("/health/readyz", |status, _| status == 200).await;

    rig.health.set(Lifecycle::Draining);
    rig.until("/health/readyz", |status, body| status == 503 && body["status"] == "draining").await;
}

#[tokio::test]
async fn the_stream_tells_the_lag_again_and_again_and_ends_with_the_process() {
    let rig = rig();
    let mut events = rig.send(Method::GET, "/api/v1/lag/stream").await.into_body().into_data_stream();
    for number in 0..2 {
        let event = tokio::time::timeout(PATIENCE, events.next()).await.expect("in time").unwrap().unwrap();
        let event = String::from_utf8(event.to_vec()).unwrap();
        let data = event.lines().find_map(|line| line.strip_prefix("data: ")).expect("an event has data");
        assert_eq!(serde_json::from_str::<Value>(data).unwrap()["lanes"].as_array().unwrap().len(), 2);
        assert!(event.lines().any(|line| line.starts_with("id: ")) && event.ends_with("\n\n"), "{event}");
        assert_eq!(event.contains("retry: "), number == 0);
    }
    rig.shutdown.cancel();
    let end = tokio::time::timeout(PATIENCE, events.next()).await.expect("it ends");
    assert!(end.is_none());
}

#[tokio::test]
async fn streams_are_bounded_and_a_closed_one_makes_room() {
    let rig = rig();
    let first = rig.send(Method::GET, "/api/v1/lag/stream").await;
    let second = rig.send(Method::GET, "/api/v1/lag/stream").await;
    let refused = rig.send(Method::GET, "/api/v1/lag/stream").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key(header::RETRY_AFTER));
    assert_eq!(content_type(&refused), "application/problem+json");
    drop(first);
    assert_eq!(rig.send(Method::GET, "/api/v1/lag/stream").await.status(), StatusCode::OK);
    drop(second);
}

#[tokio::test]
async fn the_overview_reads_rates_from_the_metrics_and_keeps_a_history() {
    let rig = rig();
    let seen = rig
        .until("/api/v1/overview", |_, seen| seen["history"]["ingest_items_rate"].as_array().unwrap().len() == 150)
        .await;
    assert!(seen["ingest_items_rate"].as_f64().unwrap() > 0.0);
    assert_eq!(seen["history"]["lag_seconds"].as_array().unwrap().len(), 150);
    assert_eq!(seen["request_p99_seconds"], Value::Null);
    assert_eq!((&seen["role"], &seen["ingest_url"]), (&json!("all"), &json!("http://127.0.0.1:8080")));
    assert_eq!(seen["version"], env!("CARGO_PKG_VERSION"));
}

/// The reference page, from the catalogue.
fn metrics_page() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         What `/metrics` on the admin port serves, in the Prometheus text format, in the order of the data path. This page is\n\
         made from the catalogue in `src/metrics.rs` by `BLESS=1 cargo test --release --test it admin::`; a test compares them.\n\n\
         | metric | type | labels | what it says |\n| --- | --- | --- | --- |\n",
    );
    for metric in metrics::CATALOGUE {
        let shape = match metric.shape {
            Shape::Counter => "counter",
            Shape::Gauge => "gauge",
            Shape::Histogram(_) => "histogram",
        };
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(page, "| `{}` | {shape} | {} | {} |", metric.name, labels.join(", "), metric.help).unwrap();
    }
    page
}

#[test]
fn the_metrics_page_is_the_catalogue() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    let expected = metrics_page();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &expected).unwrap();
    }
    let page = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        page == expected,
        "docs/metrics.md is not the catalogue; run `BLESS=1 cargo test --release --test it admin::`"
    );
}
