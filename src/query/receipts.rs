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

/// Reads a receipt of this log.
pub(super) fn parse(inner: &Inner, what: &str, text: &str) -> Result<Receipt, Problem> {
    let (topology, partitions) = (inner.log.topology(), inner.log.partitions());
    let receipt = Receipt::parse(text)
        .filter(|receipt| receipt.packs.iter().all(|(partition, _)| *partition < partitions))
        .ok_or_else(|| Problem::bad_request("malformed", format!("{what} is not a receipt that an answer gave")))?;
    if receipt.topic_id == topology.topic_id {
        return Ok(receipt);
    }
    let detail = format!("{what} is of another log than the one that is served here ({})", topology.topic);
    Err(Problem::bad_request("other_log", detail))
}

/// Answers the request.
pub(super) async fn get(inner: &Inner, uri: &Uri, headers: &HeaderMap) -> Result<Response, Error> {
    params::namespace(headers)?;
    let text = params::path_end(uri.path(), "/v1/receipts/")?;
    Params::parse(uri.query())?.finish("none")?;
    let receipt = parse(inner, "the receipt", &text)?;
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
