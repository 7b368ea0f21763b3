//! What the load generator says at the end.

use std::{fmt, time::Duration};

use super::{client::Run, options::Options, watch::Watched};

/// Named figures.
pub struct Report {
    figures: Vec<(String, f64)>,
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
        let mut figures: Vec<(String, f64)> = [
            ("connections", options.connections as f64),
            ("batch", options.batch as f64),
            ("series", options.series as f64),
            ("zipf", options.zipf),
            ("asked_items_s", options.rate.unwrap_or(0.0)),
            ("seconds", seconds),
            ("requests_s", accepted as f64 / seconds),
            ("items_s", items as f64 / seconds),
            ("accepted_items", (run.accepted * options.batch as u64) as f64),
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
        ]
        .map(|(name, figure)| (name.to_owned(), figure))
        .into();
        let mut rss_mib = String::new();
        let server = watched.server.map(|server| ("server".to_owned(), server));
        for (name, seen) in server.iter().chain(&watched.processes) {
            figures.push((format!("{name}_cores"), seen.cpu.as_secs_f64() / seconds));
            figures.push((format!("{name}_us_item"), each(seen.cpu, items)));
            if let [first, .., last] = seen.rss_mib[..] {
                let max = seen.rss_mib.iter().fold(0.0, |max: f64, rss| max.max(*rss));
                // The server's have had the short names from the start.
                let prefix = if name == "server" { String::new() } else { format!("{name}_") };
                for (of, rss) in [("begin", first), ("end", last), ("max", max)] {
                    figures.push((format!("{prefix}rss_{of}_mib"), rss));
                }
            }
        }
        if let Some(machine) = watched.machine {
            let known: Duration = server.iter().chain(&watched.processes).map(|(_, seen)| seen.cpu).sum();
            let others = machine.saturating_sub(known + run.cpu);
            figures.push(("others_cores".to_owned(), others.as_secs_f64() / seconds));
        }
        if let Some((_, server)) = &server {
            rss_mib = server.rss_mib.iter().map(|rss| format!("{rss:.0}")).collect::<Vec<_>>().join(" ");
        }
        for (name, half, most) in watched.shown {
            figures.extend([(format!("{name}_p50_ms"), half), (format!("{name}_p99_ms"), most)]);
        }
        if let Some(lag) = watched.lag {
            let lag = [
                ("lag_begin_s", lag.begin),
                ("lag_end_s", lag.end),
                ("lag_max_s", lag.max),
                ("lag_slope", lag.slope),
                ("lag_end_packs", lag.packs),
            ];
            figures.extend(lag.map(|(name, figure)| (name.to_owned(), figure)));
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
