//! An open pack: columns that grow item by item, and the record that they become.
//!
//! Increments with an id and those without stand in two sets of columns, joined when the pack closes (the format wants
//! those with ids first). Increments without an id are merged per series and finest bucket. The dictionary remembers for
//! each series the scope of its ids, so that the key is hashed once, and the sum that the hot view is told.

use bytes::Bytes;
use hashbrown::HashTable;
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};
use xxhash_rust::xxh3::xxh3_64;

use super::batch::{Batch, Item, Kind, NONE};
use crate::{
    hot::{Delta, HotKey, HotKind},
    item::{Grains, IdScope, PackId},
    pack::{Claim, Increments, Pack},
};

/// Bytes that an increment takes in a record, besides its id: index, amount and time as variable-length integers.
const INCREMENT_BYTES: usize = 8;
/// Bytes that a dictionary entry takes besides its key.
const ENTRY_BYTES: usize = 3;

struct Entry {
    hash: u64,
    start: u32,
    end: u32,
    prefix: u32,
    /// Where the column entry of `bucket` without an id stands; the entries of further buckets are in `Builder::merged`.
    position: u32,
    bucket: i64,
    scope: Option<IdScope>,
    sum: Option<i128>,
}

#[derive(Default)]
struct Columns {
    series: Vec<u32>,
    amounts: Vec<i64>,
    times: Vec<i64>,
}

impl Columns {
    fn push(&mut self, series: u32, amount: i64, time_ms: i64) {
        self.series.push(series);
        self.amounts.push(amount);
        self.times.push(time_ms);
    }
}

/// A pack that items are added to.
pub struct Builder {
    grains: Grains,
    finest_ms: Option<i64>,
    sum: bool,
    keys: Vec<u8>,
    entries: Vec<Entry>,
    dictionary: HashTable<u32>,
    with_id: Columns,
    ids: Vec<u8>,
    without_id: Columns,
    merged: HashTable<u32>,
    events: Vec<u8>,
    event_count: usize,
    increment_count: usize,
    size: usize,
}

/// What a pack says of itself.
#[derive(Clone, Debug)]
pub struct Head {
    /// The format version to write.
    pub format: u32,
    /// Its own random id.
    pub id: PackId,
    /// The ingest process that made it.
    pub ingest: [u8; 16],
    /// When it was closed, in milliseconds since 1970.
    pub receive_ms: i64,
    /// The counts that routed it.
    pub partitions: u32,
    /// The counts that routed it.
    pub shards: u32,
    /// Somebody waits for it to be stored.
    pub urgent: bool,
    /// W3C trace context of one of its requests; empty when none has any.
    pub traceparent: String,
    /// What the log acknowledged since the previous pack.
    pub claims: Vec<Claim>,
}

/// A closed pack.
pub struct Closed {
    /// The record.
    pub payload: Bytes,
    /// Increments that clients sent; the record holds fewer when some were merged.
    pub increments: usize,
    /// Events.
    pub events: usize,
    /// Items of the record.
    pub written: usize,
    keys: Bytes,
    entries: Vec<Entry>,
}

impl Builder {
    /// An empty pack whose increments count into these grains. `sum`: whether deltas for the hot view are wanted.
    pub fn new(grains: Grains, sum: bool) -> Self {
        Self {
            grains,
            finest_ms: grains.finest_ms(),
            sum,
            keys: Vec::new(),
            entries: Vec::new(),
            dictionary: HashTable::new(),
            with_id: Columns::default(),
            ids: Vec::new(),
            without_id: Columns::default(),
            merged: HashTable::new(),
            events: Vec::new(),
            event_count: 0,
            increment_count: 0,
            size: 0,
        }
    }

    /// About how long the record will be, in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Adds every item of a batch, whatever its partition. `hot`: whether the hot view is told of them.
    pub fn add_all(&mut self, batch: &Batch, hot: bool) {
        for item in &batch.items {
            self.add(batch, item, hot);
        }
    }

