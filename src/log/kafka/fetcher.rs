//! A client that fetches, and its two threads.
//!
//! One thread polls the client's one queue and sorts what comes into the slots; rebalances come to it too, and are only
//! passed on. The other does what is wanted: assigns at a position and its leader epoch, unassigns, resumes, commits, and
//! answers the group. Calls into the library may wait for its own thread, so none is made by a task of the runtime.
//!
//! rdkafka hides which partition an error is about. So an error that concerns a position makes every slot suspect, and
//! each cursor finds out for itself where it stands (`cursor.rs`), by a read that concerns one partition alone. The same
//! holds for anything odd, such as what was under way while a partition was opened anew: being suspect costs time only.
//!
//! As a member of the group, it answers an assignment at once, with nothing; each partition is added when its lane opens
//! it. So the group never waits for a lane that is still reading its checkpoint. A revocation is answered when its lanes
//! have stopped; until then nothing at all is unassigned, for the library would take that as the answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    client::ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext},
    error::{KafkaError, KafkaResult},
    types::{RDKafkaErrorCode, RDKafkaRespErr},
};
use tokio::sync::mpsc;

use super::{
    super::Error,
    chatter::Context,
    closing::{Closing, Ending},
    connection::Connection,
    errors, ffi,
    identity::Identity,
    record,
    slots::{Slots, Taken, Work},
};
use crate::retry::Kind;

/// How long a poll waits: also how long an idle client takes to end.
const POLL: Duration = Duration::from_millis(50);
/// How long a goodbye may take: two rounds of joining, each as long as the slowest member takes to learn of it.
const GOODBYE: Duration = Duration::from_secs(4);
/// A commit that failed is sent again after this.
const COMMIT_AGAIN: Duration = Duration::from_secs(1);

/// How often a member says that it is there, at least: only in the answer it learns that the group changes, and each change takes as
/// long as the slowest member to learn of it. Where workers came and went once a second no lane ever ran for long.
const HEARTBEAT_MS: u128 = 500;

/// What the group wants.
#[derive(Debug)]
pub(super) enum Rebalance {
    /// Partitions that are ours from now on.
    Assigned(Vec<u32>),
    /// Partitions that shall be somebody else's; the group waits for the answer.
    Revoked(Vec<u32>),
    /// Partitions that are somebody else's already.
    Lost(Vec<u32>),
}

/// The callbacks of a fetching client. They run on its polling thread and only pass on.
pub(super) struct Callbacks {
    context: Context,
    topic: String,
    slots: Arc<Slots>,
    /// Partitions that the library fetches: what may be unassigned. Locked while any of them is moved, paused or resumed.
    fetched: Mutex<BTreeSet<u32>>,
    rebalances: Option<mpsc::Sender<Rebalance>>,
}

type Client = BaseConsumer<Callbacks>;

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.context.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ConsumerContext for Callbacks {
    fn rebalance(&self, client: &Client, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<u32> = numbers(list);
        let assigned = matches!(code, RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS);
        let rebalance = match assigned {
            true => Rebalance::Assigned(partitions.clone()),
            false if client.assignment_lost() => Rebalance::Lost(partitions.clone()),
            false => Rebalance::Revoked(partitions.clone()),
        };
        if assigned && let Err(error) = client.incremental_assign(&TopicPartitionList::new()) {
            tracing::warn!(error = %error, "the group does not take the answer to an assignment");
        }
        // Before it is passed on: the answer must not overtake this.
        if !assigned {
            self.slots.owe();
        }
        let passed_on = match &self.rebalances {
            Some(rebalances) if !self.slots.is_shut() => rebalances.try_send(rebalance).is_ok(),
            _ => false,
        };
        // Nobody listens any more: then nobody runs these lanes, and the group need not wait.
        if !assigned && !passed_on {
            self.release(client, &partitions);
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let Err(error) = result else { return };
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::NoOffset) {
            return;
        }
        tracing::debug!(error = %error, "offsets were not committed, again later");
        for element in offsets.elements() {
            if let (Ok(partition), Offset::Offset(offset)) = (u32::try_from(element.partition()), element.offset()) {
                self.slots.commit_again(partition, u64::try_from(offset).unwrap_or(0), COMMIT_AGAIN);
            }
        }
    }
}

impl Callbacks {
    /// Answers a revocation. The lock is held over the call, so that what is fetched and what is known of it agree.
    fn release(&self, client: &Client, partitions: &[u32]) {
        let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        let partitions: Vec<u32> = partitions.iter().copied().filter(|partition| fetched.remove(partition)).collect();
        if let Err(error) = client.incremental_unassign(&self.list(&partitions)) {
            tracing::warn!(?partitions, error = %error, "the group does not take the answer to a revocation");
        }
    }

    /// Pauses a partition whose slot is full. The slot may have been emptied since, and its resumption been done: under the
    /// lock it is looked at again, or the partition would stay paused with nobody to resume it.
    fn pause(&self, client: &Client, partition: u32) {
        let _moving = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        if self.slots.is_full(partition)
            && let Err(error) = client.pause(&self.list(&[partition]))
        {
            tracing::debug!(partition, error = %error, "partition was not paused");
        }
    }

