//! Dead letters in the machine: what makes a record one, and what a lane does with one and with its replay.

use super::{
    Class, Coordinates, Halt, Last, Machine, Poison, Read, Record, Refusal, Replayed, Seq, Stamp,
    bugs::{self, Bug},
    poison::{check_placement, check_replay, name},
};

/// Dead letters that a lane remembers, to see that no row names one.
const REMEMBERED: usize = 1 << 16;

impl Machine {
    /// Takes the records that the store knows as dead letters: they stay so, whatever this program could make of them.
    pub fn know_letters(&mut self, letters: impl IntoIterator<Item = Seq>) {
        for seq in letters {
            self.know_letter(seq);
        }
    }

    fn know_letter(&mut self, seq: Seq) {
        self.letters.insert(seq);
        // Those that lie ahead must be met first.
        if self.letters.len() > REMEMBERED && self.letters.first().is_some_and(|first| *first < self.next) {
            self.letters.pop_first();
        }
    }

    /// Decodes a record, and says whether this lane may apply it.
    ///
    /// # Errors
    /// Poison, or a halt.
    pub fn judge(&self, record: &Record) -> Result<Read, Refusal> {
        let judged = Read::decode(record).and_then(|read| {
            if let Some(at) = read.replayed {
                check_replay(at, self.lane, read.seq)?;
            }
            Ok(read)
        });
        match judged {
            Err(Refusal::Poison(poison)) => Err(poison.into()),
            _ if self.letters.contains(&record.seq) => {
                let reason = "it can be read now, and could not be when its lane met it first: replay it";
                Err(Poison::new(Class::Before, reason).into())
            }
            judged => judged,
        }
    }

    /// The same for whoever does not fold: with what [`Machine::prepare`] finds wrong.
    ///
    /// # Errors
    /// Poison, or a halt.
    pub fn judge_whole(&self, record: &Record) -> Result<Read, Refusal> {
        let read = self.judge(record)?;
        check_placement(&read.pack, self.lane.partition)?;
        Ok(read)
    }

    /// Notes a record that is below the checkpoint, while the window is rebuilt, as it was judged when it was met first.
    ///
    /// # Errors
    /// A halt.
    pub fn rebuild_from(&mut self, record: &Record) -> Result<(), Halt> {
        match self.judge_whole(record) {
            Ok(read) => self.rebuild(&read),
            Err(Refusal::Poison(_)) => self.bury(record),
            Err(Refusal::Halt(halt)) => Err(halt),
        }
    }

    /// The stamp that a dead letter has that comes next, at `seq`.
    ///
    /// # Errors
    /// A halt: the record is not the next one.
    pub fn letter_stamp(&self, seq: Seq) -> Result<Stamp, Halt> {
        Ok(self.way_to(seq)?.stamp(Stamp::after_unreadable))
    }

    /// Passes a record that is a dead letter: it takes a stamp, and nothing of it counts or is noted.
    ///
    /// # Errors
    /// A halt: the record is not the next one, or a row was written at its seq, so that it could be read once.
    pub fn bury(&mut self, record: &Record) -> Result<(), Halt> {
        let seq = record.seq;
        let way = self.way_to(seq)?;
        if let Some(seq) = self.broken_base {
            return Err(Halt::Base { seq });
        }
        if self.unmet.remove(&seq).is_some() {
            return Err(Halt::Base { seq });
        }
        let stamp = way.stamp(Stamp::after_unreadable);
        self.meet_stored(seq, stamp)?;
        self.go(&way);
        self.memory.note_unknown(seq);
        self.know_letter(seq);
        self.last = Some(Last { seq, stamp, pack: name(&record.payload), leader_epoch: record.leader_epoch });
        self.stamp = stamp;
        self.next = seq.next();
        self.applied.push_back(stamp);
        Ok(())
    }

    /// The dead letter that this pack replays, if what has become of it must be read first.
    pub fn lacks_replay(&self, read: &Read) -> Option<Coordinates> {
        read.replayed.filter(|at| self.replays.lacks(*at))
    }

    /// Takes what the store knows of a dead letter's replay. A pack that is ahead of the lane must be met again (law 4).
    pub fn install_replay(&mut self, at: Coordinates, by: Option<Replayed>) {
        if let Some(by) = by.filter(|by| by.topic_id == self.lane.topic_id) {
            self.install(|_, met| met(by.seq, by.stamp));
        }
        self.replays.install(at, by);
    }

    /// Whether an earlier pack has applied the dead letter that this one replays.
    pub(super) fn is_replayed_before(&self, read: &Read) -> bool {
        let is_before = |at| self.replays.is_applied_before(at, self.lane.topic_id, read.seq);
        read.replayed.is_some_and(is_before) && !bugs::on(Bug::ReplayCountsAgain)
    }

    /// Hands out which dead letters were replayed, owed to the store.
    pub fn take_replayed(&mut self) -> Vec<(Coordinates, Replayed)> {
        self.replays.take()
    }

    /// How many of those wait for the store.
    pub fn replays_owed(&self) -> usize {
        self.replays.owed()
    }

    /// The checkpoint has passed everything below.
    pub fn forget_replays(&mut self, covered: Seq) {
        self.replays.forget_below(self.lane.topic_id, covered);
        self.forget_applied(covered);
    }

    /// Forgets the stamps of what was applied below this seq: no base from there is read any more that the log could break.
    pub fn forget_applied(&mut self, covered: Seq) {
        let ahead = self.next.0.saturating_sub(covered.0);
        let passed = (self.applied.len() as u64).saturating_sub(ahead);
        self.applied.drain(..passed as usize);
    }
}
