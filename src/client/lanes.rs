//! `tallymark lanes`: the lanes and what to do about a halted one, asked of a running instance's admin port; and the
//! remedies, which are shown before they are carried out.

use std::{fmt::Write as _, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    Console, Error,
    http::{Answer, Body, Http, refusal, unanswered},
    one_line,
    table::{Align, render},
};
use crate::lanes::{LaneView, Lanes, RecordView, Wish};

const TIMEOUT: Duration = Duration::from_secs(20);
const FLAG: &str = "--admin-url";

/// What to ask.
#[derive(Clone, Debug)]
pub struct Options {
    /// The admin port's address.
    pub admin_url: String,
    /// Write the answer as the instance gave it.
    pub json: bool,
}

/// A remedy to carry out.
#[derive(Clone, Debug)]
pub struct Remedy {
    /// Which.
    pub wish: Wish,
    /// Only say what it would do.
    pub dry_run: bool,
    /// Do not ask.
    pub yes: bool,
    /// For the record.
    pub who: String,
    /// For the record.
    pub why: String,
}

/// How a remedy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was done, or there was nothing to do.
    Done,
    /// It was only shown.
    Shown,
    /// Whoever was asked said no.
    Declined,
}

async fn get(options: &Options, path: &[&str]) -> Result<(Http, Answer), Error> {
    let http = Http::new(&options.admin_url, None)?;
    let answer = http.get(path, &[], TIMEOUT).await.map_err(|failure| unanswered(failure, &http, FLAG))?;
    Ok((http, answer))
}

fn read<T: DeserializeOwned>(http: &Http, answer: &Answer) -> Result<T, Error> {
    if answer.status != 200 {
        return Err(refusal(http, answer));
    }
    serde_json::from_slice(&answer.body).map_err(|_| Error::Refused {
        url: http.url().to_owned(),
        status: answer.status,
        code: String::new(),
        detail: "this is not the answer of a Tallymark admin port; check `--admin-url`".to_owned(),
    })
}

fn raw(answer: &Answer) -> String {
    format!("{}\n", String::from_utf8_lossy(&answer.body).trim_end())
}

/// Shows the lanes. Answers whether one has halted.
///
/// # Errors
/// When nobody answers, or the answer is a refusal.
pub async fn show(options: &Options, console: &mut Console<'_>) -> Result<bool, Error> {
    let (http, answer) = get(options, &["api", "v1", "lanes"]).await?;
    let lanes: Lanes = read(&http, &answer)?;
    console.print(&if options.json { raw(&answer) } else { text(&lanes) })?;
    Ok(crate::lanes::any_halted(&lanes))
}

/// Shows what was decided.
///
/// # Errors
/// As for [`show`].
pub async fn records(options: &Options, console: &mut Console<'_>) -> Result<(), Error> {
    let (http, answer) = get(options, &["api", "v1", "lanes", "records"]).await?;
    let records: Vec<RecordView> = read(&http, &answer)?;
    console.print(&if options.json { raw(&answer) } else { record_text(&records) })
}

/// Shows what a remedy does, asks, and has it carried out.
///
/// # Errors
/// As for [`show`]; [`Error::Usage`] when nobody can be asked.
pub async fn remedy(
    options: &Options,
    remedy: &Remedy,
    console: &mut Console<'_>,
    ask: &mut (dyn FnMut() -> Option<bool> + Send),
) -> Result<Ended, Error> {
    #[derive(Deserialize)]
    struct Planned {
        needed: bool,
        plan: String,
        says: Vec<String>,
    }
    let http = Http::new(&options.admin_url, None)?;
    let (shown, answer) = post(&http, &remedy.wish, json!({"dry_run": true})).await?;
    let planned: Planned = read(&http, &answer)?;
    if !options.json {
        console.print(&planned.says.iter().fold(String::new(), |text, sentence| text + &one_line(sentence) + "\n"))?;
    } else if remedy.dry_run || !planned.needed {
        console.print(&shown)?;
    }
    if !planned.needed {
        return Ok(Ended::Done);
    }
    if remedy.dry_run {
        console.note("nothing was done: this is what it would do");
        return Ok(Ended::Shown);
    }
    if !remedy.yes {
        match ask() {
            Some(true) => {}
            Some(false) => {
                console.note("nothing was done");
                return Ok(Ended::Declined);
            }
            None => {
                return Err(Error::Usage(
                    "nothing was done: there is no terminal to ask on; look at it with `--dry-run`, then say `--yes`"
                        .to_owned(),
                ));
            }
        }
    }
    let with = json!({"plan": planned.plan, "who": remedy.who, "why": remedy.why});
    let (done, answer) = post(&http, &remedy.wish, with).await?;
    read::<Value>(&http, &answer)?;
    if options.json {
        console.print(&done)?;
    } else {
        console.print("done, and recorded: lanes that waited for it go on within seconds\n")?;
    }
    Ok(Ended::Done)
}

