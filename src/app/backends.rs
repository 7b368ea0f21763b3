//! Opening what the configuration names: log, store and hot view, and the first epoch.

use std::{path::Path, sync::Arc};

use crate::{
    admin::Check,
    clock,
    config::{Config, HotUrl, LogUrl, Role, StoreUrl, redact},
    data_dir::{self, DataDir},
    exit::Failure,
    hot, ingest,
    item::Epoch,
    log::{self, Log},
    retry::{Classified as _, Kind},
    store::{self, EpochRow, Store},
};

/// The embedded log's topic.
const TOPIC: &str = "tallymark.packs";

/// How far the clock of an ingest may be from the log's.
const CLOCK_BOUND_MS: i64 = 5 * 60 * 1000;

/// What the roles work with.
pub struct Backends {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The hot view.
    pub hot: hot::Shared,
    /// Shards of the epoch in force: they route increments.
    pub shards: u32,
    /// The locks of the data folders: they end when this is dropped.
    _locks: Vec<DataDir>,
}

/// Log and store of this machine's disk, and the locks of their folders.
pub struct Disk {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// They end when this is dropped, after log and store.
    pub locks: Vec<DataDir>,
}

/// Opens everything. Nothing is bound yet: what fails, fails before a client can see it.
pub async fn open(config: &Config) -> Result<Backends, Failure> {
    let (log_dir, store_dir) = embedded(config).ok_or_else(|| {
        Failure::usage("log.url and store.url must be embedded: this version serves no other backend")
    })?;
    let locks = lock(log_dir, store_dir).map_err(|error| Failure::failed(error.to_string()))?;
    let Disk { log, store, locks } = open_disk(config, locks).await?;
    let hot: hot::Shared = match &config.hot.url {
        HotUrl::Memory => Arc::new(hot::memory::Memory::new(&config.hot.options)),
        HotUrl::None => Arc::new(hot::none::Disabled),
        HotUrl::Redis { .. } => return Err(Failure::usage("hot.url: this version serves memory: and none:")),
    };
    let shards = begin_first_epoch(&*log, &*store, config).await.map_err(store_failure)?;
    Ok(Backends { log, store, hot, shards, _locks: locks })
}

/// The data folders of log and store, when both are embedded.
pub fn embedded(config: &Config) -> Option<(&Path, &Path)> {
    match (&config.log.url, &config.store.url) {
        (LogUrl::Embedded { dir: log }, StoreUrl::Embedded { dir: store }) => Some((log, store)),
        _ => None,
    }
}

/// Takes the data folders of log and store, which may be one: the first is the log's, the last the store's.
pub fn lock(log_dir: &Path, store_dir: &Path) -> Result<Vec<DataDir>, data_dir::Error> {
    let mut locks = vec![DataDir::open(log_dir)?];
    if !same_folder(log_dir, store_dir) {
        locks.push(DataDir::open(store_dir)?);
    }
    Ok(locks)
}

/// Opens log and store in folders that this process owns.
pub async fn open_disk(config: &Config, locks: Vec<DataDir>) -> Result<Disk, Failure> {
    const TAKEN: &str = "a folder for the log was taken";
    let (log_path, store_path) = (locks.first().expect(TAKEN).log(), locks.last().expect(TAKEN).store());
    let (log_options, store_options) = (config.log.options.clone(), config.store.options.clone());
    let (log, store) = tokio::task::spawn_blocking(move || {
        let log = log::embedded::Embedded::open(&log_path, TOPIC, &log_options).map_err(log_failure)?;
        let store = store::embedded::Embedded::open(&store_path, &store_options).map_err(store_failure)?;
        Ok::<_, Failure>((log, store))
    })
    .await
    .map_err(|error| Failure::failed(format!("opening the data folder ended unexpectedly: {error}")))??;
    Ok(Disk { log: Arc::new(log), store: Arc::new(store), locks })
}

/// The log's folder, when nothing has been made there yet.
pub fn unused_folder(config: &Config) -> Option<&Path> {
    match &config.log.url {
        LogUrl::Embedded { dir } if !dir.exists() => Some(dir),
        _ => None,
    }
}

