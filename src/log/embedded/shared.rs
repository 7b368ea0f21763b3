//! What the committer, the keeper and the readers share: the open database, and what is published of each partition.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    disk::{Disk, Told},
    identity::Identity,
    partition::Partition,
};
use crate::{log::Error, retry::Kind};

/// How much of memory and disk a log may use.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Bytes that may be in memtables before they are flushed.
    pub(super) buffer_bytes: u64,
    /// Bytes in tables beyond which old ones go.
    pub(super) retention_bytes: u64,
    /// Room on the disk that is left alone, beside what still has to be written; 0: nobody looks.
    pub(super) reserve_bytes: u64,
}

/// The shared state of a log.
pub(super) struct Shared {
    /// The log's folder.
    pub(super) dir: PathBuf,
    /// What is published.
    pub(super) partitions: Vec<Partition>,
    /// How much it may use.
    pub(super) limits: Limits,
    // Readers hold it for one read, so that it can be closed and opened anew; `None` in between and at the end.
    disk: RwLock<Option<Disk>>,
    closed: AtomicBool,
}

impl Shared {
    /// The state of a log that has just been opened.
    pub(super) fn new(dir: PathBuf, disk: Disk, partitions: Vec<Partition>, limits: Limits) -> Self {
        Self { dir, partitions, limits, disk: RwLock::new(Some(disk)), closed: AtomicBool::new(false) }
    }

    /// Uses the open database; `None` if there is none.
    pub(super) fn with_disk<T>(&self, use_it: impl FnOnce(&Disk) -> T) -> Option<T> {
        self.disk.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(use_it)
    }

    /// Closes the database and opens it anew; answers the partitions' ends.
    ///
    /// # Errors
    /// It cannot be opened, or lacks records that have been read or acknowledged (`published` are the ends so far).
    pub(super) fn reopen(&self, identity: &Identity, published: &[u64]) -> Result<Vec<u64>, Error> {
        let mut slot = self.disk.write().unwrap_or_else(PoisonError::into_inner);
        close(slot.take());
        let (disk, found) = Disk::open(&self.dir, identity)?;
        let ends = self.recovered_ends(&disk, found == *identity, published);
        // In any case: what was published can be read.
        *slot = Some(disk);
        for (partition, end) in self.partitions.iter().zip(ends.iter().flatten()) {
            partition.republish(*end);
        }
        ends
    }

    fn recovered_ends(&self, disk: &Disk, same: bool, published: &[u64]) -> Result<Vec<u64>, Error> {
        let dir = self.dir.display();
        if !same {
            return Err(Error::new(Kind::Fatal, format!("the log in `{dir}` has become another one")));
        }
        disk.flush_all().map_err(|error| {
            Error::new(Kind::Transient, format!("the log in `{dir}` cannot be recovered: {}", Told(&error)))
        })?;
        let mut ends = Vec::with_capacity(published.len());
        for (partition, published) in published.iter().enumerate() {
            let end = disk.bounds(partition)?.end.0;
            if end < *published {
                let message = format!(
                    "partition {partition} ended at {published} and ends at {end} on disk: records are lost; restore `{dir}` from a copy"
                );
                return Err(Error::new(Kind::Fatal, message));
            }
            ends.push(end);
        }
        Ok(ends)
    }

    /// Closes the log for good.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        close(self.disk.write().unwrap_or_else(PoisonError::into_inner).take());
        for partition in &self.partitions {
            partition.wake();
        }
    }

    /// Whether the log has been closed for good.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

/// Closing waits for the flusher's current work and syncs what is left; where that panics it has failed, and is over.
fn close(disk: Option<Disk>) {
    if catch_unwind(AssertUnwindSafe(|| drop(disk))).is_err() {
        tracing::error!("the log's storage did not close in order");
    }
}
