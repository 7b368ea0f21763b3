//! Opening what the configuration names: log, store and hot view.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use super::epochs;
use crate::{
    admin::Check,
    config::{Config, Role},
    data_dir::{self, DataDir},
    exit::Failure,
    hot::{self, HotKey, HotKind},
    ingest,
    log::{self, Log},
    retry::{Classified as _, Kind},
    store::{self, Store},
    url::{HotUrl, LogUrl, StoreUrl, redact},
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
    /// Dropped last, after log and store.
    _folders: Folders,
}

/// Opens everything. Nothing is bound yet: what fails, fails before a client can see it.
pub async fn open(config: &Config) -> Result<Backends, Failure> {
    let folders = Folders::lock(config).map_err(|error| Failure::failed(error.to_string()))?;
    let log = open_log(config, &folders).await?;
    let store = open_store(config, &folders).await?;
    let hot = open_hot(config)?;
    let shards = epochs::begin_first(log.topology(), &*store, config).await.map_err(store_failure)?;
    Ok(Backends { log, store, hot, shards, _folders: folders })
}

/// The data folders of the backends that are embedded, and their locks.
pub struct Folders {
    log: Option<PathBuf>,
    store: Option<PathBuf>,
    _locks: Vec<DataDir>,
}

impl Folders {
    /// Takes the data folders that the configuration names, which may be one.
    pub fn lock(config: &Config) -> Result<Self, data_dir::Error> {
        let (log_dir, store_dir) = (log_dir(config), store_dir(config));
        let mut locks: Vec<DataDir> = Vec::new();
        for dir in [log_dir, store_dir].into_iter().flatten() {
            if !locks.iter().any(|lock| same_folder(lock.path(), dir)) {
                locks.push(DataDir::open(dir)?);
            }
        }
        Ok(Self { log: log_dir.map(data_dir::log_in), store: store_dir.map(data_dir::store_in), _locks: locks })
    }
}

fn log_dir(config: &Config) -> Option<&Path> {
    match &config.log.url {
        LogUrl::Embedded { dir } => Some(dir),
        LogUrl::Kafka { .. } => None,
    }
}

fn store_dir(config: &Config) -> Option<&Path> {
    match &config.store.url {
        StoreUrl::Embedded { dir } => Some(dir),
        StoreUrl::Scylla { .. } => None,
    }
}

/// The data folders of log and store, when both are embedded.
pub fn embedded(config: &Config) -> Option<(&Path, &Path)> {
    log_dir(config).zip(store_dir(config))
}

/// The folders of the backends that are embedded.
pub fn embedded_dirs(config: &Config) -> Vec<&Path> {
    [log_dir(config), store_dir(config)].into_iter().flatten().collect()
}

/// Whether the folders of the backends that are embedded have been made: one that only happens to be there stays as it is.
pub fn are_there(config: &Config) -> bool {
    let log = log_dir(config).is_none_or(|dir| data_dir::log_in(dir).is_dir());
    log && store_dir(config).is_none_or(|dir| data_dir::store_in(dir).is_dir())
}

/// The log's folder, when the log is embedded and nothing has been made there yet.
pub fn unused_folder(config: &Config) -> Option<&Path> {
    log_dir(config).filter(|dir| !dir.exists())
}

fn same_folder(a: &Path, b: &Path) -> bool {
    // A folder that does not exist yet has no canonical form: then the names must do.
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

/// Opens the log; an embedded one in its folder.
pub async fn open_log(config: &Config, folders: &Folders) -> Result<Arc<dyn Log>, Failure> {
    let options = config.log.options.clone();
    match (&config.log.url, folders.log.clone()) {
        (LogUrl::Kafka { servers }, _) => {
            let log = log::kafka::Kafka::open(servers, &options, &needs(config)).await.map_err(log_failure)?;
            Ok(Arc::new(log))
        }
        (LogUrl::Embedded { dir }, folder) => {
            let folder = folder.unwrap_or_else(|| data_dir::log_in(dir));
            let open = move || log::embedded::Embedded::open(&folder, TOPIC, &options);
            Ok(Arc::new(opening(open).await?.map_err(log_failure)?))
        }
    }
}

/// Opens the store; an embedded one in its folder.
pub async fn open_store(config: &Config, folders: &Folders) -> Result<Arc<dyn Store>, Failure> {
    let options = config.store.options.clone();
    match (&config.store.url, folders.store.clone()) {
        (StoreUrl::Scylla { servers }, _) => {
            Ok(Arc::new(store::scylla::Scylla::open(servers, &options).await.map_err(store_failure)?))
        }
        (StoreUrl::Embedded { dir }, folder) => {
            let folder = folder.unwrap_or_else(|| data_dir::store_in(dir));
            let open = move || store::embedded::Embedded::open(&folder, &options);
            Ok(Arc::new(opening(open).await?.map_err(store_failure)?))
        }
    }
}

/// Opens the hot view, which need not be there yet.
pub fn open_hot(config: &Config) -> Result<hot::Shared, Failure> {
    Ok(match &config.hot.url {
        HotUrl::Memory => Arc::new(hot::memory::Memory::new(&config.hot.options)),
        HotUrl::None => Arc::new(hot::none::Disabled),
        HotUrl::Redis { tls, cluster, servers } => {
            let view = hot::redis::Redis::open(*tls, *cluster, servers, &config.hot.options);
            Arc::new(view.map_err(|error| failure("hot.url", error.kind, &error))?)
        }
    })
}

/// Opening recovers, and reads and writes files for as long as that takes.
async fn opening<T: Send + 'static>(open: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let opened = tokio::task::spawn_blocking(open).await;
    opened.map_err(|error| Failure::failed(format!("opening the data folder ended unexpectedly: {error}")))
}

/// An entry that nobody writes: reading it asks the servers.
pub(super) fn probe() -> HotKey {
    HotKey { kind: HotKind::Series, key: Bytes::from_static(b"?") }
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
            async move { hot.read(&[probe()]).await.map(drop).map_err(|error| error.to_string()) }
        }));
    }
    if let LogUrl::Kafka { .. } = config.log.url {
        let log = backends.log.clone();
        // Packs of the old layout are durable as before, so nobody is turned away; somebody has to act all the same (law 2).
        checks.push(Check::new("layout", "the log's partitions", false, move || {
            let (had, has) = (log.topology().partitions, log.partitions());
            std::future::ready(if has == had {
                Ok(())
            } else {
                Err(format!(
                    "the topic has {has} partitions now, and had {had} when this process started, which goes on in the old \
                     layout; begin the epoch of the new one before anything is restarted: without it lanes halt"
                ))
            })
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

pub(super) fn log_failure(error: log::Error) -> Failure {
    failure("log.url", error.kind(), &error)
}

pub(super) fn store_failure(error: store::Error) -> Failure {
    failure("store.url", error.kind(), &error)
}

fn failure(setting: &str, kind: Kind, error: &dyn std::error::Error) -> Failure {
    let cause = error.source().map(|source| format!(" ({source})")).unwrap_or_default();
    let message = format!("{setting}: {error}{cause}");
    if kind == Kind::Transient { Failure::unreachable(message) } else { Failure::failed(message) }
}

/// What the rest of the configuration asks of a log on Kafka.
pub(super) fn needs(config: &Config) -> log::kafka::Needs {
    log::kafka::Needs {
        session_timeout: config.worker.session_timeout.0,
        dedup_window: config.dedup.window.0,
        pack_bytes: config.ingest.pack_bytes.as_usize(),
        read_ahead: config.worker.read_bytes.as_usize(),
        appends: config.role != Role::Worker,
    }
}
