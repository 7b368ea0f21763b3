//! The asking: one question to the store, one or two to the log per lane, each with a deadline.
//!
//! The order matters: the store and the board are asked before the log, so that the log's end is never older than what is
//! compared with it, and a store that is ahead of the log is a fact and not a race.

use std::{collections::BTreeMap, future::Future, time::Duration};

use ::metrics::Gauge;
use futures_util::future::join_all;

use super::{
    Deps, LaneLag, Options, Snapshot, Status,
    model::{Pace, to_millis},
    status::{self, Facts, Runner},
    track::{Point, Track},
};
use crate::{
    item::{Epoch, Lane, Seq, TopicId},
    log::Bounds,
    metrics, process,
    worker::board::{LaneStatus, State},
};

/// The topic's newest epoch is asked again after this long: a layout changes seldom.
const EPOCH_LIFETIME: Duration = Duration::from_secs(60);

/// Asks, remembers, and judges.
pub(super) struct Sampler {
    options: Options,
    deps: Deps,
    worker: String,
    lanes: Vec<Watched>,
    epoch: Option<(Duration, Epoch)>,
    /// Who runs a lane that this process does not.
    others: Runner<'static>,
}

/// What is remembered of one lane.
struct Watched {
    track: Track,
    bounds: Bounds,
    /// Whether the store has ever answered: without that, 0 is not its answer.
    asked: bool,
    /// One past what the store said is stored, and is covered by the checkpoint.
    row: Seq,
    checkpoint: Seq,
    /// The append time of the pack at a seq: the oldest that was not stored when it was read.
    oldest: Option<(Seq, i64)>,
    status: Status,
    /// What another process has noted of its halt: why, and which process it is.
    halted: Option<(String, String)>,
    gauges: Gauges,
}

struct Gauges {
    lag_packs: Gauge,
    lag_seconds: Gauge,
    status: Gauge,
    end: Gauge,
    stored: Gauge,
    checkpoint: Gauge,
}

impl Gauges {
    fn of(partition: u32) -> Self {
        let label = partition.to_string();
        let gauge = |metric: metrics::Metric| metric.gauge(&[&label]);
        Self {
            lag_packs: gauge(metrics::LAG_PACKS),
            lag_seconds: gauge(metrics::LAG_SECONDS),
            status: gauge(metrics::LANE_STATUS),
            end: gauge(metrics::LOG_END),
            stored: gauge(metrics::STORED_SEQ),
            checkpoint: gauge(metrics::CHECKPOINT_SEQ),
        }
    }

    /// A position that there is none of shows as −1, so that end − (stored + 1) is the lag here too.
    #[expect(clippy::cast_precision_loss, reason = "gauges are floats; seqs stay below 2^53")]
    fn set(&self, lane: &LaneLag) {
        let seq = |seq: Option<u64>| seq.map_or(-1.0, |seq| seq as f64);
        self.lag_packs.set(lane.lag_packs as f64);
        if let Some(seconds) = lane.lag_seconds {
            self.lag_seconds.set(seconds);
        }
        self.status.set(f64::from(lane.status.level()));
        self.end.set(lane.end as f64);
        self.stored.set(seq(lane.stored));
        self.checkpoint.set(seq(lane.checkpoint));
    }
}

impl Sampler {
    pub(super) fn new(options: Options, deps: Deps) -> Self {
        let (lanes, others) = (Vec::new(), Runner::Elsewhere);
        let mut sampler = Self { options, deps, worker: process::name(), lanes, epoch: None, others };
        sampler.add_lanes();
        sampler
    }

    /// One for each partition, those too that were added since.
    fn add_lanes(&mut self) {
        for partition in (0..self.deps.log.partitions()).skip(self.lanes.len()) {
            self.lanes.push(Watched {
                track: Track::new(self.options.window.0),
                bounds: Bounds { start: Seq(0), end: Seq(0) },
                asked: false,
                row: Seq(0),
                checkpoint: Seq(0),
                oldest: None,
                status: Status::Ok,
                halted: None,
                gauges: Gauges::of(partition),
            });
        }
    }

    /// No other process can run a lane.
    pub(super) fn alone(&mut self) {
        self.others = Runner::Nobody;
    }

