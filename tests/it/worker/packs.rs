//! Packs as ingest would have made them, written by hand.

use bytes::Bytes;
use tallymark::{
    clock,
    item::{Coordinates, IdScope, PackId, Seq, SeriesRef, Shard, TopicId, series_hash},
    pack::{self, Claim, Event, FORMAT, Increments, Pack},
};

/// Shards of every layout, unless a test says otherwise.
pub const SHARDS: u32 = 4;

/// The key bytes of a series written like `visits path=/a`.
pub fn key(series: &str) -> Vec<u8> {
    let (counter, tags) = series.split_once(' ').unwrap_or((series, ""));
    SeriesRef { namespace: "default", counter, tags }.to_key()
}

/// The shard of a series.
pub fn shard(series: &str) -> Shard {
    Shard::of(series_hash(&key(series)), SHARDS)
}

/// Some series of `visits` that belong into this partition.
pub fn series_of(partition: u32, partitions: u32, count: usize) -> Vec<String> {
    let all = (0..).map(|n| format!("visits k={n}"));
    all.filter(|series| shard(series).partition(partitions) == partition).take(count).collect()
}

/// A pack that is being written.
#[derive(Clone)]
pub struct Draft {
    pack: Pack,
    items: Vec<(String, i64, Option<[u8; 16]>)>,
}

/// An empty pack of a log with one partition.
pub fn pack() -> Draft {
    let pack = Pack {
        version: FORMAT,
        id: Bytes::copy_from_slice(&PackId::random().0),
        ingest: Bytes::from_static(&[3; 16]),
        receive_ms: clock::now_ms(),
        partitions: 1,
        shards: SHARDS,
        ..Pack::default()
    };
    Draft { pack, items: Vec::new() }
}

impl Draft {
    /// An increment without an id.
    pub fn add(mut self, series: &str, amount: i64) -> Self {
        self.items.push((series.to_owned(), amount, None));
        self
    }

    /// An increment with an id.
    pub fn once(mut self, series: &str, amount: i64, id: &str) -> Self {
        let id = IdScope::series(&key(series)).id(id.as_bytes());
        self.items.push((series.to_owned(), amount, Some(id.0)));
        self
    }

    /// An event with so many bytes of properties.
    pub fn event(mut self, name: &str, subject: &str, id: &str, bytes: usize) -> Self {
        self.pack.events.push(Event {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            subject: subject.to_owned(),
            time_ms: self.pack.receive_ms,
            id: id.to_owned(),
            properties: format!("{{\"p\":\"{}\"}}", "x".repeat(bytes)).into(),
        });
        self
    }

    /// Somebody waits for it to be stored.
    pub fn urgent(mut self) -> Self {
        self.pack.urgent = true;
        self
    }

    /// Routed by these counts.
    pub fn counts(mut self, partitions: u32, shards: u32) -> Self {
        (self.pack.partitions, self.pack.shards) = (partitions, shards);
        self
    }

    /// Says that the log acknowledged this pack at that offset.
    pub fn claims(mut self, topic_id: TopicId, seq: u64, pack: PackId) -> Self {
        let (topic_id, pack) = (Bytes::copy_from_slice(&topic_id.0), Bytes::copy_from_slice(&pack.0));
        self.pack.claims.push(Claim { topic_id, seq: Seq(seq).0, pack });
        self
    }

    /// Replays the dead letter that stood there.
    pub fn replays(mut self, at: Coordinates) -> Self {
        let topic_id = Bytes::copy_from_slice(&at.lane.topic_id.0);
        self.pack.replayed = Some(pack::Coordinates { topic_id, partition: at.lane.partition, seq: at.seq.0 });
        self
    }

    /// Its own id.
    pub fn id(&self) -> PackId {
        PackId(self.pack.id[..].try_into().unwrap())
    }

    /// The record's bytes.
    pub fn encode(&self) -> Bytes {
        let mut pack = self.pack.clone();
        if self.items.is_empty() {
            return pack.encode_record();
        }
        let mut increments = Increments::default();
        let (mut dictionary, mut keys, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        let (with, without): (Vec<_>, Vec<_>) = self.items.iter().partition(|(.., id)| id.is_some());
        for (series, amount, id) in with.into_iter().chain(without) {
            let index = dictionary.iter().position(|known| *known == series).unwrap_or_else(|| {
                let key = key(series);
                increments.key_lengths.push(key.len() as u32);
                increments.grains.push(0);
                keys.extend(key);
                dictionary.push(series);
                dictionary.len() - 1
            });
            increments.series.push(index as u32);
            increments.amounts.push(*amount);
            increments.times.push(0);
            ids.extend(id.iter().flatten());
        }
        (increments.keys, increments.ids) = (keys.into(), ids.into());
        pack.increments = Some(increments);
        pack.encode_record()
    }
}
