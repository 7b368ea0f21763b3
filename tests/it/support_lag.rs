//! A log and a store in memory that do only what lag asks of them: they tell positions, go silent, or hang on demand.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use tallymark::{
    clock,
    item::{Epoch, Lane, PackId, Seq, Stamp, TopicId},
    log::{self, Appended, Bounds, Change, Cursor, Log, Record, Topology},
    retry::Kind,
    store::{
        self, Checkpoint, Counted, EpochRow, EventRow, Events, EventsPage, HaltRow, LaneRow, Ledger, Remedies,
        RemedyRow, RowName, ShardKey, Slice, TotalRow, Totals,
    },
};
use tokio::sync::mpsc;

/// How a double answers.
#[derive(Clone, Debug, Default)]
pub enum Mood {
    #[default]
    Answers,
    Fails(String),
    Hangs,
}

impl Mood {
    pub async fn answer(&self) -> Result<(), String> {
        match self {
            Self::Answers => Ok(()),
            Self::Fails(reason) => Err(reason.clone()),
            Self::Hangs => pending().await,
        }
    }
}

/// A log whose records are their append times.
pub struct FakeLog {
    topology: Topology,
    partitions: Mutex<Vec<(u64, Vec<i64>)>>,
    mood: Mutex<Mood>,
}

impl FakeLog {
    pub fn new(partitions: u32) -> Arc<Self> {
        let topology = Topology {
            topic: "test".to_owned(),
            topic_id: TopicId([7; 16]),
            cluster_id: "memory".to_owned(),
            partitions,
        };
        let partitions = Mutex::new(vec![(0, Vec::new()); partitions as usize]);
        Arc::new(Self { topology, partitions, mood: Mutex::default() })
    }

    pub fn lane(&self, partition: u32) -> Lane {
        Lane { topic_id: self.topology.topic_id, partition }
    }

    pub fn set_mood(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// Appends so many packs that are `age_ms` old.
    pub fn append_aged(&self, partition: u32, packs: usize, age_ms: i64) {
        let append_ms = clock::now_ms() - age_ms;
        self.partitions.lock().unwrap()[partition as usize].1.extend(vec![append_ms; packs]);
    }

    /// Cuts the newest packs off.
    pub fn cut(&self, partition: u32, end: usize) {
        self.partitions.lock().unwrap()[partition as usize].1.truncate(end);
    }

    /// Removes packs from the front.
    pub fn remove_below(&self, partition: u32, start: u64) {
        self.partitions.lock().unwrap()[partition as usize].0 = start;
    }

    async fn answer(&self) -> Result<(), log::Error> {
        let mood = self.mood.lock().unwrap().clone();
        mood.answer().await.map_err(|reason| log::Error::new(Kind::Transient, reason))
    }
}

#[async_trait]
impl Log for FakeLog {
    fn topology(&self) -> &Topology {
        &self.topology
    }

    async fn append(&self, partition: u32, _: u32, _: Bytes) -> Result<Appended, log::Error> {
        self.answer().await?;
        self.append_aged(partition, 1, 0);
        Ok(Appended { seq: None, append_ms: clock::now_ms() })
    }

    async fn bounds(&self, partition: u32) -> Result<Bounds, log::Error> {
        self.answer().await?;
        let (start, records) = &self.partitions.lock().unwrap()[partition as usize];
        Ok(Bounds { start: Seq(*start), end: Seq(records.len() as u64) })
    }

    async fn read(&self, partition: u32, from: Seq, _: usize) -> Result<Vec<Record>, log::Error> {
        self.answer().await?;
        let (_, records) = &self.partitions.lock().unwrap()[partition as usize];
        let append_ms = records.get(usize::try_from(from.0).unwrap()).copied();
        let record = |append_ms| Record {
            seq: from,
            append_ms,
            leader_epoch: None,
            format: 1,
            payload: Bytes::new(),
            damage: None,
        };
        Ok(append_ms.map(record).into_iter().collect())
    }

    async fn open(&self, _: u32, _: Seq, _: Option<i32>) -> Result<Box<dyn Cursor>, log::Error> {
        unreachable!("lag opens no cursor")
    }

    async fn join(&self) -> Result<mpsc::Receiver<Change>, log::Error> {
        unreachable!("lag joins no group")
    }

    async fn progress(&self, _: u32, _: Seq, _: Seq) -> Result<(), log::Error> {
        unreachable!("lag reports no progress")
    }

