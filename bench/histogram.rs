//! Durations counted in buckets: how long the median took, and the slowest of a hundred.

use std::time::Duration;

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
