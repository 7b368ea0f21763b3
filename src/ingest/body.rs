//! Reading a request's body, within its bounds of size, time and memory.
//!
//! A body that is refused is still read and dropped, up to a bound: a client that writes while nobody reads meets a reset
//! connection instead of its answer.

use std::time::Duration;

use axum::{
    body::{Body, Bytes, HttpBody as _},
    http::{HeaderMap, StatusCode, header},
};
use http_body_util::BodyExt as _;

use super::{
    budget::Reserved,
    limits::Limits,
    shared::{Shared, draining, overloaded},
};
use crate::problem::Problem;

/// How long a refused body is read.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a body that is under way may go on arriving when intake ends: most arrive in much less.
const LAST_TIMEOUT: Duration = Duration::from_millis(500);

/// The body as sent, and the memory that is reserved for it.
pub(super) async fn read(mut body: Body, headers: &HeaderMap, shared: &Shared) -> Result<(Bytes, Reserved), Problem> {
    let limits = &shared.limits;
    let mut reserved = shared.budget.open();
    if body.size_hint().lower() > limits.max_body as u64 {
        discard(body, headers, limits.max_decoded).await;
        return Err(too_large(limits));
    }
    let collecting = tokio::time::timeout(limits.body_timeout, collect(&mut body, limits, &mut reserved));
    let collected = tokio::select! {
        collected = collecting => collected,
        // A slow client would hold up the drain for as long as it likes.
        () = async {
            shared.closing.cancelled().await;
            tokio::time::sleep(LAST_TIMEOUT).await;
        } => return Err(draining()),
    };
    let refused = match collected {
        Ok(Ok(bytes)) => return Ok((bytes, reserved)),
        Ok(Err(problem)) => problem,
        Err(_) => {
            let detail = format!(
                "the body did not arrive within {} (ingest.body_timeout); nothing was accepted",
                humantime::format_duration(limits.body_timeout)
            );
            return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", detail));
        }
    };
    drop(reserved);
    discard(body, &HeaderMap::new(), limits.max_decoded).await;
    Err(refused)
}

/// Most bodies are one frame, which is taken as it is.
async fn collect(body: &mut Body, limits: &Limits, reserved: &mut Reserved) -> Result<Bytes, Problem> {
    let mut first = Bytes::new();
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Problem::bad_request("incomplete_body", format!("the body could not be read to its end: {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > limits.max_body - first.len() - rest.len() {
            return Err(too_large(limits));
        }
        if !reserved.grow(data.len()) {
            return Err(overloaded());
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.into() })
}

/// Reads and drops a body, up to `most` bytes and for some seconds.
pub(super) async fn discard(mut body: Body, headers: &HeaderMap, most: usize) {
    // Whoever expects `100 Continue` has not sent the body, and will not once it has the answer.
    if body.is_end_stream() || headers.contains_key(header::EXPECT) {
        return;
    }
    let drop_frames = async {
        let mut dropped = 0;
        while let Some(Ok(frame)) = body.frame().await {
            dropped += frame.data_ref().map_or(0, Bytes::len);
            if dropped > most {
                return;
            }
        }
    };
    // When the time is up the connection is closed under the client: it had its chance.
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, drop_frames).await;
}

fn too_large(limits: &Limits) -> Problem {
    let detail = format!("the body has more than {} bytes (ingest.max_body)", limits.max_body);
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
}
