//! How a command ends: the exit codes that scripts may rely on, and what is said on stderr.
//!
//! A [`Failure`] carries a code and a message that names the setting or the value and the remedy, in one or two lines.
//! Rooms with errors of their own say how theirs end a command with `impl From<their::Error> for Failure`.
//! Nothing here ends the process: `main` returns the code, so that everything is dropped on the way out.

use std::{fmt, process::ExitCode};

/// The exit codes of every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: the operation failed.
    Failed,
    /// 2: wrong usage or configuration.
    Usage,
    /// 3: a dependency could not be reached in time.
    Unreachable,
    /// 4: a lane has halted (only commands that look at lanes answer this).
    Halted,
}

impl Exit {
    /// The code as a number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Halted => 4,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command did not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The code to end with.
    pub exit: Exit,
    /// What, which value, and the remedy.
    pub message: String,
}

impl Failure {
    /// The operation failed (exit code 1).
    pub fn failed(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into() }
    }

    /// The command line or the configuration is wrong (exit code 2).
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into() }
    }

    /// A dependency could not be reached in time (exit code 3).
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self { exit: Exit::Unreachable, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
