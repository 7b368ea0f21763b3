//! The stream of lag: the snapshot as a Server-Sent Event once a second, whether it has changed or not, so that a reader
//! that hears nothing for a few seconds knows that the connection is gone. An event's id is the time of its measurement.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State as Extract,
    http::{HeaderName, HeaderValue},
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
};
use futures_util::{Stream, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Interval, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use crate::{lag, problem::Problem};

/// One event per this long.
const PERIOD: Duration = Duration::from_secs(1);
/// How long a browser waits before it connects again.
const RETRY: Duration = Duration::from_secs(2);

/// What streams are made from.
#[derive(Clone)]
pub(super) struct Streams {
    pub lag: lag::Handle,
    pub shutdown: CancellationToken,
    pub free: Arc<Semaphore>,
    pub most: usize,
}

/// `GET /api/v1/lag/stream`.
pub(super) async fn lag(Extract(streams): Extract<Streams>) -> Result<Response, Problem> {
    let Ok(place) = streams.free.clone().try_acquire_owned() else {
        let detail = format!("{} streams are open already (admin.max_streams); poll /api/v1/lag instead", streams.most);
        return Err(Problem::unavailable("too_many_streams", detail));
    };
    let mut response = Sse::new(events(streams, place)).into_response();
    // Proxies that collect an answer before they pass it on would make the stream look dead.
    let header = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response.headers_mut().insert(header.0, header.1);
    Ok(response)
}

struct Open {
    streams: Streams,
    ticks: Interval,
    first: bool,
    /// Given back when the stream is dropped.
    _place: OwnedSemaphorePermit,
}

fn events(streams: Streams, place: OwnedSemaphorePermit) -> impl Stream<Item = Result<Event, Infallible>> {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    stream::unfold(Open { streams, ticks, first: true, _place: place }, async |mut open| {
        let shutdown = open.streams.shutdown.clone();
        shutdown.run_until_cancelled(open.ticks.tick()).await?;
        let snapshot = open.streams.lag.snapshot();
        let json = serde_json::to_string(&*snapshot).expect("numbers and strings serialize");
        let event = Event::default().id(snapshot.measured_ms.to_string()).data(json);
        let event = if open.first { event.retry(RETRY) } else { event };
        open.first = false;
        Some((Ok(event), open))
    })
}
