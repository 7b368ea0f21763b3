//! The sections of the configuration and the `Options` behind each; the one list that a new component is added to.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use toml::{Table, Value};

use super::{Problem, keys::BACKENDS, layers::Resolved};

/// The settings that stand outside of every section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct General {
    /// Where ingest and queries are served.
    pub listen: String,
    /// Where the admin port is served.
    pub admin_listen: String,
    /// How log lines are written.
    pub log_format: String,
    /// Which log lines are written.
    pub log_level: String,
    /// The namespace of the clients.
    pub namespace: String,
}

impl Default for General {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            admin_listen: "127.0.0.1:8081".to_owned(),
            log_format: "auto".to_owned(),
            log_level: "info".to_owned(),
            namespace: "default".to_owned(),
        }
    }
}

/// Every backend's URL unless something sets it.
fn default_url(section: &str) -> &'static str {
    match section {
        "hot" => "memory:",
        _ => "embedded:./tallymark-data",
    }
}

macro_rules! sections {
    ($($name:ident: $options:ty,)*) => {
        /// Every component's settings, as they were read.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Sections {
            /// What stands outside of every section.
            pub general: General,
            $(#[doc = concat!("Settings under `", stringify!($name), ".`")] pub $name: $options,)*
        }

        /// Every section and its defaults; the first one has no name.
        pub fn defaults() -> Vec<(&'static str, Table)> {
            let mut all = vec![("", table(&General::default())), $((stringify!($name), table(&<$options>::default())),)*];
            for (section, table) in &mut all {
                if BACKENDS.contains(section) {
                    table.insert("url".to_owned(), Value::String(default_url(section).to_owned()));
                }
            }
            all
        }

        impl Sections {
            /// Reads every section; a value that its type refuses becomes a problem, and its default stands in.
            pub fn read(resolved: &Resolved, problems: &mut Vec<Problem>) -> Self {
                Self {
                    general: read(resolved, "", problems),
                    $($name: read(resolved, stringify!($name), problems),)*
                }
            }
        }
    };
}

sections! {
    log: crate::log::Options,
    store: crate::store::Options,
    hot: crate::hot::Options,
    ingest: crate::ingest::Options,
    worker: crate::worker::Options,
    dedup: crate::worker::DedupOptions,
    query: crate::query::Options,
    lag: crate::lag::Options,
    retry: crate::retry::Options,
    shutdown: crate::shutdown::Options,
    http: crate::server::Options,
    admin: crate::admin::Options,
}

fn table<T: Serialize>(options: &T) -> Table {
    Table::try_from(options).expect("options are plain data")
}

fn read<T: DeserializeOwned + Default>(resolved: &Resolved, section: &str, problems: &mut Vec<Problem>) -> T {
    let mut table = resolved.section(section);
    // Each round takes out the one value that its type refused.
    loop {
        let failed = match serde_path_to_error::deserialize(Value::Table(table.clone())) {
            Ok(options) => return options,
            Err(failed) => failed,
        };
        let path = failed.path().to_string();
        let name = if section.is_empty() { path.clone() } else { format!("{section}.{path}") };
        problems.push(resolved.problem(&name, failed.inner().message()));
        if !remove(&mut table, &path) {
            return T::default();
        }
    }
}

fn remove(table: &mut Table, path: &str) -> bool {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    // A list's path ends in an index: `grains[1]`.
    let first = first.split('[').next().unwrap_or_default();
    match (rest, table.get_mut(first)) {
        (Some(rest), Some(Value::Table(inner))) => remove(inner, rest),
        _ => table.remove(first).is_some(),
    }
}
