//! A log of partitions in memory that is no better than Kafka: it appends twice, says "unknown" of what it has appended or
//! appends it later, has clocks that are wrong, loses its end, its front, or its identity. What the port promises it keeps
//! until a fault is meant to break just that.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tallymark::{
    item::{Lane, Seq, TopicId},
    log::{Appended, Bounds, Change, Cursor, DeadLetters, Error, Log, Record, Topology},
    retry::Kind,
    worker::told::{Teller, Told},
};
use tokio::{sync::mpsc, time::sleep};

use super::{
    gate::Gate,
    group::Group,
    letters::{self, Kept},
    sim::Sim,
};

pub const TOPIC: &str = "model.packs";

/// How the log misbehaves, in thousandths.
#[derive(Clone, Debug, Default)]
pub struct Trouble {
    /// The producer appends a record twice.
    pub twice: u64,
    /// An append is answered with an error, whatever became of it.
    pub unknown: u64,
    /// An acknowledgement lacks its offset.
    pub without_offset: u64,
    /// A read fails for now.
    pub reads: u64,
    /// Milliseconds that an answer takes at most.
    pub slow_ms: u64,
    /// The dead-letter log's.
    pub letters: letters::Trouble,
}

struct Part {
    /// The first offset that can be read.
    start: u64,
    /// From `start` on.
    records: VecDeque<Record>,
    /// Everything that was ever appended and not cut off again, for the oracle.
    history: Vec<Record>,
    /// The next offset; beyond the last record when some were lost without a trace.
    end: u64,
    /// Where each leader epoch begins.
    epochs: Vec<(i32, u64)>,
    /// How far its leader's clock is off.
    skew_ms: i64,
}

impl Part {
    fn new() -> Self {
        let (records, history, epochs) = (VecDeque::new(), Vec::new(), vec![(0, 0)]);
        Self { start: 0, records, history, end: 0, epochs, skew_ms: 0 }
    }

    fn epoch(&self) -> i32 {
        self.epochs.last().expect("there is a leader").0
    }

    /// One past the last record of a leader epoch, as its followers tell it.
    fn end_of(&self, epoch: i32) -> u64 {
        self.epochs.iter().find(|(later, _)| *later > epoch).map_or(self.end, |(_, begins)| *begins)
    }
}

struct State {
    topic_id: TopicId,
    parts: Vec<Part>,
    trouble: Trouble,
}

/// See the module.
pub struct Broker {
    pub sim: Arc<Sim>,
    pub group: Arc<Group>,
    pub letters: Kept,
    state: Mutex<State>,
    grown: Teller<u64>,
}

