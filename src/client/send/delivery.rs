//! Posts a batch until the ingest has answered for every item of it.
//!
//! What may pass is tried again with the same ids: no connection, a broken one, no answer in time, 408, 425, 429 and
//! every 5xx, after a delay that grows, is jittered, and is never shorter than the answer's Retry-After. A batch that is
//! too large is halved. Requests are sent with `partial`, so that one bad item does not refuse the others; what the
//! ingest says against single items is reported by line. Any other answer is about all requests, and ends the sending.

use std::{
    io::Write as _,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};

use super::{Options, batch::Batch, item_error::ItemError, report::Report};
use crate::{
    client::{
        Error,
        http::{Answer, Body, Http, refusal},
        one_line,
    },
    retry::Backoff,
    units::Span,
};

/// A request gets at least so long, however near the time to give up is.
const LEAST_REQUEST: Duration = Duration::from_millis(100);
/// Trouble that is over sooner is not worth a line.
const TROUBLE: Duration = Duration::from_secs(1);
/// Clients that were all told the same Retry-After come back within so long after it.
const SPREAD: Duration = Duration::from_millis(500);

/// Posts batches to one ingest.
pub(super) struct Delivery<'a, 'c> {
    options: &'a Options,
    http: &'a Http,
    report: &'a Report<'c>,
    health: Mutex<Health>,
}

/// What all batches know of the ingest.
struct Health {
    /// When a batch was last answered for.
    progress: Instant,
    /// Whether there was ever an answer.
    answered: bool,
    /// Whether people have been told that it does not answer.
    told: bool,
}

#[derive(Deserialize)]
struct Accepted {
    accepted: u64,
    #[serde(default)]
    receipt: Option<String>,
    #[serde(default)]
    rejected: Vec<ItemError>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Refused {
    errors: Vec<ItemError>,
}

/// What one try came to.
enum Try {
    Done,
    TooLarge(Answer),
    Again { reason: String, after: Option<Duration> },
}

impl<'a, 'c> Delivery<'a, 'c> {
    pub(super) fn new(options: &'a Options, http: &'a Http, report: &'a Report<'c>) -> Self {
        let health = Health { progress: Instant::now(), answered: false, told: false };
        Self { options, http, report, health: Mutex::new(health) }
    }

    /// Returns when every item of the batch is accepted or reported.
    pub(super) async fn deliver(&self, batch: Batch) -> Result<(), Error> {
        let mut left = vec![batch];
        while let Some(batch) = left.pop() {
            let Some(too_large) = self.post(&batch).await? else { continue };
            match batch.halves() {
                Some([first, second]) => left.extend([second, first]),
                None => {
                    let message = detail(&refusal(self.http, &too_large));
                    self.report.refused(&batch, &[ItemError { message, ..ItemError::default() }], 1);
                }
            }
        }
        Ok(())
    }

    /// Tries until there is a final answer; gives back one that says that the batch is too large.
    async fn post(&self, batch: &Batch) -> Result<Option<Answer>, Error> {
        let began = Instant::now();
        let mut backoff = Backoff::new(&self.options.retry);
        let body = self.body(batch);
        let query = [("partial".to_owned(), "true".to_owned())];
        loop {
            let left = self.give_up_at(began).saturating_duration_since(Instant::now());
            let limit = self.options.request_timeout.min(left.max(LEAST_REQUEST));
            self.report.requested();
            let tried = match self.http.post(&["v1", batch.kind.path()], &query, body.clone(), limit).await {
                Ok(answer) => self.judge(batch, answer)?,
                Err(failure) => Try::Again { reason: one_line(&failure.to_string()), after: None },
            };
            let (reason, after) = match tried {
                Try::Done => return Ok(None),
                Try::TooLarge(answer) => return Ok(Some(answer)),
                Try::Again { reason, after } => (reason, after),
            };
            let delay = backoff.next_delay();
            self.pause(began, after.map_or(delay, |after| after + delay.min(SPREAD)), &reason).await?;
            self.report.retried();
        }
    }

    fn body(&self, batch: &Batch) -> Body {
        let bytes = match self.options.gzip {
            true => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(batch.body()).and_then(|()| encoder.finish()).expect("memory takes everything")
            }
            false => batch.body().to_vec(),
        };
        Body { bytes: Bytes::from(bytes), content_type: "application/x-ndjson", gzip: self.options.gzip }
    }

