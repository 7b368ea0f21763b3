//! `tallymark get`: one counter, asked of a running instance.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use serde::Deserialize;
use serde_json::Value;

use super::{
    Console, Error,
    http::{Http, refusal, unanswered},
    one_line,
    table::{Align, render},
};
use crate::item::check_counter;

/// An answer may take as long as the instance's own limit, and a little longer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How to write the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Output {
    /// Columns, for people.
    #[default]
    Table,
    /// As the instance answered.
    Json,
    /// Comma-separated, with a heading: one row per group.
    Csv,
}

/// What to ask.
#[derive(Clone, Debug)]
pub struct Options {
    /// The instance's address.
    pub url: String,
    /// The tenant; none: the instance's default.
    pub namespace: Option<String>,
    /// The counter's name.
    pub counter: String,
    /// Only series with these tags.
    pub tags: Vec<(String, String)>,
    /// Group by this tag, or by several with commas between.
    pub by: Option<String>,
    /// How many groups.
    pub top: Option<u32>,
    /// `stored` or `hot`.
    pub consistency: Option<String>,
    /// Not before what this receipt names counts.
    pub at_least: Option<String>,
    /// How long to wait for that.
    pub timeout: Option<Duration>,
    /// How to write the answer.
    pub output: Output,
}

impl Options {
    /// The plain total of a counter.
    pub fn new(url: impl Into<String>, counter: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            namespace: None,
            counter: counter.into(),
            tags: Vec::new(),
            by: None,
            top: None,
            consistency: None,
            at_least: None,
            timeout: None,
            output: Output::default(),
        }
    }

    fn query(&self) -> Vec<(String, String)> {
        let tags = self.tags.iter().map(|(key, value)| (format!("tag.{key}"), value.clone()));
        let named = |name: &str, value: &Option<String>| value.clone().map(|value| (name.to_owned(), value));
        let timeout = self.timeout.map(|timeout| ("timeout".to_owned(), format!("{}ms", timeout.as_millis())));
        tags.chain(named("by", &self.by))
            .chain(named("top", &self.top.map(|top| top.to_string())))
            .chain(named("consistency", &self.consistency))
            .chain(named("at_least", &self.at_least))
            .chain(timeout)
            .collect()
    }
}

#[derive(Deserialize)]
struct Counter {
    counter: String,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    total: i64,
    #[serde(default)]
    groups: Option<Vec<Group>>,
    #[serde(default)]
    other: i64,
    #[serde(default)]
    source: String,
    #[serde(default)]
    as_of: Value,
    #[serde(default)]
    lag_ms: Option<i64>,
    #[serde(default)]
    stale: bool,
}

#[derive(Deserialize)]
struct Group {
    tags: BTreeMap<String, Value>,
    total: i64,
}

/// Asks, and writes the answer to `console.out`.
///
/// # Errors
/// When nobody answers, or the answer is a refusal: a counter that was never seen is one.
pub async fn run(options: &Options, console: &mut Console<'_>) -> Result<(), Error> {
    check_counter(&options.counter).map_err(|invalid| Error::Usage(invalid.message))?;
    let http = Http::new(&options.url, options.namespace.as_deref())?;
    let limit = TIMEOUT + options.timeout.unwrap_or_default();
    let answer = http.get(&["v1", "counters", &options.counter], &options.query(), limit).await;
    let answer = answer.map_err(|failure| unanswered(failure, &http, "--url"))?;
    if answer.status != 200 {
        return Err(refusal(&http, &answer));
    }
    let counter: Counter = serde_json::from_slice(&answer.body).map_err(|_| Error::Refused {
        url: http.url().to_owned(),
        status: answer.status,
        code: String::new(),
        detail: "this is not the answer of a Tallymark instance; check the address".to_owned(),
    })?;
    if counter.stale {
        console.note("the answer is stale: it may miss items that were accepted, or count some twice");
    }
    console.print(&match options.output {
        Output::Json => format!("{}\n", String::from_utf8_lossy(&answer.body).trim_end()),
        Output::Csv => csv(options, &counter),
        Output::Table => table(options, &counter),
    })
}

/// The tags that groups are named by: as asked.
fn columns(options: &Options) -> Vec<&str> {
    options.by.as_deref().unwrap_or_default().split(',').map(str::trim).collect()
}

fn cell(group: &Group, column: &str) -> String {
    match group.tags.get(column) {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    }
}

fn as_of(counter: &Counter) -> String {
    counter.as_of.as_str().map_or_else(|| counter.as_of.to_string(), str::to_owned)
}

fn table(options: &Options, counter: &Counter) -> String {
    let mut heading = one_line(&counter.counter);
    for (at, (key, value)) in counter.tags.iter().enumerate() {
        let mark = if at == 0 { "  " } else { "," };
        write!(heading, "{mark}{key}={}", one_line(value)).expect("a String takes everything");
    }
    let mut text = match &counter.groups {
        None => format!("{heading}  {}\n", counter.total),
        Some(groups) => {
            let columns = columns(options);
            let mut aligns = vec![Align::Left; columns.len()];
            aligns.push(Align::Right);
            let row = |cells: Vec<String>, total: String| cells.into_iter().chain([total]).collect::<Vec<_>>();
            let named = |name: &str| {
                let mut cells = vec![String::new(); columns.len()];
                cells[0] = name.to_owned();
                cells
            };
            let mut rows = vec![row(columns.iter().map(|&column| column.to_owned()).collect(), "total".to_owned())];
            for group in groups {
                let cells = columns.iter().map(|column| match one_line(&cell(group, column)) {
                    value if value.is_empty() => "(none)".to_owned(),
                    value => value,
                });
                rows.push(row(cells.collect(), group.total.to_string()));
            }
            rows.push(row(named("(other)"), counter.other.to_string()));
            rows.push(row(named("(all)"), counter.total.to_string()));
            format!("{heading}\n\n{}\n", render(&aligns, &rows))
        }
    };
    let lag = counter.lag_ms.map_or_else(|| "unknown".to_owned(), |lag| format!("{lag} ms"));
    let stale = if counter.stale { ", stale" } else { "" };
    writeln!(text, "from {}, as of {}, lag {lag}{stale}", one_line(&counter.source), one_line(&as_of(counter)))
        .expect("a String takes everything");
    text
}

fn csv(options: &Options, counter: &Counter) -> String {
    let line = |cells: Vec<String>| cells.iter().map(|cell| quoted(cell)).collect::<Vec<_>>().join(",") + "\r\n";
    match &counter.groups {
        Some(groups) => {
            let columns = columns(options);
            let heading = columns.iter().copied().chain(["total"]).map(str::to_owned).collect();
            let rows = groups.iter().map(|group| {
                line(columns.iter().map(|column| cell(group, column)).chain([group.total.to_string()]).collect())
            });
            line(heading) + &rows.collect::<String>()
        }
        None => {
            let tags = || counter.tags.iter();
            let last = ["total", "source", "as_of", "lag_ms", "stale"].map(str::to_owned);
            let heading = ["counter".to_owned()].into_iter().chain(tags().map(|(key, _)| key.clone())).chain(last);
            let lag = counter.lag_ms.map(|lag| lag.to_string()).unwrap_or_default();
            let last =
                [counter.total.to_string(), counter.source.clone(), as_of(counter), lag, counter.stale.to_string()];
            let row = [counter.counter.clone()].into_iter().chain(tags().map(|(_, value)| value.clone())).chain(last);
            line(heading.collect()) + &line(row.collect())
        }
    }
}

/// A cell as RFC 4180 wants it.
fn quoted(cell: &str) -> String {
    if cell.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
}
