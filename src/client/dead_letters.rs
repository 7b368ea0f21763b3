//! `tallymark dead-letters`: what no lane could apply, asked of an admin port: listed, shown, replayed.

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::{
    Console, Error,
    http::{Body, Http, refusal, unanswered},
    one_line,
    table::{Align, render},
};

/// A page may look through many letters that are not meant, or append as many as it holds.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Letters of one question.
const PAGE: usize = 1000;
/// Bytes of a letter that are shown.
const SHOWN_BYTES: usize = 256;

/// Which letters, in the admin port's own words.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this partition.
    pub partition: Option<u32>,
    /// That stood at this offset.
    pub seq: Option<u64>,
    /// `damaged`, `malformed`, `misplaced`, `replay` or `before`.
    pub reason: Option<String>,
    /// Buried then or later: RFC 3339 or milliseconds.
    pub since: Option<String>,
    /// Buried before then.
    pub until: Option<String>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// List them.
    List,
    /// Show them whole.
    Show {
        /// Write the record's bytes and nothing else.
        raw: bool,
    },
    /// Replay them.
    Replay {
        /// Only say what would become of them.
        dry_run: bool,
    },
}

/// What to ask.
#[derive(Clone, Debug)]
pub struct Options {
    /// The admin port's address.
    pub admin_url: String,
    /// What to do.
    pub action: Action,
    /// With which.
    pub filter: Filter,
    /// At most so many; none: all.
    pub limit: Option<usize>,
    /// Write JSON.
    pub json: bool,
}

#[derive(Deserialize)]
struct Answer {
    letters: Vec<Letter>,
    #[serde(default)]
    next: Option<String>,
}

/// A letter as the admin port tells it.
#[derive(Clone, Deserialize, Serialize)]
struct Letter {
    buried: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(default)]
    topic_id: Option<String>,
    #[serde(default)]
    partition: Option<u32>,
    #[serde(default)]
    seq: Option<u64>,
    #[serde(default)]
    appended: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    detail: Option<String>,
    #[serde(default)]
    format: Option<u32>,
    #[serde(default)]
    bytes: Option<u64>,
    #[serde(default)]
    replayed: Option<By>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    items: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outcome: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    appended_seq: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

#[derive(Clone, Deserialize, Serialize)]
struct By {
    topic_id: String,
    seq: u64,
}

/// What became of the letters that were found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Letters that the filter found.
    pub found: usize,
    /// Appended to the log, or to be.
    pub replayed: usize,
    /// A pack has applied them before.
    pub already: usize,
    /// Left where they are.
    pub left: usize,
}

impl Filter {
    fn query(&self) -> Vec<(String, String)> {
        let pairs = [
            ("partition", self.partition.map(|partition| partition.to_string())),
            ("seq", self.seq.map(|seq| seq.to_string())),
            ("reason", self.reason.clone()),
            ("since", self.since.clone()),
            ("until", self.until.clone()),
        ];
        pairs.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

/// Does it, and writes what was found or done to `console.out`.
///
/// # Errors
/// When nobody answers, or the answer is a refusal; when there is nothing to show.
pub async fn run(options: &Options, console: &mut Console<'_>) -> Result<Summary, Error> {
    let http = Http::new(&options.admin_url, None)?;
    let mut asking = Asking { http, options, after: None, seen: BTreeSet::new(), found: 0 };
    match options.action {
        Action::List => list(&mut asking, console).await,
        Action::Show { raw } => show(&mut asking, raw, console).await,
        Action::Replay { dry_run } => replay(&mut asking, dry_run, console).await,
    }
}

/// Pages of letters, each once: one that was buried twice may come with two pages.
struct Asking<'a> {
    http: Http,
    options: &'a Options,
    after: Option<String>,
    seen: BTreeSet<(String, u32, u64)>,
    found: usize,
}

impl Asking<'_> {
    /// The next page, and whether it is the last.
    async fn next(&mut self) -> Result<(Vec<Letter>, bool), Error> {
        let Options { action, filter, limit, .. } = self.options;
        let left = limit.map_or(PAGE, |limit| limit.saturating_sub(self.found).min(PAGE));
        if left == 0 {
            return Ok((Vec::new(), true));
        }
        let mut query = filter.query();
        query.push(("limit".to_owned(), left.to_string()));
        query.extend(self.after.clone().map(|after| ("after".to_owned(), after)));
        let answer = match action {
            Action::List | Action::Show { .. } => {
                if matches!(action, Action::Show { .. }) {
                    query.push(("payload".to_owned(), "true".to_owned()));
                }
                self.http.get(&["api", "v1", "dead-letters"], &query, TIMEOUT).await
            }
            Action::Replay { dry_run } => {
                query.push(("dry_run".to_owned(), dry_run.to_string()));
                let body = Body { bytes: "{}".into(), content_type: "application/json", gzip: false };
                self.http.post(&["api", "v1", "dead-letters", "replay"], &query, body, TIMEOUT).await
            }
        };
        let answer = answer.map_err(|failure| unanswered(failure, &self.http, "--admin-url"))?;
        if answer.status != 200 {
            return Err(refusal(&self.http, &answer));
        }
        let Answer { mut letters, next } = serde_json::from_slice(&answer.body).map_err(|_| Error::Refused {
            url: self.http.url().to_owned(),
            status: answer.status,
            code: String::new(),
            detail: "this is not the answer of a Tallymark admin port; check `--admin-url`".to_owned(),
        })?;
        letters.retain(|letter| match (&letter.topic_id, letter.partition, letter.seq) {
            (Some(topic_id), Some(partition), Some(seq)) => self.seen.insert((topic_id.clone(), partition, seq)),
            _ => true,
        });
        self.found += letters.len();
        let is_last = next.is_none();
        self.after = next;
        Ok((letters, is_last))
    }
}

