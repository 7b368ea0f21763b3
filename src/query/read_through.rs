//! Whole-counter totals through the hot view: a hit is answered from it, a miss loads the entry from the store.
//!
//! One load per key runs in this process at a time. It is a shared future that everybody who waits for it drives, so it
//! needs no task, and one that hangs up does not take it from the others. A load that was under way when a request came
//! may have read the ends before something was acknowledged that the request must see: so whoever joined one asks the
//! hot view again, and, when that still lacks the entry, takes only the next load's word.
//!
//! A load makes an entry, and an entry says that its counter is known. So a name that the hot view does not have is
//! looked up in the store before a load begins, and a name that nobody has counted makes no entry.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{
    FutureExt as _, StreamExt as _, TryStreamExt as _,
    future::{BoxFuture, Shared, WeakShared},
    stream,
};

use super::{
    Error, Inner,
    freshness::{Source, Standing},
    layout::{Place, counter_row},
    merge::READS_AT_ONCE,
};
use crate::{
    clock,
    hot::{self, HotKey, HotKind, LoadedBase, View},
    item::{Lane, Namespace, Seq, SeriesRef},
    store::{self, TotalRow},
};

/// A counter's total and where it comes from.
#[derive(Clone, Debug)]
pub(super) struct Total {
    pub(super) total: i128,
    pub(super) source: Source,
    pub(super) at_ms: i64,
    pub(super) stale: bool,
}

type Flight = BoxFuture<'static, Result<Option<Total>, Error>>;

/// The loads under way.
#[derive(Default)]
pub(super) struct Flights {
    under_way: Mutex<HashMap<HotKey, (u64, WeakShared<Flight>)>>,
    last: AtomicU64,
}

impl Flights {
    fn under_way(&self) -> MutexGuard<'_, HashMap<HotKey, (u64, WeakShared<Flight>)>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a load off the list, however it ends: also when everybody who waited for it is gone.
struct Landing {
    inner: Arc<Inner>,
    key: HotKey,
    number: u64,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut under_way = self.inner.flights.under_way();
        if under_way.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            under_way.remove(&self.key);
        }
    }
}

/// Most names that are remembered as unknown.
const MAX_UNKNOWN: usize = 10_000;

/// Counters that nobody had counted when the store was last asked, for a moment.
pub(super) struct Unknown {
    ttl: Duration,
    until: Mutex<HashMap<Bytes, Instant>>,
}

impl Unknown {
    pub(super) fn new(ttl: Duration) -> Self {
        Self { ttl, until: Mutex::default() }
    }

    fn until(&self) -> MutexGuard<'_, HashMap<Bytes, Instant>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn contains(&self, key: &Bytes) -> bool {
        self.until().get(key).is_some_and(|until| Instant::now() < *until)
    }

    fn insert(&self, key: Bytes) {
        if self.ttl.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut until = self.until();
        if until.len() >= MAX_UNKNOWN {
            until.retain(|_, until| now < *until);
        }
        if until.len() < MAX_UNKNOWN {
            until.insert(key, now + self.ttl);
        }
    }
}

/// The name of a whole counter's entry.
pub(super) fn counter_key(namespace: &Namespace, counter: &str) -> HotKey {
    let series = SeriesRef { namespace: namespace.as_str(), counter, tags: "" };
    HotKey { kind: HotKind::Counter, key: series.to_key().into() }
}

