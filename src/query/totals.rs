//! `GET /v1/counters/{counter}`: what is asked is read from the query string, then answered by the cheapest way that may.
//!
//! The plain total goes through the hot view. Filters and groups read every series from the store. `at_least` waits until
//! the store has the receipt's packs and then reads the store: whatever the hot view lacks, the answer includes them.

use std::{sync::Arc, time::Duration};

use axum::{
    http::{HeaderMap, StatusCode, Uri},
    response::Response,
};
use serde::Serialize;
use tokio::time::Instant;

use super::{
    Error, Inner,
    freshness::{Freshness, Source},
    groups::Groups,
    number, params,
    params::{Params, refuse},
    read_through::{Total, counter_key},
    receipts,
    routes::json,
    tags::{Filter, Pattern, TagMap},
};
use crate::{
    item::{MAX_TAGS, Namespace, check_counter, check_tag_key, check_tag_value},
    problem::Problem,
    receipt::Receipt,
    units::Span,
};

/// Most groups of one answer.
const MAX_TOP: usize = 10_000;

const KNOWN: &str = "`tag.KEY`, `by`, `top`, `consistency`, `at_least` and `timeout`";
const AT_LEAST_TIMEOUT: Duration = Duration::from_secs(2);
const DEFAULT_TOP: usize = 10;

/// Which of the two views answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consistency {
    Any,
    Stored,
    Hot,
}

/// What is asked of a counter.
struct Asked {
    namespace: Namespace,
    counter: String,
    filter: Filter,
    /// The filter as it was given.
    tags: TagMap,
    by: Vec<String>,
    top: usize,
    consistency: Consistency,
    at_least: Option<(Receipt, Duration)>,
}

#[derive(Serialize)]
struct Body {
    counter: String,
    tags: TagMap,
    #[serde(flatten)]
    groups: Option<GroupsBody>,
    total: i64,
    #[serde(flatten)]
    freshness: Freshness,
}

#[derive(Serialize)]
struct GroupsBody {
    groups: Vec<GroupBody>,
    other: i64,
}

#[derive(Serialize)]
struct GroupBody {
    tags: TagMap,
    total: i64,
}

/// Answers the request.
pub(super) async fn get(inner: &Arc<Inner>, uri: &Uri, headers: &HeaderMap) -> Result<Response, Error> {
    let asked = parse(inner, uri, headers)?;
    if let Some((receipt, timeout)) = &asked.at_least {
        receipts::check(inner, AT_LEAST, receipt).await?;
        let stored = inner.progress.wait(receipt, Instant::now() + *timeout).await?;
        if !stored {
            let detail = format!("the receipt's items were not stored within {}", Span(*timeout));
            return Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "timeout", detail).into());
        }
    }
    let body = if asked.filter.0.is_empty() && asked.by.is_empty() {
        plain(inner, asked).await?
    } else {
        scanned(inner, asked).await?
    };
    Ok(json(&body))
}

fn parse(inner: &Inner, uri: &Uri, headers: &HeaderMap) -> Result<Asked, Problem> {
    let namespace = params::namespace(headers)?;
    let counter = params::path_end(uri.path(), "/v1/counters/")?;
    // In a path, as in the body of an increment, an empty or overlong name is no name at all.
    check_counter(&counter).map_err(|invalid| Problem::bad_request("malformed", invalid.message))?;
    let mut params = Params::parse(uri.query())?;
    for name in ["grain", "from", "to", "tz"] {
        if params.take(name).is_some() {
            let detail = format!("`{name}`: time buckets are not served by this version");
            return Err(Problem::bad_request("unsupported", detail));
        }
    }
    let tags = TagMap(params.take_all("tag."));
    let filter = filter(&tags)?;
    let by = params.take("by").map_or(Ok(Vec::new()), |text| by(&text))?;
    let top = params.count("top", MAX_TOP)?;
    if top.is_some() && by.is_empty() {
        return Err(Problem::bad_request("malformed", "`top` needs `by`"));
    }
    let top = top.unwrap_or(DEFAULT_TOP);
    let consistency = match params.take("consistency").as_deref() {
        None => Consistency::Any,
        Some("stored") => Consistency::Stored,
        Some("hot") => Consistency::Hot,
        Some(other) => {
            let detail = format!("`consistency` is `{other}`; it may be `stored` or `hot`");
            return Err(Problem::bad_request("malformed", detail));
        }
    };
    let timeout = params.take("timeout").map(|text| {
        text.parse::<Span>().map_err(|error| Problem::bad_request("malformed", format!("`timeout`: {error}")))
    });
    let timeout = timeout.transpose()?;
    let at_least = match params.take("at_least") {
        None if timeout.is_some() => return Err(Problem::bad_request("malformed", "`timeout` needs `at_least`")),
        None => None,
        Some(_) if consistency == Consistency::Hot => {
            let detail = "`at_least` is answered from the store: it cannot be asked with `consistency=hot`";
            return Err(Problem::bad_request("malformed", detail));
        }
        Some(text) => {
            let timeout = timeout.map_or(AT_LEAST_TIMEOUT, |timeout| timeout.0).min(inner.timeout);
            Some((receipts::parse(AT_LEAST, &text)?, timeout))
        }
    };
    params.finish(KNOWN)?;
    Ok(Asked { namespace, counter, filter, tags, by, top, consistency, at_least })
}

