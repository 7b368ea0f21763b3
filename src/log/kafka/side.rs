//! Questions beside the data: how far a partition reaches, what the topic is, whether it takes appends.
//!
//! One client for all of them. The calls block, so they run on the runtime's blocking threads, each within
//! `log.request_timeout`; bounds that are asked for while a question is under way share the next one: two requests per
//! broker, however many partitions are meant and however many ask.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    types::RDKafkaErrorCode,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
};

use super::{
    super::{Bounds, Error},
    chatter::Context,
    closing::Closing,
    connection::Connection,
    errors,
    ffi::{self, Described},
};
use crate::{item::Seq, retry::Kind};

/// Questions that may wait; whoever comes later waits to ask.
const QUEUE: usize = 256;
/// How often the client's log lines are fetched while nobody asks anything.
const IDLE: Duration = Duration::from_secs(1);

/// Log lines that are passed on after a question.
const LINES: usize = 16;

/// What was found of some partitions.
type Found = Vec<(u32, Result<Bounds, Error>)>;

type Asked = (u32, oneshot::Sender<Result<Bounds, Error>>);

/// The client for questions.
pub(super) struct Side {
    connection: Connection,
    closing: Closing,
    /// Taken only when this is dropped.
    client: Option<Arc<BaseConsumer<Context>>>,
}

impl Drop for Side {
    fn drop(&mut self) {
        let client = self.client.take();
        self.closing.run(move || drop(client));
    }
}

/// How a topic's partitions are led and replicated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Brokers of the cluster.
    pub brokers: usize,
    /// Copies of the partition that has the fewest.
    pub replication: usize,
    /// Partitions that nobody leads.
    pub leaderless: Vec<i32>,
    /// The partition with the fewest copies in sync, and how many those are.
    pub least_in_sync: Option<(i32, usize)>,
}

impl Side {
    pub(super) fn new(connection: Connection, closing: Closing) -> Result<Self, Error> {
        // Without a group: it only asks.
        let settings = [("isolation.level", "read_uncommitted"), ("enable.sparse.connections", "true")];
        let client = connection.client(&settings, connection.context())?;
        Ok(Self { connection, closing, client: Some(Arc::new(client)) })
    }

    /// The same client, for questions about another topic.
    pub(super) fn about(&self, topic: String) -> Self {
        let connection = self.connection.about(topic);
        Self { connection, closing: self.closing.clone(), client: self.client.clone() }
    }

    fn client(&self) -> &BaseConsumer<Context> {
        self.client.as_ref().expect("taken only when this is dropped")
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The topic's id and partitions.
    pub(super) async fn describe(self: &Arc<Self>) -> Result<Described, RDKafkaErrorCode> {
        self.blocking(|side| ffi::describe(side.client().client(), &side.connection.topic, side.connection.timeout))
            .await
            .unwrap_or(Err(RDKafkaErrorCode::OperationTimedOut))
    }

    /// The cluster's name for itself.
    pub(super) async fn cluster_id(self: &Arc<Self>) -> Option<String> {
        self.blocking(|side| side.client().client().fetch_cluster_id(side.connection.timeout)).await.flatten()
    }

    /// Who leads and follows; the topic must be there.
    pub(super) async fn layout(self: &Arc<Self>, timeout: Duration) -> Result<Layout, Error> {
        let asked = self.blocking(move |side| {
            let topic = &side.connection.topic;
            let metadata = side.client().fetch_metadata(Some(topic), timeout)?;
            let mut layout = Layout { brokers: metadata.brokers().len(), ..Layout::default() };
            let partitions = metadata.topics().iter().find(|found| found.name() == topic);
            for partition in partitions.map_or(&[][..], |topic| topic.partitions()) {
                if partition.leader() < 0 {
                    layout.leaderless.push(partition.id());
                }
                let copies = partition.replicas().len();
                layout.replication = if layout.replication == 0 { copies } else { layout.replication.min(copies) };
                let in_sync = partition.isr().len();
                if layout.least_in_sync.is_none_or(|(_, least)| in_sync < least) {
                    layout.least_in_sync = Some((partition.id(), in_sync));
                }
            }
            Ok(layout)
        });
        match asked.await {
            Some(answer) => answer.map_err(|error| {
                let brokers = &self.connection.brokers;
                errors::of(&format!("no answer from Kafka at {brokers}"), error)
            }),
            None => Err(Error::new(Kind::Transient, "the question was broken off")),
        }
    }

    /// The bounds of one partition, for whoever asks seldom.
    pub(super) async fn bounds_of(self: &Arc<Self>, partition: u32) -> Result<Bounds, Error> {
        let asked = self.blocking(move |side| side.bounds(&BTreeSet::from([partition]))).await;
        let broken = || Error::new(Kind::Transient, "the question was broken off");
        asked.ok_or_else(broken)??.pop().map_or_else(|| Err(broken()), |(_, bounds)| bounds)
    }

    async fn blocking<T: Send + 'static>(self: &Arc<Self>, ask: impl FnOnce(&Self) -> T + Send + 'static) -> Option<T> {
        let side = self.clone();
        spawn_blocking(move || {
            let answer = ask(&side);
            side.drain();
            answer
        })
        .await
        .ok()
    }

