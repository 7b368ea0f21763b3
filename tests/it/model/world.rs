//! A world: a log, a store of three replicas, a hot view, ingests, and worker processes that come and go. What a seed makes
//! of it is `schedule`'s; here are the things that can happen, and what must hold when they have.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tallymark::{
    hot::{HotView as _, Options as HotOptions, View},
    item::{Epoch, Lane, Seq, Stamp},
    store::EpochRow,
    units::Size,
    worker::board::{LaneStatus, State},
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::{
    gate::Gate,
    given_up::GivenUp,
    halts::{Expected, kind_of},
    hot,
    ingest::{Intake, Item, series},
    log::{self, Broker, Opened},
    query::Query,
    replicas::{Key, Put, Value},
    sim::Sim,
    store::{self, Client, Servers},
    watcher::Watcher,
    worker::{Process, Settings},
};

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct Shape {
    pub partitions: u32,
    pub shards: u32,
    pub series: usize,
    pub ingests: usize,
    pub window_ms: i64,
    pub max_ids: u64,
    pub settings: Settings,
    /// What a server of the store has written is on its disk after so long.
    pub synced_within: Duration,
    pub hot_memory: Size,
    pub hot_pending: usize,
}

pub struct World {
    pub sim: Arc<Sim>,
    pub shape: Shape,
    pub broker: Arc<Broker>,
    pub servers: Arc<Servers>,
    pub view: Arc<hot::Shared>,
    pub intake: Arc<Intake>,
    pub watcher: Watcher,
    pub processes: Vec<Process>,
    leaving: Vec<JoinHandle<()>>,
    started: u64,
    /// Halts that follow from what was done to the log, beyond what the log itself shows.
    pub damaged: BTreeMap<u32, Expected>,
    /// Each lane's lowest checkpoint on any server, as it was.
    checkpoints: BTreeMap<u32, VecDeque<(Instant, Seq)>>,
    /// Retries, clocks or layouts for which the clients' books promise nothing.
    pub is_loose: bool,
    /// The topic was made anew, and nobody has begun its epoch yet.
    pub is_recreated: bool,
    /// Somebody remedies what a remedy is for.
    pub has_operator: bool,
}

fn epoch(broker: &Broker, shape: &Shape, created_ms: i64) -> EpochRow {
    let (topic_id, partitions) = (broker.topic_id(), broker.partitions());
    EpochRow {
        epoch: Epoch::of(topic_id, partitions, shape.shards),
        topic_id,
        cluster_id: String::new(),
        partitions,
        shards: shape.shards,
        dedup_window_us: shape.window_ms * 1000,
        dedup_max_ids: shape.max_ids,
        created_ms,
    }
}

impl World {
    pub fn new(sim: Arc<Sim>, shape: Shape) -> Self {
        let broker = Broker::new(sim.clone(), shape.partitions);
        let first = epoch(&broker, &shape, 1);
        // Every slot of a process, and the checkpoint of each lane.
        let most = shape.settings.in_flight + shape.partitions as usize + 8;
        let watcher = Watcher::new(sim.clone(), broker.clone(), vec![first.clone()], most);
        let servers = Servers::new(sim.clone(), shape.synced_within, watcher.clone());
        let options = HotOptions { memory: shape.hot_memory, max_pending: shape.hot_pending, ..HotOptions::default() };
        let view = hot::Shared::new(sim.clone(), options);
        let ingest_view = hot::Client::new(view.clone(), Gate::new());
        let series = series(shape.series);
        let intake = Intake::new(sim.clone(), broker.clone(), ingest_view, series, shape.shards, shape.ingests);
        let world = Self {
            sim,
            shape,
            broker,
            servers,
            view,
            intake,
            watcher,
            processes: Vec::new(),
            leaving: Vec::new(),
            started: 0,
            damaged: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            is_loose: false,
            is_recreated: false,
            has_operator: false,
        };
        world.plant_epoch(&first);
        world
    }

    fn plant_epoch(&self, row: &EpochRow) {
        let (key, value) = (Key::Epoch(row.epoch), Value::Epoch(row.clone()));
        self.servers.plant(&Put { key, stamp: Stamp(1), value });
    }

    /// The operator begins the epoch of the log as it is now.
    pub fn begin_epoch(&self) {
        let row = epoch(&self.broker, &self.shape, 2);
        self.watcher.begin(row.clone());
        self.plant_epoch(&row);
    }

