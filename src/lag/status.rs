//! The verdict on a lane: pure rules over plain facts, worst first. What to do about each is in `docs/operations.md`.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Options, track::Rewind};
use crate::{item::Seq, worker::board::State};

/// The verdict on a lane, or on the group: from good to bad, so that the worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// What is acknowledged reaches the store.
    Ok,
    /// It is late, growing late, or could not be measured.
    Warn,
    /// A worker runs the lane, packs wait, and nothing has been stored for a while.
    Stall,
    /// Packs wait and nobody runs the lane.
    Stop,
    /// The log or the store is behind where it was.
    Rewind,
    /// The lane has stopped by itself, to protect the data, and waits for somebody.
    Halted,
}

impl Status {
    /// All of them, from good to bad.
    pub const ALL: [Self; 6] = [Self::Ok, Self::Warn, Self::Stall, Self::Stop, Self::Rewind, Self::Halted];

    /// The word that the API and people use.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warn => "WARN",
            Self::Stall => "STALL",
            Self::Stop => "STOP",
            Self::Rewind => "REWIND",
            Self::Halted => "HALTED",
        }
    }

    /// The number that the metric `tallymark_lane_status` shows.
    pub const fn level(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Who runs a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runner<'a> {
    /// This process.
    Here {
        /// What the lane is doing.
        state: State,
        /// Why, when it is not running.
        reason: Option<&'a str>,
    },
    /// Not this process; whoever ran it last has noted that it has halted.
    Halted {
        /// Why, and what to do.
        reason: &'a str,
    },
    /// Not this process; whether another does shows only in whether the lane moves.
    Elsewhere,
    /// No process: this one has the log and the store for itself, and runs no lane.
    Nobody,
}

/// What the rules look at.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Who runs the lane.
    pub runner: Runner<'a>,
    /// The first pack that is still in the log.
    pub start: Seq,
    /// One past the last pack in the store.
    pub next: Seq,
    /// Packs in the log and not in the store.
    pub lag_packs: u64,
    /// Age of the oldest of them.
    pub lag_seconds: Option<f64>,
    /// What fell that only ever rises.
    pub rewind: Option<Rewind>,
    /// How long the lane has had lag and not moved.
    pub idle: Duration,
    /// How long it has been waiting for the store.
    pub paused: Duration,
    /// Whether lag has grown throughout the window.
    pub growing: bool,
    /// Why the log could not be asked.
    pub log_silent: Option<&'a str>,
    /// Why the store could not be asked.
    pub store_silent: Option<&'a str>,
}

/// Waiting for the store is part of a lane's life; only when it goes on does it deserve a word.
const PAUSE_GRACE: Duration = Duration::from_secs(3);
/// Growth is worth a word from this part of `lag.warn` on.
const GROWTH_FROM: f64 = 1.0 / 3.0;

/// The status of a lane, and the reason with its remedy when it is not [`Status::Ok`].
pub fn decide(facts: &Facts<'_>, options: &Options) -> (Status, Option<String>) {
    let rules = [halted, rewound, lost, unmoved, late];
    let verdict = rules.iter().find_map(|rule| rule(facts, options));
    match (verdict, unasked(facts)) {
        (Some((status, reason)), Some(also)) => (status, Some(format!("{reason}. Also: {also}"))),
        (Some((status, reason)), None) => (status, Some(reason)),
        (None, Some(reason)) => (Status::Warn, Some(reason)),
        (None, None) => (Status::Ok, None),
    }
}

type Verdict = Option<(Status, String)>;

fn halted(facts: &Facts<'_>, _: &Options) -> Verdict {
    let reason = match facts.runner {
        Runner::Here { state: State::Halted, reason } => reason,
        Runner::Halted { reason } => Some(reason),
        _ => return None,
    };
    let reason = reason.unwrap_or("the lane has halted; the worker's log says why, and what to do");
    Some((Status::Halted, reason.to_owned()))
}

