//! Items and the names that place and identify them.
//!
//! An item is what the log carries: an increment of a counter, or an event. This room holds the newtypes that must not
//! be mixed, the limits of every name, and the three hashes that are fixed for ever because data is placed by them:
//! [`series_hash`], [`event_hash`] (placement, XXH3-64) and [`IdScope`] (identity, BLAKE3). Their test vectors stand at
//! the end of this file; a change that moves one of them loses the affinity and the dedup window of every running log.
//!
//! Parsing a request is `ingest`'s work; laying items out as a record is `pack`'s.

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

mod names;

pub use names::{
    Invalid, MAX_ID_BYTES, MAX_TAGS, check_counter, check_event_text, check_id, check_tag_key, check_tag_value,
};

/// A tenant: keys, limits and data are per namespace. Matches `[a-z0-9][a-z0-9_-]{0,62}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(std::sync::Arc<str>);

impl Namespace {
    /// Checks `name`; the error says what a namespace looks like.
    pub fn parse(name: &str) -> Result<Self, Invalid> {
        names::check_namespace(name)?;
        Ok(Self(name.into()))
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self("default".into())
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The offset of a pack in its lane: the sequence number of everything that the pack causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Seq(pub u64);

impl Seq {
    /// The seq after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The write timestamp of a seq, in microseconds since 1970, computed from the log alone (law 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Stamp(pub i64);

/// The identity of one life of a topic: a recreated topic has another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(pub [u8; 16]);

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// The random identity of a pack.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackId(pub [u8; 16]);

impl PackId {
    /// A new random id.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Debug for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// The unit of order, of ownership and of sequence numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// Which life of the topic.
    pub topic_id: TopicId,
    /// Which partition of it.
    pub partition: u32,
}

/// Where a record stands: what names a dead letter for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Coordinates {
    /// The lane.
    pub lane: Lane,
    /// The offset in it.
    pub seq: Seq,
}

/// One layout of one life of the topic: names rows, not order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub [u8; 8]);

impl Epoch {
    /// The first 8 bytes of BLAKE3(topic id, partitions, shards), the counts as 32-bit little-endian.
    pub fn of(topic_id: TopicId, partitions: u32, shards: u32) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&topic_id.0);
        hasher.update(&partitions.to_le_bytes());
        hasher.update(&shards.to_le_bytes());
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        Self(bytes)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Which time buckets an item counts into, besides the total. Decided at ingest, carried by the pack (law 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Grains(pub u32);

impl Grains {
    /// Buckets of one minute.
    pub const MINUTE: Self = Self(1);
    /// Buckets of one hour.
    pub const HOUR: Self = Self(2);
    /// Buckets of one day (UTC).
    pub const DAY: Self = Self(4);

    /// Both sets.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The width of the finest bucket in milliseconds; none when only the total counts.
    pub const fn finest_ms(self) -> Option<i64> {
        if self.0 & Self::MINUTE.0 != 0 {
            Some(60_000)
        } else if self.0 & Self::HOUR.0 != 0 {
            Some(3_600_000)
        } else if self.0 & Self::DAY.0 != 0 {
            Some(86_400_000)
        } else {
            None
        }
    }
}

/// What separates namespace, counter and tags in a [`SeriesKey`]: none of them may contain it.
pub const KEY_SEPARATOR: u8 = 0;

/// A namespace, a counter's name and its sorted tags, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesRef<'a> {
    /// The tenant.
    pub namespace: &'a str,
    /// The counter's name.
    pub counter: &'a str,
    /// The canonical tags, e.g. `method=GET,path=/docs`; empty for an untagged series.
    pub tags: &'a str,
}

impl<'a> SeriesRef<'a> {
    /// Reads the key bytes that [`write_series_key`] wrote; `None` when they are not of that form.
    pub fn from_key(key: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(key).ok()?;
        let mut parts = text.split('\0');
        let (namespace, counter, tags) = (parts.next()?, parts.next()?, parts.next()?);
        parts.next().is_none().then_some(Self { namespace, counter, tags })
    }

    /// The key bytes of this series.
    pub fn to_key(self) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.namespace.len() + self.counter.len() + self.tags.len() + 2);
        key.extend_from_slice(self.namespace.as_bytes());
        key.push(KEY_SEPARATOR);
        key.extend_from_slice(self.counter.as_bytes());
        key.push(KEY_SEPARATOR);
        key.extend_from_slice(self.tags.as_bytes());
        key
    }
}

/// Appends the key bytes of a series: namespace, counter and canonical tags, separated by [`KEY_SEPARATOR`].
///
/// `tags` must be sorted by key, without repeated keys, and checked (see [`check_tag_key`], [`check_tag_value`]).
pub fn write_series_key<K: AsRef<str>, V: AsRef<str>>(
    out: &mut Vec<u8>,
    namespace: &str,
    counter: &str,
    tags: &[(K, V)],
) {
    out.extend_from_slice(namespace.as_bytes());
    out.push(KEY_SEPARATOR);
    out.extend_from_slice(counter.as_bytes());
    out.push(KEY_SEPARATOR);
    write_tags(out, tags);
}

/// Appends canonical tags: `key=value` joined by `,`; in a value `\` and `,` are escaped by a `\` before them.
pub fn write_tags<K: AsRef<str>, V: AsRef<str>>(out: &mut Vec<u8>, tags: &[(K, V)]) {
    for (index, (key, value)) in tags.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(key.as_ref().as_bytes());
        out.push(b'=');
        let value = value.as_ref().as_bytes();
        if value.iter().any(|byte| matches!(byte, b',' | b'\\')) {
            for byte in value {
                if matches!(byte, b',' | b'\\') {
                    out.push(b'\\');
                }
                out.push(*byte);
            }
        } else {
            out.extend_from_slice(value);
        }
    }
}

