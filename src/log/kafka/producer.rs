//! Appending: an idempotent producer that answers when every in-sync replica has the record (L1).
//!
//! What is handed over and not answered is bounded by bytes: at the bound an append waits, and past the deadline it is
//! refused, certainly not appended. The deadline is ours: with all brokers away the library's own came seconds late.
//! A record whose deadline has passed may still be appended later; the answer says that it is unknown.
//!
//! A broker works on one request of a connection at a time, and the library puts one partition into a request. So there
//! are several producers with a connection each, `log.connections`, and every partition belongs to one of them
//! (`docs/decisions/0010-what-a-pack-costs-kafka.md`).
//!
//! An idempotent producer that cannot prove any more that nothing is doubled ends with a fatal error. Then a new one takes
//! its place: a record doubled in between carries the same pack id, and the lanes drop it (law 7).

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use rdkafka::{
    client::ClientContext,
    config::RDKafkaLogLevel,
    error::KafkaError,
    message::{DeliveryResult, Header, Message as _, OwnedHeaders, Timestamp},
    producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer},
    types::RDKafkaErrorCode,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, timeout_at},
};

use super::{
    super::{Appended, Error},
    assigned::{self, Assigned},
    chatter::Context,
    closing::Closing,
    connection::Connection,
    errors,
    record::FORMAT_HEADER,
};
use crate::{clock, item::Seq, retry::Kind, units::Span};

/// Bytes are counted in permits of this size.
const PERMIT_BYTES: usize = 1 << 10;

/// What waits for the answer to one record. Its share of the bound is given back when the library lets go of the record,
/// which may be after whoever waited has gone.
pub(super) struct Waiting {
    answer: oneshot::Sender<Result<Appended, RDKafkaErrorCode>>,
    _permit: OwnedSemaphorePermit,
}

pub(super) struct Delivery {
    chatter: Context,
    assigned: Arc<Assigned>,
}

impl ClientContext for Delivery {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.chatter.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.chatter.error(error, reason);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.assigned.note(statistics);
    }
}

impl ProducerContext for Delivery {
    type DeliveryOpaque = Box<Waiting>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Box<Waiting>) {
        let answer = match result {
            Ok(message) => Ok(Appended {
                // The answer to a repeated request says only that the record is there.
                seq: u64::try_from(message.offset()).ok().map(Seq),
                append_ms: match message.timestamp() {
                    Timestamp::LogAppendTime(ms) => ms,
                    // The log's clock was not told: ours stands in, which only a measure of the two clocks looks at.
                    Timestamp::CreateTime(_) | Timestamp::NotAvailable => clock::now_ms(),
                },
            }),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)),
        };
        // Whoever waited may have passed its deadline.
        let _ = waiting.answer.send(answer);
    }
}

type Client = ThreadedProducer<Delivery>;

/// What a process appends with.
pub(super) struct Producer {
    making: Making,
    queued: Arc<Semaphore>,
    /// Permits of the whole bound.
    permits: u32,
    /// Partition `p` is appended to by number `p % len`.
    members: Vec<Member>,
    closing: Closing,
}

/// How a producer is made.
struct Making {
    connection: Connection,
    max_record: usize,
    deadline: Duration,
}

/// One producer, and whoever takes its place.
struct Member {
    current: RwLock<Arc<Client>>,
    /// Whether the first one has its id.
    assigned: Arc<Assigned>,
    /// Held while a new producer takes the place of one that has failed.
    replacing: Mutex<()>,
}

impl Producer {
    /// Makes the producers. `max_record` is the largest record that the topic takes, `buffer` how many bytes may be under
    /// way in all of them.
    pub(super) fn new(
        connection: Connection,
        connections: usize,
        max_record: usize,
        buffer: usize,
        deadline: Duration,
        closing: Closing,
    ) -> Result<Self, Error> {
        let permits = u32::try_from((buffer / PERMIT_BYTES).max(1)).unwrap_or(u32::MAX);
        let making = Making { connection, max_record, deadline };
        let members = (0..connections.max(1)).map(|_| Member::new(&making)).collect::<Result<_, _>>()?;
        Ok(Self { making, queued: Arc::new(Semaphore::new(permits as usize)), permits, members, closing })
    }

    /// Connects to every broker, learns the topic's leaders and waits until every producer may write, so that the first
    /// append waits for none of it. Blocks.
    pub(super) fn warm_up(&self) -> Result<(), Error> {
        let Connection { topic, timeout, .. } = &self.making.connection;
        for member in &self.members {
            let metadata = member.client().client().fetch_metadata(Some(topic), *timeout);
            metadata.map_err(|error| errors::of("the topic's leaders cannot be learnt", error))?;
        }
        if self.members.iter().all(|member| member.assigned.wait(*timeout)) {
            return Ok(());
        }
        let why = format!("the brokers gave the producer no id within {}: have they a controller?", Span(*timeout));
        Err(Error::new(Kind::Transient, why))
    }

