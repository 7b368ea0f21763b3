//! Where the store keeps the rows of counters and series: in every epoch of the topic, under that epoch's own layout.

use std::sync::Arc;

use super::Inner;
use crate::{
    item::{Lane, Namespace, Shard, TopicId},
    store::{self, EpochRow, RowName, ShardKey},
};

/// A place that may hold a row, and the lane that writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) key: ShardKey,
    pub(super) lane: Lane,
}

/// The epochs of the topic.
pub(super) struct Layout(Vec<EpochRow>);

impl Inner {
    /// Reads the layout. It seldom changes, but nobody says when.
    pub(super) async fn layout(&self) -> Result<Layout, store::Error> {
        self.store.epochs(&self.log.topology().topic).await.map(Layout)
    }
}

impl Layout {
    fn places(&self, namespace: &Namespace, shards: impl Fn(&EpochRow) -> Vec<Shard>) -> Vec<Place> {
        let mut places = Vec::new();
        for row in &self.0 {
            places.extend(shards(row).into_iter().map(|shard| Place {
                key: ShardKey { namespace: namespace.clone(), shard, epoch: row.epoch },
                lane: Lane { topic_id: row.topic_id, partition: shard.partition(row.partitions) },
            }));
        }
        places
    }

    /// The partitions that a life of the topic had at most; `None` for one that the store does not know.
    pub(super) fn partitions_of(&self, topic_id: TopicId) -> Option<u32> {
        self.0.iter().filter(|row| row.topic_id == topic_id).map(|row| row.partitions).max()
    }

    /// Where the rows of whole counters are: in the reserved shard of every lane.
    pub(super) fn of_counters(&self, namespace: &Namespace) -> Vec<Place> {
        self.places(namespace, |row| (0..row.partitions).map(Shard::reserved).collect())
    }

    /// Every shard that may hold series.
    pub(super) fn shards(&self, namespace: &Namespace) -> Vec<ShardKey> {
        let all = self
            .places(namespace, |row| (0..row.shards).map(|shard| Shard::of(u64::from(shard), row.shards)).collect());
        all.into_iter().map(|place| place.key).collect()
    }
}

/// The name of a counter's whole-counter row.
pub(super) fn counter_row(counter: &str) -> RowName {
    RowName { counter: counter.into(), tags: Arc::default() }
}
