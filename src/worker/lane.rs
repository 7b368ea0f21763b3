//! The lane: one partition's loop. Reads packs, loads what they need, folds them, and flushes; pauses when the store is
//! slow; halts when the log is not what it must be.
//!
//! At most one flush and one checkpoint write are under way; meanwhile the lane goes on folding, up to its bounds. The
//! decisions are `machine`'s, `trail`'s and `watch`'s; this room only waits and passes on. Who begins and ends it: `tenure`.

use std::{collections::VecDeque, time::Duration};

use futures_util::future::OptionFuture;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    board::{Pause, State},
    flush::{Context, Flush},
    fold::Named,
    halt::Halt,
    machine::{Machine, Read},
    meters::LaneMeters,
    poison::Refusal,
    resume::Resumed,
    told::Told,
    trail::Trail,
    watch::Belief,
};
use crate::{
    bugs::{self, Bug},
    item::{Lane, Seq},
    log::{Cursor, Record},
    retry::{Backoff, Classified as _, Kind},
    store::{self, Checkpoint},
};

mod burial;

/// About what a row takes while it waits to be written.
const ROW_BYTES: usize = 200;
/// How often a lane with nothing to do looks at its clocks.
const IDLE: Duration = Duration::from_millis(500);

type Flushed = Result<(Checkpoint, Vec<Named>), Halt>;
type Checkpointed = (Checkpoint, Result<(), store::Error>);

/// One lane and everything it waits for.
pub(super) struct Runner {
    context: std::sync::Arc<Context>,
    lane: Lane,
    machine: Machine,
    cursor: Box<dyn Cursor>,
    /// Records that were read and not applied yet.
    backlog: VecDeque<Record>,
    /// The record in front of the backlog is on its way to the dead letters; the lane waits for it.
    burial: burial::Burial,
    flush: Option<AbortOnDropHandle<Flushed>>,
    checkpoint: Option<AbortOnDropHandle<Checkpointed>>,
    checkpoint_retry: Option<(Instant, Checkpoint)>,
    backoff: Backoff,
    /// After a failed read of the log: when to read again.
    read_again: Option<Instant>,
    read_backoff: Backoff,
    trail: Trail,
    belief: Told<Belief>,
    /// How often a server of the store had started again when this run began.
    restarts: u64,
    /// One past the checkpoint.
    covered: Seq,
    /// One past what is stored.
    stored: Seq,
    /// One past the log's end, as last seen.
    end: Seq,
    started: Instant,
    /// When the oldest pack that is not flushed was applied.
    unflushed_since: Option<Instant>,
    /// Append time of that pack.
    oldest_unflushed_ms: Option<i64>,
    received_ms: Vec<i64>,
    urgent: bool,
    /// Kept while the lane cannot take a row more before the checkpoint passes some.
    full: Option<Pause>,
    items: u64,
    meters: LaneMeters,
}

/// Why a run has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It was asked to.
    Stopped,
    /// The store may have forgotten what was written since the checkpoint: it is to be applied and written again.
    Forgotten,
}

impl Runner {
    /// A lane that was resumed, and where its packs come from. `restarts` had been counted before its checkpoint was read.
    pub(super) fn new(
        context: std::sync::Arc<Context>,
        lane: Lane,
        resumed: Resumed,
        cursor: Box<dyn Cursor>,
        restarts: u64,
    ) -> Self {
        let Resumed { machine, covered, stored, .. } = resumed;
        let trail = Trail::new(context.options.checkpoint_delay.as_millis());
        let (backoff, read_backoff) = (Backoff::new(&context.retry), Backoff::new(&context.retry));
        let meters = LaneMeters::new(lane.partition);
        // Packs that were given up are told to be done with, as if they had been stored: nobody must wait for them.
        let unflushed_since = (machine.next() > covered.max(stored)).then(Instant::now);
        let runner = Self {
            end: machine.next(),
            belief: context.belief.clone(),
            restarts,
            context,
            lane,
            machine,
            cursor,
            backlog: VecDeque::new(),
            burial: burial::Burial::default(),
            flush: None,
            checkpoint: None,
            checkpoint_retry: None,
            backoff,
            read_again: None,
            read_backoff,
            trail,
            covered,
            stored,
            started: Instant::now(),
            unflushed_since,
            oldest_unflushed_ms: None,
            received_ms: Vec::new(),
            urgent: false,
            full: None,
            items: 0,
            meters,
        };
        let (next, items) = (runner.machine.next(), 0);
        runner.show(|status| {
            *status = super::board::LaneStatus { state: State::Running, next, items, ..Default::default() };
            status.stored = stored;
            status.checkpoint = covered;
        });
        runner
    }

