//! A log that knows nothing but its ends.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use tallymark::{
    item::Seq,
    log::{Appended, Bounds, Change, Cursor, Error, Log, Record, Topology},
    retry::Kind,
};
use tokio::sync::mpsc;

/// See the module.
pub struct Ends {
    topology: Topology,
    ends: Mutex<Vec<u64>>,
    /// Whether the log fails.
    pub away: AtomicBool,
}

impl Ends {
    pub fn new(topology: Topology) -> Self {
        let ends = Mutex::new(vec![0; topology.partitions as usize]);
        Self { topology, ends, away: AtomicBool::new(false) }
    }

    /// A pack is appended.
    pub fn append(&self, partition: u32) -> Seq {
        let end = &mut self.ends.lock().unwrap()[partition as usize];
        *end += 1;
        Seq(*end - 1)
    }

    /// What another process has appended is there.
    pub fn set_end(&self, partition: u32, end: Seq) {
        self.ends.lock().unwrap()[partition as usize] = end.0;
    }
}

fn not_here<T>() -> Result<T, Error> {
    Err(Error::new(Kind::Permanent, "this log only knows its ends"))
}

#[async_trait]
impl Log for Ends {
    fn topology(&self) -> &Topology {
        &self.topology
    }

    async fn append(&self, _partition: u32, _format: u32, _payload: Bytes) -> Result<Appended, Error> {
        not_here()
    }

    async fn bounds(&self, partition: u32) -> Result<Bounds, Error> {
        if self.away.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::Transient, "the log is away"));
        }
        Ok(Bounds { start: Seq(0), end: Seq(self.ends.lock().unwrap()[partition as usize]) })
    }

    async fn read(&self, _partition: u32, _from: Seq, _max_bytes: usize) -> Result<Vec<Record>, Error> {
        not_here()
    }

    async fn open(&self, _partition: u32, _from: Seq, _leader_epoch: Option<i32>) -> Result<Box<dyn Cursor>, Error> {
        not_here()
    }

    async fn join(&self) -> Result<mpsc::Receiver<Change>, Error> {
        not_here()
    }

    async fn progress(&self, _partition: u32, _checkpoint: Seq, _needed: Seq) -> Result<(), Error> {
        not_here()
    }

    async fn check(&self) -> Result<(), Error> {
        Ok(())
    }
}
