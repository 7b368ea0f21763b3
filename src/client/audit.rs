//! `tallymark audit`: asking an instance's admin port for one, and writing down what came out.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Error,
    http::{Body, Http, refusal, unanswered},
    table::{Align, render},
};
use crate::audit::{
    Options, Progress, Report,
    report::{Drift, EventName},
};

/// How long an instance may take to say anything: it says how far it is every few seconds.
const PATIENCE: Duration = Duration::from_secs(60);
const FLAG: &str = "--admin-url";

/// A line of an instance's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// How far it is.
    Progress(Progress),
    /// What came out, the last line.
    Report(Box<Report>),
    /// Why nothing did, the last line.
    Failed {
        /// The reason.
        message: String,
        /// Whether a backend could not be reached.
        unreachable: bool,
    },
}

/// An instance that makes audits.
pub struct Client(Http);

impl Client {
    /// The instance at this admin address.
    ///
    /// # Errors
    /// When it is no address.
    pub fn new(url: &str) -> Result<Self, Error> {
        Http::new(url, None).map(Self)
    }

    /// Whether an instance answers there.
    ///
    /// # Errors
    /// When none does.
    pub async fn is_there(&self) -> Result<(), Error> {
        let answer = self.0.get(&["health", "livez"], &[], PATIENCE).await;
        let answer = answer.map_err(|failure| unanswered(failure, &self.0, FLAG))?;
        if answer.status == 200 { Ok(()) } else { Err(refusal(&self.0, &answer)) }
    }

    /// Has it make an audit.
    ///
    /// # Errors
    /// When it does not answer, refuses, or could not make one.
    pub async fn audit(&self, options: &Options, mut progress: impl FnMut(Progress)) -> Result<Report, Error> {
        let bytes = serde_json::to_vec(options).expect("numbers serialize").into();
        let body = Body { bytes, content_type: "application/json", gzip: false };
        let mut last = None;
        let answer = self.0.post_lines(&["api", "v1", "audit"], body, PATIENCE, |line| {
            match serde_json::from_slice::<Line>(line) {
                Ok(Line::Progress(at)) => progress(at),
                Ok(line) => last = Some(line),
                Err(_) => {}
            }
        });
        let answer = answer.await.map_err(|failure| unanswered(failure, &self.0, FLAG))?;
        if answer.status != 200 {
            return Err(refusal(&self.0, &answer));
        }
        match last {
            Some(Line::Report(report)) => Ok(*report),
            Some(Line::Failed { message, unreachable: true }) => {
                Err(Error::NoAnswer { url: self.0.url().to_owned(), reason: message })
            }
            Some(Line::Failed { message, .. }) => Err(Error::Refused {
                url: self.0.url().to_owned(),
                status: answer.status,
                code: "audit_failed".to_owned(),
                detail: message,
            }),
            _ => Err(Error::NoAnswer {
                url: self.0.url().to_owned(),
                reason: "it ended before the audit did; is it shutting down?".to_owned(),
            }),
        }
    }
}

