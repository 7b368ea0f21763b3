//! `GET /v1/counters`: a namespace's counters, from the lanes' whole-counter rows.

use axum::{http::HeaderMap, http::Uri, response::Response};
use serde::Serialize;

use super::{
    Error, Inner,
    layout::counter_row,
    merge::Merge,
    pages::{self, Paged},
    params::{self, Params},
    routes::json,
};

/// Every lane may have nearly every counter, so a page is read from each.
const LARGEST_READ: usize = 256;

#[derive(Serialize)]
struct Body {
    counters: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Answers the request.
pub(super) async fn get(inner: &Inner, uri: &Uri, headers: &HeaderMap) -> Result<Response, Error> {
    let namespace = params::namespace(headers)?;
    let mut params = Params::parse(uri.query())?;
    let limit = params.limit()?;
    let after = params.take("cursor").map(|cursor| pages::read_text(Paged::Counters, &cursor)).transpose()?;
    params.finish("`limit` and `cursor`")?;

    let shards = inner.layout().await?.of_counters(&namespace).into_iter().map(|place| place.key).collect();
    let after = after.map(|counter| counter_row(&counter));
    let mut rows = Merge::open(inner.store.clone(), shards, None, after, (limit + 1).min(LARGEST_READ)).await?;
    let mut counters = Vec::new();
    while counters.len() < limit {
        let Some((name, _)) = rows.next().await? else { break };
        counters.push(name.counter.to_string());
    }
    inner.store_answered();
    let last = if rows.is_done() { None } else { counters.last() };
    let next_cursor = last.map(|last| pages::write_text(Paged::Counters, last));
    Ok(json(&Body { counters, next_cursor }))
}
