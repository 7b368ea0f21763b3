//! Reading our own metrics back from the text that `/metrics` serves: the one place where all rooms' figures meet.

use std::collections::HashMap;

/// Upper bounds and cumulative counts, by rising bound.
pub(super) type Buckets = Vec<(f64, f64)>;

/// The series of an exposition, summed over their labels.
#[derive(Debug, Default)]
pub(super) struct Sums<'a> {
    values: HashMap<&'a str, f64>,
    buckets: HashMap<&'a str, Buckets>,
}

impl<'a> Sums<'a> {
    /// Reads a text; what is not a sample is left out.
    pub(super) fn read(text: &'a str) -> Self {
        let mut sums = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.trim_end().rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let bound = name.strip_suffix("_bucket").zip(label(labels, "le").and_then(|le| le.parse::<f64>().ok()));
            let Some((histogram, bound)) = bound else {
                *sums.values.entry(name).or_default() += value;
                continue;
            };
            let buckets = sums.buckets.entry(histogram).or_default();
            match buckets.binary_search_by(|(at, _)| at.total_cmp(&bound)) {
                Ok(at) => buckets[at].1 += value,
                Err(at) => buckets.insert(at, (bound, value)),
            }
        }
        sums
    }

    /// The sum over a metric's series; 0 when there is none.
    pub(super) fn value(&self, metric: crate::metrics::Metric) -> f64 {
        self.values.get(metric.name).copied().unwrap_or(0.0)
    }

    /// A histogram's buckets; none when it is not there or not served as buckets.
    pub(super) fn buckets(&self, metric: crate::metrics::Metric) -> Buckets {
        self.buckets.get(metric.name).cloned().unwrap_or_default()
    }
}

/// The value of a label that has no escapes in it.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let at = labels.find(&format!("{name}=\""))?;
    labels[at + name.len() + 2..].split('"').next()
}

/// The quantile of what was observed between two readings, linear within its bucket as Prometheus has it; `None` when
/// nothing was observed. What lies past the last bound counts as the last bound.
pub(super) fn quantile(q: f64, before: &Buckets, after: &Buckets) -> Option<f64> {
    let earlier =
        |bound: f64| before.iter().find(|(at, _)| at.total_cmp(&bound).is_eq()).map_or(0.0, |(_, count)| *count);
    let seen: Vec<(f64, f64)> = after.iter().map(|(bound, count)| (*bound, count - earlier(*bound))).collect();
    let total = seen.last()?.1;
    if total <= 0.0 {
        return None;
    }
    let rank = q * total;
    let mut below = (0.0, 0.0);
    for (bound, count) in seen {
        if count >= rank {
            let within = if count > below.1 { (rank - below.1) / (count - below.1) } else { 1.0 };
            let bound = if bound.is_finite() { below.0 + (bound - below.0) * within } else { below.0 };
            return Some(bound);
        }
        below = (if bound.is_finite() { bound } else { below.0 }, count);
    }
    Some(below.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::metrics;

    const TEXT: &str = r#"# HELP tallymark_ingest_items_total Items.
# TYPE tallymark_ingest_items_total counter
tallymark_ingest_items_total{kind="increment"} 40
tallymark_ingest_items_total{kind="event"} 2

tallymark_ingest_buffered_bytes 4096
tallymark_log_append_seconds_bucket{le="0.01"} 90
tallymark_log_append_seconds_bucket{le="0.1"} 100
tallymark_log_append_seconds_bucket{le="+Inf"} 100
tallymark_log_append_seconds_sum 1.5
tallymark_log_append_seconds_count 100
odd{path="a b\"} c"} 7
nonsense
"#;

    #[test]
    fn series_are_summed_over_their_labels_and_histograms_by_bound() {
        let sums = Sums::read(TEXT);
        assert_eq!(sums.value(metrics::INGEST_ITEMS), 42.0);
        assert_eq!(sums.value(metrics::INGEST_BUFFERED_BYTES), 4096.0);
        assert_eq!(sums.value(metrics::STORE_RETRIES), 0.0);
        assert_eq!(sums.values.get("odd"), Some(&7.0));
        assert_eq!(sums.buckets(metrics::LOG_APPEND_SECONDS), [(0.01, 90.0), (0.1, 100.0), (f64::INFINITY, 100.0)]);
    }

    #[test]
    fn a_quantile_is_of_what_came_between_two_readings() {
        let after = Sums::read(TEXT).buckets(metrics::LOG_APPEND_SECONDS);
        let p99 = quantile(0.99, &Buckets::new(), &after).unwrap();
        assert!((p99 - 0.091).abs() < 1e-9, "{p99}");
        assert_eq!(quantile(0.99, &after, &after), None);
        assert_eq!(quantile(0.99, &Buckets::new(), &Buckets::new()), None);
        let past = vec![(0.1, 0.0), (f64::INFINITY, 5.0)];
        assert_eq!(quantile(0.99, &Buckets::new(), &past), Some(0.1));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "(?s).{0,200}", lines in "([a-z_{}=\"le+0-9. \n]|_bucket){0,80}") {
            let _ = Sums::read(&text);
            let sums = Sums::read(&lines);
            for buckets in sums.buckets.values() {
                let _ = quantile(0.99, &Buckets::new(), buckets);
            }
        }
    }
}
