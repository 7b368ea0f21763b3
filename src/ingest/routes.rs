//! The HTTP surface: `POST /v1/increments` and `POST /v1/events`.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use serde::Serialize;
use tokio::time::Instant;

use super::{
    Handle,
    ack::Outcome,
    batch::Kind,
    body,
    budget::Reserved,
    encoding::Encoding,
    params::Asked,
    shared::{Accepted, Shared, Ticket, draining},
};
use crate::{
    item::Seq,
    problem::{ItemError, Problem},
    receipt::Receipt,
};

/// Larger bodies are parsed on a thread that may block, so that a worker thread is never held for long.
const INLINE_BYTES: usize = 128 << 10;
/// The same for encoded bodies, which may decode to a thousand times their size.
const INLINE_ENCODED_BYTES: usize = 4 << 10;
/// How long `ack=stored` waits on when intake has ended.
const LAST_WAIT: Duration = Duration::from_secs(2);
/// How much of a body is read and dropped for a request that no route takes.
const DISCARD_BYTES: usize = 5 << 20;

/// `POST /v1/increments` and `POST /v1/events`; every error is a problem document.
pub fn routes(handle: Handle) -> Router {
    Router::new()
        .route("/v1/increments", post(increments).fallback(method_not_allowed))
        .route("/v1/events", post(events).fallback(method_not_allowed))
        .with_state(handle)
}

/// For a router's fallback: 404 as a problem document, after the body has been read and dropped.
pub async fn not_found(request: Request) -> Problem {
    let detail = "there is nothing at this path";
    dismiss(request, Problem::new(StatusCode::NOT_FOUND, "not_found", detail)).await
}

/// For the fallback of a path's methods: 405 as a problem document; `axum` adds the `Allow` header by itself.
pub async fn method_not_allowed(request: Request) -> Problem {
    let detail = format!("this path does not take {}; see the Allow header", request.method());
    dismiss(request, Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)).await
}

async fn dismiss(request: Request, problem: Problem) -> Problem {
    let (head, body) = request.into_parts();
    body::discard(body, &head.headers, DISCARD_BYTES).await;
    problem
}

async fn increments(State(handle): State<Handle>, request: Request) -> Response {
    serve(&handle.shared, Kind::Increment, request).await
}

async fn events(State(handle): State<Handle>, request: Request) -> Response {
    serve(&handle.shared, Kind::Event, request).await
}

async fn serve(shared: &Arc<Shared>, kind: Kind, request: Request) -> Response {
    let began = Instant::now();
    let response = match ingest(shared, kind, request).await {
        Ok(answer) => answer.into_response(),
        Err(problem) => {
            shared.meters.refused(problem.code);
            problem.into_response()
        }
    };
    shared.meters.answered(kind, response.status().as_str(), began.elapsed());
    response
}

async fn ingest(shared: &Arc<Shared>, kind: Kind, request: Request) -> Result<Answer, Problem> {
    let (head, body) = request.into_parts();
    let asked = if shared.is_closed() { Err(draining()) } else { Asked::read(&head, &shared.limits) };
    let asked = match asked {
        Ok(asked) => asked,
        Err(problem) => {
            body::discard(body, &head.headers, shared.limits.max_body).await;
            return Err(problem);
        }
    };
    let (body, reserved) = body::read(body, &head.headers, shared).await?;
    let stored_within = asked.stored_within;
    let accepted = accept(shared, kind, asked, body, reserved).await?;
    let mut answer = acknowledged(shared, accepted).await?;
    if let Some(within) = stored_within {
        let deadline = Instant::now() + within;
        // A store that does not answer is a store that has not got it yet; the items are durable all the same.
        let stored = answer.exact && is_stored(shared, &answer.receipt, deadline).await;
        answer.stored = Some(stored);
    }
    Ok(answer)
}

/// Waits until it is stored, until the deadline, or not much longer than intake: a process that ends says what it knows.
async fn is_stored(shared: &Shared, receipt: &Receipt, deadline: Instant) -> bool {
    tokio::select! {
        stored = shared.deps.progress.wait(receipt, deadline) => stored.unwrap_or(false),
        () = async {
            shared.closing.cancelled().await;
            tokio::time::sleep(LAST_WAIT).await;
        } => false,
    }
}

async fn accept(
    shared: &Arc<Shared>,
    kind: Kind,
    asked: Asked,
    body: Bytes,
    reserved: Reserved,
) -> Result<Accepted, Problem> {
    let inline = if asked.encoding == Encoding::Identity { INLINE_BYTES } else { INLINE_ENCODED_BYTES };
    if body.len() <= inline {
        return shared.accept(kind, &asked, &body, reserved);
    }
    let shared = shared.clone();
    let accepting = tokio::task::spawn_blocking(move || shared.accept(kind, &asked, &body, reserved));
    accepting.await.unwrap_or_else(|error| {
        tracing::error!(error = %error, "accepting a request broke down");
        let detail = "ingest broke down on this request; some of it may have been accepted: retry with the same ids";
        Err(Problem::unavailable("internal", detail))
    })
}

/// Waits until the log has answered for every pack that holds items of the request.
async fn acknowledged(shared: &Shared, accepted: Accepted) -> Result<Answer, Problem> {
    let deadline = Instant::now() + shared.limits.ack_timeout;
    let mut packs: Vec<(u32, Seq)> = Vec::with_capacity(accepted.tickets.len());
    let mut exact = true;
    let mut failure: Option<&str> = None;
    let mut refused = 0;
    for Ticket { partition, ack } in &accepted.tickets {
        let Ok(outcome) = tokio::time::timeout_at(deadline, ack.wait()).await else {
            let detail = format!(
                "the log did not answer within {} (ingest.ack_timeout); the items may have been accepted: retry with the same ids",
                humantime::format_duration(shared.limits.ack_timeout)
            );
            return Err(Problem::unavailable("ack_timeout", detail));
        };
        match outcome {
            Outcome::Durable(Some(seq)) => match packs.last_mut() {
                Some((last, highest)) if last == partition => *highest = (*highest).max(*seq),
                _ => packs.push((*partition, *seq)),
            },
            Outcome::Durable(None) => exact = false,
            Outcome::Refused(why) => {
                refused += 1;
                failure = failure.or(Some(why));
            }
            Outcome::Unknown(why) => failure = Some(why),
        }
    }
    if let Some(why) = failure {
        let known = if refused == accepted.tickets.len() {
            "nothing was accepted: retry with the same ids"
        } else {
            "some or all items may have been accepted: retry with the same ids"
        };
        return Err(Problem::unavailable("log_unavailable", format!("the log failed: {why}; {known}")));
    }
    let receipt = Receipt { topic_id: shared.deps.log.topology().topic_id, packs };
    Ok(Answer { accepted: accepted.items, receipt, exact, stored: None, rejected: accepted.rejected })
}

/// A 2xx.
struct Answer {
    accepted: usize,
    receipt: Receipt,
    /// Whether the receipt names every pack.
    exact: bool,
    stored: Option<bool>,
    rejected: Option<Vec<ItemError>>,
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body<'a> {
            accepted: usize,
            receipt: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            stored: Option<bool>,
            #[serde(skip_serializing_if = "Option::is_none")]
            rejected: Option<Vec<ItemError>>,
        }
        let status = if self.stored == Some(true) { StatusCode::OK } else { StatusCode::ACCEPTED };
        let receipt = self.receipt.to_string();
        let body = Body { accepted: self.accepted, receipt: &receipt, stored: self.stored, rejected: self.rejected };
        let json = serde_json::to_vec(&body).expect("strings and numbers serialize");
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        (status, headers, json).into_response()
    }
}
