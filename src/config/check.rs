//! What must hold between settings, and what a role can run on.

use super::{Config, Problem, Resolved, Role, sections::Sections, values::shown};
use crate::url::{Address, HotUrl, LogUrl, StoreUrl};

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

/// Why the configuration cannot run in its role.
pub fn runnable(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let settings = config.settings();
    let mut refuse = |name: &str, why: String| problems.push(settings.problem(name, &why));
    let role = config.role;
    if role == Role::All {
        return problems;
    }
    let owned = |what: &str, shared: &str| {
        format!(
            "the role {role} alone cannot use an embedded {what}: one process owns it, and nobody else could read or write it; \
             name a {what} that processes share, {shared}://…, or run the role `all`"
        )
    };
    if let LogUrl::Embedded { .. } = &config.log.url {
        refuse("log.url", owned("log", "kafka"));
    }
    if let StoreUrl::Embedded { .. } = &config.store.url {
        refuse("store.url", owned("store", "scylla"));
    }
    if config.hot.url == HotUrl::Memory {
        refuse(
            "hot.url",
            format!(
                "the role {role} alone cannot use a hot view in its own memory: other processes would not see it, \
                 and its totals would be wrong; set --hot redis://… or --hot none:"
            ),
        );
    }
    problems
}
