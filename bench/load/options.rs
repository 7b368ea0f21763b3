//! What the load generator is told.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use clap::Parser;

use super::{request::Shape, watch::Shown};
use crate::probe::Process;

/// Sends increments, or events, to an ingest and says how it answered.
#[derive(Parser, Debug)]
pub struct Options {
    /// Where to: http://ADDRESS:PORT of the public port
    #[arg(long)]
    pub url: Option<String>,
    /// Connections, each with at most one request under way
    #[arg(long, default_value_t = 256)]
    pub connections: usize,
    /// Items a request: 1 sends a single object, more an array
    #[arg(long, default_value_t = 1)]
    pub batch: usize,
    /// Items a second, by due time (open loop); without it every connection sends as soon as it has its answer
    #[arg(long)]
    pub rate: Option<f64>,
    /// Seconds that are measured
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// Seconds of the same load before that
    #[arg(long, default_value_t = 2.0)]
    pub warmup: f64,
    /// Stop after so many items, all of them answered; give --warmup 0 to measure them all
    #[arg(long)]
    pub items: Option<u64>,
    /// Send events with small properties instead of increments
    #[arg(long)]
    pub events: bool,
    /// Different subjects of events, drawn all alike; 0: a new one for each
    #[arg(long, default_value_t = 0)]
    pub subjects: u64,
    /// Different series
    #[arg(long, default_value_t = 100_000)]
    pub series: usize,
    /// Exponent of the zipf law by which they are drawn; 0 draws all alike
    #[arg(long, default_value_t = 1.1)]
    pub zipf: f64,
    /// Send no ids: ingest may merge the items
    #[arg(long)]
    pub no_ids: bool,
    /// Ask the ingest to write around the hot view
    #[arg(long)]
    pub hot_skip: bool,
    /// The admin port's address, to watch the lag
    #[arg(long)]
    pub admin: Option<SocketAddr>,
    /// The server's process, to watch its CPU time and memory
    #[arg(long)]
    pub pid: Option<u32>,
    /// Another process to watch, NAME=PID; may be repeated
    #[arg(long = "process", value_name = "NAME=PID")]
    pub processes: Vec<Process>,
    /// A histogram on a server's /metrics, NAME=ADDRESS:PORT/METRIC: its quantiles over the measured time; may be repeated
    #[arg(long = "histogram", value_name = "NAME=ADDRESS:PORT/METRIC")]
    pub shown: Vec<Shown>,
    /// One line of flat JSON instead of text
    #[arg(long)]
    pub json: bool,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    pub bench: bool,
}

impl Options {
    /// The address and the `Host` to send to.
    pub fn target(&self) -> anyhow::Result<Option<SocketAddr>> {
        anyhow::ensure!(self.connections >= 1 && self.batch >= 1, "--connections and --batch are at least 1");
        anyhow::ensure!(!self.events || !self.no_ids, "--events have ids: ingest would make them otherwise");
        anyhow::ensure!(self.rate.is_none_or(|rate| rate > 0.0), "--rate is more than 0");
        let Some(url) = &self.url else { return Ok(None) };
        let address = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
        address.parse().map(Some).with_context(|| format!("--url {url}: expected http://ADDRESS:PORT, a number each"))
    }

    /// What its requests look like.
    pub fn shape(&self) -> Shape {
        let subjects = self.events.then_some(self.subjects);
        Shape { batch: self.batch, ids: !self.no_ids, hot_skip: self.hot_skip, subjects }
    }

    /// The load before the measurement.
    pub fn warmup(&self) -> Duration {
        Duration::from_secs_f64(self.warmup)
    }

    /// The measurement.
    pub fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}