    pub(super) fn add(&mut self, batch: &Batch, item: &Item, hot: bool) {
        let bytes = |start: u32, end: u32| &batch.arena[start as usize..end as usize];
        match batch.kind {
            Kind::Increment => {
                let key = bytes(item.start, item.key_end);
                let id = bytes(item.key_end, item.end);
                self.add_increment(item, key, Some(id).filter(|id| !id.is_empty()), hot);
            }
            Kind::Event => self.add_event(bytes(item.start, item.end)),
        }
    }

    fn add_increment(&mut self, item: &Item, key: &[u8], id: Option<&[u8]>, hot: bool) {
        let series = self.entry(item, key);
        let entry = &mut self.entries[series as usize];
        self.increment_count += 1;
        if self.sum && hot {
            // A pack holds fewer than 2^64 items, so their sum is far inside an i128.
            entry.sum = Some(entry.sum.unwrap_or(0) + i128::from(item.amount));
        }
        match id {
            Some(id) => {
                let scope = entry.scope.get_or_insert_with(|| IdScope::series(key));
                self.ids.extend_from_slice(&scope.id(id).0);
                self.with_id.push(series, item.amount, item.time_ms);
                self.size += INCREMENT_BYTES + 16;
            }
            None => self.merge(series, item),
        }
    }

    /// The index of the item's series in the dictionary, which it joins if it is new.
    fn entry(&mut self, item: &Item, key: &[u8]) -> u32 {
        let Self { keys, entries, dictionary, .. } = self;
        let found = dictionary.find(item.hash, |index| {
            let entry = &entries[*index as usize];
            entry.hash == item.hash && keys[entry.start as usize..entry.end as usize] == *key
        });
        if let Some(index) = found {
            return *index;
        }
        let index = short(entries.len());
        let start = short(keys.len());
        keys.extend_from_slice(key);
        entries.push(Entry {
            hash: item.hash,
            start,
            end: short(keys.len()),
            prefix: item.prefix,
            position: NONE,
            bucket: 0,
            scope: None,
            sum: None,
        });
        dictionary.insert_unique(item.hash, index, |index| entries[*index as usize].hash);
        self.size += key.len() + ENTRY_BYTES;
        index
    }

    fn merge(&mut self, series: u32, item: &Item) {
        let bucket = self.bucket(item.time_ms);
        let entry = &mut self.entries[series as usize];
        let position = short(self.without_id.series.len());
        let standing = if entry.position == NONE {
            (entry.position, entry.bucket) = (position, bucket);
            None
        } else if entry.bucket == bucket {
            Some(&mut entry.position)
        } else {
            let (columns, finest_ms) = (&self.without_id, self.finest_ms);
            let bucket_at = |at: u32| bucket_of(finest_ms, columns.times[at as usize]);
            let hash = |series: u32, bucket: i64| merge_hash(series, bucket);
            let same = |at: &u32| columns.series[*at as usize] == series && bucket_at(*at) == bucket;
            let rehash = |at: &u32| hash(columns.series[*at as usize], bucket_at(*at));
            match self.merged.entry(hash(series, bucket), same, rehash) {
                hashbrown::hash_table::Entry::Occupied(found) => Some(found.into_mut()),
                hashbrown::hash_table::Entry::Vacant(vacant) => {
                    vacant.insert(position);
                    None
                }
            }
        };
        if let Some(at) = standing {
            let amount = &mut self.without_id.amounts[*at as usize];
            if let Some(sum) = amount.checked_add(item.amount) {
                *amount = sum;
                return;
            }
            // The sum leaves an i64: what comes now is gathered in a column entry of its own.
            *at = position;
        }
        self.without_id.push(series, item.amount, item.time_ms);
        self.size += INCREMENT_BYTES;
    }

    fn bucket(&self, time_ms: i64) -> i64 {
        bucket_of(self.finest_ms, time_ms)
    }

