//! The hot view beside a running lane: what ingest added is replaced by what is stored, and never counted twice.

mod garbled;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use tallymark::{
    hot::{Base, Delta, Error, HotKey, HotKind, HotView, LoadedBase, Options, Published, Token, View, memory::Memory},
    item::{Lane, Seq},
    retry::Kind,
    units::Span,
};

use super::{
    fixture::{NEVER, World, sums},
    packs::{key, pack, series_of},
    store::Op,
};
use tokio::time::timeout;

use crate::support::until;

const SERIES: &str = "visits k=a";

/// The in-process view, which may be told to fail, and shows what it said after each publish.
struct Watched {
    inner: Memory,
    away: AtomicBool,
    publishes: AtomicUsize,
    published: Mutex<Vec<Seq>>,
    bases: Mutex<Vec<HotKey>>,
    said: Mutex<Vec<View>>,
}

fn entry() -> HotKey {
    entry_of(SERIES)
}

fn entry_of(series: &str) -> HotKey {
    HotKey { kind: HotKind::Series, key: key(series).into() }
}

/// The view in memory answers at once.
fn now<T>(future: impl Future<Output = Result<T, Error>>) -> T {
    future.now_or_never().expect("it waits for nothing").unwrap()
}

impl Watched {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Memory::new(&Options::default()),
            away: AtomicBool::new(false),
            publishes: AtomicUsize::new(0),
            published: Mutex::default(),
            bases: Mutex::default(),
            said: Mutex::default(),
        })
    }

    fn view(&self) -> View {
        now(self.inner.read(&[entry()])).remove(0)
    }

    fn says(&self, total: i128) -> bool {
        self.view() == View::Full { total, stale: false }
    }

    /// As a query loads the entry: the lane has stored this much.
    fn load(&self, lane: Lane, base: Option<(i128, Seq)>) {
        self.load_of(&entry(), lane, base);
    }

    fn load_of(&self, entry: &HotKey, lane: Lane, base: Option<(i128, Seq)>) {
        let token = now(self.inner.begin_load(entry));
        assert!(now(self.inner.finish_load(entry, token, &[LoadedBase { lane, base }], &[])));
    }

    /// As ingest adds a pack after its acknowledgement.
    fn ingest(&self, lane: Lane, seq: u64, amount: i128) {
        now(self.inner.add(lane, Seq(seq), vec![Delta { key: entry(), amount }]));
    }

    fn check(&self) -> Result<(), Error> {
        if self.away.load(Ordering::SeqCst) {
            return Err(Error {
                kind: Kind::Transient,
                message: "the view was told to be away".to_owned(),
                source: None,
            });
        }
        Ok(())
    }
}

#[async_trait]
impl HotView for Watched {
    async fn add(&self, lane: Lane, seq: Seq, deltas: Vec<Delta>) -> Result<(), Error> {
        self.inner.add(lane, seq, deltas).await
    }

    async fn publish(&self, lane: Lane, seq: Seq, bases: &[Base]) -> Result<Published, Error> {
        self.publishes.fetch_add(1, Ordering::SeqCst);
        self.check()?;
        let published = self.inner.publish(lane, seq, bases).await?;
        self.bases.lock().unwrap().extend(bases.iter().map(|base| base.key.clone()));
        self.said.lock().unwrap().push(self.view());
        Ok(published)
    }

    async fn known(&self, keys: &[HotKey]) -> Result<Vec<bool>, Error> {
        self.inner.known(keys).await
    }

    async fn read(&self, keys: &[HotKey]) -> Result<Vec<View>, Error> {
        self.inner.read(keys).await
    }

    async fn begin_load(&self, key: &HotKey) -> Result<Token, Error> {
        self.inner.begin_load(key).await
    }

    async fn finish_load(
        &self,
        key: &HotKey,
        token: Token,
        bases: &[LoadedBase],
        ends: &[(Lane, Seq)],
    ) -> Result<bool, Error> {
        self.inner.finish_load(key, token, bases, ends).await
    }

