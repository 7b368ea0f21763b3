//! The lane as a pure function of its log (law 2): records in, rows and verdicts out.
//!
//! The machine decodes, checks order and claims, computes the stamp, asks the dedup window and folds. It knows no clock
//! and does no I/O: `lane` reads the log for it, loads what [`Machine::prepare`] misses, and writes what
//! [`Machine::take`] hands out.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    bugs::{self, Bug},
    item::{Coordinates, IdScope, Lane, Namespace, PackId, Seq, Stamp},
    log::{Class, Record},
    pack::{self, Pack},
    store::{Checkpoint, Counted, EpochRow, EventRow, Replayed},
    worker::{
        accepted::Accepted,
        claims::{Broken, Memory},
        dedup::Window,
        fold::{Fold, Missing, RowId, Taken, Target},
        halt::Halt,
        poison::{self, Poison, Refusal},
        replays::Replays,
    },
};

mod bases;
mod corrections;
mod gaps;
mod letters;
#[cfg(test)]
mod tests;

/// A record that was decoded and waits to be applied.
pub struct Read {
    /// Its offset.
    pub seq: Seq,
    /// The log's clock when it was appended.
    pub append_ms: i64,
    leader_epoch: Option<i32>,
    /// Which dead letter it replays.
    replayed: Option<Coordinates>,
    pack: Pack,
}

impl Read {
    /// Decodes a record.
    ///
    /// # Errors
    /// It cannot be read: poison. It is newer, or carries what this version does not apply: a halt.
    pub fn decode(record: &Record) -> Result<Self, Refusal> {
        let seq = record.seq;
        if let Some(damage) = &record.damage {
            return Err(Poison::new(Class::Damaged, damage).into());
        }
        let pack = pack::decode(record.format, record.payload.clone()).map_err(|error| match error {
            pack::Error::Newer(_) => Refusal::Halt(Halt::Newer { seq, error }),
            error => Poison::new(Class::Malformed, error.to_string()).into(),
        })?;
        let unsupported = [
            (pack.observations.is_some(), "observations"),
            (!pack.erasures.is_empty(), "erasures"),
            (pack.control.is_some(), "control settings"),
        ];
        let unsupported = unsupported.into_iter().find(|(carried, _)| *carried).map(|(_, what)| what);
        if let Some(what) = unsupported.or_else(|| corrections::unsupported(&pack)) {
            return Err(Halt::Unsupported { seq, what }.into());
        }
        if let Some(event) = pack.events.iter().find(|event| Namespace::parse(&event.namespace).is_err()) {
            let reason = format!("an event's namespace is malformed: {:?}", event.namespace);
            return Err(Poison::new(Class::Malformed, reason).into());
        }
        let replayed = poison::replayed(&pack);
        Ok(Self { seq, append_ms: record.append_ms, leader_epoch: record.leader_epoch, replayed, pack })
    }

    /// Somebody waits for it to be stored.
    pub fn is_urgent(&self) -> bool {
        self.pack.urgent
    }

    /// When its ingest closed it, in milliseconds since 1970.
    pub fn receive_ms(&self) -> i64 {
        self.pack.receive_ms
    }

    /// How many series it names.
    pub fn series(&self) -> usize {
        let named = self.pack.increments.as_ref().map_or(0, |increments| increments.key_lengths.len());
        named + self.pack.corrections.len()
    }

    /// When it carries corrections: the lowest seq that one of them was computed up to.
    pub fn corrects(&self) -> Option<Seq> {
        self.pack.corrections.iter().map(|correction| Seq(correction.as_of)).min()
    }

    /// The pack's own id.
    pub fn pack_id(&self) -> PackId {
        self.pack.pack_id()
    }
}

/// What applying one pack did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Applied {
    /// Items that it carried.
    pub items: usize,
    /// Those of them that were dropped as duplicates.
    pub duplicates: usize,
}

/// The name of what stood where packs were given up and are gone.
pub const NO_PACK: PackId = PackId([0; 16]);

/// The last record applied.
#[derive(Clone, Copy, Debug)]
struct Last {
    seq: Seq,
    stamp: Stamp,
    pack: PackId,
    leader_epoch: Option<i32>,
}

