//! A lane that has halted: shown, told to the store, and looked at again.
//!
//! A halt is said once in the log, shown on this process's board, and noted in the store, where every other process finds
//! it. The lane does not come to an end: every few seconds it asks whether what it halted for still stands, and goes on from
//! its checkpoint as soon as a remedy is there, without a restart. What may pass by itself (a store that refuses, a log that
//! cannot be read) is simply tried again after a while.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{accepted::Accepted, board::State, flush::Context, halt::Halt, meters::LaneMeters, resume};
use crate::{clock, item::Lane, process, store};

/// How often a halted lane asks for remedies.
const LOOK: Duration = Duration::from_secs(2);
/// After how long it tries again what may have passed by itself.
const AGAIN: Duration = Duration::from_secs(30);

/// What a lane has halted for, and whether anybody knows.
#[derive(Default)]
pub(super) struct Halting {
    halt: Option<Halt>,
    since_ms: i64,
    /// The store has it.
    noted: bool,
    /// Since when it has been running again.
    runs_since: Option<Instant>,
}

impl Halting {
    /// The lane runs: nobody must be told otherwise.
    pub(super) async fn runs(&mut self, context: &Context, lane: Lane) -> Result<(), Halt> {
        let noted = self.noted || {
            let halts = context.settled(lane, || context.store.halts(context.topic())).await?;
            halts.iter().any(|halt| halt.lane == lane)
        };
        if noted {
            context.settled(lane, || context.store.clear_halt(context.topic(), lane)).await?;
        }
        (self.noted, self.runs_since) = (false, Some(Instant::now()));
        LaneMeters::new(lane.partition).halted.set(0.0);
        if self.halt.is_some() {
            tracing::info!(partition = lane.partition, "halted lane goes on");
        }
        Ok(())
    }

    /// The lane has halted: says so, and returns when it is worth while to try again, or with `false` at `stop`.
    pub(super) async fn wait(&mut self, context: &Context, lane: Lane, halt: Halt, stop: &CancellationToken) -> bool {
        self.show(context, lane, halt);
        let since = Instant::now();
        loop {
            let looking = async {
                self.note(context, lane).await;
                tokio::time::sleep(LOOK).await;
                self.is_over(context, lane, since.elapsed()).await
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return false,
                over = looking => if over { return true },
            }
        }
    }

    fn show(&mut self, context: &Context, lane: Lane, halt: Halt) {
        let partition = lane.partition;
        let reason = halt.told(partition);
        // Once: one that was tried again in vain, or has lost more of its front meanwhile, is the same halt.
        let ran = self.runs_since.take().map(|since| since.elapsed());
        let tried = matches!(halt, Halt::Store(_) | Halt::Log(_)) && ran.is_some_and(|ran| ran < AGAIN);
        let same = self.halt.as_ref().is_some_and(|before| before.kind() == halt.kind());
        if !same || (ran.is_some() && !tried) {
            tracing::error!(partition, kind = halt.kind(), reason, "lane halted");
            self.since_ms = clock::now_ms();
        }
        LaneMeters::new(partition).halted.set(1.0);
        let shown = (halt.clone(), self.since_ms);
        context.board.update(partition, |status| {
            status.state = State::Halted;
            status.reason = Some(reason);
            status.halt = Some(shown);
        });
        self.noted &= self.halt.as_ref() == Some(&halt);
        self.halt = Some(halt);
    }

    /// Tells the store, if it takes it: what is shown elsewhere is no reason to hold anything up.
    async fn note(&mut self, context: &Context, lane: Lane) {
        let Some(halt) = self.halt.as_ref().filter(|_| !self.noted) else { return };
        let row = halt.row(lane, process::name(), self.since_ms);
        match context.store.write_halt(context.topic(), &row).await {
            Ok(()) => self.noted = true,
            Err(error) => tracing::debug!(partition = lane.partition, %error, "the store does not take the halt"),
        }
    }

    /// Whether what the lane halted for is over, or may be.
    async fn is_over(&self, context: &Context, lane: Lane, waited: Duration) -> bool {
        let Some(halt) = &self.halt else { return true };
        if matches!(halt, Halt::Store(_) | Halt::Log(_)) {
            return waited >= AGAIN;
        }
        // What cannot be asked now is asked again soon.
        match standing(context, lane, halt).await {
            Ok(stands) => !stands,
            Err(error) => {
                tracing::debug!(partition = lane.partition, %error, "a halted lane cannot ask for remedies");
                false
            }
        }
    }
}

/// Whether a halt stands as it was found.
async fn standing(context: &Context, lane: Lane, halt: &Halt) -> Result<bool, store::Error> {
    let topic = context.topic();
    let epochs = context.store.epochs(topic).await?;
    let accepted = Accepted::of(lane, &context.store.remedies(topic).await?);
    Ok(match halt {
        Halt::Epoch { partitions, shards, .. } => !epochs
            .iter()
            .any(|epoch| (epoch.topic_id, epoch.partitions, epoch.shards) == (lane.topic_id, *partitions, *shards)),
        Halt::Missing { expected, found } => accepted.cross(*expected, *found).0 < *found,
        Halt::Claim { seq, .. } => !accepted.forgives_claims_of(*seq),
        Halt::Gap { .. } | Halt::Recreated { .. } => {
            let rows = context.store.lanes(topic).await?;
            let Ok(bounds) = context.log.bounds(lane.partition).await else { return Ok(true) };
            let row = rows.iter().find(|row| row.lane == lane);
            resume::check(lane, bounds, row, &epochs, &accepted).as_ref() == Err(halt)
        }
        // Above all of a log that was cut: that it has grown past what is stored does not make it the log that it was.
        _ => true,
    })
}
