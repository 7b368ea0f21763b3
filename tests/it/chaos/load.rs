//! A load with ids and retries, over all the ingests, that keeps the oracle's books.
//!
//! A sender whose request is not acknowledged tries the next ingest at once, with the same ids, as a client does that retries
//! once. What is not acknowledged then it either insists on, or puts aside: some items' fate stays unknown until the fault is
//! over. Now and then it sends again what was acknowledged some time ago.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, task::JoinHandle};

use super::{
    books::{Attempt, Batch, Books, Fate, Kind},
    pace::{BATCH, EVENTS, KEYS, SENDERS},
};
use crate::e2e::process::block_on;

/// Between two requests of a sender: a load, and not all that the machine can do.
const PACE: Duration = Duration::from_millis(40);
/// Between two tries of what is insisted on.
const AGAIN: Duration = Duration::from_millis(250);
/// What was acknowledged is sent again within the window of `rolling`, which has the shortest.
const REMEMBERED: Duration = Duration::from_secs(5);
/// A client's own patience.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Longer than a lane takes to publish what it has stored, on a machine that others use too.
const PUBLISHED: Duration = Duration::from_secs(30);

/// What the senders share.
struct Shared {
    counter: String,
    client: reqwest::Client,
    /// Where the ingests are, by their number.
    urls: Mutex<Vec<String>>,
    books: Mutex<Books>,
    stop: AtomicBool,
    acknowledged: AtomicU64,
    /// What the acknowledged increments add up to, and all that were ever sent.
    sums: [AtomicI64; 2],
    /// When a batch was sent once more, and its sum.
    again: Mutex<Vec<(Instant, i64)>>,
    began: Instant,
}

/// Senders that go on until they are told to finish.
pub struct Load {
    shared: Arc<Shared>,
    senders: Vec<JoinHandle<()>>,
}

/// What was put aside, and everything else: the load is over.
pub struct Ended {
    shared: Arc<Shared>,
    /// When the last request was answered.
    pub at: Instant,
}

fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // A server that was killed leaves dead connections behind: none is kept.
    let client = reqwest::Client::builder().pool_max_idle_per_host(0).timeout(TIMEOUT).no_proxy();
    client.build().expect("a client builds")
}

impl Load {
    /// Counts in `counter`, by way of these ingests.
    pub fn start(counter: &str, urls: Vec<String>) -> Self {
        let shared = Arc::new(Shared {
            counter: counter.to_owned(),
            client: client(),
            urls: Mutex::new(urls),
            books: Mutex::default(),
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            sums: Default::default(),
            again: Mutex::default(),
            began: Instant::now(),
        });
        let senders = (0..SENDERS).map(|sender| spawn(shared.clone().send(sender))).collect();
        Self { shared, senders }
    }

    /// Another ingest, in the place of the one with this number.
    pub fn redirect(&self, number: usize, url: &str) {
        url.clone_into(&mut self.shared.urls.lock().unwrap()[number]);
    }

    /// Items that were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// The least that a fresh total may be now, and the most: what is sent again the view shows twice, until its lane has
    /// published that it counts once.
    pub fn bounds(&self) -> (i64, i64) {
        let [acknowledged, sent] = &self.shared.sums;
        let again = self.shared.again.lock().unwrap();
        let twice: i64 = again.iter().filter(|(since, _)| since.elapsed() < PUBLISHED).map(|(_, sum)| sum).sum();
        (acknowledged.load(Ordering::SeqCst), sent.load(Ordering::SeqCst) + twice)
    }

    /// The requests that were begun and answered between.
    pub fn between(&self, from: Instant, to: Instant) -> Vec<Attempt> {
        let books = self.shared.books.lock().unwrap();
        books.attempts.iter().filter(|attempt| attempt.began >= from && attempt.ended <= to).copied().collect()
    }