/// The state of one lane.
pub struct Machine {
    lane: Lane,
    next: Seq,
    stamp: Stamp,
    last: Option<Last>,
    window: Window,
    memory: Memory,
    /// What of its log was given up.
    accepted: Accepted,
    fold: Fold,
    events: Vec<EventRow>,
    event_bytes: usize,
    /// Bases that were read ahead of the lane, with the stamp that the log must compute there (law 4).
    unmet: BTreeMap<Seq, Stamp>,
    broken_base: Option<Seq>,
    /// The stamps of what was applied since the checkpoint, up to `next`: a base that is read later must have the same.
    applied: VecDeque<Stamp>,
    /// The one that the checkpoint named: its row may not have been read since.
    carried_unmet: Option<Seq>,
    /// What the store says to have, ahead of the lane, and its stamp: the log must compute it there.
    stored: Option<(Seq, Stamp)>,
    counted: Counted,
    /// Records that are dead letters for good; the newest of them.
    letters: BTreeSet<Seq>,
    replays: Replays,
    targets: Vec<Target>,
    sums: Vec<(i128, u32)>,
    /// The rows of the corrections that are prepared.
    corrected: Vec<RowId>,
}

impl Machine {
    /// A lane that begins at `next`, the stamp before it being `stamp`. `epochs` are the topic's, oldest first; the
    /// first of this topic id pins the dedup window. Those of its other lives are not the lane's.
    pub fn new(lane: Lane, next: Seq, stamp: Stamp, mut epochs: Vec<EpochRow>, max_rows: usize) -> Self {
        epochs.retain(|epoch| epoch.topic_id == lane.topic_id);
        let (window_us, max_ids) = epochs.first().map_or((0, 1), |epoch| (epoch.dedup_window_us, epoch.dedup_max_ids));
        Self {
            lane,
            next,
            stamp,
            last: None,
            window: Window::new(window_us, max_ids),
            memory: Memory::default(),
            accepted: Accepted::default(),
            fold: Fold::new(lane.partition, epochs, max_rows),
            events: Vec::new(),
            event_bytes: 0,
            unmet: BTreeMap::new(),
            broken_base: None,
            applied: VecDeque::new(),
            carried_unmet: None,
            stored: None,
            counted: Counted::since(next),
            letters: BTreeSet::new(),
            replays: Replays::default(),
            targets: Vec::new(),
            sums: Vec::new(),
            corrected: Vec::new(),
        }
    }

    /// The same lane, of whose log this was given up. Before the first record.
    #[must_use]
    pub fn with(mut self, accepted: Accepted) -> Self {
        self.accepted = accepted;
        self
    }

    /// Notes a pack that is below the checkpoint, while the window is rebuilt: its ids, not its amounts.
    pub fn rebuild(&mut self, read: &Read) -> Result<(), Halt> {
        let stamp = self.begin(read)?;
        self.note_all(&read.pack);
        self.end(read, stamp);
        Ok(())
    }

    /// Sets the stamp of the last record rebuilt: the checkpoint's.
    pub fn resume_at(&mut self, checkpoint: &Checkpoint) {
        self.stamp = checkpoint.stamp;
        self.next = checkpoint.seq.next();
        self.last = Some(Last {
            seq: checkpoint.seq,
            stamp: checkpoint.stamp,
            pack: checkpoint.pack,
            leader_epoch: checkpoint.leader_epoch,
        });
        self.carried_unmet = checkpoint.unmet_base;
        self.counted = checkpoint.counted;
        self.applied.clear();
    }

    /// Resolves the pack's series; what is missing must be read and installed, and the pack prepared again.
    ///
    /// # Errors
    /// Poison: a series of another lane. A halt: counts that no epoch has.
    pub fn prepare(&mut self, read: &Read) -> Result<Missing, Refusal> {
        if self.accepted.gap_at(read.seq).is_some() {
            return Ok(Missing::default());
        }
        let Pack { partitions, shards, increments, .. } = &read.pack;
        let epoch = self.fold.epoch(*partitions, *shards).ok_or(Halt::Epoch {
            seq: read.seq,
            partitions: *partitions,
            shards: *shards,
        })?;
        let misplaced = |_| Refusal::from(Poison::misplaced());
        let mut missing = match increments {
            None => Missing::default(),
            Some(increments) => {
                let keys = increments.dictionary().map(|entry| entry.key);
                self.fold.prepare(epoch, keys, &mut self.targets).map_err(misplaced)?
            }
        };
        self.prepare_corrections(epoch, read, &mut missing).map_err(misplaced)?;
        Ok(missing)
    }