    /// Applies and stores until it is to end. What is under way then goes with it when the store has forgotten: written
    /// again, it would be the same.
    pub(super) async fn apply_until(&mut self, stop: &CancellationToken) -> Result<End, Halt> {
        while !stop.is_cancelled() {
            if self.has_been_forgotten() {
                return Ok(End::Forgotten);
            }
            if !self.backlog.is_empty() && self.has_room() {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    applied = self.apply_backlog() => applied?,
                }
            }
            self.start_flush();
            self.start_checkpoint();
            // Past its time it must not wake the lane any more.
            self.read_again.take_if(|again| *again <= Instant::now());
            let reads = self.backlog.is_empty() && self.has_room() && self.read_again.is_none();
            let wake = self.next_wake();
            // In this order every time, so that a schedule can be repeated. The log comes after what ends by itself (a flush,
            // a checkpoint, a belief), for it may always have more; the clocks come last, for each round looks at them anyway.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                flushed = OptionFuture::from(self.flush.as_mut()), if self.flush.is_some() => {
                    self.flushed(joined(flushed))?;
                }
                written = OptionFuture::from(self.checkpoint.as_mut()), if self.checkpoint.is_some() => {
                    self.checkpointed(joined(written)).await?;
                }
                buried = self.burial.ended(), if self.burial.is_under_way() => self.buried(buried)?,
                // Its sender goes with the service, which ends the lane too.
                () = self.belief.changed() => {}
                records = self.cursor.next(), if reads => self.read(records).await?,
                () = tokio::time::sleep_until(wake) => {}
            }
        }
        Ok(End::Stopped)
    }

    fn has_been_forgotten(&mut self) -> bool {
        let restarts = self.belief.look().restarts();
        restarts != Some(self.restarts) && !bugs::on(Bug::RestartsUnseen)
    }

    /// Whether more may be folded before the store has taken what waits.
    fn has_room(&self) -> bool {
        // While a flush is under way the next one gathers, up to the same bounds; then the lane is paused.
        self.full.is_none() && !self.burial.is_under_way() && !self.is_large()
    }

    /// What waits to be written.
    fn waiting_rows(&self) -> usize {
        self.machine.fold().dirty() + self.machine.events() + self.machine.replays_owed()
    }

    /// Whether what waits is as much as one flush takes.
    fn is_large(&self) -> bool {
        // A pack that brought duplicates alone leaves nothing but its time.
        let times = size_of_val(&self.received_ms[..]);
        let waiting_bytes = self.machine.fold().dirty() * ROW_BYTES + self.machine.event_bytes() + times;
        let options = &self.context.options;
        self.waiting_rows() >= options.flush_rows || waiting_bytes >= options.flush_bytes.as_usize()
    }

    async fn read(&mut self, records: Result<Vec<Record>, crate::log::Error>) -> Result<(), Halt> {
        match records {
            Ok(records) => {
                if let Some(last) = records.last() {
                    self.end = self.end.max(last.seq.next());
                }
                self.backlog.extend(records);
                self.read_backoff.reset();
                Ok(())
            }
            Err(error) if error.kind() == Kind::Transient => {
                tracing::warn!(partition = self.lane.partition, error = %error, "log failed, lane waits");
                self.read_again = Some(Instant::now() + self.read_backoff.next_delay());
                Ok(())
            }
            Err(error) => Err(self.context.broken_off(self.lane, self.machine.next(), error).await),
        }
    }

    /// Applies what was read, as far as there is room. Cancelling it loses nothing: a record leaves the backlog when it is applied.
    async fn apply_backlog(&mut self) -> Result<(), Halt> {
        let began = Instant::now();
        let applied = self.apply_records().await;
        self.context.meters.apply_seconds.record(began.elapsed().as_secs_f64());
        self.show_applied();
        self.meters.state(&self.machine);
        applied
    }

    async fn apply_records(&mut self) -> Result<(), Halt> {
        while let Some(record) = self.backlog.front() {
            let append_ms = record.append_ms;
            let read = match self.machine.judge(record) {
                Ok(read) => read,
                Err(refusal) => return self.refuse(refusal),
            };
            match self.prepare(&read).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(refusal) => return self.refuse(refusal),
            }
            let applied = self.machine.apply(&read)?;
            self.backlog.pop_front();
            self.items += applied.items as u64;
            self.meters.applied(&applied);
            self.received_ms.push(read.receive_ms());
            self.urgent |= read.is_urgent();
            if self.unflushed_since.is_none() {
                self.unflushed_since = Some(Instant::now());
            }
            if self.oldest_unflushed_ms.is_none() {
                self.oldest_unflushed_ms = Some(append_ms);
                self.show(|status| status.oldest_unstored_ms = status.oldest_unstored_ms.or(Some(append_ms)));
            }
            if !self.has_room() || self.urgent {
                break;
            }
            // A pack may take milliseconds: the other lanes of this thread come in between.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn show_applied(&self) {
        let (next, items, rows) = (self.machine.next(), self.items, self.machine.fold().len());
        self.show(|status| {
            status.next = next;
            status.items = items;
            status.rows = rows;
        });
    }

    /// Makes room for a pack and loads what it needs. `false`: not now, the lane is full.
    async fn prepare(&mut self, read: &Read) -> Result<bool, Refusal> {
        let wanted = 2 * read.series();
        let idle = self.flush.is_none() && self.machine.fold().dirty() == 0 && self.covered == self.machine.next();
        // A pack that alone is larger than the bound is taken all the same once nothing else waits.
        if !self.machine.fold_mut().make_room(wanted, self.covered) && !idle {
            let rows = self.machine.fold().len();
            tracing::warn!(partition = self.lane.partition, rows, "lane is full, waits for its checkpoint");
            let reason = format!(
                "it keeps {rows} rows, as many as worker.max_rows lets it, until the checkpoint passes some \
                 (it trails by worker.checkpoint_delay)"
            );
            self.full = Some(self.context.board.pause(self.lane.partition, reason));
            return Ok(false);
        }
        self.load_replay(read).await?;
        let mut asked_epochs = false;
        loop {
            match self.machine.prepare(read) {
                Ok(missing) if missing.is_empty() => break,
                Ok(missing) => {
                    // It may take as long as the store is away.
                    self.show_applied();
                    self.context.load(self.lane, &mut self.machine, missing).await?;
                }
                Err(Refusal::Halt(Halt::Epoch { .. })) if !asked_epochs => {
                    asked_epochs = true;
                    let epochs =
                        self.context.settled(self.lane, || self.context.store.epochs(self.context.topic())).await?;
                    self.machine.set_epochs(epochs);
                }
                Err(refusal) => return Err(refusal),
            }
        }
        if let Some(seq) = self.machine.highest_unmet().filter(|seq| *seq >= self.end) {
            let bounds = self.context.log_settled(self.lane, || self.context.log.bounds(self.lane.partition)).await?;
            self.end = self.end.max(bounds.end);
            if seq >= self.end {
                return Err(Halt::Cut { end: self.end, seq }.into());
            }
        }
        Ok(true)
    }

    fn start_flush(&mut self) {
        let Some(since) = self.unflushed_since.filter(|_| self.flush.is_none()) else { return };
        // A full lane waits for what is dirty. A publish alone, which the hot view has not taken, keeps to the age.
        let is_due = self.urgent
            || (self.full.is_some() && self.waiting_rows() > 0)
            || since.elapsed() >= self.context.options.flush_age.0
            || self.is_large();
        if is_due {
            self.flush_now();
        }
    }

    fn flush_now(&mut self) {
        let Some(mark) = self.machine.mark() else { return };
        self.unflushed_since = None;
        self.oldest_unflushed_ms = None;
        self.urgent = false;
        let (mut taken, events) = self.machine.take();
        if bugs::on(Bug::CheckpointBeforeFlush) {
            self.trail.stored(self.now_ms(), mark.clone());
        }
        if bugs::on(Bug::FoldByBatch) {
            let rows = taken.shards.iter_mut().flat_map(|(_, rows)| rows);
            rows.for_each(|row| (row.seq, row.stamp) = (mark.seq, mark.stamp));
        }
        let (replayed, received_ms) = (self.machine.take_replayed(), std::mem::take(&mut self.received_ms));
        let (epochs, is_behind) =
            (self.machine.fold().epochs().to_vec(), self.machine.stored_beyond(mark.seq).is_some());
        let flush = Flush { lane: self.lane, mark, is_behind, epochs, taken, events, replayed, received_ms };
        let context = self.context.clone();
        self.flush = Some(AbortOnDropHandle::new(tokio::spawn(async move { flush.run(&context).await })));
    }

    fn flushed(&mut self, flushed: Flushed) -> Result<(), Halt> {
        self.flush = None;
        let (mark, owed) = match flushed {
            Ok(flushed) => flushed,
            Err(halt) => {
                // Its rows are lacking: what was applied after them must not be flushed, and be called stored, past them.
                self.unflushed_since = None;
                return Err(halt);
            }
        };
        let stored = mark.seq.next();
        self.stored = self.stored.max(stored);
        if bugs::on(Bug::CheckpointBeforeFlush) {
            self.full = None;
        } else if stored > self.covered {
            self.trail.stored(self.now_ms(), mark);
        } else {
            // A publish alone, made up for: no checkpoint comes that a full lane could wait for.
            self.full = None;
        }
        if !owed.is_empty() {
            if !self.machine.fold_mut().owe_publish(&owed) {
                self.context.hot.publishes_from(self.lane, stored);
            }
            self.unflushed_since = self.unflushed_since.or(Some(Instant::now()));
        }
        let (stored, oldest) = (self.stored, self.oldest_unflushed_ms);
        self.show(|status| {
            status.stored = stored;
            status.oldest_unstored_ms = oldest;
        });
        Ok(())
    }

    fn start_checkpoint(&mut self) {
        if self.checkpoint.is_some() {
            return;
        }
        let Some(until_ms) = self.checkpoints_until_ms() else { return };
        let due = self.trail.due(self.now_ms().min(until_ms));
        // A newer mark replaces one that failed.
        let retry = self.checkpoint_retry.take_if(|(at, _)| due.is_some() || *at <= Instant::now());
        let Some(mark) = due.or(retry.map(|(_, mark)| mark)) else { return };
        let context = self.context.clone();
        self.checkpoint = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let written = context.store.write_checkpoint(context.topic(), &mark).await;
            (mark, written)
        })));
    }

    /// Marks that are due until then may be written; none when this run is to end, for what it knows of the store is past.
    fn checkpoints_until_ms(&self) -> Option<i64> {
        let belief = self.belief.now();
        let delay = self.context.options.checkpoint_delay.0;
        (belief.restarts() == Some(self.restarts) || bugs::on(Bug::RestartsUnseen))
            .then(|| belief.until_ms(delay, self.started))
    }

    async fn checkpointed(&mut self, (mark, written): Checkpointed) -> Result<(), Halt> {
        self.checkpoint = None;
        match written {
            Ok(()) => {
                self.backoff.reset();
                self.covered = mark.seq.next();
                self.machine.forget_replays(self.covered);
                self.full = None;
                let covered = self.covered;
                self.show(|status| status.checkpoint = covered);
                let needed = mark.dedup_from.min(mark.seq);
                if let Err(error) = self.context.log.progress(self.lane.partition, mark.seq, needed).await {
                    tracing::warn!(partition = self.lane.partition, error = %error, "log does not take the lane's progress");
                }
            }
            Err(error) if error.kind() == Kind::Transient => {
                tracing::warn!(partition = self.lane.partition, error = %error, "checkpoint failed, tried again later");
                self.checkpoint_retry = Some((Instant::now() + self.backoff.next_delay(), mark));
            }
            Err(error) => return Err(Halt::Store(error.to_string())),
        }
        Ok(())
    }

    /// Stores what was applied. The checkpoint keeps trailing: whoever takes the lane over replays the tail.
    pub(super) async fn drain(&mut self) -> Result<(), Halt> {
        if bugs::on(Bug::CommitBeforeDrain)
            && let Some(mark) = self.machine.mark()
        {
            let _ = self.context.store.write_checkpoint(self.context.topic(), &mark).await;
        }
        if let Some(flush) = self.flush.take() {
            self.flushed(joined(Some(flush.await)))?;
        }
        if self.unflushed_since.is_some() {
            self.flush_now();
            if let Some(flush) = self.flush.take() {
                self.flushed(joined(Some(flush.await)))?;
            }
        }
        if let Some(checkpoint) = self.checkpoint.take() {
            self.checkpointed(joined(Some(checkpoint.await))).await?;
        }
        Ok(())
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    fn next_wake(&self) -> Instant {
        let flush =
            self.unflushed_since.filter(|_| self.flush.is_none()).map(|since| since + self.context.options.flush_age.0);
        // One that the store's servers are waited for wakes the lane when these have answered.
        let until_ms = self.checkpoints_until_ms().unwrap_or(i64::MIN);
        let trail = self.trail.next_due_ms().filter(|due| self.checkpoint.is_none() && *due <= until_ms);
        let trail = trail.map(|due| self.started + Duration::from_millis(u64::try_from(due).unwrap_or(0)));
        let retry = self.checkpoint_retry.as_ref().map(|(at, _)| *at);
        let idle = Instant::now() + IDLE;
        [flush, trail, retry, self.read_again].into_iter().flatten().fold(idle, Instant::min)
    }

    fn show(&self, change: impl FnOnce(&mut super::board::LaneStatus)) {
        self.context.board.update(self.lane.partition, change);
    }
}

/// The answer of a task that is never aborted while it is waited for.
fn joined<T>(ended: Option<Result<T, tokio::task::JoinError>>) -> T {
    match ended.expect("only waited for while there is one") {
        Ok(ended) => ended,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
