//! The layers and their order: defaults < file < environment < flags, with where each value came from.
//!
//! Resolving collects every problem instead of stopping at the first, so that `validate` can name them all. A value
//! that does not fit its setting is left out, and what was below it stands. Text from variables and flags takes the type
//! of the setting's default.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt, io,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use super::{
    Problem, Role, file,
    keys::{self, FILE_VARIABLE, Key, Kind, PREFIX},
    values::{Raw, coerce, shown},
};
use crate::url::redact;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nothing set it.
    Default,
    /// Nothing set it, and this role has a default of its own.
    RoleDefault(Role),
    /// A line of the configuration file.
    File(PathBuf, usize),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::RoleDefault(role) => write!(f, "default of the role {role}"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A value in force, and where it came from.
#[derive(Clone, PartialEq)]
pub struct Setting {
    /// The value, in the type of the default.
    pub value: Value,
    /// Where it came from.
    pub source: Source,
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", shown(&self.value), self.source)
    }
}

struct Flag {
    name: String,
    key: &'static str,
    text: String,
}

/// What is laid over the defaults.
#[derive(Default)]
pub struct Layers {
    file: Option<PathBuf>,
    variables: Vec<(OsString, OsString)>,
    flags: Vec<Flag>,
    sets: Vec<String>,
}

impl Layers {
    /// Only the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The file of `--config`.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// The environment; only names that begin with `TALLYMARK_` are looked at.
    pub fn variables<K: Into<OsString>, V: Into<OsString>>(mut self, all: impl IntoIterator<Item = (K, V)>) -> Self {
        let ours = all.into_iter().map(|(name, value)| (name.into(), value.into()));
        self.variables = ours.filter(|(name, _)| name.to_string_lossy().starts_with(PREFIX)).collect();
        self.variables.sort();
        self
    }

    /// A flag with a setting of its own: `--listen` sets `listen`.
    pub fn flag(mut self, name: &str, key: &'static str, text: impl Into<String>) -> Self {
        self.flags.push(Flag { name: name.to_owned(), key, text: text.into() });
        self
    }

    /// `--set section.key=value`; a later one of the same key wins.
    pub fn set(mut self, assignment: impl Into<String>) -> Self {
        self.sets.push(assignment.into());
        self
    }

    /// Lays everything over the defaults of `role`.
    pub fn resolve(self, role: Role) -> (Resolved, Vec<Problem>) {
        let mut resolved = Resolved::defaults(role);
        let mut problems = Vec::new();
        let (named, variables) = self.read_variables(&mut problems);
        let by_flag = self.file.is_some();
        if let Some(path) = self.file.or(named) {
            resolved.lay_file(&path, if by_flag { "--config" } else { FILE_VARIABLE }, &mut problems);
        }
        for (key, variable, text) in variables {
            resolved.lay(key, Raw::Text(&text), Source::Variable(variable), &mut problems);
        }
        for flag in &self.flags {
            let key = keys::find(flag.key).expect("a flag's setting is known");
            resolved.lay(key, Raw::Text(&flag.text), Source::Flag(flag.name.clone()), &mut problems);
        }
        for assignment in &self.sets {
            resolved.lay_set(assignment, &self.flags, &mut problems);
        }
        (resolved, problems)
    }

    fn read_variables(&self, problems: &mut Vec<Problem>) -> (Option<PathBuf>, Vec<(&'static Key, String, String)>) {
        let mut named = None;
        let mut read: Vec<(&'static Key, String, String)> = Vec::new();
        for (name, value) in &self.variables {
            let name = name.to_string_lossy().into_owned();
            if name == FILE_VARIABLE {
                named = Some(PathBuf::from(value));
                continue;
            }
            if name.starts_with(TEST_PREFIX) {
                continue;
            }
            let Some(key) = keys::find_variable(&name) else {
                problems.push(unknown_variable(&name));
                continue;
            };
            let Some(text) = value.to_str() else {
                problems.push(Problem::new(Some(&key.name), format!("{} ({name}): the value is not UTF-8", key.name)));
                continue;
            };
            if let Some((_, other, _)) = read.iter().find(|(known, ..)| known.name == key.name) {
                let message = format!("{} is set by both {other} and {name}: unset one of them", key.name);
                problems.push(Problem::new(Some(&key.name), message));
                continue;
            }
            read.push((key, name, text.to_owned()));
        }
        (named, read)
    }
}

/// Variables that say where the tests' servers are (`tests/stack up` writes them). Whoever has exported them runs the program too.
const TEST_PREFIX: &str = "TALLYMARK_TEST_";

fn unknown_variable(name: &str) -> Problem {
    let rest = name.strip_prefix(PREFIX).unwrap_or(name);
    if rest.starts_with("SERVICE_") || rest.starts_with("PORT") {
        let message = format!(
            "unknown environment variable {name}: Kubernetes sets it for a Service named tallymark; \
             set enableServiceLinks: false in the pod, or name the Service otherwise"
        );
        return Problem::new(None, message);
    }
    let nearest = keys::nearest(&rest.to_ascii_lowercase().replace("__", ".")).variable();
    Problem::new(None, format!("unknown environment variable {name}; the nearest known one is {nearest}"))
}

fn unknown_key(key: &str, source: &str) -> Problem {
    let nearest = &keys::nearest(key).name;
    Problem::new(None, format!("unknown setting `{key}` ({source}); the nearest known one is `{nearest}`"))
}

/// Every setting's value and source.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    settings: BTreeMap<&'static str, Setting>,
}

impl Resolved {
    fn defaults(role: Role) -> Self {
        let mut settings: BTreeMap<_, _> = keys::keys()
            .iter()
            .map(|key| (key.name.as_str(), Setting { value: key.default.clone(), source: Source::Default }))
            .collect();
        if role != Role::All {
            // A view in this process's memory would be nobody else's.
            let none = Setting { value: Value::String("none:".to_owned()), source: Source::RoleDefault(role) };
            settings.insert("hot.url", none);
        }
        Self { settings }
    }

