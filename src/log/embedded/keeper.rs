//! The thread behind the committer: it hands full memtables to the flusher and removes what retention lets go.
//!
//! Both take fjall's locks and sync files, so they are kept out of the way of appends; large files are removed in steps. It sleeps until it is told that
//! something was appended or that a lane has come further.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::Duration,
};

use super::{
    disk::{Disk, Told},
    retention::{self, Front},
    shared::Shared,
    sweeper::Sweeper,
};

/// The keeper looks once in so many appended bytes, or an eighth of the buffer if that is less.
const LOOK_BYTES: u64 = 1 << 20;

/// Wakes the keeper.
#[derive(Clone)]
pub(super) struct Signal {
    sender: SyncSender<()>,
    unseen: Arc<AtomicU64>,
    look_bytes: u64,
}

impl Signal {
    /// A signal and what hears it.
    pub(super) fn new(buffer_bytes: u64) -> (Self, Receiver<()>) {
        let (sender, receiver) = sync_channel(1);
        (Self { sender, unseen: Arc::default(), look_bytes: LOOK_BYTES.min(buffer_bytes / 8) }, receiver)
    }

    /// So many bytes more have been appended.
    pub(super) fn appended(&self, bytes: u64) {
        if self.unseen.fetch_add(bytes, Ordering::Relaxed) + bytes >= self.look_bytes {
            self.unseen.store(0, Ordering::Relaxed);
            self.wake();
        }
    }

    /// Have a look.
    pub(super) fn wake(&self) {
        // Full: it is about to look anyway. Gone: the log is closing.
        let _ = self.sender.try_send(());
    }
}

/// Serves until every signal is gone.
pub(super) fn run(shared: &Shared, signals: &Receiver<()>) {
    let mut sweeper = Sweeper::new(&shared.dir);
    loop {
        match sweeper.pause() {
            None if signals.recv().is_err() => return,
            None => look(shared, &mut sweeper),
            Some(pause) => match signals.recv_timeout(pause) {
                Ok(()) => look(shared, &mut sweeper),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            },
        }
        sweeper.step();
    }
}

fn look(shared: &Shared, sweeper: &mut Sweeper) {
    if let Err(error) = sweeper.name_journals() {
        tracing::debug!(%error, "the log's journals will be removed at once");
    }
    shared.with_disk(|disk| {
        let kept = rotate(disk, shared.limits.buffer_bytes).and_then(|()| retain(disk, shared, sweeper));
        if let Err(error) = kept {
            // The committer finds a database that has failed by itself; anything else is tried again.
            tracing::warn!(error = %Told(&error), "the log's upkeep failed");
        }
    });
    sweeper.look();
}

fn rotate(disk: &Disk, buffer_bytes: u64) -> Result<(), fjall::Error> {
    while disk.active_bytes() > buffer_bytes {
        if !disk.rotate_largest()? {
            if disk.is_poisoned() {
                return Err(fjall::Error::Poisoned);
            }
            // All are being flushed.
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    Ok(())
}

fn retain(disk: &Disk, shared: &Shared, sweeper: &mut Sweeper) -> Result<(), fjall::Error> {
    let fronts: Vec<_> = shared
        .partitions
        .iter()
        .enumerate()
        .map(|(index, partition)| Front { tables: disk.tables(index), floor: partition.floor() })
        .collect();
    for (index, start) in retention::new_starts(&fronts, shared.limits.retention_bytes).into_iter().enumerate() {
        if let Some(start) = start {
            // First out of sight, then off the disk: a reader in between is told that it is gone.
            shared.partitions[index].set_start(start);
            for path in disk.paths_below(index, start) {
                if let Err(error) = sweeper.name(&path, &format!("partition-{index}")) {
                    tracing::debug!(%error, "an old table of the log will be removed at once");
                }
            }
            disk.drop_below(index, start)?;
            tracing::debug!(partition = index, start, "removed old records of the log");
        }
    }
    Ok(())
}
