//! Everything that a configuration names, tried without serving anything: the data folder, log, store, and addresses.

use super::{backends, running::Ports};
use crate::{
    config::{
        Config,
        verdict::{Standing, Verdict},
    },
    exit::{Exit, Failure},
};

/// Opens what the configuration names and closes it again. A folder that does not exist yet is not made.
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
    let backends = match backends::open(config).await {
        Ok(backends) => backends,
        Err(failure) => return verdicts.push(verdict("data", Err(failure))),
    };
    let topology = backends.log.topology();
    let log = backends
        .log
        .check()
        .await
        .map(|()| format!("topic {} with {} partitions", topology.topic, topology.partitions));
    verdicts.push(verdict("log", log.map_err(|error| Failure::failed(error.to_string()))));
    let store = backends.store.lanes(&topology.topic).await;
    let store = store.map(|lanes| format!("{} lanes, {} shards", lanes.len(), backends.shards));
    verdicts.push(verdict("store", store.map_err(|error| Failure::failed(error.to_string()))));
    let (hot, holds) = backends.hot.describe();
    let message = if holds { format!("{hot}: in this process") } else { format!("{hot}: totals come from the store") };
    verdicts.push(Verdict::new("hot", Standing::Good, message));
}

fn verdict(subject: &str, outcome: Result<String, Failure>) -> Verdict {
    match outcome {
        Ok(message) => Verdict::new(subject, Standing::Good, message),
        Err(Failure { exit: Exit::Unreachable, message }) => Verdict::new(subject, Standing::Unreachable, message),
        Err(Failure { exit: Exit::Usage, message }) => Verdict::new(subject, Standing::Configuration, message),
        Err(failure) => Verdict::new(subject, Standing::Unfit, failure.message),
    }
}
