//! Answers for `get`, `lag`, `lanes` and `dead-letters` from the data folder itself, when no instance runs that could be asked;
//! for `lanes` from log and store on servers, too.
//!
//! [`open`] takes the folder's lock, as an instance does, so it never reads beside one. What it opens is served on a
//! loopback port of its own for as long as the command asks, by the same rooms and in the same words as an instance:
//! queries without a hot view, the lag of lanes that nobody runs, and remedies. There is no ingest, no lane and no first
//! epoch, so nothing is written but what opening after a crash repairs, and a remedy that is asked for.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::Router;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    backends::{self, Folders},
    desk::desk,
};
use crate::{
    admin, config::Config, data_dir, dead_letter, exit::Failure, hot, ingest, lag, progress::Progress, query, server,
    worker::board::Board,
};

/// How long answers may take to be over.
const CLOSING: Duration = Duration::from_secs(5);

/// What is answered from, for people, when it is no folder.
const SERVERS: &str = "log and store themselves";

/// A data folder, or servers, that this process has opened to answer from.
pub struct Folder {
    url: String,
    place: String,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    /// Dropped last: the locks end with it.
    _folders: Folders,
}

/// Why a folder that is there cannot be answered from.
pub enum Error {
    /// Another process has it: an instance runs, at another address.
    InUse {
        /// The folder.
        path: PathBuf,
        /// The other process, as it said itself.
        pid: Option<u32>,
    },
    /// It cannot be opened.
    Failed(Failure),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Opens the data folder that the configuration names; `None` when log or store is not embedded, or not there yet.
///
/// # Errors
/// The folder is another process's, or damaged.
pub async fn open(config: &Config) -> Result<Option<Folder>, Error> {
    let Some((log_dir, store_dir)) = backends::embedded(config) else { return Ok(None) };
    // A folder that only happens to be there stays as it is.
    if !data_dir::log_in(log_dir).is_dir() || !data_dir::store_in(store_dir).is_dir() {
        return Ok(None);
    }
    answer(config, format!("the data folder `{}`", log_dir.display()), true).await.map(Some)
}

/// Opens log and store wherever they are; `None` for a data folder that is not there yet.
///
/// # Errors
/// The folder is another process's, or damaged; a server does not answer.
pub async fn open_anywhere(config: &Config) -> Result<Option<Folder>, Error> {
    match backends::embedded(config) {
        Some(_) => open(config).await,
        None => answer(config, SERVERS.to_owned(), false).await.map(Some),
    }
}

async fn answer(config: &Config, place: String, alone: bool) -> Result<Folder, Error> {
    let folders = Folders::lock(config).map_err(|error| match error {
        data_dir::Error::InUse { path, pid } => Error::InUse { path, pid },
        other => Error::Failed(Failure::failed(other.to_string())),
    })?;
    let log = backends::open_log(config, &folders).await?;
    let store = backends::open_store(config, &folders).await?;

    let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
    let deps = lag::Deps { log: log.clone(), store: store.clone(), board: Board::default() };
    let (service, lag) = lag::Service::new(config.lag.clone(), deps);
    let service = if alone { service.alone() } else { service };
    tasks.spawn(service.run(stop.clone()));
    // Answers say how far the store trails: that must have been measured before the first of them.
    let _ = tokio::time::timeout(config.lag.timeout.0, lag.subscribe().changed()).await;

    let letters = dead_letter::Handle::new(log.clone(), store.clone());
    let desk = desk(config, &log, &store, Board::default(), lag.clone(), alone);
    let measured = lag.clone();
    let deps = query::Deps {
        progress: Arc::new(Progress::new(store.clone(), &log.topology().topic)),
        store,
        hot: Arc::new(hot::none::Disabled),
        log,
        lag_ms: Arc::new(move || measured.lag_ms()),
    };
    let router = query::routes(query::Handle::new(&config.query, &config.hot.options, deps))
        .merge(admin::lag_route(lag))
        .merge(admin::dead_letters::routes(letters))
        .merge(admin::lanes::routes(desk))
        .fallback(ingest::not_found);
    let url = serve(config, router, &stop, &mut tasks).await?;
    Ok(Folder { url, place, stop, tasks, _folders: folders })
}

/// Opens log and store to answer for the dead letters alone: on servers there may be no instance at the configured
/// address, and none is needed.
///
/// # Errors
/// Log or store cannot be reached or used.
pub async fn dead_letters(config: &Config) -> Result<Folder, Failure> {
    let folders = Folders::lock(config).map_err(|error| Failure::failed(error.to_string()))?;
    let log = backends::open_log(config, &folders).await?;
    let store = backends::open_store(config, &folders).await?;
    let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
    let router = admin::dead_letters::routes(dead_letter::Handle::new(log, store)).fallback(ingest::not_found);
    let url = serve(config, router, &stop, &mut tasks).await?;
    Ok(Folder { url, place: SERVERS.to_owned(), stop, tasks, _folders: folders })
}

/// Serves on a loopback port of the moment; answers where.
async fn serve(
    config: &Config,
    router: Router,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Result<String, Failure> {
    let cannot = |error: std::io::Error| Failure::failed(format!("cannot answer on a loopback port: {error}"));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(cannot)?;
    let url = format!("http://{}", listener.local_addr().map_err(cannot)?);
    let (options, stopped) = (config.http.clone(), stop.clone());
    tasks.spawn(async move { server::serve(listener, router, &options, stopped).await });
    Ok(url)
}

impl Folder {
    /// Where it is answered, queries and lag alike.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What is answered from, for people.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Ends the answering, and closes log and store.
    pub async fn close(mut self) {
        self.stop.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        // What has not ended by then is dropped with the folder: it only reads.
        let _ = tokio::time::timeout(CLOSING, ended).await;
    }
}
