//! Taking a lane over: where it goes on, and whether the log is still the one that the checkpoint was taken from (law 6).
//!
//! Kafka and a restored disk do not report every loss by themselves, so each way in which the log can differ is looked for
//! here, and answered with a halt that names its remedy. Then the dedup window is rebuilt from the log (law 7).

use crate::{
    bugs::{self, Bug},
    item::{Lane, Seq, Stamp},
    log::{self, Bounds, Record},
    retry::{self, Classified as _, Kind},
    store::{Checkpoint, EpochRow, LaneRow},
    worker::{
        accepted::Accepted,
        flush::Context,
        halt::Halt,
        machine::{Machine, NO_PACK},
        poison::{self, Refusal},
    },
};

/// Bytes read at a time while the window is rebuilt.
const REBUILD_BYTES: usize = 4 << 20;

/// Dead letters read at a time.
const LETTERS_PAGE: usize = 5_000;

/// A lane that is ready to go on.
pub struct Resumed {
    /// Its state.
    pub machine: Machine,
    /// One past its checkpoint.
    pub covered: Seq,
    /// The leader epoch to open the log with.
    pub leader_epoch: Option<i32>,
    /// One past what the store has said to have.
    pub stored: Seq,
}

impl Context {
    /// Reads a lane's checkpoint, checks the log against it and rebuilds the lane's state.
    pub(super) async fn resume(&self, lane: Lane) -> Result<Resumed, Halt> {
        let rows = self.settled(lane, || self.store.lanes(self.topic())).await?;
        let epochs = self.settled(lane, || self.store.epochs(self.topic())).await?;
        let remedies = self.settled(lane, || self.store.remedies(self.topic())).await?;
        let accepted = Accepted::of(lane, &remedies);
        let bounds = self.log_settled(lane, || self.log.bounds(lane.partition)).await?;
        let row = rows.iter().find(|row| row.lane == lane);
        check(lane, bounds, row, &epochs, &accepted)?;
        let stored = row.and_then(|row| row.stored).map_or(Seq(0), Seq::next);
        let (checkpoint, begin) = known(row, &accepted);
        let Some(checkpoint) = checkpoint else {
            let mut machine = Machine::new(lane, begin, Stamp(0), epochs, self.options.max_rows).with(accepted);
            machine.know_letters(self.letters_from(lane, begin).await?);
            machine.expect_stored(row.and_then(LaneRow::stored_at));
            machine.cross(bounds.start);
            return Ok(Resumed { machine, covered: begin, leader_epoch: None, stored });
        };
        let short = u64::from(bugs::on(Bug::WindowOneShort) && checkpoint.dedup_from < checkpoint.seq);
        let from = Seq(checkpoint.dedup_from.0 + short).max(bounds.start);
        let machine = Machine::new(lane, from, checkpoint.dedup_stamp, epochs, self.options.max_rows);
        let mut machine = machine.with(accepted.clone());
        machine.know_letters(self.letters_from(lane, from).await?);
        let checked = Some((checkpoint.seq, checkpoint.stamp));
        machine.expect_stored(checked.max(row.and_then(LaneRow::stored_at)));
        let mut at = from;
        while at <= checkpoint.seq {
            let read = self.log_tried(lane, || self.log.read(lane.partition, at, REBUILD_BYTES)).await;
            let records = match read {
                Ok(records) => records,
                Err(error) => return Err(self.broken_off(lane, at, error).await),
            };
            let within: Vec<&Record> = records.iter().filter(|record| record.seq <= checkpoint.seq).collect();
            if within.is_empty() {
                return Err(Halt::Log(format!("nothing could be read at {at}, below its end {}", bounds.end)));
            }
            for record in within {
                at = record.seq.next();
                if bugs::on(Bug::ResumeAfterCheckpoint) && record.seq == checkpoint.seq {
                    break;
                }
                if record.seq == checkpoint.seq && checkpoint.pack != NO_PACK {
                    identify(checkpoint, record, &machine)?;
                }
                machine.rebuild_from(record)?;
            }
        }
        // A log whose front was removed since cannot compute the first stamps any more, nor one of which packs were given up
        // after the checkpoint was written; a whole one must arrive at the same.
        let whole = from == checkpoint.dedup_from
            && !accepted.is_from_before(checkpoint.seq, checkpoint.stamp)
            && !bugs::on(Bug::ResumeAfterCheckpoint);
        if whole && from <= checkpoint.seq && machine.stamp() != checkpoint.stamp {
            return Err(Halt::Stamp { from, seq: checkpoint.seq });
        }
        machine.resume_at(checkpoint);
        machine.expect_stored(row.and_then(LaneRow::stored_at));
        machine.cross(bounds.start);
        let covered = checkpoint.seq.next();
        Ok(Resumed { machine, covered, leader_epoch: checkpoint.leader_epoch, stored: stored.max(covered) })
    }

