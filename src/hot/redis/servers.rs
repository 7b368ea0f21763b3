//! The servers: one, or those of a cluster. Sends commands to where their slots are served, in pipelines of bounded length.
//!
//! Every command may be repeated (H1), so what was refused for being asked of the wrong server is asked once more of the
//! right one, and a server that does not know the scripts is told them. Anything else is the caller's.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures_util::future::join_all;
use redis::{Cmd, Pipeline, Value};
use tokio::{sync::Mutex, time::Instant};

use super::{
    fault::{Failure, Fault},
    names::{Command, SLOTS},
    node::{How, Link, Node, bytes_of, error_of},
    scripts,
};
use crate::url::Address;

/// Most commands of one pipeline: a server answers nobody else in between.
const PIPELINE: usize = 256;
/// The slots are not asked for more often than this.
const REFRESH: Duration = Duration::from_millis(200);

/// What a server answered to a command, and over which connections.
pub(super) type Answer = Result<(Value, Arc<Link>), Failure>;

/// The commands for one server, and where each stood among all.
struct Group {
    node: Result<Arc<Node>, Failure>,
    indices: Vec<usize>,
    cmds: Vec<Cmd>,
}

/// Who serves which slot.
struct Slots {
    nodes: HashMap<String, Arc<Node>>,
    /// By slot.
    owners: Vec<Option<Arc<Node>>>,
}

struct Cluster {
    seeds: Vec<Address>,
    slots: RwLock<Arc<Slots>>,
    /// When the slots were last asked for, and whether they were told.
    refreshed: Mutex<Option<Instant>>,
    wanted: std::sync::atomic::AtomicBool,
}

/// One server, or a cluster.
pub(super) struct Servers {
    how: Arc<How>,
    /// The one server, when it is no cluster.
    single: Option<Arc<Node>>,
    cluster: Cluster,
}

fn missing(why: &str) -> Failure {
    Failure::new(Fault::Away, format!("hot.url: {why}"))
}

impl Servers {
    pub(super) fn new(hosts: &[Address], cluster: bool, how: How) -> Self {
        let how = Arc::new(how);
        let single = hosts.first().filter(|_| !cluster).map(|host| Node::new(host.clone(), how.clone()));
        let slots = Slots { nodes: HashMap::new(), owners: vec![None; usize::from(SLOTS)] };
        let cluster = Cluster {
            seeds: hosts.to_vec(),
            slots: RwLock::new(Arc::new(slots)),
            refreshed: Mutex::new(None),
            wanted: true.into(),
        };
        Self { how, single, cluster }
    }

    /// Whether one server serves every slot.
    pub(super) fn is_single(&self) -> bool {
        self.single.is_some()
    }

