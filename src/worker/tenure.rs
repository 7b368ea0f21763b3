//! A lane of this process, from its assignment to its end: taken over, run, and taken over again from its checkpoint
//! whenever the store may have forgotten what was written since. One task a lane.
//!
//! Rows could be written again from memory, but events cannot, and the log has both: going back to the checkpoint is what a
//! worker that takes the lane over does, and needs no way of its own.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{
    board::State,
    flush::Context,
    halt::Halt,
    lane::{End, Runner},
    meters::LaneMeters,
};
use crate::item::Lane;

/// Runs a lane until `stop`, then flushes what it has. A halted lane stays, shown as halted, until `stop`; when the store may
/// have forgotten what it wrote before it halted, it writes that again, and halts again.
pub(super) async fn run(context: Arc<Context>, lane: Lane, stop: CancellationToken) {
    let partition = lane.partition;
    let mut halted = None;
    loop {
        context.board.update(partition, |status| *status = Default::default());
        if halted.is_some() {
            LaneMeters::new(partition).halted.set(0.0);
        }
        // Before anything is read: what is counted from now on, this run has not replayed.
        let restarts = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            restarts = told(&context, None) => restarts,
        };
        match run_once(&context, lane, &stop, restarts).await {
            Ok(End::Stopped) => return,
            Ok(End::Forgotten) => tracing::warn!(partition, "lane goes back to its checkpoint"),
            Err(halt) => {
                if halted.as_ref() != Some(&halt) {
                    tracing::error!(partition, reason = %halt, "lane halted");
                }
                LaneMeters::new(partition).halted.set(1.0);
                context.board.update(partition, |status| {
                    status.state = State::Halted;
                    status.reason = Some(halt.to_string());
                });
                halted = Some(halt);
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    _ = told(&context, Some(restarts)) => {
                        tracing::warn!(partition, "halted lane writes again what the store may have lost");
                    }
                }
            }
        }
    }
}

async fn run_once(context: &Arc<Context>, lane: Lane, stop: &CancellationToken, restarts: u64) -> Result<End, Halt> {
    let resuming = async {
        let resumed = context.resume(lane).await?;
        context.hot.publishes_from(lane, resumed.covered);
        let (next, leader_epoch) = (resumed.machine.next(), resumed.leader_epoch);
        let cursor = context.log_settled(lane, || context.log.open(lane.partition, next, leader_epoch)).await?;
        Ok::<_, Halt>((resumed, cursor))
    };
    let (resumed, cursor) = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(End::Stopped),
        resumed = resuming => resumed?,
    };
    let ids = resumed.machine.window().len();
    let (partition, next, checkpoint) = (lane.partition, resumed.machine.next().0, resumed.covered.0);
    tracing::info!(partition, next, checkpoint, ids, "lane runs");
    let mut runner = Runner::new(context.clone(), lane, resumed, cursor, restarts);
    let ended = runner.apply_until(stop).await;
    if ended == Ok(End::Forgotten) {
        return ended;
    }
    // What was applied before a halt is true: it is stored all the same.
    let drained = runner.drain().await;
    ended.and_then(|end| drained.map(|()| end))
}

/// How often a server of the store has started again, once anybody was asked, and once it is another number than `before`.
async fn told(context: &Context, before: Option<u64>) -> u64 {
    let mut belief = context.belief.clone();
    loop {
        if let Some(restarts) = belief.borrow_and_update().restarts().filter(|restarts| Some(*restarts) != before) {
            return restarts;
        }
        if belief.changed().await.is_err() {
            // The service is gone, and ends its lanes.
            std::future::pending::<()>().await;
        }
    }
}
