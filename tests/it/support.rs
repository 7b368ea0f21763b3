//! Small real implementations of the ports, with the levers that tests need: hold an append, fail it, see what was written.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tallymark::{
    clock,
    hot::{self, Base, Delta, HotKey, HotView, LoadedBase, Published, Token, View},
    item::{Lane, Seq, Stamp, TopicId},
    log::{self, Appended, Bounds, Change, Cursor, DeadLetters, Log, Record, Topology},
    pack::{self, Pack},
    retry::Kind,
    store::{
        self, Checkpoint, EpochRow, EventRow, Events, EventsPage, LaneRow, Ledger, RowName, ShardKey, Slice, TotalRow,
        Totals,
    },
};
use tokio::sync::{mpsc, watch};

use crate::support_letters::MemoryLetters;

/// Waits until `condition` holds; fails after ten seconds.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A log in memory. It keeps the port's laws, but for the loss of power.
pub struct MemoryLog {
    topology: Topology,
    partitions: Arc<Vec<Mutex<Vec<Record>>>>,
    grown: watch::Sender<u64>,
    held: watch::Sender<bool>,
    failure: Mutex<Option<Kind>>,
    without_offset: AtomicBool,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
    pub letters: MemoryLetters,
}

/// Counts one append that is under way.
struct InFlight<'a>(&'a MemoryLog);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

impl MemoryLog {
    pub fn new(partitions: u32) -> Arc<Self> {
        let topology = Topology {
            topic: "test.packs".to_owned(),
            topic_id: TopicId([7; 16]),
            cluster_id: "memory".to_owned(),
            partitions,
        };
        Arc::new(Self {
            topology,
            partitions: Arc::new((0..partitions).map(|_| Mutex::default()).collect()),
            grown: watch::Sender::default(),
            held: watch::Sender::default(),
            failure: Mutex::default(),
            without_offset: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
            letters: MemoryLetters::default(),
        })
    }

    /// Changes a record as a disk may: its bytes, or what the log says of them.
    pub fn garble(&self, partition: u32, seq: Seq, change: impl FnOnce(&mut Record)) {
        let mut records = self.partitions[partition as usize].lock().unwrap();
        change(&mut records[usize::try_from(seq.0).unwrap()]);
    }

    /// Appends wait from now on, until they are released.
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    pub fn release(&self) {
        self.held.send_replace(false);
    }

    /// Appends fail like this from now on.
    pub fn fail(&self, kind: Option<Kind>) {
        *self.failure.lock().unwrap() = kind;
    }

    /// Acknowledge without an offset from now on.
    pub fn forget_offsets(&self) {
        self.without_offset.store(true, Ordering::SeqCst);
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    pub fn most_in_flight(&self) -> usize {
        self.most_in_flight.load(Ordering::SeqCst)
    }

    /// Every pack, by partition and seq.
    pub fn packs(&self) -> Vec<(u32, Seq, Pack)> {
        let mut packs = Vec::new();
        for (partition, records) in (0..).zip(self.partitions.iter()) {
            for record in records.lock().unwrap().iter() {
                let pack = pack::decode(record.format, record.payload.clone()).expect("ingest writes whole packs");
                packs.push((partition, record.seq, pack));
            }
        }
        packs
    }
}

fn no_such(partition: u32) -> log::Error {
    log::Error::new(Kind::Fatal, format!("there is no partition {partition}"))
}

#[async_trait]
impl Log for MemoryLog {
    fn topology(&self) -> &Topology {
        &self.topology
    }

