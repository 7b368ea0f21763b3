//! Rates: how much comes in, is applied and is stored, now and over the last five minutes, for the dashboard.
//!
//! Every two seconds the process's metrics are read back from the text that `/metrics` serves. It is done here and not in
//! the page, so that a page that is opened in the middle of an incident shows how it began, and all pages show the same.
//! Bounded: 150 steps are kept.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use ::metrics::Gauge;
use serde::Serialize;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    Render,
    prometheus::{Buckets, Sums, quantile},
};
use crate::{lag, metrics as catalogue};

/// The time between two points of the history.
const STEP: Duration = Duration::from_secs(2);
/// Points of the history: five minutes.
const STEPS: usize = 150;
/// Rates of now are taken over so many steps,
const RATE_STEPS: usize = 5;
/// and quantiles and ratios over so many.
const QUANTILE_STEPS: usize = 30;

/// What the process is, for whoever looks at it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Info {
    /// `all`, `ingest` or `worker`.
    pub role: String,
    /// Where items are posted, when this process takes any, e.g. `http://127.0.0.1:8080`.
    pub ingest_url: Option<String>,
}

/// What `/api/v1/overview` answers. Rates are per second over the last ten seconds, quantiles and ratios over the last
/// minute; null: nothing to say it from.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Which program it is.
    pub version: &'static str,
    /// What it does, and where.
    #[serde(flatten)]
    pub info: Info,
    /// How long it has been running.
    pub uptime_seconds: u64,
    /// Items acknowledged.
    pub ingest_items_rate: f64,
    /// Requests answered.
    pub requests_rate: f64,
    /// Requests refused because a bound was reached or the log was away.
    pub refused_rate: f64,
    /// From a request's head to its answer.
    pub request_p99_seconds: Option<f64>,
    /// From handing a pack to the log to its acknowledgement.
    pub append_p99_seconds: Option<f64>,
    /// Items applied by this process's lanes, duplicates included.
    pub applied_items_rate: f64,
    /// Rows written to the store.
    pub stored_rows_rate: f64,
    /// From a pack's receipt to its rows in the store.
    pub stored_p99_seconds: Option<f64>,
    /// Deltas that one written row stands for.
    pub coalescing_ratio: Option<f64>,
    /// Records that this process's lanes could not apply, and that went to the dead letters, since it started.
    pub dead_letters: f64,
    /// Bytes accepted and not acknowledged.
    pub buffered_bytes: f64,
    /// Their bound.
    pub buffer_limit_bytes: f64,
    /// Resident memory of the process, where the system tells.
    pub resident_bytes: Option<u64>,
    /// The last five minutes.
    pub history: History,
}

/// The last minutes, oldest first; all lists have the same length.
#[derive(Clone, Debug, Default, Serialize)]
pub struct History {
    /// Seconds between two entries.
    pub step_seconds: f64,
    /// Items acknowledged per second.
    pub ingest_items_rate: Vec<f64>,
    /// Items applied per second.
    pub applied_items_rate: Vec<f64>,
    /// Age of the oldest pack that is not stored; null where it was not known.
    pub lag_seconds: Vec<Option<f64>>,
}

/// Reads the metrics until it is told to stop.
pub struct Service {
    info: Info,
    metrics: Render,
    lag: lag::Handle,
    step: Duration,
    points: VecDeque<Point>,
    resident: Gauge,
    reports: watch::Sender<Arc<Report>>,
}

/// Reads the last report. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Overview(watch::Receiver<Arc<Report>>);

impl Overview {
    /// The last report; empty before the first.
    pub fn report(&self) -> Arc<Report> {
        self.0.borrow().clone()
    }
}

/// One reading.
#[derive(Clone, Debug, Default)]
struct Point {
    at: Duration,
    ingest_items: f64,
    requests: f64,
    refused: f64,
    applied_items: f64,
    stored_rows: f64,
    deltas: f64,
    dead_letters: f64,
    buffered_bytes: f64,
    buffer_limit_bytes: f64,
    request: Buckets,
    append: Buckets,
    stored: Buckets,
    lag_seconds: Option<f64>,
}

impl Service {
    /// A service and a handle that reads what it reports. The recorder of metrics must be installed before.
    pub fn new(info: Info, metrics: Render, lag: lag::Handle) -> (Self, Overview) {
        let empty = Report { version: env!("CARGO_PKG_VERSION"), info: info.clone(), ..Report::default() };
        let (reports, seen) = watch::channel(Arc::new(empty));
        let resident = catalogue::PROCESS_RESIDENT_BYTES.gauge(&[]);
        (Self { info, metrics, lag, step: STEP, points: VecDeque::new(), resident, reports }, Overview(seen))
    }

    /// The same service with another time between two readings.
    pub fn every(mut self, step: Duration) -> Self {
        self.step = step.max(Duration::from_millis(10));
        self
    }