    /// Sends nothing new; each sender's last request is answered, or its patience is over.
    pub fn finish(mut self) -> Ended {
        self.shared.stop.store(true, Ordering::Relaxed);
        for sender in self.senders.drain(..) {
            block_on(sender).expect("a sender does not panic");
        }
        Ended { shared: self.shared.clone(), at: Instant::now() }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Ended {
    /// The books.
    pub fn books<T>(&self, read: impl FnOnce(&Books) -> T) -> T {
        read(&self.shared.books.lock().unwrap())
    }

    /// The longest time without an acknowledgement while the load ran.
    pub fn longest_stall(&self) -> Duration {
        self.books(|books| books.longest_stall(self.shared.began, self.at))
    }

    /// Sends everything that is not acknowledged until it is, so that there is one truth only.
    pub fn retry_the_unknown(&self, within: Duration) -> Result<(), String> {
        let deadline = Instant::now() + within;
        let count = self.books(|books| books.batches.len());
        block_on(async {
            for at in 0..count {
                let fate = self.books(|books| books.batches[at].fate);
                if fate == Fate::Acknowledged {
                    continue;
                }
                let mut tries = at;
                while self.shared.attempt(at, tries).await != Fate::Acknowledged {
                    if Instant::now() > deadline {
                        return Err(format!("a batch is not acknowledged within {within:?} after the fault is over"));
                    }
                    tries += 1;
                    tokio::time::sleep(AGAIN).await;
                }
            }
            Ok(())
        })
    }
}

/// Runs on the runtime that outlives every test.
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    block_on(async { Handle::current() }).spawn(task)
}

impl Shared {
    async fn send(self: Arc<Self>, sender: usize) {
        let mine = |round: u64| {
            let kind = if round % 8 == 7 { Kind::Events } else { Kind::Increments };
            let items = if kind == Kind::Events { EVENTS } else { BATCH };
            let first = u32::try_from(round % u64::from(KEYS)).expect("few keys") * 3;
            let keys = (0..items).map(|n| (first + n) % KEYS);
            Batch::new(kind, format!("{sender}-{round}"), keys)
        };
        let mut acknowledged: Vec<(Instant, usize)> = Vec::new();
        for round in 0.. {
            if self.stopped() {
                return;
            }
            let at = self.enter(mine(round));
            let first = self.attempt(at, sender).await;
            if first != Fate::Acknowledged && self.attempt(at, sender + 1).await != Fate::Acknowledged {
                self.books.lock().unwrap().failed_twice += 1;
                let insists = rand::random_bool(0.5);
                let mut tries = sender;
                while insists && !self.stopped() {
                    tokio::time::sleep(AGAIN).await;
                    if self.attempt(at, tries).await == Fate::Acknowledged {
                        break;
                    }
                    tries += 1;
                }
                tokio::time::sleep(AGAIN).await;
            }
            acknowledged.push((Instant::now(), at));
            acknowledged.retain(|(since, _)| since.elapsed() < REMEMBERED);
            if rand::random_bool(0.05) && !acknowledged.is_empty() {
                let (_, again) = acknowledged[rand::random_range(0..acknowledged.len())];
                if self.books.lock().unwrap().batches[again].fate == Fate::Acknowledged {
                    self.attempt(again, sender + 1).await;
                }
            }
            tokio::time::sleep(PACE).await;
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn enter(&self, batch: Batch) -> usize {
        self.sums[1].fetch_add(batch.sum(), Ordering::SeqCst);
        let mut books = self.books.lock().unwrap();
        books.batches.push(batch);
        books.batches.len() - 1
    }

    /// One request with a batch, to the ingest with this number; answers the batch's fate after it.
    async fn attempt(&self, at: usize, ingest: usize) -> Fate {
        let (path, body, items, sum_again) = {
            let mut books = self.books.lock().unwrap();
            let batch = &mut books.batches[at];
            let sum_again = if batch.was_sent { batch.sum() } else { 0 };
            batch.was_sent = true;
            (batch.path(), batch.body(&self.counter), batch.len(), sum_again)
        };
        let url = {
            let urls = self.urls.lock().unwrap();
            format!("{}{path}", urls[ingest % urls.len()])
        };
        let began = Instant::now();
        if sum_again > 0 {
            self.again.lock().unwrap().push((began, sum_again));
        }
        let answer = self.post(&url, body).await;
        let ended = Instant::now();
        let fate = Fate::of(answer.as_ref().map(|(status, body)| (*status, body.as_str())));
        let mut books = self.books.lock().unwrap();
        books.attempts.push(Attempt { began, ended, status: answer.map(|(status, _)| status) });
        let batch = &mut books.batches[at];
        if fate == Fate::Acknowledged && batch.fate != fate {
            self.acknowledged.fetch_add(items, Ordering::Relaxed);
            self.sums[0].fetch_add(batch.sum(), Ordering::SeqCst);
        }
        batch.fate = fate.max(batch.fate);
        batch.fate
    }

    async fn post(&self, url: &str, body: String) -> Option<(u16, String)> {
        let request = self.client.post(url).header("content-type", "application/json").body(body);
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.text().await.ok()?))
    }
}
