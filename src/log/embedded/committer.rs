//! The one thread that writes: it takes everything that is queued, writes it as one batch, syncs, publishes, answers.
//!
//! The longer a sync takes, the more waits for the next one: load makes groups, no timer does. A failed write closes
//! fjall's database for good (it cannot know what reached the disk); then every waiting append is answered, reads go on
//! from what is open, and the database is opened anew as soon as the disk has room, with the ends taken from what is
//! there. Nothing is written while the disk has less room than what has been accepted will still need, so that a disk
//! that fills up is met here, by a refusal, and not by fjall in the middle of a write.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::{
    OwnedSemaphorePermit,
    mpsc::{self, error::TryRecvError},
    oneshot,
};

use super::{
    disk::{Disk, Told, WriteError},
    identity::Identity,
    keeper::Signal,
    letters::{self, Burial},
    record,
    shared::Shared,
};
use crate::{
    clock,
    item::Seq,
    log::{Appended, DeadLetter, Error, Record},
    retry::Kind,
};

/// Records in one group at most; their bytes are bounded by what may be queued.
const GROUP: usize = 4096;
/// So much more room has to be there before appends are taken again, so that the answer does not flutter.
const RESUME_BYTES: u64 = 8 << 20;
/// How long a group waits for the flusher before it is refused.
const STALL: Duration = Duration::from_secs(10);
/// How soon a failed database is tried again.
const REOPEN_INTERVAL: Duration = Duration::from_millis(500);

/// How often the queue is looked into while the database has failed.
const POLL: Duration = Duration::from_millis(20);

/// What the committer is asked.
pub(super) enum Message {
    /// To append a record.
    Append(Append),
    /// To keep a dead letter.
    Bury(Burial),
    /// Whether it could.
    Check(oneshot::Sender<Result<(), Error>>),
}

/// A record on its way.
pub(super) struct Append {
    pub(super) partition: usize,
    pub(super) format: u32,
    pub(super) payload: Bytes,
    pub(super) answer: oneshot::Sender<Result<Appended, Error>>,
    /// Its share of the bytes that may be queued.
    pub(super) _permit: OwnedSemaphorePermit,
}

/// The committer's own state.
pub(super) struct Committer {
    shared: Arc<Shared>,
    identity: Identity,
    keeper: Signal,
    /// The next seq of each partition.
    next: Vec<u64>,
    /// Why and since when the database has to be opened anew.
    failed: Option<Failed>,
    refusing: bool,
}

struct Failed {
    why: String,
    /// When opening it was last tried.
    tried: Option<Instant>,
    /// What was in memtables, and will have to be written to tables.
    buffered: u64,
}

impl Committer {
    /// A committer that continues what is published.
    pub(super) fn new(shared: Arc<Shared>, identity: Identity, keeper: Signal) -> Self {
        let next = shared.partitions.iter().map(|partition| partition.bounds().end.0).collect();
        Self { shared, identity, keeper, next, failed: None, refusing: false }
    }

