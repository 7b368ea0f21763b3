//! The log on Kafka: one topic, partition chosen by us, appended to by an idempotent producer and read as a group.
//!
//! - `connection`: how a client reaches the cluster; `chatter`: what the clients say; `closing`: how they end.
//! - `producer`: appends. `side`: questions about bounds, identity and health. `reader`: reads of one partition.
//! - `fetcher`, `slots`, `cursor`: what a lane reads; `member`: which lanes this process runs.
//! - `dead`: the topic of dead letters; `dead_topic`: its settings.
//! - [`topic`]: the settings that the laws need, made and checked; `identity`: whether it is still the same topic.
//! - [`ffi`]: three calls that rdkafka's safe interface lacks; the only `unsafe` of the program.
//!
//! What Kafka does silently is looked for: a topic that was made anew (its id), a log that was cut (leader epochs, and the
//! last record read once more), a gap (offsets are contiguous: neither transactions nor compaction), foreign times.
//! Retention is the broker's. `docs/decisions/0006-kafka.md` has the reasons.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{sync::mpsc, task::spawn_blocking};
use tokio_util::task::AbortOnDropHandle;

use self::{
    closing::Closing,
    connection::Connection,
    cursor::Cursor,
    dead::Dead,
    fetcher::{Fetcher, Purpose},
    identity::Identity,
    member::Member,
    producer::Producer,
    reader::Readers,
    side::{Asking, Side},
};
use super::{Appended, Bounds, Change, DeadLetters, Error, Log, Options, Record, Topology};
use crate::{
    item::{Seq, TopicId},
    retry::Kind,
    url::Servers,
};

mod assigned;
mod chatter;
mod closing;
mod connection;
mod cursor;
mod dead;
mod dead_topic;
mod errors;
mod fetcher;
#[expect(unsafe_code, reason = "three calls that rdkafka's safe interface lacks, each with its argument")]
pub mod ffi;
mod identity;
mod member;
mod producer;
mod reader;
mod record;
mod side;
mod slots;
pub mod topic;

pub use connection::SASL_MECHANISMS;

/// How long a check waits for the brokers.
const CHECK_TIMEOUT: Duration = Duration::from_millis(1_500);
/// How often readers that nobody uses are looked for.
const TIDY: Duration = Duration::from_secs(5);

/// What the rest of the configuration asks of the log.
#[derive(Clone, Debug)]
pub struct Needs {
    /// How long a worker may be silent before its lanes go to another (`worker.session_timeout`).
    pub session_timeout: Duration,
    /// How long an id is remembered (`dedup.window`).
    pub dedup_window: Duration,
    /// The size at which a pack closes (`ingest.pack_bytes`).
    pub pack_bytes: usize,
    /// Bytes that a lane reads ahead (`worker.read_bytes`).
    pub read_ahead: usize,
    /// Whether packs are appended: the role has an ingest.
    pub appends: bool,
}

/// What cursors and the membership share.
struct Inner {
    connection: Connection,
    identity: Arc<Identity>,
    asking: Asking,
    readers: Readers,
    read_ahead: usize,
    closing: Closing,
    dead: Dead,
}

/// The log on Kafka.
pub struct Kafka {
    inner: Arc<Inner>,
    side: Arc<Side>,
    producer: Arc<Producer>,
    /// One past the last offset that was acknowledged to this process, by partition.
    acknowledged: Vec<AtomicU64>,
    /// Copies that must be in sync for an append.
    min_in_sync: usize,
    session: Duration,
    member: Mutex<Option<Member>>,
    _tasks: [AbortOnDropHandle<()>; 3],
    /// Last: waits for what the fields before it have begun to end.
    _ended: Ended,
}

struct Ended(Closing);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.wait();
    }
}

