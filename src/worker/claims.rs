//! Claims: how a lane notices that the log itself has lost an acknowledged pack (law 6).
//!
//! A pack carries what the log acknowledged to its ingest before: "the record at offset q of this topic is pack p". The
//! lane remembers the packs of its last [`REMEMBERED`] seqs and halts when a claim contradicts them. Pure.

use std::collections::VecDeque;

use crate::item::{PackId, Seq, TopicId};

/// How many seqs back a lane remembers its packs.
const REMEMBERED: usize = 4096;

/// A claim that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The offset it names.
    pub at: Seq,
    /// The pack that was acknowledged there.
    pub claimed: PackId,
    /// What stands there now; `None` when the offset is not below the pack that makes the claim.
    pub found: Option<PackId>,
}

/// The packs of the last seqs.
#[derive(Debug, Default)]
pub struct Memory {
    /// `None` is a record that could not be read: whatever is claimed of it may be true.
    packs: VecDeque<Option<PackId>>,
    /// One past the last seq noted.
    next: Seq,
}

impl Memory {
    /// Notes that the record at `seq` is this pack. A gap forgets what was before it.
    pub fn note(&mut self, seq: Seq, pack: PackId) {
        self.push(seq, Some(pack));
    }

    /// Notes that the record at `seq` cannot be read.
    pub fn note_unknown(&mut self, seq: Seq) {
        self.push(seq, None);
    }

    fn push(&mut self, seq: Seq, pack: Option<PackId>) {
        if seq != self.next {
            self.packs.clear();
        }
        if self.packs.len() == REMEMBERED {
            self.packs.pop_front();
        }
        self.packs.push_back(pack);
        self.next = seq.next();
    }

    /// Checks a claim that the pack at `seq` makes.
    pub fn check(&self, topic_id: TopicId, seq: Seq, claim: (TopicId, Seq, PackId)) -> Result<(), Broken> {
        let (claimed_topic, at, claimed) = claim;
        if claimed_topic != topic_id {
            return Ok(());
        }
        if at >= seq {
            return Err(Broken { at, claimed, found: None });
        }
        let oldest = self.next.0 - self.packs.len() as u64;
        let found = at.0.checked_sub(oldest).and_then(|index| self.packs.get(usize::try_from(index).ok()?));
        match found {
            Some(Some(found)) if *found != claimed => Err(Broken { at, claimed, found: Some(*found) }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: TopicId = TopicId([1; 16]);

    fn pack(n: u8) -> PackId {
        PackId([n; 16])
    }

    #[test]
    fn a_claim_holds_when_the_same_pack_stands_there_or_nobody_remembers() {
        let mut memory = Memory::default();
        memory.note(Seq(10), pack(10));
        memory.note(Seq(11), pack(11));
        assert_eq!(memory.check(TOPIC, Seq(12), (TOPIC, Seq(10), pack(10))), Ok(()));
        assert_eq!(memory.check(TOPIC, Seq(12), (TOPIC, Seq(9), pack(77))), Ok(()), "before what is remembered");
        assert_eq!(memory.check(TOPIC, Seq(12), (TopicId([2; 16]), Seq(10), pack(77))), Ok(()), "another topic");
    }

    #[test]
    fn a_claim_of_another_pack_or_of_an_offset_not_below_is_broken() {
        let mut memory = Memory::default();
        memory.note(Seq(10), pack(10));
        let broken = memory.check(TOPIC, Seq(11), (TOPIC, Seq(10), pack(9))).unwrap_err();
        assert_eq!(broken.found, Some(pack(10)));
        assert_eq!(memory.check(TOPIC, Seq(11), (TOPIC, Seq(11), pack(9))).unwrap_err().found, None);
    }

    #[test]
    fn any_claim_may_hold_of_a_record_that_cannot_be_read() {
        let mut memory = Memory::default();
        memory.note(Seq(10), pack(10));
        memory.note_unknown(Seq(11));
        memory.note(Seq(12), pack(12));
        assert_eq!(memory.check(TOPIC, Seq(13), (TOPIC, Seq(11), pack(9))), Ok(()));
        assert!(memory.check(TOPIC, Seq(13), (TOPIC, Seq(10), pack(9))).is_err());
        assert!(memory.check(TOPIC, Seq(13), (TOPIC, Seq(12), pack(9))).is_err());
    }

    #[test]
    fn only_the_last_seqs_are_remembered() {
        let mut memory = Memory::default();
        for seq in 0..=REMEMBERED as u64 {
            memory.note(Seq(seq), pack(1));
        }
        let next = Seq(REMEMBERED as u64 + 1);
        assert!(memory.check(TOPIC, next, (TOPIC, Seq(0), pack(2))).is_ok());
        assert!(memory.check(TOPIC, next, (TOPIC, Seq(1), pack(2))).is_err());
    }
}
