//! The configuration: defaults < `--config FILE` (TOML) < environment < flags, every value with its source.
//!
//! Each component keeps its `Options` beside itself; this room finds the known settings in their defaults, lays the
//! layers over them ([`Layers`]), checks every value before anything is started, and hands out one typed [`Config`].
//! An unknown name is an error that names the nearest known one. Passwords are never shown.
//!
//! A backend's URL is the setting `log.url`, `store.url` or `hot.url`; as a flag and as a variable it is `--log` and
//! `TALLYMARK_LOG`, and in a file `log = "…"` is short for `[log] url = "…"`.
//!
//! Whether a valid configuration can run here (roles and the backends that they can share) is asked apart, by
//! [`Config::check_runnable`]: the clients read the same configuration and do not care.

use std::{fmt, str::FromStr};

use crate::{
    admin,
    exit::Failure,
    hot, ingest,
    item::Namespace,
    lag, log, query, retry, server, shutdown, store, telemetry,
    url::{Address, HotUrl, LogUrl, StoreUrl},
    worker,
};

mod check;
mod file;
mod keys;
mod layers;
mod notes;
mod sections;
mod show;
mod values;
pub mod verdict;

pub use keys::{FILE_VARIABLE, Key, Kind, keys};
pub use layers::{Layers, Resolved, Setting, Source};
pub use sections::General;
pub use show::{reference, show_json, show_text};

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Role {
    /// Ingest, queries and the lanes.
    #[default]
    All,
    /// Ingest and queries.
    Ingest,
    /// The lanes.
    Worker,
}

impl Role {
    /// Every role's name.
    pub const NAMES: [&str; 3] = ["all", "ingest", "worker"];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Ingest => "ingest",
            Self::Worker => "worker",
        }
    }

    /// Whether it serves ingest and queries.
    pub const fn ingests(self) -> bool {
        matches!(self, Self::All | Self::Ingest)
    }

    /// Whether it runs lanes.
    pub const fn works(self) -> bool {
        matches!(self, Self::All | Self::Worker)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Self::All),
            "ingest" => Ok(Self::Ingest),
            "worker" => Ok(Self::Worker),
            other => Err(format!("`{other}` is not a role; the roles are {}", Self::NAMES.join(", "))),
        }
    }
}

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The setting, where it is a known one's value that is wrong.
    pub key: Option<String>,
    /// What, where it came from, and what is expected; one line.
    pub message: String,
}

impl Problem {
    fn new(key: Option<&str>, message: impl Into<String>) -> Self {
        Self { key: key.map(str::to_owned), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Everything that is wrong with the configuration; at least one problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// In the order in which they were found: file, environment, flags, then what does not fit together.
    pub problems: Vec<Problem>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut problems = self.problems.iter();
        if let Some(first) = problems.next() {
            write!(f, "{first}")?;
        }
        match problems.len() {
            0 => Ok(()),
            more => write!(f, "\n({more} more; `tallymark validate` names every one)"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::usage(error.to_string())
    }
}

/// A backend: where it is, and its settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend<U, O> {
    /// Where it is.
    pub url: U,
    /// Its settings.
    pub options: O,
}

/// The configuration in force, read and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The role that it was read for.
    pub role: Role,
    /// The log.
    pub log: Backend<LogUrl, log::Options>,
    /// The store.
    pub store: Backend<StoreUrl, store::Options>,
    /// The hot view.
    pub hot: Backend<HotUrl, hot::Options>,
    /// Where ingest and queries are served.
    pub listen: Address,
    /// Where the admin port is served.
    pub admin_listen: Address,
    /// How log lines are written.
    pub log_format: telemetry::Format,
    /// Which log lines are written.
    pub log_level: telemetry::Filter,
    /// The namespace that clients name.
    pub namespace: Namespace,
    /// Settings under `ingest.`
    pub ingest: ingest::Options,
    /// Settings under `worker.`
    pub worker: worker::Options,
    /// Settings under `dedup.`
    pub dedup: worker::DedupOptions,
    /// Settings under `query.`
    pub query: query::Options,
    /// Settings under `lag.`
    pub lag: lag::Options,
    /// Settings under `retry.`
    pub retry: retry::Options,
    /// Settings under `shutdown.`
    pub shutdown: shutdown::Options,
    /// Settings under `http.`
    pub http: server::Options,
    /// Settings under `admin.`
    pub admin: admin::Options,
    settings: Resolved,
}

impl Config {
    /// Reads the layers for a role and checks every value; the error has every problem.
    pub fn load(layers: Layers, role: Role) -> Result<Self, Error> {
        let (settings, problems) = layers.resolve(role);
        Self::read(settings, problems, role)
    }

    /// Reads what was resolved; `problems` are those that resolving met.
    pub fn read(settings: Resolved, mut problems: Vec<Problem>, role: Role) -> Result<Self, Error> {
        let met = &mut problems;
        let sections = sections::Sections::read(&settings, met);
        let log_url = parsed(&settings, "log.url", met);
        let store_url = parsed(&settings, "store.url", met);
        let hot_url = parsed(&settings, "hot.url", met);
        let listen = parsed(&settings, "listen", met);
        let admin_listen = parsed(&settings, "admin_listen", met);
        let log_format = parsed(&settings, "log_format", met);
        let log_level = parsed(&settings, "log_level", met);
        let namespace = Namespace::parse(settings.text("namespace"))
            .map_err(|invalid| met.push(settings.problem("namespace", &invalid.message)))
            .ok();
        check::together(&settings, &sections, listen.as_ref().zip(admin_listen.as_ref()), met);
        let config = (|| {
            Some(Self {
                role,
                log: Backend { url: log_url?, options: sections.log },
                store: Backend { url: store_url?, options: sections.store },
                hot: Backend { url: hot_url?, options: sections.hot },
                listen: listen?,
                admin_listen: admin_listen?,
                log_format: log_format?,
                log_level: log_level?,
                namespace: namespace?,
                ingest: sections.ingest,
                worker: sections.worker,
                dedup: sections.dedup,
                query: sections.query,
                lag: sections.lag,
                retry: sections.retry,
                shutdown: sections.shutdown,
                http: sections.http,
                admin: sections.admin,
                settings,
            })
        })();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(Error { problems }),
        }
    }

    /// Whether the configuration's role can run on its backends; the error has every reason why not.
    pub fn check_runnable(&self) -> Result<(), Error> {
        let problems = check::runnable(self);
        if problems.is_empty() { Ok(()) } else { Err(Error { problems }) }
    }

    /// The namespace, when something sets it: otherwise clients leave it to the server.
    pub fn namespace_if_set(&self) -> Option<&Namespace> {
        (self.settings.get("namespace").source != Source::Default).then_some(&self.namespace)
    }

    /// Every setting's value and where it came from.
    pub fn settings(&self) -> &Resolved {
        &self.settings
    }
}

fn parsed<T: FromStr<Err = String>>(settings: &Resolved, name: &str, problems: &mut Vec<Problem>) -> Option<T> {
    settings.text(name).parse().map_err(|why: String| problems.push(settings.problem(name, &why))).ok()
}
