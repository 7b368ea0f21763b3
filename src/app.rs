//! The composition root: the only place that names ports and backends together.
//!
//! Stand-in until the program itself is merged: it installs the metrics and waits for the end.

use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, Role, verdict::Verdict},
    exit::Failure,
    telemetry,
};

/// Builds what `role` needs, runs it until `shutdown` is cancelled, and drains it.
pub async fn run(_config: Config, role: Role, shutdown: CancellationToken) -> Result<(), Failure> {
    let exporter = telemetry::install_metrics(role.name())?;
    tracing::info!(role = role.name(), "started");
    exporter.run(shutdown).await;
    tracing::info!("stopped");
    Ok(())
}

/// Looks at everything that the configuration names.
pub async fn validate(_config: &Config) -> Vec<Verdict> {
    Vec::new()
}
