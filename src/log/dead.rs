//! The dead-letter log port: where a lane puts a record that it cannot apply, whole, before it goes on (law 6).
//!
//! Laws every backend keeps, and `tests/it/contract/dead_letters.rs` proves for each:
//! - **D1** `bury` answers `Ok` only when the letter survives the loss of power (of a minority of replicas, where there are
//!   several). Any error: unknown; burying again is safe.
//! - **D2** A letter is named by its coordinates. Burying the same ones again may make a reader meet them twice, and the
//!   first one met is the first one buried; a reader drops the others.
//! - **D3** A letter, once acknowledged, is read with every byte of the record, and everything that is known of it.
//! - **D4** `read_letters` brings letters in an order that does not change, each place once, and goes on from any place that it has
//!   told. What is there and is no letter is told with its reason, never skipped.
//!
//! A log has its own: [`Log::dead_letters`](super::Log::dead_letters). What becomes of letters: `dead_letter`.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use prost::Message;

use super::Error;
use crate::item::{Coordinates, Lane, Seq, TopicId};

/// What is wrong with a record, as one of a few words: the label of a metric, and a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// The log's own checksum says that its bytes have changed, or its time is not the log's.
    Damaged,
    /// Its bytes are no pack, or its columns contradict each other.
    Malformed,
    /// It carries a series of another lane.
    Misplaced,
    /// It replays what cannot have stood in its lane.
    Replay,
    /// It can be read now, and was a dead letter before: the verdict stands.
    Before,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 5] = [Self::Damaged, Self::Malformed, Self::Misplaced, Self::Replay, Self::Before];

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Malformed => "malformed",
            Self::Misplaced => "misplaced",
            Self::Replay => "replay",
            Self::Before => "before",
        }
    }

    /// The class that this word names.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.word() == word)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A record that could not be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it stands in the log.
    pub at: Coordinates,
    /// The log's clock at the append, in milliseconds since 1970; 0 where the record does not say it any more.
    pub append_ms: i64,
    /// The format version in its header; 0 without one.
    pub format: u32,
    /// What is wrong with it, in a word,
    pub class: Class,
    /// and in full.
    pub reason: String,
    /// Its bytes, as appended, or as they are now.
    pub payload: Bytes,
}

/// A place in a dead-letter log. Its backend knows what it means.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Place(pub Vec<u8>);

/// What stands at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where.
    pub place: Place,
    /// When it was buried, in milliseconds since 1970.
    pub buried_ms: i64,
    /// The letter, or why there is none.
    pub letter: Result<DeadLetter, String>,
}

/// A log of records that could not be applied. See the module's laws.
#[async_trait]
pub trait DeadLetters: Send + Sync + 'static {
    /// Keeps a letter (D1, D2).
    async fn bury(&self, letter: &DeadLetter) -> Result<(), Error>;

    /// Reads on after a place, or from the front; about `max_bytes`, and nothing at the end (D4).
    async fn read_letters(&self, after: Option<&Place>, max_bytes: usize) -> Result<Vec<Found>, Error>;
}

/// A letter as both backends keep it: `schemas/dead_letter.proto`.
#[derive(Clone, PartialEq, Message)]
struct Wire {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "bytes", tag = "2")]
    topic_id: Bytes,
    #[prost(uint32, tag = "3")]
    partition: u32,
    #[prost(uint64, tag = "4")]
    seq: u64,
    #[prost(int64, tag = "5")]
    append_ms: i64,
    #[prost(uint32, tag = "6")]
    format: u32,
    #[prost(string, tag = "7")]
    class: String,
    #[prost(string, tag = "8")]
    reason: String,
    #[prost(bytes = "bytes", tag = "9")]
    payload: Bytes,
}

/// The version of [`Wire`].
pub(super) const VERSION: u32 = 1;
/// A reason is cut at so many bytes: what is wrong with a record may quote it.
const MAX_REASON: usize = 500;
/// What a letter is larger than its record by, at most.
pub(super) const ENVELOPE_BYTES: u64 = 1 << 10;

/// The bytes that name a letter: topic id, partition and seq, big-endian, so that they sort as coordinates do.
pub(super) fn key(at: Coordinates) -> [u8; 28] {
    let mut key = [0; 28];
    key[..16].copy_from_slice(&at.lane.topic_id.0);
    key[16..20].copy_from_slice(&at.lane.partition.to_be_bytes());
    key[20..].copy_from_slice(&at.seq.0.to_be_bytes());
    key
}