    fn member(&self, partition: i32) -> &Member {
        let number = usize::try_from(partition).unwrap_or(0);
        &self.members[number % self.members.len()]
    }

    /// Appends one record, with a key or without; see the module.
    pub(super) async fn append(
        &self,
        partition: i32,
        format: u32,
        key: Option<&[u8]>,
        payload: Bytes,
    ) -> Result<Appended, Error> {
        let Making { connection, deadline, .. } = &self.making;
        let until = Instant::now() + *deadline;
        // A record larger than the bound is taken alone; the topic's limit is the library's to check.
        let permits = u32::try_from(payload.len().div_ceil(PERMIT_BYTES).max(1)).unwrap_or(u32::MAX);
        let permit = match timeout_at(until, self.queued.clone().acquire_many_owned(permits.min(self.permits))).await {
            Ok(permit) => permit.map_err(|_| Error::new(Kind::Permanent, "the log is closed: not appended"))?,
            Err(_) => return Err(errors::of_enqueue(RDKafkaErrorCode::QueueFull)),
        };
        let (answer, answered) = oneshot::channel();
        self.send((partition, format, key), &payload, Box::new(Waiting { answer, _permit: permit }))?;
        drop(payload);
        match timeout_at(until, answered).await {
            Ok(Ok(Ok(appended))) => Ok(appended),
            Ok(Ok(Err(code))) => {
                let member = self.member(partition);
                self.mend(member, &member.client());
                Err(errors::of_append(code))
            }
            Ok(Err(_)) => {
                Err(Error::new(Kind::Transient, "it is unknown whether the pack was appended: the producer ended"))
            }
            Err(_) => Err(Error::new(
                Kind::Transient,
                format!(
                    "it is unknown whether the pack was appended: no acknowledgement from {} within {} (log.append_timeout)",
                    connection.brokers,
                    Span(*deadline)
                ),
            )),
        }
    }

    fn send(
        &self,
        (partition, format, key): (i32, u32, Option<&[u8]>),
        payload: &Bytes,
        mut waiting: Box<Waiting>,
    ) -> Result<(), Error> {
        let (text, member) = (format.to_string(), self.member(partition));
        for again in [true, false] {
            let client = member.client();
            let headers = OwnedHeaders::new_with_capacity(1).insert(Header { key: FORMAT_HEADER, value: Some(&text) });
            let mut record: BaseRecord<'_, [u8], [u8], Box<Waiting>> =
                BaseRecord::with_opaque_to(&self.making.connection.topic, waiting)
                    .partition(partition)
                    .payload(&payload[..])
                    .headers(headers);
            if let Some(key) = key {
                record = record.key(key);
            }
            let (error, record) = match client.send(record) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
            if !(again && self.mend(member, &client)) {
                return Err(errors::of_enqueue(code));
            }
            waiting = record.delivery_opaque;
        }
        Err(errors::of_enqueue(RDKafkaErrorCode::Fatal))
    }

    /// Puts a new producer in the place of `failed`, if that has failed for good. Whether there is a new one.
    fn mend(&self, member: &Member, failed: &Arc<Client>) -> bool {
        let Some((code, why)) = failed.client().fatal_error() else { return false };
        let _replacing = member.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(failed, &member.client()) {
            return true;
        }
        tracing::warn!(code = %code, reason = why, "the producer has failed for good; a new one takes its place");
        match self.making.client(Arc::default()) {
            Ok(new) => {
                let mut current = member.current.write().unwrap_or_else(PoisonError::into_inner);
                let old = std::mem::replace(&mut *current, Arc::new(new));
                // Dropping it takes a while.
                self.closing.run(move || drop(old));
                true
            }
            Err(error) => {
                tracing::error!(error = %error, "no new producer could be made");
                false
            }
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.queued.close();
        for member in self.members.drain(..) {
            self.closing.run(move || drop(member));
        }
    }
}

impl Member {
    fn new(making: &Making) -> Result<Self, Error> {
        let assigned = Arc::<Assigned>::default();
        let current = RwLock::new(Arc::new(making.client(assigned.clone())?));
        Ok(Self { current, assigned, replacing: Mutex::default() })
    }

    fn client(&self) -> Arc<Client> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Making {
    fn client(&self, assigned: Arc<Assigned>) -> Result<Client, Error> {
        let max_record = self.max_record.clamp(1_000, 1_000_000_000).to_string();
        let deadline_ms = self.deadline.as_millis().clamp(1, 2_147_483_647).to_string();
        let settings = [
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("linger.ms", "0"),
            ("message.timeout.ms", &deadline_ms),
            ("message.max.bytes", &max_record),
            // Connected before the first record, see `warm_up`.
            ("enable.sparse.connections", "false"),
            // The bound is ours; the library's own must not be met before it.
            ("queue.buffering.max.messages", "1000000"),
            ("queue.buffering.max.kbytes", "2097151"),
            ("statistics.interval.ms", assigned::INTERVAL_MS),
        ];
        self.connection.client(&settings, Delivery { chatter: self.connection.context(), assigned })
    }
}
