//! What holds for every entry, and what this process knows of it.
//!
//! The marks are one hash in Redis, so that they are lost together or not at all:
//!
//! | field | value |
//! | --- | --- |
//! | `g` | the generation that `full` must name: a random word, another one when publishes were lost |
//! | `l` | `LANE=END,…`: lanes of which deltas may not have arrived, and one past their seqs |
//! | `v` | how many series were announced |
//! | `1`, `2`, … | the announced series' hashes |
//!
//! **Announced series.** Nobody reads most series, and a delta for one that nobody reads is only work. So a load announces its
//! series before anything else, and `add` asks for `v` in the same pipeline as its writes. When `v` is what it was, no
//! load began before the pack was in the log, and whoever loads later reads the log's end above it. When it is not, the
//! new ones are fetched and what was left out is added before the acknowledgement. Without marks (evicted, flushed)
//! there is no generation, and no entry is full.
//!
//! **Deltas that may be lost.** An `add` that was not answered may not have arrived. Its lane and seq are remembered here,
//! told to the marks when the server answers again, and forgotten when the lane's publishes have passed them.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use hashbrown::HashSet;
use redis::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::node::bytes_of;
use crate::hot::HotKey;

/// Most series that are announced at a time.
pub(super) const MAX_SERIES: u64 = 200_000;

/// Which announced series somebody knows: the first so many of a generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// The generation, with the run of the server that holds the marks: what it lost by a restart is another generation.
    pub(super) generation: Option<Arc<str>>,
    pub(super) announced: u64,
}

/// What the marks said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) extent: Extent,
    /// Lanes and ends.
    pub(super) lost: Vec<(String, u64)>,
}

impl Said {
    /// The answer to `HMGET marks g v l`, of a server in this run.
    pub(super) fn read(value: &Value, run: &str) -> Self {
        let text = |at: usize| match value {
            Value::Array(fields) => fields.get(at).and_then(bytes_of).and_then(|bytes| std::str::from_utf8(bytes).ok()),
            _ => None,
        };
        let lost = text(2).unwrap_or_default().split(',').filter_map(|lost| {
            let (lane, end) = lost.split_once('=')?;
            Some((lane.to_owned(), end.parse().ok()?))
        });
        let extent = Extent {
            generation: text(0).map(|generation| format!("{run}.{generation}").into()),
            announced: text(1).and_then(|count| count.parse().ok()).unwrap_or(0),
        };
        Self { extent, lost: lost.collect() }
    }
}

#[derive(Default)]
struct Lost {
    end: u64,
    told: bool,
}

#[derive(Default)]
struct Known {
    extent: Extent,
    /// Hashes of the series in it.
    series: HashSet<u64>,
    /// One past the seq up to which each lane's publishes are through.
    published: HashMap<String, u64>,
    lost: HashMap<String, Lost>,
    /// From where this process publishes each lane, while Redis has not been told.
    from: HashMap<String, u64>,
}

/// What this process knows of the marks.
#[derive(Default)]
pub(super) struct Marks {
    known: RwLock<Known>,
}

/// The name of a series among the announced ones.
pub(super) fn hash(key: &HotKey) -> u64 {
    xxh3_64(&key.key)
}

impl Marks {
    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The generation that the marks had when they were last asked.
    pub(super) fn generation(&self) -> Option<Arc<str>> {
        self.read().extent.generation.clone()
    }

