//! What handlers and packers share, and the one synchronous step in which a request is accepted.

use std::sync::{
    Arc, Mutex, RwLock,
    atomic::{AtomicI64, Ordering},
};

use axum::body::Bytes;
use smallvec::SmallVec;
use tokio_util::sync::CancellationToken;

use super::{
    Deps, Error,
    ack::Ack,
    batch::{Batch, Kind},
    budget::{Budget, Reserved},
    encoding::Encoding,
    limits::Limits,
    meters::Meters,
    packer::{Packer, Wishes},
    params::Asked,
    parser::{Parser, Unreadable},
};
use crate::{
    clock,
    problem::{ItemError, Problem},
};

/// Most partitions of a log: a receipt, which is at most 2 KiB, names a seq of each.
const MAX_PARTITIONS: u32 = 128;
/// Emptied batches that are kept for later requests.
const MAX_SPARE_BATCHES: usize = 32;
/// Most errors of a 400.
const MAX_ERRORS: usize = 100;

pub(super) struct Shared {
    pub limits: Limits,
    pub deps: Deps,
    pub partitions: u32,
    /// This process's identity in its packs.
    pub ingest: [u8; 16],
    pub packers: Vec<Packer>,
    pub budget: Arc<Budget>,
    pub meters: Meters,
    /// Whether the hot view wants deltas.
    pub hot: bool,
    pub clock_ahead_ms: AtomicI64,
    /// Whether intake is over. Held for reading while a request is accepted: once it is written, no item comes any more.
    closed: RwLock<bool>,
    /// Tells those who wait for a client or for the store that intake is over.
    pub closing: CancellationToken,
    spare: Mutex<Vec<Batch>>,
}

/// A pack that holds items of a request.
pub(super) struct Ticket {
    pub partition: u32,
    pub ack: Arc<Ack>,
}

/// A request whose items are in open packs.
pub(super) struct Accepted {
    pub items: usize,
    /// With `partial=true`: what is wrong with the others.
    pub rejected: Option<Vec<ItemError>>,
    /// In ascending order of partition.
    pub tickets: SmallVec<[Ticket; 4]>,
}

const UNPOISONED: &str = "nothing panics while it holds this lock";

impl Shared {
    pub(super) fn new(limits: Limits, deps: Deps) -> Result<Self, Error> {
        let topology = deps.log.topology();
        let partitions = topology.partitions;
        if !(1..=MAX_PARTITIONS).contains(&partitions) {
            return Err(Error::Unfit(format!(
                "the log `{}` has {partitions} partitions; ingest writes to logs of 1 to {MAX_PARTITIONS}: make one with fewer",
                topology.topic
            )));
        }
        if deps.shards == 0 || i32::try_from(deps.shards).is_err() {
            return Err(Error::Unfit(format!(
                "store.shards is {}; it must be between 1 and {}",
                deps.shards,
                i32::MAX
            )));
        }
        Ok(Self {
            partitions,
            ingest: rand::random(),
            packers: (0..partitions).map(|_| Packer::default()).collect(),
            budget: Budget::new(limits.buffer),
            meters: Meters::new(),
            hot: deps.hot.describe().1,
            clock_ahead_ms: AtomicI64::new(0),
            closed: RwLock::new(false),
            closing: CancellationToken::new(),
            spare: Mutex::default(),
            limits,
            deps,
        })
    }

    /// Ends intake: when this returns, every item that ever comes is in a packer's queue.
    pub(super) fn close(&self) {
        *self.closed.write().expect(UNPOISONED) = true;
        self.closing.cancel();
        self.packers.iter().for_each(Packer::wake);
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.closed.read().expect(UNPOISONED)
    }

