//! What is looked at while a fault lasts: how long each lane stands still, and how much memory the processes take.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::e2e::process::get_json;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(250);

/// What is said of figures that are as they were before.
const UNKNOWN: &str = "the log could not be asked";

/// A lane, as it was seen.
#[derive(Clone, Copy)]
struct Lane {
    stored: i64,
    /// When it was last seen to have nothing to do, or to have stored something.
    moved: Instant,
    longest: Duration,
}

#[derive(Default)]
struct Shared {
    /// Processes, and the admin port of each.
    processes: Mutex<Vec<(u32, String)>>,
    stop: AtomicBool,
    lanes: Mutex<BTreeMap<u64, Lane>>,
    memory: Mutex<u64>,
}

/// A thread that looks, until it is dropped.
pub struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub fn start() -> Self {
        let shared = Arc::<Shared>::default();
        let looking = shared.clone();
        let thread = std::thread::spawn(move || {
            while !looking.stop.load(Ordering::Relaxed) {
                looking.look();
                std::thread::park_timeout(INTERVAL);
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// From now on this process too. Those that are gone are asked in vain, and cost nothing.
    pub fn add(&self, pid: u32, admin: &str) {
        self.shared.processes.lock().unwrap().push((pid, admin.to_owned()));
    }

    /// The most memory that one process was seen to take, in bytes.
    pub fn memory(&self) -> u64 {
        *self.shared.memory.lock().unwrap()
    }

    /// The longest pause of each lane that had something to store.
    pub fn pauses(&self) -> Vec<Duration> {
        self.shared.lanes.lock().unwrap().values().map(|lane| lane.longest).collect()
    }

    /// Forgets the pauses so far: the fault begins.
    pub fn forget(&self) {
        self.shared.lanes.lock().unwrap().clear();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn look(&self) {
        let processes = self.processes.lock().unwrap().clone();
        for (pid, _) in &processes {
            if let Some(bytes) = resident(*pid) {
                let mut highest = self.memory.lock().unwrap();
                *highest = bytes.max(*highest);
            }
        }
        // Every process shows all lanes as the log and the store have them: one that can ask the log is enough.
        let lag = processes.iter().filter(|(pid, _)| resident(*pid).is_some()).find_map(|(_, admin)| {
            let asked = |(status, lag): &(u16, Value)| *status == 200 && !lag.to_string().contains(UNKNOWN);
            get_json(&format!("{admin}/api/v1/lag")).filter(asked)
        });
        if let Some((_, lag)) = lag {
            self.note(&lag, Instant::now());
        }
    }

    fn note(&self, lag: &Value, now: Instant) {
        let mut lanes = self.lanes.lock().unwrap();
        for shown in lag["lanes"].as_array().into_iter().flatten() {
            let Some(partition) = shown["partition"].as_u64() else { continue };
            let stored = shown["stored"].as_i64().unwrap_or(-1);
            let lane = lanes.entry(partition).or_insert(Lane { stored, moved: now, longest: Duration::ZERO });
            if stored != lane.stored || shown["lag_packs"] == 0 {
                (lane.stored, lane.moved) = (stored, now);
            }
            lane.longest = lane.longest.max(now - lane.moved);
        }
    }
}

/// Memory that a process holds; `None` when there is none.
fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
}