impl Inner {
    /// Asks the hot view; what fails or takes too long is nothing worse than a miss.
    async fn ask_hot<T>(&self, answer: impl Future<Output = Result<T, hot::Error>>) -> Option<T> {
        match tokio::time::timeout(self.hot_timeout, answer).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => tracing::debug!(%error, "the hot view failed"),
            Err(_) => tracing::debug!("the hot view took too long"),
        }
        self.metrics.error.increment(1);
        None
    }

    /// The entry's value, when the hot view has it.
    pub(super) async fn hot_total(&self, key: &HotKey) -> Option<Total> {
        if !self.hot_holds {
            return None;
        }
        let at_ms = clock::now_ms();
        match self.ask_hot(self.hot.read(std::slice::from_ref(key))).await?.pop() {
            Some(View::Full { total, stale }) => {
                if stale { &self.metrics.stale } else { &self.metrics.hit }.increment(1);
                Some(Total { total, source: Source::Hot, at_ms, stale })
            }
            _ => {
                self.metrics.miss.increment(1);
                None
            }
        }
    }

    /// Whether the hot view has an entry of the counter: then it has been counted, if only a moment ago.
    pub(super) async fn hot_knows(&self, key: &HotKey) -> bool {
        self.hot_holds
            && self.ask_hot(self.hot.known(std::slice::from_ref(key))).await.is_some_and(|known| known.contains(&true))
    }

    /// The counter's total, from the hot view or through it; `None` when nobody has counted it.
    pub(super) async fn counter_total(
        self: &Arc<Self>,
        namespace: &Namespace,
        counter: &str,
    ) -> Result<Option<Total>, Error> {
        let key = counter_key(namespace, counter);
        if !self.hot_holds {
            return self.stored_total(namespace, counter).await;
        }
        let mut joined_one = false;
        loop {
            if let Some(total) = self.hot_total(&key).await {
                return Ok(Some(total));
            }
            let known = self.hot_knows(&key).await;
            if !known && self.unknown.contains(&key.key) {
                return Ok(None);
            }
            let (flight, mine) = self.flight(namespace, counter, &key, known);
            let loaded = flight.await?;
            if mine || joined_one {
                let Some(loaded) = loaded else { return Ok(None) };
                return Ok(Some(self.hot_total(&key).await.unwrap_or(loaded)));
            }
            // It may have begun before this request came. The next one begins after it has landed.
            joined_one = true;
        }
    }

    /// The load of this key that is under way, or a new one, which is the caller's.
    fn flight(
        self: &Arc<Self>,
        namespace: &Namespace,
        counter: &str,
        key: &HotKey,
        known: bool,
    ) -> (Shared<Flight>, bool) {
        let mut under_way = self.flights.under_way();
        if let Some(flight) = under_way.get(key).and_then(|(_, flight)| flight.upgrade()) {
            return (flight, false);
        }
        let number = self.flights.last.fetch_add(1, Ordering::Relaxed);
        let landing = Landing { inner: self.clone(), key: key.clone(), number };
        let (namespace, counter) = (namespace.clone(), counter.to_owned());
        let load = async move {
            let Landing { inner, key, .. } = &landing;
            inner.load(&namespace, &counter, key, known).await
        };
        let flight = load.boxed().shared();
        let weak = flight.downgrade().expect("a load that nobody has polled has not ended");
        under_way.insert(key.clone(), (number, weak));
        (flight, true)
    }

    async fn load(
        &self,
        namespace: &Namespace,
        counter: &str,
        key: &HotKey,
        known: bool,
    ) -> Result<Option<Total>, Error> {
        if !known && !self.stored_rows(namespace, counter).await?.iter().any(|(_, row)| row.is_some()) {
            self.unknown.insert(key.key.clone());
            return Ok(None);
        }
        // From here on publishes and deltas reach the entry; what went by before is in the log below the ends.
        let token = self.ask_hot(self.hot.begin_load(key)).await;
        let standing = self.standing().await?;
        let rows = self.stored_rows(namespace, counter).await?;
        if let (Some(token), Some(behind), Some(bases)) = (token, standing.behind(), bases(&rows, &standing)) {
            self.ask_hot(self.hot.finish_load(key, token, &bases, &behind)).await;
        }
        Ok(Some(total(&rows, &standing)))
    }

    /// The counter's total as the store has it, without the hot view; `None` when nobody has counted it.
    pub(super) async fn stored_total(&self, namespace: &Namespace, counter: &str) -> Result<Option<Total>, Error> {
        let standing = self.standing().await?;
        let rows = self.stored_rows(namespace, counter).await?;
        let counted =
            rows.iter().any(|(_, row)| row.is_some()) || self.hot_knows(&counter_key(namespace, counter)).await;
        Ok(counted.then(|| total(&rows, &standing)))
    }

    /// The whole-counter row of every lane, of every epoch.
    async fn stored_rows(&self, namespace: &Namespace, counter: &str) -> Result<Vec<(Lane, Option<TotalRow>)>, Error> {
        let places = self.layout().await?.of_counters(namespace);
        let name = counter_row(counter);
        let reads = places.into_iter().map(|Place { key, lane }| {
            let (store, name) = (self.store.clone(), name.clone());
            async move {
                let mut rows = store.totals_named(&key, &[name]).await?;
                Ok::<_, store::Error>((lane, rows.pop().flatten()))
            }
        });
        let rows = stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await?;
        self.store_answered();
        Ok(rows)
    }

    /// Whether anybody has counted this counter.
    pub(super) async fn is_known(&self, namespace: &Namespace, counter: &str) -> Result<bool, Error> {
        Ok(self.hot_knows(&counter_key(namespace, counter)).await
            || self.stored_rows(namespace, counter).await?.iter().any(|(_, row)| row.is_some()))
    }
}