/// How a parameter is named to people.
const AT_LEAST: &str = "`at_least`";

fn filter(tags: &TagMap) -> Result<Filter, Problem> {
    if tags.0.len() > MAX_TAGS {
        return Err(Problem::bad_request("too_many", format!("a series has at most {MAX_TAGS} tags")));
    }
    let wanted = tags.0.iter().map(|(key, value)| {
        let pattern = Pattern::parse(value);
        check_tag_key(key).and_then(|()| check_tag_value(pattern.text())).map_err(|error| refuse("`tag.`", &error))?;
        Ok((key.clone(), pattern))
    });
    Ok(Filter(wanted.collect::<Result<_, Problem>>()?))
}

fn by(text: &str) -> Result<Vec<String>, Problem> {
    let mut keys: Vec<String> = Vec::new();
    for key in text.split(',') {
        check_tag_key(key).map_err(|error| refuse("`by`", &error))?;
        if keys.iter().any(|known| known == key) {
            return Err(Problem::bad_request("malformed", format!("`by` names `{key}` more than once")));
        }
        keys.push(key.to_owned());
    }
    if keys.len() > MAX_TAGS {
        return Err(Problem::bad_request("too_many", format!("`by` names more than {MAX_TAGS} tags")));
    }
    Ok(keys)
}

pub(super) fn unknown(namespace: &Namespace, counter: &str) -> Error {
    let detail = format!("nobody has counted `{counter}` in the namespace `{namespace}`");
    Problem::new(StatusCode::NOT_FOUND, "unknown_counter", detail).into()
}

fn not_hot(counter: &str) -> Error {
    let detail = format!("the hot view cannot answer this of `{counter}` now; ask without `consistency=hot`");
    Problem::new(StatusCode::NOT_FOUND, "not_hot", detail).into()
}

async fn plain(inner: &Arc<Inner>, asked: Asked) -> Result<Body, Error> {
    let Asked { namespace, counter, tags, consistency, at_least, .. } = asked;
    let total = match consistency {
        Consistency::Hot => {
            let total = inner.hot_total(&counter_key(&namespace, &counter)).await;
            Some(total.ok_or_else(|| not_hot(&counter))?)
        }
        Consistency::Any if at_least.is_none() => inner.counter_total(&namespace, &counter).await?,
        Consistency::Any | Consistency::Stored => inner.stored_total(&namespace, &counter).await?,
    };
    let Total { total, source, at_ms, stale } = total.ok_or_else(|| unknown(&namespace, &counter))?;
    let total = number(total, format_args!("`{counter}`"))?;
    Ok(Body { counter, tags, groups: None, total, freshness: inner.freshness(source, at_ms, stale) })
}

async fn scanned(inner: &Arc<Inner>, asked: Asked) -> Result<Body, Error> {
    let Asked { namespace, counter, filter, tags, by, top, consistency, .. } = asked;
    if consistency == Consistency::Hot {
        return Err(not_hot(&counter));
    }
    let mut total = 0_i128;
    let mut groups = Groups::new(&by);
    let scanned = inner.scan(&namespace, &counter, |row| {
        if filter.matches(&row.name.tags) {
            total = total.saturating_add(row.total);
            groups.add(&row.name.tags, row.total);
        }
    });
    let scanned = scanned.await?;
    if !scanned.any && !inner.is_known(&namespace, &counter).await? {
        return Err(unknown(&namespace, &counter));
    }
    let groups = if by.is_empty() {
        None
    } else {
        let (largest, other) = groups.largest(top);
        let group = |(values, sum): (Vec<String>, i128)| {
            let tags = TagMap(by.iter().cloned().zip(values).collect());
            Ok(GroupBody { tags, total: number(sum, format_args!("a group of `{counter}`"))? })
        };
        let groups = largest.into_iter().map(group).collect::<Result<_, Problem>>()?;
        Some(GroupsBody { groups, other: number(other, format_args!("the other groups of `{counter}`"))? })
    };
    let total = number(total, format_args!("`{counter}`"))?;
    let freshness = inner.freshness(Source::Store, scanned.standing.at_ms, scanned.standing.stale());
    Ok(Body { counter, tags, groups, total, freshness })
}
