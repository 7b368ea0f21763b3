//! Ingest: packs as the real one makes them, with its claims; and the clients' books, which know of every item whether it
//! was acknowledged.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use tallymark::{
    hot::{Delta, HotKey, HotKind, HotView as _},
    item::{Coordinates, IdScope, Lane, PackId, SeriesRef, Shard, TopicId, event_hash, series_hash},
    pack::{self, Claim, Event, FORMAT, Increments, Pack},
    store::EpochRow,
};

use super::{hot, log::Broker, oracle::RowKey, oracle::rows_of, sim::Sim, watcher::Watcher};

/// A series of the world.
#[derive(Clone, Debug)]
pub struct Series {
    pub namespace: &'static str,
    pub counter: &'static str,
    pub tags: String,
    pub key: Vec<u8>,
}

/// So many series, over two tenants and three counters.
pub fn series(count: usize) -> Vec<Series> {
    let all = (0..count).map(|n| {
        let (namespace, counter) = (["default", "other"][n % 7 / 6], ["a", "b", "c.d"][n % 3]);
        let tags = if n < 2 { String::new() } else { format!("k={n}") };
        let key = SeriesRef { namespace, counter, tags: &tags }.to_key();
        Series { namespace, counter, tags, key }
    });
    all.collect()
}

#[derive(Clone, Debug)]
pub enum Item {
    Increment { series: usize, amount: i64, id: Option<u64> },
    Event { id: u64, with_subject: bool },
}

const EVENT: &str = "e";

/// One ingest process.
struct Process {
    id: [u8; 16],
    topic_id: TopicId,
    partitions: u32,
    skew_ms: i64,
    claims: BTreeMap<u32, Vec<Claim>>,
}

/// A pack that was made.
struct Made {
    lane: Lane,
    items: Vec<Item>,
    partitions: u32,
    acknowledged: bool,
    /// The dead letter that it replays.
    replays: Option<Coordinates>,
}

#[derive(Default)]
struct Books {
    made: HashMap<PackId, Made>,
    /// What clients have asked for, and when.
    requests: Vec<(i64, Vec<Item>)>,
    /// Packs that were damaged in the log, and what they carried.
    damaged: Vec<(Coordinates, Vec<Item>)>,
    next_id: u64,
    under_way: usize,
}

/// See the module.
pub struct Intake {
    sim: Arc<Sim>,
    broker: Arc<Broker>,
    hot: Arc<hot::Client>,
    pub series: Vec<Series>,
    shards: u32,
    processes: Mutex<Vec<Process>>,
    books: Mutex<Books>,
}