    fn fetched(&self) -> Vec<u32> {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    fn list(&self, partitions: &[u32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.topic, number(*partition));
        }
        list
    }
}

fn number(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

fn numbers(list: &TopicPartitionList) -> Vec<u32> {
    list.elements().iter().filter_map(|element| u32::try_from(element.partition()).ok()).collect()
}

/// A position as the library takes it: a partition, the offset that comes next, the leader epoch before it.
pub(super) fn position(
    topic: &str,
    partition: u32,
    next: u64,
    epoch: Option<i32>,
) -> Result<TopicPartitionList, Error> {
    let mut list = TopicPartitionList::with_capacity(1);
    let offset = Offset::Offset(i64::try_from(next).unwrap_or(i64::MAX));
    list.add_partition_offset(topic, number(partition), offset)
        .map_err(|error| errors::of(&format!("{next} is no offset"), error))?;
    if let Some(epoch) = epoch {
        ffi::set_leader_epoch(&mut list, topic, number(partition), epoch);
    }
    Ok(list)
}

/// Settings that every reading client has.
pub(super) const READS: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("isolation.level", "read_uncommitted"),
    ("check.crcs", "true"),
    // A partition that is resumed waits for the answer to what was asked before it: not for long, though nobody has news.
    ("fetch.wait.max.ms", "100"),
    ("fetch.error.backoff.ms", "100"),
    ("allow.auto.create.topics", "false"),
];

/// A client that fetches into slots. Dropping it ends it, on threads of its own.
pub(super) struct Fetcher {
    pub slots: Arc<Slots>,
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.slots.shut();
    }
}

/// What a fetching client is for.
pub(super) enum Purpose {
    /// One partition, for a cursor outside of the group.
    Alone,
    /// A member of the group: how long it may be silent, and where its rebalances go.
    Member(Duration, mpsc::Sender<Rebalance>),
}

impl Fetcher {
    /// Makes the client and starts its threads. `read_ahead` bounds what waits in a slot.
    pub(super) fn start(
        connection: &Connection,
        purpose: Purpose,
        read_ahead: usize,
        identity: &Arc<Identity>,
        closing: &Closing,
    ) -> Result<Self, Error> {
        let slots = Arc::new(Slots::new(read_ahead));
        let (session, rebalances) = match purpose {
            Purpose::Alone => (None, None),
            Purpose::Member(session, rebalances) => (Some(session), Some(rebalances)),
        };
        let session_ms = session.map_or(10_000, |session| session.as_millis().clamp(1_000, 1_800_000));
        let heartbeat_ms = (session_ms / 4).min(HEARTBEAT_MS).to_string();
        let session_ms = session_ms.to_string();
        let poll_ms = (session.map_or(300_000, |session| session.as_millis().clamp(300_000, 86_400_000))).to_string();
        let mut settings = READS.to_vec();
        settings.extend([
            ("group.id", connection.group.as_str()),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("session.timeout.ms", &session_ms),
            ("heartbeat.interval.ms", &heartbeat_ms),
            ("max.poll.interval.ms", &poll_ms),
            // What waits in the library, over all partitions; the slots bound the rest.
            ("queued.max.messages.kbytes", "16384"),
            ("fetch.queue.backoff.ms", "5"),
        ]);
        let callbacks = Callbacks {
            context: connection.context(),
            topic: connection.topic.clone(),
            slots: slots.clone(),
            fetched: Mutex::default(),
            rebalances,
        };
        let client: Arc<Client> = Arc::new(connection.client(&settings, callbacks)?);
        let fetcher = Self { slots: slots.clone() };
        if session.is_some() {
            client
                .subscribe(&[&connection.topic])
                .map_err(|error| errors::of("the group of workers cannot be joined", error))?;
        }
        let worker = client.clone();
        let (identity, ending) = (identity.clone(), closing.begin());
        let member = session.is_some();
        spawn("log-fetch", move || poll(client, member, &identity, ending))?;
        let ending = closing.begin();
        spawn("log-control", move || control(worker, member, ending))?;
        Ok(fetcher)
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map(drop).map_err(|error| Error::new(Kind::Fatal, format!("no thread for the log ({error})")).with(error))
}

/// The polling thread.
fn poll(client: Arc<Client>, member: bool, identity: &Identity, ending: Ending) {
    let slots = client.context().slots.clone();
    while !slots.is_shut() {
        match client.poll(POLL) {
            None => {}
            Some(Ok(message)) => {
                let Ok(partition) = u32::try_from(message.partition()) else { continue };
                let record = record::of(&message);
                if slots.push(partition, record) == Taken::Full {
                    client.context().pause(&client, partition);
                }
            }
            Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                slots.break_all(Kind::Fatal, &format!("the reader has failed for good: {code}"));
            }
            Some(Err(error)) => met(&slots, identity, &error),
        }
    }
    // The last progress goes out before the goodbye does, on the same connection.
    commit(&client, &slots.last_commits());
    if !leave(&client) && member {
        tracing::warn!(
            "the group was not told that a member leaves: it finds out when worker.session_timeout has passed"
        );
    }
    drop(client);
    drop(ending);
}

