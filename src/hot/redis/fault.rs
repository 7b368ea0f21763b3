//! What can go wrong with a server, told apart by what is to be done.

use std::{fmt, sync::Arc};

use redis::{ErrorKind, RedisError, ServerError};

use crate::{hot::Error, retry::Kind};

/// What a failure asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The server is not there, or does not answer.
    Away,
    /// It refuses us until somebody acts: a wrong password, a missing permission, another program's server.
    Refused,
    /// It has no memory left for a write.
    Full,
    /// It takes no writes for now: a replica, a disk that fails, a snapshot being loaded, a cluster without a master.
    Closed,
    /// It does not know a script.
    NoScript,
    /// The key's slot is served elsewhere.
    Moved,
    /// The key is being moved: this once it is to be asked for elsewhere.
    Asked,
    /// Anything else it says, e.g. that a key of ours is of another type.
    Other,
}

/// A failure, cheap to copy: one broken connection fails many commands.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) fault: Fault,
    pub(super) message: Arc<str>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Failure {
    pub(super) fn new(fault: Fault, message: impl Into<Arc<str>>) -> Self {
        Self { fault, message: message.into() }
    }

    /// What a server said to one command.
    pub(super) fn said(server: &str, error: &ServerError) -> Self {
        let (code, details) = (error.code(), error.details().unwrap_or_default());
        let fault = match code {
            "OOM" => Fault::Full,
            "READONLY" | "MISCONF" | "LOADING" | "NOREPLICAS" | "CLUSTERDOWN" | "MASTERDOWN" | "TRYAGAIN" | "BUSY" => {
                Fault::Closed
            }
            "NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED" => Fault::Refused,
            "NOSCRIPT" => Fault::NoScript,
            "MOVED" => Fault::Moved,
            "ASK" => Fault::Asked,
            _ => Fault::Other,
        };
        let message = match fault {
            // Its words are the slot and the other server; `redirect` reads them.
            Fault::Moved | Fault::Asked => details.to_owned(),
            Fault::Full => format!(
                "Redis at {server} is full ({code} {details}); raise its maxmemory or set an evicting maxmemory-policy"
            ),
            Fault::Refused => refusal(server, &format!("{code} {details}")),
            _ => format!("Redis at {server}: {code} {details}"),
        };
        Self::new(fault, message)
    }

    /// A failure of the connection or of its handshake.
    pub(super) fn of(server: &str, error: &RedisError) -> Self {
        let refused = error.kind() == ErrorKind::AuthenticationFailed
            || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED"));
        if refused {
            return Self::new(Fault::Refused, refusal(server, &error.to_string()));
        }
        if error.kind() == ErrorKind::InvalidClientConfig {
            return Self::new(Fault::Refused, format!("hot.url: Redis at {server}: {error}"));
        }
        Self::new(Fault::Away, format!("Redis at {server} does not answer: {error}"))
    }

    /// Slot and `host:port` of a redirection.
    pub(super) fn redirect(&self) -> Option<(u16, &str)> {
        let (slot, address) = self.message.split_once(' ')?;
        Some((slot.parse().ok()?, address.split_ascii_whitespace().next()?))
    }
}

fn refusal(server: &str, why: &str) -> String {
    format!("hot.url: Redis at {server} refuses the user or the password, or what they may do ({why})")
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let kind = if failure.fault == Fault::Refused { Kind::Fatal } else { Kind::Transient };
        Self { kind, message: failure.message.to_string(), source: None }
    }
}
