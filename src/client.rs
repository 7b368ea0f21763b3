//! The commands that talk to a running instance over HTTP: `send`, `get`, `lag` and `dead-letters`.
//!
//! Each command is plain options in, text out: `send::run`, `get::run` and `lag::run` write what they found to a [`Console`]
//! and return what decides the exit code, so that tests run them as they are. Flags are `cli`'s, defaults that come from
//! the configuration are given as addresses, and ending the process is `main`'s.
//!
//! Promises: bounded memory whatever the input, every failed command names the address and the remedy in one line, a
//! reader that hangs up (`| head`) is not an error. Opening a data folder when nothing runs ([`Error::NotRunning`]) is `app`'s.

use std::{
    io::{self, Write},
    path::PathBuf,
};

pub mod audit;
pub mod combined;
pub mod dead_letters;
pub mod get;
pub mod http;
pub mod lag;
pub mod send;
mod table;

/// Where a command writes.
pub struct Console<'a> {
    /// What was asked for.
    pub out: &'a mut (dyn Write + Send),
    /// What people should know besides.
    pub err: &'a mut (dyn Write + Send),
    /// Whether to draw a progress bar on the process's stderr: only when that is a terminal.
    pub progress: bool,
}

impl Console<'_> {
    /// Writes to `out`. A reader that has gone away wants no more: that is no error.
    fn print(&mut self, text: &str) -> Result<(), Error> {
        match self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::Output(error)),
            _ => Ok(()),
        }
    }

    /// Writes a line to `err`. Nobody can be told when that fails.
    pub fn note(&mut self, text: &str) {
        let _ = writeln!(self.err, "{text}").and_then(|()| self.err.flush());
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An argument that cannot be right.
    #[error("{0}")]
    Usage(String),
    /// The input cannot be opened or read.
    #[error("cannot read `{}`: {source}", .path.display())]
    Input {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The answer cannot be written.
    #[error("cannot write the answer: {0}")]
    Output(io::Error),
    /// The HTTP client cannot be made.
    #[error("cannot talk to {url}: {reason}")]
    Client {
        /// The address.
        url: String,
        /// Why.
        reason: String,
    },
    /// Nobody listens at the address.
    #[error(
        "no running instance at {url} ({reason}); start one with `tallymark run`, or name its address with `{flag}`"
    )]
    NotRunning {
        /// The address.
        url: String,
        /// What the connection met.
        reason: String,
        /// The flag that names another.
        flag: &'static str,
    },
    /// The instance did not answer in time.
    #[error("no answer from {url}: {reason}")]
    NoAnswer {
        /// The address.
        url: String,
        /// What was met instead.
        reason: String,
    },
    /// Items could not be handed over within the time to give up.
    #[error("{url} has accepted nothing for {waited} (last: {reason}); is it running? {advice}")]
    GaveUp {
        /// The address.
        url: String,
        /// For how long.
        waited: String,
        /// The last try's failure.
        reason: String,
        /// What sending again would do.
        advice: &'static str,
    },
    /// The instance said no.
    #[error("{url} answered {status}{}: {detail}", if .code.is_empty() { String::new() } else { format!(" ({})", .code) })]
    Refused {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The problem's code; empty when it gave none.
        code: String,
        /// The problem's detail.
        detail: String,
    },
}

impl Error {
    /// The exit code of a command that ends with this error: 1 failed, 2 wrong usage, 3 not reached in time.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::NotRunning { .. } | Self::NoAnswer { .. } | Self::GaveUp { .. } => 3,
            // The instance answers for what it depends on: its log, its store.
            Self::Refused { status: 502..=504, .. } => 3,
            Self::Input { .. } | Self::Output(_) | Self::Client { .. } | Self::Refused { .. } => 1,
        }
    }
}

/// Text from elsewhere on one line of a terminal: control characters become blanks.
fn one_line(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Closed(io::ErrorKind);

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_hung_up_is_no_error_and_a_full_disk_is() {
        let mut err = Vec::new();
        let mut print = |kind| {
            let mut out = Closed(kind);
            Console { out: &mut out, err: &mut err, progress: false }.print("text")
        };
        assert!(print(io::ErrorKind::BrokenPipe).is_ok());
        assert_eq!(print(io::ErrorKind::StorageFull).unwrap_err().exit_code(), 1);
    }
}
