//! Health and readiness: where the process is in its life, and whether what it depends on answers.
//!
//! Dependencies are checked in the background, each in its own loop with its own deadline, and probes are answered from
//! what was found last: a probe never hangs, and a thousand of them cost the store nothing.
//!
//! Not ready means: do not send requests here. That is so while starting and draining, and without a dependency that
//! answers need (the log, where there is an ingest). Without one that answers do not need (store, hot view) the process is
//! degraded and ready: ingest goes on, and what is acknowledged is safe in the log.

use std::{
    sync::{Arc, RwLock},
    time::Duration,
};

use futures_util::future::{BoxFuture, join_all};
use serde::{Serialize, Serializer, ser::SerializeMap};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Options;
use crate::units::Span;

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// Not everything is built yet.
    Starting,
    /// It serves.
    Ready,
    /// It finishes what it has and takes nothing new.
    Draining,
}

/// Asks a dependency whether it works; the error says what is wrong.
pub type Probe = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// One dependency.
#[derive(Clone)]
pub struct Check {
    /// What it is to us: `log`, `store`, `hot`.
    pub name: &'static str,
    /// What it is, for people: its URL without secrets.
    pub target: String,
    /// Whether the process is of no use without it.
    pub required: bool,
    /// How it is asked.
    pub probe: Probe,
}

impl Check {
    /// A dependency that is asked with `probe`.
    pub fn new<F>(
        name: &'static str,
        target: impl Into<String>,
        required: bool,
        probe: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self { name, target: target.into(), required, probe: Arc::new(move || Box::pin(probe())) }
    }
}

/// What was found of a dependency.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Finding {
    Unknown,
    Working,
    Failing(String),
}

impl Finding {
    const fn word(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Working => "ok",
            Self::Failing(_) => "failing",
        }
    }
}

struct Shared {
    role: String,
    lifecycle: RwLock<Lifecycle>,
    checks: Vec<Check>,
    findings: RwLock<Vec<(Finding, Option<Instant>)>>,
}

const UNPOISONED: &str = "nobody panics while holding the findings";

/// Checks the dependencies until it is told to stop.
pub struct Service {
    shared: Arc<Shared>,
    interval: Duration,
    timeout: Duration,
}

/// Reads what was found last and says where the process is in its life. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Health(Arc<Shared>);

impl Service {
    /// A service that has checked nothing yet, and a handle in [`Lifecycle::Starting`]. `role` is what answers show.
    pub fn new(options: &Options, role: impl Into<String>, checks: Vec<Check>) -> (Self, Health) {
        let findings = RwLock::new(vec![(Finding::Unknown, None); checks.len()]);
        let shared = Shared { role: role.into(), lifecycle: RwLock::new(Lifecycle::Starting), checks, findings };
        let shared = Arc::new(shared);
        let interval = options.health_interval.0.max(Duration::from_millis(10));
        (Self { shared: shared.clone(), interval, timeout: options.health_timeout.0 }, Health(shared))
    }

    /// Checks every dependency at once and then every `admin.health_interval`, until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let loops = (0..self.shared.checks.len()).map(|index| self.watch(index));
        shutdown.run_until_cancelled(join_all(loops)).await;
    }

    async fn watch(&self, index: usize) {
        let check = &self.shared.checks[index];
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let finding = match tokio::time::timeout(self.timeout, (check.probe)()).await {
                Ok(Ok(())) => Finding::Working,
                Ok(Err(reason)) => Finding::Failing(reason),
                Err(_) => Finding::Failing(format!("no answer within {}", Span(self.timeout))),
            };
            self.note(index, finding);
        }
    }

    fn note(&self, index: usize, finding: Finding) {
        let check = &self.shared.checks[index];
        let mut findings = self.shared.findings.write().expect(UNPOISONED);
        let (before, at) = &mut findings[index];
        match (&*before, &finding) {
            (Finding::Failing(_), Finding::Working) => tracing::info!(dependency = check.name, "dependency recovered"),
            (Finding::Failing(_), Finding::Failing(_)) => {}
            (_, Finding::Failing(reason)) => {
                tracing::warn!(dependency = check.name, target = check.target, reason, "dependency failed");
            }
            _ => {}
        }
        *before = finding;
        *at = Some(Instant::now());
    }
}

/// What `/health/livez` and `/health/readyz` answer.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `live`, or the readiness.
    pub status: &'static str,
    /// `ready`, `degraded`, `starting`, `draining` or `unavailable`.
    pub readiness: &'static str,
    /// What the process does.
    pub role: String,
    /// Which program it is.
    pub version: &'static str,
    /// Each dependency, by name.
    #[serde(serialize_with = "by_name")]
    pub dependencies: Vec<(&'static str, Dependency)>,
}

