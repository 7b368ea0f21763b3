//! The known settings: every key, its type, its default and its names in each layer.
//!
//! Nothing is listed here: the keys come from serialising the defaults of every component's `Options`, so that a new
//! field is a new setting by itself. The URL of a backend is the key `log.url`, `store.url`, `hot.url`.

use std::{str::FromStr as _, sync::LazyLock};

use toml::{Table, Value};

use super::{
    notes::{self, Note},
    sections,
};
use crate::units::{Size, Span};
use crate::url::Address;

/// What begins the name of every environment variable of ours.
pub const PREFIX: &str = "TALLYMARK_";
/// The variable that names the configuration file.
pub const FILE_VARIABLE: &str = "TALLYMARK_CONFIG";
/// The sections that are a backend and so have a URL.
pub const BACKENDS: [&str; 3] = ["log", "store", "hot"];

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A backend's URL; may hold a password.
    Url,
    /// `host:port`.
    Address,
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Integer,
    /// A number.
    Float,
    /// `250ms`, `30s`, `7d`.
    Duration,
    /// `256KiB`.
    Size,
    /// Words; in variables and flags with commas between.
    List,
}

impl Kind {
    /// As the reference calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Url => "URL",
            Self::Address => "host:port",
            Self::Bool => "true or false",
            Self::Integer => "whole number",
            Self::Float => "number",
            Self::Duration => "duration",
            Self::Size => "size",
            Self::List => "list",
        }
    }
}

/// One setting.
#[derive(Clone, Debug)]
pub struct Key {
    /// `listen`, `log.url`, `worker.flush_age`.
    pub name: String,
    /// How its value is written.
    pub kind: Kind,
    /// Its value when nothing sets it.
    pub default: Value,
    /// What is said about it.
    pub note: &'static Note,
}

impl Key {
    fn new(name: String, default: Value) -> Self {
        let kind = match &default {
            Value::Boolean(_) => Kind::Bool,
            Value::Integer(_) => Kind::Integer,
            Value::Float(_) => Kind::Float,
            Value::Array(_) => Kind::List,
            Value::String(_) if name.ends_with(".url") => Kind::Url,
            Value::String(text) if Address::from_str(text).is_ok() => Kind::Address,
            Value::String(text) if Span::from_str(text).is_ok() => Kind::Duration,
            Value::String(text) if Size::from_str(text).is_ok() => Kind::Size,
            _ => Kind::Text,
        };
        let note = notes::of(&name);
        Self { name, kind, default, note }
    }

    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        let short = self.name.strip_suffix(".url").unwrap_or(&self.name);
        format!("{PREFIX}{}", short.replace('.', "__").to_ascii_uppercase())
    }

    /// The flag that sets it, where it has one of its own.
    pub fn flag(&self) -> Option<String> {
        let short = self.name.strip_suffix(".url").unwrap_or(&self.name);
        (!short.contains('.')).then(|| format!("--{}", short.replace('_', "-")))
    }
}

/// Every setting, in the order of the reference: the top-level ones, then section by section.
pub fn keys() -> &'static [Key] {
    static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
        let mut keys = Vec::new();
        for (section, defaults) in sections::defaults() {
            let mut found = Vec::new();
            flatten(section, defaults, &mut found);
            // The notes' order, which follows the data path; what has no note comes last.
            found.sort_by_key(|key: &Key| {
                notes::NOTES.iter().position(|note| note.key == key.name).unwrap_or(usize::MAX)
            });
            keys.extend(found);
        }
        keys
    });
    &KEYS
}

fn flatten(path: &str, table: Table, into: &mut Vec<Key>) {
    for (name, value) in table {
        let name = if path.is_empty() { name } else { format!("{path}.{name}") };
        match value {
            Value::Table(table) => flatten(&name, table, into),
            value => into.push(Key::new(name, value)),
        }
    }
}