    /// The operator has given up what a lane's log lacks; `missing`: in its midst.
    pub fn gives_up(&mut self, lane: Lane, missing: bool, given_up: GivenUp) {
        let kinds = if missing { vec!["Missing"] } else { vec!["Gap", "Log"] };
        self.remedies(lane.partition, kinds);
        self.watcher.gives_up(given_up);
    }

    /// The operator has remedied a lane's halt: it goes on.
    pub fn remedies(&mut self, partition: u32, kinds: Vec<&'static str>) {
        self.damaged.insert(partition, Expected { kinds, must: false, remedied: true });
    }

    pub fn lane(&self, partition: u32) -> Lane {
        self.broker.lane(partition)
    }

    pub fn lanes(&self) -> Vec<Lane> {
        (0..self.broker.partitions()).map(|partition| self.lane(partition)).collect()
    }

    // Workers.

    pub fn start(&mut self) {
        self.started += 1;
        self.sim.note(|| format!("worker {} starts", self.started));
        let Self { shape, broker, servers, view, .. } = self;
        self.processes.push(Process::start(self.started, &shape.settings, broker, servers, view));
    }

    pub async fn crash(&mut self, at: usize) {
        let process = self.processes.swap_remove(at);
        let number = process.number;
        self.sim.note(|| format!("worker {number} is killed"));
        process.crash().await;
        self.broker.group.silent(number, false);
    }

    /// As SIGTERM; the world goes on meanwhile.
    pub fn leave(&mut self, at: usize) {
        let process = self.processes.swap_remove(at);
        let (number, sim, group) = (process.number, self.sim.clone(), self.broker.group.clone());
        sim.note(|| format!("worker {number} is told to stop"));
        process.gate.thaw();
        self.leaving.push(tokio::spawn(async move {
            if let Err(why) = process.leave().await {
                sim.violated(|| format!("worker {number} does not leave well: {why}"));
            }
            sim.note(|| format!("worker {number} has left"));
            group.left(number);
        }));
    }

    pub fn freeze(&mut self, at: usize) {
        let process = &self.processes[at];
        self.sim.note(|| format!("worker {} hangs", process.number));
        process.gate.freeze();
        self.broker.group.silent(process.number, false);
    }

    pub fn deafen(&mut self, at: usize) {
        let process = &mut self.processes[at];
        self.sim.note(|| format!("worker {} hears nothing of the group", process.number));
        process.is_deaf = true;
        self.broker.group.silent(process.number, true);
    }

    pub fn recover(&mut self, at: usize) {
        let process = &mut self.processes[at];
        if process.gate.is_frozen() || process.is_deaf {
            self.sim.note(|| format!("worker {} is back", process.number));
            process.gate.thaw();
            process.is_deaf = false;
            self.broker.group.heard(process.number);
        }
    }

    // Queries.

    fn query(&self) -> Arc<Query> {
        let gate = Gate::new();
        Arc::new(Query {
            log: Opened::new(self.broker.clone(), gate.clone(), 0),
            store: Client::new(self.servers.clone(), gate.clone(), 0),
            hot: hot::Client::new(self.view.clone(), gate),
        })
    }

    /// Somebody reads a series that the view does not have.
    pub fn load(&self, series: usize, kind: usize) {
        let key = self.intake.hot_keys(series)[kind].clone();
        let (query, sim) = (self.query(), self.sim.clone());
        tokio::spawn(async move {
            let loaded = query.load(key.clone()).await;
            sim.note(|| format!("query: load of {key:?}: {loaded:?}"));
        });
    }

    // The store's servers.

    pub fn set_up(&self, at: usize, up: bool) {
        self.sim.note(|| format!("store {at} is {}", if up { "up" } else { "down" }));
        self.servers.nodes()[at].up = up;
    }

    /// The server's power goes, with what it has not synced.
    pub fn power_cut(&self, at: usize, within: Duration) {
        let forgotten = self.servers.nodes()[at].forget(within.min(self.shape.synced_within));
        if forgotten > 0 {
            self.sim.forgets();
        }
        self.sim.note(|| format!("store {at} has started again and forgotten {forgotten} writes"));
    }

