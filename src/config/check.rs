//! What must hold between settings, and what this build and a role can run.

use super::{
    Config, HotUrl, LogUrl, Problem, Resolved, Role, StoreUrl, sections::Sections, url::Address, values::shown,
};

/// Settings that do not fit together.
pub fn together(
    settings: &Resolved,
    sections: &Sections,
    listeners: Option<(&Address, &Address)>,
    problems: &mut Vec<Problem>,
) {
    let mut at_least = |name: &str, other: &str, holds: bool| {
        if !holds {
            let other_setting = settings.get(other);
            let why = format!(
                "it must be at least {other}, which is {} ({})",
                shown(&other_setting.value),
                other_setting.source
            );
            problems.push(settings.problem(name, &why));
        }
    };
    at_least("retry.max", "retry.initial", sections.retry.max >= sections.retry.initial);
    if let Some((listen, admin)) = listeners
        && listen == admin
        && listen.port != 0
    {
        problems.push(settings.problem("admin_listen", "listen is the same address; give each a port of its own"));
    }
}

/// Why the configuration cannot run in its role on this build.
pub fn runnable(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let settings = config.settings();
    let mut refuse = |name: &str, why: String| problems.push(settings.problem(name, &why));
    let alone = config.role != Role::All;
    let role = config.role;
    let owned = |what: &str, shared: &str| {
        format!(
            "the role {role} alone cannot use an embedded {what}: one process owns it, and nobody else could read or write it; \
             run the role `all` (a {what} that processes share, {shared}://…, is not served by this build yet)"
        )
    };
    match &config.log.url {
        LogUrl::Embedded { .. } if alone => refuse("log.url", owned("log", "kafka")),
        LogUrl::Embedded { .. } => {}
        LogUrl::Kafka { .. } => refuse("log.url", unserved("kafka", "embedded:DIR")),
    }
    match &config.store.url {
        StoreUrl::Embedded { .. } if alone => refuse("store.url", owned("store", "scylla")),
        StoreUrl::Embedded { .. } => {}
        StoreUrl::Scylla { .. } => refuse("store.url", unserved("scylla", "embedded:DIR")),
    }
    match &config.hot.url {
        HotUrl::Memory if alone => refuse(
            "hot.url",
            format!(
                "the role {role} alone cannot use a hot view in its own memory: other processes would not see it, \
                 and its totals would be wrong; set --hot none:"
            ),
        ),
        HotUrl::Memory | HotUrl::None => {}
        HotUrl::Redis { .. } => refuse("hot.url", unserved("redis", "memory: or none:")),
    }
    problems
}

fn unserved(backend: &str, instead: &str) -> String {
    format!("{backend} is not served by this build yet; use {instead}")
}
