//! `/api/v1/lanes`: the lanes, what was decided about them, and the one place of the admin port that changes anything.
//!
//! A remedy is posted as JSON, first with `dry_run` and then with the plan's name that came back. A page of another site
//! cannot post it from somebody's browser: `application/json` needs a preflight that nobody here answers, and what carries an
//! `Origin` is refused.

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::Response,
    routing::{get, post},
};
use serde::{Deserialize, Serialize};

use crate::{
    lanes::{Author, Desk, Error, Plan, Wish},
    problem::Problem,
};

/// A remedy that is asked for.
#[derive(Debug, Deserialize, Serialize)]
pub struct Request {
    /// What.
    #[serde(flatten)]
    pub wish: Wish,
    /// Only say what it would do.
    #[serde(default)]
    pub dry_run: bool,
    /// The plan that was shown.
    #[serde(default)]
    pub plan: Option<String>,
    /// Who asks.
    #[serde(default)]
    pub who: String,
    /// Why.
    #[serde(default)]
    pub why: String,
}

/// What it does, or would do.
#[derive(Debug, Deserialize, Serialize)]
pub struct Answer {
    /// Whether it was done.
    pub done: bool,
    /// Whether there is anything to do.
    pub needed: bool,
    /// The plan's name.
    pub plan: String,
    /// What it does, sentence by sentence.
    pub says: Vec<String>,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(why) => Self::new(StatusCode::CONFLICT, "refused", why),
            Error::Unavailable(why) => Self::unavailable("unavailable", why),
        }
    }
}

/// The routes, for every process that has log and store open.
pub fn routes<S: Clone + Send + Sync + 'static>(desk: Desk) -> Router<S> {
    Router::new()
        .route("/api/v1/lanes", get(show))
        .route("/api/v1/lanes/records", get(records))
        .route("/api/v1/lanes/remedies", post(remedy))
        .with_state(desk)
}

async fn show(State(desk): State<Desk>) -> Result<Response, Problem> {
    Ok(super::json(StatusCode::OK, &desk.show().await?))
}

async fn records(State(desk): State<Desk>) -> Result<Response, Problem> {
    Ok(super::json(StatusCode::OK, &desk.records().await?))
}

async fn remedy(State(desk): State<Desk>, headers: HeaderMap, body: Bytes) -> Result<Response, Problem> {
    if headers.contains_key(header::ORIGIN) {
        let why = "remedies are not taken from web pages; use `tallymark lanes`";
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", why));
    }
    let is_json =
        headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !is_json {
        let why = "a remedy is posted as `application/json`";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", why));
    }
    let request: Request = serde_json::from_slice(&body)
        .map_err(|error| Problem::bad_request("malformed", format!("this is no remedy: {error}")))?;
    if request.dry_run {
        return Ok(super::json(StatusCode::OK, &answer(desk.propose(&request.wish).await?, false)));
    }
    let Some(plan) = request.plan else {
        let why = "`plan` is missing: ask with `dry_run` first, and name the plan that comes back";
        return Err(Problem::bad_request("malformed", why));
    };
    let author = Author { who: request.who, why: request.why };
    // Whoever asked may hang up; what has begun is done all the same.
    let doing = tokio::spawn(async move { desk.carry_out(&request.wish, &plan, &author).await });
    let done =
        doing.await.unwrap_or_else(|error| Err(Error::Unavailable(format!("the remedy was broken off: {error}"))))?;
    Ok(super::json(StatusCode::OK, &answer(done, true)))
}

fn answer(plan: Plan, done: bool) -> Answer {
    let needed = !plan.remedies.is_empty();
    Answer { done: done && needed, needed, plan: plan.name, says: plan.says }
}
