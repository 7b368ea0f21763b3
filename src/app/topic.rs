//! The log's topic, for the commands that make it and look at it.

use super::{
    backends::{self, Folders, log_failure, store_failure},
    epochs,
};
use crate::{
    config::Config,
    exit::Failure,
    log::kafka::topic::{self, Created, Report},
    url::LogUrl,
};

/// What a command finds where the log is.
pub enum Topic<T> {
    /// A topic on Kafka.
    Kafka(T),
    /// An embedded log: it is its own topic.
    Embedded,
}

/// Makes the topic that the configuration names.
///
/// # Errors
/// Kafka cannot be reached (exit code 3), or refuses.
pub async fn create(config: &Config) -> Result<Topic<Created>, Failure> {
    let LogUrl::Kafka { servers } = &config.log.url else { return Ok(Topic::Embedded) };
    topic::create(servers, &config.log.options, &backends::needs(config)).await.map(Topic::Kafka).map_err(log_failure)
}

/// Begins the first epoch of the topic in the store, if the store knows none (law 2). Answers whether the topic has an epoch
/// now: one that was made anew has none until an operator begins it.
///
/// # Errors
/// Log or store cannot be reached or used.
pub async fn begin_epoch(config: &Config) -> Result<bool, Failure> {
    let folders = Folders::lock(config).map_err(|error| Failure::failed(error.to_string()))?;
    let log = backends::open_log(config, &folders).await?;
    let store = backends::open_store(config, &folders).await?;
    let topology = log.topology();
    epochs::begin_first(topology, &*store, config).await.map_err(store_failure)?;
    let begun = store.epochs(&topology.topic).await.map_err(store_failure)?;
    Ok(begun.iter().any(|epoch| (epoch.topic_id, epoch.partitions) == (topology.topic_id, topology.partitions)))
}

/// Looks at the topic that the configuration names.
///
/// # Errors
/// Kafka cannot be reached (exit code 3), or there is no such topic.
pub async fn check(config: &Config) -> Result<Topic<Report>, Failure> {
    let LogUrl::Kafka { servers } = &config.log.url else { return Ok(Topic::Embedded) };
    topic::check(servers, &config.log.options, &backends::needs(config)).await.map(Topic::Kafka).map_err(log_failure)
}
