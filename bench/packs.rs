//! Encoded packs of the benchmark's load, for the benches that need no ingest.

use std::collections::HashMap;

use bytes::Bytes;
use tallymark::{
    item::{PackId, SeriesRef},
    pack::{FORMAT, Increments, Pack},
};

use crate::workload::{COUNTER, Random, Series, Zipf};

/// How the increments of a pack are identified.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// Each has a unique id.
    Unique,
    /// None has one, and each stands for itself.
    None,
    /// None has one, and ingest has merged those of one series.
    Merged,
}

/// The key bytes of a series.
pub fn key(series: u32) -> Vec<u8> {
    let series = Series(series);
    let tags = format!(
        "country={},method={},path=/p/{}",
        std::str::from_utf8(&series.country()).expect("letters"),
        std::str::from_utf8(series.method()).expect("letters"),
        std::str::from_utf8(&series.digits()).expect("digits"),
    );
    SeriesRef { namespace: "default", counter: COUNTER, tags: &tags }.to_key()
}

/// Makes packs.
pub struct Packs {
    /// Whence series are drawn.
    pub zipf: Zipf,
    /// Whence everything is drawn.
    pub random: Random,
    /// How they are identified.
    pub ids: Ids,
    /// The counts that route them.
    pub partitions: u32,
    /// See `partitions`.
    pub shards: u32,
    /// Keys by series number, as they are needed.
    keys: HashMap<u32, Vec<u8>>,
}

impl Packs {
    /// Packs of this law.
    pub fn new(zipf: Zipf, ids: Ids, partitions: u32, shards: u32) -> Self {
        Self { zipf, random: Random::new(1), ids, partitions, shards, keys: HashMap::new() }
    }

    /// A pack of `items` increments whose series `accept` lets through.
    pub fn pack(&mut self, items: usize, receive_ms: i64, accept: impl Fn(u32) -> bool) -> Pack {
        let mut increments = Increments::default();
        let (mut keys, mut ids) = (Vec::new(), Vec::new());
        let mut dictionary: HashMap<u32, u32> = HashMap::new();
        let mut left = items;
        while left > 0 {
            let series = self.zipf.draw(&mut self.random);
            if !accept(series) {
                continue;
            }
            left -= 1;
            let next = dictionary.len() as u32;
            let index = *dictionary.entry(series).or_insert(next);
            if index == next {
                let key = self.keys.entry(series).or_insert_with(|| key(series));
                keys.extend_from_slice(key);
                increments.key_lengths.push(key.len() as u32);
                increments.grains.push(6);
            } else if self.ids == Ids::Merged {
                let at = increments.series.iter().position(|at| *at == index).expect("its first is there");
                increments.amounts[at] += 1;
                continue;
            }
            increments.series.push(index);
            increments.amounts.push(1);
            increments.times.push(-((self.random.draw() % 50) as i64));
            if self.ids == Ids::Unique {
                ids.extend_from_slice(&self.random.draw().to_le_bytes());
                ids.extend_from_slice(&self.random.draw().to_le_bytes());
            }
        }
        increments.keys = keys.into();
        increments.ids = ids.into();
        Pack {
            version: FORMAT,
            id: Bytes::copy_from_slice(&PackId::random().0),
            ingest: Bytes::from_static(&[3; 16]),
            receive_ms,
            partitions: self.partitions,
            shards: self.shards,
            increments: Some(increments),
            ..Pack::default()
        }
    }
}