    /// The records from `from` on that the store knows as dead letters of this lane.
    async fn letters_from(&self, lane: Lane, from: Seq) -> Result<Vec<Seq>, Halt> {
        let (mut letters, mut from) = (Vec::new(), from);
        loop {
            let asked = || self.store.letters(self.topic(), lane, from, Seq(u64::MAX), LETTERS_PAGE);
            let page = self.settled(lane, asked).await?;
            letters.extend(page.iter().map(|row| row.seq));
            match page.last().filter(|_| page.len() == LETTERS_PAGE) {
                Some(last) => from = last.seq.next(),
                None => return Ok(letters),
            }
        }
    }

    /// Tries one read of the log until it succeeds or fails for good.
    pub(super) async fn log_settled<T, F: Future<Output = Result<T, log::Error>>>(
        &self,
        lane: Lane,
        operation: impl FnMut() -> F,
    ) -> Result<T, Halt> {
        self.log_tried(lane, operation)
            .await
            .map_err(|error| self.log.lost().map_or_else(|| Halt::Log(error.to_string()), Halt::Lost))
    }

    /// The same, for whoever knows what a failure for good means.
    pub(super) async fn log_tried<T, F: Future<Output = Result<T, log::Error>>>(
        &self,
        lane: Lane,
        operation: impl FnMut() -> F,
    ) -> Result<T, log::Error> {
        let mut pause = None;
        retry::until_settled(&self.retry, operation, |error| {
            if pause.is_none() {
                tracing::warn!(partition = lane.partition, error = %error, "log failed, lane waits");
                pause = Some(self.board.pause(lane.partition, format!("the log does not answer: {error}")));
            }
        })
        .await
        .inspect_err(|error| debug_assert_ne!(error.kind(), Kind::Transient))
    }

    /// What it means for a lane that wants `next` that it cannot go on reading the log.
    pub(super) async fn broken_off(&self, lane: Lane, next: Seq, error: log::Error) -> Halt {
        if let Some(why) = self.log.lost() {
            return Halt::Lost(why);
        }
        if !error.gone {
            return Halt::Log(error.to_string());
        }
        match self.log.bounds(lane.partition).await {
            Ok(Bounds { start, .. }) if start > next => Halt::Gap { start, next },
            Ok(Bounds { end, .. }) if end < next => Halt::Cut { end, seq: Seq(next.0 - 1) },
            Ok(_) => Halt::Regrown(error.to_string()),
            Err(_) => Halt::Log(error.to_string()),
        }
    }
}

/// A lane's checkpoint, if it has one that counts, and the first seq that is not below it.
fn known<'a>(row: Option<&'a LaneRow>, accepted: &Accepted) -> (Option<&'a Checkpoint>, Seq) {
    match row.and_then(|row| row.checkpoint.as_ref()) {
        None => (None, Seq(0)),
        Some(checkpoint) => match accepted.overrules(checkpoint.seq, checkpoint.stamp) {
            None => (Some(checkpoint), checkpoint.seq.next()),
            Some(begin) => (None, begin),
        },
    }
}

/// Whether the log can be the one that the store knows.
pub fn check(
    lane: Lane,
    bounds: Bounds,
    row: Option<&LaneRow>,
    epochs: &[EpochRow],
    accepted: &Accepted,
) -> Result<(), Halt> {
    if !epochs.iter().any(|epoch| epoch.topic_id == lane.topic_id)
        && let Some(other) = epochs.last()
    {
        return Err(Halt::Recreated { stored: other.topic_id, found: lane.topic_id });
    }
    let (checkpoint, next) = known(row, accepted);
    let (next, _) = accepted.cross(next, bounds.start);
    if bounds.start > next {
        return Err(Halt::Gap { start: bounds.start, next });
    }
    let highest = checkpoint
        .iter()
        .flat_map(|checkpoint| [Some(checkpoint.seq), checkpoint.unmet_base])
        .chain([row.and_then(|row| row.stored)])
        .flatten()
        .max();
    match highest {
        Some(seq) if bounds.end <= seq => Err(Halt::Cut { end: bounds.end, seq }),
        _ => Ok(()),
    }
}

