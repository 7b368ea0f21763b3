//! The log's record: one pack, columnar Protocol Buffers, as `schemas/pack.proto` lays it out.
//!
//! [`Pack`] and its parts are the wire form; [`decode`] reads a record and checks everything that the columns promise
//! each other, so that whoever walks them afterwards can index without fear. Decoding copies no item: keys, ids and
//! properties stay slices of the record.
//!
//! `ingest` fills a pack column by column; `worker` walks it. Frozen records of every version stand in
//! `tests/fixtures/` and must be readable for ever.

use std::collections::HashSet;

use bytes::Bytes;
use prost::Message;

use crate::item::{Grains, ItemId, KEY_SEPARATOR, PackId, Seq, SeriesRef, TopicId};

mod wire;

pub use wire::{Claim, Control, Coordinates, Correction, Erasure, Event, Increments, Observations, Pack};

/// The newest format version that this program reads, and writes when it is told to.
pub const FORMAT: u32 = if cfg!(feature = "next") { 2 } else { 1 };

/// The format version that is written unless `ingest.format` says another: one that the workers of the release before read
/// too, so that an upgrade may be rolled out, and taken back, process by process.
pub const WRITTEN: u32 = 1;

/// Why a record is not a pack that this program can apply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Written by a newer program. Never poison: the lane halts until its worker is upgraded.
    #[error("format version {0} is newer than this program, which reads up to {FORMAT}; upgrade the workers")]
    Newer(u32),
    /// Not Protocol Buffers of the pack's shape.
    #[error("not a pack: {0}")]
    Malformed(String),
    /// The columns contradict each other.
    #[error("not a well-formed pack: {0}")]
    Inconsistent(&'static str),
}

/// Reads a record whose header says `format`. The result holds slices of `payload`.
///
/// A record without a version in its header has `format` 0 and is judged by the version it carries inside.
pub fn decode(format: u32, payload: Bytes) -> Result<Pack, Error> {
    if format > FORMAT {
        return Err(Error::Newer(format));
    }
    let pack = Pack::decode(payload).map_err(|error| Error::Malformed(error.to_string()))?;
    if pack.version > FORMAT {
        return Err(Error::Newer(pack.version));
    }
    pack.check()?;
    Ok(pack)
}

impl Pack {
    /// The record's bytes.
    pub fn encode_record(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    /// The pack's own identity.
    pub fn pack_id(&self) -> PackId {
        PackId(self.id[..].try_into().expect("checked when it was decoded: a pack id has 16 bytes"))
    }

    /// How many items the pack carries.
    pub fn items(&self) -> usize {
        self.increments.as_ref().map_or(0, Increments::len) + self.events.len()
    }

    fn check(&self) -> Result<(), Error> {
        let require = |holds: bool, what| if holds { Ok(()) } else { Err(Error::Inconsistent(what)) };
        require(self.version >= 1, "no format version")?;
        require(self.id.len() == 16, "a pack id has 16 bytes")?;
        require(self.ingest.len() == 16, "an ingest id has 16 bytes")?;
        require(self.partitions >= 1 && self.partitions <= i32::MAX as u32, "partitions out of range")?;
        require(self.shards >= 1 && self.shards <= i32::MAX as u32, "shards out of range")?;
        for claim in &self.claims {
            require(claim.topic_id.len() == 16 && claim.pack.len() == 16, "a claim's ids have 16 bytes")?;
        }
        if let Some(replayed) = &self.replayed {
            require(replayed.topic_id.len() == 16, "a topic id has 16 bytes")?;
        }
        if let Some(increments) = &self.increments {
            increments.check()?;
        }
        let mut corrected = HashSet::new();
        for correction in &self.corrections {
            let series = SeriesRef::from_key(&correction.key);
            let series = series.ok_or(Error::Inconsistent("a correction's key is not namespace, counter and tags"))?;
            require(!correction.counter || series.tags.is_empty(), "a whole counter has no tags")?;
            require(correction.total.len() <= 16, "a correction's total takes more than 128 bits")?;
            let row = (&correction.key, correction.counter, correction.grain_ms, correction.bucket_ms);
            require(corrected.insert(row), "a row is corrected twice")?;
        }
        for event in &self.events {
            require(
                !event.namespace.is_empty() && !event.name.is_empty() && !event.id.is_empty(),
                "an event lacks a name",
            )?;
        }
        Ok(())
    }
}

impl Correction {
    /// Sets a series' row, or the whole counter's, to what the lane's log below `as_of` gives it.
    pub fn of_total(key: Bytes, counter: bool, as_of: Seq, total: i128) -> Self {
        let total = Bytes::copy_from_slice(&total.to_be_bytes());
        Self { key, counter, as_of: as_of.0, total, ..Self::default() }
    }