async fn list(asking: &mut Asking<'_>, console: &mut Console<'_>) -> Result<Summary, Error> {
    let mut all = Vec::new();
    loop {
        let (letters, is_last) = asking.next().await?;
        all.extend(letters);
        if is_last {
            break;
        }
    }
    let found = all.len();
    if asking.options.json {
        console.print(&as_json(&serde_json::json!({ "letters": all })))?;
    } else if all.is_empty() {
        console.print("no dead letters\n")?;
    } else {
        console.print(&table(&all))?;
    }
    if asking.after.is_some() {
        console.note("there may be more: raise --limit, or narrow it down (--partition, --reason, --since, --until)");
    }
    Ok(Summary { found, ..Summary::default() })
}

async fn show(asking: &mut Asking<'_>, raw: bool, console: &mut Console<'_>) -> Result<Summary, Error> {
    let mut all = Vec::new();
    loop {
        let (letters, is_last) = asking.next().await?;
        all.extend(letters.into_iter().filter(|letter| letter.error.is_none()));
        if is_last {
            break;
        }
    }
    let Filter { partition, seq, .. } = &asking.options.filter;
    let name = format!("partition {}, seq {}", partition.unwrap_or_default(), seq.unwrap_or_default());
    if all.is_empty() {
        return Err(Error::Refused {
            url: asking.http.url().to_owned(),
            status: 404,
            code: "unknown_dead_letter".to_owned(),
            detail: format!("there is no dead letter of {name}; `tallymark dead-letters list` names them"),
        });
    }
    if raw {
        let bytes =
            all[0].payload.as_ref().and_then(|payload| BASE64_STANDARD.decode(payload).ok()).unwrap_or_default();
        let written = console.out.write_all(&bytes).and_then(|()| console.out.flush());
        written.map_err(Error::Output)?;
    } else if asking.options.json {
        console.print(&as_json(&serde_json::json!({ "letters": all })))?;
    } else {
        let texts: Vec<String> = all.iter().map(whole).collect();
        console.print(&texts.join("\n"))?;
    }
    if all.len() > 1 {
        console.note("records of several lives of the topic stood there");
    }
    Ok(Summary { found: all.len(), ..Summary::default() })
}