/// The setting of this name. `log`, `store` and `hot` by themselves are their URLs.
pub fn find(name: &str) -> Option<&'static Key> {
    keys().iter().find(|key| key.name == name || (key.kind == Kind::Url && key.name.strip_suffix(".url") == Some(name)))
}

/// The setting that this environment variable sets.
pub fn find_variable(variable: &str) -> Option<&'static Key> {
    keys().iter().find(|key| {
        key.variable() == variable || (key.kind == Kind::Url && format!("{}__URL", key.variable()) == variable)
    })
}

/// The known setting whose name is nearest to one that is not known.
pub fn nearest(unknown: &str) -> &'static Key {
    let unknown = unknown.to_ascii_lowercase();
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let distance = |name: &str| {
        // A right name in the wrong section is two slips away.
        strsim::damerau_levenshtein(&unknown, name).min(2 + strsim::damerau_levenshtein(&last(&unknown), &last(name)))
    };
    keys()
        .iter()
        .min_by_key(|key| match key.name.strip_suffix(".url") {
            Some(short) => distance(short).min(distance(&key.name)),
            None => distance(&key.name),
        })
        .expect("there are settings")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_setting_has_a_note_and_every_note_a_setting() {
        let known: BTreeSet<_> = keys().iter().map(|key| key.name.as_str()).collect();
        let noted: BTreeSet<_> = notes::NOTES.iter().map(|note| note.key).collect();
        assert_eq!(known, noted, "add the missing lines to src/config/notes.rs, or remove those that are too many");
        assert_eq!(known.len(), keys().len());
    }

    #[test]
    fn names_of_variables_and_flags_are_unique_and_found() {
        let mut variables = BTreeSet::new();
        for key in keys() {
            assert!(variables.insert(key.variable()), "{}", key.name);
            assert_eq!(find_variable(&key.variable()).unwrap().name, key.name);
            assert_eq!(find(&key.name).unwrap().name, key.name);
        }
        let name = |variable: &str| find_variable(variable).map(|key| key.name.as_str());
        assert_eq!(name("TALLYMARK_LOG"), Some("log.url"));
        assert_eq!(name("TALLYMARK_LOG__URL"), Some("log.url"));
        assert_eq!(name("TALLYMARK_LOG__PARTITIONS"), Some("log.partitions"));
        assert_eq!(name("TALLYMARK_LOG_LEVEL"), Some("log_level"));
        assert_eq!(find("log").unwrap().flag().as_deref(), Some("--log"));
        assert_eq!(find("admin_listen").unwrap().flag().as_deref(), Some("--admin-listen"));
        assert_eq!(find("log.partitions").unwrap().flag(), None);
    }

    #[test]
    fn the_nearest_name_is_the_one_that_was_meant() {
        for (typed, meant) in [
            ("worker.flushage", "worker.flush_age"),
            ("worker.checkpoint-delay", "worker.checkpoint_delay"),
            ("flush_age", "worker.flush_age"),
            ("ingest.flush_age", "worker.flush_age"),
            ("stroe", "store.url"),
            ("stroe.shards", "store.shards"),
            ("worker_flush_age", "worker.flush_age"),
            ("log.partition", "log.partitions"),
            ("listn", "listen"),
            ("LOG.URL", "log.url"),
        ] {
            assert_eq!(nearest(typed).name, meant, "{typed}");
        }
    }

    #[test]
    fn kinds_follow_from_the_defaults() {
        for (name, kind) in [
            ("log.url", Kind::Url),
            ("listen", Kind::Address),
            ("worker.flush_age", Kind::Duration),
            ("ingest.max_age", Kind::Duration),
            ("ingest.max_body", Kind::Size),
            ("store.shards", Kind::Integer),
            ("ingest.grains", Kind::List),
            ("log_level", Kind::Text),
        ] {
            assert_eq!(find(name).unwrap().kind, kind, "{name}");
        }
    }
}