async fn post(http: &Http, wish: &Wish, with: Value) -> Result<(String, Answer), Error> {
    let mut request = serde_json::to_value(wish).expect("words and numbers serialize");
    if let (Value::Object(request), Value::Object(with)) = (&mut request, with) {
        request.extend(with);
    }
    let body = Body { bytes: request.to_string().into(), content_type: "application/json", gzip: false };
    let path = ["api", "v1", "lanes", "remedies"];
    let answer = http.post(&path, &[], body, TIMEOUT).await.map_err(|failure| unanswered(failure, http, FLAG))?;
    Ok((raw(&answer), answer))
}

fn text(lanes: &Lanes) -> String {
    let halted: Vec<&LaneView> = lanes.lanes.iter().filter(|lane| lane.halt.is_some()).collect();
    let mut text = match halted.len() {
        0 => format!("{}: no lane has halted\n\n", lanes.status),
        count => format!("{}: {count} of {} lanes have halted\n\n", lanes.status, lanes.lanes.len()),
    };
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let word = |word: &Option<String>| word.as_deref().map_or_else(|| "-".to_owned(), one_line);
    let heading = ["lane", "status", "checkpoint", "stored", "end", "epoch", "worker"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for lane in &lanes.lanes {
        rows.push(vec![
            lane.partition.to_string(),
            lane.status.to_string(),
            number(lane.checkpoint),
            number(lane.stored),
            lane.end.to_string(),
            word(&lane.epoch),
            word(&lane.worker),
        ]);
    }
    use Align::{Left, Right};
    text.push_str(&render(&[Right, Left, Right, Right, Right, Left, Left], &rows));
    for lane in lanes.lanes.iter().filter(|lane| lane.reason.is_some()) {
        let since = lane.since_ms.map(|since| format!(" since {}", time(since))).unwrap_or_default();
        let reason = one_line(lane.reason.as_deref().unwrap_or_default());
        let _ = write!(text, "\nlane {} is {}{since}: {reason}\n", lane.partition, lane.status);
    }
    for notice in &lanes.notices {
        let _ = write!(text, "\n{}\n", one_line(notice));
    }
    let mut commands: Vec<&str> = halted.iter().filter_map(|lane| lane.command.as_deref()).collect();
    commands.dedup();
    if !commands.is_empty() {
        text.push_str("\nWhat remedies it (each says first what it does; `--dry-run` only says it):\n");
        for command in commands {
            let _ = writeln!(text, "  {}", one_line(command));
        }
    }
    text
}

fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| format!("{time:.0}"))
}

fn record_text(records: &[RecordView]) -> String {
    if records.is_empty() {
        return "nothing was ever decided about a lane\n".to_owned();
    }
    let mut text = String::new();
    for record in records {
        let who = if record.who.is_empty() { "somebody" } else { &record.who };
        let _ = writeln!(text, "{}  {}  by {}", time(record.at_ms), one_line(&record.what), one_line(who));
        if !record.why.is_empty() {
            let _ = writeln!(text, "  why: {}", one_line(&record.why));
        }
        let _ = writeln!(text, "  {}", one_line(&record.says));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lag::Status;

    fn lane(partition: u32, halted: bool) -> LaneView {
        LaneView {
            partition,
            epoch: Some("9f2c".into()),
            status: if halted { Status::Halted } else { Status::Ok },
            checkpoint: Some(9),
            stored: None,
            end: 30,
            worker: Some("w-1".into()),
            reason: halted.then(|| "10 packs are gone; accept the loss".into()),
            halt: halted.then(|| "gap".into()),
            command: halted.then(|| format!("tallymark lanes accept-gap {partition} 10..20")),
            since_ms: halted.then_some(1_769_860_800_000),
        }
    }

    #[test]
    fn a_halted_lane_is_shown_with_its_reason_and_the_command_and_the_others_in_a_line() {
        let lanes = Lanes {
            status: Status::Halted,
            topic: "t".into(),
            topic_id: "00".into(),
            partitions: 2,
            notices: vec!["begin the epoch".into()],
            lanes: vec![lane(0, false), lane(1, true)],
        };
        let shown = text(&lanes);
        assert!(shown.starts_with("HALTED: 1 of 2 lanes have halted\n"), "{shown}");
        assert!(shown.contains("\nlane 1 is HALTED since 2026-01-31T12:00:00Z: 10 packs are gone"), "{shown}");
        assert!(shown.contains("\n  tallymark lanes accept-gap 1 10..20\n") && !shown.contains("lane 0 is"), "{shown}");
        assert!(shown.contains("\nbegin the epoch\n"), "{shown}");
    }
}
