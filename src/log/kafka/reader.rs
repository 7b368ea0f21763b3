//! Reads of one partition at a time, outside of the group: what resuming, checking and recounting a lane need.
//!
//! A reader is a client of its own with one partition assigned, so that whatever goes wrong is about that partition. It is
//! kept for a while after a read and goes on where it stopped, when the next read begins there. A few at a time, on the
//! runtime's blocking threads.
//!
//! A batch that fails its checksum is delivered all the same (L5): its records are fetched once more, unchecked, one by
//! one, and marked as damaged.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rdkafka::{
    Message as _,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    types::RDKafkaErrorCode,
};
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::{
    super::{Error, Record},
    chatter::Context,
    closing::Closing,
    connection::Connection,
    errors,
    fetcher::{READS, position},
    record,
};
use crate::{item::Seq, retry::Kind, units::Span};

/// Readers at work at once.
const AT_ONCE: usize = 4;
/// A reader that nobody has used for so long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// One look at the client.
const POLL: Duration = Duration::from_millis(100);

/// A client and where it stands.
struct Reader {
    client: BaseConsumer<Context>,
    topic: String,
    /// The partition that is assigned, and the offset that it delivers next.
    at: Option<(u32, u64)>,
    used: Instant,
}

/// The readers of a log.
pub(super) struct Readers {
    connection: Connection,
    closing: Closing,
    permits: Semaphore,
    idle: Mutex<Vec<Reader>>,
}

/// What to read.
#[derive(Clone, Copy)]
struct Wanted {
    partition: u32,
    from: u64,
    /// One past the last that may be waited for.
    end: u64,
    max_bytes: usize,
}

impl Readers {
    pub(super) fn new(connection: Connection, closing: Closing) -> Self {
        Self { connection, closing, permits: Semaphore::new(AT_ONCE), idle: Mutex::default() }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Reader>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records of `[from, end)`, which must be there: at least one, and about `max_bytes` at most.
    pub(super) async fn read(
        &self,
        partition: u32,
        from: Seq,
        end: Seq,
        max_bytes: usize,
    ) -> Result<Vec<Record>, Error> {
        let broken = || Error::new(Kind::Transient, "the read was broken off");
        let permit = self.permits.acquire().await.map_err(|_| broken())?;
        let known = {
            let mut idle = self.idle();
            let same = idle.iter().position(|reader| reader.at == Some((partition, from.0)));
            // One that goes on where it stopped, or else the one that has rested longest.
            same.or_else(|| (!idle.is_empty()).then_some(0)).map(|index| idle.remove(index))
        };
        let (connection, wanted) = (self.connection.clone(), Wanted { partition, from: from.0, end: end.0, max_bytes });
        let reading = spawn_blocking(move || {
            let mut reader = match known {
                Some(reader) => reader,
                None => Reader::new(&connection)?,
            };
            let read = reader.read(&connection, wanted);
            if read.is_err() {
                reader.at = None;
            }
            reader.used = Instant::now();
            Ok((reader, read))
        });
        let (reader, read) = reading.await.map_err(|_| broken())??;
        self.idle().push(reader);
        drop(permit);
        read
    }

    /// Closes what nobody has used for a while.
    pub(super) fn tidy(&self) {
        let now = Instant::now();
        let old: Vec<Reader> = self.idle().extract_if(.., |reader| now.duration_since(reader.used) > IDLE).collect();
        if !old.is_empty() {
            self.closing.run(move || drop(old));
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        let readers = std::mem::take(&mut *self.idle());
        if !readers.is_empty() {
            self.closing.run(move || drop(readers));
        }
    }
}

impl Reader {
    fn new(connection: &Connection) -> Result<Self, Error> {
        Self::checking(connection, true)
    }

    fn checking(connection: &Connection, checks: bool) -> Result<Self, Error> {
        let mut settings: BTreeMap<&str, &str> = READS.iter().copied().collect();
        settings.extend([
            ("group.id", connection.group.as_str()),
            ("check.crcs", if checks { "true" } else { "false" }),
            // What it reads ahead; it stops there by itself while nobody polls.
            ("queued.max.messages.kbytes", "8192"),
            ("fetch.queue.backoff.ms", "5"),
        ]);
        let settings: Vec<(&str, &str)> = settings.into_iter().collect();
        let client = connection.client(&settings, connection.context())?;
        Ok(Self { client, topic: connection.topic.clone(), at: None, used: Instant::now() })
    }

    fn go_to(&mut self, partition: u32, from: u64) -> Result<(), Error> {
        if self.at == Some((partition, from)) {
            return Ok(());
        }
        self.at = None;
        let list = position(&self.topic, partition, from, None)?;
        let assigned = self.client.unassign().and_then(|()| self.client.assign(&list));
        assigned.map_err(|error| errors::of(&format!("partition {partition} cannot be read from {from}"), error))?;
        self.at = Some((partition, from));
        Ok(())
    }

    fn read(&mut self, connection: &Connection, wanted: Wanted) -> Result<Vec<Record>, Error> {
        let Wanted { partition, from, end, max_bytes } = wanted;
        self.go_to(partition, from)?;
        let until = Instant::now() + connection.timeout;
        let (mut records, mut bytes, mut next) = (Vec::<Record>::new(), 0, from);
        let mut unchecked = None;
        let mut met = None;
        while next < end && (bytes < max_bytes || records.is_empty()) {
            let record = match self.client.poll(POLL) {
                Some(Ok(message)) => {
                    let here = message.partition() == i32::try_from(partition).unwrap_or(-1);
                    let record = record::of(&message);
                    // What the assignment before left behind.
                    if !here || record.seq.0 < next {
                        continue;
                    }
                    record
                }
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::BadMessage | RDKafkaErrorCode::InvalidMessage) => {
                        let reader = match &mut unchecked {
                            Some(reader) => reader,
                            None => unchecked.insert(Self::checking(connection, false)?),
                        };
                        let damaged = reader.damaged(connection, partition, next)?;
                        // The checked reader goes on behind it.
                        self.go_to(partition, next + 1)?;
                        damaged
                    }
                    Some(
                        code @ (RDKafkaErrorCode::AutoOffsetReset
                        | RDKafkaErrorCode::OffsetOutOfRange
                        | RDKafkaErrorCode::LogTruncation),
                    ) => return Err(Error::gone(format!("partition {partition} cannot be read at {next}: {code}"))),
                    Some(code) if errors::kind(code) == Kind::Fatal => {
                        return Err(errors::of_code(&format!("partition {partition} cannot be read"), code));
                    }
                    _ => {
                        met = Some(error);
                        continue;
                    }
                },
                None if Instant::now() < until => continue,
                // What there is, is there in order: the rest comes with the next read.
                None if !records.is_empty() => break,
                None => return Err(late(connection, partition, next, met)),
            };
            next = record.seq.0 + 1;
            bytes += record.payload.len();
            records.push(record);
            self.at = Some((partition, next));
        }
        Ok(records)
    }