/// Whether the record at the checkpoint's seq is the one that it names.
fn identify(checkpoint: &Checkpoint, record: &Record, machine: &Machine) -> Result<(), Halt> {
    let found = match machine.judge_whole(record) {
        Ok(read) => read.pack_id(),
        Err(Refusal::Poison(_)) => poison::name(&record.payload),
        Err(Refusal::Halt(halt @ Halt::Newer { .. })) => return Err(halt),
        // What it carries this version does not apply, and no version has: it is another log's.
        Err(Refusal::Halt(_)) => poison::name(&record.payload),
    };
    if found == checkpoint.pack {
        Ok(())
    } else {
        Err(Halt::Replaced { seq: checkpoint.seq, expected: checkpoint.pack, found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        item::{Epoch, PackId, TopicId},
        store::Counted,
    };

    const LANE: Lane = Lane { topic_id: TopicId([1; 16]), partition: 0 };

    fn epoch(topic_id: TopicId) -> EpochRow {
        EpochRow {
            epoch: Epoch::of(topic_id, 1, 1),
            topic_id,
            cluster_id: String::new(),
            partitions: 1,
            shards: 1,
            dedup_window_us: 1,
            dedup_max_ids: 1,
            created_ms: 0,
        }
    }

    fn row(seq: u64, unmet: Option<u64>, stored: Option<u64>) -> LaneRow {
        let checkpoint = Checkpoint {
            lane: LANE,
            seq: Seq(seq),
            leader_epoch: None,
            pack: PackId([0; 16]),
            stamp: Stamp(0),
            dedup_from: Seq(0),
            dedup_stamp: Stamp(0),
            unmet_base: unmet.map(Seq),
            counted: Counted::since(Seq(0)),
        };
        LaneRow { checkpoint: Some(checkpoint), stored: stored.map(Seq), ..LaneRow::blank(LANE) }
    }

    fn bounds(start: u64, end: u64) -> Bounds {
        Bounds { start: Seq(start), end: Seq(end) }
    }

    #[test]
    fn a_log_that_holds_what_the_checkpoint_names_is_taken() {
        let epochs = [epoch(LANE.topic_id)];
        assert_eq!(check(LANE, bounds(0, 0), None, &epochs, &Accepted::default()), Ok(()), "a first start");
        assert_eq!(check(LANE, bounds(0, 10), Some(&row(9, None, Some(9))), &epochs, &Accepted::default()), Ok(()));
        assert_eq!(
            check(LANE, bounds(10, 10), Some(&row(9, None, Some(9))), &epochs, &Accepted::default()),
            Ok(()),
            "emptied by retention"
        );
        assert_eq!(
            check(LANE, bounds(3, 20), Some(&row(9, Some(15), Some(12))), &epochs, &Accepted::default()),
            Ok(())
        );
    }

    #[test]
    fn a_log_that_lost_its_front_or_its_end_or_its_identity_halts_the_lane() {
        let epochs = [epoch(LANE.topic_id)];
        let gap = |start, next| Err(Halt::Gap { start: Seq(start), next: Seq(next) });
        assert_eq!(check(LANE, bounds(1, 5), None, &epochs, &Accepted::default()), gap(1, 0));
        assert_eq!(check(LANE, bounds(11, 20), Some(&row(9, None, None)), &epochs, &Accepted::default()), gap(11, 10));
        let cut = |end, seq| Err(Halt::Cut { end: Seq(end), seq: Seq(seq) });
        assert_eq!(check(LANE, bounds(0, 9), Some(&row(9, None, None)), &epochs, &Accepted::default()), cut(9, 9));
        assert_eq!(
            check(LANE, bounds(0, 12), Some(&row(9, Some(12), None)), &epochs, &Accepted::default()),
            cut(12, 12)
        );
        assert_eq!(
            check(LANE, bounds(0, 12), Some(&row(9, None, Some(30))), &epochs, &Accepted::default()),
            cut(12, 30)
        );
        let other = TopicId([2; 16]);
        let recreated = Halt::Recreated { stored: other, found: LANE.topic_id };
        assert_eq!(check(LANE, bounds(0, 0), None, &[epoch(other)], &Accepted::default()), Err(recreated));
    }
}
