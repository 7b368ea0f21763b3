//! Reaching the servers: one session for the process, with our settings instead of the driver's.
//!
//! - LOCAL_QUORUM, and no serial consistency. The datacenter is pinned: a quorum here says nothing about one elsewhere, so
//!   requests never move over when this one is in trouble (S3).
//! - The driver's retries and second tries are off: `worker/flush.rs` and the other callers of the port decide.
//! - A connection that does not answer is given up after ten seconds, so that requests go to the other replicas.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use scylla::{
    client::{execution_profile::ExecutionProfile, session::Session, session_builder::SessionBuilder},
    policies::{load_balancing::DefaultPolicy, retry::FallthroughRetryPolicy},
    statement::Consistency,
};

use crate::{
    retry::Kind,
    store::{ANY_DATACENTER, Error, Options},
    url::{Servers, redact},
};

use super::fault;

/// How long all of opening may take: a start that finds nobody says so within ten seconds.
const OPENING: Duration = Duration::from_secs(7);
/// How long one server may take to be connected to.
const CONNECTING: Duration = Duration::from_millis(2_500);
/// How often a silent connection is asked whether it lives, and how long it may take to answer.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// The URL of these servers, without its password.
pub fn url(servers: &Servers) -> String {
    let hosts: Vec<_> = servers.hosts.iter().map(ToString::to_string).collect();
    let login = match &servers.user {
        Some(user) => format!("{user}:-@"),
        None => String::new(),
    };
    redact(&format!("scylla://{login}{}/{}", hosts.join(","), servers.path))
}

/// The keyspace as it is written in a statement: with its case.
pub fn keyspace(servers: &Servers) -> String {
    format!("\"{}\"", servers.path)
}

/// What `opening` answers, or that it took too long.
pub async fn in_time<T>(servers: &Servers, opening: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(OPENING, opening).await.unwrap_or_else(|_| {
        Err(Error::new(
            Kind::Transient,
            format!("no store answers at {} within {OPENING:?}; start it, or correct --store", url(servers)),
        ))
    })
}

fn profile(datacenter: Option<&str>, timeout: Duration) -> ExecutionProfile {
    let mut policy = DefaultPolicy::builder().token_aware(true).permit_dc_failover(false);
    if let Some(datacenter) = datacenter {
        policy = policy.prefer_datacenter(datacenter.to_owned());
    }
    ExecutionProfile::builder()
        .consistency(Consistency::LocalQuorum)
        .serial_consistency(None)
        .request_timeout(Some(timeout))
        .retry_policy(Arc::new(FallthroughRetryPolicy::new()))
        .speculative_execution_policy(None)
        .load_balancing_policy(policy.build())
        .build()
}

/// Connects; one request may take `timeout`. Answers the datacenter that is asked, too.
pub async fn connect(
    servers: &Servers,
    options: &Options,
    timeout: Duration,
) -> Result<(Session, Option<String>), Error> {
    let mut handle = profile(None, timeout).into_handle();
    let mut builder = SessionBuilder::new()
        .known_nodes(servers.hosts.iter().map(ToString::to_string))
        .default_execution_profile_handle(handle.clone())
        .keyspaces_to_fetch([servers.path.clone()])
        // Columns and types are the statements' own; routing needs tables only.
        .fetch_full_schema_metadata(false)
        .connection_timeout(CONNECTING)
        .hostname_resolution_timeout(Some(CONNECTING))
        .keepalive_interval(KEEPALIVE)
        .keepalive_timeout(KEEPALIVE);
    if let Some(user) = &servers.user {
        builder = builder.user(user, servers.password.as_ref().map_or("", |password| password.reveal()));
    }
    let session = builder.build().await.map_err(|error| fault::unopened(&error, &url(servers)))?;
    let datacenter = datacenter(&datacenters(&session), named_datacenter(options))?;
    handle.map_to_another_profile(profile(datacenter.as_deref(), timeout));
    Ok((session, datacenter))
}

/// The datacenters of the cluster.
fn datacenters(session: &Session) -> BTreeSet<String> {
    session.get_cluster_state().get_nodes_info().iter().filter_map(|node| node.datacenter.clone()).collect()
}

/// The datacenter that the configuration names.
pub fn named_datacenter(options: &Options) -> Option<&str> {
    Some(options.datacenter.as_str()).filter(|name| *name != ANY_DATACENTER)
}

/// The one to ask.
fn datacenter(there: &BTreeSet<String>, wanted: Option<&str>) -> Result<Option<String>, Error> {
    let names = || there.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    if let Some(wanted) = wanted {
        if there.contains(wanted) {
            return Ok(Some(wanted.to_owned()));
        }
        let message = format!("store.datacenter is `{wanted}`; the store's datacenters are {}", names());
        return Err(Error::new(Kind::Fatal, message));
    }
    if there.len() > 1 {
        let message = format!(
            "the store has the datacenters {}: set store.datacenter to one of them, for every process",
            names()
        );
        return Err(Error::new(Kind::Fatal, message));
    }
    Ok(there.first().cloned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::url::StoreUrl;

    #[test]
    fn a_url_is_shown_as_it_was_written_but_for_the_password() {
        for (text, shown) in [
            ("scylla://h:9042/k", "scylla://h:9042/k"),
            ("scylla://app:secret@h:1,[::1]:2/k", "scylla://app:***@h:1,[::1]:2/k"),
        ] {
            let Ok(StoreUrl::Scylla { servers }) = text.parse() else { panic!("{text}") };
            assert_eq!(url(&servers), shown);
        }
    }

    #[test]
    fn a_datacenter_is_the_only_one_or_the_one_that_is_named() {
        let there = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(datacenter(&there(&["a"]), None).unwrap().as_deref(), Some("a"));
        assert_eq!(datacenter(&there(&["a", "b"]), Some("b")).unwrap().as_deref(), Some("b"));
        assert_eq!(datacenter(&there(&[]), None).unwrap(), None);
        for (names, wanted) in [(&["a", "b"][..], None), (&["a"], Some("c"))] {
            let error = datacenter(&there(names), wanted).unwrap_err();
            assert!(error.kind == Kind::Fatal && error.message.contains("store.datacenter"), "{error}");
        }
    }
}
