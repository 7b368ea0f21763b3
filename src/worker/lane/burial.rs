//! What a lane does with a record that it cannot apply: it notes the verdict in the store, puts the record into the
//! dead-letter log, waits for both, and goes on (law 6).
//!
//! The verdict first: were the letter there and the verdict lost, a later version of the program could apply the record
//! where it stands, and its replay would count it once more. Meanwhile the lane flushes what it applied before and moves its
//! checkpoint up to there, not past it.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::{Halt, Read, Refusal, Runner, joined};
use crate::{
    item::Coordinates,
    log::{Class, DeadLetter},
    metrics,
    worker::poison::Poison,
};

/// Log lines for dead letters within [`QUIET`]; of the others only the number is told.
const LINES: u32 = 10;
/// A storm of dead letters is told so often.
const QUIET: Duration = Duration::from_secs(60);

/// The burial that is under way, and how much was said of those before.
#[derive(Default)]
pub(super) struct Burial {
    task: Option<AbortOnDropHandle<Result<(), Halt>>>,
    verdict: Option<Poison>,
    told: Told,
}

impl Burial {
    pub(super) fn is_under_way(&self) -> bool {
        self.task.is_some()
    }

    /// Waits for it; there must be one.
    pub(super) async fn ended(&mut self) -> Result<(), Halt> {
        match &mut self.task {
            Some(task) => joined(Some(task.await)),
            None => std::future::pending().await,
        }
    }
}

/// How many lines were written of late.
#[derive(Default)]
struct Told {
    since: Option<Instant>,
    lines: u32,
    silent: u64,
}

impl Told {
    /// Whether to write a line now, and how many letters were passed over in silence before it.
    fn next(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.duration_since(since) >= QUIET) {
            (self.since, self.lines) = (Some(now), 0);
        }
        if self.lines == LINES {
            self.silent += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.silent))
    }
}

impl Runner {
    /// The record in front of the backlog is not applied: it halts the lane, or is buried.
    pub(super) fn refuse(&mut self, refusal: Refusal) -> Result<(), Halt> {
        let poison = match refusal {
            Refusal::Halt(halt) => return Err(halt),
            Refusal::Poison(poison) => poison,
        };
        let record = self.backlog.front().expect("it was judged just now");
        if self.context.log.dead_letters().is_none() {
            return Err(Halt::Unreadable { seq: record.seq, reason: poison.reason });
        }
        let letter = DeadLetter {
            at: Coordinates { lane: self.lane, seq: record.seq },
            append_ms: record.append_ms,
            format: record.format,
            class: poison.class,
            reason: poison.reason.clone(),
            payload: record.payload.clone(),
        };
        let (context, stamp) = (self.context.clone(), self.machine.letter_stamp(record.seq)?);
        self.burial.verdict = Some(poison);
        let task = tokio::spawn(async move { context.bury(&letter, stamp).await });
        self.burial.task = Some(AbortOnDropHandle::new(task));
        Ok(())
    }

    /// The record in front of the backlog is a dead letter now: the lane passes it.
    pub(super) fn buried(&mut self, buried: Result<(), Halt>) -> Result<(), Halt> {
        self.burial.task = None;
        buried?;
        let record = self.backlog.pop_front().expect("a record stays in front while it is buried");
        self.machine.bury(&record)?;
        let verdict = self.burial.verdict.take();
        let (class, reason) = verdict.map_or((Class::Malformed, String::new()), |poison| (poison.class, poison.reason));
        let partition = self.lane.partition;
        metrics::DEAD_LETTERS.counter(&[&partition.to_string(), class.word()]).increment(1);
        if let Some(silent) = self.burial.told.next(Instant::now()) {
            tracing::warn!(partition, seq = record.seq.0, class = %class, reason, silent, "record became a dead letter");
        }
        // It leaves nothing to write but how far the lane is.
        self.unflushed_since = self.unflushed_since.or(Some(Instant::now()));
        self.oldest_unflushed_ms = self.oldest_unflushed_ms.or(Some(record.append_ms));
        self.show_applied();
        Ok(())
    }

    /// Reads what has become of the dead letter that a pack replays, if it replays one.
    pub(super) async fn load_replay(&mut self, read: &Read) -> Result<(), Halt> {
        let Some(at) = self.machine.lacks_replay(read) else { return Ok(()) };
        self.show_applied();
        let (context, Coordinates { lane, seq }) = (&self.context, at);
        let rows = context.settled(self.lane, || context.store.letters(context.topic(), lane, seq, seq, 1)).await?;
        let by = rows.iter().find(|row| row.seq == seq).and_then(|row| row.replayed);
        self.machine.install_replay(at, by);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_told_by_a_few_lines_and_a_number() {
        let mut told = Told::default();
        let began = Instant::now();
        let lines = (0..1_000).filter(|_| told.next(began).is_some()).count();
        assert_eq!(lines, LINES as usize);
        assert_eq!(told.next(began + QUIET / 2), None);
        assert_eq!(told.next(began + QUIET), Some(1_001 - u64::from(LINES)), "nothing is lost but the lines");
        assert_eq!(told.next(began + QUIET), Some(0));
    }
}