    /// Passes on what the client has logged: nobody else polls it.
    fn drain(&self) {
        // A line a poll, and no telling whether there was one.
        for _ in 0..LINES {
            self.client().poll(Duration::ZERO);
        }
    }

    /// The bounds of some partitions: one question for the starts, one for the ends.
    fn bounds(&self, partitions: &BTreeSet<u32>) -> Result<Found, Error> {
        let topic = &self.connection.topic;
        let ask = |offset: Offset| {
            let mut list = TopicPartitionList::with_capacity(partitions.len());
            for partition in partitions {
                // Instead of a time, the two special values that mean the log's ends.
                let mut element = list.add_partition(topic, i32::try_from(*partition).unwrap_or(i32::MAX));
                element.set_offset(offset)?;
            }
            self.client().offsets_for_times(list, self.connection.timeout)
        };
        let failed = |error| errors::of(&format!("the bounds of the topic `{topic}` cannot be asked for"), error);
        let starts = ask(Offset::Beginning).map_err(failed)?;
        let ends = ask(Offset::End).map_err(failed)?;
        let found = partitions.iter().map(|partition| {
            let of = |list: &TopicPartitionList| {
                let element = list.find_partition(topic, i32::try_from(*partition).unwrap_or(i32::MAX));
                let element = element
                    .ok_or_else(|| Error::new(Kind::Transient, format!("no answer about partition {partition}")))?;
                element.error().map_err(failed)?;
                match element.offset() {
                    Offset::Offset(offset) => Ok(Seq(u64::try_from(offset).unwrap_or(0))),
                    other => Err(Error::new(
                        Kind::Transient,
                        format!("the bounds of partition {partition} are not known yet ({other:?})"),
                    )),
                }
            };
            let bounds = (|| {
                let (start, end) = (of(&starts)?, of(&ends)?);
                // Retention may have removed an empty log's last record in between.
                Ok(Bounds { start, end: end.max(start) })
            })();
            (*partition, bounds)
        });
        Ok(found.collect())
    }
}

/// Asks for bounds.
#[derive(Clone)]
pub(super) struct Asking(mpsc::Sender<Asked>);

impl Asking {
    /// The handle, and what answers it: to be run by whoever owns the side.
    pub(super) fn new(side: Arc<Side>) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (asking, questions) = mpsc::channel(QUEUE);
        (Self(asking), answer(side, questions))
    }

    pub(super) async fn bounds(&self, partition: u32) -> Result<Bounds, Error> {
        let broken = || Error::new(Kind::Transient, "the log is closing");
        let (answer, answered) = oneshot::channel();
        self.0.send((partition, answer)).await.map_err(|_| broken())?;
        answered.await.unwrap_or_else(|_| Err(broken()))
    }
}

async fn answer(side: Arc<Side>, mut questions: mpsc::Receiver<Asked>) {
    let mut asked = Vec::new();
    loop {
        match tokio::time::timeout(IDLE, questions.recv_many(&mut asked, QUEUE)).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(_) => {
                side.blocking(|_| ()).await;
                continue;
            }
        }
        let partitions: BTreeSet<u32> = asked.iter().map(|(partition, _)| *partition).collect();
        let answers = side.blocking(move |side| one_by_one(side, &partitions)).await.unwrap_or_default();
        for (partition, answer) in asked.drain(..) {
            let bounds = answers.iter().find(|(answered, _)| *answered == partition).map(|(_, bounds)| match bounds {
                Ok(bounds) => Ok(*bounds),
                Err(error) => Err(Error::new(error.kind, &error.message)),
            });
            // Whoever asked may have stopped waiting.
            let _ =
                answer.send(bounds.unwrap_or_else(|| Err(Error::new(Kind::Transient, "the question was broken off"))));
        }
    }
}

/// All at once, or, when that fails as a whole, each by itself: one partition that nobody leads must not hide the others.
fn one_by_one(side: &Side, partitions: &BTreeSet<u32>) -> Found {
    let failed = match side.bounds(partitions) {
        Ok(found) => return found,
        Err(failed) => failed,
    };
    let Ok(metadata) = side.client().fetch_metadata(Some(&side.connection.topic), side.connection.timeout) else {
        let error = || Error::new(failed.kind, &failed.message);
        return partitions.iter().map(|partition| (*partition, Err(error()))).collect();
    };
    let led: BTreeSet<u32> = metadata
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions())
        .filter(|partition| partition.leader() >= 0)
        .filter_map(|partition| u32::try_from(partition.id()).ok())
        .filter(|partition| partitions.contains(partition))
        .collect();
    let mut found = match led.len() {
        0 => Vec::new(),
        _ => side.bounds(&led).unwrap_or_default(),
    };
    let known: BTreeSet<u32> = found.iter().map(|(partition, _)| *partition).collect();
    found.extend(partitions.difference(&known).map(|partition| {
        let what = if led.contains(partition) { &failed.message } else { "nobody leads the partition now" };
        (*partition, Err(Error::new(failed.kind, format!("partition {partition}: {what}"))))
    }));
    found
}
