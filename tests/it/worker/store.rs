//! A store that is told how to fail: the one in memory, with a script around it and a memory of every call.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use tallymark::{
    item::{Coordinates, Lane, Seq, Stamp},
    retry::Kind,
    store::{
        Checkpoint, EpochRow, Error, EventRow, Events, EventsPage, Generations, LaneRow, Ledger, LetterRow, Letters,
        Replayed, RowName, ShardKey, Slice, TotalRow, Totals, memory::Memory,
    },
};
use tokio::{sync::watch, time::Instant};

/// An operation of the port, as a script names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Rows,
    Events,
    Slice,
    Named,
    Lanes,
    Checkpoint,
    Stored,
    Epochs,
    Letter,
    Replayed,
    Letters,
}

/// Everything that a lane does.
pub const ALL: &[Op] = &[
    Op::Rows,
    Op::Events,
    Op::Slice,
    Op::Named,
    Op::Lanes,
    Op::Checkpoint,
    Op::Stored,
    Op::Epochs,
    Op::Letter,
    Op::Replayed,
    Op::Letters,
];

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing happens, and it may pass.
    Away,
    /// It happens, but the answer is lost.
    AnswerLost,
    /// Nothing happens, and never will.
    Refused,
}

type Meant = Box<dyn Fn(Op, Option<&ShardKey>) -> bool + Send + Sync>;

struct Rule {
    meant: Meant,
    fault: Fault,
    left: usize,
}

/// One call and what became of it.
#[derive(Clone, Debug)]
pub struct Call {
    pub op: Op,
    /// When it was answered.
    pub at: Instant,
    pub ok: bool,
    /// Rows written, names asked for, or a slice's limit.
    pub size: usize,
    pub checkpoint: Option<Checkpoint>,
}

/// See the module.
#[derive(Default)]
pub struct Faulty {
    inner: Memory,
    rules: Mutex<Vec<Rule>>,
    held: watch::Sender<Vec<Op>>,
    calls: Mutex<Vec<Call>>,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
}

impl Faulty {
    /// Operations that are meant fail like this, so many times.
    pub fn fail(
        &self,
        fault: Fault,
        times: usize,
        meant: impl Fn(Op, Option<&ShardKey>) -> bool + Send + Sync + 'static,
    ) {
        self.rules.lock().unwrap().push(Rule { meant: Box::new(meant), fault, left: times });
    }

    /// These operations fail until [`Faulty::recover`].
    pub fn fail_all(&self, fault: Fault, ops: &'static [Op]) {
        self.fail(fault, usize::MAX, move |op, _| ops.contains(&op));
    }

    /// Nothing fails from now on.
    pub fn recover(&self) {
        self.rules.lock().unwrap().clear();
    }

    /// These operations wait until [`Faulty::release`].
    pub fn hold(&self, ops: &[Op]) {
        self.held.send_replace(ops.to_vec());
    }

    pub fn release(&self) {
        self.held.send_replace(Vec::new());
    }

    /// Every call that was answered, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// The calls of one operation that were answered well.
    pub fn done(&self, op: Op) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.op == op && call.ok).collect()
    }

    /// How many calls of an operation failed.
    pub fn failed(&self, op: Op) -> usize {
        self.calls().iter().filter(|call| call.op == op && !call.ok).count()
    }

    /// Calls that have not been answered yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    pub fn most_in_flight(&self) -> usize {
        self.most_in_flight.load(Ordering::SeqCst)
    }

    fn fault(&self, op: Op, key: Option<&ShardKey>) -> Option<Fault> {
        let mut rules = self.rules.lock().unwrap();
        let rule = rules.iter_mut().find(|rule| rule.left > 0 && (rule.meant)(op, key))?;
        rule.left -= 1;
        Some(rule.fault)
    }

    async fn through<T>(
        &self,
        op: Op,
        key: Option<&ShardKey>,
        size: usize,
        checkpoint: Option<&Checkpoint>,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let in_flight = InFlight::enter(self);
        let mut held = self.held.subscribe();
        held.wait_for(|held| !held.contains(&op)).await.expect("the store outlives its calls");
        let answer = match self.fault(op, key) {
            None => work.await,
            Some(Fault::AnswerLost) => {
                work.await?;
                Err(Error::new(Kind::Transient, "this answer was told to be lost"))
            }
            Some(Fault::Away) => Err(Error::new(Kind::Transient, "the store was told to be away")),
            Some(Fault::Refused) => Err(Error::new(Kind::Permanent, "the store was told to refuse")),
        };
        drop(in_flight);
        let call = Call { op, at: Instant::now(), ok: answer.is_ok(), size, checkpoint: checkpoint.cloned() };
        self.calls.lock().unwrap().push(call);
        answer
    }
}

