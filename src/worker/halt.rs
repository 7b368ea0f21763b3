//! Why a lane halts (law 6): nothing is skipped silently, so each of these stops the lane until somebody acts. Every
//! reason says what was found; [`Halt::advice`] says what to do about it, with the command where one does it.
//!
//! What can be accepted are losses: packs that are gone from the front or the middle of the log ([`Halt::Gap`],
//! [`Halt::Missing`]), and acknowledged packs that never were in it ([`Halt::Claim`]). A log that was cut at its end, or is
//! another under the same topic id, cannot be gone on with: what is appended to it next has the seqs of packs that rows were
//! written for already, and a row covers every pack up to its seq. Those packs would be skipped as stored. There the only
//! remedies are the log as it was, or a topic made anew, whose lanes begin at 0 beside the old rows.

use crate::{
    item::{Lane, PackId, Seq, TopicId},
    pack,
    store::HaltRow,
    worker::claims::Broken,
};

/// Why a lane has halted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// The log's front is past what the lane needs next.
    #[error(
        "the log starts at {start}, the lane goes on at {next}: {} packs are gone", start.0 - next.0
    )]
    Gap {
        /// The first offset that is still there.
        start: Seq,
        /// What the lane needs next.
        next: Seq,
    },
    /// The log ends before what is stored already.
    #[error("the log ends at {end}, but {seq} is stored already: the log was cut")]
    Cut {
        /// One past the last offset.
        end: Seq,
        /// A seq that the store has.
        seq: Seq,
    },
    /// Another record stands where the checkpoint was taken.
    #[error(
        "the record at {seq} is {found:?}, the checkpoint names {expected:?}: this is another log, or it was cut and grew \
         again"
    )]
    Replaced {
        /// The checkpoint's seq.
        seq: Seq,
        /// The pack that it names.
        expected: PackId,
        /// What stands there.
        found: PackId,
    },
    /// The log was cut and grew again below what was read already.
    #[error("the log has been cut, and has grown again since: {0}")]
    Regrown(String),
    /// The rebuilt window ends in another stamp than the checkpoint's.
    #[error("the log from {from} on computes another stamp at {seq} than the checkpoint holds: the log was rewritten")]
    Stamp {
        /// Where the rebuild began.
        from: Seq,
        /// Where the stamps differ.
        seq: Seq,
    },
    /// A row was written at a seq that computes another stamp now.
    #[error(
        "a stored row names the pack at {seq} with another stamp than the log computes: the log was cut and grew again"
    )]
    Base {
        /// The row's seq.
        seq: Seq,
    },
    /// The store has lanes of another life of the topic only.
    #[error("the store holds this topic as {stored}, the log is {found}: the topic was recreated")]
    Recreated {
        /// The topic id that the store knows.
        stored: TopicId,
        /// The log's.
        found: TopicId,
    },
    /// The log that this process has open is not the topic any more.
    #[error("{0}")]
    Lost(String),
    /// No epoch has the counts that a pack carries.
    #[error("pack {seq} was routed for {partitions} partitions and {shards} shards, and no epoch has these counts")]
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
        "pack {seq} says that {:?} was acknowledged at {}, where {} stands: the log has lost an acknowledged pack",
        claim.claimed, claim.at,
        claim.found.map_or_else(|| "no earlier pack".to_owned(), |found| format!("{found:?}"))
    )]
    Claim {
        /// The pack that makes the claim.
        seq: Seq,
        /// What it claims.
        claim: Broken,
    },
    /// An offset is missing.
    #[error("the log went from {expected} to {found}: records are missing in between")]
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
    #[error("pack {seq} carries {what}, which this version cannot apply")]
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

/// What to do about a halt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// In words, with the command in backticks.
    pub words: String,
    /// The command, where one does it.
    pub command: Option<String>,
}

