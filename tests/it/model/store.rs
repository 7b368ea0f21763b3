//! A store of three replicas that keeps the port's laws and no more: a write may reach two of them or three, reach one and
//! fail, be answered with an error though it was done, be done half, or arrive a minute later; a read asks two of them.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use tallymark::{
    bugs::{self, Bug},
    item::{Lane, Seq, Stamp},
    retry::Kind,
    store::{
        Checkpoint, EpochRow, Error, EventRow, Events, EventsPage, Generation, Generations, LaneRow, Ledger, RowName,
        ShardKey, Slice, TotalRow, Totals,
    },
};
use tokio::{sync::oneshot, time::sleep};

use super::{
    gate::Gate,
    ledgers::Desk,
    replicas::{Key, Node, Put, Value},
    sim::Sim,
    watcher::Watcher,
};

/// How the store misbehaves, in thousandths.
#[derive(Clone, Debug, Default)]
pub struct Trouble {
    /// A write does not reach one of the servers.
    pub missed: u64,
    /// A write reaches one of the servers later.
    pub late: u64,
    /// Milliseconds until then at most.
    pub late_ms: u64,
    /// The answer of a write is lost.
    pub answer_lost: u64,
    /// A write is done half on one of the servers.
    pub half: u64,
    /// A read fails.
    pub reads: u64,
    /// Milliseconds that an answer takes at most.
    pub slow_ms: u64,
    /// A read writes what it found to the servers that it asked.
    pub repairs: bool,
}

/// The servers. Cheap handles of it are what processes write through.
pub struct Servers {
    pub sim: Arc<Sim>,
    nodes: Mutex<[Node; 3]>,
    /// What halted lanes say, and what operators have decided.
    pub desk: Mutex<Desk>,
    trouble: Mutex<Trouble>,
    /// What a server has written is on its disk after this time at the latest.
    pub synced_within: Duration,
    pub watcher: Watcher,
}

pub fn away(why: &str) -> Error {
    Error::new(Kind::Transient, format!("the store was told to be away: {why}"))
}

impl Servers {
    pub fn new(sim: Arc<Sim>, synced_within: Duration, watcher: Watcher) -> Arc<Self> {
        let nodes = Mutex::new([Node::new(), Node::new(), Node::new()]);
        Arc::new(Self { sim, nodes, desk: Mutex::default(), trouble: Mutex::default(), synced_within, watcher })
    }