    async fn check(&self) -> Result<(), log::Error> {
        self.answer().await
    }
}

/// A store that knows its lanes' rows.
#[derive(Default)]
pub struct FakeStore {
    rows: Mutex<BTreeMap<Lane, LaneRow>>,
    epochs: Mutex<Vec<EpochRow>>,
    pub halts: Mutex<Vec<HaltRow>>,
    mood: Mutex<Mood>,
}

impl FakeStore {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn set_mood(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// Says how far a lane is.
    pub fn put(&self, lane: Lane, stored: Option<u64>, checkpoint: Option<u64>) {
        let checkpoint = checkpoint.map(|seq| Checkpoint {
            lane,
            seq: Seq(seq),
            leader_epoch: None,
            pack: PackId([0; 16]),
            stamp: Stamp(1),
            dedup_from: Seq(0),
            dedup_stamp: Stamp(0),
            unmet_base: None,
            counted: Counted::since(Seq(0)),
        });
        self.rows.lock().unwrap().insert(lane, LaneRow { checkpoint, stored: stored.map(Seq), ..LaneRow::blank(lane) });
    }

    /// Begins an epoch and answers its name.
    pub fn put_epoch(&self, topic_id: TopicId, partitions: u32) -> Epoch {
        let epoch = Epoch::of(topic_id, partitions, 256);
        self.epochs.lock().unwrap().push(EpochRow {
            epoch,
            topic_id,
            cluster_id: "memory".to_owned(),
            partitions,
            shards: 256,
            dedup_window_us: 1,
            dedup_max_ids: 1,
            created_ms: 1,
        });
        epoch
    }

    async fn answer(&self) -> Result<(), store::Error> {
        let mood = self.mood.lock().unwrap().clone();
        mood.answer().await.map_err(|reason| store::Error::new(Kind::Transient, reason))
    }
}

#[async_trait]
impl Totals for FakeStore {
    async fn write_totals(&self, _: &ShardKey, _: &[TotalRow]) -> Result<(), store::Error> {
        unreachable!("lag writes nothing")
    }

    async fn totals(&self, _: &ShardKey, _: &Slice) -> Result<Vec<TotalRow>, store::Error> {
        unreachable!("lag reads no totals")
    }

    async fn totals_named(&self, _: &ShardKey, _: &[RowName]) -> Result<Vec<Option<TotalRow>>, store::Error> {
        unreachable!("lag reads no totals")
    }
}

#[async_trait]
impl Events for FakeStore {
    async fn write_events(&self, _: &[EventRow]) -> Result<(), store::Error> {
        unreachable!("lag writes nothing")
    }

    async fn events(&self, _: &EventsPage) -> Result<Vec<EventRow>, store::Error> {
        unreachable!("lag reads no events")
    }
}

#[async_trait]
impl Ledger for FakeStore {
    async fn lanes(&self, _: &str) -> Result<Vec<LaneRow>, store::Error> {
        self.answer().await?;
        Ok(self.rows.lock().unwrap().values().cloned().collect())
    }

    async fn write_checkpoint(&self, _: &str, _: &Checkpoint) -> Result<(), store::Error> {
        unreachable!("lag writes nothing")
    }

    async fn write_stored(&self, _: &str, _: Lane, _: Seq, _: Stamp) -> Result<(), store::Error> {
        unreachable!("lag writes nothing")
    }

    async fn epochs(&self, _: &str) -> Result<Vec<EpochRow>, store::Error> {
        self.answer().await?;
        Ok(self.epochs.lock().unwrap().clone())
    }

    async fn begin_epoch(&self, _: &str, _: &EpochRow) -> Result<(), store::Error> {
        unreachable!("lag writes nothing")
    }
}

#[async_trait]
impl Remedies for FakeStore {
    async fn halts(&self, _: &str) -> Result<Vec<HaltRow>, store::Error> {
        Ok(self.halts.lock().unwrap().clone())
    }

    async fn write_halt(&self, _: &str, _: &HaltRow) -> Result<(), store::Error> {
        unreachable!("lag writes nothing")
    }

    async fn clear_halt(&self, _: &str, _: Lane) -> Result<(), store::Error> {
        unreachable!("lag writes nothing")
    }

    async fn remedies(&self, _: &str) -> Result<Vec<RemedyRow>, store::Error> {
        Ok(Vec::new())
    }

    async fn record_remedy(&self, _: &str, _: &RemedyRow) -> Result<(), store::Error> {
        unreachable!("lag writes nothing")
    }
}
