//! What every part of a world shares: chance, the virtual clock, the trace, and the first law that was seen broken.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tallymark::item::Lane;
use tokio::time::{Instant, sleep};

/// When a world begins, in milliseconds since 1970.
pub const BEGIN_MS: i64 = 1_800_000_000_000;

/// Everything that a seed decides comes from here, in the order in which it is asked: the same seed is the same world.
/// SplitMix64, so that a recorded seed means the same on every machine and with every version of every crate.
#[derive(Debug)]
pub struct Chance(Mutex<u64>);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1))
    }

    pub fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, which is not 0.
    pub fn below(&self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Within `[low, high]`.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True so many times in a thousand.
    pub fn permille(&self, times: u64) -> bool {
        times > 0 && self.below(1000) < times
    }

    pub fn pick<'a, T>(&self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    pub fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next().to_le_bytes());
        bytes[8..].copy_from_slice(&self.next().to_le_bytes());
        bytes
    }
}

/// See the module.
pub struct Sim {
    pub chance: Chance,
    started: Instant,
    trace: Option<Mutex<Vec<String>>>,
    violation: Mutex<Option<String>>,
    /// Lanes of which the log itself was falsified: their rows follow from nothing any more.
    tainted: Mutex<BTreeSet<Lane>>,
    /// Some server of the store has forgotten something.
    pub forgot: AtomicBool,
}

impl Sim {
    pub fn new(seed: u64, traced: bool) -> Arc<Self> {
        Arc::new(Self {
            chance: Chance::new(seed),
            started: Instant::now(),
            trace: traced.then(Mutex::default),
            violation: Mutex::default(),
            tainted: Mutex::default(),
            forgot: AtomicBool::new(false),
        })
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The true time, in milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        BEGIN_MS + self.elapsed().as_millis() as i64
    }

    /// Writes a line of the trace, when there is one.
    pub fn note(&self, line: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            let at = self.elapsed();
            trace.lock().unwrap().push(format!("{:>9.3} {}", at.as_secs_f64(), line()));
        }
    }

    pub fn trace(&self) -> Vec<String> {
        self.trace.as_ref().map(|trace| trace.lock().unwrap().clone()).unwrap_or_default()
    }

    /// A law is broken. The first one counts.
    pub fn violated(&self, what: impl FnOnce() -> String) {
        let mut violation = self.violation.lock().unwrap();
        if violation.is_none() {
            let what = what();
            self.note(|| format!("VIOLATED {what}"));
            *violation = Some(format!("{what} (at {:.3} s)", self.elapsed().as_secs_f64()));
        }
    }

    pub fn violation(&self) -> Option<String> {
        self.violation.lock().unwrap().clone()
    }

    /// The log of this lane is not what was acknowledged any more.
    pub fn taint(&self, lane: Lane) {
        self.tainted.lock().unwrap().insert(lane);
    }

    pub fn is_tainted(&self, lane: Lane) -> bool {
        self.tainted.lock().unwrap().contains(&lane)
    }

    pub fn forgets(&self) {
        self.forgot.store(true, Ordering::SeqCst);
    }

    /// Takes up to so long; sometimes nothing at all.
    pub async fn dawdle(&self, most_ms: u64) {
        if most_ms > 0 && self.chance.permille(600) {
            sleep(Duration::from_millis(self.chance.between(1, most_ms))).await;
        }
    }
}
