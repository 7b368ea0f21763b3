//! Waiting until what a receipt names is in the store: the answer behind `ack=stored` and `at_least`.
//!
//! The truth is the `stored` seq that lanes write beside their checkpoints, so it is the same question whether the lane
//! runs in this process or in another. One task asks the store, only while somebody waits, and tells all who wait.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use crate::{
    item::{Lane, Seq},
    receipt::Receipt,
    store::{self, Store},
};

/// How often the store is asked while somebody waits.
const INTERVAL: Duration = Duration::from_millis(10);

/// What the lanes have stored, by lane.
pub type Stored = HashMap<Lane, Seq>;

/// Answers whether receipts are stored, and waits for it.
pub struct Progress {
    store: Arc<dyn Store>,
    topic: String,
    seen: watch::Sender<Arc<Stored>>,
    asking: tokio::sync::Mutex<()>,
}

impl Progress {
    /// Answers from this store for this topic.
    pub fn new(store: Arc<dyn Store>, topic: impl Into<String>) -> Self {
        Self { store, topic: topic.into(), seen: watch::Sender::default(), asking: tokio::sync::Mutex::default() }
    }

    /// What the lanes have stored, as the store says now.
    pub async fn ask(&self) -> Result<Arc<Stored>, store::Error> {
        let lanes = self.store.lanes(&self.topic).await?;
        let stored = lanes.into_iter().filter_map(|row| {
            let seq = row.stored.into_iter().chain(row.checkpoint.map(|checkpoint| checkpoint.seq)).max()?;
            Some((row.lane, seq))
        });
        let stored = Arc::new(stored.collect::<Stored>());
        self.seen.send_replace(stored.clone());
        Ok(stored)
    }

    /// Waits until everything that `receipt` names is stored: `true`, or `false` at the deadline.
    ///
    /// # Errors
    /// The last error of the store, when it did not answer until the deadline.
    pub async fn wait(&self, receipt: &Receipt, deadline: Instant) -> Result<bool, store::Error> {
        let mut seen = self.seen.subscribe();
        let mut failure = None;
        if covers(&seen.borrow_and_update(), receipt) {
            return Ok(true);
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => return failure.map_or(Ok(false), Err),
                _ = seen.changed() => {}
                // Whoever holds the lock asks for everybody; the others hear of it through `seen`.
                asked = self.ask_after_interval() => failure = asked.err(),
            }
            if covers(&seen.borrow_and_update(), receipt) {
                return Ok(true);
            }
        }
    }

    async fn ask_after_interval(&self) -> Result<(), store::Error> {
        let _asking = self.asking.lock().await;
        let next = Instant::now() + INTERVAL;
        let asked = self.ask().await.map(drop);
        tokio::time::sleep_until(next).await;
        asked
    }
}

/// Whether everything that `receipt` names is in `stored`.
pub fn covers(stored: &Stored, receipt: &Receipt) -> bool {
    receipt.packs.iter().all(|(partition, seq)| {
        let lane = Lane { topic_id: receipt.topic_id, partition: *partition };
        stored.get(&lane).is_some_and(|stored| stored >= seq)
    })
}