impl Halt {
    /// A word for its kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Gap { .. } => "gap",
            Self::Cut { .. } => "cut",
            Self::Replaced { .. } | Self::Regrown(_) => "replaced",
            Self::Stamp { .. } => "stamp",
            Self::Base { .. } => "base",
            Self::Recreated { .. } | Self::Lost(_) => "recreated",
            Self::Epoch { .. } => "epoch",
            Self::Claim { .. } => "claim",
            Self::Missing { .. } => "missing",
            Self::Newer { .. } => "newer",
            Self::Unsupported { .. } => "unsupported",
            Self::Unreadable { .. } => "unreadable",
            Self::Store(_) => "store",
            Self::Log(_) => "log",
        }
    }

    /// What to do about it, in the lane of this partition.
    pub fn advice(&self, partition: u32) -> Advice {
        let by = |words: &str, command: String| Advice {
            words: words.replace("{}", &format!("`{command}`")),
            command: Some(command),
        };
        let only = |words: &str| Advice { words: words.to_owned(), command: None };
        let given_up = |from: Seq, to: Seq| format!("tallymark lanes accept-gap {partition} {from}..{to}");
        match self {
            Self::Gap { start, next } => by("restore them, or accept the loss with {}", given_up(*next, *start)),
            Self::Missing { expected, found } => {
                by("restore them, or accept the loss with {}", given_up(*expected, *found))
            }
            Self::Claim { seq, .. } => {
                by("restore it, or accept the loss with {}", format!("tallymark lanes accept-claim {partition} {seq}"))
            }
            Self::Cut { .. } | Self::Replaced { .. } | Self::Regrown(_) | Self::Stamp { .. } | Self::Base { .. } => {
                only(
                    "restore the log as it was and restart; or delete the topic, make it anew with `tallymark topic create` and \
                 begin its epoch with `tallymark lanes begin-epoch`: what was stored still counts, what was not is lost. To \
                 go on with this log is not safe: what is appended to it next would count as stored already",
                )
            }
            Self::Lost(_) => Advice { words: String::new(), command: Some("tallymark lanes begin-epoch".to_owned()) },
            Self::Recreated { .. } => by(
                "begin a new log epoch with {} (what was stored still counts), or point log.url to the old log",
                "tallymark lanes begin-epoch".to_owned(),
            ),
            Self::Epoch { .. } => by("begin that epoch with {}", "tallymark lanes begin-epoch".to_owned()),
            Self::Newer { .. } | Self::Unsupported { .. } => only("upgrade the workers"),
            Self::Unreadable { .. } => only("it is still in the log, and nothing after it was applied"),
            Self::Store(_) => only("mend the store; the lane tries again by itself"),
            Self::Log(_) => only("mend the log; the lane tries again by itself"),
        }
    }

    /// What a lane says of itself: what was found, and what to do.
    pub fn told(&self, partition: u32) -> String {
        match self.advice(partition).words {
            // It says so by itself.
            words if words.is_empty() => self.to_string(),
            words => format!("{self}; {words}"),
        }
    }

    /// What the lane notes of itself in the store.
    pub fn row(&self, lane: Lane, worker: String, since_ms: i64) -> HaltRow {
        let ((from, to), counts) = (self.seqs(), self.counts());
        HaltRow {
            lane,
            kind: self.kind().to_owned(),
            reason: self.told(lane.partition),
            command: self.advice(lane.partition).command,
            from,
            to,
            partitions: counts.map(|(partitions, _)| partitions),
            shards: counts.map(|(_, shards)| shards),
            worker,
            since_ms,
        }
    }

    /// The seqs that it is about: the first, and one past the last.
    pub fn seqs(&self) -> (Option<Seq>, Option<Seq>) {
        match *self {
            Self::Gap { start, next } => (Some(next), Some(start)),
            Self::Missing { expected, found } => (Some(expected), Some(found)),
            Self::Cut { end, seq } => (Some(end), Some(seq.next())),
            Self::Replaced { seq, .. }
            | Self::Stamp { seq, .. }
            | Self::Base { seq }
            | Self::Epoch { seq, .. }
            | Self::Claim { seq, .. }
            | Self::Newer { seq, .. }
            | Self::Unsupported { seq, .. }
            | Self::Unreadable { seq, .. } => (Some(seq), Some(seq.next())),
            Self::Recreated { .. } | Self::Lost(_) | Self::Regrown(_) | Self::Store(_) | Self::Log(_) => (None, None),
        }
    }

    /// The counts that no epoch has: partitions and shards.
    pub const fn counts(&self) -> Option<(u32, u32)> {
        match *self {
            Self::Epoch { partitions, shards, .. } => Some((partitions, shards)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_accepted_names_the_command_and_what_cannot_says_why() {
        let gap = Halt::Gap { start: Seq(20), next: Seq(10) };
        assert_eq!(gap.advice(3).command.as_deref(), Some("tallymark lanes accept-gap 3 10..20"));
        assert_eq!(
            gap.told(3),
            "the log starts at 20, the lane goes on at 10: 10 packs are gone; restore them, or accept the loss with \
             `tallymark lanes accept-gap 3 10..20`"
        );
        let cut = Halt::Cut { end: Seq(5), seq: Seq(9) };
        assert_eq!(cut.advice(0).command, None);
        assert!(
            cut.told(0).contains("restore") && cut.told(0).contains("`tallymark lanes begin-epoch`"),
            "{}",
            cut.told(0)
        );
        assert!(cut.told(0).contains("not safe"));
        let epoch = Halt::Epoch { seq: Seq(1), partitions: 6, shards: 256 };
        assert_eq!((epoch.counts(), epoch.seqs().0), (Some((6, 256)), Some(Seq(1))));
        assert_eq!(epoch.advice(0).command.as_deref(), Some("tallymark lanes begin-epoch"));
    }
}
