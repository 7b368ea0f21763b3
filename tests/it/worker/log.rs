//! A log with levers: another identity, other bounds, reads that fail; and a memory of what the lanes told it.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use tallymark::{
    item::{Seq, TopicId},
    log::{Appended, Bounds, Change, Cursor, DeadLetters, Error, Log, Record, Topology},
    retry::Kind,
};
use tokio::sync::mpsc;

/// A real log, and what a test changes of it.
pub struct Scripted {
    inner: Arc<dyn Log>,
    topology: Topology,
    bounds: Mutex<Option<Bounds>>,
    front: Arc<AtomicU64>,
    reads: Arc<Reads>,
    progress: Mutex<Vec<(u32, Seq, Seq)>>,
}

/// What cursors were asked, and how often they shall fail.
#[derive(Default)]
struct Reads {
    polls: AtomicUsize,
    failures: AtomicUsize,
}

impl Scripted {
    pub fn over(inner: Arc<dyn Log>) -> Self {
        let topology = inner.topology().clone();
        let (bounds, front, reads, progress) = Default::default();
        Self { inner, topology, bounds, front, reads, progress }
    }

    /// The same records under the identity of another life of the topic.
    pub fn recreated(mut self, topic_id: TopicId) -> Self {
        self.topology.topic_id = topic_id;
        self
    }

    /// Says these bounds from now on.
    pub fn set_bounds(&self, start: u64, end: u64) {
        *self.bounds.lock().unwrap() = Some(Bounds { start: Seq(start), end: Seq(end) });
    }

    /// Every partition has lost its packs below this one.
    pub fn remove_before(&self, start: u64) {
        self.front.store(start, Ordering::SeqCst);
    }

    fn look(&self, from: Seq) -> Result<(), Error> {
        if from.0 < self.front.load(Ordering::SeqCst) { Err(Error::gone("it was removed")) } else { Ok(()) }
    }

    /// The next so many reads of a cursor fail.
    pub fn fail_reads(&self, times: usize) {
        self.reads.failures.store(times, Ordering::SeqCst);
    }

    /// Reads that have still to fail.
    pub fn failures_left(&self) -> usize {
        self.reads.failures.load(Ordering::SeqCst)
    }

    /// How often a cursor was asked.
    pub fn polls(&self) -> usize {
        self.reads.polls.load(Ordering::SeqCst)
    }

    /// What it was told of the lanes: partition, checkpoint, what is still needed.
    pub fn progress_told(&self) -> Vec<(u32, Seq, Seq)> {
        self.progress.lock().unwrap().clone()
    }
}

#[async_trait]
impl Log for Scripted {
    fn topology(&self) -> &Topology {
        &self.topology
    }

    async fn append(&self, partition: u32, format: u32, payload: Bytes) -> Result<Appended, Error> {
        self.inner.append(partition, format, payload).await
    }

    async fn bounds(&self, partition: u32) -> Result<Bounds, Error> {
        let told = *self.bounds.lock().unwrap();
        match told {
            Some(bounds) => Ok(bounds),
            None => {
                let Bounds { start, end } = self.inner.bounds(partition).await?;
                Ok(Bounds { start: start.max(Seq(self.front.load(Ordering::SeqCst))), end })
            }
        }
    }

    async fn read(&self, partition: u32, from: Seq, max_bytes: usize) -> Result<Vec<Record>, Error> {
        self.look(from)?;
        self.inner.read(partition, from, max_bytes).await
    }

    async fn open(&self, partition: u32, from: Seq, leader_epoch: Option<i32>) -> Result<Box<dyn Cursor>, Error> {
        self.look(from)?;
        let inner = self.inner.open(partition, from, leader_epoch).await?;
        Ok(Box::new(ScriptedCursor { inner, at: from, front: self.front.clone(), reads: self.reads.clone() }))
    }

    async fn join(&self) -> Result<mpsc::Receiver<Change>, Error> {
        self.inner.join().await
    }

    async fn progress(&self, partition: u32, checkpoint: Seq, needed: Seq) -> Result<(), Error> {
        self.progress.lock().unwrap().push((partition, checkpoint, needed));
        self.inner.progress(partition, checkpoint, needed).await
    }

    async fn check(&self) -> Result<(), Error> {
        self.inner.check().await
    }

    fn dead_letters(&self) -> Option<&dyn DeadLetters> {
        self.inner.dead_letters()
    }
}

struct ScriptedCursor {
    inner: Box<dyn Cursor>,
    at: Seq,
    front: Arc<AtomicU64>,
    reads: Arc<Reads>,
}

#[async_trait]
impl Cursor for ScriptedCursor {
    async fn next(&mut self) -> Result<Vec<Record>, Error> {
        self.reads.polls.fetch_add(1, Ordering::SeqCst);
        let fail = |left: usize| left.checked_sub(1);
        if self.reads.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fail).is_ok() {
            return Err(Error::new(Kind::Transient, "this read was told to fail"));
        }
        if self.at.0 < self.front.load(Ordering::SeqCst) {
            return Err(Error::gone("it was removed"));
        }
        let records = self.inner.next().await?;
        self.at = records.last().map_or(self.at, |record| record.seq.next());
        Ok(records)
    }
}
