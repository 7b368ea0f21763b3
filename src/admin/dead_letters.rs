//! `/api/v1/dead-letters`: the records that no lane could apply, and their replay. What `tallymark dead-letters` asks.
//!
//! `GET` finds letters by `partition`, `seq`, `reason`, `since`, `until`, a page of `limit` at a time, each answer saying
//! where to go on (`after`). `POST …/replay` replays those that the same parameters find, or says what would become of
//! them (`dry_run=true`).

use axum::{
    Router,
    extract::{RawQuery, State as Extract},
    http::{HeaderMap, StatusCode, header},
    response::Response,
    routing::{get, post},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Serialize;

use super::{harden, json};
use crate::{
    dead_letter::{self, Error, Filter, Handle, Outcome},
    item::Seq,
    log::{Class, DeadLetter, Found, Place, Record},
    problem::Problem,
    query::{Params, rfc3339},
    retry::{Classified as _, Kind},
    store::Replayed,
};

/// Letters of one replay: an answer must come in time.
const REPLAYED_AT_ONCE: usize = 50;

/// The routes; they change something, so the port is not for everybody.
pub fn routes(handle: Handle) -> Router {
    Router::new()
        .route("/api/v1/dead-letters", get(list))
        .route("/api/v1/dead-letters/replay", post(replay))
        .with_state(handle)
        .layer(axum::middleware::map_response(harden))
}

/// A letter as it is told.
#[derive(Serialize)]
struct Told {
    place: String,
    buried: String,
    /// Why there is no letter at the place.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    letter: Option<Letter>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    whole: Option<Whole>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    outcome: Option<ToldOutcome>,
}

#[derive(Serialize)]
struct Letter {
    topic_id: String,
    partition: u32,
    seq: u64,
    /// Null where the record does not say it any more.
    appended: Option<String>,
    reason: &'static str,
    detail: String,
    format: u32,
    bytes: usize,
    replayed: Option<By>,
}

/// What `payload=true` adds.
#[derive(Serialize)]
struct Whole {
    /// Items that this program reads in it; null: none.
    items: Option<usize>,
    /// Why it reads none.
    unreadable: Option<String>,
    payload: String,
}

/// The pack that has applied a replay.
#[derive(Serialize)]
struct By {
    topic_id: String,
    seq: u64,
}

#[derive(Serialize)]
struct ToldOutcome {
    outcome: &'static str,
    /// Where the replay stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    appended_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

#[derive(Serialize)]
struct Answer {
    letters: Vec<Told>,
    /// What `after` takes to go on; null at the end.
    next: Option<String>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|digit| digit.to_digit(16).map(|value| value as u8)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0 && digits.len() <= 128)?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

impl From<Replayed> for By {
    fn from(by: Replayed) -> Self {
        Self { topic_id: by.topic_id.to_string(), seq: by.seq.0 }
    }
}

impl From<Outcome> for ToldOutcome {
    fn from(outcome: Outcome) -> Self {
        let told = |outcome| Self { outcome, appended_seq: None, why: None };
        match outcome {
            Outcome::Replayed(seq) => Self { appended_seq: seq.map(|seq| seq.0), ..told("replayed") },
            Outcome::WouldReplay => told("would_replay"),
            Outcome::Already(_) => told("already_replayed"),
            Outcome::Left(why) => Self { why: Some(why), ..told("left") },
        }
    }
}

fn problem(error: &Error) -> Problem {
    let detail = error.to_string();
    match error.kind() {
        Kind::Transient => Problem::unavailable("unavailable", detail),
        Kind::Permanent | Kind::Fatal => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", detail),
    }
}

fn malformed(name: &str, must: &str) -> Problem {
    Problem::bad_request("malformed", format!("`{name}` must be {must}"))
}

fn filter(params: &mut Params) -> Result<Filter, Problem> {
    let mut number = |name: &str, must: &str| match params.take(name).map(|text| text.parse::<u64>()) {
        None => Ok(None),
        Some(Ok(number)) => Ok(Some(number)),
        Some(Err(_)) => Err(malformed(name, must)),
    };
    let partition = number("partition", "a partition's number")?.map(u32::try_from).transpose();
    let partition = partition.map_err(|_| malformed("partition", "a partition's number"))?;
    let seq = number("seq", "an offset")?.map(Seq);
    let words = || Class::ALL.map(Class::word).join(", ");
    let class = match params.take("reason") {
        None => None,
        Some(word) => Some(Class::parse(&word).ok_or_else(|| malformed("reason", &format!("one of {}", words())))?),
    };
    let (since_ms, until_ms) = (params.time_ms("since")?, params.time_ms("until")?);
    Ok(Filter { partition, seq, class, since_ms, until_ms })
}

fn place(params: &mut Params) -> Result<Option<Place>, Problem> {
    let Some(text) = params.take("after") else { return Ok(None) };
    unhex(&text).map(|bytes| Some(Place(bytes))).ok_or_else(|| malformed("after", "what an answer gave as `next`"))
}

fn flag(params: &mut Params, name: &str) -> Result<bool, Problem> {
    match params.take(name).as_deref() {
        None | Some("false") => Ok(false),
        Some("true" | "") => Ok(true),
        Some(_) => Err(malformed(name, "true or false")),
    }
}

fn told(found: &Found, replayed: Option<Replayed>) -> Told {
    let letter = found.letter.as_ref().ok().map(|letter| Letter {
        topic_id: letter.at.lane.topic_id.to_string(),
        partition: letter.at.lane.partition,
        seq: letter.at.seq.0,
        appended: (letter.append_ms != 0).then(|| rfc3339(letter.append_ms)),
        reason: letter.class.word(),
        detail: letter.reason.clone(),
        format: letter.format,
        bytes: letter.payload.len(),
        replayed: replayed.map(By::from),
    });
    Told {
        place: hex(&found.place.0),
        buried: rfc3339(found.buried_ms),
        error: found.letter.as_ref().err().cloned(),
        letter,
        whole: None,
        outcome: None,
    }
}

fn whole(letter: &DeadLetter) -> Whole {
    let record = Record {
        seq: letter.at.seq,
        append_ms: letter.append_ms,
        leader_epoch: None,
        format: letter.format,
        payload: letter.payload.clone(),
        damage: (letter.class == Class::Damaged).then(|| letter.reason.clone()),
    };
    let read = dead_letter::readable(&record);
    Whole {
        items: read.as_ref().ok().map(crate::pack::Pack::items),
        unreadable: read.err(),
        payload: BASE64_STANDARD.encode(&letter.payload),
    }
}

async fn list(Extract(handle): Extract<Handle>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let mut params = Params::parse(query.as_deref())?;
    let (filter, after, limit) = (filter(&mut params)?, place(&mut params)?, params.limit()?);
    let with_payload = flag(&mut params, "payload")?;
    params.finish("partition, seq, reason, since, until, limit, after, payload")?;
    let page = handle.page(&filter, after, limit).await.map_err(|error| problem(&error))?;
    let mut letters = Vec::with_capacity(page.found.len());
    for found in &page.found {
        let letter = found.letter.as_ref().ok();
        let replayed = match letter {
            Some(letter) => handle.replayed(letter.at).await.map_err(|error| problem(&error))?,
            None => None,
        };
        let whole = letter.filter(|_| with_payload).map(whole);
        letters.push(Told { whole, ..told(found, replayed) });
    }
    Ok(json(StatusCode::OK, &Answer { letters, next: page.next.map(|next| hex(&next.0)) }))
}

async fn replay(
    Extract(handle): Extract<Handle>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    // Another site's page cannot send this without asking first, and is not answered.
    if headers.get(header::CONTENT_TYPE).is_none_or(|kind| kind != "application/json") {
        let detail = "a replay is asked for with `Content-Type: application/json`";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
    }
    let mut params = Params::parse(query.as_deref())?;
    let (filter, after) = (filter(&mut params)?, place(&mut params)?);
    let limit = params.limit()?.min(REPLAYED_AT_ONCE);
    let dry_run = flag(&mut params, "dry_run")?;
    params.finish("partition, seq, reason, since, until, limit, after, dry_run")?;
    let page = handle.page(&filter, after, limit).await.map_err(|error| problem(&error))?;
    let epochs = handle.epochs().await.map_err(|error| problem(&error))?;
    let mut letters = Vec::with_capacity(page.found.len());
    for found in &page.found {
        let outcome = match &found.letter {
            Ok(letter) => handle.replay(letter, &epochs, dry_run).await.map_err(|error| problem(&error))?,
            Err(why) => Outcome::Left(why.clone()),
        };
        let replayed = match outcome {
            Outcome::Already(by) => Some(by),
            _ => None,
        };
        letters.push(Told { outcome: Some(outcome.into()), ..told(found, replayed) });
    }
    Ok(json(StatusCode::OK, &Answer { letters, next: page.next.map(|next| hex(&next.0)) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_in_hex_and_read_back() {
        for bytes in [vec![], vec![0, 255, 16], vec![7; 28]] {
            assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        }
        for text in ["0", "zz", "é", &"00".repeat(65)] {
            assert_eq!(unhex(text), None, "{text}");
        }
    }

    #[test]
    fn parameters_that_are_none_are_refused_by_name() {
        let refused = |query: &str| {
            let mut params = Params::parse(Some(query)).unwrap();
            filter(&mut params).map(drop).and_then(|()| place(&mut params).map(drop)).unwrap_err().detail
        };
        for (query, name) in [
            ("partition=x", "partition"),
            ("partition=5000000000", "partition"),
            ("seq=-1", "seq"),
            ("reason=odd", "reason"),
            ("after=zz", "after"),
        ] {
            assert!(refused(query).contains(&format!("`{name}`")), "{query}");
        }
        assert!(refused("reason=odd").contains("damaged, malformed, misplaced, replay, before"));
    }
}
