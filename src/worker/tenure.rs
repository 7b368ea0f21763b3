//! A lane of this process, from its assignment to its end: taken over, run, and taken over again from its checkpoint
//! whenever the store may have forgotten what was written since, or what it has halted for is remedied. One task a lane.
//!
//! Rows could be written again from memory, but events cannot, and the log has both: going back to the checkpoint is what a
//! worker that takes the lane over does, and needs no way of its own.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{
    flush::Context,
    halt::Halt,
    halting::Halting,
    lane::{End, Runner},
};
use crate::item::Lane;

/// How often a lane is resumed anew when the log has moved on meanwhile.
const RESUMES: u32 = 3;

/// Runs a lane until `stop`, then flushes what it has. A halted lane stays, shown as halted, until `stop` or its remedy; when the
/// store may have forgotten what it wrote before it halted, it writes that again, and halts again.
pub(super) async fn run(context: Arc<Context>, lane: Lane, stop: CancellationToken) {
    let partition = lane.partition;
    let mut halting = Halting::default();
    context.board.update(partition, |status| *status = Default::default());
    loop {
        // Before anything is read: what is counted from now on, this run has not replayed.
        let restarts = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            restarts = told(&context, None) => restarts,
        };
        match run_once(&context, lane, &mut halting, &stop, restarts).await {
            Ok(End::Stopped) => return,
            Ok(End::Forgotten) => {
                tracing::warn!(partition, "lane goes back to its checkpoint");
                context.board.update(partition, |status| *status = Default::default());
            }
            Err(halt) => {
                let goes_on = tokio::select! {
                    biased;
                    goes_on = halting.wait(&context, lane, halt, &stop) => goes_on,
                    _ = told(&context, Some(restarts)) => {
                        tracing::warn!(partition, "halted lane writes again what the store may have lost");
                        true
                    }
                };
                if !goes_on {
                    return;
                }
            }
        }
    }
}

async fn run_once(
    context: &Arc<Context>,
    lane: Lane,
    halting: &mut Halting,
    stop: &CancellationToken,
    restarts: u64,
) -> Result<End, Halt> {
    let resuming = async {
        let mut tries = 0;
        let (resumed, cursor) = loop {
            let resumed = match context.resume(lane).await {
                // The owner before was still moving the checkpoint, and retention followed it: whether anything is missing
                // the checkpoint says, as it is now.
                Err(Halt::Gap { .. }) if tries < RESUMES => {
                    tries += 1;
                    continue;
                }
                resumed => resumed?,
            };
            // What was given up nobody publishes, and what the hot view has of it must go.
            context.hot.publishes_from(lane, resumed.machine.folds_from());
            let (next, leader_epoch) = (resumed.machine.next(), resumed.leader_epoch);
            match context.log_tried(lane, || context.log.open(lane.partition, next, leader_epoch)).await {
                Ok(cursor) => break (resumed, cursor),
                Err(error) if error.gone && tries < RESUMES => tries += 1,
                Err(error) => return Err(context.broken_off(lane, next, error).await),
            }
        };
        halting.runs(context, lane).await?;
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
        if let Some(restarts) = belief.look().restarts().filter(|restarts| Some(*restarts) != before) {
            return restarts;
        }
        // When the service is gone nobody tells any more; it ends its lanes.
        belief.changed().await;
    }
}