    pub fn nodes(&self) -> MutexGuard<'_, [Node; 3]> {
        self.nodes.lock().unwrap()
    }

    pub fn set_trouble(&self, trouble: Trouble) {
        *self.trouble.lock().unwrap() = trouble;
    }

    pub fn trouble(&self) -> Trouble {
        self.trouble.lock().unwrap().clone()
    }

    /// Writes one row everywhere, as an operator does.
    pub fn plant(&self, put: &Put) {
        let mut nodes = self.nodes();
        nodes.iter_mut().for_each(|node| node.plant(put));
    }

    /// Those who may answer together: every two that are not gone for good.
    pub fn quorums(&self) -> Vec<[usize; 2]> {
        let nodes = self.nodes();
        [[0, 1], [0, 2], [1, 2]].into_iter().filter(|pair| pair.iter().all(|at| !nodes[*at].lost)).collect()
    }

    /// What such a pair says of a row.
    pub fn newest(&self, pair: [usize; 2], key: &Key) -> Option<Value> {
        let nodes = self.nodes();
        let found = pair.into_iter().filter_map(|at| nodes[at].get(key));
        found.max_by_key(|(stamp, _)| *stamp).map(|(_, value)| value.clone())
    }

    fn put_on(&self, at: usize, puts: &[Put]) -> bool {
        let mut nodes = self.nodes();
        if !nodes[at].answers() {
            return false;
        }
        for put in puts {
            if let Some(there) = nodes[at].put(put, self.synced_within)
                && !self.watcher.is_tainted(&put.key)
            {
                self.sim.violated(|| format!("law 3: at one stamp {:?} is {there:?} and {:?}", put.key, put.value));
            }
        }
        true
    }

    /// One mutation at the servers: which of them have taken it, and what its writer hears.
    async fn write(self: Arc<Self>, process: u64, puts: Vec<Put>) -> Result<(), Error> {
        let chance = &self.sim.chance;
        let trouble = self.trouble();
        self.sim.dawdle(trouble.slow_ms).await;
        self.watcher.writes(&self, process, &puts);
        let mut taken = 0;
        for at in 0..3 {
            if chance.permille(trouble.missed) {
                continue;
            }
            if chance.permille(trouble.late) {
                let (servers, puts) = (self.clone(), puts.clone());
                let late = Duration::from_millis(chance.between(1, trouble.late_ms.max(1)));
                tokio::spawn(async move {
                    sleep(late).await;
                    if servers.put_on(at, &puts) {
                        servers.sim.note(|| format!("store {at}: late {}", short(&puts)));
                    }
                });
                continue;
            }
            if puts.len() > 1 && chance.permille(trouble.half) {
                let half = chance.between(1, puts.len() as u64 - 1) as usize;
                self.put_on(at, &puts[..half]);
                self.sim.note(|| format!("store {at}: only {half} of {}", short(&puts)));
                continue;
            }
            taken += usize::from(self.put_on(at, &puts));
        }
        self.sim.dawdle(trouble.slow_ms).await;
        let answer = if taken < 2 {
            Err(away("no quorum"))
        } else if chance.permille(trouble.answer_lost) {
            Err(away("the answer was lost"))
        } else {
            Ok(())
        };
        self.sim.note(|| {
            let answer = answer.as_ref().map_or_else(ToString::to_string, |()| "ok".to_owned());
            format!("store: {process} writes {} on {taken}: {answer}", short(&puts))
        });
        answer
    }

    /// What a quorum says of the rows that are chosen, in order.
    async fn read(
        self: Arc<Self>,
        begin: Key,
        chosen: impl Fn(&Key) -> Option<bool> + Send,
    ) -> Result<Vec<(Key, Stamp, Value)>, Error> {
        let trouble = self.trouble();
        self.sim.dawdle(trouble.slow_ms).await;
        if self.sim.chance.permille(trouble.reads) {
            return Err(away("a read"));
        }
        let asked = self.quorum()?;
        let found = self.merged(&asked, begin, chosen);
        if trouble.repairs {
            let puts: Vec<_> = found
                .iter()
                .map(|(key, stamp, value)| Put { key: key.clone(), stamp: *stamp, value: value.clone() })
                .collect();
            asked.iter().for_each(|at| {
                self.put_on(*at, &puts);
            });
        }
        self.sim.dawdle(trouble.slow_ms).await;
        Ok(found)
    }

    fn quorum(&self) -> Result<Vec<usize>, Error> {
        let mut up: Vec<usize> = (0..3).filter(|at| self.nodes()[*at].answers()).collect();
        if up.len() < 2 {
            return Err(away("no quorum"));
        }
        if bugs::on(Bug::BaseAtOne) {
            return Ok(vec![*self.sim.chance.pick(&up)]);
        }
        if up.len() == 3 {
            up.remove(self.sim.chance.below(3) as usize);
        }
        Ok(up)
    }

    /// What these servers hold, the highest stamp of each row. `chosen`: whether a row is meant; `None` ends the search.
    pub fn merged(
        &self,
        asked: &[usize],
        begin: Key,
        chosen: impl Fn(&Key) -> Option<bool>,
    ) -> Vec<(Key, Stamp, Value)> {
        let nodes = self.nodes();
        let mut merged: std::collections::BTreeMap<Key, (Stamp, Value)> = std::collections::BTreeMap::new();
        for at in asked {
            for (key, (stamp, value)) in nodes[*at].from(begin.clone()) {
                match chosen(key) {
                    None => break,
                    Some(false) => {}
                    Some(true) => {
                        if merged.get(key).is_none_or(|(there, _)| there < stamp) {
                            merged.insert(key.clone(), (*stamp, value.clone()));
                        }
                    }
                }
            }
        }
        merged.into_iter().map(|(key, (stamp, value))| (key, stamp, value)).collect()
    }

    fn one(&self, asked: &[usize], key: &Key) -> Option<Value> {
        let nodes = self.nodes();
        let held = asked.iter().filter_map(|at| nodes[*at].get(key));
        held.max_by_key(|(stamp, _)| *stamp).map(|(_, value)| value.clone())
    }
}

