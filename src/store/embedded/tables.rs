//! The open tables: one keyspace of the engine each, one journal for all, and the stamp rule.
//!
//! Bounds: a table's unflushed rows take at most three times its limit (one growing, two on their way to disk); a writer
//! waits before it would exceed that. The engine has bounds of its own, but its waits do not end when its own threads
//! have died of a full disk, so this room turns its memtables over itself and never lets it come to that.

use std::{
    hash::{BuildHasher, RandomState},
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::{item::Stamp, store::ShardKey};

use super::{fault::Fault, keys, lanes::LaneRows, stamps::Stamps, values};

const CACHE_BYTES: u64 = 32 << 20;
/// Sealed journals beyond this make the engine flush whatever still needs the oldest; with the growing one they are what
/// opening replays.
const JOURNAL_BYTES: u64 = 64 << 20;
/// One thread flushes and compacts. A second one would be the engine's "flush first" worker, which spins while the other
/// compacts.
const ENGINE_THREADS: usize = 1;
/// Memtables of one table on their way to disk before its writers wait. The engine itself halts at 4.
const MOST_SEALED: usize = 2;
/// Files of one table not yet merged before its writers wait: each costs every read a look. The engine halts at 30.
const MOST_UNMERGED: usize = 12;
/// How long a writer waits for the disk before it answers that it is slow.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long opening waits for what the journal held to be in files of its own.
const SETTLE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(2);
/// What the engine keeps for a row besides its bytes.
const ROW_OVERHEAD: u64 = 80;
/// Rows whose stamps are known without a read: 16 bytes each.
const KNOWN_STAMPS: usize = 1 << 21;
const STRIPES: usize = 64;

/// A table of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum Table {
    /// Totals of series and of whole counters.
    CounterTotals,
    /// Events by name.
    Events,
    /// Events by subject.
    EventsBySubject,
    /// Lanes.
    Checkpoints,
    /// Layouts of the log.
    Epochs,
    /// Dead letters, and the packs that have applied their replays.
    Replayed,
    /// Halted lanes, and what operators have decided.
    Remedies,
}

impl Table {
    /// Every table.
    const ALL: [Self; 7] = [
        Self::CounterTotals,
        Self::Events,
        Self::EventsBySubject,
        Self::Checkpoints,
        Self::Epochs,
        Self::Replayed,
        Self::Remedies,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::CounterTotals => "counter_totals",
            Self::Events => "events",
            Self::EventsBySubject => "events_by_subject",
            Self::Checkpoints => "checkpoints",
            Self::Epochs => "epochs",
            Self::Replayed => "replayed",
            Self::Remedies => "remedies",
        }
    }

    /// Bytes of a memtable before it is written out.
    const fn limit(self) -> u64 {
        match self {
            Self::CounterTotals => 32 << 20,
            Self::Events | Self::EventsBySubject => 16 << 20,
            // A lane's row is overwritten at every flush, and each version is kept until it is written out.
            Self::Checkpoints | Self::Epochs | Self::Replayed | Self::Remedies => 1 << 20,
        }
    }
}

/// A row to write.
pub struct Entry {
    /// Its key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
}

struct Growing {
    keyspace: Keyspace,
    limit: u64,
    /// Bytes since its memtable was last turned over.
    bytes: AtomicU64,
}

/// The open tables.
pub struct Tables {
    db: Database,
    tables: Vec<Growing>,
    turning: Mutex<()>,
    /// Writers of one shard's totals take turns, so that comparing a stamp and writing over it are one step.
    stripes: Vec<Mutex<Stamps>>,
    stripe_of: RandomState,
    /// The lanes' rows, of which the table is the durable copy.
    pub lanes: LaneRows,
}

impl Tables {
    /// Opens the tables in this folder, making what is not there.
    ///
    /// What the journal holds is written to files of its own, and synced, before this returns: whatever an earlier
    /// process could or could not sync, nothing depends on it any more (S5).
    pub fn open(dir: &Path) -> Result<Self, Fault> {
        let db = Database::builder(dir)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(ENGINE_THREADS)
            .open()?;
        let open = |table: Table| -> Result<Growing, Fault> {
            // The engine's own limit only speaks up when ours has failed.
            let options = || KeyspaceCreateOptions::default().max_memtable_size(4 * table.limit());
            let keyspace = db.keyspace(table.name(), options)?;
            Ok(Growing { keyspace, limit: table.limit(), bytes: AtomicU64::new(0) })
        };
        let tables = Table::ALL.into_iter().map(open).collect::<Result<_, _>>()?;
        let stripes = (0..STRIPES).map(|_| Mutex::new(Stamps::new(KNOWN_STAMPS / STRIPES))).collect();
        let (turning, stripe_of) = (Mutex::default(), RandomState::new());
        let mut opened = Self { db, tables, turning, stripes, stripe_of, lanes: LaneRows::default() };
        opened.settle()?;
        opened.lanes = LaneRows::load(&opened.tables[Table::Checkpoints as usize].keyspace)?;
        Ok(opened)
    }