    /// Decodes, parses and checks a body, and puts its items into open packs: all of them, or none.
    pub(super) fn accept(
        &self,
        kind: Kind,
        asked: &Asked,
        body: &Bytes,
        mut reserved: Reserved,
    ) -> Result<Accepted, Problem> {
        let decoded;
        let bytes = match asked.encoding {
            Encoding::Identity => &body[..],
            encoding => {
                decoded = encoding.decode(body, self.limits.max_decoded, &mut reserved)?;
                &decoded
            }
        };
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let detail = format!("the body is not UTF-8: it breaks at byte {}", error.valid_up_to());
            Problem::bad_request("not_utf8", detail)
        })?;
        let mut batch = self.spare.lock().expect(UNPOISONED).pop().unwrap_or_default();
        let accepted = self.accept_text(kind, asked, text, &mut batch);
        if batch.is_worth_keeping() {
            let mut spare = self.spare.lock().expect(UNPOISONED);
            if spare.len() < MAX_SPARE_BATCHES {
                spare.push(batch);
            }
        }
        accepted
    }

    fn accept_text(&self, kind: Kind, asked: &Asked, text: &str, batch: &mut Batch) -> Result<Accepted, Problem> {
        let parser = Parser {
            limits: &self.limits,
            namespace: asked.namespace(),
            now_ms: clock::now_ms(),
            idempotency_key: asked.idempotency_key.as_deref(),
            partial: asked.partial,
            shards: self.deps.shards,
            partitions: self.partitions,
        };
        parser.parse(kind, asked.framing, text, batch).map_err(|unreadable| match unreadable {
            Unreadable::Malformed(why) => {
                Problem::bad_request("malformed_json", format!("{why}; nothing was accepted"))
            }
            Unreadable::TooMany => Problem::new(
                axum::http::StatusCode::PAYLOAD_TOO_LARGE,
                "too_many_items",
                format!("the request has more than {} items (ingest.max_items)", self.limits.max_items),
            ),
        })?;
        let rejected = batch.rejected();
        if rejected > 0 {
            self.meters.rejected(batch.errors());
            if !asked.partial || batch.is_empty() {
                let detail =
                    format!("{rejected} of {} items are not valid; nothing was accepted", rejected + batch.len());
                let mut errors = batch.take_errors();
                errors.truncate(MAX_ERRORS);
                return Err(Problem::bad_request("invalid_items", detail).with_errors(errors));
            }
        }
        Ok(Accepted {
            items: batch.len(),
            tickets: self.append(batch, asked)?,
            rejected: asked.partial.then(|| batch.take_errors()),
        })
    }

    fn append(&self, batch: &Batch, asked: &Asked) -> Result<SmallVec<[Ticket; 4]>, Problem> {
        let mut tickets = SmallVec::new();
        let mut reserved = self.budget.open();
        if !reserved.grow(batch.total_cost()) {
            return Err(if batch.total_cost() > self.budget.limit() {
                let detail = format!(
                    "the request alone needs more than ingest.buffer ({} bytes); send fewer items at once. Nothing was accepted",
                    self.budget.limit()
                );
                Problem::overloaded("overloaded", detail)
            } else {
                overloaded()
            });
        }
        let closed = self.closed.read().expect(UNPOISONED);
        if *closed {
            return Err(draining());
        }
        let wishes = Wishes { urgent: asked.stored_within.is_some(), hot: asked.hot, traceparent: asked.traceparent };
        for (partition, packer) in (0..).zip(&self.packers) {
            packer.append(self, partition, batch, wishes, &mut reserved, &mut tickets);
        }
        Ok(tickets)
    }

    pub(super) fn note_clock(&self, append_ms: i64) {
        self.clock_ahead_ms.store(clock::now_ms().saturating_sub(append_ms), Ordering::Relaxed);
    }
}

pub(super) fn overloaded() -> Problem {
    Problem::overloaded(
        "overloaded",
        "the buffer of unacknowledged items (ingest.buffer) is full; nothing was accepted",
    )
}

pub(super) fn draining() -> Problem {
    Problem::unavailable("draining", "this ingest is shutting down; nothing was accepted: retry, elsewhere or later")
}
