//! The group of workers as a broker keeps it: who owns which partition, revoked before it is given to another, taken away
//! from whoever is silent for a session.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tallymark::log::Change;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{sleep, timeout},
};

use super::{gate::Gate, sim::Sim};

/// How long a member may be silent.
pub const SESSION: Duration = Duration::from_secs(10);
/// How long a member may take to give up what is revoked; then it is expelled.
const PATIENCE: Duration = Duration::from_secs(30);

struct Member {
    gate: Gate,
    changes: mpsc::Sender<Change>,
    owns: Vec<u32>,
    /// Heard of by the group: not expelled, not taken for dead.
    within: bool,
    /// It hears nothing of the group, whatever else it reaches.
    deaf: bool,
}

impl Member {
    fn hears(&self) -> bool {
        !self.deaf && !self.gate.is_frozen() && !self.changes.is_closed()
    }
}

struct State {
    partitions: u32,
    members: BTreeMap<u64, Member>,
    owners: BTreeMap<u32, u64>,
    /// Turns which member gets which partition.
    turn: u64,
}

/// See the module.
pub struct Group {
    sim: Arc<Sim>,
    state: Mutex<State>,
    due: Notify,
}

impl Group {
    pub fn new(sim: Arc<Sim>, partitions: u32) -> Arc<Self> {
        let (members, owners) = (BTreeMap::new(), BTreeMap::new());
        let group = Arc::new(Self {
            sim,
            state: Mutex::new(State { partitions, members, owners, turn: 0 }),
            due: Notify::new(),
        });
        let coordinator = group.clone();
        tokio::spawn(async move {
            loop {
                coordinator.due.notified().await;
                coordinator.balance().await;
            }
        });
        group
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn set_partitions(&self, partitions: u32) {
        self.state().partitions = partitions;
        self.due.notify_one();
    }

    pub fn join(&self, process: u64, gate: Gate) -> mpsc::Receiver<Change> {
        let (changes, receiver) = mpsc::channel(64);
        let member = Member { gate, changes, owns: Vec::new(), within: true, deaf: false };
        self.state().members.insert(process, member);
        self.due.notify_one();
        receiver
    }

    /// Partitions are dealt out anew.
    pub fn shuffle(&self) {
        self.state().turn += 1;
        self.due.notify_one();
    }

    /// A member has left in good order.
    pub fn left(&self, process: u64) {
        let mut state = self.state();
        state.members.remove(&process);
        state.owners.retain(|_, owner| *owner != process);
        drop(state);
        self.due.notify_one();
    }

    /// A member has gone silent: it crashed, hangs, or hears nothing. After a session its partitions go to others.
    pub fn silent(self: &Arc<Self>, process: u64, deaf: bool) {
        if deaf && let Some(member) = self.state().members.get_mut(&process) {
            member.deaf = true;
        }
        let group = self.clone();
        tokio::spawn(async move {
            sleep(SESSION).await;
            group.expel(process);
        });
    }

    /// Takes a silent member's partitions away; it hears of that when it hears again.
    fn expel(&self, process: u64) {
        let mut state = self.state();
        let Some(member) = state.members.get_mut(&process).filter(|member| !member.hears()) else { return };
        member.within = false;
        let crashed = member.changes.is_closed();
        if crashed {
            state.members.remove(&process);
        }
        state.owners.retain(|_, owner| *owner != process);
        drop(state);
        self.sim.note(|| format!("group: {process} is expelled"));
        self.due.notify_one();
    }

    /// A member hears again: what it has lost meanwhile, first.
    pub fn heard(&self, process: u64) {
        let mut state = self.state();
        if let Some(member) = state.members.get_mut(&process) {
            member.deaf = false;
            if !member.within {
                let lost = std::mem::take(&mut member.owns);
                self.sim.note(|| format!("group: {process} hears that it has lost {lost:?}"));
                let _ = member.changes.try_send(Change::Lost(lost));
                member.within = true;
            }
        }
        drop(state);
        self.due.notify_one();
    }

    /// Who owns a partition, as the group sees it.
    pub fn owner(&self, partition: u32) -> Option<u64> {
        self.state().owners.get(&partition).copied()
    }

    /// What is owned by somebody else than it should be is revoked, and when that is done, what nobody owns is assigned.
    async fn balance(&self) {
        let mut revoked: BTreeMap<u64, (Vec<u32>, Option<oneshot::Receiver<()>>)> = BTreeMap::new();
        {
            let mut guard = self.state();
            let state = &mut *guard;
            let target = target(state);
            for (partition, owner) in state.owners.clone() {
                if target.get(&partition) != Some(&owner) {
                    revoked.entry(owner).or_default().0.push(partition);
                }
            }
            for (process, (partitions, answer)) in &mut revoked {
                if let Some(member) = state.members.get(process).filter(|member| member.hears()) {
                    let (released, told) = oneshot::channel();
                    self.sim.note(|| format!("group: {process} is to release {partitions:?}"));
                    let _ = member.changes.try_send(Change::Revoked { partitions: partitions.clone(), released });
                    *answer = Some(told);
                }
            }
        }
        for (process, (partitions, answer)) in revoked {
            // Nobody waits without end for one that hangs.
            let released = match answer {
                Some(told) => timeout(PATIENCE, told).await.is_ok_and(|told| told.is_ok()),
                None => {
                    sleep(SESSION).await;
                    false
                }
            };
            let mut state = self.state();
            let Some(member) = state.members.get_mut(&process) else { continue };
            if released {
                member.owns.retain(|partition| !partitions.contains(partition));
            } else {
                self.sim.note(|| format!("group: {process} does not release {partitions:?}"));
                if member.changes.is_closed() {
                    state.members.remove(&process);
                    state.owners.retain(|_, owner| *owner != process);
                } else if member.hears() {
                    // It is busy giving them up, and knows.
                    member.owns.retain(|partition| !partitions.contains(partition));
                } else {
                    member.within = false;
                    state.owners.retain(|_, owner| *owner != process);
                }
            }
            state.owners.retain(|partition, owner| *owner != process || !partitions.contains(partition));
        }
        let mut guard = self.state();
        let state = &mut *guard;
        let mut given: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for (partition, process) in target(state) {
            if !state.owners.contains_key(&partition) {
                given.entry(process).or_default().push(partition);
            }
        }
        for (process, partitions) in given {
            let member = state.members.get_mut(&process).expect("the target names members");
            self.sim.note(|| format!("group: {process} gets {partitions:?}"));
            member.owns.extend(&partitions);
            state.owners.extend(partitions.iter().map(|partition| (*partition, process)));
            let _ = member.changes.try_send(Change::Assigned(partitions));
        }
    }
}

/// Who should own what: those that are within and heard, in turn. Whoever is silent and not expelled yet keeps what it has.
fn target(state: &State) -> BTreeMap<u32, u64> {
    let able: Vec<u64> = state
        .members
        .iter()
        .filter(|(_, member)| member.within && member.hears())
        .map(|(process, _)| *process)
        .collect();
    let kept = |partition: u32| {
        let owner = state.owners.get(&partition)?;
        let member = state.members.get(owner)?;
        (!member.hears()).then_some(*owner)
    };
    let whose = |partition: u32| {
        kept(partition).or_else(|| {
            (!able.is_empty()).then(|| able[((u64::from(partition) + state.turn) % able.len() as u64) as usize])
        })
    };
    (0..state.partitions).filter_map(|partition| Some((partition, whose(partition)?))).collect()
}
