//! The embedded log: partitions on the local disk, in one [`fjall`] database, with the port's laws.
//!
//! An append is queued to the one committer thread, which writes everything that waits as one batch, syncs it, and only
//! then makes it readable and answers: a group commit whose size grows with the load by itself. Readers that keep up
//! are served from memory. A second thread hands memtables to the flusher and removes old tables (retention). What is
//! queued is bounded by bytes: at the bound `append` waits.
//!
//! A disk without room is met by refusals ([`Kind::Permanent`]: certainly not appended) that end when there is room; a
//! failed write by answers that say "unknown", and by opening the database anew. `docs/decisions/0001-embedded-log.md`
//! has the reasons and the figures. The one file lock over a data folder is `data_dir`'s.

mod committer;
mod cursor;
mod disk;
mod identity;
mod journal;
mod keeper;
mod letters;
mod partition;
mod record;
mod retention;
mod shared;
mod sweeper;
#[cfg(test)]
mod trouble;
mod unflushed;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot};

use self::{
    committer::{Append, Committer, Message},
    cursor::Cursor,
    disk::Disk,
    identity::Identity,
    keeper::Signal,
    partition::Partition,
    shared::{Limits, Shared},
};
use super::{Appended, Bounds, Change, DeadLetters, Error, Log, Options, Record, Topology};
use crate::{item::Seq, retry::Kind, units::Size};

/// Partitions of a new log, where the settings leave it open.
const DEFAULT_PARTITIONS: u32 = 4;
/// Each has files and a place in fjall's bounded queues; more do not help on one disk.
const MAX_PARTITIONS: u32 = 256;
/// A record may not be larger.
const MAX_RECORD: Size = Size::mib(16);
/// Appends that may be queued or being written: their number, and their bytes in units of [`PERMIT_BYTES`].
const QUEUED: usize = 4096;
const QUEUED_PERMITS: u32 = (32 << 20) / PERMIT_BYTES;
const PERMIT_BYTES: u32 = 1 << 10;
/// Newest records in memory, over all partitions.
const RECENT_BYTES: usize = 16 << 20;
/// Memtables are flushed at this size, over all partitions, or at an eighth of what is retained if that is less.
/// Each flush stops appends for some ten milliseconds (manifest and rename, synced under a lock): seldom beats small.
const BUFFER: Size = Size::mib(48);
const MIN_BUFFER: Size = Size::mib(1);
/// Room on the disk for the storage's own bookkeeping: manifests, a journal begun, what a group exceeds its estimate by.
const RESERVE: Size = Size::mib(16);
/// How long a check may take: as long as the disk does for the group before it.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// A log on the local disk.
pub struct Embedded {
    topology: Topology,
    shared: Arc<Shared>,
    queued: Arc<Semaphore>,
    messages: Option<mpsc::Sender<Message>>,
    keeper: Option<Signal>,
    threads: Vec<JoinHandle<()>>,
    /// Kept open: an embedded log is never left.
    members: Mutex<Vec<mpsc::Sender<Change>>>,
}

impl Embedded {
    /// Opens the log in the folder `dir`, or makes it there. Blocks while it recovers.
    ///
    /// # Errors
    /// The folder cannot be used, the log in it is damaged, another process has it open, or it is not the one that the
    /// settings describe.
    pub fn open(dir: &Path, topic: &str, options: &Options) -> Result<Self, Error> {
        let buffer = BUFFER.0.min(options.retention_bytes.0 / 8).max(MIN_BUFFER.0);
        let retention_bytes = options.retention_bytes.0;
        let limits = Limits { buffer_bytes: buffer, retention_bytes, reserve_bytes: RESERVE.0 };
        Self::open_within(dir, topic, options, limits)
    }

    fn open_within(dir: &Path, topic: &str, options: &Options, limits: Limits) -> Result<Self, Error> {
        let fatal = |message: String| Err(Error::new(Kind::Fatal, message));
        if options.partitions > MAX_PARTITIONS {
            return fatal(format!(
                "log.partitions is {}, and an embedded log has at most {MAX_PARTITIONS}",
                options.partitions
            ));
        }
        let partitions = if options.partitions == 0 { DEFAULT_PARTITIONS } else { options.partitions };
        let (disk, identity) = Disk::open(dir, &Identity::new(topic, partitions))?;
        let shown = dir.display();
        if identity.topic != topic {
            return fatal(format!(
                "the log in `{shown}` is of the topic `{}`, not `{topic}`; choose another folder",
                identity.topic
            ));
        }
        if options.partitions != 0 && options.partitions != identity.partitions {
            return fatal(format!(
                "log.partitions is {}, and the log in `{shown}` has {}: set it to {} or leave it out, or choose another folder to begin a new log",
                options.partitions, identity.partitions, identity.partitions
            ));
        }
        let Some(topic_id) = identity.topic_id() else {
            return fatal(format!("the log in `{shown}` has no topic id"));
        };

        let recent = RECENT_BYTES / identity.partitions as usize;
        let published = (0..identity.partitions as usize)
            .map(|partition| Ok(Partition::new(disk.bounds(partition)?, recent)))
            .collect::<Result<_, Error>>()?;
        let shared = Arc::new(Shared::new(dir.to_owned(), disk, published, limits));

        let (keeper, signals) = Signal::new(limits.buffer_bytes);
        let (messages, inbox) = mpsc::channel(QUEUED);
        let committer = Committer::new(shared.clone(), identity.clone(), keeper.clone());
        let topology = Topology {
            topic: topic.to_owned(),
            topic_id,
            cluster_id: identity.cluster_id,
            partitions: identity.partitions,
        };
        let mut log = Self {
            topology,
            shared: shared.clone(),
            queued: Arc::new(Semaphore::new(QUEUED_PERMITS as usize)),
            messages: Some(messages),
            keeper: Some(keeper),
            threads: Vec::new(),
            members: Mutex::default(),
        };
        log.spawn("log-keeper", move || keeper::run(&shared, &signals))?;
        log.spawn("log-committer", move || committer.run(inbox))?;
        Ok(log)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let spawned = thread::Builder::new().name(name.to_owned()).spawn(run);
        let thread =
            spawned.map_err(|error| Error::new(Kind::Fatal, format!("no thread for the log ({error})")).with(error))?;
        self.threads.push(thread);
        Ok(())
    }

