//! Everything that a configuration names, tried without serving anything: the data folder, log, store, and addresses.

use std::sync::Arc;

use super::{
    backends::{self, Folders},
    running::Ports,
};
use crate::{
    config::{
        Config,
        verdict::{Standing, Verdict},
    },
    exit::{Exit, Failure},
    log::Log,
    store::Store,
};

/// Opens what the configuration names and closes it again. A folder that does not exist yet is not made, and nothing is
/// begun in a store that knows no epoch.
pub async fn validate(config: &Config) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    match backends::unused_folder(config) {
        Some(folder) => verdicts.push(Verdict::new(
            "data",
            Standing::Good,
            format!("`{}` does not exist yet; the first start makes it", folder.display()),
        )),
        None => opened(config, &mut verdicts).await,
    }
    let ports = Ports::bind(config, config.role).await.map(drop);
    verdicts.push(verdict("addresses", ports.map(|()| "free to listen on".to_owned())));
    verdicts
}

async fn opened(config: &Config, verdicts: &mut Vec<Verdict>) {
    let folders = match Folders::lock(config) {
        Ok(folders) => folders,
        Err(error) => return verdicts.push(verdict("data", Err(Failure::failed(error.to_string())))),
    };
    let log = backends::open_log(config, &folders).await;
    verdicts.push(verdict("log", looked_at(&log).await));
    let topic = log.as_ref().map(|log| log.topology().topic.clone()).ok();
    let store = match backends::open_store(config, &folders).await {
        Ok(store) => lanes(&*store, topic.as_deref(), config).await,
        Err(failure) => Err(failure),
    };
    verdicts.push(verdict("store", store));
    verdicts.push(match backends::open_hot(config) {
        Err(failure) => verdict("hot", Err(failure)),
        Ok(hot) => {
            let (name, holds) = hot.describe();
            match hot.read(&[backends::probe()]).await {
                _ if !holds => Verdict::new("hot", Standing::Good, format!("{name}: totals come from the store")),
                Ok(_) => Verdict::new("hot", Standing::Good, format!("{name} answers")),
                // It never keeps anything from starting (law 8).
                Err(error) => {
                    Verdict::new("hot", Standing::Warning, format!("hot.url: {error}; totals come from the store"))
                }
            }
        }
    });
}

async fn looked_at(log: &Result<Arc<dyn Log>, Failure>) -> Result<String, Failure> {
    let log = log.as_ref().map_err(Clone::clone)?;
    let topology = log.topology();
    log.check().await.map_err(|error| Failure::failed(format!("log.url: {error}")))?;
    Ok(format!("topic {} with {} partitions", topology.topic, topology.partitions))
}

/// What the store knows of the topic; of any, when the log could not be opened.
async fn lanes(store: &dyn Store, topic: Option<&str>, config: &Config) -> Result<String, Failure> {
    let lanes = store.lanes(topic.unwrap_or_default()).await.map_err(backends::store_failure)?;
    Ok(format!("{} lanes, {} shards", lanes.len(), config.store.options.shards))
}

fn verdict(subject: &str, outcome: Result<String, Failure>) -> Verdict {
    match outcome {
        Ok(message) => Verdict::new(subject, Standing::Good, message),
        Err(Failure { exit: Exit::Unreachable, message }) => Verdict::new(subject, Standing::Unreachable, message),
        Err(Failure { exit: Exit::Usage, message }) => Verdict::new(subject, Standing::Configuration, message),
        Err(failure) => Verdict::new(subject, Standing::Unfit, failure.message),
    }
}