fn rewound(facts: &Facts<'_>, _: &Options) -> Verdict {
    let reason = match facts.rewind? {
        Rewind::End { from, to } => format!(
            "the log ended at {from} and ends at {to} now: it has lost its newest packs. Find out who cut or restored it; \
             clients that retry with the same ids repair what they still hold"
        ),
        Rewind::Stored { from, to } => format!(
            "the store had {from} packs of this lane and has {to} now: it has lost its last writes. A lane that \
             starts applies them again from the log: wait until it has passed {from}, restart its worker if it does not"
        ),
        Rewind::Beyond { next, end } => format!(
            "the store has {next} packs of this lane and the log only {end}: the log was cut, or --log and --store do not \
             belong together. Check both before anything is appended"
        ),
    };
    Some((Status::Rewind, reason))
}

fn lost(facts: &Facts<'_>, _: &Options) -> Verdict {
    (facts.next < facts.start).then(|| {
        let reason = format!(
            "the log begins at {} but only {} packs are stored: the ones between were removed before they were stored. \
             Raise log.retention_bytes; the lane halts, and the worker's log says what it lacks",
            facts.start, facts.next
        );
        (Status::Stall, reason)
    })
}

fn unmoved(facts: &Facts<'_>, options: &Options) -> Verdict {
    if facts.lag_packs == 0 {
        return None;
    }
    if facts.runner == Runner::Nobody && facts.store_silent.is_none() {
        let reason = "packs wait and nobody runs this lane: start `tallymark run` on this data folder, and it goes on \
                      where it was. Nothing is lost";
        return Some((Status::Stop, reason.to_owned()));
    }
    if facts.idle < options.stall.0 {
        return None;
    }
    let idle = facts.idle.as_secs();
    match facts.runner {
        // Whether another process stores is known only from the store: a silent one is no proof that nobody does.
        Runner::Elsewhere | Runner::Halted { .. } | Runner::Nobody if facts.store_silent.is_some() => None,
        Runner::Elsewhere | Runner::Halted { .. } | Runner::Nobody => {
            let reason = format!(
                "packs wait and nothing has been stored for {idle} s: no worker runs this lane. Start one with \
                 `tallymark run worker` (or `run all`) on the same log and store"
            );
            Some((Status::Stop, reason))
        }
        Runner::Here { state, reason } => {
            let doing = match (state, reason) {
                (State::Starting, _) => {
                    "the lane is still starting (it reads its checkpoint and its dedup window)".to_owned()
                }
                (_, Some(reason)) => format!("the lane waits: {reason}"),
                (State::Paused, None) => "the lane waits for the store".to_owned(),
                (_, None) => "the lane runs but does not get on".to_owned(),
            };
            let reason = format!(
                "packs wait and nothing has been stored for {idle} s: {doing}. Nothing is lost; look at the store's health, \
                 it goes on by itself when the store does"
            );
            Some((Status::Stall, reason))
        }
    }
}

fn late(facts: &Facts<'_>, options: &Options) -> Verdict {
    let warn = options.warn.0.as_secs_f64();
    let seconds = facts.lag_seconds.unwrap_or(0.0);
    let reason = if seconds > warn {
        format!(
            "the oldest pack that is not stored is {seconds:.0} s old (lag.warn is {}). If it does not fall, the store or \
             the workers are too slow: look at flush times, add workers",
            options.warn
        )
    } else if let Runner::Here { state: State::Paused, reason } = facts.runner
        && facts.paused >= PAUSE_GRACE
    {
        let why = reason.unwrap_or("it does not take writes as fast as they come");
        format!("the lane waits for the store: {why}. It goes on by itself; look at the store's health")
    } else if facts.growing && seconds > warn * GROWTH_FROM {
        format!(
            "lag has grown for {} and is {seconds:.0} s now: more comes in than is stored. Add workers or store nodes, or \
             wait for a quieter time",
            options.window
        )
    } else {
        return None;
    };
    Some((Status::Warn, reason))
}