    async fn published(&self, lane: Lane, seq: Seq) -> Result<(), Error> {
        self.published.lock().unwrap().push(seq);
        self.inner.published(lane, seq).await
    }

    fn describe(&self) -> (&'static str, bool) {
        ("watched", true)
    }
}

async fn world() -> (World, Arc<Watched>) {
    let hot = Watched::new();
    (World { hot: hot.clone(), ..World::new(1).await }, hot)
}

#[tokio::test]
async fn a_flush_publishes_what_is_stored_and_prunes_what_ingest_had_added() {
    let (mut world, hot) = world().await;
    world.options.flush_age = NEVER;
    let lane = world.lane(0);
    hot.load(lane, None);
    let running = world.start();
    world.append(0, pack().once(SERIES, 5, "id")).await;
    hot.ingest(lane, 0, 5);
    assert!(hot.says(5), "at once: {:?}", hot.view());
    // A retry, which ingest cannot tell: too much until the lane has dropped it.
    world.append(0, pack().once(SERIES, 5, "id").urgent()).await;
    hot.ingest(lane, 1, 5);
    until("the duplicate is taken out", || hot.says(5)).await;
    running.stored(0, 2).await;
    // Both are covered: a late or repeated word of ingest changes nothing.
    hot.ingest(lane, 0, 1000);
    hot.ingest(lane, 1, 1000);
    assert!(hot.says(5), "{:?}", hot.view());
    running.stop().await;
    assert_eq!(world.totals().await, sums([(SERIES, 5)]));
    assert_eq!(hot.published.lock().unwrap().last(), Some(&Seq(1)));
}

#[tokio::test]
async fn a_pack_that_the_log_holds_twice_is_taken_out_of_the_view() {
    let (world, hot) = world().await;
    let lane = world.lane(0);
    hot.load(lane, None);
    let running = world.start();
    let twice = pack().add(SERIES, 3);
    world.append(0, twice.clone()).await;
    running.stored(0, 1).await;
    world.append(0, twice).await;
    hot.ingest(lane, 0, 3);
    hot.ingest(lane, 1, 3);
    running.stored(0, 2).await;
    until("it is taken out", || hot.says(3)).await;
    running.stop().await;
    assert_eq!(world.totals().await, sums([(SERIES, 3)]));
}

#[tokio::test]
async fn what_a_replaying_lane_publishes_is_never_counted_twice() {
    let (mut world, hot) = world().await;
    world.options.checkpoint_delay = NEVER;
    world.options.flush_age = NEVER;
    let lane = world.lane(0);
    let running = world.start();
    for n in 0..6 {
        // When it is replayed, each of these is flushed alone.
        let draft = pack().add(SERIES, 1);
        world.append(0, if n % 2 == 0 { draft.urgent() } else { draft }).await;
    }
    running.applied(0, 6).await;
    running.stop().await;
    assert_eq!(world.totals().await, sums([(SERIES, 6)]));

    // The view has the first pack as its base and the others as ingest had added them.
    hot.load(lane, Some((1, Seq(0))));
    (1..6).for_each(|seq| hot.ingest(lane, seq, 1));
    assert!(hot.says(6));
    hot.said.lock().unwrap().clear();
    let running = world.start();
    running.applied(0, 6).await;
    running.stop().await;
    let said = hot.said.lock().unwrap();
    assert!(!said.is_empty());
    assert!(said.iter().all(|view| *view == View::Full { total: 6, stale: false }), "{said:?}");
}

