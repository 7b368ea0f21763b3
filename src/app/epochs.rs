//! The first epoch of a log: layout and dedup window, pinned once for every worker (law 2).

use crate::{
    clock,
    config::Config,
    item::Epoch,
    log::Topology,
    store::{self, EpochRow, Store},
};

/// Pins layout and dedup window of a log that nobody has used yet, and answers the shards in force. Done by `topic create`
/// and by every start, whichever comes first. A store that knows another life of the topic is left alone: the lanes halt
/// and say so.
pub async fn begin_first(topology: &Topology, store: &dyn Store, config: &Config) -> Result<u32, store::Error> {
    let epochs = store.epochs(&topology.topic).await?;
    if let Some(epoch) = epochs.iter().rfind(|epoch| epoch.topic_id == topology.topic_id) {
        let settings = (config.store.options.shards, config.dedup.window.as_micros(), config.dedup.max_ids);
        if (epoch.shards, epoch.dedup_window_us, epoch.dedup_max_ids) != settings {
            tracing::warn!(
                shards = epoch.shards,
                dedup_window_us = epoch.dedup_window_us,
                dedup_max_ids = epoch.dedup_max_ids,
                "store.shards or dedup settings differ from those that the log began with; the log's are in force"
            );
        }
        let is_begun =
            |epoch: &EpochRow| epoch.topic_id == topology.topic_id && epoch.partitions == topology.partitions;
        if !epochs.iter().any(is_begun) {
            tracing::error!(
                partitions = topology.partitions,
                begun = epoch.partitions,
                "partitions were added and no epoch has as many; lanes halt at the first pack of this layout until it is begun: \
                 `tallymark lanes begin-epoch`"
            );
        }
        return Ok(epoch.shards);
    }
    let (partitions, shards) = (topology.partitions, config.store.options.shards);
    if epochs.is_empty() {
        let epoch = EpochRow {
            epoch: Epoch::of(topology.topic_id, partitions, shards),
            topic_id: topology.topic_id,
            cluster_id: topology.cluster_id.clone(),
            partitions,
            shards,
            dedup_window_us: config.dedup.window.as_micros(),
            dedup_max_ids: config.dedup.max_ids,
            created_ms: clock::now_ms(),
        };
        tracing::info!(epoch = %epoch.epoch, partitions, shards, "first epoch begun");
        store.begin_epoch(&topology.topic, &epoch).await?;
    }
    // A recreated topic: its epoch will have the shards of the one before (`lanes/plan.rs`), and packs are routed by them now.
    Ok(epochs.last().map_or(shards, |epoch| epoch.shards))
}
