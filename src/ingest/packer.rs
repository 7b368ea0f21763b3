//! The packs of one partition: what handlers append to, and the task that closes packs and hands them to the log.
//!
//! At most `ingest.in_flight` packs are with the log. The next one closes when one of them returns and it has lingered or
//! is full: so packs are small and leave at once when it is quiet, and grow when it is not. A pack lingers for
//! `ingest.linger`, and longer while appends take longer: a busy log is helped by fewer and larger packs. What the log
//! acknowledges is remembered, and claimed by the next pack (law 6).

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use smallvec::SmallVec;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::task::TaskTracker;

use super::{
    ack::{Outcome, Owed},
    batch::{Batch, NONE},
    budget::Reserved,
    builder::{Builder, Head},
    shared::{Shared, Ticket},
    trace::Traceparent,
};
use crate::{
    clock,
    hot::Delta,
    item::{Lane, PackId, Seq},
    log,
    pack::Claim,
    retry,
};

/// Items that are appended under one lock: a large request lets others in between.
const APPEND_AT_ONCE: usize = 256;
/// A pack lingers for so many times what an append takes (`docs/decisions/0010-what-a-pack-costs-kafka.md`), …
const LINGER_APPENDS: u32 = 2;
/// … but for no more than so many times `ingest.linger`, nor longer than this if that is shorter.
const MOST_LINGERS: u32 = 4;
const LONGEST_LINGER: Duration = Duration::from_millis(10);
/// Of the last so many appends, about, the time is remembered.
const REMEMBERED_APPENDS: u32 = 8;
/// Acknowledgements that a pack claims at most; there are seldom more than `in_flight`.
const MAX_CLAIMS: usize = 1024;

/// The open packs of a partition.
#[derive(Default)]
pub(super) struct Packer {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// The oldest first; all but the last are full.
    queue: VecDeque<Open>,
    /// What the log has acknowledged since the last pack closed.
    claims: VecDeque<Claim>,
    /// Whether the last append failed: a change is logged, not every pack.
    failing: bool,
    /// How long appends have taken lately: a moving average.
    append_time: Duration,
}

struct Open {
    builder: Builder,
    owed: Owed,
    began: Instant,
    urgent: bool,
    /// Of the first request that has one.
    traceparent: Option<Traceparent>,
    requests: u32,
    reserved: Reserved,
}

/// How a request wants its items treated.
#[derive(Clone, Copy)]
pub(super) struct Wishes {
    /// Somebody waits for them to be stored.
    pub urgent: bool,
    /// They are shown in the hot view at once.
    pub hot: bool,
    /// The trace that they are part of.
    pub traceparent: Option<Traceparent>,
}

