//! The configuration file: TOML, read into flat keys with the line each stands on.

use std::path::Path;

use toml::{
    Value,
    de::{DeTable, DeValue},
};

use super::{Problem, keys};

/// One value of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its key, with dots.
    pub key: String,
    /// The value as written.
    pub value: Value,
    /// Its line, from 1.
    pub line: usize,
}

/// Reads a file's text. `path` only names it in the problem.
pub fn parse(path: &Path, text: &str) -> Result<Vec<Found>, Problem> {
    let line_at = |offset: usize| 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
    let root = DeTable::parse(text).map_err(|error| {
        let place = match error.span() {
            Some(span) => format!("{}:{}", path.display(), line_at(span.start)),
            None => path.display().to_string(),
        };
        Problem::new(None, format!("{place}: not TOML: {}", error.message().trim_end().replace('\n', ", ")))
    })?;
    let mut found = Vec::new();
    flatten("", root.get_ref(), &line_at, &mut found);
    // Tables come sorted by name; people read from the top.
    found.sort_by_key(|found| found.line);
    Ok(found)
}

fn flatten(path: &str, table: &DeTable<'_>, line_at: &impl Fn(usize) -> usize, into: &mut Vec<Found>) {
    for (name, value) in table {
        let key = if path.is_empty() { name.get_ref().to_string() } else { format!("{path}.{}", name.get_ref()) };
        let line = line_at(name.span().start);
        match value.get_ref() {
            // A table is only a way to write its keys, except where a value belongs, or where nothing is known.
            DeValue::Table(inner) if !is_leaf(&key) && (!inner.is_empty() || is_section(&key)) => {
                flatten(&key, inner, line_at, into);
            }
            value => into.push(Found { key, value: plain(value), line }),
        }
    }
}

fn is_section(name: &str) -> bool {
    keys::keys().iter().any(|key| key.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

fn is_leaf(name: &str) -> bool {
    keys::keys().iter().any(|key| key.name == name)
}

fn plain(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        // What does not fit stays text, and is refused as such where a number is due.
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::String(number.to_string()), Value::Integer),
        DeValue::Float(number) => {
            number.as_str().parse().map_or_else(|_| Value::String(number.to_string()), Value::Float)
        }
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(value) => Value::Datetime(*value),
        DeValue::Array(items) => Value::Array(items.iter().map(|item| plain(item.get_ref())).collect()),
        DeValue::Table(table) => Value::Table(
            table.iter().map(|(name, value)| (name.get_ref().to_string(), plain(value.get_ref()))).collect(),
        ),
    }
}
