//! The engine behind the tables, and its health.
//!
//! A failed write stops the engine: it takes no more until its files are opened again. That is done here, on the way of a
//! later write, when the disk has room for what has to be written out first; until then writes answer that the disk is
//! full, and reads go on. So whoever writes needs only to try again, and no acknowledged row is lost: it is in the journal
//! that the opening replays. What does not pass by itself is remembered, and every later write gets the same answer.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{priority, retry::Kind, store::Error};

use super::{
    fault::{Fault, Remedy},
    tables::Tables,
};

/// How long to leave a stopped engine alone after a try to open it.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a full disk is asked for room.
const GLANCE: Duration = Duration::from_millis(100);
/// Room beyond what has to be written out, for the journal and the files' own lists.
const SLACK_BYTES: u64 = 8 << 20;

#[derive(Debug)]
enum Health {
    Well,
    Stopped { needs: u64, next: Instant, cause: String },
    Lost(String),
}

/// The tables of one folder, open as far as they can be.
pub struct Engine {
    dir: PathBuf,
    tables: RwLock<Option<Tables>>,
    /// Whether `health` is anything but well: what every write looks at.
    stopped: AtomicBool,
    health: Mutex<Health>,
    /// Writers of lanes and epochs take turns.
    pub lanes: Mutex<()>,
}

impl Engine {
    /// Opens the tables in this folder.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let tables = open(dir).map_err(|fault| fault.tell(dir))?;
        Ok(Self {
            dir: dir.to_owned(),
            tables: RwLock::new(Some(tables)),
            stopped: AtomicBool::new(false),
            health: Mutex::new(Health::Well),
            lanes: Mutex::default(),
        })
    }

    /// Reads, whether the engine takes writes or not. Waits while it is being opened, so not for an async task.
    pub fn read<T>(&self, work: impl FnOnce(&Tables) -> Result<T, Fault>) -> Result<T, Error> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        self.read_from(tables.as_ref(), work)
    }

    /// Reads what takes a moment; refuses while the engine is being opened.
    pub fn glance<T>(&self, work: impl FnOnce(&Tables) -> Result<T, Fault>) -> Result<T, Error> {
        match self.tables.try_read() {
            Ok(tables) => self.read_from(tables.as_ref(), work),
            Err(_) => self.read_from(None, work),
        }
    }

    fn read_from<T>(
        &self,
        tables: Option<&Tables>,
        work: impl FnOnce(&Tables) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        let tables = tables.ok_or_else(|| self.opening())?;
        guarded(|| work(tables)).map_err(|fault| fault.tell(&self.dir))
    }

    /// Writes, first opening the engine again if it has stopped and can be opened.
    pub fn write<T>(&self, work: impl FnOnce(&Tables) -> Result<T, Fault>) -> Result<T, Error> {
        self.heal()?;
        let slot = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let tables = slot.as_ref().ok_or_else(|| self.opening())?;
        // The slot stays locked, so that a failure is not taken for one of the engine that is opened in this one's place.
        guarded(|| work(tables)).map_err(|fault| self.fail(fault, tables))
    }

    fn opening(&self) -> Error {
        Error::new(Kind::Transient, format!("the store in {} is being opened again", self.dir.display()))
    }

    fn fail(&self, fault: Fault, tables: &Tables) -> Error {
        let remedy = fault.remedy();
        let error = fault.tell(&self.dir);
        // Whoever holds it opens the engine anew, and waits for this caller's hold on the tables to end.
        let Ok(mut health) = self.health.try_lock() else { return error };
        match (remedy, &*health) {
            (Remedy::Reopen, Health::Well) => {
                // On disk a row takes less than half of what it takes in memory.
                let needs = tables.unflushed() / 2 + SLACK_BYTES;
                tracing::warn!(dir = %self.dir.display(), error = %error, "the embedded store takes no writes");
                *health = Health::Stopped { needs, next: Instant::now(), cause: error.message.clone() };
                self.stopped.store(true, Ordering::Release);
            }
            (Remedy::Act, Health::Well | Health::Stopped { .. }) => {
                tracing::error!(dir = %self.dir.display(), error = %error, "the embedded store is lost until a restart");
                *health = Health::Lost(error.message.clone());
                self.stopped.store(true, Ordering::Release);
            }
            _ => {}
        }
        error
    }

    fn heal(&self) -> Result<(), Error> {
        if !self.stopped.load(Ordering::Acquire) {
            return Ok(());
        }
        let Ok(mut health) = self.health.try_lock() else { return Err(self.opening()) };
        let (needs, next, cause) = match &mut *health {
            Health::Well => return Ok(()),
            Health::Lost(message) => return Err(Error::new(Kind::Fatal, message.clone())),
            Health::Stopped { needs, next, cause } => (*needs, next, cause),
        };
        let since = Instant::now();
        if since < *next {
            return Err(Error::new(Kind::Transient, cause.clone()));
        }
        let room = fs4::available_space(&self.dir).unwrap_or(u64::MAX);
        if room < needs {
            *next = since + GLANCE;
            return Err(Error::new(
                Kind::Transient,
                format!("{cause} (it has {room} bytes free and needs {needs} to go on)"),
            ));
        }
        let mut slot = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        // Both hold the folder's lock, so the old one goes first. It may have died in a way that its end does, too.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(slot.take())));
        match open(&self.dir) {
            Ok(tables) => {
                *slot = Some(tables);
                *health = Health::Well;
                self.stopped.store(false, Ordering::Release);
                tracing::info!(dir = %self.dir.display(), "the embedded store takes writes again");
                Ok(())
            }
            Err(fault) => {
                // The old engine's threads may hold the folder's lock for a moment yet.
                let act = fault.remedy() == Remedy::Act && !matches!(fault, Fault::Engine(fjall::Error::Locked));
                let mut error = fault.tell(&self.dir);
                if act {
                    tracing::error!(dir = %self.dir.display(), error = %error, "the embedded store is lost until a restart");
                    *health = Health::Lost(error.message.clone());
                } else {
                    error.kind = Kind::Transient;
                    *cause = error.message.clone();
                    *next = Instant::now() + PAUSE.max(5 * since.elapsed());
                }
                Err(error)
            }
        }
    }
}

fn open(dir: &Path) -> Result<Tables, Fault> {
    // The engine's own threads write and merge files in the background.
    priority::giving_way(|| guarded(|| Tables::open(dir))).map_err(|error| Fault::Engine(error.into()))?
}

/// The engine asserts what it believes of its files: damage to them must not take the process down.
fn guarded<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Fault::Panicked))
}