    /// One measurement. `now` gives the time since the service began and the wall clock in milliseconds.
    pub(super) async fn sample(&mut self, now: impl Fn() -> (Duration, i64)) -> Snapshot {
        self.add_lanes();
        let store_silent = self.ask_store().await.err();
        let board = self.deps.board.lanes();
        self.ask_epoch(now().0, store_silent.is_none()).await;
        let log_silent = self.ask_ends().await;
        let nexts: Vec<Seq> = (0_u32..).zip(&self.lanes).map(|(p, lane)| lane.next(board.get(&p))).collect();
        let log_silent: Vec<_> = {
            let ages = self.ask_ages(&nexts, &board).await;
            log_silent.into_iter().zip(ages).map(|(end, age)| end.err().or(age.err())).collect()
        };

        let (at, now_ms) = now();
        let mut measured = Vec::with_capacity(self.lanes.len());
        for (partition, lane) in (0_u32..).zip(&mut self.lanes) {
            let index = partition as usize;
            let local = board.get(&partition);
            let silences = Silences { log: log_silent[index].as_deref(), store: store_silent.as_deref() };
            let known = Known { local, others: self.others, next: nexts[index], at, now_ms, silences };
            let (mut seen, pace) = lane.judge(&self.options, &known);
            seen.partition = partition;
            seen.epoch = local.and_then(|local| local.epoch).or(self.epoch.map(|(_, e)| e)).map(|e| e.to_string());
            let elsewhere = lane.halted.as_ref().map(|(_, worker)| worker.clone());
            seen.worker = local.map(|_| self.worker.clone()).or(elsewhere);
            lane.gauges.set(&seen);
            note_change(partition, lane.status, &seen);
            lane.status = seen.status;
            measured.push((seen, pace));
        }
        Snapshot::of(measured, now_ms)
    }

    async fn ask_store(&mut self) -> Result<(), String> {
        let topology = self.deps.log.topology();
        let asking = async {
            let store = &self.deps.store;
            tokio::try_join!(store.lanes(&topology.topic), store.halts(&topology.topic))
        };
        let answer = answer_of(self.options.timeout.0, asking).await;
        let topic_id: TopicId = topology.topic_id;
        let (rows, halts) = answer?;
        // A row that has gone is a store that has less than before, not a row to be remembered.
        for (partition, lane) in (0_u32..).zip(&mut self.lanes) {
            let row = rows.iter().find(|row| row.lane.topic_id == topic_id && row.lane.partition == partition);
            let checkpoint =
                row.and_then(|row| row.checkpoint.as_ref()).map_or(Seq(0), |checkpoint| checkpoint.seq.next());
            let stored = row.and_then(|row| row.stored).map_or(Seq(0), Seq::next);
            let halt = halts.iter().find(|halt| halt.lane == Lane { topic_id, partition });
            lane.halted = halt.map(|halt| (halt.reason.clone(), halt.worker.clone()));
            lane.asked = true;
            lane.checkpoint = checkpoint;
            lane.row = stored.max(checkpoint);
        }
        Ok(())
    }

    async fn ask_epoch(&mut self, at: Duration, store_answers: bool) {
        if !store_answers || self.epoch.is_some_and(|(asked, _)| at < asked + EPOCH_LIFETIME) {
            return;
        }
        let topology = self.deps.log.topology();
        let epochs =
            answer_of(self.options.timeout.0, self.deps.store.epochs(&topology.topic)).await.unwrap_or_default();
        let newest = epochs.iter().rfind(|row| row.topic_id == topology.topic_id);
        self.epoch = newest.map(|row| (at, row.epoch)).or(self.epoch);
    }

    async fn ask_ends(&mut self) -> Vec<Result<(), String>> {
        let (log, deadline) = (&self.deps.log, self.options.timeout.0);
        let questions = (0_u32..).zip(&mut self.lanes).map(|(partition, lane)| async move {
            lane.bounds = answer_of(deadline, log.bounds(partition)).await?;
            Ok(())
        });
        join_all(questions).await
    }

    /// Learns when the oldest unstored pack of each lane with lag was appended, where that is not known yet.
    async fn ask_ages(&mut self, nexts: &[Seq], board: &BTreeMap<u32, LaneStatus>) -> Vec<Result<(), String>> {
        let (log, deadline) = (&self.deps.log, self.options.timeout.0);
        let questions = (0_u32..).zip(&mut self.lanes).zip(nexts).map(|((partition, lane), next)| async move {
            // Where retention has removed the oldest, the oldest that is left is as near as one can come.
            let wanted = (*next).max(lane.bounds.start);
            if wanted >= lane.bounds.end {
                lane.oldest = None;
            } else if let Some(append_ms) = board.get(&partition).and_then(|local| unstored_since(local, *next)) {
                lane.oldest = Some((wanted, append_ms));
            } else if lane.oldest.is_none_or(|(seq, _)| seq != wanted) {
                let records = answer_of(deadline, log.read(partition, wanted, 1)).await?;
                // The former oldest pack is stored: its age must not stand for this one's.
                lane.oldest = records.first().map(|record| (wanted, record.append_ms));
            }
            Ok(())
        });
        join_all(questions).await
    }
}

