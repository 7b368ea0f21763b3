//! Tracing and metrics, set up once per process: logs on stderr, and the recorder behind `/metrics`.
//!
//! Logs are text on a terminal and JSON otherwise, filtered by level (`log_level`, e.g. `info` or `info,fjall=warn`).
//! Metrics take their names, help and histogram bounds from the catalogue in `metrics.rs`. The only room that names
//! `tracing-subscriber` and `metrics-exporter-prometheus`.

use std::{
    io::{self, IsTerminal as _},
    str::FromStr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::{
    exit::Failure,
    metrics::{BUILD_INFO, CATALOGUE, Shape, describe},
};

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// One line for people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Format {
    /// Every format, as it is written in configuration.
    pub const NAMES: &[&str] = &["auto", "text", "json"];
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("`{other}` is not a log format; write `auto`, `text` or `json`")),
        }
    }
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Which log lines are written: a level, and levels of single targets after commas.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter(Targets);

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |part: &str| {
            format!(
                "`{part}` is not a log level; write one of {}, and `target=level` after a comma, e.g. `info,fjall=warn`",
                LEVELS.join(", ")
            )
        };
        // The parser behind `Targets` reads an unknown word as a target at its loudest: a typo would open the sluices.
        for part in text.split(',') {
            let level = part.rsplit_once('=').map_or(part, |(_, level)| level).trim();
            if !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
                return Err(wrong(part));
            }
        }
        text.parse().map(Self).map_err(|_| wrong(text))
    }
}

/// Sends this process's log lines to stderr. A second call leaves the first one's settings in force.
pub fn install_logs(format: Format, filter: &Filter) {
    let terminal = io::stderr().is_terminal();
    let json = match format {
        Format::Auto => !terminal,
        Format::Text => false,
        Format::Json => true,
    };
    // A stderr that is closed must not turn every log line into a complaint of the logger's own.
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(terminal && !json && std::env::var_os("NO_COLOR").is_none())
        .log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(filter.0.clone());
    let installed =
        if json { registry.with(lines.json().flatten_event(true)).try_init() } else { registry.with(lines).try_init() };
    if installed.is_err() {
        tracing::debug!("a subscriber is already installed");
    }
}

/// The process's metrics, as `/metrics` serves them.
#[derive(Clone, Debug)]
pub struct Exporter {
    handle: PrometheusHandle,
}

impl Exporter {
    /// Everything, in the text format of Prometheus.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds recorded samples into their buckets now and then, so that they do not pile up while nobody scrapes.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(Duration::from_secs(5));
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            self.handle.run_upkeep();
        }
    }
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    CATALOGUE.iter().try_fold(PrometheusBuilder::new(), |builder, metric| match metric.shape {
        Shape::Histogram(bounds) => builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), bounds),
        Shape::Counter | Shape::Gauge => Ok(builder),
    })
}

/// Installs the process's recorder, describes the catalogue and says what runs.
///
/// A process has one recorder: called again, this answers with the one that is there.
pub fn install_metrics(role: &str) -> Result<Exporter, Failure> {
    static INSTALLED: Mutex<Option<Exporter>> = Mutex::new(None);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    let exporter = match &*installed {
        Some(exporter) => exporter.clone(),
        None => {
            let handle = builder()
                .and_then(PrometheusBuilder::install_recorder)
                .map_err(|error| Failure::failed(format!("metrics cannot be recorded: {error}")))?;
            describe();
            installed.insert(Exporter { handle }).clone()
        }
    };
    BUILD_INFO.gauge(&[env!("CARGO_PKG_VERSION"), role]).set(1.0);
    Ok(exporter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{FLUSH_SECONDS, HTTP_REQUESTS};

    #[test]
    fn levels_are_checked_before_they_open_the_sluices() {
        for good in ["info", "debug", "off", "WARN", "info,fjall=warn", "warn,tallymark=trace"] {
            assert!(good.parse::<Filter>().is_ok(), "{good}");
        }
        for bad in ["", "inof", "info,", "tallymark", "info,tallymark=loud"] {
            assert!(bad.parse::<Filter>().unwrap_err().contains("trace"), "{bad}");
        }
        for name in Format::NAMES {
            assert!(name.parse::<Format>().is_ok(), "{name}");
        }
    }

    #[test]
    fn metrics_are_served_under_the_catalogue_s_names_with_its_help_and_bounds() {
        let exporter = install_metrics("all").unwrap();
        HTTP_REQUESTS.counter(&["/v1/increments", "202"]).increment(1);
        FLUSH_SECONDS.histogram(&[]).record(0.003);
        let text = install_metrics("all").unwrap().render();
        assert_eq!(exporter.render().lines().count(), text.lines().count());
        for line in [
            concat!("tallymark_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\",role=\"all\"} 1"),
            "tallymark_http_requests_total{route=\"/v1/increments\",status=\"202\"} 1",
            "# HELP tallymark_http_requests_total Answers by route and status code.",
            "tallymark_flush_seconds_bucket{le=\"0.005\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
