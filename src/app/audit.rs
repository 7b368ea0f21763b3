//! Where an audit is made: in the running instance of embedded backends, in their folder when none runs, or here, over the
//! servers that all processes share.

use std::path::PathBuf;

use super::backends::{self, Folders};
use crate::{
    audit::{self, Deps, Options, Progress, Report},
    client,
    config::Config,
    exit::Failure,
    retry::{Classified as _, Kind},
    url::HotUrl,
};

/// Where it is made.
pub struct Place {
    at: At,
    note: Option<String>,
}

enum At {
    /// An instance, by its admin port.
    Instance(client::audit::Client),
    /// This process.
    Here { deps: Deps, _folders: Folders },
}

/// Finds the place. An address that was named is asked and nothing else.
///
/// # Errors
/// No instance runs at the named address, or a backend cannot be opened.
pub async fn open(config: &Config, admin_url: Option<&str>) -> Result<Place, Failure> {
    let embedded = backends::embedded_dirs(config);
    if admin_url.is_none() && embedded.is_empty() {
        return here(config, None).await;
    }
    let url = admin_url.map_or_else(|| config.admin_listen.client_url(), ToOwned::to_owned);
    let client = client::audit::Client::new(&url).map_err(Failure::from)?;
    let absent = match client.is_there().await {
        Ok(()) => return Ok(Place { at: At::Instance(client), note: None }),
        Err(absent @ client::Error::NotRunning { .. }) if admin_url.is_none() => absent,
        Err(error) => return Err(error.into()),
    };
    let shown = embedded[0].display().to_string();
    if !backends::are_there(config) {
        return Err(absent.into());
    }
    let note = format!("no running instance at {url}: the audit is made in the data folder `{shown}`");
    here(config, Some(note)).await
}

async fn here(config: &Config, note: Option<String>) -> Result<Place, Failure> {
    let folders = Folders::lock(config).map_err(|error| in_use(config, error))?;
    let log = backends::open_log(config, &folders).await?;
    let store = backends::open_store(config, &folders).await?;
    let hot: crate::hot::Shared = match config.hot.url {
        // It lives and ends with the instance that has it.
        HotUrl::Memory => std::sync::Arc::new(crate::hot::none::Disabled),
        _ => backends::open_hot(config)?,
    };
    Ok(Place { at: At::Here { deps: Deps { log, store, hot }, _folders: folders }, note })
}

fn in_use(config: &Config, error: crate::data_dir::Error) -> Failure {
    match error {
        crate::data_dir::Error::InUse { path, pid } => {
            let (path, pid): (PathBuf, _) = (path, pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default());
            Failure::unreachable(format!(
                "no running instance at {}, but another process{pid} has the data folder `{}`; name its address with \
                 `--admin-url`",
                config.admin_listen.client_url(),
                path.display()
            ))
        }
        other => Failure::failed(other.to_string()),
    }
}

impl Place {
    /// What people should know of it.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Makes an audit.
    ///
    /// # Errors
    /// It could not be made.
    pub async fn audit(&self, options: &Options, progress: impl FnMut(Progress) + Send) -> Result<Report, Failure> {
        match &self.at {
            At::Instance(client) => Ok(client.audit(options, progress).await?),
            At::Here { deps, .. } => audit::run(deps, options, progress).await.map_err(|error| {
                let message = error.to_string();
                match error.kind() {
                    Kind::Transient => Failure::unreachable(message),
                    _ => Failure::failed(message),
                }
            }),
        }
    }

    /// Closes what was opened.
    pub async fn close(self) {
        if let At::Here { deps, _folders } = self.at {
            // Log and store end before the folder's lock does; a backend's own tasks need a turn for it.
            drop(deps);
            tokio::task::yield_now().await;
        }
    }
}