impl Kafka {
    /// Opens the topic that the URL names. It must exist, with the settings that the laws need.
    ///
    /// # Errors
    /// [`Kind::Transient`] when no broker answers within `log.request_timeout`; otherwise what is wrong, and the remedy.
    pub async fn open(servers: &Servers, options: &Options, needs: &Needs) -> Result<Self, Error> {
        let (connection, closing) = (Connection::new(servers, options)?, Closing::default());
        let ended = Ended(closing.clone());
        let side = Arc::new(Side::new(connection.clone(), closing.clone())?);
        let (report, described) = topic::look(&side, options, needs, &closing).await?;
        report.fit()?;
        for finding in report.warnings() {
            tracing::warn!(topic = report.topic, setting = finding.setting, "{finding}");
        }
        let cluster_id = side.cluster_id().await.unwrap_or_default();
        let topology = Topology {
            topic: connection.topic.clone(),
            topic_id: TopicId(described.topic_id),
            cluster_id,
            partitions: described.partitions,
        };
        let identity = Arc::new(Identity::new(side.clone(), topology));

        let max_record = usize::try_from(report.max_message_bytes).unwrap_or(usize::MAX);
        let (buffer, deadline) = (options.buffer.as_usize(), options.append_timeout.0);
        // One is enough for whom the log only asks whether it would take an append.
        let connections = if needs.appends { options.connections } else { 1 };
        let producer = Producer::new(connection.clone(), connections, max_record, buffer, deadline, closing.clone())?;
        let producer = Arc::new(producer);
        let warming = producer.clone();
        let warmed = spawn_blocking(move || warming.warm_up()).await;
        warmed.unwrap_or_else(|_| Err(Error::new(Kind::Transient, "connecting to the brokers was broken off")))?;

        let (asking, answering) = Asking::new(side.clone());
        let dead = Dead::new(&side, max_record, deadline, closing.clone());
        let readers = Readers::new(connection.clone(), closing.clone());
        let read_ahead = needs.read_ahead.max(1);
        let inner =
            Arc::new(Inner { connection, identity: identity.clone(), asking, readers, read_ahead, closing, dead });
        let (interval, tidied) = (options.identity_interval.0, inner.clone());
        let tasks = [
            AbortOnDropHandle::new(tokio::spawn(answering)),
            AbortOnDropHandle::new(tokio::spawn(async move { identity.run(interval).await })),
            AbortOnDropHandle::new(tokio::spawn(async move {
                loop {
                    tokio::time::sleep(TIDY).await;
                    tidied.readers.tidy();
                    tidied.dead.tidy();
                }
            })),
        ];
        let min_in_sync = report.min_insync_replicas;
        let (session, member) = (needs.session_timeout, Mutex::default());
        let acknowledged = (0..described.partitions).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { inner, side, producer, acknowledged, min_in_sync, session, member, _tasks: tasks, _ended: ended })
    }

    /// What is appended later stands later. An acknowledgement that says otherwise is another topic's of the same name, which
    /// the producer goes on with as if nothing were, or of a log that was cut. Only the first is not this log's (L1).
    async fn in_place(&self, place: &AtomicU64, after: u64, appended: Appended) -> Result<Appended, Error> {
        let Some(seq) = appended.seq else { return Ok(appended) };
        if seq.0 >= after {
            place.fetch_max(seq.0 + 1, Ordering::AcqRel);
            return Ok(appended);
        }
        tracing::error!(
            seq = seq.0,
            after,
            "a pack was acknowledged at or below an earlier one: the log was cut or made anew"
        );
        if let Err(error) = self.inner.identity.look().await {
            return Err(Error::new(Kind::Transient, format!("it is unknown whether the pack was appended: {error}")));
        }
        // Lanes find the claims of what is lost (law 6); what stands there now is as durable as before.
        place.store(seq.0 + 1, Ordering::Release);
        Ok(appended)
    }

    /// The partition as Kafka numbers it, if there is one now.
    fn known(&self, partition: u32) -> Result<(), Error> {
        let count = self.inner.identity.partitions();
        if partition < count {
            return Ok(());
        }
        Err(Error::new(Kind::Permanent, format!("there is no partition {partition}: the topic has {count}")))
    }

    fn member(&self) -> std::sync::MutexGuard<'_, Option<Member>> {
        self.member.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn outside(partition: u32, from: Seq, Bounds { start, end }: Bounds) -> Error {
    Error::gone(format!("partition {partition} has the records from {start} to before {end}, not {from}"))
}

#[async_trait]
impl Log for Kafka {
    fn topology(&self) -> &Topology {
        self.inner.identity.topology()
    }