/// Reads canonical tags back, in their order. What [`write_tags`] did not write gives `None`.
pub fn read_tags(canonical: &str) -> Option<Vec<(String, String)>> {
    let mut tags = Vec::new();
    let mut rest = canonical;
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        rest = loop {
            match chars.next() {
                None => break "",
                Some((at, ',')) => break Some(&after[at + 1..]).filter(|rest| !rest.is_empty())?,
                Some((_, '\\')) => value.push(chars.next()?.1),
                Some((_, char)) => value.push(char),
            }
        };
        tags.push((key.to_owned(), value));
    }
    Some(tags)
}

/// The placement hash of a series: XXH3-64 (seed 0) of its key bytes. Fixed for ever.
pub fn series_hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The placement hash of an event: XXH3-64 (seed 0) of namespace, 0, and its subject, or its id when it has none.
/// Fixed for ever.
pub fn event_hash(namespace: &str, subject: Option<&str>, id: &str) -> u64 {
    let by = subject.unwrap_or(id);
    let mut bytes = Vec::with_capacity(namespace.len() + 1 + by.len());
    bytes.extend_from_slice(namespace.as_bytes());
    bytes.push(KEY_SEPARATOR);
    bytes.extend_from_slice(by.as_bytes());
    xxh3_64(&bytes)
}

/// The unit of affinity: `hash % shards`. Negative numbers are the lanes' reserved shards (see [`Shard::reserved`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard(pub i32);

impl Shard {
    /// The shard of a series with this [`series_hash`].
    pub fn of(hash: u64, shards: u32) -> Self {
        Self(i32::try_from(hash % u64::from(shards)).expect("store.shards is checked to fit 31 bits"))
    }

    /// The shard that holds the whole-counter totals of one lane: −1 − partition.
    pub fn reserved(partition: u32) -> Self {
        Self(-1 - i32::try_from(partition).expect("a partition count is checked to fit 31 bits"))
    }

    /// The partition of the log that this shard belongs to.
    pub fn partition(self, partitions: u32) -> u32 {
        match u32::try_from(self.0) {
            Ok(shard) => shard % partitions,
            Err(_) => (-1 - self.0).unsigned_abs(),
        }
    }
}

/// The identity of an item within its dedup window.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ItemId(pub [u8; 16]);

impl fmt::Debug for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// The scope of an id: the same client id under another tenant, kind, series or name is another item.
///
/// An id is the first 16 bytes of BLAKE3 in keyed mode over the client's id, the key being BLAKE3 of a kind byte
/// (`i` or `e`), and the series key, or namespace, 0 and the event's name. Keyed so that a batch hashes each scope once.
#[derive(Clone, Copy)]
pub struct IdScope([u8; 32]);

impl IdScope {
    /// The scope of ids of one series, given its key bytes.
    pub fn series(key: &[u8]) -> Self {
        Self::new(b'i', &[key])
    }

    /// The scope of ids of events of one name.
    pub fn event(namespace: &str, name: &str) -> Self {
        Self::new(b'e', &[namespace.as_bytes(), &[KEY_SEPARATOR], name.as_bytes()])
    }

    fn new(kind: u8, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[kind]);
        for part in parts {
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// The identity of the client's `id` in this scope.
    pub fn id(&self, id: &[u8]) -> ItemId {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&blake3::keyed_hash(&self.0, id).as_bytes()[..16]);
        ItemId(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn placement_and_identity_hashes_keep_their_test_vectors() {
        let key = SeriesRef { namespace: "default", counter: "page_views", tags: "path=/docs" }.to_key();
        assert_eq!(key, b"default\0page_views\0path=/docs");
        assert_eq!(series_hash(&key), VECTORS.0);
        assert_eq!(event_hash("default", Some("user-17"), "evt_42"), VECTORS.1);
        assert_eq!(event_hash("default", None, "evt_42"), VECTORS.2);
        assert_eq!(hex(&IdScope::series(&key).id(b"8f1c").0), VECTORS.3);
        assert_eq!(hex(&IdScope::event("default", "signup").id(b"evt_42").0), VECTORS.4);
        assert_eq!(Epoch::of(TopicId([7; 16]), 8, 256).to_string(), VECTORS.5);
    }

    // Computed by the reference implementations of XXH3 and BLAKE3, not by this program.
    const VECTORS: (u64, u64, u64, &str, &str, &str) = (
        3484669783224964376,
        4573163339707667410,
        1493650658633757439,
        "63c27d8b628e5f2d20d069134d38b6ba",
        "c5a347a406f6d6579de7142795ae157f",
        "29c43f68880bc0c2",
    );

    #[test]
    fn a_shard_belongs_to_one_partition_and_a_reserved_shard_to_its_own() {
        assert_eq!(Shard(255).partition(8), 7);
        assert_eq!(Shard::reserved(5), Shard(-6));
        assert_eq!(Shard::reserved(5).partition(8), 5);
    }

    proptest! {
        #[test]
        fn canonical_tags_read_back(tags in proptest::collection::btree_map("[a-z_][a-z.]{0,5}", "[^\u{0}-\u{1f}]{0,12}", 0..5)) {
            let tags: Vec<_> = tags.into_iter().collect();
            let mut text = Vec::new();
            write_tags(&mut text, &tags);
            prop_assert_eq!(read_tags(std::str::from_utf8(&text).unwrap()).unwrap(), tags);
        }
    }
}