    /// One setting.
    pub fn get(&self, name: &str) -> &Setting {
        self.settings.get(name).expect("every known setting has a value")
    }

    /// Every setting, in the order of the reference.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Key, &Setting)> {
        keys::keys().iter().map(|key| (key, self.get(&key.name)))
    }

    /// A text setting's value.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).value.as_str().expect("it is a text setting")
    }

    /// The settings of one section as a component's `Options` read them: without the backend's URL.
    pub fn section(&self, section: &str) -> Table {
        let mut root = Table::new();
        for (key, setting) in self.iter().filter(|(key, _)| key.kind != Kind::Url) {
            let name = match (section, key.name.split_once('.')) {
                ("", None) => key.name.as_str(),
                (section, Some((first, rest))) if section == first => rest,
                _ => continue,
            };
            let mut table = &mut root;
            let mut parts = name.split('.').peekable();
            while let Some(part) = parts.next() {
                if parts.peek().is_none() {
                    table.insert(part.to_owned(), setting.value.clone());
                    break;
                }
                let inner = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
                table = inner.as_table_mut().expect("a setting is a value or a section");
            }
        }
        root
    }

    /// A problem with a setting's value in force, naming where it came from.
    pub fn problem(&self, name: &str, why: &str) -> Problem {
        match self.settings.get(name.split('[').next().unwrap_or_default()) {
            Some(setting) => {
                Problem::new(Some(name), format!("{name} = {} ({}): {why}", shown(&setting.value), setting.source))
            }
            None => Problem::new(Some(name), format!("{name}: {why}")),
        }
    }

    fn lay_file(&mut self, path: &Path, named_by: &str, problems: &mut Vec<Problem>) {
        let read = std::fs::read_to_string(path).map_err(|error| {
            let why = match error.kind() {
                io::ErrorKind::NotFound => "there is no such file".to_owned(),
                io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
                _ => error.to_string(),
            };
            Problem::new(None, format!("configuration file {} ({named_by}): {why}", path.display()))
        });
        match read.and_then(|text| file::parse(path, &text)) {
            Ok(found) => {
                for found in found {
                    let source = Source::File(path.to_owned(), found.line);
                    match keys::find(&found.key) {
                        Some(key) => self.lay(key, Raw::Value(found.value), source, problems),
                        None => problems.push(unknown_key(&found.key, &source.to_string())),
                    }
                }
            }
            Err(problem) => problems.push(problem),
        }
    }

    fn lay_set(&mut self, assignment: &str, flags: &[Flag], problems: &mut Vec<Problem>) {
        let Some((name, text)) = assignment.split_once('=') else {
            let message = format!("--set {}: write section.key=value", redact(assignment));
            problems.push(Problem::new(None, message));
            return;
        };
        let Some(key) = keys::find(name.trim()) else {
            problems.push(unknown_key(name.trim(), "--set"));
            return;
        };
        if let Some(flag) = flags.iter().find(|flag| flag.key == key.name) {
            let message = format!("{} is set by both {} and --set: leave one of them out", key.name, flag.name);
            problems.push(Problem::new(Some(&key.name), message));
            return;
        }
        self.lay(key, Raw::Text(text), Source::Flag(format!("--set {}", name.trim())), problems);
    }

    fn lay(&mut self, key: &'static Key, raw: Raw<'_>, source: Source, problems: &mut Vec<Problem>) {
        let text = match &raw {
            Raw::Text(text) => shown(&Value::String((*text).to_owned())),
            Raw::Value(value) => shown(value),
        };
        match coerce(key, raw) {
            Ok(value) => {
                self.settings.insert(key.name.as_str(), Setting { value, source });
            }
            Err(why) => {
                problems.push(Problem::new(Some(&key.name), format!("{} = {text} ({source}): {why}", key.name)));
            }
        }
    }
}
