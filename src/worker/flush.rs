//! The flush: writing what a lane has coalesced, and publishing it to the hot view. The only room that retries writes.
//!
//! Rows come grouped by shard and sorted; they are written as mutations of up to `store.batch_rows` rows, up to
//! `store.in_flight` of them at a time over all lanes. Events are handed over by the thousand, those of a subject together:
//! which of them share a mutation is the backend's to know. A transient error is retried with backoff for as long as it takes,
//! consistency is never lowered, and the checkpoint does not move before everything is written (laws 5 and 10). Then the
//! lane's `stored` moves, and the hot view learns the new bases.

use std::{cmp::Reverse, sync::Arc};

use futures_util::{StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use tokio::sync::Semaphore;

use crate::{
    bugs::{self, Bug},
    clock, hot,
    item::{self, Coordinates, Lane, Stamp},
    log::{DeadLetter, Log},
    metrics,
    retry::{self, Backoff, Classified as _},
    store::{self, Checkpoint, EpochRow, EventRow, Replayed, ShardKey, Store, TotalRow},
    worker::{
        Options,
        board::Board,
        budget::Budget,
        fold::{Named, Taken},
        halt::Halt,
        told::Told,
        watch::Belief,
    },
};

/// Mutations that one flush has ready for a slot.
const WIDTH: usize = 64;
/// Events of one call.
const EVENTS_OF_A_CALL: usize = 4_000;
/// And about how many bytes: a call that failed is made again whole.
const EVENT_BYTES_OF_A_CALL: usize = 4 << 20;
/// Calls with events that one flush has under way. Each is many mutations, and must leave slots to the other lanes' rows.
const EVENT_CALLS: usize = 2;
/// Entries of one publish.
const PUBLISH_CHUNK: usize = 1000;

/// What the lanes of a process share.
pub struct Context {
    /// Where packs come from.
    pub log: Arc<dyn Log>,
    /// Where rows go.
    pub store: Arc<dyn Store>,
    /// Who shows them at once.
    pub hot: hot::Shared,
    /// `worker.`
    pub options: Options,
    /// `retry.`
    pub retry: retry::Options,
    /// `store.batch_rows`
    pub batch_rows: usize,
    /// `store.in_flight`, over all lanes.
    pub slots: Semaphore,
    /// Who watches.
    pub board: Board,
    /// `hot.publish_budget`, over all lanes.
    pub(super) budget: Budget,
    /// What the store's servers may have forgotten.
    pub(super) belief: Told<Belief>,
    pub(super) meters: Meters,
}

/// Handles of the metrics that all lanes share.
pub(super) struct Meters {
    flush_seconds: metrics::Histogram,
    flush_rows: metrics::Histogram,
    ingest_to_stored: metrics::Histogram,
    pub(super) apply_seconds: metrics::Histogram,
    deltas: metrics::Counter,
    rows: metrics::Counter,
    mutations: metrics::Counter,
    event_rows: metrics::Counter,
    retries: metrics::Counter,
    drift: metrics::Counter,
    put_off: metrics::Counter,
}

impl Meters {
    pub(super) fn new() -> Self {
        Self {
            flush_seconds: metrics::FLUSH_SECONDS.histogram(&[]),
            flush_rows: metrics::FLUSH_ROWS.histogram(&[]),
            ingest_to_stored: metrics::INGEST_TO_STORED_SECONDS.histogram(&[]),
            apply_seconds: metrics::LANE_APPLY_SECONDS.histogram(&[]),
            deltas: metrics::FLUSH_DELTAS.counter(&[]),
            rows: metrics::STORE_ROWS.counter(&["counter_totals"]),
            mutations: metrics::STORE_MUTATIONS.counter(&["counter_totals"]),
            event_rows: metrics::STORE_ROWS.counter(&["events"]),
            retries: metrics::STORE_RETRIES.counter(&[]),
            drift: metrics::HOT_DRIFT.counter(&[]),
            put_off: metrics::HOT_PUT_OFF.counter(&[]),
        }
    }
}

/// One flush of one lane: everything that it applied up to `mark`.
pub struct Flush {
    /// The lane.
    pub lane: Lane,
    /// Where the lane stood when this was taken.
    pub mark: Checkpoint,
    /// The store has said to have more, when the lane was taken over.
    pub is_behind: bool,
    /// The layouts of its log; its totals in the hot view are sums over them.
    pub epochs: Vec<EpochRow>,
    /// Rows and who was named.
    pub taken: Taken,
    /// Events.
    pub events: Vec<EventRow>,
    /// Dead letters that were replayed, and by which packs.
    pub replayed: Vec<(Coordinates, Replayed)>,
    /// `receive_ms` of the packs in it.
    pub received_ms: Vec<i64>,
}

impl Flush {
    /// Writes and publishes everything. Answers the mark that is stored now, and what the hot view still lacks.
    ///
    /// # Errors
    /// The store refuses for good: the lane halts.
    pub async fn run(mut self, context: &Context) -> Result<(Checkpoint, Vec<Named>), Halt> {
        let started = tokio::time::Instant::now();
        let rows: usize = self.taken.shards.iter().map(|(_, rows)| rows.len()).sum();
        let mut writes: Vec<BoxFuture<'_, Result<(), Halt>>> = Vec::new();
        for (key, rows) in &self.taken.shards {
            for rows in rows.chunks(context.batch_rows) {
                writes.push(Box::pin(context.write_totals(self.lane, key, rows)));
            }
        }
        gather_subjects(&mut self.events);
        let mut events: Vec<BoxFuture<'_, Result<(), Halt>>> = Vec::new();
        for rows in event_calls(&self.events) {
            events.push(Box::pin(context.write_events(self.lane, rows)));
        }
        let mut replayed: Vec<BoxFuture<'_, Result<(), Halt>>> = Vec::new();
        for (at, by) in &self.replayed {
            replayed.push(Box::pin(context.write_replayed(self.lane, *at, *by)));
        }
        tokio::try_join!(
            stream::iter(replayed).buffer_unordered(WIDTH).try_collect::<()>(),
            stream::iter(writes).buffer_unordered(WIDTH).try_collect::<()>(),
            stream::iter(events).buffer_unordered(EVENT_CALLS).try_collect::<()>(),
        )?;
        // What was said to be stored further on stays until the lane has met it: in a log that was cut and has grown again, a
        // later stamp would take its place, and with it the only trace of what is lost.
        if !self.is_behind {
            let written = || context.store.write_stored(context.topic(), self.lane, self.mark.seq, self.mark.stamp);
            context.settled(self.lane, written).await?;
        }
        let meters = &context.meters;
        let now_ms = clock::now_ms();
        for received_ms in &self.received_ms {
            meters.ingest_to_stored.record((now_ms - received_ms).max(0) as f64 / 1000.0);
        }
        meters.deltas.increment(self.taken.deltas + self.events.len() as u64);
        meters.flush_rows.record((rows + self.events.len()) as f64);
        meters.flush_seconds.record(started.elapsed().as_secs_f64());
        let owed = context.publish(self.lane, &self.mark, &self.epochs, self.taken.named).await;
        Ok((self.mark, owed))
    }
}

/// Puts events of one subject beside each other.
fn gather_subjects(events: &mut [EventRow]) {
    events.sort_by_cached_key(|row| item::event_hash(row.namespace.as_str(), row.subject.as_deref(), &row.id));
}

/// Cuts events into calls: at most so many, and not many more bytes than so many, or one event.
fn event_calls(events: &[EventRow]) -> impl Iterator<Item = &[EventRow]> {
    let mut rest = events;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rest.iter().take(EVENTS_OF_A_CALL).take_while(|row| {
            bytes += row.properties.len() + row.id.len() + row.subject.as_ref().map_or(0, |subject| subject.len());
            bytes <= EVENT_BYTES_OF_A_CALL
        });
        let rows = fits.count().max(1).min(rest.len());
        let (call, later) = rest.split_at(rows);
        rest = later;
        (!call.is_empty()).then_some(call)
    })
}

