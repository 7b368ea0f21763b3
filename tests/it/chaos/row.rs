//! What a fault has cost: a row of the table, for people and for programs.

use std::time::Duration;

use serde_json::{Value, json};

/// See the module.
pub struct Row {
    pub fault: String,
    pub acknowledged: u64,
    pub unknown: u64,
    pub refused: u64,
    /// Requests that were not acknowledged by their one retry.
    pub failed_twice: u64,
    pub lost: u64,
    pub doubled: u64,
    /// The longest time without an acknowledgement.
    pub stall: Duration,
    /// The longest time that each lane stored nothing though it had something to store.
    pub pauses: Vec<Duration>,
    /// From the end of the load until everything was stored.
    pub drain: Duration,
    /// The most that one process took, in bytes.
    pub memory: u64,
    /// Beside the figures.
    pub notes: Vec<String>,
    /// Expectations that did not hold.
    pub problems: Vec<String>,
}

/// The table's head; [`Row::text`] is aligned with it.
pub const HEAD: &str =
    "fault                       acked  unknown  lost  doubled  stall s  lane s  drain s  MiB  verdict";

impl Row {
    /// Of a fault that could not be run to its end.
    pub fn failed(fault: &str, problem: String) -> Self {
        Self {
            fault: fault.to_owned(),
            acknowledged: 0,
            unknown: 0,
            refused: 0,
            failed_twice: 0,
            lost: 0,
            doubled: 0,
            stall: Duration::ZERO,
            pauses: Vec::new(),
            drain: Duration::ZERO,
            memory: 0,
            notes: Vec::new(),
            problems: vec![problem],
        }
    }

    /// Whether everything was as expected.
    pub fn holds(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.problems.is_empty()
    }

    fn longest_pause(&self) -> Duration {
        self.pauses.iter().max().copied().unwrap_or_default()
    }

    /// A line, and below it what else there is to say.
    pub fn text(&self) -> String {
        let verdict = if self.holds() { "holds" } else { "FAILS" };
        let mut text = format!(
            "{:<26} {:>6} {:>8} {:>5} {:>8} {:>8.1} {:>7.1} {:>8.1} {:>4}  {verdict}",
            self.fault,
            self.acknowledged,
            self.unknown,
            self.lost,
            self.doubled,
            self.stall.as_secs_f64(),
            self.longest_pause().as_secs_f64(),
            self.drain.as_secs_f64(),
            self.memory >> 20,
        );
        for note in &self.notes {
            text += &format!("\n    {note}");
        }
        for problem in &self.problems {
            text += &format!("\n  ! {problem}");
        }
        text
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let seconds = |span: &Duration| (span.as_secs_f64() * 1000.0).round() / 1000.0;
        json!({
            "fault": self.fault,
            "holds": self.holds(),
            "acknowledged": self.acknowledged,
            "unknown": self.unknown,
            "refused": self.refused,
            "failed_twice": self.failed_twice,
            "lost": self.lost,
            "doubled": self.doubled,
            "longest_stall_seconds": seconds(&self.stall),
            "lane_pauses_seconds": self.pauses.iter().map(seconds).collect::<Vec<_>>(),
            "drain_seconds": seconds(&self.drain),
            "peak_memory_bytes": self.memory,
            "notes": self.notes,
            "problems": self.problems,
        })
    }
}