/// Counts one call that is under way.
struct InFlight<'a>(&'a Faulty);

impl<'a> InFlight<'a> {
    fn enter(store: &'a Faulty) -> Self {
        let now = store.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        store.most_in_flight.fetch_max(now, Ordering::SeqCst);
        Self(store)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Totals for Faulty {
    async fn write_totals(&self, key: &ShardKey, rows: &[TotalRow]) -> Result<(), Error> {
        assert!(rows.is_sorted_by(|a, b| a.name < b.name), "sorted, each name once: {rows:?}");
        self.through(Op::Rows, Some(key), rows.len(), None, self.inner.write_totals(key, rows)).await
    }

    async fn totals(&self, key: &ShardKey, slice: &Slice) -> Result<Vec<TotalRow>, Error> {
        self.through(Op::Slice, Some(key), slice.limit, None, self.inner.totals(key, slice)).await
    }

    async fn totals_named(&self, key: &ShardKey, names: &[RowName]) -> Result<Vec<Option<TotalRow>>, Error> {
        self.through(Op::Named, Some(key), names.len(), None, self.inner.totals_named(key, names)).await
    }

    async fn shards(&self) -> Result<Vec<ShardKey>, Error> {
        self.inner.shards().await
    }
}

#[async_trait]
impl Events for Faulty {
    async fn write_events(&self, rows: &[EventRow]) -> Result<(), Error> {
        self.through(Op::Events, None, rows.len(), None, self.inner.write_events(rows)).await
    }

    async fn events(&self, page: &EventsPage) -> Result<Vec<EventRow>, Error> {
        self.inner.events(page).await
    }
}

#[async_trait]
impl Ledger for Faulty {
    async fn lanes(&self, topic: &str) -> Result<Vec<LaneRow>, Error> {
        self.through(Op::Lanes, None, 0, None, self.inner.lanes(topic)).await
    }

    async fn write_checkpoint(&self, topic: &str, checkpoint: &Checkpoint) -> Result<(), Error> {
        let work = self.inner.write_checkpoint(topic, checkpoint);
        self.through(Op::Checkpoint, None, 0, Some(checkpoint), work).await
    }

    async fn write_stored(&self, topic: &str, lane: Lane, stored: Seq, stamp: Stamp) -> Result<(), Error> {
        let work = self.inner.write_stored(topic, lane, stored, stamp);
        self.through(Op::Stored, None, 0, None, work).await
    }

    async fn epochs(&self, topic: &str) -> Result<Vec<EpochRow>, Error> {
        self.through(Op::Epochs, None, 0, None, self.inner.epochs(topic)).await
    }

    async fn begin_epoch(&self, topic: &str, epoch: &EpochRow) -> Result<(), Error> {
        self.inner.begin_epoch(topic, epoch).await
    }

    async fn generations(&self) -> Generations {
        self.inner.generations().await
    }
}

#[async_trait]
impl Letters for Faulty {
    async fn write_letter(&self, topic: &str, at: Coordinates, stamp: Stamp) -> Result<(), Error> {
        self.through(Op::Letter, None, 1, None, self.inner.write_letter(topic, at, stamp)).await
    }

    async fn write_replayed(&self, topic: &str, at: Coordinates, by: Replayed) -> Result<(), Error> {
        self.through(Op::Replayed, None, 1, None, self.inner.write_replayed(topic, at, by)).await
    }

    async fn letters(
        &self,
        topic: &str,
        lane: Lane,
        from: Seq,
        to: Seq,
        limit: usize,
    ) -> Result<Vec<LetterRow>, Error> {
        self.through(Op::Letters, None, limit, None, self.inner.letters(topic, lane, from, to, limit)).await
    }
}

/// What tests read, past the script.
impl Faulty {
    /// The rows of a shard.
    pub async fn rows(&self, key: &ShardKey) -> Vec<TotalRow> {
        self.inner.totals(key, &Slice { limit: usize::MAX, ..Slice::default() }).await.unwrap()
    }

    /// What it knows of the lanes.
    pub async fn known(&self, topic: &str) -> Vec<LaneRow> {
        self.inner.lanes(topic).await.unwrap()
    }

    /// The store itself: what its servers are, and what they forget.
    pub fn memory(&self) -> &Memory {
        &self.inner
    }

    /// Writes a row that no lane has written.
    pub async fn plant(&self, key: &ShardKey, row: TotalRow) {
        self.inner.write_totals(key, &[row]).await.unwrap();
    }
}