impl Packer {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }

    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Adds the batch's items for this partition. Their reservation goes along with them.
    pub(super) fn append(
        &self,
        shared: &Shared,
        partition: u32,
        batch: &Batch,
        wishes: Wishes,
        reserved: &mut Reserved,
        tickets: &mut SmallVec<[Ticket; 4]>,
    ) {
        let mut next = batch.heads[partition as usize];
        while next != NONE {
            let mut wake = false;
            let mut state = self.lock();
            for _ in 0..APPEND_AT_ONCE {
                if next == NONE {
                    break;
                }
                let is_full = |open: &Open| open.builder.size() >= shared.limits.pack_bytes;
                if state.queue.back().is_none_or(is_full) {
                    state.queue.push_back(Open::new(shared));
                    wake = true;
                }
                let open = state.queue.back_mut().expect("pushed above if there was none");
                if tickets.last().is_none_or(|ticket| !Arc::ptr_eq(&ticket.ack, open.owed.ack())) {
                    tickets.push(Ticket { partition, ack: open.owed.ack().clone() });
                    open.requests += 1;
                    open.urgent |= wishes.urgent;
                    open.traceparent = open.traceparent.or(wishes.traceparent);
                }
                let item = &batch.items[next as usize];
                reserved.give(batch.cost(item), &mut open.reserved);
                open.builder.add(batch, item, wishes.hot);
                wake |= is_full(open);
                next = item.next;
            }
            drop(state);
            if wake {
                self.wake();
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.lock().queue.is_empty()
    }

    /// Notes how long an append took.
    fn took(&self, append: Duration) {
        let mut state = self.lock();
        state.append_time = (state.append_time * (REMEMBERED_APPENDS - 1) + append) / REMEMBERED_APPENDS;
    }

    /// Takes the oldest pack and what it claims, if it is due at `now`; else says when it will be, as things stand. Lingers
    /// change with every append, so that is asked anew after each wait.
    fn take_due(
        &self,
        pack_bytes: usize,
        linger: Duration,
        now: Instant,
        draining: bool,
    ) -> Result<(Open, Vec<Claim>), Instant> {
        let mut state = self.lock();
        let oldest = state.queue.front().expect("only the partition's task takes packs, and it has seen one");
        let due = oldest.began + state.linger(linger);
        if !(draining || state.queue.len() > 1 || oldest.builder.size() >= pack_bytes || now >= due) {
            return Err(due);
        }
        let oldest = state.queue.pop_front().expect("seen above");
        let claims = state.claims.drain(..).collect();
        Ok((oldest, claims))
    }

    fn remember(&self, claims: impl IntoIterator<Item = Claim>) {
        let mut state = self.lock();
        state.claims.extend(claims);
        let beyond = state.claims.len().saturating_sub(MAX_CLAIMS);
        state.claims.drain(..beyond);
    }

    /// Notes whether the log takes packs; answers whether that is news.
    fn is_news(&self, failing: bool) -> bool {
        std::mem::replace(&mut self.lock().failing, failing) != failing
    }
}

impl State {
    /// How long a pack lingers that is not full.
    fn linger(&self, least: Duration) -> Duration {
        (self.append_time * LINGER_APPENDS).min(least * MOST_LINGERS).min(LONGEST_LINGER).max(least)
    }
}

impl Open {
    fn new(shared: &Shared) -> Self {
        Self {
            builder: Builder::new(shared.limits.grains, shared.hot),
            owed: Owed::default(),
            began: Instant::now(),
            urgent: false,
            traceparent: None,
            requests: 0,
            reserved: shared.budget.open(),
        }
    }
}

/// Closes and writes the packs of one partition until intake is closed and everything is answered.
pub(super) async fn run(shared: Arc<Shared>, partition: usize) {
    let packer = &shared.packers[partition];
    let partition = u32::try_from(partition).expect("as many packers as partitions");
    let slots = Arc::new(Semaphore::new(shared.limits.in_flight));
    let writes = TaskTracker::new();
    loop {
        // Asked before the queue is looked at: once intake is closed, an empty queue stays empty.
        let closed = shared.is_closed();
        if packer.is_empty() {
            if closed {
                break;
            }
            packer.changed.notified().await;
            continue;
        }
        let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (open, claims) = loop {
            let (pack_bytes, linger) = (shared.limits.pack_bytes, shared.limits.linger);
            let due = match packer.take_due(pack_bytes, linger, Instant::now(), shared.is_closed()) {
                Ok(taken) => break taken,
                Err(due) => due,
            };
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = packer.changed.notified() => {}
            }
        };
        writes.spawn(write(shared.clone(), partition, open, claims, slot));
    }
    writes.close();
    writes.wait().await;
}

/// Writes one pack and answers everybody who has items in it.
async fn write(shared: Arc<Shared>, partition: u32, open: Open, claims: Vec<Claim>, slot: OwnedSemaphorePermit) {
    let Open { builder, owed, urgent, traceparent, requests, reserved, .. } = open;
    let (packer, meters) = (&shared.packers[partition as usize], &shared.meters);
    let topology = shared.deps.log.topology();
    let pack = PackId::random();
    let format = shared.limits.format;
    let mut closed = builder.close(Head {
        format,
        id: pack,
        ingest: shared.ingest,
        receive_ms: clock::now_ms(),
        partitions: shared.partitions,
        shards: shared.deps.shards,
        urgent,
        traceparent: traceparent.map_or_else(String::new, |trace| trace.as_str().to_owned()),
        claims: claims.clone(),
    });
    meters.pack_bytes.record(closed.payload.len() as f64);
    meters.pack_items.record(closed.written as f64);
    meters.pack_requests.record(f64::from(requests));
    let payload = std::mem::take(&mut closed.payload);

    let began = Instant::now();
    // The deltas are made while the log is at work.
    let (appended, deltas) = tokio::join!(shared.deps.log.append(partition, format, payload), async {
        if shared.hot { closed.deltas() } else { Vec::new() }
    },);
    let outcome = match appended {
        Ok(appended) => {
            let took = began.elapsed();
            meters.append_seconds.record(took);
            packer.took(took);
            if let Some(seq) = appended.seq {
                packer.remember([claim(&shared, seq, pack)]);
            }
            drop(slot);
            meters.acknowledged(closed.increments, closed.events);
            shared.note_clock(appended.append_ms);
            if packer.is_news(false) {
                tracing::info!(partition, "the log takes packs again");
            }
            let lane = Lane { topic_id: topology.topic_id, partition };
            show(&shared, lane, appended.seq, deltas).await;
            Outcome::Durable(match appended.seq {
                Some(seq) => Some(seq),
                None => last_seq(&shared, partition).await,
            })
        }
        Err(error) => {
            packer.remember(claims);
            drop(slot);
            meters.append_failed(error.kind);
            if packer.is_news(true) {
                tracing::warn!(partition, error = %error, kind = error.kind.label(), "the log does not take packs");
            }
            outcome_of(&error)
        }
    };
    drop(reserved);
    owed.answer(outcome);
}