    /// Applies a pack that is prepared.
    pub fn apply(&mut self, read: &Read) -> Result<Applied, Halt> {
        if let Some(seq) = self.broken_base {
            return Err(Halt::Base { seq });
        }
        let stamp = self.begin(read)?;
        self.meet_stored(read.seq, stamp)?;
        if self.accepted.gap_at(read.seq).is_some() {
            self.note_all(&read.pack);
            self.end(read, stamp);
            self.applied.push_back(stamp);
            return Ok(Applied::default());
        }
        if self.unmet.remove(&read.seq).is_some_and(|expected| expected != stamp) {
            return Err(Halt::Base { seq: read.seq });
        }
        let pack = &read.pack;
        let mut applied = Applied { items: pack.items(), duplicates: 0 };
        let mut amount = 0;
        let is_replayed = self.is_replayed_before(read);
        if (self.window.note(&pack.pack_id().0) && !bugs::on(Bug::PackNotNoted)) || is_replayed {
            // The record, or the replay, stands twice in the log: the second one only counts as seen.
            self.note_items(pack);
            applied.duplicates = applied.items;
            // Ingest may have shown it in the hot view under this seq: a publish takes it out again.
            for target in self.targets.iter().filter(|_| pack.increments.is_some()) {
                self.fold.add(*target, read.seq, stamp, 0, 0);
            }
        } else {
            amount = self.fold_increments(read, stamp, &mut applied);
            self.take_events(read, stamp, &mut applied);
            self.apply_corrections(read, stamp);
            if let Some(at) = read.replayed {
                self.replays.apply(at, Replayed { topic_id: self.lane.topic_id, seq: read.seq, stamp });
            }
        }
        self.counted.add((applied.items - applied.duplicates) as u64, applied.duplicates as u64, amount);
        self.end(read, stamp);
        self.applied.push_back(stamp);
        Ok(applied)
    }

    /// Folds what is no duplicate, and answers its sum.
    fn fold_increments(&mut self, read: &Read, stamp: Stamp, applied: &mut Applied) -> i128 {
        let Some(increments) = &read.pack.increments else { return 0 };
        self.sums.clear();
        self.sums.resize(self.targets.len(), (0, 0));
        let mut fold = |series: u32, amount: i64| {
            let (sum, items) = &mut self.sums[series as usize];
            *sum += i128::from(amount);
            if bugs::on(Bug::OverflowPerDelta) {
                *sum = (*sum).clamp(i64::MIN.into(), i64::MAX.into());
            }
            *items += 1;
        };
        let mut columns = increments.series.iter().zip(&increments.amounts);
        self.window.note_all(increments.ids(), |seen| match columns.next() {
            Some((series, amount)) if !seen => fold(*series, *amount),
            _ => applied.duplicates += 1,
        });
        columns.for_each(|(series, amount)| fold(*series, *amount));
        for (target, (sum, items)) in self.targets.iter().zip(&self.sums) {
            self.fold.add(*target, read.seq, stamp, *sum, *items);
        }
        self.sums.iter().fold(0, |all: i128, (sum, _)| all.wrapping_add(*sum))
    }

    fn take_events(&mut self, read: &Read, stamp: Stamp, applied: &mut Applied) {
        for event in &read.pack.events {
            let id = IdScope::event(&event.namespace, &event.name).id(event.id.as_bytes());
            if self.window.note(&id.0) {
                applied.duplicates += 1;
                continue;
            }
            let subject = Some(event.subject.as_str()).filter(|subject| !subject.is_empty());
            let row = EventRow {
                namespace: Namespace::parse(&event.namespace).expect("checked when the record was decoded"),
                name: event.name.as_str().into(),
                subject: subject.map(Arc::from),
                time_ms: event.time_ms,
                id: event.id.as_str().into(),
                properties: Bytes::copy_from_slice(&event.properties),
                received_ms: read.pack.receive_ms,
                stamp,
            };
            self.event_bytes += row.name.len() + row.id.len() + event.subject.len() + row.properties.len() + 200;
            self.events.push(row);
        }
    }