    fn settle(&self) -> Result<(), Fault> {
        let since = Instant::now();
        for table in &self.tables {
            table.keyspace.rotate_memtable()?;
        }
        while self.tables.iter().any(|table| table.keyspace.sealed_memtable_count() > 0) {
            self.check()?;
            if since.elapsed() > SETTLE {
                return Err(Fault::Slow);
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Bytes that are in memory and in the journal alone.
    pub fn unflushed(&self) -> u64 {
        self.db.write_buffer_size()
    }

    /// Whether the engine still takes writes.
    fn check(&self) -> Result<(), Fault> {
        Ok(self.db.persist(PersistMode::Buffer)?)
    }

    /// The table's keyspace, for reading.
    pub fn keyspace(&self, table: Table) -> &Keyspace {
        &self.tables[table as usize].keyspace
    }

    /// Reads one row.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<fjall::Slice>, Fault> {
        Ok(self.keyspace(table).get(key)?)
    }

    /// Writes rows of one shard as one mutation, each unless the table has it at its stamp or a newer one. Each names its
    /// stamp and occurs once.
    pub fn upsert_totals(&self, shard: &ShardKey, rows: Vec<(Stamp, Entry)>) -> Result<(), Fault> {
        const TABLE: Table = Table::CounterTotals;
        self.admit(TABLE)?;
        let mut stamps = lock(self.stripe(shard));
        let mut written = Vec::with_capacity(rows.len());
        let mut batch = Batch::new(self, rows.len());
        for (stamp, entry) in rows {
            let hash = stamps.hash(&entry.key);
            let current = match stamps.get(hash) {
                Some(known) => Some(known),
                None => self.get(TABLE, &entry.key)?.map(|value| values::stamp(&value)).transpose()?,
            };
            if current.is_some_and(|current| current >= stamp) {
                continue;
            }
            batch.insert(TABLE, entry)?;
            written.push((hash, stamp));
        }
        // If this fails nobody knows what the table has, and the tables are opened anew, with nothing known.
        batch.commit()?;
        for (hash, stamp) in written {
            stamps.note(hash, stamp);
        }
        Ok(())
    }

    fn stripe(&self, shard: &ShardKey) -> &Mutex<Stamps> {
        // The shards of one namespace spread evenly.
        let namespace = self.stripe_of.hash_one((&shard.namespace, shard.epoch)) as usize % STRIPES;
        let shard = shard.shard.0.rem_euclid(STRIPES as i32) as usize;
        &self.stripes[(namespace + shard) % STRIPES]
    }

    /// Writes rows as one mutation, whatever is there.
    pub fn insert(&self, rows: Vec<(Table, Entry)>) -> Result<(), Fault> {
        for table in Table::ALL {
            if rows.iter().any(|(of, _)| *of == table) {
                self.admit(table)?;
            }
        }
        let mut batch = Batch::new(self, rows.len());
        for (table, entry) in rows {
            batch.insert(table, entry)?;
        }
        batch.commit()
    }

    /// Writes one row, whatever is there.
    pub fn put(&self, table: Table, key: Vec<u8>, value: Vec<u8>) -> Result<(), Fault> {
        self.insert(vec![(table, Entry { key: key.into(), value: value.into() })])
    }

    /// Returns when everything written before is on the disk (S5).
    pub fn sync(&self) -> Result<(), Fault> {
        self.db.persist(PersistMode::SyncAll).map_err(Fault::Sync)
    }

    /// Waits until the table has room for another mutation.
    fn admit(&self, table: Table) -> Result<(), Fault> {
        let table = &self.tables[table as usize];
        let mut since = None;
        loop {
            let sealed = table.keyspace.sealed_memtable_count();
            let full = table.bytes.load(Ordering::Relaxed) >= table.limit;
            if full && sealed < MOST_SEALED {
                self.turn(table)?;
                continue;
            }
            if !full && table.keyspace.l0_table_count() < MOST_UNMERGED {
                return Ok(());
            }
            if since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                return Err(Fault::Slow);
            }
            self.check()?;
            std::thread::sleep(POLL);
        }
    }

    fn turn(&self, table: &Growing) -> Result<(), Fault> {
        let _turning = lock(&self.turning);
        if table.bytes.load(Ordering::Relaxed) >= table.limit && table.keyspace.sealed_memtable_count() < MOST_SEALED {
            table.bytes.store(0, Ordering::Relaxed);
            table.keyspace.rotate_memtable()?;
        }
        Ok(())
    }
}

/// A mutation in the making.
struct Batch<'a> {
    tables: &'a Tables,
    batch: fjall::OwnedWriteBatch,
    bytes: [u64; Table::ALL.len()],
}

impl<'a> Batch<'a> {
    fn new(tables: &'a Tables, rows: usize) -> Self {
        // Without a mode of its own the journal would keep it in this process: `Buffer` hands it to the system.
        let batch =
            fjall::OwnedWriteBatch::with_capacity(tables.db.clone(), rows).durability(Some(PersistMode::Buffer));
        Self { tables, batch, bytes: [0; Table::ALL.len()] }
    }

    fn insert(&mut self, table: Table, entry: Entry) -> Result<(), Fault> {
        if entry.key.len() > keys::MAX_KEY_BYTES {
            return Err(Fault::TooLong(entry.key.len()));
        }
        self.bytes[table as usize] += (entry.key.len() + entry.value.len()) as u64 + ROW_OVERHEAD;
        self.batch.insert(self.tables.keyspace(table), entry.key, entry.value);
        Ok(())
    }

    fn commit(self) -> Result<(), Fault> {
        self.batch.commit()?;
        for (table, bytes) in self.tables.tables.iter().zip(self.bytes) {
            table.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Reads key and value of a row that a range has found.
pub fn row(guard: fjall::Guard) -> Result<(fjall::Slice, fjall::Slice), Fault> {
    Ok(guard.into_inner()?)
}

/// Locks, whatever another thread died of: what these locks guard is consistent at every step.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
