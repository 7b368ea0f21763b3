//! The production in-process hot view, shared by all processes of a world as Redis is, behind a view that may be away,
//! flushed, late, or silent about what it has done.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use tallymark::{
    hot::{Base, Delta, Error, HotKey, HotView, LoadedBase, Options, Published, Token, View, memory::Memory},
    item::{Lane, Seq},
    retry::Kind,
};
use tokio::time::sleep;

use super::{gate::Gate, sim::Sim};

/// How the view misbehaves, in thousandths.
#[derive(Clone, Debug, Default)]
pub struct Trouble {
    /// Nobody reaches it.
    pub away: bool,
    /// A call fails, and nothing is done.
    pub fails: u64,
    /// A call is done, and its answer lost.
    pub answer_lost: u64,
    /// A write is done later, after an answer that says that it failed.
    pub late: u64,
    /// Milliseconds that an answer takes at most.
    pub slow_ms: u64,
}

struct State {
    view: Arc<Memory>,
    trouble: Trouble,
    /// One past what each lane's publishes are through to.
    published: BTreeMap<Lane, u64>,
}

/// See the module.
pub struct Shared {
    sim: Arc<Sim>,
    options: Options,
    state: Mutex<State>,
}

impl Shared {
    pub fn new(sim: Arc<Sim>, options: Options) -> Arc<Self> {
        let view = Arc::new(Memory::new(&options));
        let state = Mutex::new(State { view, trouble: Trouble::default(), published: BTreeMap::new() });
        Arc::new(Self { sim, options, state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn set_trouble(&self, trouble: Trouble) {
        self.state().trouble = trouble;
    }

    pub fn trouble(&self) -> Trouble {
        self.state().trouble.clone()
    }

    /// Everything in it is gone.
    pub fn flush(&self) {
        self.state().view = Arc::new(Memory::new(&self.options));
    }

    pub fn view(&self) -> Arc<Memory> {
        self.state().view.clone()
    }

    fn has_published(&self, lane: Lane, seq: Seq) {
        let mut state = self.state();
        let published = state.published.entry(lane).or_default();
        *published = (*published).max(seq.next().0);
    }

    pub fn bytes(&self) -> usize {
        self.view().bytes()
    }

    fn away() -> Error {
        Error { kind: Kind::Transient, message: "the hot view was told to be away".to_owned(), source: None }
    }
}

/// The view as one process has it.
pub struct Client {
    shared: Arc<Shared>,
    gate: Gate,
}

impl Client {
    pub fn new(shared: Arc<Shared>, gate: Gate) -> Self {
        Self { shared, gate }
    }

    /// Asks the view as it is when the question arrives.
    async fn ask<T, F>(&self, is_write: bool, work: impl FnOnce(Arc<Memory>) -> F + Send + 'static) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        self.gate.pass().await;
        let (sim, trouble) = (&self.shared.sim, self.shared.trouble());
        sim.dawdle(trouble.slow_ms).await;
        if trouble.away || sim.chance.permille(trouble.fails) {
            return Err(Shared::away());
        }
        if is_write && sim.chance.permille(trouble.late) {
            let (shared, late) = (self.shared.clone(), Duration::from_millis(sim.chance.between(1, 30_000)));
            tokio::spawn(async move {
                sleep(late).await;
                let _ = work(shared.view()).await;
            });
            return Err(Shared::away());
        }
        let answer = work(self.shared.view()).await;
        sim.dawdle(trouble.slow_ms).await;
        self.gate.pass().await;
        if sim.chance.permille(trouble.answer_lost) {
            return Err(Shared::away());
        }
        answer
    }
}

#[async_trait]
impl HotView for Client {
    async fn add(&self, lane: Lane, seq: Seq, deltas: Vec<Delta>) -> Result<(), Error> {
        self.ask(true, move |view| async move { view.add(lane, seq, deltas).await }).await
    }

    async fn publish(&self, lane: Lane, seq: Seq, bases: &[Base]) -> Result<Published, Error> {
        let bases = bases.to_vec();
        self.ask(true, move |view| async move { view.publish(lane, seq, &bases).await }).await
    }

    async fn known(&self, keys: &[HotKey]) -> Result<Vec<bool>, Error> {
        let keys = keys.to_vec();
        self.ask(false, move |view| async move { view.known(&keys).await }).await
    }

    async fn read(&self, keys: &[HotKey]) -> Result<Vec<View>, Error> {
        let keys = keys.to_vec();
        self.ask(false, move |view| async move { view.read(&keys).await }).await
    }

    async fn begin_load(&self, key: &HotKey) -> Result<Token, Error> {
        let key = key.clone();
        self.ask(false, move |view| async move { view.begin_load(&key).await }).await
    }

    async fn finish_load(
        &self,
        key: &HotKey,
        token: Token,
        bases: &[LoadedBase],
        ends: &[(Lane, Seq)],
    ) -> Result<bool, Error> {
        let (key, bases, ends) = (key.clone(), bases.to_vec(), ends.to_vec());
        self.ask(false, move |view| async move { view.finish_load(&key, token, &bases, &ends).await }).await
    }

    async fn published(&self, lane: Lane, seq: Seq) -> Result<(), Error> {
        let shared = self.shared.clone();
        self.ask(true, move |view| async move {
            shared.has_published(lane, seq);
            view.published(lane, seq).await
        })
        .await
    }

    /// What nobody has published below `from` nobody will: the view outlives its processes, so no entry may claim to have it.
    fn publishes_from(&self, lane: Lane, from: Seq) {
        let published = self.shared.state().published.get(&lane).copied().unwrap_or(0);
        if published < from.0 {
            self.shared
                .sim
                .note(|| format!("hot: lane {} publishes from {from}, the view begins anew", lane.partition));
            self.shared.flush();
        }
    }

    fn describe(&self) -> (&'static str, bool) {
        ("model", true)
    }
}
