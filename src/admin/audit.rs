//! `POST /api/v1/audit`: an audit over this process's backends, for `tallymark audit` where they are embedded.
//!
//! The answer is lines of JSON: how far it is, every few seconds, and at last what came out. One audit at a time; it ends when
//! its reader hangs up or the process drains. The body must be called `application/json`, which a page of another site
//! cannot do without asking first: so none can have the log repaired.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State as Extract,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::post,
};
use futures_util::stream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    audit::{self, Deps, Options, Progress},
    client::audit::Line,
    problem::Problem,
    retry::{Classified as _, Kind},
};

/// How often it is said how far it is.
const PERIOD: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Audits {
    deps: Deps,
    shutdown: CancellationToken,
    turn: Arc<Semaphore>,
}

/// The route, over these backends.
pub fn audit_route(deps: Deps, shutdown: CancellationToken) -> Router {
    let audits = Audits { deps, shutdown, turn: Arc::new(Semaphore::new(1)) };
    Router::new().route("/api/v1/audit", post(audit)).with_state(audits)
}

async fn audit(Extract(audits): Extract<Audits>, headers: HeaderMap, body: Bytes) -> Result<Response, Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if content_type != "application/json" {
        let detail = "the options of an audit are `application/json`; use `tallymark audit`";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
    }
    let options: Options =
        serde_json::from_slice(&body).map_err(|error| Problem::bad_request("invalid_options", error.to_string()))?;
    let Ok(turn) = audits.turn.clone().try_acquire_owned() else {
        return Err(Problem::unavailable(
            "audit_running",
            "an audit is being made by this instance; wait for it to end",
        ));
    };
    let (lines, line) = mpsc::channel(4);
    let Audits { deps, shutdown, .. } = audits;
    let task = tokio::spawn(async move {
        let _turn = turn;
        shutdown.run_until_cancelled(make(&deps, &options, &lines)).await;
    });
    // The task goes with the answer's reader.
    let state = (line, AbortOnDropHandle::new(task));
    let lines = stream::unfold(state, async |(mut line, task)| {
        let mut text = serde_json::to_vec(&line.recv().await?).expect("strings and numbers serialize");
        text.push(b'\n');
        Some((Ok::<_, Infallible>(Bytes::from(text)), (line, task)))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

async fn make(deps: &Deps, options: &Options, lines: &mpsc::Sender<Line>) {
    let begun = Progress { partition: 0, partitions: deps.log.partitions(), read: 0, records: 0 };
    let (at, seen) = watch::channel(begun);
    let audit = audit::run(deps, options, move |progress| {
        at.send_replace(progress);
    });
    tokio::pin!(audit);
    let mut ticks = tokio::time::interval(PERIOD);
    let report = loop {
        tokio::select! {
            report = &mut audit => break report,
            _ = ticks.tick() => {
                let progress = *seen.borrow();
                // A reader that does not read is no reason to wait.
                let _ = lines.try_send(Line::Progress(progress));
            }
        }
    };
    let last = match report {
        Ok(report) => Line::Report(Box::new(report)),
        Err(error) => Line::Failed { message: error.to_string(), unreachable: error.kind() == Kind::Transient },
    };
    // Nobody reads it any more: then nobody needs it.
    let _ = lines.send(last).await;
}
