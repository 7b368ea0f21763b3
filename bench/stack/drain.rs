//! Follows a worker through a standing backlog: from the first item that it applies until nothing is left to store.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::probe::{self, Process};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(100);

#[derive(Args)]
pub struct Options {
    /// The worker's admin port
    #[arg(long)]
    server: SocketAddr,
    /// Its metric that counts what it has applied
    #[arg(long, default_value = "tallymark_lane_items_total")]
    applied: String,
    /// Items of the backlog
    #[arg(long)]
    items: f64,
    /// What is applied counts as stored: the server tells no lag
    #[arg(long)]
    applied_is_stored: bool,
    /// Another metric to tell the growth of, NAME=METRIC; may be repeated
    #[arg(long = "count", value_name = "NAME=METRIC")]
    counts: Vec<String>,
    /// A process to watch, NAME=PID; may be repeated
    #[arg(long = "process", value_name = "NAME=PID")]
    processes: Vec<Process>,
    /// Seconds it may take
    #[arg(long, default_value_t = 120.0)]
    timeout: f64,
}

/// What is seen at one moment.
struct Look {
    at: Instant,
    applied: f64,
    counts: Vec<f64>,
    cpu: Vec<Duration>,
    machine: Duration,
    rss_mib: Vec<f64>,
}

impl Options {
    fn look(&self) -> anyhow::Result<Look> {
        let text = probe::get(self.server, "/metrics")?;
        let sum = |metric: &str| probe::samples(&text, metric).map(|(_, value)| value).sum::<f64>();
        let metric =
            |count: &String| count.split_once('=').map(|(_, metric)| sum(metric)).context("--count NAME=METRIC");
        Ok(Look {
            at: Instant::now(),
            applied: sum(&self.applied),
            counts: self.counts.iter().map(metric).collect::<Result<_, _>>()?,
            cpu: self.processes.iter().map(Process::cpu).collect::<Result<_, _>>()?,
            machine: probe::machine()?,
            rss_mib: self.processes.iter().map(|process| process.rss_mib().unwrap_or_default()).collect(),
        })
    }

    fn is_stored(&self) -> anyhow::Result<bool> {
        Ok(self.applied_is_stored || probe::lag(self.server)?.0 == 0.0)
    }
}

/// Named figures.
pub fn run(options: &Options) -> anyhow::Result<Vec<(String, f64)>> {
    let deadline = Instant::now() + Duration::from_secs_f64(options.timeout);
    let mut begin = options.look()?;
    let mut most_mib = begin.rss_mib.clone();
    let (mut applied, mut half) = (None, None);
    let end = loop {
        std::thread::sleep(EVERY);
        let look = options.look()?;
        for (most, rss) in most_mib.iter_mut().zip(&look.rss_mib) {
            *most = most.max(*rss);
        }
        ensure!(look.at < deadline, "{} of {} items were applied in time", look.applied, options.items);
        if look.applied == 0.0 {
            begin = look;
            continue;
        }
        if half.is_none() && look.applied >= options.items / 2.0 {
            half = Some((look.at, look.applied));
        }
        if look.applied >= options.items {
            applied.get_or_insert(look.at);
            if options.is_stored()? {
                break Look { at: Instant::now(), ..options.look()? };
            }
        }
    };
    let (items, seconds) = (end.applied - begin.applied, (end.at - begin.at).as_secs_f64());
    let mut figures =
        vec![("items".to_owned(), items), ("seconds".to_owned(), seconds), ("items_s".to_owned(), items / seconds)];
    if let (Some(applied), Some((at, so_far))) = (applied, half) {
        figures.push(("applied_s".to_owned(), (applied - begin.at).as_secs_f64()));
        let rest = (applied - at).as_secs_f64();
        figures.push(("second_half_items_s".to_owned(), (end.applied - so_far) / rest.max(1e-3)));
    }
    for (at, count) in options.counts.iter().enumerate() {
        let name = count.split_once('=').map_or("", |(name, _)| name);
        figures.push((name.to_owned(), end.counts[at] - begin.counts[at]));
    }
    let mut others = (end.machine.saturating_sub(begin.machine)).as_secs_f64();
    for (at, Process { name, .. }) in options.processes.iter().enumerate() {
        let cpu = (end.cpu[at].saturating_sub(begin.cpu[at])).as_secs_f64();
        others -= cpu;
        figures.push((format!("{name}_cores"), cpu / seconds));
        figures.push((format!("{name}_us_item"), cpu * 1e6 / items));
        figures.push((format!("{name}_rss_max_mib"), most_mib[at]));
    }
    figures.push(("others_cores".to_owned(), others.max(0.0) / seconds));
    Ok(figures)
}