impl Intake {
    pub fn new(
        sim: Arc<Sim>,
        broker: Arc<Broker>,
        hot: hot::Client,
        series: Vec<Series>,
        shards: u32,
        processes: usize,
    ) -> Arc<Self> {
        let intake = Self {
            sim,
            broker,
            hot: Arc::new(hot),
            series,
            shards,
            processes: Mutex::default(),
            books: Mutex::default(),
        };
        (0..processes).for_each(|_| intake.open());
        Arc::new(intake)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    /// One more ingest opens the log as it is now.
    fn open(&self) {
        let topology = self.broker.topology();
        let (topic_id, partitions) = (topology.topic_id, topology.partitions);
        let process =
            Process { id: self.sim.chance.bytes(), topic_id, partitions, skew_ms: 0, claims: BTreeMap::new() };
        self.processes.lock().unwrap().push(process);
    }

    /// An ingest starts again: it knows the log as it is now, and has nothing to claim.
    pub fn restart(&self, at: usize) {
        self.open();
        self.processes.lock().unwrap().swap_remove(at);
    }

    pub fn processes(&self) -> usize {
        self.processes.lock().unwrap().len()
    }

    pub fn set_skew(&self, at: usize, skew_ms: i64) {
        self.processes.lock().unwrap()[at].skew_ms = skew_ms;
    }

    pub fn fresh_id(&self) -> u64 {
        let mut books = self.books();
        books.next_id += 1;
        books.next_id
    }

    /// Requests of this far back.
    pub fn recent(&self, within_ms: i64) -> Vec<Vec<Item>> {
        let since = self.sim.now_ms() - within_ms;
        self.books().requests.iter().filter(|(at, _)| *at >= since).map(|(_, items)| items.clone()).collect()
    }

    /// Packs that have not been answered.
    pub fn under_way(&self) -> usize {
        self.books().under_way
    }

    fn partition(&self, item: &Item, partitions: u32) -> u32 {
        match item {
            Item::Increment { series, .. } => {
                Shard::of(series_hash(&self.series[*series].key), self.shards).partition(partitions)
            }
            Item::Event { id, .. } => (event_hash("default", None, &id.to_string()) % u64::from(partitions)) as u32,
        }
    }

    /// A client asks for this; it is on its way when this returns.
    pub fn ask(self: &Arc<Self>, at: usize, items: Vec<Item>) {
        self.books().requests.push((self.sim.now_ms(), items.clone()));
        let partitions = self.processes.lock().unwrap()[at].partitions;
        let mut of_partition: BTreeMap<u32, Vec<Item>> = BTreeMap::new();
        for item in items {
            of_partition.entry(self.partition(&item, partitions)).or_default().push(item);
        }
        for (partition, items) in of_partition {
            self.send(at, partition, items, None);
        }
    }

    /// A pack of nothing but its claims.
    pub fn send_empty(self: &Arc<Self>, at: usize, partition: u32) {
        self.send(at, partition, Vec::new(), None);
    }

    /// A pack whose bytes the log finds changed when it is read.
    pub fn put_damaged(&self, partition: u32) {
        let processes = self.processes.lock().unwrap().len() as u64;
        let at = self.sim.chance.below(processes) as usize;
        let here = |series: &usize| {
            let item = Item::Increment { series: *series, amount: 1, id: None };
            self.partition(&item, self.processes.lock().unwrap()[at].partitions) == partition
        };
        let Some(series) = (0..self.series.len()).find(here) else { return };
        let id = self.sim.chance.permille(500).then(|| self.fresh_id());
        let items = vec![Item::Increment { series, amount: 3, id }, Item::Increment { series, amount: 4, id: None }];
        let (pack, lane, _) = self.pack(at, partition, &items);
        let damage = Some("its checksum is wrong".to_owned());
        let seq = self.broker.put(partition, FORMAT, pack.encode_record(), damage).seq.expect("it was put just now");
        self.sim.note(|| format!("log {partition}: {seq} is damaged: {items:?}"));
        self.books().damaged.push((Coordinates { lane, seq }, items));
    }

    /// Somebody replays a damaged pack, whether or not it was replayed before.
    pub fn replay(self: &Arc<Self>, at: usize) {
        let damaged = {
            let books = self.books();
            (!books.damaged.is_empty()).then(|| self.sim.chance.pick(&books.damaged).clone())
        };
        let Some((letter, items)) = damaged else { return };
        let process = {
            let processes = self.processes.lock().unwrap();
            (processes[at].topic_id, processes[at].partitions)
        };
        // In its own layout, or not at all: what `tallymark dead-letters replay` sees to.
        if process.0 == letter.lane.topic_id
            && items.iter().all(|item| self.partition(item, process.1) == letter.lane.partition)
        {
            self.send(at, letter.lane.partition, items, Some(letter));
        }
    }

    fn send(self: &Arc<Self>, at: usize, partition: u32, items: Vec<Item>, replays: Option<Coordinates>) {
        let (mut pack, lane, ingest) = self.pack(at, partition, &items);
        pack.replayed = replays.map(|Coordinates { lane, seq }| pack::Coordinates {
            topic_id: Bytes::copy_from_slice(&lane.topic_id.0),
            partition: lane.partition,
            seq: seq.0,
        });
        let (id, partitions) = (pack.pack_id(), pack.partitions);
        self.sim.note(|| format!("ingest {at}: {id:?} for {partition}: {items:?}"));
        {
            let mut books = self.books();
            books.made.insert(id, Made { lane, items: items.clone(), partitions, acknowledged: false, replays });
            books.under_way += 1;
        }
        let (intake, payload) = (self.clone(), pack.encode_record());
        tokio::spawn(async move {
            // The view learns of a replay by its lane alone.
            let shown = if replays.is_none() { &items[..] } else { &[] };
            intake.deliver(ingest, lane, id, payload, pack.claims, shown).await;
            intake.books().under_way -= 1;
        });
    }

    async fn deliver(
        &self,
        ingest: [u8; 16],
        lane: Lane,
        id: PackId,
        payload: Bytes,
        claims: Vec<Claim>,
        items: &[Item],
    ) {
        let answer = self.broker.append(lane.partition, FORMAT, payload).await;
        self.sim.note(|| match &answer {
            Ok(appended) => format!("log {}: {id:?} is at {:?}", lane.partition, appended.seq),
            Err(error) => format!("log {}: {id:?}: {error}", lane.partition),
        });
        let seq = match answer {
            Ok(appended) => {
                if let Some(made) = self.books().made.get_mut(&id) {
                    made.acknowledged = true;
                }
                let claim = appended.seq.map(|seq| Claim {
                    topic_id: Bytes::copy_from_slice(&lane.topic_id.0),
                    seq: seq.0,
                    pack: Bytes::copy_from_slice(&id.0),
                });
                self.remember(ingest, lane.partition, claim.into_iter().collect());
                appended.seq
            }
            Err(_) => {
                self.remember(ingest, lane.partition, claims);
                None
            }
        };
        // An acknowledgement without an offset skips the view.
        if let Some(seq) = seq {
            let _ = self.hot.add(lane, seq, self.deltas(items)).await;
            // Told again, it changes nothing.
            if self.sim.chance.permille(200) {
                let _ = self.hot.add(lane, seq, self.deltas(items)).await;
            }
        }
    }

    fn remember(&self, ingest: [u8; 16], partition: u32, claims: Vec<Claim>) {
        if let Some(process) = self.processes.lock().unwrap().iter_mut().find(|process| process.id == ingest) {
            process.claims.entry(partition).or_default().extend(claims);
        }
    }

    fn deltas(&self, items: &[Item]) -> Vec<Delta> {
        let mut sums: BTreeMap<HotKey, i128> = BTreeMap::new();
        for item in items {
            if let Item::Increment { series, amount, .. } = item {
                for key in self.hot_keys(*series) {
                    *sums.entry(key).or_default() += i128::from(*amount);
                }
            }
        }
        sums.into_iter().map(|(key, amount)| Delta { key, amount }).collect()
    }

    /// The entries that a series counts into.
    pub fn hot_keys(&self, series: usize) -> [HotKey; 2] {
        let Series { namespace, counter, key, .. } = &self.series[series];
        let counter = SeriesRef { namespace, counter, tags: "" }.to_key();
        [
            HotKey { kind: HotKind::Series, key: key.clone().into() },
            HotKey { kind: HotKind::Counter, key: counter.into() },
        ]
    }

    fn pack(&self, at: usize, partition: u32, items: &[Item]) -> (Pack, Lane, [u8; 16]) {
        let mut processes = self.processes.lock().unwrap();
        let process = &mut processes[at];
        let mut increments = Increments::default();
        let (mut dictionary, mut keys, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        let mut events = Vec::new();
        let receive_ms = self.sim.now_ms() + process.skew_ms;
        let (with, without): (Vec<&Item>, Vec<&Item>) =
            items.iter().partition(|item| !matches!(item, Item::Increment { id: None, .. }));
        for item in with.into_iter().chain(without) {
            match item {
                Item::Increment { series, amount, id } => {
                    let key = &self.series[*series].key;
                    let index = dictionary.iter().position(|known| known == series).unwrap_or_else(|| {
                        increments.key_lengths.push(key.len() as u32);
                        increments.grains.push(0);
                        keys.extend_from_slice(key);
                        dictionary.push(*series);
                        dictionary.len() - 1
                    });
                    increments.series.push(index as u32);
                    increments.amounts.push(*amount);
                    increments.times.push(0);
                    ids.extend(id.iter().flat_map(|id| IdScope::series(key).id(id.to_string().as_bytes()).0));
                }
                Item::Event { id, with_subject } => events.push(Event {
                    namespace: "default".to_owned(),
                    name: EVENT.to_owned(),
                    subject: if *with_subject { id.to_string() } else { String::new() },
                    time_ms: *id as i64,
                    id: id.to_string(),
                    properties: Bytes::from_static(b"{}"),
                }),
            }
        }
        (increments.keys, increments.ids) = (keys.into(), ids.into());
        let pack = Pack {
            version: FORMAT,
            id: Bytes::copy_from_slice(&self.sim.chance.bytes()),
            ingest: Bytes::copy_from_slice(&process.id),
            receive_ms,
            partitions: process.partitions,
            shards: self.shards,
            urgent: self.sim.chance.permille(30),
            claims: process.claims.remove(&partition).unwrap_or_default(),
            increments: (!dictionary.is_empty()).then_some(increments),
            events,
            ..Pack::default()
        };
        (pack, Lane { topic_id: process.topic_id, partition }, process.id)
    }

    /// Whether some ingest that lives was acknowledged a pack of the partition at this seq or above, and will say so.
    pub fn claims_above(&self, partition: u32, seq: u64) -> bool {
        let processes = self.processes.lock().unwrap();
        let claims = processes.iter().filter_map(|process| process.claims.get(&partition)).flatten();
        claims.into_iter().any(|claim| claim.seq >= seq)
    }

    /// What each row must be by the clients' books: every id that is in the log once, whatever was retried; of what has no id
    /// each pack once. And what was acknowledged is in the log (law 1).
    pub fn check_books(&self, watcher: &Watcher, lanes: &[Lane], epochs: &[EpochRow]) {
        let books = self.books();
        for lane in lanes.iter().copied().filter(|lane| !self.sim.is_tainted(*lane)) {
            // What stops a lane stops its books.
            let end = watcher.recount(lane, |recount| recount.taken);
            // Dead letters are there and do not count.
            let all: Vec<Option<PackId>> = self.broker.history(lane.partition, |history| {
                let ids = history.iter().map(|record| {
                    let pack = pack::decode(record.format, record.payload.clone()).ok();
                    pack.filter(|_| record.damage.is_none()).map(|pack| pack.pack_id())
                });
                ids.collect()
            });
            let packs = all[..end.min(all.len())].iter().flatten();
            let there: HashSet<PackId> = all.iter().flatten().copied().collect();
            for (id, made) in books.made.iter().filter(|(_, made)| made.lane == lane && made.acknowledged) {
                if !there.contains(id) {
                    self.sim.violated(|| format!("law 1: {id:?} was acknowledged, the log lacks it: {:?}", made.items));
                }
            }
            let mut expected: BTreeMap<RowKey, i128> = BTreeMap::new();
            let (mut seen, mut counted, mut replayed) = (HashSet::new(), BTreeSet::new(), BTreeSet::new());
            for made in packs.filter(|id| seen.insert(**id)).filter_map(|id| books.made.get(id)) {
                if made.replays.is_some_and(|at| !replayed.insert(at)) {
                    continue;
                }
                let is_its = |epoch: &&EpochRow| (epoch.topic_id, epoch.partitions) == (lane.topic_id, made.partitions);
                let Some(epoch) = epochs.iter().find(is_its) else { continue };
                for item in &made.items {
                    let Item::Increment { series, amount, id } = item else { continue };
                    if id.is_none_or(|id| counted.insert((*series, id))) {
                        for key in rows_of(&self.series[*series].key, epoch, lane.partition) {
                            *expected.entry(key).or_default() += i128::from(*amount);
                        }
                    }
                }
            }
            let found: BTreeMap<RowKey, i128> = watcher.recount(lane, |recount| {
                let totals = recount.rows.iter().map(|(key, versions)| (key.clone(), versions.last().unwrap().total));
                totals.collect()
            });
            if expected != found {
                let differ: Vec<_> = expected
                    .iter()
                    .filter(|(key, total)| found.get(key) != Some(total))
                    .map(|(key, total)| (&key.1, total, found.get(key)))
                    .collect();
                self.sim.violated(|| format!("law 7: by the clients' books {lane:?} differs: {differ:?}"));
            }
        }
    }
}