    fn partitions(&self) -> u32 {
        self.inner.identity.partitions()
    }

    fn lost(&self) -> Option<String> {
        self.inner.identity.lost(Kind::Fatal).map(|lost| lost.message)
    }

    async fn append(&self, partition: u32, format: u32, payload: Bytes) -> Result<Appended, Error> {
        // Packs are routed by the layout that this process began with.
        let count = self.topology().partitions;
        let Some(number) = i32::try_from(partition).ok().filter(|_| partition < count) else {
            return Err(Error::new(Kind::Permanent, format!("there is no partition {partition}: the log has {count}")));
        };
        if let Some(lost) = self.inner.identity.lost(Kind::Permanent) {
            return Err(lost);
        }
        let place = &self.acknowledged[partition as usize];
        let after = place.load(Ordering::Acquire);
        let appended = self.producer.append(number, format, None, payload).await?;
        self.in_place(place, after, appended).await
    }

    async fn bounds(&self, partition: u32) -> Result<Bounds, Error> {
        self.known(partition)?;
        self.inner.asking.bounds(partition).await
    }

    async fn read(&self, partition: u32, from: Seq, max_bytes: usize) -> Result<Vec<Record>, Error> {
        let bounds = self.bounds(partition).await?;
        if !(bounds.start..=bounds.end).contains(&from) {
            return Err(outside(partition, from, bounds));
        }
        if from == bounds.end {
            return Ok(Vec::new());
        }
        self.inner.readers.read(partition, from, bounds.end, max_bytes).await
    }

    async fn open(
        &self,
        partition: u32,
        from: Seq,
        leader_epoch: Option<i32>,
    ) -> Result<Box<dyn super::Cursor>, Error> {
        let bounds = self.bounds(partition).await?;
        if !(bounds.start..=bounds.end).contains(&from) {
            return Err(outside(partition, from, bounds));
        }
        let inner = self.inner.clone();
        let member = self.member();
        let Some(member) = member.as_ref().filter(|member| !member.has_left()) else {
            drop(member);
            let Inner { connection, identity, closing, read_ahead, .. } = &*inner;
            let fetcher = Arc::new(Fetcher::start(connection, Purpose::Alone, *read_ahead, identity, closing)?);
            return Ok(Box::new(Cursor::open(inner, fetcher, partition, from, leader_epoch)));
        };
        let cursor = Cursor::open(inner, member.fetcher(partition)?, partition, from, leader_epoch);
        // A lane opens where its checkpoint ends. The owner before may have gone without committing that.
        member.commit(partition, from.0);
        Ok(Box::new(cursor))
    }

    async fn join(&self) -> Result<mpsc::Receiver<Change>, Error> {
        let mut member = self.member();
        if member.as_ref().is_some_and(|member| !member.has_left()) {
            return Err(Error::new(Kind::Fatal, "this process is a member of the log's workers already"));
        }
        let (joined, changes) = Member::join(&self.inner, self.session)?;
        *member = Some(joined);
        Ok(changes)
    }

    async fn progress(&self, partition: u32, checkpoint: Seq, _needed: Seq) -> Result<(), Error> {
        self.known(partition)?;
        if let Some(member) = &*self.member() {
            member.commit(partition, checkpoint.next().0);
        }
        Ok(())
    }

    async fn check(&self) -> Result<(), Error> {
        if let Some(lost) = self.inner.identity.lost(Kind::Fatal) {
            return Err(lost);
        }
        let layout = self.side.layout(CHECK_TIMEOUT).await?;
        if !layout.leaderless.is_empty() {
            return Err(Error::new(
                Kind::Transient,
                format!("nobody leads the partitions {:?}: their brokers are away", layout.leaderless),
            ));
        }
        if let Some((partition, copies)) = layout.least_in_sync
            && copies < self.min_in_sync
        {
            return Err(Error::new(
                Kind::Transient,
                format!(
                    "partition {partition} has {copies} copies in sync, and min.insync.replicas is {}: appends are refused \
                     until brokers come back",
                    self.min_in_sync
                ),
            ));
        }
        self.inner.identity.look().await
    }

    fn dead_letters(&self) -> Option<&dyn DeadLetters> {
        Some(&self.inner.dead)
    }
}