fn total(rows: &[(Lane, Option<TotalRow>)], standing: &Standing) -> Total {
    let total = rows.iter().flat_map(|(_, row)| row).fold(0_i128, |sum, row| sum.saturating_add(row.total));
    Total { total, source: Source::Store, at_ms: standing.at_ms, stale: standing.stale() }
}

/// Each lane's total over its epochs, as of the last seq that it is known to include: what was stored before the rows were
/// read, or a row that was written since. `None` when a lane has several rows and one was written since: the sum is then as
/// of no seq at all.
fn bases(rows: &[(Lane, Option<TotalRow>)], standing: &Standing) -> Option<Vec<LoadedBase>> {
    let mut lanes: HashMap<Lane, Option<(i128, Seq)>> = HashMap::new();
    for (lane, row) in rows {
        let base = lanes.entry(*lane).or_insert_with(|| standing.stored.get(lane).map(|stored| (0, *stored)));
        if let Some(row) = row {
            let (total, seq) = base.unwrap_or((0, row.seq));
            *base = Some((total.saturating_add(row.total), seq.max(row.seq)));
        }
    }
    let there = |lane: Lane| rows.iter().filter(move |(of, row)| *of == lane && row.is_some()).count();
    let unsure = |(lane, base): (&Lane, &Option<(i128, Seq)>)| {
        base.is_some_and(|(_, seq)| standing.stored.get(lane).is_none_or(|stored| *stored < seq)) && there(*lane) > 1
    };
    if lanes.iter().any(unsure) {
        return None;
    }
    Some(lanes.into_iter().map(|(lane, base)| LoadedBase { lane, base }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        item::{Stamp, TopicId},
        store::RowName,
    };

    fn row(total: i128, seq: u64) -> Option<TotalRow> {
        let name = RowName { counter: "c".into(), tags: "".into() };
        Some(TotalRow { name, total, seq: Seq(seq), stamp: Stamp(0) })
    }

    #[test]
    fn a_base_is_a_lanes_sum_over_its_epochs_as_of_the_highest_seq_it_includes() {
        let lane = |partition| Lane { topic_id: TopicId([1; 16]), partition };
        let stored = [(lane(0), Seq(7)), (lane(2), Seq(3))].into_iter().collect();
        let standing = Standing { at_ms: 0, ends: None, stored: Arc::new(stored) };
        let rows = [(lane(0), row(5, 4)), (lane(0), row(6, 7)), (lane(1), None), (lane(2), None), (lane(3), row(1, 2))];
        let torn = [(lane(0), row(5, 4)), (lane(0), row(6, 8))];
        assert_eq!(bases(&torn, &standing), None, "what was stored since is in one row and perhaps not in the other");
        let mut bases = bases(&rows, &standing).unwrap();
        bases.sort_by_key(|base| base.lane);
        let expected = [Some((11, Seq(7))), None, Some((0, Seq(3))), Some((1, Seq(2)))];
        assert_eq!(bases.iter().map(|base| base.base).collect::<Vec<_>>(), expected);
        assert_eq!(total(&rows, &standing).total, 12);
    }

    #[test]
    fn names_remembered_as_unknown_are_bounded_and_expire() {
        let unknown = Unknown::new(Duration::from_secs(60));
        for name in 0..2 * MAX_UNKNOWN {
            unknown.insert(Bytes::from(name.to_string()));
        }
        assert!(unknown.contains(&Bytes::from_static(b"0")));
        assert_eq!(unknown.until().len(), MAX_UNKNOWN);
        let none = Unknown::new(Duration::ZERO);
        none.insert(Bytes::from_static(b"a"));
        assert!(!none.contains(&Bytes::from_static(b"a")));
    }
}
