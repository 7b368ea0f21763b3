//! Dead letters as their lane keeps them in the store: which records it could not apply, and which packs have applied
//! their replays (table `replayed`).
//!
//! The dead-letter log has the records themselves (`log::DeadLetters`); here is what makes the lane's verdicts final. A
//! record that was a dead letter once stays one, though another version of the program could read it, or its bytes are whole
//! again; and a replay counts once, however often it is appended and however late.

use async_trait::async_trait;

use super::Error;
use crate::item::{Coordinates, Lane, Seq, Stamp, TopicId};

/// A dead letter of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LetterRow {
    /// Where the record stood in its lane.
    pub seq: Seq,
    /// The pack that has applied its replay; none yet.
    pub replayed: Option<Replayed>,
}

/// The pack that has applied the replay of a dead letter. It stands in a lane of the same partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// The life of the topic that it stands in.
    pub topic_id: TopicId,
    /// Its seq there.
    pub seq: Seq,
    /// Its stamp: the write timestamp.
    pub stamp: Stamp,
}

/// What is kept of dead letters. They never expire.
#[async_trait]
pub trait Letters: Send + Sync + 'static {
    /// Notes that the record at these coordinates is a dead letter, at the record's stamp. What is known of its replay stays.
    async fn write_letter(&self, topic: &str, at: Coordinates, stamp: Stamp) -> Result<(), Error>;

    /// Notes the pack that has applied the replay of a dead letter, at that pack's stamp (S2).
    async fn write_replayed(&self, topic: &str, at: Coordinates, by: Replayed) -> Result<(), Error>;

    /// The dead letters of a lane from `from` up to `to`, in order of seq, at most `limit`.
    async fn letters(&self, topic: &str, lane: Lane, from: Seq, to: Seq, limit: usize)
    -> Result<Vec<LetterRow>, Error>;
}
