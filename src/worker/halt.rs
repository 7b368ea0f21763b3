//! Why a lane halts (law 6): nothing is skipped silently, so each of these stops the lane until somebody acts. Every
//! reason says what was found and what to do about it.

use crate::{
    item::{PackId, Seq, TopicId},
    pack,
    worker::claims::Broken,
};

/// Why a lane has halted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// The log's front is past what the lane needs next.
    #[error(
        "the log starts at {start}, the lane goes on at {next}: {} packs are gone; restore them, or accept the loss by \
         beginning a new log epoch", start.0 - next.0
    )]
    Gap {
        /// The first offset that is still there.
        start: Seq,
        /// What the lane needs next.
        next: Seq,
    },
    /// The log ends before what is stored already.
    #[error(
        "the log ends at {end}, but {seq} is stored already: the log was cut; restore it, or begin a new log epoch"
    )]
    Cut {
        /// One past the last offset.
        end: Seq,
        /// A seq that the store has.
        seq: Seq,
    },
    /// Another record stands where the checkpoint was taken.
    #[error(
        "the record at {seq} is {found:?}, the checkpoint names {expected:?}: this is another log, or it was cut and grew \
         again; restore it, or begin a new log epoch"
    )]
    Replaced {
        /// The checkpoint's seq.
        seq: Seq,
        /// The pack that it names.
        expected: PackId,
        /// What stands there.
        found: PackId,
    },
    /// The rebuilt window ends in another stamp than the checkpoint's.
    #[error(
        "the log from {from} on computes another stamp at {seq} than the checkpoint holds: the log was rewritten; restore it"
    )]
    Stamp {
        /// Where the rebuild began.
        from: Seq,
        /// Where the stamps differ.
        seq: Seq,
    },
    /// A row was written at a seq that computes another stamp now.
    #[error(
        "a stored row names the pack at {seq} with another stamp than the log computes: the log was cut and grew again; restore it"
    )]
    Base {
        /// The row's seq.
        seq: Seq,
    },
    /// The store has lanes of another life of the topic only.
    #[error(
        "the store holds this topic as {stored}, the log is {found}: the topic was recreated; begin a new log epoch, or point to the old log"
    )]
    Recreated {
        /// The topic id that the store knows.
        stored: TopicId,
        /// The log's.
        found: TopicId,
    },
    /// No epoch has the counts that a pack carries.
    #[error(
        "pack {seq} was routed for {partitions} partitions and {shards} shards, and no epoch has these counts; begin that epoch"
    )]
    Epoch {
        /// The pack.
        seq: Seq,
        /// Its partitions.
        partitions: u32,
        /// Its shards.
        shards: u32,
    },
    /// A claim does not hold.
    #[error(
        "pack {seq} says that {:?} was acknowledged at {}, where {} stands: the log has lost an acknowledged pack; \
         restore it, or accept the loss", claim.claimed, claim.at,
        claim.found.map_or_else(|| "no earlier pack".to_owned(), |found| format!("{found:?}"))
    )]
    Claim {
        /// The pack that makes the claim.
        seq: Seq,
        /// What it claims.
        claim: Broken,
    },
    /// An offset is missing.
    #[error("the log went from {expected} to {found}: records are missing in between; restore them")]
    Missing {
        /// The offset that should have come.
        expected: Seq,
        /// The one that came.
        found: Seq,
    },
    /// Written by a newer program.
    #[error("pack {seq}: {error}")]
    Newer {
        /// The record.
        seq: Seq,
        /// What it is.
        error: pack::Error,
    },
    /// Something that this version cannot apply yet, and must not skip.
    #[error("pack {seq} carries {what}, which this version cannot apply; upgrade the workers")]
    Unsupported {
        /// The record.
        seq: Seq,
        /// What it carries.
        what: &'static str,
    },
    /// A record that cannot be read, in a log that has no dead-letter log.
    #[error("record {seq} cannot be read: {reason}; it is still in the log, and nothing after it was applied")]
    Unreadable {
        /// The record.
        seq: Seq,
        /// Why.
        reason: String,
    },
    /// The store refuses a write for good.
    #[error("the store refuses to take rows: {0}")]
    Store(String),
    /// The log cannot be read any more.
    #[error("the log cannot be read: {0}")]
    Log(String),
}
