//! Every metric's name, unit, labels and help: the catalogue that `/metrics` serves and `docs/metrics.md` prints.
//!
//! Other rooms take handles from here ([`Metric::counter`], [`Metric::gauge`], [`Metric::histogram`]) and keep them; the
//! raw macros of the `metrics` crate are banned elsewhere. Labels are bounded sets: a lane, a status, an error kind;
//! never a series, an id, or a user's text.

pub use metrics::{Counter, Gauge, Histogram};
use metrics::{Key, Label, Level, Metadata, SharedString, Unit, with_recorder};

/// What a metric does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// Only rises.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution, with these upper bounds.
    Histogram(&'static [f64]),
}

/// One metric of the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its full name, with the unit.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub shape: Shape,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says, for people.
    pub help: &'static str,
}

/// From 50 µs to 10 s.
const SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// From 64 B to 4 MiB.
const BYTES: &[f64] = &[64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0];
/// From one to a million.
const COUNTS: &[f64] = &[1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6];

macro_rules! catalogue {
    ($($(#[$doc:meta])* $ident:ident = $shape:expr, $name:literal, [$($label:literal),*], $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $ident: Metric = Metric { name: $name, shape: $shape, labels: &[$($label),*], help: $help };
        )*
        /// Every metric, in the order of the data path.
        pub const CATALOGUE: &[Metric] = &[$($ident),*];
    };
}

catalogue! {
    BUILD_INFO = Shape::Gauge, "tallymark_build_info", ["version", "role"], "Always 1; its labels say what runs.";
    HTTP_REQUESTS = Shape::Counter, "tallymark_http_requests_total", ["route", "status"], "Answers by route and status code.";
    HTTP_SECONDS = Shape::Histogram(SECONDS), "tallymark_http_request_seconds", ["route"], "From the request's head to its answer.";
    INGEST_ITEMS = Shape::Counter, "tallymark_ingest_items_total", ["kind"], "Items acknowledged, by kind (increment, event).";
    INGEST_REJECTED = Shape::Counter, "tallymark_ingest_rejected_items_total", ["code"], "Items refused, by code.";
    INGEST_REFUSED = Shape::Counter, "tallymark_ingest_refused_requests_total", ["reason"], "Requests refused because a bound was reached or the log was away.";
    INGEST_BUFFERED_BYTES = Shape::Gauge, "tallymark_ingest_buffered_bytes", [], "Bytes of bodies being read and of items in open or unacknowledged packs.";
    INGEST_BUFFER_LIMIT_BYTES = Shape::Gauge, "tallymark_ingest_buffer_limit_bytes", [], "The bound of tallymark_ingest_buffered_bytes (ingest.buffer).";
    PACK_BYTES = Shape::Histogram(BYTES), "tallymark_pack_bytes", [], "Size of packs as written.";
    PACK_ITEMS = Shape::Histogram(COUNTS), "tallymark_pack_items", [], "Items in a pack.";
    PACK_REQUESTS = Shape::Histogram(COUNTS), "tallymark_pack_requests", [], "Requests that share a pack.";
    LOG_APPEND_SECONDS = Shape::Histogram(SECONDS), "tallymark_log_append_seconds", [], "From handing a pack to the log to its acknowledgement.";
    LOG_APPEND_FAILURES = Shape::Counter, "tallymark_log_append_failures_total", ["kind"], "Appends that failed, by error kind.";
    HOT_SKIPPED = Shape::Counter, "tallymark_hot_skipped_packs_total", ["reason"], "Packs whose deltas did not reach the hot view, by reason.";
    HOT_READS = Shape::Counter, "tallymark_hot_reads_total", ["result"], "Reads of the hot view, by result (hit, stale, miss, error).";
    HOT_DRIFT = Shape::Counter, "tallymark_hot_drift_total", [], "Published entries whose view differed from the truth.";
    HOT_PUT_OFF = Shape::Counter, "tallymark_hot_put_off_publishes_total", [], "Publishes of entries that waited for another flush because hot.publish_budget was used up.";
    HOT_CONNECTED = Shape::Gauge, "tallymark_hot_connected_servers", [], "Redis servers of the hot view that are connected.";
    HOT_UNSURE = Shape::Counter, "tallymark_hot_unsure_packs_total", [], "Packs whose deltas may not have reached Redis; entries are stale until their lane has published past them.";
    HOT_LEFT_OUT = Shape::Counter, "tallymark_hot_left_out_total", [], "Deltas left out of entries in Redis that held hot.max_pending of them.";
    HOT_DROPPED = Shape::Counter, "tallymark_hot_dropped_entries_total", [], "Entries deleted because Redis had no memory for their deltas.";
    HOT_GENERATIONS = Shape::Counter, "tallymark_hot_generations_total", [], "Times that every entry in Redis was declared outdated because publishes were lost.";
    LANE_PACKS = Shape::Counter, "tallymark_lane_packs_total", ["partition"], "Packs applied.";
    LANE_ITEMS = Shape::Counter, "tallymark_lane_items_total", ["partition"], "Items applied, duplicates included.";
    LANE_DUPLICATES = Shape::Counter, "tallymark_lane_duplicate_items_total", ["partition"], "Items dropped because their id was seen within the dedup window.";
    DEAD_LETTERS = Shape::Counter, "tallymark_dead_letters_total", ["partition", "reason"], "Records that no lane can apply and that went to the dead letters, by reason (damaged, malformed, misplaced, replay, before).";
    LANE_APPLY_SECONDS = Shape::Histogram(SECONDS), "tallymark_lane_apply_seconds", [], "Decoding, deduplicating and folding one batch of packs.";
    LANE_ROWS = Shape::Gauge, "tallymark_lane_rows", ["partition"], "Rows in a lane's memory.";
    LANE_DIRTY_ROWS = Shape::Gauge, "tallymark_lane_dirty_rows", ["partition"], "Rows that the store does not have yet.";
    LANE_PAUSED = Shape::Gauge, "tallymark_lane_paused", ["partition"], "1 while the lane waits for the store.";
    LANE_HALTED = Shape::Gauge, "tallymark_lane_halted", ["partition"], "1 when the lane has halted (law 6).";
    DEDUP_IDS = Shape::Gauge, "tallymark_dedup_ids", ["partition"], "Ids that the lane remembers.";
    DEDUP_WINDOW_SECONDS = Shape::Gauge, "tallymark_dedup_window_seconds", ["partition"], "The window that is in effect: shorter than dedup.window when dedup.max_ids binds.";
    FLUSH_SECONDS = Shape::Histogram(SECONDS), "tallymark_flush_seconds", [], "Writing what a lane has coalesced.";
    FLUSH_ROWS = Shape::Histogram(COUNTS), "tallymark_flush_rows", [], "Rows of one flush.";
    FLUSH_DELTAS = Shape::Counter, "tallymark_flush_deltas_total", [], "Deltas that flushed rows stand for; divided by tallymark_store_rows_total it is the coalescing ratio.";
    STORE_ROWS = Shape::Counter, "tallymark_store_rows_total", ["table"], "Rows written, by table.";
    STORE_MUTATIONS = Shape::Counter, "tallymark_store_mutations_total", ["table"], "Mutations written, by table.";
    STORE_RETRIES = Shape::Counter, "tallymark_store_retries_total", [], "Writes tried again.";
    STORE_ERRORS = Shape::Counter, "tallymark_store_errors_total", ["kind"], "Errors of the store, by kind.";
    STORE_RESTARTS = Shape::Counter, "tallymark_store_restarts_total", [], "Times that a server of the store was seen to have started again, or was away for too long: the lanes go back to their checkpoints.";
    STORE_AWAY = Shape::Gauge, "tallymark_store_away_servers", [], "Servers of the store that do not answer; checkpoints wait for them, for a while.";
    INGEST_TO_STORED_SECONDS = Shape::Histogram(SECONDS), "tallymark_ingest_to_stored_seconds", [], "From a pack's receipt to its rows in the store, per pack.";
    LAG_PACKS = Shape::Gauge, "tallymark_lag_packs", ["partition"], "Packs in the log and not in the store.";
    LAG_SECONDS = Shape::Gauge, "tallymark_lag_seconds", ["partition"], "Age of the oldest pack that is not in the store.";
    LANE_STATUS = Shape::Gauge, "tallymark_lane_status", ["partition"], "0 OK, 1 WARN, 2 STALL, 3 STOP, 4 REWIND, 5 HALTED.";
    LOG_END = Shape::Gauge, "tallymark_log_end_seq", ["partition"], "One past the last pack of the lane.";
    STORED_SEQ = Shape::Gauge, "tallymark_stored_seq", ["partition"], "The last pack of the lane that is in the store; -1: none.";
    CHECKPOINT_SEQ = Shape::Gauge, "tallymark_checkpoint_seq", ["partition"], "The lane's checkpoint; -1: none.";
    PROCESS_RESIDENT_BYTES = Shape::Gauge, "tallymark_process_resident_bytes", [], "Memory of the process that is in use.";
}

const METADATA: Metadata<'static> = Metadata::new("tallymark", Level::INFO, None);

impl Metric {
    fn key(&self, values: &[&str]) -> Key {
        debug_assert_eq!(values.len(), self.labels.len(), "{} takes the labels {:?}", self.name, self.labels);
        let labels = self.labels.iter().zip(values).map(|(name, value)| Label::new(*name, (*value).to_owned()));
        Key::from_parts(self.name, labels.collect::<Vec<_>>())
    }

    /// The handle of this counter with these label values.
    pub fn counter(&self, values: &[&str]) -> Counter {
        debug_assert_eq!(self.shape, Shape::Counter, "{}", self.name);
        with_recorder(|recorder| recorder.register_counter(&self.key(values), &METADATA))
    }

    /// The handle of this gauge with these label values.
    pub fn gauge(&self, values: &[&str]) -> Gauge {
        debug_assert_eq!(self.shape, Shape::Gauge, "{}", self.name);
        with_recorder(|recorder| recorder.register_gauge(&self.key(values), &METADATA))
    }

    /// The handle of this histogram with these label values.
    pub fn histogram(&self, values: &[&str]) -> Histogram {
        debug_assert!(matches!(self.shape, Shape::Histogram(_)), "{}", self.name);
        with_recorder(|recorder| recorder.register_histogram(&self.key(values), &METADATA))
    }

    fn unit(&self) -> Option<Unit> {
        let name = self.name.trim_end_matches("_total");
        if name.ends_with("_seconds") {
            Some(Unit::Seconds)
        } else if name.ends_with("_bytes") {
            Some(Unit::Bytes)
        } else {
            None
        }
    }
}

/// Tells the recorder every metric's help and unit.
pub fn describe() {
    with_recorder(|recorder| {
        for metric in CATALOGUE {
            let name = metrics::KeyName::from_const_str(metric.name);
            let help = SharedString::const_str(metric.help);
            match metric.shape {
                Shape::Counter => recorder.describe_counter(name, metric.unit(), help),
                Shape::Gauge => recorder.describe_gauge(name, metric.unit(), help),
                Shape::Histogram(_) => recorder.describe_histogram(name, metric.unit(), help),
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_say_their_shape() {
        let mut names: Vec<_> = CATALOGUE.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CATALOGUE.len());
        for metric in CATALOGUE {
            assert!(metric.name.starts_with("tallymark_"), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.shape == Shape::Counter, "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}
