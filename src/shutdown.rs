//! Signals, drain and deadlines: how a run ends.
//!
//! The first SIGTERM or SIGINT cancels the run's token: services stop taking work, finish what they hold, and return.
//! They have `shutdown.deadline` for it; what is unfinished then is named and the exit code is 1. A second signal ends
//! at once, with exit code 1: what was acknowledged is durable in the log anyway, and a lane resumes at its checkpoint.
//!
//! A drain has stages, one after the other, and each ends at its own share of the deadline: a stage that hangs does not take
//! the time of the ones behind it, and the last of it is left for leaving the log's group.
//!
//! [`supervise`] is what `main` waits in, [`drain`] what the composition root ends with. Neither ends the process: both
//! return, and `main` drops the runtime.

use std::{future::Future, io, pin::pin, time::Duration};

use futures_util::{
    StreamExt as _,
    future::{BoxFuture, FutureExt as _},
    stream::FuturesUnordered,
};
use serde::{Deserialize, Serialize};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{exit::Failure, units::Span};

/// Settings under `shutdown.`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How long a run may take to drain after the first signal.
    pub deadline: Span,
}

impl Default for Options {
    fn default() -> Self {
        Self { deadline: Span::from_secs(25) }
    }
}

/// How much later than the deadline [`supervise`] gives up on a run that does not keep to it by itself.
const GRACE: Duration = Duration::from_secs(1);

/// Where stop signals come from.
pub trait Signals {
    /// Waits for the next one and answers its name.
    fn next(&mut self) -> impl Future<Output = &'static str> + Send;
}

/// The stop signals of this process.
pub struct ProcessSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl ProcessSignals {
    /// Takes over SIGTERM and SIGINT: from now on they no longer end the process by themselves.
    pub fn install() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }
}

impl Signals for ProcessSignals {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// How a supervised run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended<T> {
    /// By itself, after a signal or without one.
    Finished(T),
    /// By a second signal: it was dropped where it stood.
    Forced,
    /// It had not returned a moment after the deadline, and was dropped.
    Overdue,
}

/// Waits for `run`, cancels `stop` at the first signal, and gives up at the second or past the deadline.
pub async fn supervise<T>(
    run: impl Future<Output = T>,
    stop: CancellationToken,
    signals: &mut impl Signals,
    options: &Options,
) -> Ended<T> {
    let mut run = pin!(run);
    tokio::select! {
        outcome = &mut run => return Ended::Finished(outcome),
        signal = signals.next() => {
            tracing::info!(signal, deadline = %options.deadline, "stopping; a second signal ends at once");
        }
    }
    stop.cancel();
    tokio::select! {
        biased;
        outcome = &mut run => Ended::Finished(outcome),
        signal = signals.next() => {
            tracing::warn!(signal, "second signal: ending at once");
            Ended::Forced
        }
        () = tokio::time::sleep(options.deadline.0 + GRACE) => Ended::Overdue,
    }
}

/// One thing to wait for, and what it is called.
pub type Part<'a> = (&'static str, BoxFuture<'a, ()>);

/// What had not finished at the deadline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "shutdown.deadline ({deadline}) passed with unfinished work: {}; what was acknowledged is in the log and is applied after the next start",
    .parts.join(", ")
)]
pub struct Unfinished {
    /// The deadline that passed.
    pub deadline: Span,
    /// The names of the parts, in the order they were given.
    pub parts: Vec<&'static str>,
}

impl From<Unfinished> for Failure {
    fn from(unfinished: Unfinished) -> Self {
        Self::failed(unfinished.to_string())
    }
}

/// One deadline for all the stages of a drain; it starts when it is made.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    span: Span,
    began: Instant,
    at: Instant,
}

impl Deadline {
    /// The deadline of a drain that begins now.
    pub fn start(options: &Options) -> Self {
        let began = Instant::now();
        Self { span: options.deadline, began, at: began + options.deadline.0 }
    }

    /// The end of a stage that must be over when this much of the time has passed.
    pub fn percent(&self, percent: u32) -> Self {
        Self { at: self.began + self.span.0 * percent.min(100) / 100, ..*self }
    }

    /// When it passes.
    pub fn at(&self) -> Instant {
        self.at
    }
}

