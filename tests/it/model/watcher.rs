//! Looks at every write that reaches the store, and at what the store holds in the end: whether it is what the lanes' logs
//! say (laws 2, 3, 5 and 7), on whatever quorum one asks.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering},
};

use tallymark::{
    item::{Coordinates, Lane, Seq, event_hash},
    log::Record,
    store::EpochRow,
};

use super::{
    given_up::GivenUp,
    log::Broker,
    oracle::Recount,
    replicas::{Key, Node, Put, Value},
    sim::Sim,
    store::Servers,
};

struct State {
    epochs: Vec<EpochRow>,
    recounts: BTreeMap<Lane, Recount>,
    under_way: BTreeMap<u64, usize>,
    given_up: BTreeMap<Lane, GivenUp>,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Watcher {
    sim: Arc<Sim>,
    broker: Arc<Broker>,
    /// Writes that a process may have on their way at once.
    most_under_way: usize,
    state: Arc<Mutex<State>>,
}

/// Counts a write that is under way.
pub struct UnderWay(Watcher, u64);

impl Drop for UnderWay {
    fn drop(&mut self) {
        *self.0.state().under_way.entry(self.1).or_default() -= 1;
    }
}

impl Watcher {
    pub fn new(sim: Arc<Sim>, broker: Arc<Broker>, epochs: Vec<EpochRow>, most_under_way: usize) -> Self {
        let state = State { epochs, recounts: BTreeMap::new(), under_way: BTreeMap::new(), given_up: BTreeMap::new() };
        Self { sim, broker, most_under_way, state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// An operator has begun this epoch.
    pub fn begin(&self, epoch: EpochRow) {
        let mut state = self.state();
        state.epochs.push(epoch);
        let State { epochs, recounts, .. } = &mut *state;
        recounts.values_mut().for_each(|recount| recount.set_epochs(epochs));
    }

    /// An operator has given up what the log lacks: of a log that is right otherwise, or of one that follows from nothing.
    pub fn gives_up(&self, given_up: GivenUp) {
        let mut state = self.state();
        let lane = given_up.lane;
        if self.sim.is_tainted(lane) {
            state.given_up.insert(lane, given_up);
        } else {
            state.recounts.get_mut(&lane).expect("what stopped it was found").give_up(given_up.gap);
        }
    }

    /// The lane's log has lost what nobody has read: it is what it is now.
    pub fn forget(&self, lane: Lane) {
        self.state().recounts.remove(&lane);
    }

    pub fn epochs(&self) -> Vec<EpochRow> {
        self.state().epochs.clone()
    }

    pub fn under_way(&self, sim: &Sim, process: u64) -> UnderWay {
        let mut state = self.state();
        let now = state.under_way.entry(process).or_default();
        *now += 1;
        if *now > self.most_under_way {
            sim.violated(|| format!("law 9: process {process} has {} writes under way", self.most_under_way + 1));
        }
        drop(state);
        UnderWay(self.clone(), process)
    }

    /// The lane's recount, up to the log's end.
    pub fn recount<T>(&self, lane: Lane, look: impl FnOnce(&Recount) -> T) -> T {
        let mut state = self.state();
        let State { epochs, recounts, .. } = &mut *state;
        let recount = recounts.entry(lane).or_insert_with(|| {
            Recount::new(lane, epochs.iter().filter(|epoch| epoch.topic_id == lane.topic_id).cloned().collect())
        });
        if lane.topic_id == self.broker.topic_id() && !self.sim.is_tainted(lane) {
            self.broker.history(lane.partition, |history: &[Record]| recount.advance(history));
        }
        look(recount)
    }

    /// Whose row it is. Nobody's: of an event, when the log has several layouts.
    fn lane_of(&self, key: &Key) -> Option<Lane> {
        let epochs = self.epochs();
        match key {
            Key::Total(key, _) => {
                let epoch = epochs.iter().find(|epoch| epoch.epoch == key.epoch)?;
                Some(Lane { topic_id: epoch.topic_id, partition: key.shard.partition(epoch.partitions) })
            }
            Key::Event(namespace, _, _, id) => match &epochs[..] {
                [epoch] => {
                    // Events of the model have no subject, or one that is their id's.
                    let partition = event_hash(namespace.as_str(), None, id) % u64::from(epoch.partitions);
                    Some(Lane { topic_id: epoch.topic_id, partition: partition as u32 })
                }
                _ => None,
            },
            Key::Checkpoint(lane) | Key::Stored(lane) => Some(*lane),
            Key::Letter(at) | Key::Replayed(at) => Some(at.lane),
            Key::Subject(..) | Key::Epoch(_) => None,
        }
    }

    /// Whether two rows of one stamp say nothing: of a lane whose log was falsified, and of what a lane says of itself, which
    /// may know more or less of the rows ahead of it.
    pub fn is_tainted(&self, key: &Key) -> bool {
        !matches!(key, Key::Total(..) | Key::Event(..))
            || self.lane_of(key).is_none_or(|lane| self.sim.is_tainted(lane))
    }

    /// A mutation has come to the servers.
    pub fn writes(&self, servers: &Servers, process: u64, puts: &[Put]) {
        for put in puts {
            let Some(lane) = self.lane_of(&put.key).filter(|lane| !self.sim.is_tainted(*lane)) else { continue };
            match (&put.key, &put.value) {
                (Key::Total(key, name), Value::Total(row)) => {
                    let is_one = |recount: &Recount| {
                        let versions = recount.rows.get(&(key.clone(), name.clone())).map_or(&[][..], |rows| rows);
                        let same = versions.iter().find(|version| version.seq == row.seq).copied();
                        same.is_some_and(|same| same.total == row.total && same.stamp == row.stamp)
                            .then_some(())
                            .ok_or(same)
                    };
                    if let Err(same) = self.recount(lane, is_one) {
                        self.sim.violated(|| {
                            format!("laws 2, 3, 7: process {process} writes {row:?}; at that seq the log says {same:?}")
                        });
                    }
                }
                (Key::Event(..), Value::Event(row))
                    if !self.recount(lane, |recount| recount.events.iter().any(|(_, event)| event == row)) =>
                {
                    self.sim
                        .violated(|| format!("laws 2, 7: process {process} writes {row:?}; the log has no such event"));
                }
                (Key::Checkpoint(_), Value::Checkpoint(mark)) => {
                    let stamp = self.recount(lane, |recount| recount.stamps.get(mark.seq.0 as usize).copied());
                    if stamp != Some(mark.stamp) {
                        self.sim.violated(|| format!("law 2: {mark:?}; the stamp is {stamp:?}"));
                    }
                    self.holds(servers, lane, mark.seq, "law 5: the checkpoint leads");
                }
                (Key::Letter(at), _) => {
                    let stamp = self.recount(lane, |recount| {
                        recount.letters.contains(&at.seq).then(|| recount.stamps[at.seq.0 as usize])
                    });
                    if stamp != Some(put.stamp) {
                        self.sim.violated(|| format!("law 6: {at:?} is called a dead letter at {:?}", put.stamp));
                    }
                }
                (Key::Replayed(at), Value::Replayed(by)) => {
                    let first = self.recount(lane, |recount| recount.replayed.get(at).copied());
                    if first != Some(by.seq) {
                        self.sim.violated(|| format!("law 6: {at:?} is said to be replayed by {by:?}, not {first:?}"));
                    }
                }
                (Key::Stored(_), Value::Stored(seq)) if !self.sim.forgot.load(Ordering::SeqCst) => {
                    self.holds(servers, lane, *seq, "law 5: `stored` leads");
                }
                _ => {}
            }
        }
    }

    /// A quorum holds everything of the lane up to this seq, whichever quorum one asks.
    fn holds(&self, servers: &Servers, lane: Lane, seq: Seq, law: &str) {
        let nodes = servers.nodes();
        self.recount(lane, |recount| {
            for ((key, name), versions) in &recount.rows {
                let Some(version) = Recount::as_of(versions, seq) else { continue };
                let key = Key::Total(key.clone(), name.clone());
                if copies(&nodes, &key, |stamp| stamp >= version.stamp) < 2 {
                    self.sim
                        .violated(|| format!("{law}: seq {seq} of {lane:?}, but a quorum lacks {name:?} {version:?}"));
                }
            }
            for (at, event) in &recount.events {
                let key = Key::Event(event.namespace.clone(), event.name.clone(), event.time_ms, event.id.clone());
                if *at <= seq && copies(&nodes, &key, |stamp| stamp >= event.stamp) < 2 {
                    self.sim
                        .violated(|| format!("{law}: seq {seq} of {lane:?}, but a quorum lacks event {}", event.id));
                }
            }
            self.holds_letters(&nodes, lane, recount, seq, law);
        });
    }

    /// What became of dead letters and their replays up to this seq is known to a quorum, and the letters are kept.
    fn holds_letters(&self, nodes: &[Node; 3], lane: Lane, recount: &Recount, seq: Seq, law: &str) {
        for at in recount.letters.range(..=seq).map(|seq| Coordinates { lane, seq: *seq }) {
            let is_kept = self.broker.letters.has(at);
            if !is_kept || copies(nodes, &Key::Letter(at), |_| true) < 2 {
                self.sim.violated(|| format!("{law}: seq {seq} of {lane:?}; {at:?} is a dead letter, kept: {is_kept}"));
            }
        }
        for (at, by) in recount.replayed.iter().filter(|(_, by)| **by <= seq) {
            if copies(nodes, &Key::Replayed(*at), |stamp| stamp >= recount.stamps[by.0 as usize]) < 2 {
                self.sim.violated(|| format!("{law}: seq {seq} of {lane:?}, but a quorum lacks the replay of {at:?}"));
            }
        }
    }

    /// At the end, every quorum says of every row of the lane what the log says.
    pub fn check_lane(&self, servers: &Servers, lane: Lane, what: &str) {
        if self.sim.is_tainted(lane) {
            return self.check_given_up(servers, lane, what);
        }
        let pairs = servers.quorums();
        self.recount(lane, |recount| {
            self.holds_letters(&servers.nodes(), lane, recount, recount.next(), what);
            for ((key, name), versions) in &recount.rows {
                let expected = versions.last().expect("a row has a version");
                for pair in &pairs {
                    let found = match servers.newest(*pair, &Key::Total(key.clone(), name.clone())) {
                        Some(Value::Total(row)) => Some((row.total, row.seq, row.stamp)),
                        _ => None,
                    };
                    if found != Some((expected.total, expected.seq, expected.stamp)) {
                        self.sim.violated(|| {
                            format!(
                                "{what}: {lane:?} {}{{{}}} is {found:?} on {pair:?}, the log says {expected:?}",
                                name.counter, name.tags
                            )
                        });
                    }
                }
            }
            for (_, event) in &recount.events {
                let by_name = Key::Event(event.namespace.clone(), event.name.clone(), event.time_ms, event.id.clone());
                let by_subject = event.subject.as_ref().map(|subject| {
                    let (namespace, id, name) = (event.namespace.clone(), event.id.clone(), event.name.clone());
                    Key::Subject(namespace, subject.clone(), event.time_ms, id, name)
                });
                for key in [Some(by_name), by_subject].into_iter().flatten() {
                    if pairs.iter().any(|pair| servers.newest(*pair, &key).is_none()) {
                        self.sim.violated(|| format!("{what}: {lane:?} lacks {key:?}"));
                    }
                }
            }
        });
    }

    fn check_given_up(&self, servers: &Servers, lane: Lane, what: &str) {
        let mut state = self.state();
        let Some(given_up) = state.given_up.get_mut(&lane) else { return };
        self.broker.history(lane.partition, |history| given_up.advance(history));
        if let Some(wrong) = given_up.wrong(servers, self.sim.forgot.load(Ordering::SeqCst)) {
            self.sim.violated(|| format!("{what}: after {:?} of {lane:?} was given up, {wrong}", given_up.gap));
        }
    }

    /// The totals that the log says, by namespace, counter and tags (none: the whole counter), over all lanes and layouts.
    pub fn totals(&self, lanes: &[Lane]) -> BTreeMap<(String, String, Option<String>), i128> {
        let mut totals = BTreeMap::new();
        for lane in lanes {
            self.recount(*lane, |recount| {
                for ((key, name), versions) in &recount.rows {
                    let tags = (key.shard.0 >= 0).then(|| name.tags.to_string());
                    let total = versions.last().map_or(0, |version| version.total);
                    *totals.entry((key.namespace.to_string(), name.counter.to_string(), tags)).or_default() += total;
                }
            });
        }
        totals
    }

    /// The highest and the lowest checkpoint that any server holds of a lane.
    pub fn checkpoints(servers: &Servers, lane: Lane) -> (Option<Seq>, Option<Seq>) {
        let nodes = servers.nodes();
        let seqs = nodes.iter().filter(|node| !node.lost).map(|node| match node.get(&Key::Checkpoint(lane)) {
            Some((_, Value::Checkpoint(mark))) => Some(mark.seq),
            _ => None,
        });
        (seqs.clone().max().flatten(), seqs.min().flatten())
    }
}

/// On how many servers a row has a stamp like this. One that is gone for good is in no quorum: the others must agree without it.
fn copies(nodes: &[Node; 3], key: &Key, enough: impl Fn(tallymark::item::Stamp) -> bool) -> usize {
    nodes.iter().filter(|node| node.lost || node.get(key).is_some_and(|(stamp, _)| enough(*stamp))).count()
}
