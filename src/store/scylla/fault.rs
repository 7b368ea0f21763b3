//! What the driver's and the servers' errors mean to whoever asked.
//!
//! Nobody there, too few replicas, too slow, overloaded: it passes, and trying again is safe because every statement may be
//! repeated. A request that the servers refuse will be refused again. A user without rights, or answers that do not read,
//! want somebody to act. The driver's messages are long; what a person needs of them is the servers' own words.

use std::fmt::Display;

use scylla::errors::{
    BadQuery, ConnectionError, ConnectionPoolError, ConnectionSetupRequestError,
    ConnectionSetupRequestErrorKind as Setup, DbError, ExecutionError, MetadataError, NewSessionError, PrepareError,
    RequestAttemptError,
};

use crate::{retry::Kind, store::Error};

/// The error of a request.
pub fn told(error: ExecutionError) -> Error {
    let kind = kind(&error);
    let message = match kind {
        Kind::Transient => format!("the store cannot answer now ({})", reason(&error)),
        Kind::Permanent => format!("the store refuses the request ({})", reason(&error)),
        Kind::Fatal => format!("the store cannot be used ({})", reason(&error)),
    };
    Error::new(kind, message).with(error)
}

/// Rows that do not read as this program writes them.
pub fn damaged(error: impl Display) -> Error {
    let message = format!(
        "the store holds a row that this program did not write ({error}); compare its tables with `tallymark schema print`"
    );
    Error::new(Kind::Fatal, message)
}

/// Why there is no session.
pub fn unopened(error: &NewSessionError, url: &str) -> Error {
    if let Some(setup) = setup(error) {
        match setup {
            Setup::MissingAuthentication => {
                let message = format!("the store at {url} asks for a user; write scylla://user:password@…");
                return Error::new(Kind::Fatal, message);
            }
            Setup::DbError(DbError::AuthenticationError | DbError::Unauthorized, why) => {
                let message =
                    format!("the store at {url} refuses the user ({why}); correct user and password in --store");
                return Error::new(Kind::Fatal, message);
            }
            _ => {}
        }
    }
    let reason = match error {
        NewSessionError::FailedToResolveAnyHostname(_) => "its name is not known".to_owned(),
        NewSessionError::MetadataError(MetadataError::ConnectionPoolError(error)) => pool_reason(error),
        error => error.to_string(),
    };
    let kind = if matches!(error, NewSessionError::IllegalConfig(_)) { Kind::Fatal } else { Kind::Transient };
    Error::new(kind, format!("no store answers at {url} ({reason}); start it, or correct --store"))
}

fn setup(error: &NewSessionError) -> Option<&Setup> {
    let NewSessionError::MetadataError(MetadataError::ConnectionPoolError(ConnectionPoolError::Broken {
        last_connection_error: ConnectionError::ConnectionSetupRequestError(ConnectionSetupRequestError { error, .. }),
    })) = error
    else {
        return None;
    };
    Some(error)
}

/// Why a statement could not be prepared; `None` when the servers refuse it, which means that the tables are not ours.
pub fn unprepared(error: &PrepareError) -> Option<Error> {
    let told = told(ExecutionError::PrepareError(error.clone()));
    (told.kind != Kind::Permanent).then_some(told)
}

/// The servers' words about a statement that they refuse.
pub fn refusal(error: &PrepareError) -> String {
    reason(&ExecutionError::PrepareError(error.clone()))
}

fn kind(error: &ExecutionError) -> Kind {
    match error {
        ExecutionError::BadQuery(_) => Kind::Permanent,
        ExecutionError::LastAttemptError(error)
        | ExecutionError::PrepareError(PrepareError::AllAttemptsFailed { first_attempt: error }) => attempt(error),
        ExecutionError::PrepareError(PrepareError::PreparedStatementIdsMismatch) => Kind::Fatal,
        // No server, no answer, no agreement: it passes.
        _ => Kind::Transient,
    }
}

fn attempt(error: &RequestAttemptError) -> Kind {
    use RequestAttemptError as E;
    match error {
        E::DbError(error, _) => answered(error),
        E::SerializationError(_) | E::CqlRequestSerialization(_) => Kind::Permanent,
        E::BodyExtensionsParseError(_)
        | E::CqlResultParseError(_)
        | E::CqlErrorParseError(_)
        | E::UnexpectedResponse(_)
        | E::RepreparedIdChanged { .. }
        | E::RepreparedIdMissingInBatch
        | E::NonfinishedPagingState => Kind::Fatal,
        _ => Kind::Transient,
    }
}

fn answered(error: &DbError) -> Kind {
    match error {
        DbError::SyntaxError | DbError::Invalid | DbError::AlreadyExists { .. } | DbError::FunctionFailure { .. } => {
            Kind::Permanent
        }
        DbError::AuthenticationError | DbError::Unauthorized | DbError::ConfigError | DbError::ProtocolError => {
            Kind::Fatal
        }
        // Unavailable, timeouts, failures of replicas, overload, bootstrapping, and what servers invent next.
        _ => Kind::Transient,
    }
}

/// The servers' words, where they said something.
fn reason(error: &ExecutionError) -> String {
    match error {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, words))
        | ExecutionError::PrepareError(PrepareError::AllAttemptsFailed {
            first_attempt: RequestAttemptError::DbError(error, words),
        }) => {
            if words.is_empty() {
                error.to_string()
            } else {
                words.clone()
            }
        }
        ExecutionError::RequestTimeout(after) => format!("no answer within {after:?}, store.timeout"),
        ExecutionError::EmptyPlan => "no server of the datacenter is known to be up".to_owned(),
        ExecutionError::ConnectionPoolError(error)
        | ExecutionError::PrepareError(PrepareError::ConnectionPoolError(error)) => pool_reason(error),
        ExecutionError::BadQuery(BadQuery::SerializationError(error)) => error.to_string(),
        error => error.to_string(),
    }
}

fn pool_reason(error: &ConnectionPoolError) -> String {
    match error {
        ConnectionPoolError::Broken { last_connection_error } => last_connection_error.to_string(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn from(error: DbError) -> Error {
        told(ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, "their words".to_owned())))
    }

    #[test]
    fn what_passes_is_transient_and_what_is_refused_is_not() {
        for (error, kind) in [
            (DbError::Overloaded, Kind::Transient),
            (DbError::IsBootstrapping, Kind::Transient),
            (DbError::ServerError, Kind::Transient),
            (
                DbError::Unavailable {
                    consistency: scylla::statement::Consistency::LocalQuorum,
                    required: 2,
                    alive: 1,
                },
                Kind::Transient,
            ),
            (DbError::Invalid, Kind::Permanent),
            (DbError::SyntaxError, Kind::Permanent),
            (DbError::Unauthorized, Kind::Fatal),
            (DbError::Other(0x7777), Kind::Transient),
        ] {
            let told = from(error.clone());
            assert!(told.kind == kind && told.message.contains("their words"), "{error}: {told}");
        }
        let told = told(ExecutionError::RequestTimeout(Duration::from_secs(5)));
        assert!(told.kind == Kind::Transient && told.message.contains("store.timeout"), "{told}");
    }
}
