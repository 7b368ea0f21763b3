//! What a lane must be: the definition of the laws, literally, over the whole history of its log. Nothing of it is shared
//! with the production code but the record's format and the names of rows.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tallymark::{
    item::{Coordinates, IdScope, Lane, Namespace, Seq, SeriesRef, Shard, Stamp, TopicId, series_hash},
    log::Record,
    pack::{self, Pack},
    store::{EpochRow, EventRow, RowName, ShardKey},
    worker::accepted::Gap,
};

/// A row's content from one seq on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    pub seq: Seq,
    pub stamp: Stamp,
    pub total: i128,
}

pub type RowKey = (ShardKey, RowName);

/// One lane, recounted from its log.
pub struct Recount {
    lane: Lane,
    epochs: Vec<EpochRow>,
    window_us: i64,
    max_ids: u64,
    /// Every content that each row has had.
    pub rows: BTreeMap<RowKey, Vec<Version>>,
    /// Events that were not dropped.
    pub events: Vec<(Seq, EventRow)>,
    /// By seq.
    pub stamps: Vec<Stamp>,
    /// The same as the dedup window tells time: a leap of the stamps over what was given up makes nothing older.
    times: Vec<i64>,
    /// Which notes each id was, the last one, and of which seq.
    noted: HashMap<[u8; 16], (u64, usize)>,
    notes: u64,
    /// What an operator has given up of the log.
    gaps: Vec<Gap>,
    /// Records of the history that were taken.
    pub taken: usize,
    /// Records that nobody can read: each takes a stamp, and nothing of it counts.
    pub letters: BTreeSet<Seq>,
    /// Dead letters that were replayed, by which pack first.
    pub replayed: BTreeMap<Coordinates, Seq>,
    /// What cannot be applied stops the lane here.
    pub stopped: Option<(Seq, &'static str)>,
}

impl Recount {
    pub fn new(lane: Lane, epochs: Vec<EpochRow>) -> Self {
        // The lane of a topic that was made anew belongs to no layout yet.
        let stopped = epochs.is_empty().then_some((Seq(0), "Recreated"));
        let (window_us, max_ids) = epochs.first().map_or((0, 1), |epoch| (epoch.dedup_window_us, epoch.dedup_max_ids));
        Self {
            lane,
            epochs,
            window_us,
            max_ids,
            rows: BTreeMap::new(),
            events: Vec::new(),
            stamps: Vec::new(),
            times: Vec::new(),
            noted: HashMap::new(),
            notes: 0,
            gaps: Vec::new(),
            taken: 0,
            letters: BTreeSet::new(),
            replayed: BTreeMap::new(),
            stopped,
        }
    }

    /// An epoch was begun: what it stopped goes on. The first one pins the window.
    pub fn set_epochs(&mut self, epochs: &[EpochRow]) {
        let ours: Vec<EpochRow> = epochs.iter().filter(|epoch| epoch.topic_id == self.lane.topic_id).cloned().collect();
        if self.epochs.len() == ours.len() {
            return;
        }
        if self.epochs.is_empty() {
            (self.window_us, self.max_ids) = (ours[0].dedup_window_us, ours[0].dedup_max_ids);
        }
        self.epochs = ours;
        self.stopped.take_if(|(_, why)| matches!(*why, "Epoch" | "Recreated"));
    }

    /// An operator has given up these: what they stopped goes on behind them.
    pub fn give_up(&mut self, gap: Gap) {
        self.gaps.push(gap);
        self.stopped.take_if(|(_, why)| *why == "Missing");
    }

    /// The lane as it is when nothing is known but what the log still has from `start` on, where this was given up: what it adds
    /// to whatever the store has.
    pub fn behind(lane: Lane, epochs: Vec<EpochRow>, start: Seq, gap: Gap) -> Self {
        let mut recount = Self::new(lane, epochs);
        recount.gaps.push(gap);
        recount.taken = start.0 as usize;
        (0..start.0).for_each(|seq| recount.push(stamp_in(gap, Seq(seq.max(gap.from.0)))));
        recount
    }

    /// How many of the first packs a pack with this stamp finds expired.
    pub fn expired(&self, at: Stamp) -> usize {
        self.times.iter().take_while(|time| **time < at.0 - self.window_us).count()
    }

    /// One past what was recounted.
    pub fn next(&self) -> Seq {
        Seq(self.stamps.len() as u64)
    }

    /// Takes the history from where it stands.
    pub fn advance(&mut self, history: &[Record]) {
        while self.stopped.is_none()
            && let Some(record) = history.get(self.taken)
        {
            match self.apply(record) {
                Ok(()) => self.taken += 1,
                Err(why) => self.stopped = Some((Seq(self.stamps.len() as u64), why)),
            }
        }
    }

    /// A seq has this stamp. Time goes on with it, but not over what was given up.
    fn push(&mut self, stamp: Stamp) {
        let (before, gap) = (self.stamps.last().map_or(0, |stamp| stamp.0), self.gap_at(self.next()));
        if let Some(leap) = gap.map(|gap| gap.floor.0 - before).filter(|leap| *leap > 0) {
            self.times.iter_mut().for_each(|time| *time += leap);
        }
        self.stamps.push(stamp);
        self.times.push(stamp.0);
    }

    fn gap_at(&self, seq: Seq) -> Option<Gap> {
        self.gaps.iter().find(|gap| gap.from <= seq && seq < gap.to).copied()
    }