    /// The record at `seq`, of which it is known that it fails its checksum.
    fn damaged(&mut self, connection: &Connection, partition: u32, seq: u64) -> Result<Record, Error> {
        const DAMAGE: &str = "it fails its checksum: its bytes have changed on the broker's disk";
        self.go_to(partition, seq)?;
        let until = Instant::now() + connection.timeout;
        let mut lost = None;
        while Instant::now() < until {
            match self.client.poll(POLL) {
                Some(Ok(message)) => {
                    let mut record = record::of(&message);
                    if record.seq.0 < seq {
                        continue;
                    }
                    self.at = Some((partition, record.seq.0 + 1));
                    if record.seq.0 == seq {
                        record.damage = Some(DAMAGE.to_owned());
                        return Ok(record);
                    }
                    lost = Some("it cannot even be told from its neighbours".to_owned());
                    break;
                }
                Some(Err(error)) => {
                    if let Some(RDKafkaErrorCode::BadMessage | RDKafkaErrorCode::InvalidMessage) =
                        error.rdkafka_error_code()
                    {
                        lost = Some(error.to_string());
                        break;
                    }
                }
                None => {}
            }
        }
        self.at = None;
        match lost {
            Some(why) => Ok(Record {
                seq: Seq(seq),
                append_ms: 0,
                leader_epoch: None,
                format: 0,
                payload: Bytes::new(),
                damage: Some(format!("{DAMAGE}; {why}")),
            }),
            None => Err(late(connection, partition, seq, None)),
        }
    }
}

fn late(connection: &Connection, partition: u32, next: u64, met: Option<KafkaError>) -> Error {
    let why = met.map(|error| format!(": {error}")).unwrap_or_default();
    Error::new(
        Kind::Transient,
        format!(
            "partition {partition} of `{}` does not answer at {next} within {} (log.request_timeout){why}",
            connection.topic,
            Span(connection.timeout)
        ),
    )
}
