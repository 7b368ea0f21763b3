//! Poison: records that no lane can apply, told apart from those that halt it.
//!
//! A verdict is a function of the record and of its lane's partition (law 2): bytes that are no pack, columns that contradict
//! each other, damage at rest, a series of another lane, a replay of what cannot have stood in this one. It is final: a
//! record that the store knows as a dead letter stays one, though this program could read it (`machine`). A newer format is
//! never poison, nor is what this version cannot apply yet: these halt. Pure.

use crate::{
    item::{Coordinates, Lane, Namespace, PackId, Seq, SeriesRef, Shard, TopicId, series_hash},
    log::Class,
    pack::Pack,
    worker::halt::Halt,
};

/// What is wrong with a record that cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poison {
    /// In a word,
    pub class: Class,
    /// and in full.
    pub reason: String,
}

impl Poison {
    /// A verdict.
    pub fn new(class: Class, reason: impl Into<String>) -> Self {
        Self { class, reason: reason.into() }
    }

    /// A series does not belong into the lane, by the counts that the pack carries.
    pub fn misplaced() -> Self {
        Self::new(Class::Misplaced, "it carries a series of another lane")
    }
}

/// Why a record is not applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It never can be: it goes to the dead letters, and the lane goes on.
    Poison(Poison),
    /// The lane must not go on.
    Halt(Halt),
}

impl From<Halt> for Refusal {
    fn from(halt: Halt) -> Self {
        Self::Halt(halt)
    }
}

impl From<Poison> for Refusal {
    fn from(poison: Poison) -> Self {
        Self::Poison(poison)
    }
}

/// What a checkpoint names a record by that cannot be read: the first 16 bytes of its BLAKE3.
pub fn name(payload: &[u8]) -> PackId {
    let mut id = [0; 16];
    id.copy_from_slice(&blake3::hash(payload).as_bytes()[..16]);
    PackId(id)
}

/// Which dead letter a pack replays.
pub fn replayed(pack: &Pack) -> Option<Coordinates> {
    pack.replayed.as_ref().map(|at| {
        let topic_id = at.topic_id[..].try_into().expect("checked when it was decoded: a topic id has 16 bytes");
        Coordinates { lane: Lane { topic_id: TopicId(topic_id), partition: at.partition }, seq: Seq(at.seq) }
    })
}

/// Whether a replay at `seq` of `lane` can be one: a dead letter stood in the same partition, and before it.
pub fn check_replay(at: Coordinates, lane: Lane, seq: Seq) -> Result<(), Poison> {
    if at.lane.partition != lane.partition {
        let reason =
            format!("it replays a record of partition {}, and a replay keeps its partition", at.lane.partition);
        return Err(Poison::new(Class::Replay, reason));
    }
    if at.lane.topic_id == lane.topic_id && at.seq >= seq {
        let reason = format!("it replays the record {}, which does not stand before it", at.seq);
        return Err(Poison::new(Class::Replay, reason));
    }
    Ok(())
}

/// Whether every series belongs into this partition by the pack's own counts: what the fold finds when it resolves them,
/// for whoever does not fold.
pub fn check_placement(pack: &Pack, partition: u32) -> Result<(), Poison> {
    let is_here = |shard: Shard| shard.partition(pack.partitions) == partition;
    let is_named = |key: &[u8]| {
        let namespace = SeriesRef::from_key(key).map(|series| Namespace::parse(series.namespace));
        matches!(namespace, Some(Ok(_)))
    };
    let is_counter_here = |key: &[u8]| is_named(key) && is_here(Shard::reserved(partition));
    let is_series_here = |key: &[u8]| is_named(key) && is_here(Shard::of(series_hash(key), pack.shards));
    let mut increments = pack.increments.iter().flat_map(|increments| increments.dictionary());
    let fits = increments.all(|entry| is_counter_here(entry.key) && is_series_here(entry.key))
        && pack.corrections.iter().all(|correction| match correction.counter {
            true => is_counter_here(&correction.key),
            false => is_series_here(&correction.key),
        });
    if fits { Ok(()) } else { Err(Poison::misplaced()) }
}