    fn add_event(&mut self, message: &[u8]) {
        let before = self.events.len();
        encode_key(12, WireType::LengthDelimited, &mut self.events);
        encode_varint(message.len() as u64, &mut self.events);
        self.events.extend_from_slice(message);
        self.event_count += 1;
        self.size += self.events.len() - before;
    }

    /// The record. Field for field what `Pack::encode_record` writes, but events are copied as they were laid down.
    pub fn close(self, head: Head) -> Closed {
        let Self { with_id, without_id, .. } = self;
        let Columns { mut series, mut amounts, mut times } = with_id;
        if series.is_empty() {
            (series, amounts, times) = (without_id.series, without_id.amounts, without_id.times);
        } else {
            series.extend_from_slice(&without_id.series);
            amounts.extend_from_slice(&without_id.amounts);
            times.extend_from_slice(&without_id.times);
        }
        for time in &mut times {
            *time -= head.receive_ms;
        }
        let written = series.len() + self.event_count;
        let keys = Bytes::from(self.keys);
        let increments = (!series.is_empty()).then(|| Increments {
            keys: keys.clone(),
            key_lengths: self.entries.iter().map(|entry| entry.end - entry.start).collect(),
            grains: vec![self.grains.0; self.entries.len()],
            series,
            amounts,
            times,
            ids: self.ids.into(),
        });
        let pack = Pack {
            version: head.format,
            id: Bytes::copy_from_slice(&head.id.0),
            ingest: Bytes::copy_from_slice(&head.ingest),
            receive_ms: head.receive_ms,
            partitions: head.partitions,
            shards: head.shards,
            urgent: head.urgent,
            traceparent: head.traceparent,
            claims: head.claims,
            increments,
            ..Pack::default()
        };
        let mut payload = Vec::with_capacity(pack.encoded_len() + self.events.len());
        pack.encode(&mut payload).expect("a Vec grows as far as it must");
        payload.extend_from_slice(&self.events);
        Closed {
            payload: payload.into(),
            increments: self.increment_count,
            events: self.event_count,
            written,
            keys,
            entries: self.entries,
        }
    }
}

impl Closed {
    /// What the hot view is told: the pack's sum for each series, and for each counter over all its series.
    ///
    /// The keys are slices of one buffer of the pack.
    pub fn deltas(&self) -> Vec<Delta> {
        let mut deltas = Vec::with_capacity(self.entries.len() * 2);
        let mut counters: Vec<(Bytes, i128)> = Vec::new();
        let mut by_name: HashTable<usize> = HashTable::new();
        for (entry, sum) in self.entries.iter().filter_map(|entry| Some((entry, entry.sum?))) {
            let key = self.keys.slice(entry.start as usize..entry.end as usize);
            let counter = key.slice(..entry.prefix as usize);
            let hash = xxh3_64(&counter);
            match by_name.entry(hash, |at| counters[*at].0 == counter, |at| xxh3_64(&counters[*at].0)) {
                hashbrown::hash_table::Entry::Occupied(found) => counters[*found.get()].1 += sum,
                hashbrown::hash_table::Entry::Vacant(vacant) => {
                    vacant.insert(counters.len());
                    counters.push((counter, sum));
                }
            }
            deltas.push(Delta { key: HotKey { kind: HotKind::Series, key }, amount: sum });
        }
        deltas.extend(
            counters.into_iter().map(|(key, amount)| Delta { key: HotKey { kind: HotKind::Counter, key }, amount }),
        );
        deltas
    }
}

fn bucket_of(finest_ms: Option<i64>, time_ms: i64) -> i64 {
    finest_ms.map_or(0, |width| time_ms.div_euclid(width))
}

fn merge_hash(series: u32, bucket: i64) -> u64 {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&series.to_le_bytes());
    bytes[4..].copy_from_slice(&bucket.to_le_bytes());
    xxh3_64(&bytes)
}

/// Positions have 32 bits: a pack closes at `ingest.pack_bytes`, which is at most 64 MiB, and one item beyond it.
fn short(position: usize) -> u32 {
    u32::try_from(position).expect("a pack is far below 4 GiB")
}