    fn partition(&self, partition: u32) -> Result<usize, Error> {
        let index = partition as usize;
        if index < self.shared.partitions.len() {
            return Ok(index);
        }
        let count = self.topology.partitions;
        Err(Error::new(Kind::Permanent, format!("there is no partition {partition}: the log has {count}")))
    }

    async fn send(&self, message: Message) -> Result<(), Error> {
        let messages = self.messages.as_ref().expect("taken only when the log is dropped");
        messages.send(message).await.map_err(|_| stopped())
    }
}

fn stopped() -> Error {
    Error::new(Kind::Fatal, "the log's writer has stopped")
}

/// Waits for what is queued, and for the last sync.
impl Drop for Embedded {
    fn drop(&mut self) {
        // Without senders the threads end, the committer when its queue is empty.
        drop((self.messages.take(), self.keeper.take()));
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
        self.shared.close();
    }
}

#[async_trait]
impl Log for Embedded {
    fn topology(&self) -> &Topology {
        &self.topology
    }

    async fn append(&self, partition: u32, format: u32, payload: Bytes) -> Result<Appended, Error> {
        let partition = self.partition(partition)?;
        if payload.len() > MAX_RECORD.as_usize() {
            let message =
                format!("not appended: a record of {} bytes; at most {MAX_RECORD} are allowed", payload.len());
            return Err(Error::new(Kind::Permanent, message));
        }
        let permits = u32::try_from(payload.len()).unwrap_or(u32::MAX).div_ceil(PERMIT_BYTES).max(1);
        let permit =
            self.queued.clone().acquire_many_owned(permits.min(QUEUED_PERMITS)).await.map_err(|_| stopped())?;
        let (answer, answered) = oneshot::channel();
        self.send(Message::Append(Append { partition, format, payload, answer, _permit: permit })).await?;
        answered.await.unwrap_or_else(|_| {
            Err(Error::new(Kind::Transient, "it is unknown whether it was appended: the log's writer has stopped"))
        })
    }

    async fn bounds(&self, partition: u32) -> Result<Bounds, Error> {
        Ok(self.shared.partitions[self.partition(partition)?].bounds())
    }

    async fn read(&self, partition: u32, from: Seq, max_bytes: usize) -> Result<Vec<Record>, Error> {
        cursor::read(&self.shared, self.partition(partition)?, from, max_bytes).await
    }

    async fn open(
        &self,
        partition: u32,
        from: Seq,
        _leader_epoch: Option<i32>,
    ) -> Result<Box<dyn super::Cursor>, Error> {
        Ok(Box::new(Cursor::open(self.shared.clone(), self.partition(partition)?, from)?))
    }

    async fn join(&self) -> Result<mpsc::Receiver<Change>, Error> {
        let (changes, receiver) = mpsc::channel(1);
        let assigned = Change::Assigned((0..self.topology.partitions).collect());
        changes.try_send(assigned).expect("the channel is new and has room for one");
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|member| !member.is_closed());
        members.push(changes);
        Ok(receiver)
    }

    async fn progress(&self, partition: u32, _checkpoint: Seq, needed: Seq) -> Result<(), Error> {
        self.shared.partitions[self.partition(partition)?].set_needed(needed);
        if let Some(keeper) = &self.keeper {
            keeper.wake();
        }
        Ok(())
    }

    async fn check(&self) -> Result<(), Error> {
        let asking = async {
            let (answer, answered) = oneshot::channel();
            self.send(Message::Check(answer)).await?;
            answered.await.unwrap_or_else(|_| Err(stopped()))
        };
        tokio::time::timeout(CHECK_TIMEOUT, asking)
            .await
            .unwrap_or_else(|_| Err(Error::new(Kind::Transient, "the log's disk does not answer")))
    }

    fn dead_letters(&self) -> Option<&dyn DeadLetters> {
        Some(self)
    }
}
