//! What the load generator says at the end.

use std::{fmt, time::Duration};

use super::{client::Run, options::Options, watch::Watched};

/// Durations, in buckets whose width is below a hundredth of their value.
#[derive(Default)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: Duration,
}

/// Buckets of each power of two.
const PRECISION: u32 = 7;

impl Histogram {
    /// Counts one.
    pub fn record(&mut self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        // 0 for what has a bucket of its own, then one more for each doubling of the buckets' width.
        let power = u64::BITS - (ns >> PRECISION).leading_zeros();
        let within = (ns >> power.saturating_sub(1)) & ((1 << PRECISION) - 1);
        let index = ((u64::from(power) << PRECISION) + within) as usize;
        if self.counts.len() <= index {
            self.counts.resize(index + 1, 0);
        }
        self.counts[index] += 1;
        self.total += 1;
        self.max = self.max.max(duration);
    }

    /// The duration, in milliseconds, that this share did not exceed.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let rank = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank.max(1)
        });
        let Some(index) = bucket else { return 0.0 };
        let (power, within) = (index as u64 >> PRECISION, index as u64 & ((1 << PRECISION) - 1));
        let upper = if power == 0 { within + 1 } else { ((1 << PRECISION) + within + 1) << (power - 1) };
        (upper as f64 / 1e6).min(self.max_ms())
    }

    /// The longest, in milliseconds.
    pub fn max_ms(&self) -> f64 {
        self.max.as_secs_f64() * 1e3
    }
}

/// Named figures.
pub struct Report {
    figures: Vec<(&'static str, f64)>,
    statuses: String,
    rss_mib: String,
}

impl Report {
    /// What the run and the watch say together.
    pub fn new(options: &Options, run: Run, watched: Watched) -> Self {
        let seconds = run.elapsed.as_secs_f64();
        let answers: u64 = run.statuses.values().sum();
        let accepted: u64 = run.statuses.iter().filter(|(status, _)| **status / 100 == 2).map(|(_, count)| count).sum();
        let items = accepted * options.batch as u64;
        let each = |time: Duration, count: u64| time.as_secs_f64() * 1e6 / count.max(1) as f64;
        let mut figures = vec![
            ("connections", options.connections as f64),
            ("batch", options.batch as f64),
            ("series", options.series as f64),
            ("zipf", options.zipf),
            ("asked_items_s", options.rate.unwrap_or(0.0)),
            ("seconds", seconds),
            ("requests_s", accepted as f64 / seconds),
            ("items_s", items as f64 / seconds),
            ("p50_ms", run.latency.quantile_ms(0.5)),
            ("p99_ms", run.latency.quantile_ms(0.99)),
            ("p999_ms", run.latency.quantile_ms(0.999)),
            ("max_ms", run.latency.max_ms()),
            ("late_p99_ms", run.lateness.quantile_ms(0.99)),
            ("refused", (answers - accepted) as f64),
            ("closed", run.closed as f64),
            ("unsent", run.unsent as f64),
            ("unanswered", run.unanswered as f64),
            ("own_cpu_s", run.cpu.as_secs_f64()),
            ("own_us_request", each(run.cpu, answers)),
            ("own_us_item", each(run.cpu, items)),
        ];
        if let Some(cpu) = watched.cpu {
            figures.extend([("server_cores", cpu.as_secs_f64() / seconds), ("server_us_item", each(cpu, items))]);
        }
        let mut rss_mib = String::new();
        if let [first, .., last] = watched.rss_mib[..] {
            let max = watched.rss_mib.iter().fold(0.0, |max: f64, rss| max.max(*rss));
            figures.extend([("rss_begin_mib", first), ("rss_end_mib", last), ("rss_max_mib", max)]);
            rss_mib = watched.rss_mib.iter().map(|rss| format!("{rss:.0}")).collect::<Vec<_>>().join(" ");
        }
        if let Some(lag) = watched.lag {
            figures.extend([
                ("lag_begin_s", lag.begin),
                ("lag_end_s", lag.end),
                ("lag_max_s", lag.max),
                ("lag_slope", lag.slope),
                ("lag_end_packs", lag.packs),
            ]);
        }
        let statuses = run.statuses.iter().map(|(status, count)| format!("{status}: {count}")).collect::<Vec<_>>();
        Self { figures, statuses: statuses.join(", "), rss_mib }
    }

    /// One line, flat, numbers unquoted.
    pub fn to_json(&self) -> String {
        let figures: Vec<_> = self.figures.iter().map(|(name, value)| format!("\"{name}\":{value:.4}")).collect();
        let Self { statuses, rss_mib, .. } = self;
        format!("{{{},\"statuses\":\"{statuses}\",\"rss_mib\":\"{rss_mib}\"}}", figures.join(","))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.figures {
            writeln!(f, "{name:>16}  {value:.3}")?;
        }
        write!(f, "{:>16}  {}", "statuses", self.statuses)
    }
}
