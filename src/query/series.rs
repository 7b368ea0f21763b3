//! `GET /v1/series`: a counter's series with their totals, in the order of their canonical tags, from the store.

use std::sync::Arc;

use axum::{http::HeaderMap, http::Uri, response::Response};
use serde::Serialize;

use super::{
    Error, Inner,
    freshness::{Freshness, Source},
    merge::Merge,
    number,
    pages::{self, Paged},
    params::{self, Params},
    routes::json,
    tags::{TagMap, Tags},
    totals::unknown,
};
use crate::{item::check_counter, problem::Problem, store::RowName};

#[derive(Serialize)]
struct Body<'a> {
    series: Vec<SeriesBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    #[serde(flatten)]
    freshness: Freshness,
}

#[derive(Serialize)]
struct SeriesBody<'a> {
    counter: &'a str,
    tags: TagMap,
    total: i64,
}

/// Answers the request.
pub(super) async fn get(inner: &Inner, uri: &Uri, headers: &HeaderMap) -> Result<Response, Error> {
    let namespace = params::namespace(headers)?;
    let mut params = Params::parse(uri.query())?;
    let limit = params.limit()?;
    let after = params.take("cursor").map(|cursor| pages::read_text(Paged::Series, &cursor)).transpose()?;
    let counter = params.take("counter");
    params.finish("`counter`, `limit` and `cursor`")?;
    let Some(counter) = counter else {
        return Err(Problem::bad_request("missing", "`counter` says whose series to list").into());
    };
    check_counter(&counter).map_err(|invalid| Problem::bad_request("malformed", invalid.message))?;

    let standing = inner.standing().await?;
    let shards = inner.layout().await?.shards(&namespace);
    let counter: Arc<str> = counter.into();
    let begun = after.is_none();
    let after = after.map(|tags| RowName { counter: counter.clone(), tags });
    // Series are spread evenly over the shards; a shard that has more of this page than its share is read again.
    let read = 2 * limit / shards.len().max(1) + 8;
    let mut rows = Merge::open(inner.store.clone(), shards, Some(counter.clone()), after, read).await?;
    let mut series = Vec::new();
    let mut last = None;
    while series.len() < limit {
        let Some((name, total)) = rows.next().await? else { break };
        let total = number(total, format_args!("`{counter}` with the tags `{}`", name.tags))?;
        let tags = TagMap(Tags(&name.tags).map(|(key, value)| (key.to_owned(), value.into_owned())).collect());
        series.push(SeriesBody { counter: &counter, tags, total });
        last = Some(name.tags);
    }
    inner.store_answered();
    if series.is_empty() && begun && !inner.is_known(&namespace, &counter).await? {
        return Err(unknown(&namespace, &counter));
    }
    let last = if rows.is_done() { None } else { last };
    let next_cursor = last.map(|tags| pages::write_text(Paged::Series, &tags));
    let freshness = inner.freshness(Source::Store, standing.at_ms, standing.stale());
    Ok(json(&Body { series, next_cursor, freshness }))
}