impl Broker {
    pub fn new(sim: Arc<Sim>, partitions: u32) -> Arc<Self> {
        let topic_id = TopicId(sim.chance.bytes());
        let parts = (0..partitions).map(|_| Part::new()).collect();
        Arc::new(Self {
            group: Group::new(sim.clone(), partitions),
            letters: Kept::default(),
            sim,
            state: Mutex::new(State { topic_id, parts, trouble: Trouble::default() }),
            grown: Teller::new(0),
        })
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

    pub fn topic_id(&self) -> TopicId {
        self.state().topic_id
    }

    pub fn partitions(&self) -> u32 {
        self.state().parts.len() as u32
    }

    pub fn lane(&self, partition: u32) -> Lane {
        Lane { topic_id: self.topic_id(), partition }
    }

    pub fn bounds_of(&self, partition: u32) -> Bounds {
        let state = self.state();
        let part = &state.parts[partition as usize];
        Bounds { start: Seq(part.start), end: Seq(part.end) }
    }

    /// What the oracle knows of a partition.
    pub fn history<T>(&self, partition: u32, look: impl FnOnce(&[Record]) -> T) -> T {
        look(&self.state().parts[partition as usize].history)
    }

    pub fn topology(&self) -> Topology {
        let state = self.state();
        Topology {
            topic: TOPIC.to_owned(),
            topic_id: state.topic_id,
            cluster_id: "model".to_owned(),
            partitions: state.parts.len() as u32,
        }
    }

    /// Appends a record as it comes.
    pub fn put(&self, partition: u32, format: u32, payload: Bytes, damage: Option<String>) -> Appended {
        let appended = {
            let mut state = self.state();
            let part = &mut state.parts[partition as usize];
            let (seq, append_ms) = (Seq(part.end), self.sim.now_ms() + part.skew_ms);
            let record = Record { seq, append_ms, leader_epoch: Some(part.epoch()), format, payload, damage };
            part.history.push(record.clone());
            part.records.push_back(record);
            part.end += 1;
            Appended { seq: Some(seq), append_ms }
        };
        self.grown.tell(self.grown.now() + 1);
        appended
    }

    /// Appends a pack for a producer, with whatever trouble there is.
    pub async fn append(self: &Arc<Self>, partition: u32, format: u32, payload: Bytes) -> Result<Appended, Error> {
        let Trouble { twice, unknown, without_offset, slow_ms, .. } = self.trouble();
        let chance = &self.sim.chance;
        self.sim.dawdle(slow_ms).await;
        if chance.permille(unknown) {
            let fate = chance.below(3);
            self.sim.note(|| format!("log {partition}: append unknown ({})", ["not", "now", "later"][fate as usize]));
            match fate {
                0 => {}
                1 => drop(self.put(partition, format, payload, None)),
                _ => {
                    let (broker, late) = (self.clone(), Duration::from_millis(chance.between(1, 20_000)));
                    tokio::spawn(async move {
                        sleep(late).await;
                        if partition < broker.partitions() {
                            let seq = broker.put(partition, format, payload, None).seq;
                            broker.sim.note(|| format!("log {partition}: late append at {seq:?}"));
                        }
                    });
                }
            }
            return Err(Error::new(Kind::Transient, "the broker does not say what became of it"));
        }
        let mut appended = self.put(partition, format, payload.clone(), None);
        if chance.permille(twice) {
            self.put(partition, format, payload, None);
            self.sim.note(|| format!("log {partition}: appended twice"));
        }
        self.sim.dawdle(slow_ms).await;
        if chance.permille(without_offset) {
            appended.seq = None;
        }
        Ok(appended)
    }

    /// The leader's clock is off by so much from now on.
    pub fn set_skew(&self, partition: u32, skew_ms: i64) {
        self.state().parts[partition as usize].skew_ms = skew_ms;
    }

    /// Retention: what is below `start` is gone.
    pub fn remove_front(&self, partition: u32, start: u64) {
        let mut state = self.state();
        let part = &mut state.parts[partition as usize];
        part.start = part.start.max(start.min(part.end));
        let from = part.start;
        part.records.retain(|record| record.seq.0 >= from);
        drop(state);
        self.grown.tell(self.grown.now() + 1);
    }

    /// An unclean election: what is at `end` and above is gone, and another leader goes on from there.
    pub fn cut(&self, partition: u32, end: u64) {
        let mut state = self.state();
        let part = &mut state.parts[partition as usize];
        part.end = end;
        part.history.truncate(end as usize);
        part.records.retain(|record| record.seq.0 < end);
        let epoch = part.epoch() + 1;
        part.epochs.push((epoch, end));
        drop(state);
        self.grown.tell(self.grown.now() + 1);
    }

    /// An offset is passed over: a record that was there is gone without a trace.
    pub fn lose_one(&self, partition: u32) {
        self.state().parts[partition as usize].end += 1;
    }

    /// The topic is deleted and made anew.
    pub fn recreate(&self) {
        let mut state = self.state();
        state.topic_id = TopicId(self.sim.chance.bytes());
        let count = state.parts.len();
        state.parts = (0..count).map(|_| Part::new()).collect();
        drop(state);
        self.grown.tell(self.grown.now() + 1);
    }

    pub fn add_partitions(&self, count: u32) {
        let mut state = self.state();
        (0..count).for_each(|_| state.parts.push(Part::new()));
        let partitions = state.parts.len() as u32;
        drop(state);
        self.group.set_partitions(partitions);
    }

    fn read_from(&self, opened: TopicId, partition: u32, at: &mut Position, max: usize) -> Result<Vec<Record>, Error> {
        let state = self.state();
        if state.topic_id != opened {
            return Err(Error::new(Kind::Fatal, "the topic is another one now: it was deleted and made anew"));
        }
        let Some(part) = state.parts.get(partition as usize) else {
            return Err(Error::new(Kind::Fatal, format!("there is no partition {partition}")));
        };
        let known = at.epoch.map_or(part.end, |epoch| part.end_of(epoch));
        if at.next > known || at.next < part.start {
            return Err(Error::gone(format!("{} is not in [{}, {known})", at.next, part.start)));
        }
        // Offsets that lead to nothing are passed over, as a client does.
        let first = part.records.partition_point(|record| record.seq.0 < at.next);
        let records: Vec<Record> = part.records.iter().skip(first).take(max).cloned().collect();
        if let Some(last) = records.last() {
            (at.next, at.epoch) = (last.seq.0 + 1, last.leader_epoch);
        }
        Ok(records)
    }
}

/// Where a reader stands: its next offset, and the leader epoch of the record before it.
struct Position {
    next: u64,
    epoch: Option<i32>,
}

/// The log as one process has opened it.
pub struct Opened {
    broker: Arc<Broker>,
    gate: Gate,
    topology: Topology,
    process: u64,
}

impl Opened {
    pub fn new(broker: Arc<Broker>, gate: Gate, process: u64) -> Self {
        Self { topology: broker.topology(), broker, gate, process }
    }

    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    pub async fn asked(&self) -> Result<(), Error> {
        ask(&self.broker, &self.gate).await
    }
}

async fn ask(broker: &Broker, gate: &Gate) -> Result<(), Error> {
    gate.pass().await;
    let Trouble { reads, slow_ms, .. } = broker.trouble();
    broker.sim.dawdle(slow_ms).await;
    gate.pass().await;
    if broker.sim.chance.permille(reads) {
        return Err(Error::new(Kind::Transient, "the broker does not answer"));
    }
    Ok(())
}

#[async_trait]
impl Log for Opened {
    fn topology(&self) -> &Topology {
        &self.topology
    }

