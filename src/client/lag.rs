//! `tallymark lag`: what is in the log and not in the store, asked of a running instance's admin port.

use std::time::Duration;

use serde::Deserialize;

use super::{
    Console, Error,
    http::{Http, refusal, unanswered},
    one_line,
    table::{Align, render},
};

const TIMEOUT: Duration = Duration::from_secs(10);

/// What to ask.
#[derive(Clone, Debug)]
pub struct Options {
    /// The admin port's address.
    pub admin_url: String,
    /// Write the answer as the instance gave it.
    pub json: bool,
}

impl Options {
    /// Lag as a table.
    pub fn new(admin_url: impl Into<String>) -> Self {
        Self { admin_url: admin_url.into(), json: false }
    }
}

/// How the group stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The worst status of any lane, e.g. `OK`.
    pub status: String,
}

impl Verdict {
    /// The exit code of `lag --check`: 0 for `OK`, 4 when a lane has halted, 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self.status.as_str() {
            "OK" => 0,
            "HALTED" => 4,
            _ => 1,
        }
    }
}

/// Everything but the verdict may be unknown to the instance.
#[derive(Deserialize)]
struct Lag {
    status: String,
    #[serde(default)]
    lag_packs: Option<u64>,
    #[serde(default)]
    lag_seconds: Option<f64>,
    #[serde(default)]
    drain_seconds: Option<f64>,
    #[serde(default)]
    apply_rate: Option<f64>,
    #[serde(default)]
    lanes: Vec<Lane>,
}

#[derive(Deserialize)]
struct Lane {
    partition: u32,
    #[serde(default)]
    epoch: Option<String>,
    #[serde(default)]
    end: Option<u64>,
    #[serde(default)]
    stored: Option<u64>,
    #[serde(default)]
    checkpoint: Option<u64>,
    #[serde(default)]
    lag_packs: Option<u64>,
    #[serde(default)]
    lag_seconds: Option<f64>,
    status: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    worker: Option<String>,
}

/// Asks, writes the answer to `console.out`, and gives the verdict back.
///
/// # Errors
/// When nobody answers, or the answer is a refusal.
pub async fn run(options: &Options, console: &mut Console<'_>) -> Result<Verdict, Error> {
    let http = Http::new(&options.admin_url, None)?;
    let answer = http.get(&["api", "v1", "lag"], &[], TIMEOUT).await;
    let answer = answer.map_err(|failure| unanswered(failure, &http, "--admin-url"))?;
    if answer.status != 200 {
        return Err(refusal(&http, &answer));
    }
    let lag: Lag = serde_json::from_slice(&answer.body).map_err(|_| Error::Refused {
        url: http.url().to_owned(),
        status: answer.status,
        code: String::new(),
        detail: "this is not the answer of a Tallymark admin port; check `--admin-url`".to_owned(),
    })?;
    console.print(&match options.json {
        true => format!("{}\n", String::from_utf8_lossy(&answer.body).trim_end()),
        false => format!("{}\n{}", verdict(&lag), table(&lag.lanes)),
    })?;
    Ok(Verdict { status: lag.status })
}

fn seconds(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1}"))
}

/// One line: how it stands.
fn verdict(lag: &Lag) -> String {
    let status = one_line(&lag.status);
    let rate = lag.apply_rate.map(|rate| format!("; {rate:.0} items/s applied")).unwrap_or_default();
    match lag.lag_packs {
        Some(0) => format!("{status}: everything in the log is in the store{rate}\n"),
        Some(packs) => {
            let age = match lag.lag_seconds {
                Some(age) => format!("the oldest {age:.1} s old"),
                None => "of unknown age".to_owned(),
            };
            let drain = match lag.drain_seconds {
                Some(drain) => format!("; stored in {drain:.0} s at this rate"),
                None => "; not gaining on the log".to_owned(),
            };
            let noun = if packs == 1 { "pack" } else { "packs" };
            format!("{status}: {packs} {noun} not in the store, {age}{drain}{rate}\n")
        }
        None => format!("{status}: lag unknown{rate}\n"),
    }
}

fn table(lanes: &[Lane]) -> String {
    let text = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), one_line);
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let heading = ["lane", "status", "packs", "seconds", "end", "stored", "checkpoint", "epoch", "worker", "reason"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for lane in lanes {
        rows.push(vec![
            lane.partition.to_string(),
            one_line(&lane.status),
            number(lane.lag_packs),
            seconds(lane.lag_seconds),
            number(lane.end),
            number(lane.stored),
            number(lane.checkpoint),
            text(&lane.epoch),
            text(&lane.worker),
            lane.reason.as_deref().map(one_line).unwrap_or_default(),
        ]);
    }
    use Align::{Left, Right};
    render(&[Right, Left, Right, Right, Right, Right, Right, Left, Left, Left], &rows)
}