fn short(puts: &[Put]) -> String {
    let one = |put: &Put| match (&put.key, &put.value) {
        (Key::Total(key, name), Value::Total(row)) => {
            format!("{}/{}{{{}}}={}@{}", key.shard.0, name.counter, name.tags, row.total, row.seq)
        }
        (Key::Event(_, _, _, id), _) => format!("event {id}"),
        (Key::Subject(_, subject, _, id, _), _) => format!("event {id} of {subject}"),
        (Key::Checkpoint(lane), Value::Checkpoint(mark)) => {
            format!("checkpoint {}={} from {}", lane.partition, mark.seq, mark.dedup_from)
        }
        (Key::Stored(lane), Value::Stored(seq)) => format!("stored {}={seq}", lane.partition),
        (key, _) => format!("{key:?}"),
    };
    puts.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// The store as one process has it.
pub struct Client {
    pub servers: Arc<Servers>,
    gate: Gate,
    process: u64,
}

impl Client {
    pub fn new(servers: Arc<Servers>, gate: Gate, process: u64) -> Self {
        Self { servers, gate, process }
    }

    /// What is on its way goes on without its process.
    pub async fn send<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.gate.pass().await;
        let (answer, answered) = oneshot::channel();
        tokio::spawn(async move {
            let _ = answer.send(work.await);
        });
        let answer = answered.await.map_err(|_| away("the world has ended"))?;
        self.gate.pass().await;
        answer
    }

    pub async fn write(&self, puts: Vec<Put>) -> Result<(), Error> {
        let _under_way = self.servers.watcher.under_way(&self.servers.sim, self.process);
        self.send(self.servers.clone().write(self.process, puts)).await
    }

    pub async fn read(
        &self,
        begin: Key,
        chosen: impl Fn(&Key) -> Option<bool> + Send + Sync + 'static,
    ) -> Result<Vec<(Key, Stamp, Value)>, Error> {
        let servers = self.servers.clone();
        self.send(async move { servers.read(begin, chosen).await }).await
    }
}

pub fn total(key: &ShardKey, row: &TotalRow) -> Put {
    Put { key: Key::Total(key.clone(), row.name.clone()), stamp: row.stamp, value: Value::Total(row.clone()) }
}

#[async_trait]
impl Totals for Client {
    async fn write_totals(&self, key: &ShardKey, rows: &[TotalRow]) -> Result<(), Error> {
        self.write(rows.iter().map(|row| total(key, row)).collect()).await
    }

    async fn totals(&self, key: &ShardKey, slice: &Slice) -> Result<Vec<TotalRow>, Error> {
        let of = key.clone();
        let name = slice.after.clone().unwrap_or(RowName { counter: "".into(), tags: "".into() });
        let (after, counter) = (slice.after.clone(), slice.counter.clone());
        let rows = self.read(Key::Total(key.clone(), name), move |key| match key {
            Key::Total(key, name) if *key == of => {
                Some(after.as_ref() != Some(name) && counter.as_ref().is_none_or(|counter| *counter == name.counter))
            }
            _ => None,
        });
        let rows = rows.await?.into_iter().filter_map(|(.., value)| match value {
            Value::Total(row) => Some(row),
            _ => None,
        });
        Ok(rows.take(slice.limit).collect())
    }

    async fn totals_named(&self, key: &ShardKey, names: &[RowName]) -> Result<Vec<Option<TotalRow>>, Error> {
        let (servers, key, names) = (self.servers.clone(), key.clone(), names.to_vec());
        self.send(async move {
            let trouble = servers.trouble();
            servers.sim.dawdle(trouble.slow_ms).await;
            if servers.sim.chance.permille(trouble.reads) {
                return Err(away("a read"));
            }
            let asked = servers.quorum()?;
            let read = |name: &RowName| match servers.one(&asked, &Key::Total(key.clone(), name.clone())) {
                Some(Value::Total(row)) => Some(row),
                _ => None,
            };
            Ok(names.iter().map(read).collect())
        })
        .await
    }
}