fn same_folder(a: &Path, b: &Path) -> bool {
    // A folder that does not exist yet has no canonical form: then the names must do.
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

/// Pins layout and dedup window of a log that nobody has used yet, and answers the shards in force. An embedded log is its
/// own topic, made by its first start; a store that knows another life of it is left alone: the lanes halt and say so.
async fn begin_first_epoch(log: &dyn Log, store: &dyn Store, config: &Config) -> Result<u32, store::Error> {
    let topology = log.topology();
    let epochs = store.epochs(&topology.topic).await?;
    if let Some(epoch) = epochs.iter().rfind(|epoch| epoch.topic_id == topology.topic_id) {
        let settings = (config.store.options.shards, config.dedup.window.as_micros(), config.dedup.max_ids);
        if (epoch.shards, epoch.dedup_window_us, epoch.dedup_max_ids) != settings {
            tracing::warn!(
                shards = epoch.shards,
                dedup_window_us = epoch.dedup_window_us,
                dedup_max_ids = epoch.dedup_max_ids,
                "store.shards or dedup settings differ from those that the log began with; the log's are in force"
            );
        }
        return Ok(epoch.shards);
    }
    let (partitions, shards) = (topology.partitions, config.store.options.shards);
    if epochs.is_empty() {
        let epoch = EpochRow {
            epoch: Epoch::of(topology.topic_id, partitions, shards),
            topic_id: topology.topic_id,
            cluster_id: topology.cluster_id.clone(),
            partitions,
            shards,
            dedup_window_us: config.dedup.window.as_micros(),
            dedup_max_ids: config.dedup.max_ids,
            created_ms: clock::now_ms(),
        };
        tracing::info!(epoch = %epoch.epoch, partitions, shards, "first epoch begun");
        store.begin_epoch(&topology.topic, &epoch).await?;
    }
    Ok(shards)
}

/// How each backend is asked whether it works.
pub fn checks(config: &Config, role: Role, backends: &Backends, ingest: Option<ingest::Handle>) -> Vec<Check> {
    let (log, store, hot) = (backends.log.clone(), backends.store.clone(), backends.hot.clone());
    let topic = log.topology().topic.clone();
    let mut checks = vec![
        Check::new("log", redact(config.settings().text("log.url")), role.ingests(), move || {
            let log = log.clone();
            async move { log.check().await.map_err(|error| error.to_string()) }
        }),
        Check::new("store", redact(config.settings().text("store.url")), false, move || {
            let (store, topic) = (store.clone(), topic.clone());
            async move { store.lanes(&topic).await.map(drop).map_err(|error| error.to_string()) }
        }),
    ];
    if hot.describe().1 {
        checks.push(Check::new("hot", redact(config.settings().text("hot.url")), false, move || {
            let hot = hot.clone();
            async move { hot.read(&[]).await.map(drop).map_err(|error| error.to_string()) }
        }));
    }
    if let Some(ingest) = ingest {
        // Stamps follow the clocks of log and ingest: one that is far off shortens the dedup window (law 7).
        checks.push(Check::new("clock", "this machine's clock against the log's", true, move || {
            let ahead_ms = ingest.clock_ahead_ms();
            std::future::ready(if ahead_ms.abs() <= CLOCK_BOUND_MS {
                Ok(())
            } else {
                Err(format!("this machine's clock is {} s ahead of the log's; set it right", ahead_ms / 1000))
            })
        }));
    }
    checks
}

pub fn log_failure(error: log::Error) -> Failure {
    failure("log.url", error.kind(), &error)
}

fn store_failure(error: store::Error) -> Failure {
    failure("store.url", error.kind(), &error)
}

fn failure(setting: &str, kind: Kind, error: &dyn std::error::Error) -> Failure {
    let cause = error.source().map(|source| format!(" ({source})")).unwrap_or_default();
    let message = format!("{setting}: {error}{cause}");
    if kind == Kind::Transient { Failure::unreachable(message) } else { Failure::failed(message) }
}