/// Leaves the group, and answers whether it was told. The call only begins it: while somebody else comes or goes the library puts the
/// goodbye off, and a client that is closed before it is said takes it along. The group then learns of it by silence, when the
/// session has run out; that was one leave in five, in a group of three that was about to settle.
fn leave(client: &Client) -> bool {
    client.unsubscribe();
    // An answer may be owed, and a client that owes one never ends: nothing is fetched any more, and what the group asks
    // from now on is answered by the callback itself.
    client.context().release(client, &client.context().fetched());
    let deadline = Instant::now() + GOODBYE;
    while ffi::is_member(client.client()) {
        if Instant::now() > deadline {
            return false;
        }
        // Nobody takes records any more, but callbacks come by polls.
        drop(client.poll(Duration::from_millis(10)));
    }
    true
}

/// An error that came in the place of a message.
fn met(slots: &Slots, identity: &Identity, error: &KafkaError) {
    let Some(code) = error.rdkafka_error_code() else { return };
    if errors::is_about_a_position(code) {
        tracing::info!(code = %code, "reader was interrupted, looks where it stands");
        identity.poke();
        slots.suspect_all();
    } else if matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::InvalidSessionTimeout
            | RDKafkaErrorCode::InconsistentGroupProtocol
    ) {
        slots.break_all(Kind::Fatal, &errors::of_code("the log cannot be read", code).message);
    }
}

/// The working thread.
fn control(client: Arc<Client>, member: bool, ending: Ending) {
    let slots = client.context().slots.clone();
    loop {
        let work = slots.next_work();
        if work.close {
            break;
        }
        if member { do_as_member(&client, work) } else { do_alone(&client, work) }
    }
    drop(client);
    drop(ending);
}

fn do_as_member(client: &Client, work: Work) {
    let callbacks = client.context();
    commit(client, &work.commits);
    {
        let mut fetched = callbacks.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        // What is started anew is stopped first: never a seek, which fails on a partition that has met an error.
        let restarted = work.start.keys().filter(|partition| !work.stop.contains(*partition));
        let stopped: Vec<u32> =
            work.stop.iter().chain(restarted).copied().filter(|partition| fetched.remove(partition)).collect();
        if !stopped.is_empty()
            && let Err(error) = client.incremental_unassign(&callbacks.list(&stopped))
        {
            tracing::warn!(?stopped, error = %error, "partitions were not unassigned");
        }
        // A pause outlives the assignment that it was made in.
        resume(client, work.start.keys().chain(&work.resume).copied().collect());
        for (partition, (next, epoch)) in work.start {
            let assigned = position(&callbacks.topic, partition, next, epoch).and_then(|list| {
                let failed = |error| errors::of(&format!("partition {partition} cannot be read from {next}"), error);
                client.incremental_assign(&list).map_err(failed)
            });
            match assigned {
                Ok(()) => _ = fetched.insert(partition),
                Err(error) => callbacks.slots.fail(partition, error),
            }
        }
    }
    if work.answer {
        callbacks.release(client, &[]);
    }
}

fn do_alone(client: &Client, work: Work) {
    let callbacks = client.context();
    let _moving = callbacks.fetched.lock().unwrap_or_else(PoisonError::into_inner);
    resume(client, work.start.keys().copied().collect());
    for (partition, (next, epoch)) in work.start {
        let assigned = position(&callbacks.topic, partition, next, epoch).and_then(|list| {
            let failed = |error| errors::of(&format!("partition {partition} cannot be read from {next}"), error);
            // Unassigned first: a position that has met an error is not taken up again by another assignment.
            client.unassign().and_then(|()| client.assign(&list)).map_err(failed)
        });
        if let Err(error) = assigned {
            callbacks.slots.fail(partition, error);
        }
    }
    resume(client, work.resume);
}

fn resume(client: &Client, partitions: BTreeSet<u32>) {
    if partitions.is_empty() {
        return;
    }
    let partitions: Vec<u32> = partitions.into_iter().collect();
    if let Err(error) = client.resume(&client.context().list(&partitions)) {
        tracing::debug!(?partitions, error = %error, "partitions were not resumed");
    }
}

fn commit(client: &Client, commits: &BTreeMap<u32, u64>) {
    if commits.is_empty() {
        return;
    }
    let topic = &client.context().topic;
    let mut list = TopicPartitionList::with_capacity(commits.len());
    for (partition, offset) in commits {
        let offset = Offset::Offset(i64::try_from(*offset).unwrap_or(i64::MAX));
        if list.add_partition_offset(topic, number(*partition), offset).is_err() {
            return;
        }
    }
    // The answer comes to the callback.
    if let Err(error) = client.commit(&list, CommitMode::Async) {
        tracing::debug!(error = %error, "offsets were not committed, again later");
        for (partition, offset) in commits {
            client.context().slots.commit_again(*partition, *offset, COMMIT_AGAIN);
        }
    }
}
