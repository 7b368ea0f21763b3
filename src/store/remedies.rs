//! What halted lanes say of themselves, and what operators have decided: a few rows a topic, written seldom.
//!
//! A lane that halts leaves a row here, so that a process that does not run it can show it, too; whoever runs the lane
//! again removes it. A remedy is a record for good: who did what, when and why. Those that accept a loss are also read by
//! the lanes (law 6), which must compute the same from them for ever: so a remedy is never changed or removed.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Error;
use crate::item::{Lane, Seq, Stamp, TopicId};

/// What a halted lane says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HaltRow {
    /// The lane.
    pub lane: Lane,
    /// A word for the kind of halt, e.g. `gap`.
    pub kind: String,
    /// What was found, and what to do.
    pub reason: String,
    /// The command that remedies it, if one does.
    pub command: Option<String>,
    /// The first seq that it is about, if it is about any.
    pub from: Option<Seq>,
    /// One past the last.
    pub to: Option<Seq>,
    /// The partitions that no epoch has.
    pub partitions: Option<u32>,
    /// The shards that belong to them.
    pub shards: Option<u32>,
    /// The process that runs the lane.
    pub worker: String,
    /// Since when, in milliseconds since 1970.
    pub since_ms: i64,
}

/// What an operator has decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The packs `[from, to)` of a lane are given up: it goes on at `to`.
    Gap {
        /// The lane.
        partition: u32,
        /// The first that is given up.
        from: Seq,
        /// Where the lane goes on.
        to: Seq,
        /// No stamp that was ever computed for the lane before is higher.
        floor: Stamp,
    },
    /// The claims of one pack that the log contradicts are given up.
    Claims {
        /// The lane.
        partition: u32,
        /// The pack that makes them.
        seq: Seq,
    },
    /// The epoch of a layout was begun.
    Epoch {
        /// Its partitions.
        partitions: u32,
        /// Its shards.
        shards: u32,
    },
}

/// The record of a remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemedyRow {
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// Its own random name.
    pub id: [u8; 16],
    /// The life of the topic that it is about.
    pub topic_id: TopicId,
    /// What was decided.
    pub what: Remedy,
    /// By whom, as they said.
    pub who: String,
    /// Why, as they said.
    pub why: String,
    /// What they were told that it would do.
    pub says: String,
}

/// The columns of a [`Remedy`], as backends keep them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Columns {
    /// A word for its kind.
    pub kind: String,
    /// See [`Remedy`].
    pub partition: Option<u32>,
    /// See [`Remedy`].
    pub from: Option<u64>,
    /// See [`Remedy`].
    pub to: Option<u64>,
    /// See [`Remedy`].
    pub floor: Option<i64>,
    /// See [`Remedy`].
    pub partitions: Option<u32>,
    /// See [`Remedy`].
    pub shards: Option<u32>,
}

impl Remedy {
    /// A word for its kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Gap { .. } => "gap",
            Self::Claims { .. } => "claims",
            Self::Epoch { .. } => "epoch",
        }
    }

    /// The lane that it is about, if it is about one.
    pub const fn partition(&self) -> Option<u32> {
        match self {
            Self::Gap { partition, .. } | Self::Claims { partition, .. } => Some(*partition),
            Self::Epoch { .. } => None,
        }
    }

    /// Its columns.
    pub fn columns(&self) -> Columns {
        let columns = Columns { kind: self.kind().to_owned(), partition: self.partition(), ..Columns::default() };
        match *self {
            Self::Gap { from, to, floor, .. } => {
                Columns { from: Some(from.0), to: Some(to.0), floor: Some(floor.0), ..columns }
            }
            Self::Claims { seq, .. } => Columns { from: Some(seq.0), ..columns },
            Self::Epoch { partitions, shards } => {
                Columns { partitions: Some(partitions), shards: Some(shards), ..columns }
            }
        }
    }

    /// From its columns; `None` when they are no remedy that this version knows.
    pub fn from_columns(columns: &Columns) -> Option<Self> {
        let Columns { partition, from, to, floor, partitions, shards, .. } = *columns;
        Some(match columns.kind.as_str() {
            "gap" => Self::Gap { partition: partition?, from: Seq(from?), to: Seq(to?), floor: Stamp(floor?) },
            "claims" => Self::Claims { partition: partition?, seq: Seq(from?) },
            "epoch" => Self::Epoch { partitions: partitions?, shards: shards? },
            _ => return None,
        })
    }
}

/// Halts and remedies of a topic. See the module.
#[async_trait]
pub trait Remedies: Send + Sync + 'static {
    /// The lanes that say that they have halted, of all lives of the topic.
    async fn halts(&self, topic: &str) -> Result<Vec<HaltRow>, Error>;

    /// Notes that a lane has halted, in the place of what it said before.
    async fn write_halt(&self, topic: &str, halt: &HaltRow) -> Result<(), Error>;

    /// Notes that a lane runs again.
    async fn clear_halt(&self, topic: &str, lane: Lane) -> Result<(), Error>;

    /// Every remedy, of all lives of the topic, oldest first.
    async fn remedies(&self, topic: &str) -> Result<Vec<RemedyRow>, Error>;

    /// Records a remedy, for good. Recording it again changes nothing.
    async fn record_remedy(&self, topic: &str, remedy: &RemedyRow) -> Result<(), Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_is_read_back_from_its_columns_and_an_unknown_one_is_not_guessed() {
        let all = [
            Remedy::Gap { partition: 3, from: Seq(10), to: Seq(20), floor: Stamp(-7) },
            Remedy::Claims { partition: 1, seq: Seq(9) },
            Remedy::Epoch { partitions: 6, shards: 256 },
        ];
        for remedy in all {
            assert_eq!(Remedy::from_columns(&remedy.columns()), Some(remedy));
        }
        let gap = all[0].columns();
        assert_eq!(Remedy::from_columns(&Columns { kind: "later".into(), ..gap.clone() }), None);
        assert_eq!(Remedy::from_columns(&Columns { to: None, ..gap }), None);
    }
}
