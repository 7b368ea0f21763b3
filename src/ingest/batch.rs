//! The items of one request, parsed and checked, ready to be appended to packs.
//!
//! One arena holds the bytes of all items; an item is a few numbers that point into it. So a batch is emptied and used
//! again for the next request, and parsing allocates nothing per item once it has grown.

use prost::encoding::{WireType, encode_key, encode_varint};

use crate::{
    item::{self, Shard},
    problem::ItemError,
};

/// Most errors that an answer lists.
const MAX_ERRORS: usize = 100;
/// No item: the end of a partition's list.
pub(super) const NONE: u32 = u32::MAX;
/// What an increment costs in memory besides its key and id: columns, its share of the dictionary and of the tables.
const INCREMENT_COST: usize = 96;
/// What an event costs besides its own bytes.
const EVENT_COST: usize = 16;
/// A batch that grew beyond this is not kept for the next request.
const KEEP_BYTES: usize = 1 << 20;

/// What a request's items are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Increments of counters.
    Increment,
    /// Events.
    Event,
}

impl Kind {
    /// The kind as a metric's label.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Increment => "increment",
            Self::Event => "event",
        }
    }
}

/// One item. `start..key_end` in the arena is a series key, or a whole event as the pack's message; an increment's id
/// follows up to `end`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    /// Placement hash of the series; 0 for an event.
    pub hash: u64,
    pub amount: i64,
    pub time_ms: i64,
    pub start: u32,
    pub key_end: u32,
    pub end: u32,
    /// How long the part of the key is that names the counter: namespace, NUL, counter, NUL.
    pub prefix: u32,
    pub partition: u32,
    /// The next item of the same partition.
    pub next: u32,
}

/// Parsed items of one kind, and what was wrong with the others.
#[derive(Debug)]
pub struct Batch {
    pub(super) kind: Kind,
    pub(super) arena: Vec<u8>,
    pub(super) items: Vec<Item>,
    /// For each partition its first item.
    pub(super) heads: Vec<u32>,
    errors: Vec<ItemError>,
    rejected: usize,
    keep_errors: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            kind: Kind::Increment,
            arena: Vec::new(),
            items: Vec::new(),
            heads: Vec::new(),
            errors: Vec::new(),
            rejected: 0,
            keep_errors: MAX_ERRORS,
        }
    }
}

/// The series and time of an increment that passed every check; its key and id are in the arena already.
pub(super) struct Increment {
    pub start: usize,
    pub key_end: usize,
    pub prefix: usize,
    pub amount: i64,
    pub time_ms: i64,
}

/// An event that passed every check.
pub(super) struct Event<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub subject: Option<&'a str>,
    pub time_ms: i64,
    pub id: &'a str,
    pub properties: &'a str,
}

impl Batch {
    /// Empties the batch for items of this kind. All errors are kept when `partial`, else the first 100.
    pub(super) fn begin(&mut self, kind: Kind, partial: bool) {
        self.kind = kind;
        self.arena.clear();
        self.items.clear();
        self.errors.clear();
        self.rejected = 0;
        self.keep_errors = if partial { usize::MAX } else { MAX_ERRORS };
    }

    /// What kind of items these are.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How many items passed every check.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether no item passed.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many items did not pass.
    pub fn rejected(&self) -> usize {
        self.rejected
    }

    /// What is wrong with the items that did not pass, one error each.
    pub fn errors(&self) -> &[ItemError] {
        &self.errors
    }

    pub(super) fn take_errors(&mut self) -> Vec<ItemError> {
        std::mem::take(&mut self.errors)
    }

    /// Whether the batch is small enough to be kept for the next request.
    pub(super) fn is_worth_keeping(&self) -> bool {
        self.arena.capacity() <= KEEP_BYTES && self.items.capacity() * size_of::<Item>() <= KEEP_BYTES
    }

    pub(super) fn reject(&mut self, error: ItemError) {
        self.rejected += 1;
        if self.errors.len() < self.keep_errors {
            self.errors.push(error);
        }
    }

    pub(super) fn push_increment(&mut self, increment: &Increment, shards: u32, partitions: u32) {
        let hash = item::series_hash(&self.arena[increment.start..increment.key_end]);
        self.items.push(Item {
            hash,
            amount: increment.amount,
            time_ms: increment.time_ms,
            start: offset(increment.start),
            key_end: offset(increment.key_end),
            end: offset(self.arena.len()),
            prefix: offset(increment.prefix),
            partition: Shard::of(hash, shards).partition(partitions),
            next: NONE,
        });
    }

    pub(super) fn push_event(&mut self, event: &Event<'_>, partitions: u32) {
        let start = offset(self.arena.len());
        // The pack's own message, written here once: closing a pack copies it as it is.
        put(&mut self.arena, 1, event.namespace.as_bytes());
        put(&mut self.arena, 2, event.name.as_bytes());
        put(&mut self.arena, 3, event.subject.unwrap_or_default().as_bytes());
        if event.time_ms != 0 {
            encode_key(4, WireType::Varint, &mut self.arena);
            encode_varint(event.time_ms.cast_unsigned(), &mut self.arena);
        }
        put(&mut self.arena, 5, event.id.as_bytes());
        put(&mut self.arena, 6, event.properties.as_bytes());
        let hash = item::event_hash(event.namespace, event.subject, event.id);
        let end = offset(self.arena.len());
        self.items.push(Item {
            hash: 0,
            amount: 0,
            time_ms: event.time_ms,
            start,
            key_end: end,
            end,
            prefix: 0,
            partition: u32::try_from(hash % u64::from(partitions)).expect("a remainder of a u32 fits a u32"),
            next: NONE,
        });
    }

    /// Makes a list of each partition's items, in the request's order.
    pub(super) fn link(&mut self, partitions: usize) {
        self.heads.clear();
        self.heads.resize(partitions, NONE);
        for (index, item) in self.items.iter_mut().enumerate().rev() {
            let head = &mut self.heads[item.partition as usize];
            item.next = *head;
            *head = offset(index);
        }
    }

    /// What an item costs while it is buffered, in bytes: never less than what it takes.
    pub(super) fn cost(&self, item: &Item) -> usize {
        let fixed = match self.kind {
            Kind::Increment => INCREMENT_COST,
            Kind::Event => EVENT_COST,
        };
        (item.end - item.start) as usize + fixed
    }

    /// What all items cost.
    pub(super) fn total_cost(&self) -> usize {
        self.items.iter().map(|item| self.cost(item)).sum()
    }
}

/// Offsets have 32 bits: a body is at most 1 GiB (checked in `limits`), and escapes at most double what comes of it.
fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("a batch is below 4 GiB")
}

/// A string or bytes field; like every field of the format, left out when it is empty.
fn put(out: &mut Vec<u8>, tag: u32, bytes: &[u8]) {
    if !bytes.is_empty() {
        encode_key(tag, WireType::LengthDelimited, out);
        encode_varint(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    }
}
