//! What a lane has of a hot entry in all: the sum over the layouts of its log.
//!
//! After partitions were added a series, and each counter, may have a row of the same lane in more than one epoch. The hot view
//! knows lanes, and no epochs: the base that it is told must be the sum. The flush that publishes has just written its
//! rows, and no later one has begun, so the store's rows are the lane's totals as of the mark. One that is ahead of it, written
//! by another owner, makes the sum nobody's: then the publish is owed until the lane has met it.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{flush::Context, fold::Named};
use crate::{
    hot::HotKind,
    item::{Lane, Seq, Shard, series_hash},
    store::{EpochRow, RowName, ShardKey},
};

/// Reads under way at once.
const READS: usize = 8;

/// Where a lane keeps the rows of an entry: one place for each epoch that puts it into the lane.
fn places<'a>(lane: Lane, epochs: &'a [EpochRow], row: &'a Named) -> impl Iterator<Item = ShardKey> + 'a {
    let placement = series_hash(&row.hot_key().key);
    epochs.iter().filter_map(move |epoch| {
        let shard = match row.role {
            HotKind::Series => Shard::of(placement, epoch.shards),
            HotKind::Counter => Shard::reserved(lane.partition),
        };
        let here = shard.partition(epoch.partitions) == lane.partition && lane.partition < epoch.partitions;
        here.then(|| ShardKey { namespace: row.namespace.clone(), shard, epoch: epoch.epoch })
    })
}

impl Context {
    /// The same rows with the sum over these epochs as of `mark`, and those of which it cannot be said now.
    pub(super) async fn over_epochs(
        &self,
        lane: Lane,
        mark: Seq,
        epochs: &[EpochRow],
        mut rows: Vec<Named>,
    ) -> (Vec<Named>, Vec<Named>) {
        // In order, so that a schedule can be repeated.
        let mut reads: BTreeMap<ShardKey, (Vec<usize>, Vec<RowName>)> = BTreeMap::new();
        for (at, row) in rows.iter().enumerate() {
            for key in places(lane, epochs, row) {
                let (of, names) = reads.entry(key).or_default();
                of.push(at);
                names.push(row.name.clone());
            }
        }
        let read = stream::iter(reads)
            .map(async |(key, (of, names))| {
                Ok::<_, crate::store::Error>((of, self.store.totals_named(&key, &names).await?))
            })
            .buffer_unordered(READS)
            .try_collect::<Vec<_>>()
            .await;
        let found = match read {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(partition = lane.partition, %error, "the store does not say what the hot view is owed");
                return (Vec::new(), rows);
            }
        };
        for row in &mut rows {
            (row.total, row.seq) = (0, Seq(0));
        }
        for (at, total) in found.into_iter().flat_map(|(of, totals)| of.into_iter().zip(totals)) {
            if let Some(total) = total {
                rows[at].total = rows[at].total.saturating_add(total.total);
                rows[at].seq = rows[at].seq.max(total.seq);
            }
        }
        rows.into_iter().partition(|row| row.seq <= mark)
    }
}