    /// The total that it sets; `None` when it is another kind of correction.
    pub fn total(&self) -> Option<i128> {
        let first = self.total.first().filter(|_| self.amount.is_empty())?;
        let mut total = [if first & 0x80 == 0 { 0 } else { 0xff }; 16];
        total[16 - self.total.len()..].copy_from_slice(&self.total);
        Some(i128::from_be_bytes(total))
    }
}

impl Claim {
    /// What the claim names.
    pub fn parts(&self) -> (TopicId, Seq, PackId) {
        const CHECKED: &str = "checked when it was decoded: a claim's ids have 16 bytes";
        let topic_id = TopicId(self.topic_id[..].try_into().expect(CHECKED));
        (topic_id, Seq(self.seq), PackId(self.pack[..].try_into().expect(CHECKED)))
    }
}

/// One key of the dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The series key bytes.
    pub key: &'a [u8],
    /// The buckets its items count into.
    pub grains: Grains,
}

/// One increment of the pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Increment {
    /// Index of its key in the dictionary.
    pub series: u32,
    /// What it adds.
    pub amount: i64,
    /// Event time in milliseconds after the pack's `receive_ms`.
    pub time_ms: i64,
    /// Its identity, if it has one.
    pub id: Option<ItemId>,
}

impl Increments {
    /// How many increments there are.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// The dictionary, in order.
    pub fn dictionary(&self) -> impl Iterator<Item = Entry<'_>> {
        let mut at = 0;
        self.key_lengths.iter().zip(&self.grains).map(move |(length, grains)| {
            let from = at;
            at += *length as usize;
            Entry { key: &self.keys[from..at], grains: Grains(*grains) }
        })
    }

    /// The ids of the first increments; those after them have none.
    pub fn ids(&self) -> &[[u8; 16]] {
        self.ids.as_chunks().0
    }

    /// The increments, in order: first those with an id.
    pub fn iter(&self) -> impl Iterator<Item = Increment> {
        let ids = self.ids().iter().map(|id| Some(ItemId(*id)));
        let columns = self.series.iter().zip(&self.amounts).zip(&self.times);
        columns.zip(ids.chain(std::iter::repeat(None))).map(|(((series, amount), time_ms), id)| Increment {
            series: *series,
            amount: *amount,
            time_ms: *time_ms,
            id,
        })
    }

    fn check(&self) -> Result<(), Error> {
        let require = |holds: bool, what| if holds { Ok(()) } else { Err(Error::Inconsistent(what)) };
        let entries = self.key_lengths.len();
        let items = self.series.len();
        require(self.grains.len() == entries, "the dictionary's columns differ in length")?;
        require(self.amounts.len() == items && self.times.len() == items, "the items' columns differ in length")?;
        require(self.ids.len().is_multiple_of(16) && self.ids.len() / 16 <= items, "ids do not fit the items")?;
        let keys: u64 = self.key_lengths.iter().map(|length| u64::from(*length)).sum();
        require(keys == self.keys.len() as u64, "the dictionary's lengths do not add up")?;
        require(self.series.iter().all(|series| (*series as usize) < entries), "an item names no key")?;
        // The keys are checked as one text: a key of it is text too if it begins and ends between characters.
        let text = std::str::from_utf8(&self.keys).map_err(|_| Error::Inconsistent("the dictionary is not UTF-8"))?;
        let mut at = 0;
        let are_keys = self.key_lengths.iter().all(|length| {
            let key = text.get(at..at + *length as usize);
            at += *length as usize;
            key.is_some_and(|key| key.bytes().filter(|byte| *byte == KEY_SEPARATOR).count() == 2)
        });
        require(are_keys, "a key is not namespace, counter and tags")
    }
}