/// Runs every part to its end, all at once, until the deadline; the error names what is left.
///
/// Call it once per stage (stop accepting, then flush, then close) with the same deadline.
pub async fn drain(deadline: Deadline, parts: Vec<Part<'_>>) -> Result<(), Unfinished> {
    let mut left: Vec<Option<&'static str>> = parts.iter().map(|(name, _)| Some(*name)).collect();
    let mut running: FuturesUnordered<_> =
        parts.into_iter().enumerate().map(|(index, (_, part))| part.map(move |()| index)).collect();
    while let Ok(Some(index)) = timeout_at(deadline.at, running.next()).await {
        if let Some(name) = left[index].take() {
            tracing::debug!(part = name, "drained");
        }
    }
    let parts: Vec<&'static str> = left.into_iter().flatten().collect();
    if parts.is_empty() { Ok(()) } else { Err(Unfinished { deadline: deadline.span, parts }) }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::sync::mpsc;

    use super::*;

    struct Sent(mpsc::Receiver<&'static str>);

    impl Signals for Sent {
        async fn next(&mut self) -> &'static str {
            match self.0.recv().await {
                Some(signal) => signal,
                None => pending().await,
            }
        }
    }

    fn signals() -> (mpsc::Sender<&'static str>, Sent) {
        let (sender, receiver) = mpsc::channel(4);
        (sender, Sent(receiver))
    }

    fn options(millis: u64) -> Options {
        Options { deadline: Span::from_millis(millis) }
    }

    #[tokio::test]
    async fn the_first_signal_stops_the_run_and_its_answer_is_kept() {
        let (sender, mut signals) = signals();
        let stop = CancellationToken::new();
        let run = async {
            sender.send("SIGTERM").await.unwrap();
            stop.cancelled().await;
            7
        };
        assert_eq!(supervise(run, stop.clone(), &mut signals, &options(60_000)).await, Ended::Finished(7));
    }

    #[tokio::test]
    async fn a_second_signal_ends_at_once() {
        let (sender, mut signals) = signals();
        let stop = CancellationToken::new();
        let run = async {
            sender.send("SIGINT").await.unwrap();
            stop.cancelled().await;
            sender.send("SIGINT").await.unwrap();
            pending::<()>().await;
        };
        assert_eq!(supervise(run, stop.clone(), &mut signals, &options(60_000)).await, Ended::Forced);
    }

    #[tokio::test]
    async fn a_run_that_ignores_the_deadline_is_given_up() {
        let (sender, mut signals) = signals();
        sender.send("SIGTERM").await.unwrap();
        let ended = supervise(pending::<()>(), CancellationToken::new(), &mut signals, &options(1)).await;
        assert_eq!(ended, Ended::Overdue);
    }

    #[tokio::test]
    async fn a_drain_names_what_is_unfinished_at_the_deadline_and_nothing_else() {
        let stuck = || -> Part<'static> { ("worker", pending().boxed()) };
        let quick = || -> Part<'static> { ("ingest", async {}.boxed()) };
        assert_eq!(drain(Deadline::start(&options(60_000)), vec![quick(), quick()]).await, Ok(()));
        let unfinished = drain(Deadline::start(&options(20)), vec![stuck(), quick()]).await.unwrap_err();
        assert_eq!(unfinished.parts, ["worker"]);
        let failure = Failure::from(unfinished);
        assert!(failure.message.contains("shutdown.deadline (20ms)"), "{failure}");
        assert_eq!(failure.exit.code(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stage_that_hangs_leaves_the_next_ones_their_share() {
        let deadline = Deadline::start(&options(10_000));
        let began = Instant::now();
        let stuck = || -> Part<'static> { ("ingest", pending().boxed()) };
        let slow = || -> Part<'static> { ("worker", tokio::time::sleep(Duration::from_secs(3)).boxed()) };
        assert!(drain(deadline.percent(50), vec![stuck()]).await.is_err());
        assert_eq!(began.elapsed(), Duration::from_secs(5));
        assert_eq!(drain(deadline.percent(90), vec![slow()]).await, Ok(()));
        assert_eq!(began.elapsed(), Duration::from_secs(8));
    }
}
