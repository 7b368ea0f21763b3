//! The machine's own pauses, and what they alone would do to latency: a virtual machine's cores are taken away now and then by
//! whoever owns them, for milliseconds, and no program on it answers meanwhile.
//!
//! A thread a core does nothing but look at the clock; where the clock jumps, the core was gone. Then a server is imagined that has
//! what cores there were and loses nothing to anything else: it serves `--peak` requests a second while all cores are there. The
//! latency that it would show for requests due at `--rate` is the floor under what any program shows on this machine at such a
//! time. Run it with nothing else running, between the runs that it is held against.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use clap::Args;

use crate::histogram::Histogram;

/// A shorter jump of the clock is an interrupt's, or the look's own.
const PAUSE: Duration = Duration::from_micros(100);
/// The imagined server's steps.
const STEP: Duration = Duration::from_micros(50);

#[derive(Args)]
pub struct Options {
    /// Seconds that are measured
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// Requests a second that the imagined server serves while all cores are there
    #[arg(long)]
    peak: f64,
    /// Requests a second that are due
    #[arg(long)]
    rate: f64,
}

/// When a core was gone, from and to, since the beginning.
type Pause = (Duration, Duration);

fn pauses(begin: Instant, measured: Duration) -> Vec<Pause> {
    let (mut pauses, mut last) = (Vec::new(), begin.elapsed());
    while last < measured {
        let now = begin.elapsed();
        if now - last > PAUSE {
            pauses.push((last, now));
        }
        last = now;
    }
    pauses
}

/// What share of the cores there was in each step.
fn shares(cores: &[Vec<Pause>], measured: Duration) -> Vec<f64> {
    let step = |at: Duration| (at.as_secs_f64() / STEP.as_secs_f64()) as usize;
    let mut shares = vec![1.0; step(measured)];
    for (from, to) in cores.iter().flatten() {
        let gone = step(*from)..step(*to).min(shares.len());
        shares.get_mut(gone).into_iter().flatten().for_each(|share| *share -= 1.0 / cores.len() as f64);
    }
    shares
}

/// Latency from due time to answer, if a server had these shares of its peak.
fn imagined(shares: &[f64], peak: f64, rate: f64) -> Histogram {
    let (step, mut latency) = (STEP.as_secs_f64(), Histogram::default());
    let (mut served, mut ready) = (0u64, 0.0);
    for (number, share) in shares.iter().enumerate() {
        let now = (number + 1) as f64 * step;
        ready += share * peak * step;
        while ready >= 1.0 && served as f64 / rate <= now {
            latency.record(Duration::from_secs_f64(now - served as f64 / rate));
            served += 1;
            ready -= 1.0;
        }
        // What was not needed is gone: nothing can be served before it is due.
        ready = ready.min(1.0);
    }
    latency
}

/// Named figures.
pub fn run(options: &Options) -> anyhow::Result<Vec<(String, f64)>> {
    ensure!(options.rate > 0.0 && options.peak > 0.0 && options.seconds > 0.0, "rates and seconds must be above 0");
    let (begin, measured) = (Instant::now(), Duration::from_secs_f64(options.seconds));
    let cores: Vec<_> = thread::scope(|scope| {
        let looking: Vec<_> = (0..thread::available_parallelism().map_or(1, usize::from))
            .map(|_| scope.spawn(|| pauses(begin, measured)))
            .collect();
        looking.into_iter().map(|core| core.join().expect("looking at the clock does not panic")).collect()
    });
    let shares = shares(&cores, measured);
    let latency = imagined(&shares, options.peak, options.rate);
    let longest = cores.iter().flatten().map(|(from, to)| *to - *from).max().unwrap_or_default();
    let figures = [
        ("p50_ms", latency.quantile_ms(0.5)),
        ("p99_ms", latency.quantile_ms(0.99)),
        ("p999_ms", latency.quantile_ms(0.999)),
        ("longest_ms", longest.as_secs_f64() * 1e3),
        ("gone_share", 1.0 - shares.iter().sum::<f64>() / shares.len().max(1) as f64),
    ];
    Ok(figures.map(|(name, figure)| (name.to_owned(), figure)).into())
}