    /// Which of these series were announced, as far as is known here; and how far that is.
    pub(super) fn announced<'a>(&self, keys: impl Iterator<Item = &'a HotKey>) -> (Extent, Vec<bool>) {
        let known = self.read();
        let none = known.series.is_empty();
        let announced = keys.map(|key| !none && known.series.contains(&hash(key))).collect();
        (known.extent.clone(), announced)
    }

    /// Which numbers are still to be fetched to know all of this extent: from the first to the second.
    pub(super) fn behind(&self, said: &Extent) -> Option<(u64, u64)> {
        if self.read().extent == *said {
            return None;
        }
        let mut known = self.write();
        if known.extent.generation != said.generation || known.extent.announced > said.announced {
            known.extent = Extent { generation: said.generation.clone(), announced: 0 };
            known.series.clear();
        }
        (known.extent.announced < said.announced).then_some((known.extent.announced + 1, said.announced))
    }

    /// Takes what was fetched: the hashes of the numbers from `first` on, of this extent's generation.
    pub(super) fn fetched(&self, said: &Extent, first: u64, values: &Value) {
        let Value::Array(values) = values else { return };
        let mut known = self.write();
        // Somebody else may have fetched them, or the generation may be another one already.
        if known.extent.generation != said.generation || known.extent.announced + 1 < first {
            return;
        }
        for (number, value) in (first..).zip(values) {
            let Some(hash) = bytes_of(value).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok()) else {
                return;
            };
            known.series.insert(hash);
            known.extent.announced = known.extent.announced.max(number);
        }
    }

    /// Notes that the lane's publishes below `end` are through.
    pub(super) fn published(&self, lane: &str, end: u64) {
        let mut known = self.write();
        if let Some(known) = known.published.get_mut(lane) {
            *known = end.max(*known);
        } else {
            known.published.insert(lane.to_owned(), end);
        }
        if known.lost.get(lane).is_some_and(|lost| lost.end <= end) {
            known.lost.remove(lane);
        }
    }

    /// How far the lane's publishes are known to be through.
    pub(super) fn reached(&self, lane: &str) -> u64 {
        self.read().published.get(lane).copied().unwrap_or(0)
    }

    /// Notes that deltas of the lane below `end` may not have arrived.
    pub(super) fn lose(&self, lane: &str, end: u64) {
        let mut known = self.write();
        let lost = known.lost.entry(lane.to_owned()).or_default();
        if lost.end < end {
            *lost = Lost { end, told: false };
        }
    }

    /// Every lane of which deltas may not have arrived, as far as this process knows.
    pub(super) fn lost(&self) -> Vec<(String, u64)> {
        self.read().lost.iter().map(|(lane, lost)| (lane.clone(), lost.end)).collect()
    }

    /// Those of which the marks do not know yet.
    pub(super) fn untold(&self) -> Vec<(String, u64)> {
        let known = self.read();
        known.lost.iter().filter(|(_, lost)| !lost.told).map(|(lane, lost)| (lane.clone(), lost.end)).collect()
    }

    /// The marks know of these now.
    pub(super) fn told(&self, lanes: &[(String, u64)]) {
        let mut known = self.write();
        for (lane, end) in lanes {
            if let Some(lost) = known.lost.get_mut(lane).filter(|lost| lost.end == *end) {
                lost.told = true;
            }
        }
    }

    /// This process publishes the lane completely from here on.
    pub(super) fn begin(&self, lane: String, from: u64) {
        self.write().from.insert(lane, from);
    }

    /// From where this process publishes the lane, while Redis has not been told.
    pub(super) fn begun(&self, lane: &str) -> Option<u64> {
        self.read().from.get(lane).copied()
    }

    /// Redis has been told.
    pub(super) fn begin_told(&self, lane: &str, from: u64) {
        let mut known = self.write();
        if known.from.get(lane) == Some(&from) {
            known.from.remove(lane);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hot::HotKind;

    fn said(generation: &str, announced: u64) -> Extent {
        Extent { generation: Some(generation.into()), announced }
    }

    fn series(name: &str) -> HotKey {
        HotKey { kind: HotKind::Series, key: name.as_bytes().to_vec().into() }
    }

    fn hashes(names: &[&str]) -> Value {
        let hash = |name: &&str| Value::BulkString(hash(&series(name)).to_string().into_bytes());
        Value::Array(names.iter().map(hash).collect())
    }

    #[test]
    fn announced_series_are_known_up_to_what_was_fetched_and_forgotten_with_their_generation() {
        let marks = Marks::default();
        let keys = ["a", "b"].map(series);
        let known = || marks.announced(keys.iter());
        assert_eq!(marks.behind(&said("g", 2)), Some((1, 2)));
        marks.fetched(&said("g", 2), 1, &hashes(&["a"]));
        assert_eq!(known(), (said("g", 1), vec![true, false]));
        assert_eq!(marks.behind(&said("g", 2)), Some((2, 2)));
        marks.fetched(&said("g", 2), 2, &hashes(&["b"]));
        assert_eq!(marks.behind(&said("g", 2)), None);
        assert_eq!(known(), (said("g", 2), vec![true, true]));
        // Fewer than before: it is not the same list.
        assert_eq!(marks.behind(&said("g", 1)), Some((1, 1)));
        assert_eq!(known(), (said("g", 0), vec![false, false]));
        assert_eq!(marks.behind(&said("h", 0)), None);
        assert_eq!(marks.generation().as_deref(), Some("h"));
        // What was on its way meanwhile is not taken.
        marks.fetched(&said("g", 2), 1, &hashes(&["a"]));
        assert_eq!(known(), (said("h", 0), vec![false, false]));
    }

    #[test]
    fn what_may_be_lost_is_told_once_and_forgotten_when_it_is_published() {
        let marks = Marks::default();
        marks.lose("a.0", 5);
        marks.lose("a.0", 3);
        assert_eq!(marks.untold(), [("a.0".to_owned(), 5)]);
        marks.told(&[("a.0".to_owned(), 4)]);
        assert_eq!(marks.untold(), [("a.0".to_owned(), 5)]);
        marks.told(&[("a.0".to_owned(), 5)]);
        assert_eq!(marks.untold(), []);
        marks.lose("a.0", 5);
        assert_eq!(marks.untold(), []);
        marks.published("a.0", 4);
        assert_eq!(marks.lost(), [("a.0".to_owned(), 5)]);
        marks.published("a.0", 5);
        assert_eq!(marks.lost(), []);
    }

    #[test]
    fn marks_are_read_as_they_are_written() {
        let value = Value::Array(vec![
            Value::BulkString(b"g1".to_vec()),
            Value::Nil,
            Value::BulkString(b"a.0=5,a.1=7".to_vec()),
        ]);
        let lost = vec![("a.0".to_owned(), 5), ("a.1".to_owned(), 7)];
        assert_eq!(Said::read(&value, "run"), Said { extent: said("run.g1", 0), lost });
        assert_eq!(Said::read(&Value::Array(vec![Value::Nil, Value::Nil, Value::Nil]), "run"), Said::default());
    }
}
