//! Membership in the group of workers: from the group's rebalances to the port's changes, and back to its answers.
//!
//! One task. An assignment is passed on after a look at the topic's id. A revocation is answered when the lanes have
//! stopped, or after [`PATIENCE`]: a lane that is stuck must not hold up the whole group, and what it still writes after
//! its time loses to what the next owner writes (law 3). The membership ends when nobody takes the changes any more, or
//! with the log.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::{
    super::{Change, Error},
    Inner,
    fetcher::{Fetcher, Purpose, Rebalance},
};
use crate::retry::Kind;

/// How long a revocation waits for the lanes.
const PATIENCE: Duration = Duration::from_secs(30);
/// Changes that may wait to be taken. There is one per rebalance.
const CHANGES: usize = 64;
/// Rebalances that may wait. The group waits for an answer before it begins the next.
const REBALANCES: usize = 16;

/// A member of the group.
pub(super) struct Member {
    fetcher: Arc<Fetcher>,
    assigned: Arc<Mutex<BTreeSet<u32>>>,
    task: AbortOnDropHandle<()>,
}

impl Member {
    /// Joins.
    pub(super) fn join(inner: &Arc<Inner>, session: Duration) -> Result<(Self, mpsc::Receiver<Change>), Error> {
        let (rebalances, events) = mpsc::channel(REBALANCES);
        let purpose = Purpose::Member(session, rebalances);
        let fetcher = Fetcher::start(&inner.connection, purpose, inner.read_ahead, &inner.identity, &inner.closing)?;
        let (fetcher, assigned) = (Arc::new(fetcher), Arc::<Mutex<BTreeSet<u32>>>::default());
        let (changes, receiver) = mpsc::channel(CHANGES);
        let following =
            Following { inner: inner.clone(), fetcher: fetcher.clone(), assigned: assigned.clone(), changes };
        let task = AbortOnDropHandle::new(tokio::spawn(following.run(events)));
        Ok((Self { fetcher, assigned, task }, receiver))
    }

    /// Whether it has left.
    pub(super) fn has_left(&self) -> bool {
        self.task.is_finished()
    }

    /// The fetching client, if the partition is assigned to this process.
    pub(super) fn fetcher(&self, partition: u32) -> Result<Arc<Fetcher>, Error> {
        let assigned = self.assigned.lock().unwrap_or_else(PoisonError::into_inner);
        if assigned.contains(&partition) {
            return Ok(self.fetcher.clone());
        }
        Err(Error::new(Kind::Transient, format!("partition {partition} is not assigned to this process any more")))
    }

    /// Mirrors a lane's progress: the offset that would be read next.
    pub(super) fn commit(&self, partition: u32, offset: u64) {
        self.fetcher.slots.commit(partition, offset);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Cursors may still hold the client.
        self.fetcher.slots.shut();
    }
}

struct Following {
    inner: Arc<Inner>,
    fetcher: Arc<Fetcher>,
    assigned: Arc<Mutex<BTreeSet<u32>>>,
    changes: mpsc::Sender<Change>,
}

impl Following {
    async fn run(self, mut events: mpsc::Receiver<Rebalance>) {
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = self.changes.closed() => break,
                () = self.fetcher.slots.broken.notified() => {
                    tracing::error!("the reader has failed for good, the group is left");
                    break;
                }
            };
            let passed_on = match event {
                Some(Rebalance::Assigned(partitions)) => self.assigned(partitions).await,
                Some(Rebalance::Revoked(partitions)) => self.revoked(partitions).await,
                Some(Rebalance::Lost(partitions)) => self.lost(partitions),
                None => break,
            };
            if !passed_on {
                tracing::error!("nobody takes the changes of the lanes, the group is left");
                break;
            }
        }
        self.fetcher.slots.shut();
    }

    fn forget(&self, partitions: &[u32]) {
        let mut assigned = self.assigned.lock().unwrap_or_else(PoisonError::into_inner);
        assigned.retain(|partition| !partitions.contains(partition));
    }

    async fn assigned(&self, partitions: Vec<u32>) -> bool {
        if partitions.is_empty() {
            return true;
        }
        // The lanes look at the id that the log was opened with: a log that is another by now ends them at once.
        if let Err(error) = self.inner.identity.look().await {
            tracing::warn!(error = %error, "lanes are taken over all the same");
        }
        tracing::info!(?partitions, "lanes assigned");
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner).extend(&partitions);
        self.changes.try_send(Change::Assigned(partitions)).is_ok()
    }

    async fn revoked(&self, partitions: Vec<u32>) -> bool {
        if partitions.is_empty() {
            self.fetcher.slots.answer();
            return true;
        }
        tracing::info!(?partitions, "lanes revoked");
        let (released, release) = oneshot::channel();
        let sent = self.changes.try_send(Change::Revoked { partitions: partitions.clone(), released }).is_ok();
        if sent {
            tokio::select! {
                stopped = tokio::time::timeout(PATIENCE, release) => if stopped.is_err() {
                    tracing::warn!(?partitions, "lanes have not stopped in time, they are released all the same");
                },
                () = self.changes.closed() => {}
            }
        }
        self.forget(&partitions);
        self.fetcher.slots.revoke(&partitions);
        self.fetcher.slots.answer();
        sent
    }

    fn lost(&self, partitions: Vec<u32>) -> bool {
        tracing::warn!(?partitions, "lanes lost: the group has gone on without this process");
        self.forget(&partitions);
        self.fetcher.slots.lose(&partitions);
        self.fetcher.slots.answer();
        self.changes.try_send(Change::Lost(partitions)).is_ok()
    }
}