/// A report for people.
pub fn text(report: &Report) -> String {
    use Align::{Left, Right};
    let heading = [
        "lane",
        "from",
        "to",
        "items",
        "dropped",
        "fine",
        "events",
        "unchecked",
        "moved",
        "wrong",
        "hot",
        "control",
        "sum",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for lane in &report.lanes {
        let counts = &lane.counts;
        let says = |agrees: Option<bool>| match agrees {
            None => "-",
            Some(true) => "agrees",
            Some(false) => "DIFFERS",
        };
        rows.push(vec![
            lane.partition.to_string(),
            lane.from.to_string(),
            lane.to.to_string(),
            lane.items.to_string(),
            lane.duplicates.to_string(),
            counts.fine.to_string(),
            counts.events.to_string(),
            counts.unchecked.to_string(),
            counts.moved.to_string(),
            (counts.drift() - counts.hot).to_string(),
            format!("{}/{}", counts.hot, counts.hot + counts.hot_fine),
            says(lane.control.map(|control| control.agrees())).to_owned(),
            says(lane.sum.map(|sum| sum.rows == sum.checkpoint)).to_owned(),
        ]);
    }
    let mut text =
        render(&[Right, Right, Right, Right, Right, Right, Right, Right, Right, Right, Right, Left, Left], &rows);
    if !report.worst.is_empty() {
        let heading = ["wrong", "lane", "what", "seq", "found", "expected", ""];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        rows.extend(report.worst.iter().map(|drift| {
            let number = |number: Option<i128>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
            vec![
                drift.kind.name().to_owned(),
                drift.partition.to_string(),
                what(drift),
                drift.seq.map_or_else(|| "-".to_owned(), |seq| seq.to_string()),
                drift.found.map_or_else(|| "-".to_owned(), |found| found.to_string()),
                number(drift.expected),
                if drift.pending { "correction on its way".to_owned() } else { String::new() },
            ]
        }));
        text.push('\n');
        text.push_str(&render(&[Left, Right, Left, Right, Right, Right, Left], &rows));
    }
    for lane in &report.lanes {
        if let Some(control) = lane.control.filter(|control| !control.agrees()) {
            let after = control.after.map_or_else(|| "its beginning".to_owned(), |seq| format!("seq {seq}"));
            let (said, log) = (control.checkpoints, control.log);
            text.push_str(&format!(
                "lane {}: from {after} to {} the checkpoints say {} items, {} dropped, sum {}; the log {}, {}, {}\n",
                lane.partition,
                control.to,
                said.items,
                said.duplicates,
                said.amount,
                log.items,
                log.duplicates,
                log.amount
            ));
        }
        if let Some(sum) = lane.sum.filter(|sum| sum.rows != sum.checkpoint) {
            text.push_str(&format!(
                "lane {}: its series sum to {} in the store, and to {} in its checkpoint\n",
                lane.partition, sum.rows, sum.checkpoint
            ));
        }
        if lane.naive == Some(false) {
            text.push_str(&format!(
                "lane {}: the naive recount differs from the lane's: please report it\n",
                lane.partition
            ));
        }
    }
    for note in &report.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    for repair in &report.repairs {
        let at = repair.seq.map_or_else(String::new, |seq| format!(" at {seq}"));
        text.push_str(&format!("lane {}: corrections of {} rows appended{at}\n", repair.partition, repair.rows));
    }
    text.push_str(&verdict(report));
    text
}

fn verdict(report: &Report) -> String {
    let counts = &report.counts;
    let unchecked = match counts.unchecked + counts.moved {
        0 => String::new(),
        _ => format!("; {} unchecked, {} moving", counts.unchecked, counts.moved),
    };
    if report.clean {
        let events = match counts.events {
            0 => String::new(),
            events => format!(" and {events} events"),
        };
        return format!("clean: {} rows{events} are what the log says{unchecked}\n", counts.fine);
    }
    let remedy = match (report.repairs.is_empty(), counts.drift() > counts.pending) {
        (false, _) => "; audit again when the lanes have applied the corrections",
        (true, true) => "; `tallymark audit --repair` appends corrections to the log",
        (true, false) => "",
    };
    format!(
        "drift: {} lost, {} doubled, {} stale, {} foreign, {} in the hot view{unchecked}{remedy}\n",
        counts.lost, counts.doubled, counts.stale, counts.foreign, counts.hot
    )
}

fn what(drift: &Drift) -> String {
    let namespace = match drift.namespace.as_str() {
        "default" => String::new(),
        other => format!("{other}:"),
    };
    if let Some(EventName { name, id, .. }) = &drift.event {
        return format!("event {namespace}{name} {id}");
    }
    let counter = drift.counter.as_deref().unwrap_or_default();
    match drift.tags.as_deref() {
        None => format!("{namespace}{counter} (whole)"),
        Some("") => format!("{namespace}{counter}"),
        Some(tags) => format!("{namespace}{counter}{{{tags}}}"),
    }
}