#[async_trait]
impl Events for Client {
    async fn write_events(&self, rows: &[EventRow]) -> Result<(), Error> {
        let puts = rows.iter().flat_map(|row| {
            let EventRow { namespace, name, subject, time_ms, id, stamp, .. } = row.clone();
            let value = || Value::Event(row.clone());
            let by_subject = subject.map(|subject| Put {
                key: Key::Subject(namespace.clone(), subject, time_ms, id.clone(), name.clone()),
                stamp,
                value: value(),
            });
            let by_name = Put { key: Key::Event(namespace, name, time_ms, id), stamp, value: value() };
            [Some(by_name), by_subject].into_iter().flatten()
        });
        self.write(puts.collect()).await
    }

    async fn events(&self, _: &EventsPage) -> Result<Vec<EventRow>, Error> {
        Err(Error::new(Kind::Permanent, "nobody reads events here"))
    }
}

#[async_trait]
impl Ledger for Client {
    async fn lanes(&self, _: &str) -> Result<Vec<LaneRow>, Error> {
        let begin = Lane { topic_id: tallymark::item::TopicId([0; 16]), partition: 0 };
        let rows = self.read(Key::Checkpoint(begin), |key| match key {
            Key::Checkpoint(_) | Key::Stored(_) => Some(true),
            _ => None,
        });
        let mut lanes = std::collections::BTreeMap::new();
        for (key, stamp, value) in rows.await? {
            match (key, value) {
                (Key::Checkpoint(lane), Value::Checkpoint(mark)) => {
                    lanes.entry(lane).or_insert_with(|| LaneRow::blank(lane)).checkpoint = Some(mark);
                }
                (Key::Stored(lane), Value::Stored(seq)) => {
                    let row = lanes.entry(lane).or_insert_with(|| LaneRow::blank(lane));
                    (row.stored, row.stored_stamp) = (Some(seq), Some(stamp));
                }
                _ => {}
            }
        }
        Ok(lanes.into_values().collect())
    }

    async fn write_checkpoint(&self, _: &str, checkpoint: &Checkpoint) -> Result<(), Error> {
        let (key, value) = (Key::Checkpoint(checkpoint.lane), Value::Checkpoint(checkpoint.clone()));
        self.write(vec![Put { key, stamp: checkpoint.stamp, value }]).await
    }

    async fn write_stored(&self, _: &str, lane: Lane, stored: Seq, stamp: Stamp) -> Result<(), Error> {
        self.write(vec![Put { key: Key::Stored(lane), stamp, value: Value::Stored(stored) }]).await
    }

    async fn epochs(&self, _: &str) -> Result<Vec<EpochRow>, Error> {
        let rows = self.read(Key::Epoch(tallymark::item::Epoch([0; 8])), |key| match key {
            Key::Epoch(_) => Some(true),
            _ => None,
        });
        let rows = rows.await?.into_iter().filter_map(|(.., value)| match value {
            Value::Epoch(row) => Some(row),
            _ => None,
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by_key(|row| (row.created_ms, row.epoch));
        Ok(rows)
    }

    async fn begin_epoch(&self, _: &str, epoch: &EpochRow) -> Result<(), Error> {
        // Begun again, nothing changes.
        if self.epochs("").await?.iter().any(|known| known.epoch == epoch.epoch) {
            return Ok(());
        }
        self.servers.plant(&Put {
            key: Key::Epoch(epoch.epoch),
            stamp: Stamp(epoch.created_ms),
            value: Value::Epoch(epoch.clone()),
        });
        Ok(())
    }

    async fn generations(&self) -> Generations {
        self.gate.pass().await;
        self.servers.sim.dawdle(self.servers.trouble().slow_ms).await;
        let answers = {
            let nodes = self.servers.nodes();
            let told = (0..3).map(|at| {
                let node = &nodes[at];
                (
                    format!("node-{at}"),
                    node.answers().then_some(Generation(node.generation)).ok_or_else(|| away("down")),
                )
            });
            told.collect()
        };
        self.gate.pass().await;
        answers
    }
}
