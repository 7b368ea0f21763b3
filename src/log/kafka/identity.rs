//! Whether the topic is still the one that was opened: its id and its partitions, asked at every assignment and every
//! `log.identity_interval`.
//!
//! Kafka does not report a topic that was deleted and made anew to those who have it open: a reader goes on at its offset
//! as soon as the new log is long enough. So a changed id ends every cursor and refuses every append, for good: this
//! process belongs to the old log.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::{Notify, watch};

use super::{
    super::{Error, Topology},
    errors,
    ffi::Described,
    side::Side,
};
use crate::{item::TopicId, retry::Kind};

/// A topic counts as gone when it was missing so often in a row: a broker that has just come back may not know it yet.
const MISSES: u32 = 2;

/// What is known of the topic.
pub(super) struct Identity {
    side: Arc<Side>,
    topology: Topology,
    /// Partitions as of the last look; more than the topology's when some were added.
    partitions: AtomicU32,
    misses: AtomicU32,
    /// Why this is not the log any more that was opened.
    lost: watch::Sender<Option<Arc<str>>>,
    /// Somebody has met something odd.
    poked: Notify,
}

impl Identity {
    pub(super) fn new(side: Arc<Side>, topology: Topology) -> Self {
        Self {
            side,
            partitions: AtomicU32::new(topology.partitions),
            topology,
            misses: AtomicU32::new(0),
            lost: watch::Sender::new(None),
            poked: Notify::new(),
        }
    }

    pub(super) fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Partitions that the topic has now.
    pub(super) fn partitions(&self) -> u32 {
        self.partitions.load(Ordering::Relaxed)
    }

    /// Told when the log is lost.
    pub(super) fn watch(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.lost.subscribe()
    }

    /// Why this is not the log any more that was opened, as an error of this kind.
    pub(super) fn lost(&self, kind: Kind) -> Option<Error> {
        self.lost.borrow().as_deref().map(|why| Error::new(kind, why))
    }

    /// Something is odd: look soon.
    pub(super) fn poke(&self) {
        self.poked.notify_one();
    }

    /// Looks now.
    pub(super) async fn look(&self) -> Result<(), Error> {
        let described = self.side.describe().await;
        self.judge(described)
    }

    fn judge(&self, described: Result<Described, RDKafkaErrorCode>) -> Result<(), Error> {
        let Topology { topic, topic_id, partitions, .. } = &self.topology;
        let described = match described {
            Ok(described) => described,
            Err(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                let why = format!(
                    "the topic `{topic}` is gone: it was deleted; restore it, or make a new one with `tallymark topic \
                     create` and begin a new log epoch with `tallymark lanes begin-epoch`"
                );
                if self.misses.fetch_add(1, Ordering::Relaxed) + 1 >= MISSES {
                    self.lose(&why);
                }
                return Err(Error::new(Kind::Fatal, why));
            }
            Err(code) => return Err(errors::of_code("the topic's id cannot be asked for", code)),
        };
        self.misses.store(0, Ordering::Relaxed);
        if described.topic_id != topic_id.0 {
            let found = TopicId(described.topic_id);
            let why = format!(
                "the topic `{topic}` was deleted and made anew: it was {topic_id}, it is {found}; begin a new log epoch \
                 with `tallymark lanes begin-epoch`, or point log.url to the old log"
            );
            self.lose(&why);
            return Err(Error::new(Kind::Fatal, why));
        }
        // It is the same log, and takes what is appended to its old partitions: whoever asks is told of the new ones.
        if self.partitions.swap(described.partitions, Ordering::Relaxed) != described.partitions {
            tracing::error!(partitions = described.partitions, had = partitions, "{PARTITIONS_CHANGED}");
        }
        Ok(())
    }

    fn lose(&self, why: &str) {
        self.lost.send_if_modified(|lost| {
            let news = lost.is_none();
            if news {
                tracing::error!(reason = why, "the log is not the one that was opened");
                *lost = Some(why.into());
            }
            news
        });
    }

    /// Looks every `interval`, and when it is poked, for as long as it is let.
    pub(super) async fn run(&self, interval: Duration) {
        let mut failing = false;
        loop {
            // A look that was poked must not become a loop of looks.
            tokio::time::sleep(interval.min(POKED)).await;
            let _ = tokio::time::timeout(interval.saturating_sub(POKED), self.poked.notified()).await;
            match self.look().await {
                Err(error) if error.kind == Kind::Transient && !failing => {
                    failing = true;
                    tracing::warn!(error = %error, "the log's identity cannot be checked");
                }
                Err(_) => {}
                Ok(()) => failing = false,
            }
        }
    }
}

/// Between two looks at least.
const POKED: Duration = Duration::from_millis(250);

const PARTITIONS_CHANGED: &str = "the topic's partitions have changed; lanes halt at the first pack of the new layout until its epoch is begun: `tallymark lanes begin-epoch`";
