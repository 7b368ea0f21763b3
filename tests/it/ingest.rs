//! Ingest over its router, on a log in memory.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request, StatusCode},
};
use serde_json::Value;
use tallymark::{
    ingest::{self, Deps, Handle, Options},
    progress::Progress,
    receipt::Receipt,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::support::{Lanes, MemoryLog, Told};

mod bodies;
mod failures;
mod fixture;
mod items;
mod packs;
mod show;

/// An ingest that runs, and what it stands on.
struct Rig {
    router: Router,
    handle: Handle,
    log: Arc<MemoryLog>,
    hot: Arc<Told>,
    lanes: Arc<Lanes>,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), ingest::Error>>,
}

/// An answer, read to its end.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    json: Value,
}

impl Rig {
    fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        Self::on(options, MemoryLog::new(4), Told::default())
    }

    fn on(options: Options, log: Arc<MemoryLog>, hot: Told) -> Self {
        let (hot, lanes) = (Arc::new(hot), Arc::new(Lanes::default()));
        let deps = Deps {
            log: log.clone(),
            hot: hot.clone(),
            progress: Arc::new(Progress::new(lanes.clone(), "test.packs")),
            shards: 256,
            hot_timeout: Duration::from_millis(50),
        };
        let (service, handle) = ingest::Service::new(options, deps).expect("the options work");
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(service.run(shutdown.clone()));
        let router = ingest::routes(handle.clone()).fallback(ingest::not_found);
        Self { router, handle, log, hot, lanes, shutdown, running }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        send(self.router.clone(), request).await
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        self.send(post(path, headers, body)).await
    }

    /// Sends it on a task of its own.
    fn post_soon(&self, path: &str, body: impl Into<Body>) -> JoinHandle<Answer> {
        tokio::spawn(send(self.router.clone(), post(path, &[], body)))
    }

    /// Stops and gives back the log.
    async fn stop(self) -> Arc<MemoryLog> {
        self.shutdown.cancel();
        self.running.await.expect("ingest does not panic").expect("ingest drains");
        self.log
    }
}

fn post(path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let mut request = Request::builder().method(Method::POST).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).expect("a request")
}

async fn send(router: Router, request: Request<Body>) -> Answer {
    let response = router.oneshot(request).await.expect("a router always answers");
    let (head, body) = response.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.expect("a body in memory");
    let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Answer { status: head.status, headers: head.headers, json }
}

impl Answer {
    fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_default()
    }

    fn receipt(&self) -> Receipt {
        Receipt::parse(self.json["receipt"].as_str().expect("a receipt")).expect("a receipt of ours")
    }

    /// The answer is an error of this kind, in the shape that every error has.
    #[track_caller]
    fn is_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status.as_u16(), self.code()), (status, code), "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.json["status"], status);
        for field in ["type", "title", "detail", "message"] {
            assert!(self.json[field].as_str().is_some_and(|text| !text.is_empty()), "{field} in {self:?}");
        }
        let retried = self.headers.get("retry-after").map(|value| value.to_str().unwrap().parse::<u32>().unwrap());
        assert_eq!(retried.is_some(), matches!(status, 429 | 503), "{self:?}");
    }

    #[track_caller]
    fn is_accepted(&self, items: usize) {
        assert_eq!(self.status, StatusCode::ACCEPTED, "{self:?}");
        assert_eq!(self.json["accepted"], items);
        assert_eq!(self.headers["content-type"], "application/json");
        assert!(self.json["receipt"].as_str().unwrap().len() <= 2048);
    }
}
