//! The messages of `schemas/pack.proto`, by hand: field numbers and types there and here are the same.

use bytes::Bytes;
use prost::Message;

/// One record of the log. See `schemas/pack.proto` for what each field means.
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "documented field by field in schemas/pack.proto")]
pub struct Pack {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub id: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub ingest: Bytes,
    #[prost(int64, tag = "4")]
    pub receive_ms: i64,
    #[prost(uint32, tag = "5")]
    pub partitions: u32,
    #[prost(uint32, tag = "6")]
    pub shards: u32,
    #[prost(bool, tag = "7")]
    pub urgent: bool,
    #[prost(bool, tag = "8")]
    pub canary: bool,
    #[prost(string, tag = "9")]
    pub traceparent: String,
    #[prost(message, repeated, tag = "10")]
    pub claims: Vec<Claim>,
    #[prost(message, optional, tag = "11")]
    pub increments: Option<Increments>,
    #[prost(message, repeated, tag = "12")]
    pub events: Vec<Event>,
    #[prost(message, optional, tag = "13")]
    pub observations: Option<Observations>,
    #[prost(message, repeated, tag = "14")]
    pub corrections: Vec<Correction>,
    #[prost(message, repeated, tag = "15")]
    pub erasures: Vec<Erasure>,
    #[prost(message, optional, tag = "16")]
    pub replayed: Option<Coordinates>,
    #[prost(message, optional, tag = "17")]
    pub control: Option<Control>,
}

/// Where a record stands.
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "documented field by field in schemas/pack.proto")]
pub struct Coordinates {
    #[prost(bytes = "bytes", tag = "1")]
    pub topic_id: Bytes,
    #[prost(uint32, tag = "2")]
    pub partition: u32,
    #[prost(uint64, tag = "3")]
    pub seq: u64,
}

/// An acknowledgement that this ingest had: the record at `seq` is the pack `pack` (law 6).
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "documented field by field in schemas/pack.proto")]
pub struct Claim {
    #[prost(bytes = "bytes", tag = "1")]
    pub topic_id: Bytes,
    #[prost(uint64, tag = "2")]
    pub seq: u64,
    #[prost(bytes = "bytes", tag = "3")]
    pub pack: Bytes,
}

/// The increments of a pack, as columns over a dictionary of series.
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "documented field by field in schemas/pack.proto")]
pub struct Increments {
    #[prost(bytes = "bytes", tag = "1")]
    pub keys: Bytes,
    #[prost(uint32, repeated, tag = "2")]
    pub key_lengths: Vec<u32>,
    #[prost(uint32, repeated, tag = "3")]
    pub grains: Vec<u32>,
    #[prost(uint32, repeated, tag = "4")]
    pub series: Vec<u32>,
    #[prost(sint64, repeated, tag = "5")]
    pub amounts: Vec<i64>,
    #[prost(sint64, repeated, tag = "6")]
    pub times: Vec<i64>,
    #[prost(bytes = "bytes", tag = "7")]
    pub ids: Bytes,
}

/// One event.
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "documented field by field in schemas/pack.proto")]
pub struct Event {
    #[prost(string, tag = "1")]
    pub namespace: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub subject: String,
    #[prost(int64, tag = "4")]
    pub time_ms: i64,
    #[prost(string, tag = "5")]
    pub id: String,
    #[prost(bytes = "bytes", tag = "6")]
    pub properties: Bytes,
}

/// Cumulative observations. Laid out in version 1; no lane applies them yet.
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "documented field by field in schemas/pack.proto")]
pub struct Observations {
    #[prost(bytes = "bytes", tag = "1")]
    pub keys: Bytes,
    #[prost(uint32, repeated, tag = "2")]
    pub key_lengths: Vec<u32>,
    #[prost(uint32, repeated, tag = "3")]
    pub grains: Vec<u32>,
    #[prost(uint32, repeated, tag = "4")]
    pub series: Vec<u32>,
    #[prost(int64, repeated, tag = "5")]
    pub starts_ms: Vec<i64>,
    #[prost(sint64, repeated, tag = "6")]
    pub values: Vec<i64>,
    #[prost(sint64, repeated, tag = "7")]
    pub times: Vec<i64>,
}

/// A repair of one row.
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "documented field by field in schemas/pack.proto")]
pub struct Correction {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    #[prost(int64, tag = "2")]
    pub grain_ms: i64,
    #[prost(int64, tag = "3")]
    pub bucket_ms: i64,
    #[prost(bytes = "bytes", tag = "4")]
    pub amount: Bytes,
    #[prost(bool, tag = "5")]
    pub counter: bool,
    #[prost(uint64, tag = "6")]
    pub as_of: u64,
    #[prost(bytes = "bytes", tag = "7")]
    pub total: Bytes,
}

/// A removal of a tenant's, a series' or a subject's data. Laid out in version 1; no lane applies it yet.
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "documented field by field in schemas/pack.proto")]
pub struct Erasure {
    #[prost(string, tag = "1")]
    pub namespace: String,
    #[prost(string, tag = "2")]
    pub counter: String,
    #[prost(string, tag = "3")]
    pub tags: String,
    #[prost(string, tag = "4")]
    pub subject: String,
}

/// A change of what the epoch pins. Laid out in version 1; no lane applies it yet.
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "documented field by field in schemas/pack.proto")]
pub struct Control {
    #[prost(int64, tag = "1")]
    pub dedup_window_ms: i64,
    #[prost(uint64, tag = "2")]
    pub dedup_max_ids: u64,
}