    /// Order, claims and stamp of a record.
    fn begin(&mut self, read: &Read) -> Result<Stamp, Halt> {
        let way = self.way_to(read.seq)?;
        for claim in read.pack.claims.iter().filter(|_| !bugs::on(Bug::ClaimsUnchecked)) {
            match self.memory.check(self.lane.topic_id, read.seq, claim.parts()) {
                Err(claim) if !self.accepted.forgives_claims_of(read.seq) => {
                    return Err(self.broken(read.seq, claim));
                }
                _ => {}
            }
        }
        self.go(&way);
        let append_ms = if bugs::on(Bug::StampFromWallClock) { bugs::worker_ms() } else { read.append_ms };
        let stamp = way.stamp(|before| before.after(append_ms, read.pack.receive_ms));
        self.window.begin(read.seq, stamp, way.before);
        Ok(stamp)
    }

    /// What a claim of the pack at `seq` means that does not hold. When the lane has stored that pack already the claim held then: the
    /// log is another one, and accepting its loss would not make it the one that it was.
    fn broken(&self, seq: Seq, claim: Broken) -> Halt {
        match self.stored.filter(|(stored, _)| *stored >= seq) {
            Some((stored, _)) => Halt::Regrown(format!(
                "pack {seq} says that {:?} was acknowledged at {}, which does not stand there, and {stored} is stored already",
                claim.claimed, claim.at
            )),
            None => Halt::Claim { seq, claim },
        }
    }

    fn end(&mut self, read: &Read, stamp: Stamp) {
        let pack = read.pack.pack_id();
        self.memory.note(read.seq, pack);
        self.last = Some(Last { seq: read.seq, stamp, pack, leader_epoch: read.leader_epoch });
        self.stamp = stamp;
        self.next = read.seq.next();
    }

    fn note_all(&mut self, pack: &Pack) {
        self.window.note(&pack.pack_id().0);
        self.note_items(pack);
    }

    fn note_items(&mut self, pack: &Pack) {
        if let Some(increments) = &pack.increments {
            self.window.note_all(increments.ids(), |_| {});
        }
        for event in &pack.events {
            let id = IdScope::event(&event.namespace, &event.name).id(event.id.as_bytes());
            self.window.note(&id.0);
        }
    }

    /// What the checkpoint would be if everything applied so far were stored; `None` before the first record.
    pub fn mark(&self) -> Option<Checkpoint> {
        let last = self.last?;
        let begins = self.window.begins();
        Some(Checkpoint {
            lane: self.lane,
            seq: last.seq,
            leader_epoch: last.leader_epoch,
            pack: last.pack,
            stamp: last.stamp,
            dedup_from: begins.map_or(last.seq.next(), |begins| begins.from),
            dedup_stamp: begins.map_or(last.stamp, |begins| begins.stamp),
            unmet_base: self.highest_unmet(),
            counted: self.counted,
        })
    }

    /// Hands out what is owed to the store: rows and events.
    pub fn take(&mut self) -> (Taken, Vec<EventRow>) {
        self.event_bytes = 0;
        (self.fold.take(), std::mem::take(&mut self.events))
    }

    /// The rows.
    pub fn fold(&self) -> &Fold {
        &self.fold
    }

    /// Takes the topic's epochs as they are now.
    pub fn set_epochs(&mut self, mut epochs: Vec<EpochRow>) {
        epochs.retain(|epoch| epoch.topic_id == self.lane.topic_id);
        self.fold.set_epochs(epochs);
    }

    /// The rows, for eviction.
    pub fn fold_mut(&mut self) -> &mut Fold {
        &mut self.fold
    }

    /// What it has counted.
    pub fn counted(&self) -> &Counted {
        &self.counted
    }

    /// The dedup window.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// The next seq that it takes.
    pub fn next(&self) -> Seq {
        self.next
    }

    /// The stamp of the last record.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// About how many bytes of events wait for the store.
    pub fn event_bytes(&self) -> usize {
        self.event_bytes
    }

    /// How many events wait for the store.
    pub fn events(&self) -> usize {
        self.events.len()
    }
}