#[tokio::test]
async fn while_the_view_is_away_the_store_goes_on_and_the_publish_is_made_later() {
    let (world, hot) = world().await;
    let lane = world.lane(0);
    hot.load(lane, None);
    hot.away.store(true, Ordering::SeqCst);
    let running = world.start();
    world.append(0, pack().once(SERIES, 1, "id")).await;
    world.append(0, pack().once(SERIES, 1, "id")).await;
    hot.ingest(lane, 0, 1);
    hot.ingest(lane, 1, 1);
    running.checkpointed(0, 2).await;
    until("it was tried again", || hot.publishes.load(Ordering::SeqCst) > 3).await;
    assert!(hot.says(2), "the retry is still in it: {:?}", hot.view());
    assert!(hot.published.lock().unwrap().is_empty(), "it does not say what is not so");
    hot.away.store(false, Ordering::SeqCst);
    until("it is made up for, without any more traffic", || hot.says(1)).await;
    until("and said", || hot.published.lock().unwrap().last() == Some(&Seq(1))).await;
    running.stop().await;
    assert_eq!(world.totals().await, sums([(SERIES, 1)]));
}

#[tokio::test(start_paused = true)]
async fn a_full_lane_whose_view_is_away_does_not_publish_without_end() {
    let (mut world, hot) = world().await;
    world.options.max_rows = 4;
    world.options.flush_age = Span::from_millis(50);
    hot.load(world.lane(0), None);
    hot.away.store(true, Ordering::SeqCst);
    world.store.hold(&[Op::Checkpoint]);
    let running = world.start();
    world.append(0, pack().add(SERIES, 1)).await;
    for series in series_of(0, 1, 10) {
        world.append(0, pack().add(&series, 1)).await;
    }
    until("the lane is full", || world.store.in_flight() == 1).await;
    until("the view has failed", || hot.publishes.load(Ordering::SeqCst) > 0).await;
    // On a clock that runs when everything waits: one at each flush age, 20 a second.
    let many = hot.publishes.load(Ordering::SeqCst) + 120;
    let counted = until("it is published without end", || hot.publishes.load(Ordering::SeqCst) > many);
    assert!(timeout(Duration::from_secs(5), counted).await.is_err(), "more than 120 in 5 s");
    world.store.release();
    hot.away.store(false, Ordering::SeqCst);
    running.stored(0, 11).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_budget_publishes_what_has_most_pending_first_and_everything_in_the_end() {
    let (mut world, hot) = world().await;
    world.publish_budget = 2;
    world.options.flush_age = Span::from_secs(1);
    let series = series_of(0, 1, 7);
    let entries: Vec<_> = series[..6].iter().map(|series| entry_of(series)).collect();
    entries.iter().for_each(|entry| hot.load_of(entry, world.lane(0), None));
    let running = world.start();
    // The n-th is named by n packs; the last one nobody reads. One pack is the last of all, and flushes them.
    for (most, name) in series.iter().enumerate() {
        for _ in 0..=most {
            world.append(0, pack().add(name, 1)).await;
        }
    }
    let end = world.append(0, pack().add(&series[6], 1).urgent()).await;
    let published = |count: usize| {
        let hot = hot.clone();
        async move {
            until("so many are published", || hot.bases.lock().unwrap().len() >= count).await;
            hot.bases.lock().unwrap().clone()
        }
    };
    let newest_first: Vec<_> = entries.iter().rev().cloned().collect();
    assert_eq!(published(2).await, newest_first[..2]);
    assert!(hot.published.lock().unwrap().is_empty(), "it does not say that all are through");
    assert_eq!(published(6).await, newest_first, "without any more traffic");
    until("and now it does", || hot.published.lock().unwrap().last() == Some(&end)).await;
    for (amount, entry) in (1..).zip(&entries) {
        assert_eq!(now(hot.inner.read(std::slice::from_ref(entry))), [View::Full { total: amount, stale: false }]);
    }

    // One that is always passed over comes up all the same.
    let began = hot.bases.lock().unwrap().len();
    world.append(0, pack().add(&series[0], 1)).await;
    for round in 0.. {
        for name in &series[1..6] {
            world.append(0, pack().add(name, 1)).await;
            world.append(0, pack().add(name, 1)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        if hot.bases.lock().unwrap()[began..].contains(&entries[0]) {
            break;
        }
        assert!(round < 60, "it never comes up");
    }
    running.stop().await;
}
