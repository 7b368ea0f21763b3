//! A cursor over one partition: takes what the fetching client has put into its slot, and finds out where it stands when
//! something odd was met.
//!
//! Finding out is a look at the topic's id, at the bounds, and a read from the last record that was delivered on: that one
//! must be the same still, or the log was cut and grew again (which librdkafka notices only where leader epochs tell it).
//! What the read brings is delivered, and fetching goes on behind it. It is a task of its own, so that a cursor that is
//! polled in short waits gets through it as well.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{sync::watch, time::Instant};
use tokio_util::task::AbortOnDropHandle;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    super::{self as log, Error, Record},
    Inner,
    fetcher::Fetcher,
    slots::Found,
};
use crate::{item::Seq, retry::Kind};

/// Between two times of finding out, at least.
const PAUSE: Duration = Duration::from_millis(500);

/// The last record that was delivered.
#[derive(Clone, Copy)]
struct Last {
    seq: u64,
    epoch: Option<i32>,
    hash: u64,
}

impl Last {
    fn of(record: &Record) -> Self {
        Self { seq: record.seq.0, epoch: record.leader_epoch, hash: xxh3_64(&record.payload) }
    }
}

/// See the module.
pub(super) struct Cursor {
    inner: Arc<Inner>,
    fetcher: Arc<Fetcher>,
    partition: u32,
    number: u64,
    news: Arc<tokio::sync::Notify>,
    lost: watch::Receiver<Option<Arc<str>>>,
    last: Option<Last>,
    looking: Option<AbortOnDropHandle<Result<Vec<Record>, Error>>>,
    looked: Option<Instant>,
}

impl Cursor {
    pub(super) fn open(
        inner: Arc<Inner>,
        fetcher: Arc<Fetcher>,
        partition: u32,
        from: Seq,
        epoch: Option<i32>,
    ) -> Self {
        let (number, news) = fetcher.slots.open(partition, from.0, epoch);
        let lost = inner.identity.watch();
        Self { inner, fetcher, partition, number, news, lost, last: None, looking: None, looked: None }
    }

    fn look(&mut self, next: u64) {
        let (inner, partition, last) = (self.inner.clone(), self.partition, self.last);
        let begin = self.looked.map_or_else(Instant::now, |looked| looked + PAUSE);
        self.looking = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::time::sleep_until(begin).await;
            find_out(&inner, partition, next, last).await
        })));
    }

    /// What looking has found; an error stays until the next look.
    fn looked(&mut self, next: u64, found: Result<Vec<Record>, Error>) -> Result<Vec<Record>, Error> {
        self.looking = None;
        self.looked = Some(Instant::now());
        let records = found?;
        let last = records.last().map(Last::of).or(self.last);
        let (next, epoch) = last.map_or((next, None), |last| (last.seq + 1, last.epoch));
        self.fetcher.slots.reopen(self.partition, self.number, next, epoch);
        Ok(records)
    }
}

#[async_trait]
impl log::Cursor for Cursor {
    async fn next(&mut self) -> Result<Vec<Record>, Error> {
        loop {
            if let Some(why) = self.lost.borrow().as_deref() {
                return Err(Error::new(Kind::Fatal, why));
            }
            let next = match self.fetcher.slots.take(self.partition, self.number)? {
                Found::Records(records) => {
                    self.last = records.last().map(Last::of).or(self.last);
                    return Ok(records);
                }
                Found::Nothing => {
                    tokio::select! {
                        () = self.news.notified() => {}
                        // Its sender is the identity, which the cursor keeps alive.
                        _ = self.lost.changed() => {}
                    }
                    continue;
                }
                Found::Suspect { next } => next,
            };
            let Some(looking) = &mut self.looking else {
                self.look(next);
                continue;
            };
            let found = looking.await.unwrap_or_else(|_| Err(Error::new(Kind::Transient, "the look was broken off")));
            let records = self.looked(next, found)?;
            if !records.is_empty() {
                self.last = records.last().map(Last::of);
                return Ok(records);
            }
        }
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.fetcher.slots.close(self.partition, self.number);
    }
}

/// Where a cursor stands that wants `next`: the records from there on, or why there are none.
async fn find_out(inner: &Arc<Inner>, partition: u32, next: u64, last: Option<Last>) -> Result<Vec<Record>, Error> {
    match inner.identity.look().await {
        // Fatal and not lost: the topic was missed once.
        Err(error) if error.kind == Kind::Transient => return Err(error),
        _ => {}
    }
    if let Some(lost) = inner.identity.lost(Kind::Fatal) {
        return Err(lost);
    }
    let bounds = inner.asking.bounds(partition).await?;
    let next = Seq(next);
    if !(bounds.start..=bounds.end).contains(&next) {
        return Err(super::outside(partition, next, bounds));
    }
    // Retention may have removed the last one.
    let known = last.filter(|last| last.seq.checked_add(1) == Some(next.0) && last.seq >= bounds.start.0);
    let from = known.map_or(next, |last| Seq(last.seq));
    if from == bounds.end {
        return Ok(Vec::new());
    }
    let mut records = inner.readers.read(partition, from, bounds.end, inner.read_ahead).await?;
    if let Some(last) = known {
        let found = records.first().map(Last::of);
        let same = found.is_some_and(|found| {
            found.seq == last.seq && found.hash == last.hash && (found.epoch == last.epoch || last.epoch.is_none())
        });
        if !same {
            return Err(Error::gone(format!(
                "partition {partition} was cut at or below {} and has grown again: another record stands there now",
                last.seq
            )));
        }
        records.remove(0);
    }
    Ok(records)
}
