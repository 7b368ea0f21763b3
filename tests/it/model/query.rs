//! A query that loads an entry of the hot view: as `query` does it, step by step, with the world going on in between.

use std::{collections::BTreeMap, sync::Arc};

use tallymark::{
    hot::{HotKey, HotKind, HotView as _, LoadedBase},
    item::{Lane, Namespace, Seq, SeriesRef, Shard, series_hash},
    log::Log as _,
    store::{EpochRow, Ledger as _, RowName, ShardKey, Totals as _},
};

use super::{hot, log::Opened, store::Client};

/// What a query process has open.
pub struct Query {
    pub log: Opened,
    pub store: Client,
    pub hot: hot::Client,
}

/// Where the rows of an entry are.
fn places(key: &HotKey, epochs: &[EpochRow]) -> Vec<(ShardKey, RowName, Lane)> {
    let series = SeriesRef::from_key(&key.key).expect("a key of the world's");
    let namespace = Namespace::parse(series.namespace).expect("a namespace of the world's");
    let name = RowName { counter: series.counter.into(), tags: series.tags.into() };
    let mut places = Vec::new();
    for EpochRow { epoch, topic_id, partitions, shards, .. } in epochs {
        let shards = match key.kind {
            HotKind::Series => vec![Shard::of(series_hash(&key.key), *shards)],
            HotKind::Counter => (0..*partitions).map(Shard::reserved).collect(),
        };
        for shard in shards {
            let lane = Lane { topic_id: *topic_id, partition: shard.partition(*partitions) };
            places.push((ShardKey { namespace: namespace.clone(), shard, epoch: *epoch }, name.clone(), lane));
        }
    }
    places
}

impl Query {
    /// Loads an entry; nothing comes of it when anything fails on the way.
    pub async fn load(self: Arc<Self>, key: HotKey) -> Option<bool> {
        let token = self.hot.begin_load(&key).await.ok()?;
        let topic_id = self.log.topology().topic_id;
        let mut ends = Vec::new();
        for partition in 0..self.log.partitions() {
            ends.push((Lane { topic_id, partition }, self.log.bounds(partition).await.ok()?.end));
        }
        let lanes = self.store.lanes("").await.ok()?;
        let stored: BTreeMap<Lane, Seq> = lanes.iter().filter_map(|row| Some((row.lane, row.stored?))).collect();
        let epochs = self.store.epochs("").await.ok()?;
        let mut bases: BTreeMap<Lane, Option<(i128, Seq)>> = BTreeMap::new();
        for (shard, name, lane) in places(&key, &epochs) {
            let row = self.store.totals_named(&shard, &[name]).await.ok()?.pop().flatten();
            let base = bases.entry(lane).or_insert_with(|| stored.get(&lane).map(|stored| (0, *stored)));
            if let Some(row) = row {
                let (total, seq) = base.unwrap_or((0, row.seq));
                *base = Some((total + row.total, seq.max(row.seq)));
            }
        }
        let bases: Vec<_> = bases.into_iter().map(|(lane, base)| LoadedBase { lane, base }).collect();
        ends.retain(|(lane, end)| end.0 > 0 && stored.get(lane).is_none_or(|stored| stored.next() < *end));
        self.hot.finish_load(&key, token, &bases, &ends).await.ok()
    }
}
