//! The desk for remedies: over the backends of a process, and over a log opened anew for what concerns the topic.

use std::sync::Arc;

use futures_util::FutureExt as _;

use super::backends::{self, Folders};
use crate::{
    config::{Config, Role},
    lag,
    lanes::{Deps, Desk, Pins, Reopen},
    log::Log,
    store::Store,
    url::LogUrl,
    worker::board::Board,
};

/// A desk over these. `alone`: no other process can run a lane, and this one does not.
pub(super) fn desk(
    config: &Config,
    log: &Arc<dyn Log>,
    store: &Arc<dyn Store>,
    board: Board,
    lag: lag::Handle,
    alone: bool,
) -> Desk {
    Desk::new(Deps {
        log: log.clone(),
        store: store.clone(),
        board,
        lag,
        reopen: reopen(config, log.clone()),
        pins: Pins {
            shards: config.store.options.shards,
            dedup_window_us: config.dedup.window.as_micros(),
            dedup_max_ids: config.dedup.max_ids,
        },
        alone,
    })
}

/// An embedded log is the same for as long as it is open. On Kafka the topic may have been made anew since.
fn reopen(config: &Config, log: Arc<dyn Log>) -> Reopen {
    let mut config = config.clone();
    // It is only looked at, and how many partitions it has now is the question.
    (config.role, config.log.options.partitions) = (Role::Worker, 0);
    let config = Arc::new(config);
    Arc::new(move || {
        let (config, log) = (config.clone(), log.clone());
        async move {
            match config.log.url {
                LogUrl::Embedded { .. } => Ok(log),
                LogUrl::Kafka { .. } => backends::open_log(&config, &Folders::none()).await,
            }
        }
        .boxed()
    })
}