fn claim(shared: &Shared, seq: Seq, pack: PackId) -> Claim {
    Claim { topic_id: shared.deps.log.topology().topic_id.0.to_vec().into(), seq: seq.0, pack: pack.0.to_vec().into() }
}

/// What a failed append means for its items (law L1 of the log).
fn outcome_of(error: &log::Error) -> Outcome {
    match error.kind {
        retry::Kind::Permanent => Outcome::Refused(error.to_string()),
        retry::Kind::Transient | retry::Kind::Fatal => Outcome::Unknown(error.to_string()),
    }
}

/// Tells the hot view of a pack. Nobody but the pack's own requests waits for it, and those not for long (law 8).
async fn show(shared: &Shared, lane: Lane, seq: Option<Seq>, deltas: Vec<Delta>) {
    if deltas.is_empty() {
        return;
    }
    let Some(seq) = seq else {
        shared.meters.hot_no_offset.increment(1);
        return;
    };
    match tokio::time::timeout(shared.deps.hot_timeout, shared.deps.hot.add(lane, seq, deltas)).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => shared.meters.hot_error.increment(1),
        Err(_) => shared.meters.hot_timeout.increment(1),
    }
}

/// For a pack that was acknowledged without an offset: the last seq of its lane, which its own does not exceed.
async fn last_seq(shared: &Shared, partition: u32) -> Option<Seq> {
    let bounds = shared.deps.log.bounds(partition).await.ok()?;
    bounds.end.0.checked_sub(1).map(Seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_linger_longer_when_appends_take_longer_within_bounds() {
        let packer = Packer::default();
        let linger = |least_ms| packer.lock().linger(Duration::from_millis(least_ms)).as_micros();
        assert_eq!(linger(1), 1_000, "no append yet");
        let after = |append_ms| {
            for _ in 0..100 {
                packer.took(Duration::from_millis(append_ms));
            }
            [linger(0), linger(1), linger(5), linger(50)]
        };
        assert_eq!(after(0), [0, 1_000, 5_000, 50_000]);
        let [none, busy, ..] = after(1);
        assert!(none == 0 && (1_900..=2_000).contains(&busy), "{none} {busy}");
        assert_eq!(after(1_000), [0, 4_000, 10_000, 50_000], "a log that stalls does not hold packs back for long");
    }

    #[test]
    fn a_pack_that_must_linger_longer_than_was_thought_says_until_when() {
        let packer = Packer::default();
        let began = Instant::now();
        packer.lock().queue.push_back(Open {
            builder: Builder::new(Default::default(), false),
            owed: Owed::default(),
            began,
            urgent: false,
            traceparent: None,
            requests: 0,
            reserved: super::super::budget::Budget::new(1).open(),
        });
        let ms = Duration::from_millis;
        let due = |now| packer.take_due(1_000, ms(1), now, false).map(|_| ());
        assert_eq!(due(began), Err(began + ms(1)));
        packer.took(ms(100));
        // Whoever waited for the first answer only would ask again and again, without a pause, until the other time.
        assert_eq!(due(began + ms(1)), Err(began + ms(4)));
        assert_eq!(due(began + ms(4)), Ok(()));
    }
}
