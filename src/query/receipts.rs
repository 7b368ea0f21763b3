//! `GET /v1/receipts/{receipt}`: whether a request's items are in the store.

use axum::{http::HeaderMap, http::Uri, response::Response};
use serde::Serialize;

use super::{
    Error, Inner,
    params::{self, Params},
    routes::json,
};
use crate::{
    item::{Lane, Seq},
    problem::Problem,
    receipt::Receipt,
};

#[derive(Serialize)]
struct Body {
    stored: bool,
    lanes: Vec<LaneBody>,
}

#[derive(Serialize)]
struct LaneBody {
    partition: u32,
    seq: Seq,
    stored: bool,
}

fn malformed(what: &str) -> Problem {
    Problem::bad_request("malformed", format!("{what} is not a receipt that an answer gave"))
}

/// Reads a receipt.
pub(super) fn parse(what: &str, text: &str) -> Result<Receipt, Problem> {
    Receipt::parse(text).ok_or_else(|| malformed(what))
}

/// Whether a receipt is of this log, or of an earlier life of its topic: what was stored then still counts.
pub(super) async fn check(inner: &Inner, what: &str, receipt: &Receipt) -> Result<(), Error> {
    let topology = inner.log.topology();
    let partitions = if receipt.topic_id == topology.topic_id {
        inner.log.partitions()
    } else {
        inner.layout().await?.partitions_of(receipt.topic_id).ok_or_else(|| {
            let detail = format!("{what} is of another log than the one that is served here ({})", topology.topic);
            Problem::bad_request("other_log", detail)
        })?
    };
    if receipt.packs.iter().any(|(partition, _)| *partition >= partitions) {
        return Err(malformed(what).into());
    }
    Ok(())
}

/// Answers the request.
pub(super) async fn get(inner: &Inner, uri: &Uri, headers: &HeaderMap) -> Result<Response, Error> {
    params::namespace(headers)?;
    let text = params::path_end(uri.path(), "/v1/receipts/")?;
    Params::parse(uri.query())?.finish("none")?;
    let receipt = parse("the receipt", &text)?;
    check(inner, "the receipt", &receipt).await?;
    let known = inner.progress.ask().await?;
    inner.store_answered();
    let lane = |(partition, seq): &(u32, Seq)| {
        let lane = Lane { topic_id: receipt.topic_id, partition: *partition };
        let stored = known.get(&lane).is_some_and(|stored| stored >= seq);
        LaneBody { partition: *partition, seq: *seq, stored }
    };
    let lanes: Vec<_> = receipt.packs.iter().map(lane).collect();
    Ok(json(&Body { stored: lanes.iter().all(|lane| lane.stored), lanes }))
}