/// One dependency in a [`Report`].
#[derive(Clone, Debug, Serialize)]
pub struct Dependency {
    /// `ok`, `failing`, or `unknown` before the first check.
    pub status: &'static str,
    /// Whether the process is ready without it.
    pub required: bool,
    /// What it is: its URL without secrets.
    pub target: String,
    /// What is wrong.
    pub detail: Option<String>,
    /// How long ago it was checked.
    pub checked_seconds_ago: Option<u64>,
}

fn by_name<S: Serializer>(dependencies: &[(&'static str, Dependency)], serializer: S) -> Result<S::Ok, S::Error> {
    // A map, and in the order of the data path.
    let mut map = serializer.serialize_map(Some(dependencies.len()))?;
    for (name, dependency) in dependencies {
        map.serialize_entry(name, dependency)?;
    }
    map.end()
}

impl Health {
    /// Says where the process is in its life.
    pub fn set(&self, lifecycle: Lifecycle) {
        *self.0.lifecycle.write().expect(UNPOISONED) = lifecycle;
    }

    /// What `/health/livez` answers: that the process answers says that it lives.
    pub fn live(&self) -> Report {
        Report { status: "live", ..self.report().0 }
    }

    /// What `/health/readyz` answers, and whether the process is ready.
    pub fn ready(&self) -> (Report, bool) {
        self.report()
    }

    fn report(&self) -> (Report, bool) {
        let lifecycle = *self.0.lifecycle.read().expect(UNPOISONED);
        let findings = self.0.findings.read().expect(UNPOISONED).clone();
        let seen = self.0.checks.iter().zip(&findings).map(|(check, (finding, _))| (check.required, finding));
        let (status, ready) = readiness(lifecycle, seen);
        let dependencies = self.0.checks.iter().zip(findings).map(|(check, (finding, at))| {
            let dependency = Dependency {
                status: finding.word(),
                required: check.required,
                target: check.target.clone(),
                checked_seconds_ago: at.map(|at| at.elapsed().as_secs()),
                detail: if let Finding::Failing(reason) = finding { Some(reason) } else { None },
            };
            (check.name, dependency)
        });
        let report = Report {
            status,
            readiness: status,
            role: self.0.role.clone(),
            version: env!("CARGO_PKG_VERSION"),
            dependencies: dependencies.collect(),
        };
        (report, ready)
    }
}

/// The readiness in a word, and whether requests may be sent. `findings`: whether required, and what was found.
fn readiness<'a>(
    lifecycle: Lifecycle,
    findings: impl IntoIterator<Item = (bool, &'a Finding)>,
) -> (&'static str, bool) {
    match lifecycle {
        Lifecycle::Starting => return ("starting", false),
        Lifecycle::Draining => return ("draining", false),
        Lifecycle::Ready => {}
    }
    let mut worst = ("ready", true);
    for (required, finding) in findings {
        match (required, finding) {
            (true, Finding::Unknown | Finding::Failing(_)) => return ("unavailable", false),
            (false, Finding::Failing(_)) => worst = ("degraded", true),
            (_, Finding::Working) | (false, Finding::Unknown) => {}
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_life_and_required_dependencies_make_a_process_unready() {
        use Finding::{Unknown, Working};
        use Lifecycle::{Draining, Ready, Starting};
        let failing = || Finding::Failing("gone".to_owned());
        type Case<'a> = (Lifecycle, &'a [(bool, Finding)], (&'a str, bool));
        let table: [Case<'_>; 9] = [
            (Starting, &[(true, Working)], ("starting", false)),
            (Draining, &[(true, Working)], ("draining", false)),
            (Ready, &[], ("ready", true)),
            (Ready, &[(true, Working), (false, Working)], ("ready", true)),
            (Ready, &[(true, Unknown)], ("unavailable", false)),
            (Ready, &[(true, Working), (false, Unknown)], ("ready", true)),
            (Ready, &[(true, failing()), (false, Working)], ("unavailable", false)),
            (Ready, &[(false, failing()), (true, Working)], ("degraded", true)),
            (Ready, &[(false, failing()), (true, failing())], ("unavailable", false)),
        ];
        for (lifecycle, findings, expected) in table {
            let seen = findings.iter().map(|(required, finding)| (*required, finding));
            assert_eq!(readiness(lifecycle, seen), expected, "{lifecycle:?} {findings:?}");
        }
    }
}
