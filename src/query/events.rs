//! `GET /v1/events`: events of a name or of a subject, newest first.
//!
//! The store pages by (time, id). Events of one subject may share both and differ in name, so a page that continues
//! within such a run reads the run again and drops what was given already. A name beside a subject filters the
//! subject's events; how many are read for one page is bounded, and a page may be short and still have a cursor.

use std::{cmp::Ordering, sync::Arc};

use axum::{
    http::{HeaderMap, Uri},
    response::Response,
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    Error, Inner,
    freshness::rfc3339,
    pages::{self, EventPlace},
    params::{self, Params, refuse},
    routes::json,
};
use crate::{
    item::check_event_text,
    problem::Problem,
    store::{EventRow, EventsBy, EventsPage},
};

/// Most rows that are read for one page.
const MAX_READ: usize = 20_000;
/// Rows of one read, at least.
const READ: usize = 100;

#[derive(Serialize)]
struct Body<'a> {
    events: Vec<EventBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[derive(Serialize)]
struct EventBody<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    time: String,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    properties: Option<&'a RawValue>,
}

/// Answers the request.
pub(super) async fn get(inner: &Inner, uri: &Uri, headers: &HeaderMap) -> Result<Response, Error> {
    let namespace = params::namespace(headers)?;
    let mut params = Params::parse(uri.query())?;
    let limit = params.limit()?;
    let from_ms = params.time_ms("from")?.unwrap_or(i64::MIN);
    let to_ms = params.time_ms("to")?.unwrap_or(i64::MAX);
    let after = params.take("cursor").map(|cursor| pages::read_event(&cursor)).transpose()?;
    let (name, subject) = (params.take("name"), params.take("subject"));
    params.finish("`name`, `subject`, `from`, `to`, `limit` and `cursor`")?;
    for (what, text) in [("name", &name), ("subject", &subject)] {
        if let Some(text) = text {
            check_event_text(what, text).map_err(|invalid| refuse(what, &invalid))?;
        }
    }
    if from_ms > to_ms {
        return Err(Problem::bad_request("out_of_range", "`from` is after `to`").into());
    }
    let (by, only) = match (name, subject) {
        (None, None) => return Err(Problem::bad_request("missing", "give `name` or `subject`, or both").into()),
        (Some(name), None) => (EventsBy::Name(name.into()), None),
        (name, Some(subject)) => (EventsBy::Subject(subject.into()), name),
    };
    let page = EventsPage { namespace, by, from_ms, to_ms, before: None, limit };
    let (rows, next) = read(inner, page, after, only.as_deref()).await?;
    let events = rows.iter().map(|row| EventBody {
        name: &row.name,
        subject: row.subject.as_deref(),
        time: rfc3339(row.time_ms),
        id: &row.id,
        // Ingest has checked that it is JSON; what another hand has written and is not, cannot be shown.
        properties: serde_json::from_slice(&row.properties).ok(),
    });
    Ok(json(&Body { events: events.collect(), next_cursor: next.as_ref().map(pages::write_event) }))
}

/// Reads up to `page.limit` events after a place, and the place to go on from.
async fn read(
    inner: &Inner,
    mut page: EventsPage,
    mut after: Option<EventPlace>,
    only: Option<&str>,
) -> Result<(Vec<EventRow>, Option<EventPlace>), Error> {
    let limit = page.limit;
    // One more than asked for says whether there is another page.
    page.limit = (limit + 1).max(READ);
    let mut found = Vec::new();
    let mut seen = 0;
    loop {
        page.before = after.as_ref().map(|place| (place.time_ms, store_id(&page.by, place)));
        let rows = inner.store.events(&page).await?;
        inner.store_answered();
        let read = rows.len();
        let ended = read < page.limit;
        let mut fresh = 0;
        for row in rows {
            let place = EventPlace { time_ms: row.time_ms, id: row.id.clone(), name: row.name.clone() };
            if after.as_ref().is_some_and(|after| newest_first(&place, after) != Ordering::Greater) {
                continue;
            }
            fresh += 1;
            if only.is_none_or(|only| *row.name == *only) {
                if found.len() == limit {
                    return Ok((found, after));
                }
                found.push(row);
            }
            after = Some(place);
        }
        seen += read;
        if ended {
            return Ok((found, None));
        }
        if seen >= MAX_READ && (fresh > 0 || page.limit >= MAX_READ) {
            return Ok((found, after));
        }
        if fresh == 0 {
            // A run of one time and id that is longer than a read.
            page.limit = page.limit.saturating_mul(2);
        }
    }
}

/// The id to read on before: by subject that of the place itself counts again, for other names may share it.
fn store_id(by: &EventsBy, place: &EventPlace) -> Arc<str> {
    match by {
        EventsBy::Name(_) => place.id.clone(),
        // The least text above the id.
        EventsBy::Subject(_) => format!("{}\0", place.id).into(),
    }
}

/// The order of a page: descending time, id and name.
fn newest_first(a: &EventPlace, b: &EventPlace) -> Ordering {
    (b.time_ms, &b.id, &b.name).cmp(&(a.time_ms, &a.id, &a.name))
}
