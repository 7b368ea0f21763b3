//! Which lanes this process runs: follows the log's assignments, a task per lane.
//!
//! A revoked lane is stopped, flushed, and only then released to the next owner. Every task has this service as its owner,
//! which awaits it; a lane that panics ends the service with an error.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    Options,
    board::Board,
    budget::Budget,
    flush::{Context, Meters},
    tenure,
    watch::Watch,
};
use crate::{
    hot,
    item::Lane,
    log::{self, Change, Log},
    retry,
    store::{self, Store},
};

/// What the lanes work with.
pub struct Deps {
    /// Where packs come from.
    pub log: Arc<dyn Log>,
    /// Where rows go.
    pub store: Arc<dyn Store>,
    /// Who shows them at once.
    pub hot: hot::Shared,
    /// Who watches.
    pub board: Board,
    /// `store.`
    pub store_options: store::Options,
    /// `retry.`
    pub retry: retry::Options,
    /// `hot.publish_budget`
    pub publish_budget: usize,
}

/// Runs the lanes that the log assigns to this process.
pub struct Service {
    context: Arc<Context>,
    /// In order, so that lanes stop in the same order every time.
    lanes: BTreeMap<u32, Running>,
    watch: Option<Watch>,
}

struct Running {
    stop: CancellationToken,
    /// Ends with whoever waits for it: past the deadline of a drain that is nobody.
    task: AbortOnDropHandle<()>,
}

/// Why the service ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log would not let this process join.
    #[error("cannot join the workers of the log: {0}")]
    Join(#[from] log::Error),
    /// A lane's task ended by a bug.
    #[error("lane {0} ended unexpectedly: {1}")]
    Lane(u32, String),
    /// The watch ended by a bug.
    #[error("the watch over the store's servers ended unexpectedly: {0}")]
    Watch(String),
}

impl Service {
    /// A service that has not joined yet.
    pub fn new(options: Options, deps: Deps) -> Self {
        let (watch, belief) = Watch::new(deps.store.clone(), options.checkpoint_delay.0);
        let context = Context {
            budget: Budget::new(deps.publish_budget),
            belief,
            log: deps.log,
            store: deps.store,
            hot: deps.hot,
            options,
            retry: deps.retry,
            batch_rows: deps.store_options.batch_rows.max(1),
            slots: Semaphore::new(deps.store_options.in_flight.max(1)),
            board: deps.board,
            meters: Meters::new(),
        };
        Self { context: Arc::new(context), lanes: BTreeMap::new(), watch: Some(watch) }
    }

    /// Joins, runs lanes until `shutdown`, then flushes and leaves.
    ///
    /// # Errors
    /// When the log cannot be joined, or a lane or the watch ended by a bug.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut changes = self.context.log.join().await?;
        // It outlasts the lanes, which listen to it.
        let lanes_ended = CancellationToken::new();
        let watch = self.watch.take().expect("a service is run once");
        let mut watching = AbortOnDropHandle::new(tokio::spawn(watch.run(lanes_ended.clone())));
        loop {
            // In this order every time (a schedule that has failed can be repeated): what ends the service first, for
            // changes could go on for ever.
            let change = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                ended = ended(&mut self.lanes) => return Err(ended),
                ended = &mut watching => return Err(unexpected(ended)),
                change = changes.recv() => change,
            };
            match change {
                Some(Change::Assigned(partitions)) => {
                    partitions.into_iter().for_each(|partition| self.start(partition))
                }
                Some(Change::Revoked { partitions, released }) => {
                    self.stop(&partitions).await?;
                    // The log may have gone on without us; then nobody waits for the answer.
                    let _ = released.send(());
                }
                Some(Change::Lost(partitions)) => self.stop(&partitions).await?,
                None => break,
            }
        }
        let all: Vec<u32> = self.lanes.keys().copied().collect();
        self.stop(&all).await?;
        lanes_ended.cancel();
        watching.await.map_err(|error| Error::Watch(error.to_string()))
    }

    fn start(&mut self, partition: u32) {
        if self.lanes.contains_key(&partition) {
            return;
        }
        let lane = Lane { topic_id: self.context.log.topology().topic_id, partition };
        let stop = CancellationToken::new();
        let task = AbortOnDropHandle::new(tokio::spawn(tenure::run(self.context.clone(), lane, stop.clone())));
        self.lanes.insert(partition, Running { stop, task });
    }

    async fn stop(&mut self, partitions: &[u32]) -> Result<(), Error> {
        let stopping: Vec<_> =
            partitions.iter().filter_map(|partition| Some((*partition, self.lanes.remove(partition)?))).collect();
        stopping.iter().for_each(|(_, running)| running.stop.cancel());
        for (partition, running) in stopping {
            running.task.await.map_err(|error| Error::Lane(partition, error.to_string()))?;
            self.context.board.remove(partition);
        }
        Ok(())
    }
}

/// What a watch that ended by itself has to say: none should.
fn unexpected(ended: Result<(), tokio::task::JoinError>) -> Error {
    Error::Watch(ended.map_or_else(|error| error.to_string(), |()| "it returned".to_owned()))
}

/// Waits for a lane that ends by itself: none should.
async fn ended(lanes: &mut BTreeMap<u32, Running>) -> Error {
    let tasks = lanes.iter_mut().map(|(partition, running)| {
        let partition = *partition;
        Box::pin(async move { (partition, (&mut running.task).await) })
    });
    let tasks: Vec<_> = tasks.collect();
    if tasks.is_empty() {
        return std::future::pending().await;
    }
    let ((partition, ended), ..) = futures_util::future::select_all(tasks).await;
    Error::Lane(partition, ended.map_or_else(|error| error.to_string(), |()| "it returned".to_owned()))
}
