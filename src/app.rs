//! The composition root: the only place that names ports and backends together.
//!
//! [`run`] builds everything that can fail before a port is bound, runs the services until `stop`, and drains in the order
//! of the data path: no new items, every accepted item answered, connections ended, what the lanes have applied stored.
//! All stages together keep to `shutdown.deadline`. Every task has its owner here, which awaits it or, past the deadline,
//! drops it.

use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, Role},
    exit::Failure,
    shutdown::Deadline,
    telemetry,
};

pub mod audit;
mod backends;
mod epochs;
pub mod offline;
mod running;
mod runtime;
pub mod schema;
pub mod topic;
mod validate;

pub use validate::validate;

/// Runs `role` until `stop`, then drains.
///
/// # Errors
/// What could not be opened or bound, what ended by a bug, or what the drain did not finish in time.
pub async fn run(config: Config, role: Role, stop: CancellationToken) -> Result<(), Failure> {
    let exporter = telemetry::install_metrics(role.name())?;
    let backends = tokio::select! {
        opened = backends::open(&config) => opened?,
        // Nothing was accepted yet: there is nothing to drain, and nobody waits for a server that may never answer.
        () = stop.cancelled() => return Ok(()),
    };
    let ports = running::Ports::bind(&config, role).await?;
    let mut running = running::Running::start(&config, role, exporter, &backends, ports)?;
    let ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        failure = running.failed() => Err(failure),
    };
    let drained = running.drain(Deadline::start(&config.shutdown)).await;
    ended.and(drained)
}
