//! The configuration for people and programs: `config show`, and the generated part of `docs/configuration.md`.

use std::fmt::Write as _;

use serde_json::json;
use toml::Value;

use super::{
    Resolved,
    keys::{BACKENDS, Key, Kind, keys},
    layers::Source,
    notes::Bound,
    values::shown,
};
use crate::url::redact;

/// The default of a setting whose default depends on the backend, for the backend in force.
fn in_force(settings: &Resolved, key: &Key, value: &Value) -> Option<(Value, &'static str)> {
    (key.name == "log.partitions" && value.as_integer() == Some(0)).then(|| {
        if settings.text("log.url").starts_with("embedded:") {
            (Value::Integer(4), "default of an embedded log")
        } else {
            (Value::Integer(8), "default")
        }
    })
}

fn effective(settings: &Resolved, key: &Key) -> (Value, String) {
    let setting = settings.get(&key.name);
    match in_force(settings, key, &setting.value) {
        Some((value, note)) if setting.source == Source::Default => (value, note.to_owned()),
        _ => (setting.value.clone(), setting.source.to_string()),
    }
}

/// Lines of TOML, `key = value  # source`; passwords are left out.
pub fn show_text(settings: &Resolved) -> String {
    let lines: Vec<(String, String)> = settings
        .iter()
        .map(|(key, _)| {
            let (value, source) = effective(settings, key);
            (format!("{} = {}", key.name, shown(&value)), source)
        })
        .collect();
    let width = lines.iter().map(|(line, _)| line.chars().count()).filter(|width| *width <= 56).max().unwrap_or(0);
    lines.iter().fold(String::new(), |mut text, (line, source)| {
        let _ = writeln!(text, "{line:<width$}  # {source}");
        text
    })
}

/// One JSON object: `{"log.url": {"value": …, "source": …}, …}`; passwords are left out.
pub fn show_json(settings: &Resolved) -> String {
    let all: serde_json::Map<String, serde_json::Value> = settings
        .iter()
        .map(|(key, _)| {
            let (value, source) = effective(settings, key);
            let value = match value {
                Value::String(text) => json!(redact(&text)),
                value => json!(value),
            };
            (key.name.clone(), json!({"value": value, "source": source}))
        })
        .collect();
    let mut text = serde_json::to_string_pretty(&all).expect("plain JSON");
    text.push('\n');
    text
}

fn form(key: &Key) -> String {
    match key.note.bound {
        Bound::Between(least, most) => format!("{}, {least} to {most}", key.kind.name()),
        Bound::Sized(least, most) => {
            format!("{}, {} to {}", key.kind.name(), crate::units::Size(least), crate::units::Size(most))
        }
        Bound::Positive => format!("{}, not 0", key.kind.name()),
        Bound::OneOf(words) if key.kind == Kind::List => format!("list of {}", words.join(", ")),
        Bound::OneOf(words) => words.join(", "),
        Bound::Free => key.kind.name().to_owned(),
    }
}

fn default_of(key: &Key) -> String {
    match (&key.default, key.name.as_str()) {
        (_, "log.partitions") => "8 (embedded: 4)".to_owned(),
        (Value::Array(items), _) => {
            let words: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            format!("`{}`", words.join(","))
        }
        (Value::String(text), "hot.url") => format!("`{text}` (roles `ingest`, `worker`: `none:`)"),
        (Value::String(text), _) => format!("`{text}`"),
        (value, _) => format!("`{value}`"),
    }
}

/// The tables of `docs/configuration.md`: every setting, section by section.
pub fn reference() -> String {
    let mut text = String::new();
    let mut section = None;
    for key in keys() {
        let here = key.name.split_once('.').map_or("", |(section, _)| section);
        if section != Some(here) {
            let title = if here.is_empty() { "Top level".to_owned() } else { format!("`[{here}]`") };
            let lead = if section.is_some() { "\n" } else { "" };
            let _ = write!(
                text,
                "{lead}### {title}\n\n| key | value | default | environment | what it does |\n| --- | --- | --- | --- | --- |\n"
            );
            section = Some(here);
        }
        let flag = match key.flag() {
            Some(flag) => format!("<br>`{flag}`"),
            None => String::new(),
        };
        let cells = [form(key), default_of(key), format!("`{}`{flag}", key.variable()), key.note.help.to_owned()];
        let _ = write!(text, "| `{}` |", key.name);
        for cell in cells {
            let _ = write!(text, " {} |", cell.replace('|', "\\|"));
        }
        text.push('\n');
    }
    debug_assert!(BACKENDS.iter().all(|backend| text.contains(&format!("`{backend}.url`"))));
    text
}