    /// Serves until every sender is gone.
    pub(super) fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut group = Vec::with_capacity(GROUP);
        while self.receive(&mut messages, &mut group) {
            let mut appends = Vec::with_capacity(group.len());
            let (mut checks, mut burials) = (Vec::new(), Vec::new());
            for message in group.drain(..) {
                match message {
                    Message::Append(append) => appends.push(append),
                    Message::Bury(burial) => burials.push(burial),
                    Message::Check(answer) => checks.push(answer),
                }
            }
            let outcome = self.ready(&appends, burials.iter().map(Burial::bytes).sum());
            self.note(&outcome);
            for check in checks {
                let answer =
                    outcome.as_ref().map_or_else(|why| Err(Error::new(Kind::Transient, why.clone())), |()| Ok(()));
                // Whoever asked may have gone.
                let _ = check.send(answer);
            }
            for burial in burials {
                let buried = outcome.clone().and_then(|()| self.bury(&burial.letter));
                let answer = buried.map_err(|why| {
                    Error::new(Kind::Transient, format!("it is unknown whether the dead letter was kept: {why}"))
                });
                // Whoever asked may have gone.
                let _ = burial.answer.send(answer);
            }
            match outcome {
                Ok(()) if appends.is_empty() => {}
                Ok(()) => self.commit(appends),
                Err(why) => refuse(appends, Kind::Permanent, &format!("not appended: {why}")),
            }
        }
    }

    /// Takes what is queued, and waits for it; a failed database is tried again meanwhile. `false`: nothing will come.
    fn receive(&mut self, messages: &mut mpsc::Receiver<Message>, group: &mut Vec<Message>) -> bool {
        while self.failed.is_some() {
            loop {
                match messages.try_recv() {
                    Ok(message) => group.push(message),
                    Err(TryRecvError::Disconnected) if group.is_empty() => return false,
                    Err(_) => break,
                }
            }
            if !group.is_empty() {
                return true;
            }
            std::thread::sleep(POLL);
            let outcome = self.ready(&[], 0);
            self.note(&outcome);
        }
        messages.blocking_recv_many(group, GROUP) > 0
    }

    /// Whether the group can be written now, or why not.
    fn ready(&mut self, appends: &[Append], burials: u64) -> Result<(), String> {
        if self.failed.is_none() && self.shared.with_disk(Disk::is_poisoned).unwrap_or(true) {
            self.fail("a write in the background failed".to_owned());
        }
        self.check_room(burials + appends.iter().map(|append| append.payload.len() as u64).sum::<u64>())?;
        self.reopen_if_failed()?;
        self.wait_for_flusher()
    }

    /// One line in the journal of events when appends begin to be refused, and one when that ends.
    fn note(&mut self, outcome: &Result<(), String>) {
        match outcome {
            Err(why) if !self.refusing => tracing::error!(reason = %why, "the log refuses appends"),
            Ok(()) if self.refusing => tracing::info!("the log takes appends again"),
            _ => {}
        }
        self.refusing = outcome.is_err();
    }

    fn check_room(&self, group: u64) -> Result<(), String> {
        if self.shared.limits.reserve_bytes == 0 {
            return Ok(());
        }
        let dir = self.shared.dir.display();
        // What is in memtables has to be written once more, to tables.
        let buffered = self.failed.as_ref().map_or_else(|| self.buffered(), |failed| failed.buffered);
        let again = if self.refusing { RESUME_BYTES } else { 0 };
        let needed = self.shared.limits.reserve_bytes + again + buffered + 2 * group;
        match fs4::available_space(&self.shared.dir) {
            Ok(available) if available >= needed => Ok(()),
            Ok(available) => {
                let (available, needed) = (available >> 20, needed.div_ceil(1 << 20));
                Err(format!("the disk of `{dir}` has {available} MiB left, and {needed} MiB are needed; make room"))
            }
            Err(error) => Err(format!("the disk of `{dir}` does not say how much room it has ({error})")),
        }
    }

    fn buffered(&self) -> u64 {
        self.shared.with_disk(Disk::buffered_bytes).unwrap_or(0)
    }

    fn wait_for_flusher(&self) -> Result<(), String> {
        let give_up = Instant::now() + STALL;
        loop {
            let buffered = self.buffered();
            if buffered <= self.shared.limits.buffer_bytes * 3 {
                return Ok(());
            }
            if self.shared.with_disk(Disk::is_poisoned).unwrap_or(true) {
                return Err("a write in the background failed".to_owned());
            }
            if Instant::now() > give_up {
                return Err(format!("the disk is too slow: {} MiB wait to be written", buffered >> 20));
            }
            self.keeper.wake();
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn commit(&mut self, appends: Vec<Append>) {
        let append_ms = clock::now_ms();
        let mut next = self.next.clone();
        let mut placed = Vec::with_capacity(appends.len());
        for append in &appends {
            let seq = next[append.partition];
            next[append.partition] += 1;
            placed.push((append.partition, record::key(seq, append_ms, append.format, &append.payload), seq));
        }
        let records =
            placed.iter().zip(&appends).map(|((partition, key, _), append)| (*partition, *key, append.payload.clone()));
        let written = catch_unwind(AssertUnwindSafe(|| self.shared.with_disk(|disk| disk.write(records))));
        let failure = match written {
            Ok(Some(Ok(()))) => None,
            Ok(Some(Err(WriteError::Refused(error)))) => {
                Some((Kind::Permanent, WriteError::Refused(error).to_string()))
            }
            Ok(Some(Err(error))) => Some((Kind::Transient, error.to_string())),
            Ok(None) => Some((Kind::Permanent, "the log is closed".to_owned())),
            Err(_) => Some((Kind::Transient, "the storage failed".to_owned())),
        };
        if let Some((kind, why)) = failure {
            let known = if kind == Kind::Permanent { "not appended" } else { "it is unknown whether it was appended" };
            refuse(appends, kind, &format!("{known}: {why}"));
            self.fail(why);
            return;
        }

        let seqs: Vec<_> = placed.into_iter().map(|(partition, _, seq)| (partition, Seq(seq))).collect();
        let mut of_partition: Vec<Vec<Record>> = Vec::new();
        of_partition.resize_with(next.len(), Vec::new);
        for ((partition, seq), append) in seqs.iter().zip(&appends) {
            let payload = append.payload.clone();
            let record =
                Record { seq: *seq, append_ms, leader_epoch: None, format: append.format, payload, damage: None };
            of_partition[*partition].push(record);
        }
        for (partition, records) in self.shared.partitions.iter().zip(of_partition) {
            partition.publish(records.into_iter());
        }
        self.next = next;
        let mut bytes = 0;
        for (append, (_, seq)) in appends.into_iter().zip(seqs) {
            bytes += append.payload.len() as u64;
            // Whoever asked may have gone; the record stays.
            let _ = append.answer.send(Ok(Appended { seq: Some(seq), append_ms }));
        }
        self.keeper.appended(bytes);
    }

    fn bury(&mut self, letter: &DeadLetter) -> Result<(), String> {
        let buried = catch_unwind(AssertUnwindSafe(|| self.shared.with_disk(|disk| letters::bury(disk, letter))));
        let why = match buried {
            Ok(Some(Ok(()))) => return Ok(()),
            Ok(Some(Err(error))) => Told(&error).to_string(),
            Ok(None) => return Err("the log is closed".to_owned()),
            Err(_) => "the storage failed".to_owned(),
        };
        self.fail(why.clone());
        Err(why)
    }

    fn fail(&mut self, why: String) {
        tracing::error!(reason = %why, "the log's storage failed and will be opened anew");
        self.failed = Some(Failed { why, tried: None, buffered: self.buffered() });
    }

    fn reopen_if_failed(&mut self) -> Result<(), String> {
        let Some(failed) = &mut self.failed else { return Ok(()) };
        if failed.tried.is_some_and(|tried| tried.elapsed() < REOPEN_INTERVAL) {
            return Err(failed.why.clone());
        }
        match self.shared.reopen(&self.identity, &self.next) {
            Ok(ends) => {
                tracing::info!("the log's storage is open again");
                self.next = ends;
                self.failed = None;
                Ok(())
            }
            Err(error) => {
                failed.why.clone_from(&error.message);
                failed.tried = Some(Instant::now());
                Err(error.message)
            }
        }
    }
}

fn refuse(appends: Vec<Append>, kind: Kind, message: &str) {
    for append in appends {
        // Whoever asked may have gone.
        let _ = append.answer.send(Err(Error::new(kind, message)));
    }
}