    fn slots(&self) -> Arc<Slots> {
        self.cluster.slots.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The server of a slot.
    async fn owner(&self, slot: u16) -> Result<Arc<Node>, Failure> {
        use std::sync::atomic::Ordering;
        if let Some(node) = &self.single {
            return Ok(node.clone());
        }
        let known = |servers: &Self| servers.slots().owners.get(usize::from(slot)).cloned().flatten();
        if self.cluster.wanted.load(Ordering::Relaxed) || known(self).is_none() {
            self.refresh().await?;
        }
        known(self).ok_or_else(|| missing("no server of the cluster serves some of its slots"))
    }

    /// The connections to the server of a slot.
    pub(super) async fn link(&self, slot: u16) -> Result<Arc<Link>, Failure> {
        let node = self.owner(slot).await?;
        let link = node.link().await;
        if link.is_err() {
            self.want_refresh();
        }
        link
    }

    /// Whether the server of a slot has taken a write just now.
    pub(super) fn writes(&self, slot: u16) -> bool {
        let node = match &self.single {
            Some(node) => Some(node.clone()),
            None => self.slots().owners.get(usize::from(slot)).cloned().flatten(),
        };
        node.and_then(|node| node.up()).is_some_and(|link| link.writes())
    }

    /// Sends commands, and answers in their order.
    pub(super) async fn run(&self, commands: Vec<Command>) -> Vec<Answer> {
        if commands.is_empty() {
            return Vec::new();
        }
        if let Some(node) = self.single.as_ref().filter(|_| commands.len() <= PIPELINE) {
            return self.ask(node, commands.into_iter().map(|command| command.cmd).collect(), false).await;
        }
        let mut groups: Vec<Group> = Vec::new();
        let mut open: HashMap<usize, usize> = HashMap::new();
        let total = commands.len();
        for (index, command) in commands.into_iter().enumerate() {
            let owner = self.owner(command.slot).await;
            let name = owner.as_ref().map_or(0, |node| Arc::as_ptr(node) as usize);
            let at = match open.get(&name) {
                Some(at) if groups[*at].cmds.len() < PIPELINE => *at,
                _ => {
                    groups.push(Group { node: owner, indices: Vec::new(), cmds: Vec::new() });
                    open.insert(name, groups.len() - 1);
                    groups.len() - 1
                }
            };
            groups[at].indices.push(index);
            groups[at].cmds.push(command.cmd);
        }
        let asked = groups.into_iter().map(|Group { node, indices, cmds }| async move {
            let answers = match node {
                Ok(node) => self.ask(&node, cmds, false).await,
                Err(failure) => indices.iter().map(|_| Err(failure.clone())).collect(),
            };
            (indices, answers)
        });
        let mut all: Vec<Option<Answer>> = (0..total).map(|_| None).collect();
        for (indices, answers) in join_all(asked).await {
            for (index, answer) in indices.into_iter().zip(answers) {
                all[index] = Some(answer);
            }
        }
        all.into_iter().map(|answer| answer.unwrap_or_else(|| Err(missing("a server left a command out")))).collect()
    }

    /// Asks one server, and once more, of it or of another, what it refused for a reason that passes by itself.
    async fn ask(&self, node: &Arc<Node>, cmds: Vec<Cmd>, asking: bool) -> Vec<Answer> {
        let all = |failure: Failure, count: usize| (0..count).map(|_| Err(failure.clone())).collect();
        let count = cmds.len();
        let link = match node.link().await {
            Ok(link) => link,
            Err(failure) => {
                self.want_refresh();
                return all(failure, count);
            }
        };
        let pipeline = pipeline(cmds, asking);
        let mut values = match node.send(&link, &pipeline).await {
            Ok(values) => values,
            Err(failure) => {
                self.want_refresh();
                return all(failure, count);
            }
        };
        if asking {
            let mut at = 0;
            values.retain(|_| {
                at += 1;
                at % 2 == 0
            });
        }
        let name = node.address.to_string();
        let mut answers: Vec<Answer> = values
            .into_iter()
            .map(|value| match error_of(&value) {
                Some(error) => Err(Failure::said(&name, error)),
                None => Ok((value, link.clone())),
            })
            .collect();
        if !asking && answers.iter().any(Result::is_err) {
            self.again(node, &pipeline, &mut answers).await;
        }
        answers
    }

    /// Asks again what was refused for a reason that passes.
    async fn again(&self, node: &Arc<Node>, pipeline: &Pipeline, answers: &mut [Answer]) {
        let mut elsewhere: Vec<(Arc<Node>, bool, Vec<usize>)> = Vec::new();
        for (index, answer) in answers.iter().enumerate() {
            let Err(failure) = answer else { continue };
            let (target, asking) = match failure.fault {
                Fault::NoScript => (Some(node.clone()), false),
                Fault::Moved | Fault::Asked => {
                    self.want_refresh();
                    let target = failure.redirect().and_then(|(_, address)| self.node(address, &node.address.host));
                    if let (Fault::Moved, Some(target), Some((slot, _))) = (failure.fault, &target, failure.redirect())
                    {
                        self.moved(slot, target);
                    }
                    (target, failure.fault == Fault::Asked)
                }
                Fault::Closed => {
                    self.want_refresh();
                    continue;
                }
                _ => continue,
            };
            let Some(target) = target else { continue };
            match elsewhere.iter_mut().find(|(node, with, _)| Arc::ptr_eq(node, &target) && *with == asking) {
                Some((_, _, indices)) => indices.push(index),
                None => elsewhere.push((target, asking, vec![index])),
            }
        }
        for (target, asking, indices) in elsewhere {
            let mut cmds: Vec<Cmd> = Vec::with_capacity(indices.len() + 8);
            let loads = if Arc::ptr_eq(&target, node) { scripts::loads().collect() } else { Vec::new() };
            let skip = loads.len();
            cmds.extend(loads);
            let wanted: Vec<Cmd> = pipeline.cmd_iter().cloned().collect();
            cmds.extend(indices.iter().filter_map(|index| wanted.get(*index).cloned()));
            let Ok(link) = target.link().await else { continue };
            let sent = self::pipeline(cmds, asking);
            let Ok(values) = target.send(&link, &sent).await else { continue };
            let values: Vec<Value> = if asking { values.into_iter().skip(1).step_by(2).collect() } else { values };
            let name = target.address.to_string();
            for (index, value) in indices.into_iter().zip(values.into_iter().skip(skip)) {
                answers[index] = match error_of(&value) {
                    Some(error) => Err(Failure::said(&name, error)),
                    None => Ok((value, link.clone())),
                };
            }
        }
    }

    /// Takes the word of a server that a slot is served elsewhere: all slots are asked for only once in a while.
    fn moved(&self, slot: u16, to: &Arc<Node>) {
        let mut slots = self.cluster.slots.write().unwrap_or_else(PoisonError::into_inner);
        let mut owners = slots.owners.clone();
        let Some(owner) = owners.get_mut(usize::from(slot)).filter(|_| !self.is_single()) else { return };
        if owner.as_ref().is_some_and(|owner| Arc::ptr_eq(owner, to)) {
            return;
        }
        *owner = Some(to.clone());
        let mut nodes = slots.nodes.clone();
        nodes.insert(to.address.to_string(), to.clone());
        *slots = Arc::new(Slots { nodes, owners });
    }

    fn want_refresh(&self) {
        self.cluster.wanted.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// The server at an address that a server of the cluster named; an empty host is the one who said it.
    fn node(&self, address: &str, said_by: &str) -> Option<Arc<Node>> {
        let (host, port) = address.rsplit_once(':')?;
        let host = if host.is_empty() { said_by } else { host };
        let address = Address { host: host.to_owned(), port: port.parse().ok()? };
        let known = self.slots().nodes.get(&address.to_string()).cloned();
        known.or_else(|| (!self.is_single()).then(|| Node::new(address, self.how.clone())))
    }

    /// Asks the cluster who serves which slot.
    async fn refresh(&self) -> Result<(), Failure> {
        use std::sync::atomic::Ordering;
        let cluster = &self.cluster;
        let mut refreshed = cluster.refreshed.lock().await;
        let known = self.slots();
        if refreshed.is_some_and(|at| at.elapsed() < REFRESH) {
            // Somebody has just asked. With no slots at all there is nobody to send anything to.
            return if known.nodes.is_empty() { Err(missing("no server of the cluster answers")) } else { Ok(()) };
        }
        let seeds = cluster.seeds.iter().map(|seed| {
            known.nodes.get(&seed.to_string()).cloned().unwrap_or_else(|| Node::new(seed.clone(), self.how.clone()))
        });
        let mut candidates: Vec<Arc<Node>> = known.nodes.values().filter(|node| node.up().is_some()).cloned().collect();
        candidates.extend(seeds);
        candidates.extend(known.nodes.values().filter(|node| node.up().is_none()).cloned());
        let mut last = missing("no server of the cluster answers");
        for node in candidates {
            match self.ask_slots(&node, &known).await {
                Ok(slots) => {
                    *cluster.slots.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(slots);
                    cluster.wanted.store(false, Ordering::Relaxed);
                    *refreshed = Some(Instant::now());
                    return Ok(());
                }
                Err(failure) => last = failure,
            }
        }
        *refreshed = Some(Instant::now());
        if known.nodes.is_empty() { Err(last) } else { Ok(()) }
    }

    async fn ask_slots(&self, node: &Arc<Node>, known: &Slots) -> Result<Slots, Failure> {
        let link = node.link().await?;
        let mut ask = Pipeline::new();
        ask.cmd("CLUSTER").arg("SLOTS");
        let answer = node.send(&link, &ask).await?.pop().unwrap_or_default();
        if let Some(error) = error_of(&answer) {
            return Err(Failure::said(&node.address.to_string(), error));
        }
        let mut slots = Slots { nodes: HashMap::new(), owners: vec![None; usize::from(SLOTS)] };
        let Value::Array(ranges) = answer else { return Err(missing("CLUSTER SLOTS is no array")) };
        for range in &ranges {
            let Value::Array(range) = range else { continue };
            let [Value::Int(from), Value::Int(to), Value::Array(primary), ..] = &range[..] else { continue };
            let (Some(host), Some(Value::Int(port))) = (primary.first(), primary.get(1)) else { continue };
            let host = String::from_utf8_lossy(bytes_of(host).unwrap_or_default()).into_owned();
            let host = if host.is_empty() || host == "?" { node.address.host.clone() } else { host };
            let Ok(port) = u16::try_from(*port) else { continue };
            let address = Address { host, port };
            let name = address.to_string();
            let mine = (node.address == address).then(|| node.clone());
            let owner = slots
                .nodes
                .entry(name.clone())
                .or_insert_with(|| {
                    let known = known.nodes.get(&name).cloned();
                    known.or(mine).unwrap_or_else(|| Node::new(address, self.how.clone()))
                })
                .clone();
            for slot in (*from).max(0)..=(*to).min(i64::from(SLOTS) - 1) {
                slots.owners[slot as usize] = Some(owner.clone());
            }
        }
        if slots.nodes.is_empty() {
            return Err(missing("the cluster serves no slots yet"));
        }
        Ok(slots)
    }
}

fn pipeline(cmds: Vec<Cmd>, asking: bool) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(cmds.len() * (1 + usize::from(asking)));
    for cmd in cmds {
        if asking {
            pipeline.cmd("ASKING");
        }
        pipeline.add_command(cmd);
    }
    pipeline
}