/// What the board knows of the age of the pack at `next`, when that is a pack the lane has applied.
fn unstored_since(local: &LaneStatus, next: Seq) -> Option<i64> {
    local.oldest_unstored_ms.filter(|_| local.stored == next && local.next > next)
}

/// What a judgement is made from, besides what the lane remembers.
struct Known<'a> {
    local: Option<&'a LaneStatus>,
    others: Runner<'static>,
    next: Seq,
    at: Duration,
    now_ms: i64,
    silences: Silences<'a>,
}

struct Silences<'a> {
    log: Option<&'a str>,
    store: Option<&'a str>,
}

impl Watched {
    /// One past the last pack in the store: as the store says, or as a local lane knows better.
    fn next(&self, local: Option<&LaneStatus>) -> Seq {
        self.row.max(local.map_or(Seq(0), |local| local.stored))
    }

    fn judge(&mut self, options: &Options, known: &Known<'_>) -> (LaneLag, Pace) {
        let Known { local, next, at, now_ms, .. } = *known;
        let Bounds { start, end } = self.bounds;
        // An old end may be passed by what is stored meanwhile; an unasked store's 0 may lie before any start.
        let end = if known.silences.log.is_some() { end.max(next) } else { end };
        let start = if self.asked { start } else { Seq(0) };
        let lag_packs = end.0.saturating_sub(next.0);
        #[expect(clippy::cast_precision_loss, reason = "an age in milliseconds, far below 2^53")]
        let age = |append_ms: i64| to_millis(now_ms.saturating_sub(append_ms).max(0) as f64 / 1000.0);
        let lag_seconds = if lag_packs == 0 { Some(0.0) } else { self.oldest.map(|(_, append_ms)| age(append_ms)) };
        self.track.push(Point {
            at,
            end,
            next,
            row: known.silences.store.is_none().then_some(self.row),
            items: local.map(|local| local.items),
            lag_seconds,
            paused: local.is_some_and(|local| local.state == State::Paused),
        });
        let runner = match (local, &self.halted) {
            (Some(local), _) => Runner::Here { state: local.state, reason: local.reason.as_deref() },
            (None, Some((reason, _))) => Runner::Halted { reason },
            (None, None) => known.others,
        };
        let facts = Facts {
            runner,
            start,
            next,
            lag_packs,
            lag_seconds,
            rewind: self.track.rewind(),
            idle: self.track.idle(),
            paused: self.track.paused(),
            growing: self.track.growing(),
            log_silent: known.silences.log,
            store_silent: known.silences.store,
        };
        let (status, reason) = status::decide(&facts, options);
        let covered = |next: Seq| next.0.checked_sub(1);
        let checkpoint = self.checkpoint.max(local.map_or(Seq(0), |local| local.checkpoint));
        let seen = LaneLag {
            partition: 0,
            epoch: None,
            end: end.0,
            stored: covered(next),
            checkpoint: covered(checkpoint),
            lag_packs,
            lag_seconds,
            status,
            reason,
            worker: None,
        };
        let pace = Pace { drain_seconds: self.track.drain_seconds(), apply_rate: self.track.apply_rate() };
        (seen, pace)
    }
}

fn note_change(partition: u32, before: Status, seen: &LaneLag) {
    let (status, reason) = (seen.status.word(), seen.reason.as_deref());
    let before_word = before.word();
    if seen.status > before {
        tracing::warn!(
            partition,
            before = before_word,
            status,
            reason,
            lag_packs = seen.lag_packs,
            "lane status changed"
        );
    } else if seen.status < before {
        tracing::info!(
            partition,
            before = before_word,
            status,
            reason,
            lag_packs = seen.lag_packs,
            "lane status changed"
        );
    }
}

/// The answer, or why there is none: an error's own words, or that the deadline has passed.
async fn answer_of<T, E: std::fmt::Display>(
    deadline: Duration,
    question: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match tokio::time::timeout(deadline, question).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {}", crate::units::Span(deadline))),
    }
}