    fn apply(&mut self, record: &Record) -> Result<(), &'static str> {
        while self.next() < record.seq {
            let gap = self.gap_at(self.next()).ok_or("Missing")?;
            self.push(stamp_in(gap, self.next()));
        }
        let given_up = self.gap_at(record.seq).map(|gap| stamp_in(gap, record.seq));
        let previous = self.stamps.last().map_or(0, |stamp| stamp.0);
        let pack = match pack::decode(record.format, record.payload.clone()) {
            Ok(pack) if record.damage.is_none() => pack,
            Err(pack::Error::Newer(_)) => return Err("Newer"),
            _ => {
                self.letters.insert(record.seq);
                self.push(given_up.unwrap_or(Stamp(previous + 1)));
                return Ok(());
            }
        };
        if let Some(stamp) = given_up {
            self.push(stamp);
            self.note_all(&pack);
            return Ok(());
        }
        let same = |epoch: &&EpochRow| epoch.partitions == pack.partitions && epoch.shards == pack.shards;
        let Some(epoch) = self.epochs.iter().find(same).cloned() else { return Err("Epoch") };
        let clock_ms = record.append_ms.min(pack.receive_ms + 3_600_000);
        let stamp = Stamp((previous + 1).max(clock_ms * 1000));
        self.push(stamp);
        let twice = self.note(pack.pack_id().0) | self.is_replayed_again(&pack, record.seq);
        self.increments(&pack, &epoch, record.seq, stamp, twice);
        self.take_events(&pack, record.seq, stamp, twice);
        Ok(())
    }

    /// Notes what a pack that was given up carries.
    fn note_all(&mut self, pack: &Pack) {
        self.note(pack.pack_id().0);
        for id in pack.increments.iter().flat_map(|increments| increments.iter()).filter_map(|item| item.id) {
            self.note(id.0);
        }
        for event in &pack.events {
            self.note(IdScope::event(&event.namespace, &event.name).id(event.id.as_bytes()).0);
        }
    }

    /// Whether the pack replays a dead letter that an earlier one has replayed.
    fn is_replayed_again(&mut self, pack: &Pack, seq: Seq) -> bool {
        pack.replayed.as_ref().is_some_and(|at| {
            let topic_id = TopicId(at.topic_id[..].try_into().unwrap());
            let at = Coordinates { lane: Lane { topic_id, partition: at.partition }, seq: Seq(at.seq) };
            *self.replayed.entry(at).or_insert(seq) != seq
        })
    }

    /// Notes an id of the newest pack: whether it was last noted within the window and among the last `max_ids` notes.
    fn note(&mut self, id: [u8; 16]) -> bool {
        let (position, seq) = (self.notes, self.times.len() - 1);
        self.notes += 1;
        self.noted.insert(id, (position, seq)).is_some_and(|(last, at)| {
            last + self.max_ids >= position && self.times[at] >= self.times[seq] - self.window_us
        })
    }

    fn increments(&mut self, pack: &Pack, epoch: &EpochRow, seq: Seq, stamp: Stamp, twice: bool) {
        let Some(increments) = &pack.increments else { return };
        let keys: Vec<Vec<u8>> = increments.dictionary().map(|entry| entry.key.to_vec()).collect();
        for item in increments.iter() {
            let seen = item.id.is_some_and(|id| self.note(id.0));
            if seen || twice {
                continue;
            }
            for key in rows_of(&keys[item.series as usize], epoch, self.lane.partition) {
                let versions = self.rows.entry(key).or_default();
                let before = versions.last().map_or(0, |version| version.total);
                versions.pop_if(|version| version.seq == seq);
                versions.push(Version { seq, stamp, total: before + i128::from(item.amount) });
            }
        }
    }

    fn take_events(&mut self, pack: &Pack, seq: Seq, stamp: Stamp, twice: bool) {
        for event in &pack.events {
            let id = IdScope::event(&event.namespace, &event.name).id(event.id.as_bytes());
            if self.note(id.0) || twice {
                continue;
            }
            let row = EventRow {
                namespace: Namespace::parse(&event.namespace).unwrap(),
                name: event.name.as_str().into(),
                subject: Some(event.subject.as_str().into()).filter(|_| !event.subject.is_empty()),
                time_ms: event.time_ms,
                id: event.id.as_str().into(),
                properties: event.properties.clone(),
                received_ms: pack.receive_ms,
                stamp,
            };
            self.events.push((seq, row));
        }
    }

    /// What the row is as of a seq.
    pub fn as_of(versions: &[Version], seq: Seq) -> Option<Version> {
        versions.iter().rev().find(|version| version.seq <= seq).copied()
    }
}

/// The stamp of a pack that was given up: above every stamp from before.
fn stamp_in(gap: Gap, seq: Seq) -> Stamp {
    Stamp(gap.floor.0 + 1 + (seq.0 - gap.from.0) as i64)
}

/// The two rows that an increment of this series counts into.
pub fn rows_of(key: &[u8], epoch: &EpochRow, partition: u32) -> [RowKey; 2] {
    let series = SeriesRef::from_key(key).unwrap();
    let namespace = Namespace::parse(series.namespace).unwrap();
    let row = |shard: Shard, tags: &str| {
        let key = ShardKey { namespace: namespace.clone(), shard, epoch: epoch.epoch };
        (key, RowName { counter: series.counter.into(), tags: tags.into() })
    };
    [row(Shard::of(series_hash(key), epoch.shards), series.tags), row(Shard::reserved(partition), "")]
}