    pub fn lose(&self, at: usize) {
        self.sim.note(|| format!("store {at} is gone for good"));
        self.servers.nodes()[at].lost = true;
    }

    // The log.

    /// A record that nobody can read, for ever: of whoever writes into a topic, or a pack that has changed at rest.
    pub fn poison(&self, partition: u32) {
        if self.sim.chance.permille(500) {
            return self.intake.put_damaged(partition);
        }
        let seq = self.broker.put(partition, 1, Bytes::from_static(b"\xff\xfe not a pack"), None).seq;
        self.sim.note(|| format!("log {partition}: {seq:?} is no pack"));
    }

    /// Retention takes what every later pack finds expired and no lane goes back to.
    pub fn retain(&mut self, partition: u32) {
        if self.sim.is_tainted(self.lane(partition)) {
            // Nobody knows what its next pack finds.
            return;
        }
        let synced = self.shape.synced_within;
        let Some(durable) = self
            .checkpoints
            .get(&partition)
            .and_then(|seen| seen.iter().rev().find(|(at, _)| at.elapsed() > synced).map(|(_, seq)| *seq))
        else {
            return;
        };
        let end = self.broker.bounds_of(partition).end.0;
        let start = self.watcher.recount(self.lane(partition), |recount| {
            // The next pack that a lane may go on with finds older ones expired.
            let now = Stamp(self.sim.now_ms() * 1000);
            let last = recount.stamps.last().map_or(now, |last| last.after_unreadable().max(now));
            recount.expired(recount.stamps.get(durable.0 as usize + 1).copied().unwrap_or(last)) as u64
        });
        let start = start.min(durable.0 + 1);
        if start > self.broker.bounds_of(partition).start.0 {
            self.sim.note(|| format!("log {partition}: retention removes what is below {start} of {end}"));
            self.broker.remove_front(partition, start);
        }
    }

    /// What a lane may halt for: what stands in its log, and what was done to it.
    pub fn expected(&self, partition: u32) -> Expected {
        let mut expected = self.damaged.get(&partition).cloned().unwrap_or_default();
        let lane = self.lane(partition);
        if self.watcher.epochs().iter().any(|epoch| epoch.topic_id == lane.topic_id)
            && let Some((_, kind)) = self.watcher.recount(lane, |recount| recount.stopped)
        {
            expected.kinds.push(kind);
            expected.must = true;
        }
        expected
    }

    /// Nothing keeps the lane from running, whatever it was before.
    pub fn is_sound(&self, partition: u32) -> bool {
        let expected = self.expected(partition);
        expected.kinds.is_empty() || (expected.remedied && !expected.must)
    }

    // What must hold.

    /// Looks at what all processes show.
    pub async fn look(&mut self) {
        for at in (0..self.processes.len()).rev() {
            if self.processes[at].has_ended() {
                let process = self.processes.swap_remove(at);
                let number = process.number;
                let why = process.ended().await;
                self.sim.violated(|| format!("worker {number} ended by itself: {why}"));
                continue;
            }
            for (partition, status) in self.processes[at].lanes() {
                self.look_at(partition, &status);
            }
        }
        let (bytes, most) = (self.view.bytes(), self.shape.hot_memory.as_usize());
        if bytes > most {
            self.sim.violated(|| format!("law 9: the hot view takes {bytes} of {most} bytes"));
        }
        for partition in 0..self.broker.partitions() {
            let (_, lowest) = Watcher::checkpoints(&self.servers, self.lane(partition));
            let seen = self.checkpoints.entry(partition).or_default();
            seen.extend(lowest.map(|seq| (Instant::now(), seq)));
            if seen.len() > 64 {
                seen.pop_front();
            }
        }
    }

    fn look_at(&self, partition: u32, status: &LaneStatus) {
        if status.state == State::Halted {
            let reason = status.reason.as_deref().unwrap_or_default();
            let expected = self.expected(partition);
            if !expected.kinds.contains(&kind_of(reason)) {
                self.sim.violated(|| format!("law 6: lane {partition} halts, expected {expected:?}: {reason}"));
            }
        }
        // A pack that alone is larger than the bound is taken all the same.
        let most = self.shape.settings.options.max_rows.max(2 * self.shape.series);
        if status.rows > most {
            self.sim.violated(|| format!("law 9: lane {partition} keeps {} rows, {most} is the bound", status.rows));
        }
    }