    async fn append(&self, partition: u32, format: u32, payload: Bytes) -> Result<Appended, log::Error> {
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        let _in_flight = InFlight(self);
        self.most_in_flight.fetch_max(now, Ordering::SeqCst);
        let mut held = self.held.subscribe();
        held.wait_for(|held| !held).await.expect("the log outlives its appends");
        if let Some(kind) = *self.failure.lock().unwrap() {
            return Err(log::Error::new(kind, "the log was told to fail"));
        }
        let append_ms = clock::now_ms();
        let seq = {
            let mut records =
                self.partitions.get(partition as usize).ok_or_else(|| no_such(partition))?.lock().unwrap();
            let seq = Seq(records.len() as u64);
            records.push(Record { seq, append_ms, leader_epoch: None, format, payload, damage: None });
            seq
        };
        self.grown.send_modify(|count| *count += 1);
        Ok(Appended { seq: (!self.without_offset.load(Ordering::SeqCst)).then_some(seq), append_ms })
    }

    async fn bounds(&self, partition: u32) -> Result<Bounds, log::Error> {
        let records = self.partitions.get(partition as usize).ok_or_else(|| no_such(partition))?.lock().unwrap();
        Ok(Bounds { start: Seq(0), end: Seq(records.len() as u64) })
    }

    async fn read(&self, partition: u32, from: Seq, max_bytes: usize) -> Result<Vec<Record>, log::Error> {
        let records = self.partitions.get(partition as usize).ok_or_else(|| no_such(partition))?.lock().unwrap();
        let mut bytes = 0;
        let wanted = records.iter().skip(usize::try_from(from.0).unwrap()).take_while(|record| {
            let first = bytes == 0;
            bytes += record.payload.len().max(1);
            first || bytes <= max_bytes
        });
        Ok(wanted.cloned().collect())
    }

    async fn open(&self, partition: u32, from: Seq, _: Option<i32>) -> Result<Box<dyn Cursor>, log::Error> {
        let end = self.bounds(partition).await?.end;
        if from > end {
            return Err(log::Error::gone(format!("seq {from} is past the end {end}")));
        }
        Ok(Box::new(MemoryCursor {
            partitions: self.partitions.clone(),
            partition: partition as usize,
            at: usize::try_from(from.0).unwrap(),
            grown: self.grown.subscribe(),
        }))
    }

    async fn join(&self) -> Result<mpsc::Receiver<Change>, log::Error> {
        let (sender, receiver) = mpsc::channel(1);
        let all = (0..self.topology.partitions).collect();
        sender.send(Change::Assigned(all)).await.expect("the receiver is here");
        // The membership lasts as long as the log: the sender must not end the channel.
        let mut grown = self.grown.subscribe();
        tokio::spawn(async move {
            while grown.changed().await.is_ok() {}
            drop(sender);
        });
        Ok(receiver)
    }

    async fn progress(&self, _: u32, _: Seq, _: Seq) -> Result<(), log::Error> {
        Ok(())
    }

    async fn check(&self) -> Result<(), log::Error> {
        Ok(())
    }

    fn dead_letters(&self) -> Option<&dyn DeadLetters> {
        Some(&self.letters)
    }
}

struct MemoryCursor {
    partitions: Arc<Vec<Mutex<Vec<Record>>>>,
    partition: usize,
    at: usize,
    grown: watch::Receiver<u64>,
}

#[async_trait]
impl Cursor for MemoryCursor {
    async fn next(&mut self) -> Result<Vec<Record>, log::Error> {
        loop {
            let new: Vec<_> = self.partitions[self.partition].lock().unwrap().iter().skip(self.at).cloned().collect();
            if !new.is_empty() {
                self.at += new.len();
                return Ok(new);
            }
            self.grown.changed().await.map_err(|_| log::Error::new(Kind::Fatal, "the log is gone"))?;
        }
    }
}

/// A hot view that remembers what it was told, and may be told to hang.
#[derive(Default)]
pub struct Told {
    pub adds: Mutex<Vec<(Lane, Seq, Vec<Delta>)>>,
    pub off: bool,
    pub hang: AtomicBool,
    pub fail: AtomicBool,
}

impl Told {
    /// The sum of everything that was added, by entry.
    pub fn sums(&self) -> HashMap<HotKey, i128> {
        let mut sums = HashMap::new();
        for (_, _, deltas) in self.adds.lock().unwrap().iter() {
            for delta in deltas {
                *sums.entry(delta.key.clone()).or_default() += delta.amount;
            }
        }
        sums
    }
}

#[async_trait]
impl HotView for Told {
    async fn add(&self, lane: Lane, seq: Seq, deltas: Vec<Delta>) -> Result<(), hot::Error> {
        if self.hang.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.fail.load(Ordering::SeqCst) {
            return Err(hot::Error { kind: Kind::Transient, message: "told to fail".to_owned(), source: None });
        }
        self.adds.lock().unwrap().push((lane, seq, deltas));
        Ok(())
    }

