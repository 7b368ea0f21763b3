//! Verdicts of `tallymark validate`: what was looked at, how it stands, and the exit code of them all.

use std::fmt;

use crate::exit::Exit;

/// How one thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// As it should be.
    Good,
    /// It runs, but somebody should look.
    Warning,
    /// The configuration is wrong: exit code 2.
    Configuration,
    /// It could not be reached: exit code 3.
    Unreachable,
    /// It is there and cannot be used as it is: exit code 1.
    Unfit,
}

impl Standing {
    /// A word of four letters for the left margin.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warning => "warn",
            Self::Configuration | Self::Unreachable | Self::Unfit => "fail",
        }
    }

    /// The exit code that it asks for.
    pub const fn exit(self) -> Exit {
        match self {
            Self::Good | Self::Warning => Exit::Done,
            Self::Configuration => Exit::Usage,
            Self::Unreachable => Exit::Unreachable,
            Self::Unfit => Exit::Failed,
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What: `configuration`, `log`, `store`, `hot`.
    pub subject: String,
    /// How it stands.
    pub standing: Standing,
    /// What was found, and the remedy; one line.
    pub message: String,
}

impl Verdict {
    /// A verdict.
    pub fn new(subject: impl Into<String>, standing: Standing, message: impl Into<String>) -> Self {
        Self { subject: subject.into(), standing, message: message.into() }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<5} {:<14} {}", self.standing.word(), self.subject, self.message)
    }
}

/// The exit code of all: configuration before unreachable before unfit.
pub fn exit_of(verdicts: &[Verdict]) -> Exit {
    [Standing::Configuration, Standing::Unreachable, Standing::Unfit]
        .into_iter()
        .find(|standing| verdicts.iter().any(|verdict| verdict.standing == *standing))
        .map_or(Exit::Done, Standing::exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_that_of_the_first_thing_to_mend() {
        let verdict = |standing| Verdict::new("log", standing, "…");
        for (standings, exit) in [
            (vec![], 0),
            (vec![Standing::Good, Standing::Warning], 0),
            (vec![Standing::Good, Standing::Unfit], 1),
            (vec![Standing::Unfit, Standing::Unreachable], 3),
            (vec![Standing::Unreachable, Standing::Configuration, Standing::Unfit], 2),
        ] {
            let verdicts: Vec<_> = standings.into_iter().map(verdict).collect();
            assert_eq!(exit_of(&verdicts).code(), exit, "{verdicts:?}");
        }
    }
}