fn unasked(facts: &Facts<'_>) -> Option<String> {
    match (facts.log_silent, facts.store_silent) {
        (None, None) => None,
        (Some(log), None) => Some(format!("the log could not be asked ({log}); `end` is as it was before")),
        (None, Some(store)) => Some(format!("the store could not be asked ({store}); `stored` is as it was before")),
        (Some(log), Some(store)) => {
            Some(format!("neither log ({log}) nor store ({store}) could be asked; the figures are as they were before"))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CALM: Facts<'static> = Facts {
        runner: Runner::Here { state: State::Running, reason: None },
        start: Seq(0),
        next: Seq(100),
        lag_packs: 3,
        lag_seconds: Some(0.8),
        rewind: None,
        idle: Duration::ZERO,
        paused: Duration::ZERO,
        growing: false,
        log_silent: None,
        store_silent: None,
    };
    const LONG: Duration = Duration::from_secs(12);

    fn here(state: State, reason: Option<&str>) -> Runner<'_> {
        Runner::Here { state, reason }
    }

    #[test]
    fn each_kind_of_trouble_has_its_status_and_names_a_remedy() {
        let paused = here(State::Paused, Some("the disk is full"));
        let table = [
            ("calm", CALM, Status::Ok, ""),
            ("elsewhere and moving", Facts { runner: Runner::Elsewhere, ..CALM }, Status::Ok, ""),
            (
                "nobody runs it and there is nothing to do",
                Facts { runner: Runner::Elsewhere, lag_packs: 0, idle: LONG, ..CALM },
                Status::Ok,
                "",
            ),
            ("late", Facts { lag_seconds: Some(31.0), ..CALM }, Status::Warn, "add workers"),
            ("growing", Facts { lag_seconds: Some(11.0), growing: true, ..CALM }, Status::Warn, "Add workers"),
            ("growing but small", Facts { lag_seconds: Some(2.0), growing: true, ..CALM }, Status::Ok, ""),
            ("a short pause", Facts { runner: paused, paused: Duration::from_secs(1), ..CALM }, Status::Ok, ""),
            (
                "a pause",
                Facts { runner: paused, paused: Duration::from_secs(4), ..CALM },
                Status::Warn,
                "the disk is full",
            ),
            ("stalled", Facts { idle: LONG, ..CALM }, Status::Stall, "store's health"),
            ("stalled in a pause", Facts { runner: paused, idle: LONG, ..CALM }, Status::Stall, "the disk is full"),
            (
                "slow start",
                Facts { runner: here(State::Starting, None), idle: LONG, ..CALM },
                Status::Stall,
                "still starting",
            ),
            ("nobody", Facts { runner: Runner::Elsewhere, idle: LONG, ..CALM }, Status::Stop, "tallymark run worker"),
            (
                "nobody, as far as a silent store lets us know",
                Facts { runner: Runner::Elsewhere, idle: LONG, store_silent: Some("timed out"), ..CALM },
                Status::Warn,
                "timed out",
            ),
            (
                "nobody, for certain",
                Facts { runner: Runner::Nobody, ..CALM },
                Status::Stop,
                "tallymark run` on this data folder",
            ),
            (
                "nobody, and nothing to do",
                Facts { runner: Runner::Nobody, lag_packs: 0, idle: LONG, ..CALM },
                Status::Ok,
                "",
            ),
            (
                "nobody, and a store that does not say what it has",
                Facts { runner: Runner::Nobody, store_silent: Some("timed out"), ..CALM },
                Status::Warn,
                "timed out",
            ),
            ("removed by retention", Facts { start: Seq(120), ..CALM }, Status::Stall, "retention"),
            (
                "store went back",
                Facts { rewind: Some(Rewind::Stored { from: Seq(9), to: Seq(4) }), idle: LONG, ..CALM },
                Status::Rewind,
                "passed 9",
            ),
            (
                "log was cut",
                Facts { rewind: Some(Rewind::End { from: Seq(9), to: Seq(4) }), ..CALM },
                Status::Rewind,
                "same ids",
            ),
            (
                "another log",
                Facts { rewind: Some(Rewind::Beyond { next: Seq(9), end: Seq(4) }), ..CALM },
                Status::Rewind,
                "--log and --store",
            ),
            (
                "halted beats everything",
                Facts {
                    runner: here(State::Halted, Some("the log was cut; restore it")),
                    rewind: Some(Rewind::End { from: Seq(9), to: Seq(4) }),
                    idle: LONG,
                    ..CALM
                },
                Status::Halted,
                "the log was cut",
            ),
            (
                "halted without a word",
                Facts { runner: here(State::Halted, None), ..CALM },
                Status::Halted,
                "the worker's log",
            ),
            ("log silent", Facts { log_silent: Some("refused"), ..CALM }, Status::Warn, "refused"),
            (
                "worse than silent",
                Facts { idle: LONG, log_silent: Some("refused"), ..CALM },
                Status::Stall,
                "Also: the log could not be asked",
            ),
        ];
        for (what, facts, expected, remedy) in table {
            let (status, reason) = decide(&facts, &Options::default());
            assert_eq!(status, expected, "{what}: {reason:?}");
            assert_eq!(reason.is_none(), expected == Status::Ok, "{what}: {reason:?}");
            assert!(reason.unwrap_or_default().contains(remedy), "{what} does not say {remedy}");
        }
    }

    #[test]
    fn statuses_are_ordered_from_good_to_bad_and_read_as_the_api_writes_them() {
        for pair in Status::ALL.windows(2) {
            assert!(pair[0] < pair[1] && pair[0].level() + 1 == pair[1].level());
        }
        for status in Status::ALL {
            assert_eq!(serde_json::to_string(&status).unwrap(), format!("\"{status}\""));
        }
    }

    proptest! {
        #[test]
        fn any_facts_get_a_verdict_and_only_ok_goes_without_a_reason(
            state in prop::option::of(0..4_usize),
            alone in any::<bool>(),
            reason in prop::option::of("[a-z ]{0,12}"),
            seqs in any::<(u64, u64, u64)>(),
            lag_seconds in prop::option::of(prop::num::f64::ANY),
            rewind in prop::option::of(0..3_usize),
            (idle, paused) in any::<(u32, u32)>(),
            growing in any::<bool>(),
            (log, store) in any::<(bool, bool)>(),
        ) {
            let states = [State::Starting, State::Running, State::Paused, State::Halted];
            let rewinds = [
                Rewind::End { from: Seq(seqs.0), to: Seq(seqs.1) },
                Rewind::Stored { from: Seq(seqs.0), to: Seq(seqs.1) },
                Rewind::Beyond { next: Seq(seqs.0), end: Seq(seqs.1) },
            ];
            let facts = Facts {
                runner: match state {
                    Some(at) => here(states[at], reason.as_deref()),
                    None if alone => Runner::Nobody,
                    None => Runner::Elsewhere,
                },
                start: Seq(seqs.0),
                next: Seq(seqs.1),
                lag_packs: seqs.2,
                lag_seconds,
                rewind: rewind.map(|at| rewinds[at]),
                idle: Duration::from_millis(idle.into()),
                paused: Duration::from_millis(paused.into()),
                growing,
                log_silent: log.then_some("no answer"),
                store_silent: store.then_some("no answer"),
            };
            let (status, reason) = decide(&facts, &Options::default());
            prop_assert_eq!(reason.is_none(), status == Status::Ok);
            prop_assert!(!(log || store) || status >= Status::Warn);
            prop_assert!(state != Some(3) || status == Status::Halted);
        }
    }
}
