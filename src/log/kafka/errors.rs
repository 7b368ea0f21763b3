//! librdkafka's errors in the port's words: what is known of an append, whether trying again can help, and the remedy.

use rdkafka::{error::KafkaError, types::RDKafkaErrorCode as Code};

use super::super::Error;
use crate::retry::Kind;

/// What an error means for a question, a read or the group.
pub(super) fn kind(code: Code) -> Kind {
    match code {
        Code::Authentication
        | Code::SSL
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::InvalidSessionTimeout
        | Code::InconsistentGroupProtocol
        | Code::ClusterAuthorizationFailed
        | Code::InvalidTopic
        | Code::UnsupportedVersion
        | Code::UnsupportedFeature => Kind::Fatal,
        _ => Kind::Transient,
    }
}

/// What to do about it, where that is more than waiting.
fn remedy(code: Code) -> &'static str {
    match code {
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState => "; check the user and the password in log.url, and log.sasl_mechanism",
        Code::SSL => "; check log.tls, log.ca_file, log.cert_file and log.key_file",
        Code::TopicAuthorizationFailed => {
            "; the user needs the rights Read, Write, Describe and DescribeConfigs on the topic"
        }
        Code::InvalidSessionTimeout => {
            "; worker.session_timeout must be within the brokers' group.min.session.timeout.ms (6 s) and \
             group.max.session.timeout.ms"
        }
        Code::InconsistentGroupProtocol => {
            "; other consumers use the group: give this one a name of its own (log.group)"
        }
        Code::GroupAuthorizationFailed => "; the user needs the right Read on the group (log.group)",
        Code::ClusterAuthorizationFailed => "; the user needs the right IdempotentWrite or Create on the cluster",
        _ => "",
    }
}

/// An error of this code: what failed, why, and what to do.
pub(super) fn of_code(what: &str, code: Code) -> Error {
    Error::new(kind(code), format!("{what}: {code}{}", remedy(code)))
}

/// The same of an error of rdkafka's.
pub(super) fn of(what: &str, error: KafkaError) -> Error {
    match error.rdkafka_error_code() {
        Some(code) => of_code(what, code),
        None => Error::new(Kind::Transient, format!("{what}: {error}")).with(error),
    }
}

/// An append that failed. Only what a broker or the client refuses by its nature was certainly not appended (L1): after a
/// lost connection or a time-out the record may be in the log, and was, when this was tried on a frozen broker.
pub(super) fn of_append(code: Code) -> Error {
    let (kind, what) = match code {
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => (
            Kind::Permanent,
            "the topic refuses a pack of this size; raise its max.message.bytes (`tallymark topic check`) or lower \
             ingest.pack_bytes",
        ),
        Code::InvalidRecord | Code::PolicyViolation => (Kind::Permanent, "the topic refuses the pack"),
        Code::TopicAuthorizationFailed => (Kind::Permanent, "the user may not write to the topic"),
        _ => (Kind::Transient, "it is unknown whether the pack was appended"),
    };
    Error::new(kind, format!("{what}: {code}{}", remedy(code)))
}

/// A record that the client did not even take: certainly not appended.
pub(super) fn of_enqueue(code: Code) -> Error {
    match code {
        Code::MessageSizeTooLarge => of_append(code),
        Code::QueueFull => Error::new(Kind::Permanent, "the queue to the brokers is full (log.buffer): not appended"),
        _ => Error::new(Kind::Permanent, format!("not appended: {code}{}", remedy(code))),
    }
}

/// Whether a reader that meets this has to find out where it stands.
pub(super) fn is_about_a_position(code: Code) -> bool {
    matches!(
        code,
        Code::AutoOffsetReset
            | Code::OffsetOutOfRange
            | Code::LogTruncation
            | Code::BadMessage
            | Code::InvalidMessage
            | Code::UnknownTopic
            | Code::UnknownTopicOrPartition
            | Code::UnknownTopicId
            | Code::UnknownPartition
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_append_is_certainly_refused_only_where_it_was_refused_by_its_nature() {
        assert_eq!(of_append(Code::MessageSizeTooLarge).kind, Kind::Permanent);
        assert!(of_append(Code::MessageSizeTooLarge).to_string().contains("max.message.bytes"));
        for unknown in
            [Code::MessageTimedOut, Code::RequestTimedOut, Code::NotEnoughReplicasAfterAppend, Code::PurgeInflight]
        {
            assert_eq!(of_append(unknown).kind, Kind::Transient, "{unknown}");
        }
        assert_eq!(of_enqueue(Code::QueueFull).kind, Kind::Permanent);
    }

    #[test]
    fn what_somebody_must_mend_is_fatal_and_names_the_setting() {
        assert!(of_code("x", Code::Authentication).to_string().contains("log.sasl_mechanism"));
        assert_eq!(kind(Code::GroupAuthorizationFailed), Kind::Fatal);
        assert_eq!(kind(Code::BrokerTransportFailure), Kind::Transient);
    }
}