impl Context {
    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.log.topology().topic
    }

    async fn write_totals(&self, lane: Lane, key: &ShardKey, rows: &[TotalRow]) -> Result<(), Halt> {
        self.settled(lane, || self.store.write_totals(key, rows)).await?;
        self.meters.rows.increment(rows.len() as u64);
        self.meters.mutations.increment(1);
        Ok(())
    }

    async fn write_events(&self, lane: Lane, rows: &[EventRow]) -> Result<(), Halt> {
        self.settled(lane, || self.store.write_events(rows)).await?;
        self.meters.event_rows.increment(rows.len() as u64);
        Ok(())
    }

    async fn write_replayed(&self, lane: Lane, at: Coordinates, by: Replayed) -> Result<(), Halt> {
        self.settled(lane, || self.store.write_replayed(self.topic(), at, by)).await
    }

    /// Notes the verdict, then keeps the record. While the dead-letter log does not take it, for whatever reason, the lane
    /// is shown as paused: it waits for as long as it takes.
    pub(super) async fn bury(&self, letter: &DeadLetter, stamp: Stamp) -> Result<(), Halt> {
        let Coordinates { lane, seq } = letter.at;
        self.settled(lane, || self.store.write_letter(self.topic(), letter.at, stamp)).await?;
        let Some(letters) = self.log.dead_letters() else { return Ok(()) };
        let (mut backoff, mut pause) = (Backoff::new(&self.retry), None);
        while let Err(error) = letters.bury(letter).await {
            if bugs::on(Bug::LetterNotAwaited) {
                break;
            }
            if pause.is_none() {
                tracing::warn!(partition = lane.partition, error = %error, "dead-letter log failed, lane waits");
                let reason =
                    format!("record {seq} is a dead letter, and the dead-letter log does not take it: {error}");
                pause = Some(self.board.pause(lane.partition, reason));
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
        if pause.is_some() {
            tracing::info!(partition = lane.partition, "dead-letter log answers again, lane goes on");
        }
        Ok(())
    }

    /// Tries one operation of the store until it succeeds or fails for good, in one of the slots. While it fails the lane
    /// is shown as paused.
    pub(super) async fn settled<T, F: Future<Output = Result<T, store::Error>>>(
        &self,
        lane: Lane,
        mut operation: impl FnMut() -> F,
    ) -> Result<T, Halt> {
        let mut pause = None;
        let attempt = || {
            let operation = operation();
            async {
                let _slot = self.slots.acquire().await.expect("the slots are never closed");
                operation.await
            }
        };
        let settled = retry::until_settled(&self.retry, attempt, |error: &store::Error| {
            metrics::STORE_ERRORS.counter(&[error.kind().label()]).increment(1);
            self.meters.retries.increment(1);
            if pause.is_none() {
                tracing::warn!(partition = lane.partition, error = %error, "store failed, lane paused");
                pause = Some(self.board.pause(lane.partition, format!("the store does not answer: {error}")));
            }
        })
        .await
        .map_err(|error| {
            metrics::STORE_ERRORS.counter(&[error.kind().label()]).increment(1);
            Halt::Store(error.to_string())
        });
        if pause.is_some() && settled.is_ok() {
            tracing::info!(partition = lane.partition, "store answers again, lane goes on");
        }
        settled
    }

    /// Tells the hot view the bases of these rows as of the mark: those with most pending first, for as long as the budget
    /// lasts. Answers those that it was not told.
    async fn publish(&self, lane: Lane, mark: &Checkpoint, epochs: &[EpochRow], named: Vec<Named>) -> Vec<Named> {
        if !self.hot.describe().1 {
            return Vec::new();
        }
        let mut owed = Vec::new();
        let mut owe = |error: hot::Error, chunk: &[Named]| {
            if owed.is_empty() {
                tracing::warn!(partition = lane.partition, error = %error, "hot view failed, publish is owed");
            }
            owed.extend_from_slice(chunk);
        };
        let mut known = Vec::new();
        for chunk in named.chunks(PUBLISH_CHUNK) {
            let keys: Vec<_> = chunk.iter().map(Named::hot_key).collect();
            match self.hot.known(&keys).await {
                // Entries that are not there need no publish, and cost none.
                Ok(there) => {
                    known.extend(chunk.iter().zip(there).filter(|(_, there)| *there).map(|(row, _)| row.clone()))
                }
                Err(error) => owe(error, chunk),
            }
        }
        let granted = self.budget.take(known.len());
        let mut put_off = Vec::new();
        if granted < known.len() {
            known.sort_by_key(|row| Reverse(row.pending));
            put_off = known.split_off(granted);
            self.meters.put_off.increment(put_off.len() as u64);
        }
        if epochs.len() > 1 {
            let unsure;
            (known, unsure) = self.over_epochs(lane, mark.seq, epochs, known).await;
            put_off.extend(unsure);
        }
        for chunk in known.chunks(PUBLISH_CHUNK) {
            if let Err(error) = self.publish_chunk(lane, mark, chunk).await {
                owe(error, chunk);
            }
        }
        owed.append(&mut put_off);
        self.forget_impossible(lane).await;
        if owed.is_empty()
            && let Err(error) = self.hot.published(lane, mark.seq).await
        {
            tracing::warn!(partition = lane.partition, error = %error, "hot view failed, publish is owed");
        }
        owed
    }

    /// Forgets entries that claim to know packs which the log does not have: no publish would ever reach them. What they have
    /// above it somebody else has written; what the log's end has just been, no acknowledged pack is above.
    async fn forget_impossible(&self, lane: Lane) {
        let mut doubtful = self.hot.doubtful(lane);
        if doubtful.is_empty() {
            return;
        }
        // Without an answer they are met again at their next publish.
        let Ok(bounds) = self.log.bounds(lane.partition).await else { return };
        doubtful.retain(|(_, at)| *at >= bounds.end);
        let keys: Vec<_> = doubtful.into_iter().map(|(key, _)| key).collect();
        match self.hot.forget(&keys).await {
            Ok(()) if keys.is_empty() => {}
            Ok(()) => {
                tracing::warn!(
                    partition = lane.partition,
                    entries = keys.len(),
                    "entries of the hot view named packs that the log does not have, and were forgotten"
                );
                self.meters.drift.increment(keys.len() as u64);
            }
            Err(error) => tracing::warn!(partition = lane.partition, error = %error, "hot view failed"),
        }
    }

    async fn publish_chunk(&self, lane: Lane, mark: &Checkpoint, chunk: &[Named]) -> Result<(), hot::Error> {
        // A base that was loaded ahead of the lane includes packs that the lane has not met again: it is a total as of its
        // own seq. Published as of the mark, those packs' pending deltas would count twice.
        let (ahead, level): (Vec<&Named>, Vec<_>) = chunk.iter().partition(|row| row.seq > mark.seq);
        let base = |row: &Named| hot::Base { key: row.hot_key(), total: row.total };
        let level: Vec<_> = level.into_iter().map(base).collect();
        let mut drifted = 0;
        if !level.is_empty() {
            drifted += self.hot.publish(lane, mark.seq, &level).await?.drifted;
        }
        for row in ahead {
            drifted += self.hot.publish(lane, row.seq, &[base(row)]).await?.drifted;
        }
        self.meters.drift.increment(drifted as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::item::Namespace;

    fn event(subject: Option<&str>, id: usize, bytes: usize) -> EventRow {
        EventRow {
            namespace: Namespace::default(),
            name: "e".into(),
            subject: subject.map(Into::into),
            time_ms: 0,
            id: id.to_string().into(),
            properties: Bytes::from(vec![b'x'; bytes]),
            received_ms: 0,
            stamp: Stamp(1),
        }
    }

    #[test]
    fn calls_are_bounded_and_lose_no_event_and_a_subjects_events_come_together() {
        let mut events: Vec<_> = (0..9_000).map(|id| event(Some(&format!("u{}", id % 900)), id, 10)).collect();
        gather_subjects(&mut events);
        let subjects: Vec<_> = events.chunk_by(|a, b| a.subject == b.subject).map(<[_]>::len).collect();
        assert_eq!(subjects, [10; 900]);
        let sizes = |events: &[EventRow]| event_calls(events).map(<[_]>::len).collect::<Vec<_>>();
        assert_eq!(sizes(&events), [4_000, 4_000, 1_000]);
        assert!(sizes(&[]).is_empty());
        let (half, larger) = (EVENT_BYTES_OF_A_CALL / 2 - 1, 2 * EVENT_BYTES_OF_A_CALL);
        let large = [half, half, 1, larger, 1].map(|bytes| event(None, 1, bytes));
        assert_eq!(sizes(&large), [2, 1, 1, 1]);
        let mut ids: Vec<_> = event_calls(&events).flatten().map(|row| row.id.to_string()).collect();
        ids.sort_by_key(|id| id.parse::<usize>().unwrap());
        assert!(ids.iter().enumerate().all(|(at, id)| *id == at.to_string()));
    }
}
