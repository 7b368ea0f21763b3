//! A steady load of items with ids, each sent until it is acknowledged, and what was answered meanwhile.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::json;

use super::process::{PATIENCE, Posted, Server, post_whole};

/// Series that the load counts in: enough for every lane to have some.
const KEYS: u64 = 40;
/// Between two requests of a sender: a load, and not all that the machine can do.
const PACE: Duration = Duration::from_millis(10);

/// One request and its answer.
#[derive(Clone, Debug)]
pub struct Noted {
    pub began: Instant,
    /// `None`: nobody answered, or the answer was cut off.
    pub answer: Option<Posted>,
}

struct Shared {
    url: Mutex<String>,
    stop: AtomicBool,
    acknowledged: AtomicU64,
    noted: Mutex<Vec<Noted>>,
}

/// Senders that go on until they are told to finish.
pub struct Load {
    shared: Arc<Shared>,
    senders: Vec<JoinHandle<BTreeMap<u64, i64>>>,
}

impl Load {
    pub fn start(ingest: &Server, senders: u64) -> Self {
        let shared = Arc::new(Shared {
            url: Mutex::new(ingest.url.clone()),
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            noted: Mutex::default(),
        });
        let start = |sender| {
            let shared = shared.clone();
            std::thread::spawn(move || shared.send(sender))
        };
        Self { senders: (0..senders).map(start).collect(), shared }
    }

    /// From now on to this one.
    pub fn redirect(&self, ingest: &Server) {
        self.shared.url.lock().unwrap().clone_from(&ingest.url);
    }

    /// Items that were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until this many more are acknowledged.
    pub fn goes_on_by(&self, items: u64) {
        let goal = self.acknowledged() + items;
        super::process::wait_until("more is acknowledged", || self.acknowledged() >= goal);
    }

    /// The requests that were sent and answered since.
    pub fn since(&self, begin: Instant) -> Vec<Noted> {
        self.shared.noted.lock().unwrap().iter().filter(|noted| noted.began >= begin).cloned().collect()
    }

    /// Sends no new items, and what was sent until it is acknowledged.
    pub fn finish(mut self) -> Totals {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut by_key: BTreeMap<String, i64> = BTreeMap::new();
        for sender in self.senders.drain(..) {
            for (key, items) in sender.join().expect("the sender has got rid of its items") {
                *by_key.entry(format!("k{key}")).or_default() += items;
            }
        }
        Totals { by_key }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    /// What it has sent by key, when it is told to stop.
    fn send(&self, sender: u64) -> BTreeMap<u64, i64> {
        const BATCH: u64 = 20;
        let mut sent = BTreeMap::new();
        for round in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let keys: Vec<u64> = (0..BATCH).map(|n| (sender + round * 3 + n) % KEYS).collect();
            let items: Vec<_> = (0..)
                .zip(&keys)
                .map(|(n, key): (u64, _)| {
                    json!({"counter": "load", "tags": {"key": format!("k{key}")}, "id": format!("{sender}-{round}-{n}")})
                })
                .collect();
            self.deliver(&json!(items).to_string());
            keys.into_iter().for_each(|key| *sent.entry(key).or_default() += 1);
            self.acknowledged.fetch_add(BATCH, Ordering::Relaxed);
            std::thread::park_timeout(PACE);
        }
        sent
    }

    /// Sends one batch, with the same ids, until it is acknowledged.
    fn deliver(&self, body: &str) {
        let deadline = Instant::now() + PATIENCE * 3;
        loop {
            let url = format!("{}/v1/increments", self.url.lock().unwrap());
            let began = Instant::now();
            let answer = post_whole(&url, body);
            let done = answer.as_ref().is_some_and(|answer| answer.status == 202);
            self.noted.lock().unwrap().push(Noted { began, answer });
            if done {
                return;
            }
            assert!(Instant::now() < deadline, "a batch is not acknowledged");
            std::thread::park_timeout(PACE * 5);
        }
    }
}

/// What the store must hold when everything is applied: every item once.
pub struct Totals {
    by_key: BTreeMap<String, i64>,
}

impl Totals {
    /// Waits until everything in the log is stored, and compares.
    pub fn assert_stored(&self, server: &Server) {
        server.settle_well();
        let sum: i64 = self.by_key.values().sum();
        assert_eq!(server.stored("load"), Some(sum), "each item counts once");
        let (status, answer) = server.get("/v1/counters/load?by=key&top=100&consistency=stored");
        assert_eq!(status, 200, "{answer}");
        let found: BTreeMap<String, i64> = answer["groups"]
            .as_array()
            .unwrap()
            .iter()
            .map(|group| (group["tags"]["key"].as_str().unwrap().to_owned(), group["total"].as_i64().unwrap()))
            .collect();
        assert_eq!(found, self.by_key);
    }
}
