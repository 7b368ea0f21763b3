//! Reading: a batch at an offset, and a cursor that waits for the next one.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::shared::Shared;
use crate::{
    item::Seq,
    log::{self, Bounds, Error, Record},
    retry::Kind,
};

/// What a cursor delivers at once, about.
const BATCH_BYTES: usize = 1 << 20;

/// A reader of one partition.
pub(super) struct Cursor {
    shared: Arc<Shared>,
    partition: usize,
    next: u64,
    end: watch::Receiver<u64>,
}

impl Cursor {
    /// A cursor at `from`, which must be within the bounds or their end.
    pub(super) fn open(shared: Arc<Shared>, partition: usize, from: Seq) -> Result<Self, Error> {
        let end = shared.partitions[partition].watch_end();
        check(partition, from.0, shared.partitions[partition].bounds())?;
        Ok(Self { shared, partition, next: from.0, end })
    }
}

#[async_trait]
impl log::Cursor for Cursor {
    async fn next(&mut self) -> Result<Vec<Record>, Error> {
        while *self.end.borrow_and_update() <= self.next {
            if self.shared.is_closed() {
                return Err(closed());
            }
            self.end.changed().await.map_err(|_| closed())?;
        }
        let records = read(&self.shared, self.partition, Seq(self.next), BATCH_BYTES).await?;
        // Only now: a cancelled read has moved nothing.
        self.next += records.len() as u64;
        Ok(records)
    }
}

/// Records from `from` on, at least one if there is one; from memory where that has them.
pub(super) async fn read(
    shared: &Arc<Shared>,
    partition: usize,
    from: Seq,
    max_bytes: usize,
) -> Result<Vec<Record>, Error> {
    let bounds = shared.partitions[partition].bounds();
    check(partition, from.0, bounds)?;
    if from == bounds.end {
        return Ok(Vec::new());
    }
    if let Some(records) = shared.partitions[partition].recent_from(from.0, bounds.end.0, max_bytes) {
        return Ok(records);
    }
    let shared = shared.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let read = shared.with_disk(|disk| disk.read(partition, from.0, bounds.end.0, max_bytes));
        match read {
            // Retention may have passed while it was read.
            Some(Err(error)) => check(partition, from.0, shared.partitions[partition].bounds()).and(Err(error)),
            Some(read) => read,
            None if shared.is_closed() => Err(closed()),
            None => Err(Error::new(Kind::Transient, "the log's storage failed and is not open yet")),
        }
    });
    reading.await.unwrap_or_else(|_| Err(Error::new(Kind::Transient, "the read was broken off")))
}

fn check(partition: usize, from: u64, Bounds { start, end }: Bounds) -> Result<(), Error> {
    if (start.0..=end.0).contains(&from) {
        return Ok(());
    }
    Err(Error::gone(format!("partition {partition} has the records from {start} to before {end}, not {from}")))
}

fn closed() -> Error {
    Error::new(Kind::Fatal, "the log is closed")
}