async fn replay(asking: &mut Asking<'_>, dry_run: bool, console: &mut Console<'_>) -> Result<Summary, Error> {
    let bar = console.progress.then(|| {
        let style = ProgressStyle::with_template("{spinner} {pos} letters, {elapsed}, {per_sec}").ok();
        let bar = ProgressBar::no_length();
        style.map_or_else(|| bar.clone(), |style| bar.clone().with_style(style))
    });
    let mut summary = Summary::default();
    let mut all = Vec::new();
    loop {
        let (letters, is_last) = asking.next().await?;
        for letter in letters {
            summary.found += 1;
            match letter.outcome.as_deref() {
                Some("replayed" | "would_replay") => summary.replayed += 1,
                Some("already_replayed") => summary.already += 1,
                _ => summary.left += 1,
            }
            if let Some(bar) = &bar {
                bar.inc(1);
            }
            if asking.options.json {
                all.push(letter);
            } else {
                let line = outcome(&letter);
                match &bar {
                    Some(bar) => bar.suspend(|| console.print(&line))?,
                    None => console.print(&line)?,
                }
            }
        }
        if is_last {
            break;
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let Summary { found, replayed, already, left } = summary;
    if asking.options.json {
        console.print(&as_json(&serde_json::json!({ "dry_run": dry_run, "summary": summary, "letters": all })))?;
    } else if found == 0 {
        console.print("no dead letters\n")?;
    } else {
        let what = if dry_run { "would be replayed" } else { "replayed" };
        console.print(&format!("{replayed} {what}, {already} replayed before, {left} left\n"))?;
    }
    Ok(summary)
}

fn as_json(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

fn number(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn state(letter: &Letter) -> String {
    letter.replayed.as_ref().map_or_else(|| "-".to_owned(), |by| format!("by {}", by.seq))
}

fn table(letters: &[Letter]) -> String {
    let heading = ["partition", "seq", "buried", "reason", "bytes", "replayed", "detail"].map(str::to_owned);
    let mut rows = vec![heading.to_vec()];
    for letter in letters {
        let detail = letter.detail.as_ref().or(letter.error.as_ref()).map(|text| one_line(text)).unwrap_or_default();
        rows.push(vec![
            number(letter.partition),
            number(letter.seq),
            one_line(&letter.buried),
            one_line(letter.reason.as_deref().unwrap_or("none")),
            number(letter.bytes),
            state(letter),
            detail,
        ]);
    }
    use Align::{Left, Right};
    render(&[Right, Right, Left, Left, Right, Left, Left], &rows)
}

fn whole(letter: &Letter) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<10} {}", one_line(&value));
    };
    let said = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".to_owned());
    line("topic id", said(&letter.topic_id));
    line("partition", number(letter.partition));
    line("seq", number(letter.seq));
    line("appended", said(&letter.appended));
    line("buried", letter.buried.clone());
    line("reason", format!("{}: {}", said(&letter.reason), said(&letter.detail)));
    line("format", number(letter.format));
    line(
        "replayed",
        letter.replayed.as_ref().map_or("no".to_owned(), |by| format!("by {} of {}", by.seq, by.topic_id)),
    );
    line(
        "reads as",
        match (letter.items, &letter.unreadable) {
            (Some(items), _) => format!("a pack of {items} items; `tallymark dead-letters replay` replays it"),
            (None, Some(why)) => format!("nothing: {why}"),
            (None, None) => "unknown".to_owned(),
        },
    );
    line("bytes", number(letter.bytes));
    let bytes = letter.payload.as_ref().and_then(|payload| BASE64_STANDARD.decode(payload).ok()).unwrap_or_default();
    for (at, row) in bytes.iter().take(SHOWN_BYTES).collect::<Vec<_>>().chunks(16).enumerate() {
        let hex: String = row.iter().map(|byte| format!("{byte:02x} ")).collect();
        let printed = |byte: &u8| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' };
        let ascii: String = row.iter().map(|byte| printed(byte)).collect();
        let _ = writeln!(text, "  {:08x}  {hex:<48} {ascii}", at * 16);
    }
    if bytes.len() > SHOWN_BYTES {
        let _ = writeln!(text, "  … {} bytes more; --raw writes them all", bytes.len() - SHOWN_BYTES);
    }
    text
}

fn outcome(letter: &Letter) -> String {
    let place = format!("partition {} seq {}", number(letter.partition), number(letter.seq));
    let what = match letter.outcome.as_deref() {
        Some("replayed") => match letter.appended_seq {
            Some(seq) => format!("replayed as {seq}"),
            None => "replayed".to_owned(),
        },
        Some("would_replay") => "would be replayed".to_owned(),
        Some("already_replayed") => format!("replayed before, {}", state(letter)),
        _ => format!("left: {}", one_line(letter.why.as_deref().unwrap_or("no reason given"))),
    };
    format!("{place}: {what}\n")
}