    fn judge(&self, batch: &Batch, answer: Answer) -> Result<Try, Error> {
        let refused = |answer: &Answer| Err(refusal(self.http, answer));
        self.with_health(|health| health.answered = true);
        match answer.status {
            200 | 202 => {
                let Ok(accepted) = serde_json::from_slice::<Accepted>(&answer.body) else {
                    return Err(Error::Refused {
                        url: self.http.url().to_owned(),
                        status: answer.status,
                        code: String::new(),
                        detail: "this is not the answer of a Tallymark ingest; check the address".to_owned(),
                    });
                };
                self.progressed();
                let rejected = (batch.len() as u64).saturating_sub(accepted.accepted);
                self.report.accepted(accepted.accepted, accepted.receipt.as_deref());
                self.report.refused(batch, &accepted.rejected, rejected);
                Ok(Try::Done)
            }
            400 => {
                let mut errors = serde_json::from_slice::<Refused>(&answer.body).unwrap_or_default().errors;
                if errors.is_empty() {
                    // It is not about single items, unless there is only one.
                    if batch.len() > 1 {
                        return refused(&answer);
                    }
                    let message = detail(&refusal(self.http, &answer));
                    errors.push(ItemError { message, ..ItemError::default() });
                }
                self.progressed();
                self.report.refused(batch, &errors, batch.len() as u64);
                Ok(Try::Done)
            }
            413 => {
                self.progressed();
                Ok(Try::TooLarge(answer))
            }
            408 | 425 | 429 | 500.. => {
                let reason = format!("{}: {}", answer.status, detail(&refusal(self.http, &answer)));
                Ok(Try::Again { reason, after: answer.retry_after })
            }
            _ => refused(&answer),
        }
    }

    /// Waits before the next try; gives up when nothing at all was accepted for too long.
    async fn pause(&self, began: Instant, delay: Duration, reason: &str) -> Result<(), Error> {
        let until = Instant::now() + delay;
        loop {
            let (now, give_up) = (Instant::now(), self.give_up_at(began));
            if now >= give_up {
                return Err(self.gave_up(began, reason));
            }
            self.tell(began, give_up, reason);
            if now >= until {
                return Ok(());
            }
            sleep_until(until.min(give_up)).await;
        }
    }

    /// When a batch that was first tried at `began` is given up: others' progress keeps it alive.
    fn give_up_at(&self, began: Instant) -> Instant {
        self.with_health(|health| {
            let patience = if health.answered { self.options.timeout } else { self.options.first_contact };
            health.progress.max(began) + patience
        })
    }

    fn gave_up(&self, began: Instant, reason: &str) -> Error {
        let waited = began.elapsed().min(self.with_health(|health| health.progress.elapsed()));
        let advice = match self.options.make_ids {
            true => "Send it again when it is: what was accepted counts once.",
            false => "What was accepted before counts again when it is sent again, for its items have no ids.",
        };
        Error::GaveUp {
            url: self.http.url().to_owned(),
            waited: format!("{:.1} s", waited.as_secs_f64()),
            reason: reason.to_owned(),
            advice,
        }
    }

    fn progressed(&self) {
        let told = self.with_health(|health| {
            health.progress = Instant::now();
            std::mem::take(&mut health.told)
        });
        if told {
            self.report.note(&format!("{} accepts items again", self.http.url()));
        }
    }

    /// Tells people once, when trouble has lasted for a while.
    fn tell(&self, began: Instant, give_up: Instant, reason: &str) {
        let now = Instant::now();
        let news = self.with_health(|health| {
            let lasting = now.saturating_duration_since(health.progress.max(began)) >= TROUBLE;
            lasting && !std::mem::replace(&mut health.told, lasting)
        });
        if news {
            let seconds = Span::from_secs(give_up.saturating_duration_since(now).as_secs() + 1);
            let url = self.http.url();
            self.report.note(&format!("{url} accepts nothing ({reason}); trying again for up to {seconds}"));
        }
    }

    fn with_health<T>(&self, with: impl FnOnce(&mut Health) -> T) -> T {
        with(&mut self.health.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The detail of a refusal, without the address that goes without saying.
fn detail(error: &Error) -> String {
    match error {
        Error::Refused { detail, .. } => detail.clone(),
        other => other.to_string(),
    }
}