    async fn publish(&self, _: Lane, _: Seq, _: &[Base]) -> Result<Published, hot::Error> {
        Ok(Published::default())
    }

    async fn known(&self, keys: &[HotKey]) -> Result<Vec<bool>, hot::Error> {
        Ok(vec![false; keys.len()])
    }

    async fn read(&self, keys: &[HotKey]) -> Result<Vec<View>, hot::Error> {
        Ok(vec![View::Miss; keys.len()])
    }

    async fn begin_load(&self, _: &HotKey) -> Result<Token, hot::Error> {
        Ok(Token(0))
    }

    async fn finish_load(&self, _: &HotKey, _: Token, _: &[LoadedBase], _: &[(Lane, Seq)]) -> Result<bool, hot::Error> {
        Ok(false)
    }

    async fn published(&self, _: Lane, _: Seq) -> Result<(), hot::Error> {
        Ok(())
    }

    fn describe(&self) -> (&'static str, bool) {
        ("told", !self.off)
    }
}

/// A store that knows only how far its lanes are: enough for whoever waits for a receipt.
#[derive(Default)]
pub struct Lanes {
    pub rows: Mutex<Vec<LaneRow>>,
    pub away: AtomicBool,
}

impl Lanes {
    /// Everything up to `seq` of the lane is stored from now on.
    pub fn stored(&self, lane: Lane, seq: Seq) {
        self.rows.lock().unwrap().push(LaneRow { stored: Some(seq), ..LaneRow::blank(lane) });
    }
}

fn not_kept<T>() -> Result<T, store::Error> {
    Err(store::Error::new(Kind::Permanent, "this store keeps only lanes"))
}

#[async_trait]
impl Totals for Lanes {
    async fn write_totals(&self, _: &ShardKey, _: &[TotalRow]) -> Result<(), store::Error> {
        not_kept()
    }

    async fn totals(&self, _: &ShardKey, _: &Slice) -> Result<Vec<TotalRow>, store::Error> {
        not_kept()
    }

    async fn totals_named(&self, _: &ShardKey, _: &[RowName]) -> Result<Vec<Option<TotalRow>>, store::Error> {
        not_kept()
    }
}

#[async_trait]
impl Events for Lanes {
    async fn write_events(&self, _: &[EventRow]) -> Result<(), store::Error> {
        not_kept()
    }

    async fn events(&self, _: &EventsPage) -> Result<Vec<EventRow>, store::Error> {
        not_kept()
    }
}

#[async_trait]
impl Ledger for Lanes {
    async fn lanes(&self, _: &str) -> Result<Vec<LaneRow>, store::Error> {
        if self.away.load(Ordering::SeqCst) {
            return Err(store::Error::new(Kind::Transient, "the store was told to be away"));
        }
        Ok(self.rows.lock().unwrap().clone())
    }

    async fn write_checkpoint(&self, _: &str, _: &Checkpoint) -> Result<(), store::Error> {
        not_kept()
    }

    async fn write_stored(&self, _: &str, lane: Lane, stored: Seq, _: Stamp) -> Result<(), store::Error> {
        self.stored(lane, stored);
        Ok(())
    }

    async fn epochs(&self, _: &str) -> Result<Vec<EpochRow>, store::Error> {
        Ok(Vec::new())
    }

    async fn begin_epoch(&self, _: &str, _: &EpochRow) -> Result<(), store::Error> {
        not_kept()
    }
}

crate::support_remedies::no_remedies!(Lanes);