impl DeadLetter {
    /// The letter's bytes.
    pub(super) fn encode(&self) -> Bytes {
        let Coordinates { lane, seq } = self.at;
        let mut reason = self.reason.clone();
        let cut = (0..=MAX_REASON.min(reason.len())).rev().find(|at| reason.is_char_boundary(*at));
        reason.truncate(cut.unwrap_or(0));
        let wire = Wire {
            version: VERSION,
            topic_id: Bytes::copy_from_slice(&lane.topic_id.0),
            partition: lane.partition,
            seq: seq.0,
            append_ms: self.append_ms,
            format: self.format,
            class: self.class.word().to_owned(),
            reason,
            payload: self.payload.clone(),
        };
        wire.encode_to_vec().into()
    }

    /// Reads a letter.
    pub(super) fn decode(bytes: Bytes) -> Result<Self, String> {
        let wire = Wire::decode(bytes).map_err(|error| format!("not a dead letter: {error}"))?;
        if wire.version != VERSION {
            return Err(format!("a dead letter of version {}, and this program reads {VERSION}", wire.version));
        }
        let topic_id = wire.topic_id[..].try_into().map_err(|_| "not a dead letter: its topic id has not 16 bytes")?;
        let lane = Lane { topic_id: TopicId(topic_id), partition: wire.partition };
        Ok(Self {
            at: Coordinates { lane, seq: Seq(wire.seq) },
            append_ms: wire.append_ms,
            format: wire.format,
            // A class of a later version: its reason says more than a word that we know.
            class: Class::parse(&wire.class).unwrap_or(Class::Malformed),
            reason: wire.reason,
            payload: wire.payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(topic: u8, partition: u32, seq: u64) -> Coordinates {
        Coordinates { lane: Lane { topic_id: TopicId([topic; 16]), partition }, seq: Seq(seq) }
    }

    // Letters are kept until somebody has looked at them: the layout may grow, never change.
    #[test]
    fn the_bytes_of_version_1_are_frozen() {
        let letter = DeadLetter {
            at: at(7, 3, 1 << 40),
            append_ms: 1_700_000_000_123,
            format: 1,
            class: Class::Misplaced,
            reason: "why".to_owned(),
            payload: Bytes::from_static(b"what"),
        };
        let hex: String = letter.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "080112100707070707070707070707070707070718032080808080802028fbd095ffbc3130013a096d6973706c616365\
             6442037768794a0477686174"
        );
        assert_eq!(DeadLetter::decode(letter.encode()), Ok(letter));
    }

    #[test]
    fn every_class_is_found_by_its_word() {
        assert!(Class::ALL.iter().all(|class| Class::parse(class.word()) == Some(*class)));
        assert_eq!(Class::parse("other"), None);
    }

    proptest! {
        #[test]
        fn a_letter_reads_back_whatever_its_bytes_and_a_long_reason_is_cut(
            (topic, partition, seq) in any::<(u8, u32, u64)>(), append_ms: i64, format: u32, class in 0..5_usize,
            reason in ".{0,400}", payload in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let payload = Bytes::from(payload);
            let class = Class::ALL[class];
            let letter = DeadLetter { at: at(topic, partition, seq), append_ms, format, class, reason, payload };
            let read = DeadLetter::decode(letter.encode()).unwrap();
            prop_assert!(read.reason.len() <= MAX_REASON && letter.reason.starts_with(&read.reason));
            prop_assert!(letter.encode().len() as u64 <= letter.payload.len() as u64 + ENVELOPE_BYTES);
            prop_assert_eq!(DeadLetter { reason: letter.reason.clone(), ..read }, letter);
        }

        #[test]
        fn keys_sort_as_coordinates_do(a in any::<(u8, u32, u64)>(), b in any::<(u8, u32, u64)>()) {
            let (a, b) = (at(a.0, a.1, a.2), at(b.0, b.1, b.2));
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
        }

        #[test]
        fn bytes_that_are_no_letter_are_told_and_not_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = DeadLetter::decode(bytes.into());
        }
    }
}
