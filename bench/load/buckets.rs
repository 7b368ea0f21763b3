//! A server's own histogram, read from its `/metrics`.

use std::collections::BTreeMap;

use crate::probe::samples;

/// A histogram: cumulative counts by upper bound in nanoseconds, summed over its other labels.
#[derive(Clone, Debug, Default)]
pub struct Buckets(BTreeMap<u64, f64>);

impl Buckets {
    /// Reads it from an exposition.
    pub fn read(text: &str, name: &str) -> Self {
        let mut buckets = BTreeMap::<u64, f64>::new();
        for (labels, count) in samples(text, &format!("{name}_bucket")) {
            let bound = labels.split("le=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
            // Infinity becomes the largest number.
            let bound = bound.parse::<f64>().map_or(u64::MAX, |seconds| (seconds * 1e9) as u64);
            *buckets.entry(bound).or_default() += count;
        }
        Self(buckets)
    }

    /// What was observed since, and the duration in milliseconds that this share of it did not exceed: linear within a
    /// bucket. What lies past the last bound counts as the last bound.
    pub fn quantile_ms_since(&self, before: &Self, share: f64) -> f64 {
        let since = self.0.iter().map(|(bound, count)| (*bound, count - before.0.get(bound).unwrap_or(&0.0)));
        let since: Vec<_> = since.collect();
        let rank = since.last().map_or(0.0, |(_, total)| total * share);
        let (mut below, mut counted) = (0, 0.0);
        for (bound, count) in since {
            if count >= rank && count > counted && bound < u64::MAX {
                let within = (rank - counted) / (count - counted);
                return (below as f64 + (bound - below) as f64 * within) / 1e6;
            }
            if bound < u64::MAX {
                (below, counted) = (bound, count);
            }
        }
        below as f64 / 1e6
    }
}