    fn partitions(&self) -> u32 {
        self.broker.partitions()
    }

    async fn append(&self, partition: u32, format: u32, payload: Bytes) -> Result<Appended, Error> {
        self.broker.append(partition, format, payload).await
    }

    async fn bounds(&self, partition: u32) -> Result<Bounds, Error> {
        self.asked().await?;
        if self.broker.topic_id() != self.topology.topic_id {
            return Err(Error::new(Kind::Fatal, "the topic is another one now: it was deleted and made anew"));
        }
        Ok(self.broker.bounds_of(partition))
    }

    async fn read(&self, partition: u32, from: Seq, _: usize) -> Result<Vec<Record>, Error> {
        self.asked().await?;
        let most = self.broker.sim.chance.between(1, 20) as usize;
        self.broker.read_from(self.topology.topic_id, partition, &mut Position { next: from.0, epoch: None }, most)
    }

    async fn open(&self, partition: u32, from: Seq, leader_epoch: Option<i32>) -> Result<Box<dyn Cursor>, Error> {
        self.asked().await?;
        let mut at = Position { next: from.0, epoch: leader_epoch };
        self.broker.read_from(self.topology.topic_id, partition, &mut at, 0)?;
        let (broker, gate, grown) = (self.broker.clone(), self.gate.clone(), self.broker.grown.listen());
        Ok(Box::new(Reader { broker, gate, topic_id: self.topology.topic_id, partition, at, grown }))
    }

    async fn join(&self) -> Result<mpsc::Receiver<Change>, Error> {
        Ok(self.broker.group.join(self.process, self.gate.clone()))
    }

    async fn progress(&self, _: u32, _: Seq, _: Seq) -> Result<(), Error> {
        self.asked().await
    }

    async fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    fn dead_letters(&self) -> Option<&dyn DeadLetters> {
        Some(self)
    }
}

struct Reader {
    broker: Arc<Broker>,
    gate: Gate,
    topic_id: TopicId,
    partition: u32,
    at: Position,
    grown: Told<u64>,
}

#[async_trait]
impl Cursor for Reader {
    async fn next(&mut self) -> Result<Vec<Record>, Error> {
        loop {
            ask(&self.broker, &self.gate).await?;
            self.grown.look();
            let most = self.broker.sim.chance.between(1, 12) as usize;
            let records = self.broker.read_from(self.topic_id, self.partition, &mut self.at, most)?;
            if !records.is_empty() {
                return Ok(records);
            }
            self.grown.changed().await;
        }
    }
}