    /// Reads at once and then every two seconds, until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let started = Instant::now();
        let mut ticks = tokio::time::interval(self.step);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            let resident_bytes = resident_bytes();
            #[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
            resident_bytes.inspect(|bytes| self.resident.set(*bytes as f64));
            self.read(started.elapsed());
            let report = Report {
                version: env!("CARGO_PKG_VERSION"),
                info: self.info.clone(),
                uptime_seconds: started.elapsed().as_secs(),
                resident_bytes,
                ..summary(&self.points, self.step)
            };
            self.reports.send_replace(Arc::new(report));
        }
    }

    fn read(&mut self, at: Duration) {
        let text = (self.metrics)();
        let sums = Sums::read(&text);
        self.points.push_back(Point {
            at,
            ingest_items: sums.value(catalogue::INGEST_ITEMS),
            requests: sums.value(catalogue::HTTP_REQUESTS),
            refused: sums.value(catalogue::INGEST_REFUSED),
            applied_items: sums.value(catalogue::LANE_ITEMS),
            stored_rows: sums.value(catalogue::STORE_ROWS),
            deltas: sums.value(catalogue::FLUSH_DELTAS),
            dead_letters: sums.value(catalogue::DEAD_LETTERS),
            buffered_bytes: sums.value(catalogue::INGEST_BUFFERED_BYTES),
            buffer_limit_bytes: sums.value(catalogue::INGEST_BUFFER_LIMIT_BYTES),
            request: sums.buckets(catalogue::HTTP_SECONDS),
            append: sums.buckets(catalogue::LOG_APPEND_SECONDS),
            stored: sums.buckets(catalogue::INGEST_TO_STORED_SECONDS),
            lag_seconds: self.lag.snapshot().lag_seconds,
        });
        // One more than is shown: a rate lies between two readings.
        while self.points.len() > STEPS + 1 {
            self.points.pop_front();
        }
    }
}

/// What readings say, without what they do not know.
fn summary(points: &VecDeque<Point>, step: Duration) -> Report {
    let Some(last) = points.back() else { return Report::default() };
    let ago = |steps: usize| &points[points.len().saturating_sub(steps + 1)];
    let rate = |value: fn(&Point) -> f64| per_second(ago(RATE_STEPS), last, value);
    let then = ago(QUANTILE_STEPS);
    let p99 = |buckets: fn(&Point) -> &Buckets| quantile(0.99, buckets(then), buckets(last)).map(|p99| round(p99, 1e6));
    let rows = last.stored_rows - then.stored_rows;
    let history = |value: fn(&Point) -> f64| {
        points.iter().zip(points.iter().skip(1)).map(|(a, b)| per_second(a, b, value)).collect()
    };
    Report {
        ingest_items_rate: rate(|point| point.ingest_items),
        requests_rate: rate(|point| point.requests),
        refused_rate: rate(|point| point.refused),
        request_p99_seconds: p99(|point| &point.request),
        append_p99_seconds: p99(|point| &point.append),
        applied_items_rate: rate(|point| point.applied_items),
        stored_rows_rate: rate(|point| point.stored_rows),
        stored_p99_seconds: p99(|point| &point.stored),
        coalescing_ratio: (rows > 0.0).then(|| round((last.deltas - then.deltas) / rows, 100.0)),
        dead_letters: last.dead_letters,
        buffered_bytes: last.buffered_bytes,
        buffer_limit_bytes: last.buffer_limit_bytes,
        history: History {
            step_seconds: step.as_secs_f64(),
            ingest_items_rate: history(|point| point.ingest_items),
            applied_items_rate: history(|point| point.applied_items),
            lag_seconds: points.iter().skip(1).map(|point| point.lag_seconds).collect(),
        },
        ..Report::default()
    }
}

/// A counter's change per second between two readings; never below 0.
fn per_second(from: &Point, to: &Point, value: fn(&Point) -> f64) -> f64 {
    let seconds = to.at.saturating_sub(from.at).as_secs_f64();
    if seconds > 0.0 { round(((value(to) - value(from)) / seconds).max(0.0), 1000.0) } else { 0.0 }
}

fn round(number: f64, parts: f64) -> f64 {
    (number * parts).round() / parts
}

/// The memory of this process that is in use, as Linux tells it.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(count: u32) -> VecDeque<Point> {
        let point = |index: u32| Point {
            at: STEP * index,
            ingest_items: f64::from(index) * 2_000.0,
            stored_rows: f64::from(index) * 10.0,
            deltas: f64::from(index) * 900.0,
            lag_seconds: (index != 2).then_some(0.5),
            ..Point::default()
        };
        (0..count).map(point).collect()
    }

    #[test]
    fn rates_are_the_change_per_second_and_the_history_has_one_entry_per_step() {
        let report = summary(&points(40), STEP);
        assert_eq!(report.ingest_items_rate, 1_000.0);
        assert_eq!(report.coalescing_ratio, Some(90.0));
        assert_eq!(report.history.ingest_items_rate, vec![1_000.0; 39]);
        assert_eq!(report.history.lag_seconds.len(), 39);
        assert_eq!(report.history.lag_seconds[..2], [Some(0.5), None]);
    }

    #[test]
    fn the_first_readings_have_nothing_to_be_compared_with() {
        for count in 0..2 {
            let report = summary(&points(count), STEP);
            assert_eq!((report.ingest_items_rate, report.coalescing_ratio), (0.0, None));
            assert!(report.history.ingest_items_rate.is_empty() && report.history.lag_seconds.is_empty());
        }
        assert!(resident_bytes().is_none_or(|bytes| bytes > 1 << 20));
    }
}