    /// Every fault ends.
    pub fn heal(&mut self) {
        self.sim.note(|| "everything is made good".to_owned());
        self.broker.set_trouble(log::Trouble::default());
        self.servers.set_trouble(store::Trouble { slow_ms: 5, ..store::Trouble::default() });
        self.view.set_trouble(hot::Trouble::default());
        (0..3).for_each(|at| self.servers.nodes()[at].up = true);
        for partition in 0..self.broker.partitions() {
            self.broker.set_skew(partition, 0);
        }
        (0..self.processes.len()).for_each(|at| self.recover(at));
        if self.processes.is_empty() {
            self.start();
        }
    }

    /// Waits until every lane has stored its log and moved its checkpoint to its end, or has halted as it must.
    pub async fn settle(&mut self, what: &str) {
        let deadline = Instant::now() + Duration::from_secs(7200);
        while self.sim.violation().is_none() {
            self.look().await;
            let waits: Vec<_> =
                (0..self.broker.partitions()).filter_map(|partition| self.waits_for(partition)).collect();
            if waits.is_empty() && self.intake.under_way() == 0 {
                return;
            }
            if Instant::now() > deadline {
                self.sim.violated(|| {
                    format!("{what}: {} packs are under way, {}", self.intake.under_way(), waits.join("; "))
                });
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    fn waits_for(&self, partition: u32) -> Option<String> {
        let owner = self.broker.group.owner(partition);
        let process = self.processes.iter().find(|process| Some(process.number) == owner);
        let Some(status) = process.and_then(|process| process.lanes().remove(&partition)) else {
            return Some(format!("nobody runs lane {partition}"));
        };
        let expected = self.expected(partition);
        if status.state == State::Halted && !expected.remedied {
            return None;
        }
        if expected.must {
            return Some(format!("law 6: lane {partition} must halt: {expected:?}; it is {status:?}"));
        }
        let end = self.broker.bounds_of(partition).end;
        let is_through = status.stored == end && status.checkpoint == end && status.next == end;
        (!is_through).then(|| format!("lane {partition} ends at {end}; {status:?}"))
    }

    /// The store holds what the log says, and the clients' books agree.
    pub fn check(&self, what: &str) {
        let lanes = self.lanes();
        for lane in &lanes {
            self.watcher.check_lane(&self.servers, *lane, what);
        }
        if !self.is_loose {
            self.intake.check_books(&self.watcher, &lanes, &self.watcher.epochs());
        }
    }

    /// What the view shows of each series and counter is what the log says, once the lanes have published all of it.
    /// What it says to be stale may lack something while nobody works.
    pub async fn check_view(&self, what: &str) {
        let (totals, idle) = (self.watcher.totals(&self.lanes()), self.processes.is_empty());
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let mut wrong = Vec::new();
            for series in 0..self.intake.series.len() {
                let about = &self.intake.series[series];
                for (kind, key) in self.intake.hot_keys(series).into_iter().enumerate() {
                    let tags = (kind == 0).then(|| about.tags.clone());
                    let name = (about.namespace.to_owned(), about.counter.to_owned(), tags);
                    let expected = totals.get(&name).copied().unwrap_or(0);
                    match self.view.view().read(&[key]).await.expect("it waits for nothing").remove(0) {
                        View::Full { total, stale } if if stale { !idle } else { total != expected } => {
                            wrong.push(format!("{name:?} is {total} (stale {stale}), {expected} in the log"));
                        }
                        _ => {}
                    }
                }
            }
            if wrong.is_empty() {
                return;
            }
            if Instant::now() > deadline {
                self.sim.violated(|| format!("{what}: law 8: {}", wrong.join("; ")));
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// All workers leave, as they should.
    pub async fn leave_all(&mut self) {
        while !self.processes.is_empty() {
            self.leave(0);
        }
        for leaving in std::mem::take(&mut self.leaving) {
            if let Err(error) = leaving.await {
                self.sim.violated(|| format!("a worker's end panicked: {error}"));
            }
        }
    }

    /// Each series once more, with a fresh id: so every lane publishes all of it.
    pub fn touch_all(&self) {
        for series in 0..self.intake.series.len() {
            let item = Item::Increment { series, amount: 1, id: Some(self.intake.fresh_id()) };
            self.intake.ask(0, vec![item]);
        }
    }
}
