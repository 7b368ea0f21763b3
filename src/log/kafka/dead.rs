//! The dead letters of a topic: records of another one, `<topic>.dead`, in its one partition, keyed by coordinates.
//!
//! There are seldom any, so its producer is made for the first one, and what is read comes by the same readers as a lane's
//! past. A letter that is buried again is appended again: readers take the first of each coordinates.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::OnceCell;

use super::{
    super::{DeadLetter, DeadLetters, Error, Found, Place, dead},
    closing::Closing,
    dead_topic,
    producer::Producer,
    reader::Readers,
    side::Side,
};
use crate::{item::Seq, retry::Kind};

/// Its one partition.
const PARTITION: u32 = 0;
/// Bytes of letters that may be under way.
const BUFFER: usize = 32 << 20;

/// The dead letters of a topic.
pub(super) struct Dead {
    side: Arc<Side>,
    readers: Readers,
    producer: OnceCell<Producer>,
    max_record: usize,
    deadline: Duration,
    closing: Closing,
}

impl Dead {
    /// Those of the topic that `packs` asks about, whose records have `max_record` bytes at most.
    pub(super) fn new(packs: &Side, max_record: usize, deadline: Duration, closing: Closing) -> Self {
        let side = Arc::new(packs.about(dead_topic::name(&packs.connection().topic)));
        let readers = Readers::new(side.connection().clone(), closing.clone());
        let max_record = max_record.saturating_add(dead::ENVELOPE_BYTES as usize);
        Self { side, readers, producer: OnceCell::new(), max_record, deadline, closing }
    }

    /// Closes readers that nobody has used for a while.
    pub(super) fn tidy(&self) {
        self.readers.tidy();
    }

    async fn producer(&self) -> Result<&Producer, Error> {
        let Self { max_record, deadline, closing, .. } = self;
        let make =
            async || Producer::new(self.side.connection().clone(), 1, *max_record, BUFFER, *deadline, closing.clone());
        self.producer.get_or_try_init(make).await
    }
}

#[async_trait]
impl DeadLetters for Dead {
    async fn bury(&self, letter: &DeadLetter) -> Result<(), Error> {
        let topic = &self.side.connection().topic;
        let producer = self.producer().await?;
        let partition = i32::try_from(PARTITION).unwrap_or(0);
        let key = dead::key(letter.at);
        let buried = producer.append(partition, dead::VERSION, Some(&key), letter.encode()).await;
        buried.map(drop).map_err(|error| {
            Error::new(error.kind, format!("the topic `{topic}` does not take a dead letter: {error}"))
        })
    }

    async fn read_letters(&self, after: Option<&Place>, max_bytes: usize) -> Result<Vec<Found>, Error> {
        let bounds = self.side.bounds_of(PARTITION).await?;
        let after = after.map_or(Ok(0), |place| match place.0.as_slice().try_into() {
            Ok(offset) => Ok(u64::from_be_bytes(offset) + 1),
            Err(_) => Err(Error::new(Kind::Permanent, "this is no place in a dead-letter topic")),
        })?;
        let from = Seq(after).max(bounds.start);
        if from >= bounds.end {
            return Ok(Vec::new());
        }
        let records = self.readers.read(PARTITION, from, bounds.end, max_bytes).await?;
        let found = records.into_iter().map(|record| Found {
            place: Place(record.seq.0.to_be_bytes().to_vec()),
            buried_ms: record.append_ms,
            letter: match record.damage {
                Some(damage) => Err(damage),
                None => DeadLetter::decode(record.payload),
            },
        });
        Ok(found.collect())
    }
}
