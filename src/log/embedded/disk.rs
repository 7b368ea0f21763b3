//! The log on disk: one fjall keyspace per partition, in it the records in order of seq.
//!
//! Seqs only grow, so the tables of a keyspace never overlap: nothing is ever rewritten (FIFO compaction without a
//! limit), and old tables are dropped whole. Memtables are rotated from here and not by fjall, whose own rotation can
//! fill its queue until it waits for itself; the limits that make it stall its callers are therefore never met.
//! This room knows one open database; when that fails is decided in `committer`.

use std::{
    fmt,
    io::ErrorKind,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use fjall::{
    AbstractTree as _, Database, Keyspace, KeyspaceCreateOptions, LsmError, OwnedWriteBatch, PersistMode,
    compaction::Fifo,
    config::{BlockSizePolicy, FilterPolicy, PinningPolicy},
};

use super::{
    identity::{self, Identity},
    journal,
    record::{self, Key},
    retention::Table,
    unflushed::{Sight, Unflushed},
};
use crate::{
    item::Seq,
    log::{Bounds, Error, Record},
    priority,
    retry::Kind,
};

const CACHE_BYTES: u64 = 16 << 20;
const CACHED_FILES: usize = 128;
/// The least that fjall allows; a sealed journal is as long as this, so one of them makes it flush what holds it.
const JOURNAL_BYTES: u64 = 64 << 20;
const BLOCK_BYTES: u32 = 64 << 10;
/// One: with two, fjall's first spins while the second compacts.
const WORKERS: usize = 1;
/// What one read delivers of records that cannot be read.
const DAMAGED_AT_ONCE: u64 = 1024;

/// An open database.
pub(super) struct Disk {
    database: Database,
    partitions: Vec<Keyspace>,
    unflushed: Mutex<Unflushed>,
}

/// Why a write failed, and what is known of it.
#[derive(Debug)]
pub(super) enum WriteError {
    /// Nothing was written.
    Refused(fjall::Error),
    /// It may be in the journal, and may be there after a restart.
    Unknown(fjall::Error),
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) | Self::Unknown(error) => write!(f, "{}", Told(error)),
        }
    }
}

impl Disk {
    /// Opens the log in `dir`, making it as `new` says if there is none.
    pub(super) fn open(dir: &Path, new: &Identity) -> Result<(Self, Identity), Error> {
        // Damaged files can make the storage panic; that must not be ours.
        catch_unwind(AssertUnwindSafe(|| Self::try_open(dir, new)))
            .unwrap_or_else(|_| Err(cannot_open(dir, &"its files are damaged")))
    }

    fn try_open(dir: &Path, new: &Identity) -> Result<(Self, Identity), Error> {
        if dir.exists() {
            let cut = journal::mend(dir).map_err(|error| cannot_open(dir, &error))?;
            if cut > 0 {
                tracing::warn!(dir = %dir.display(), bytes = cut, "cut a torn tail off the log's journal");
            }
        }
        let failed = |error: fjall::Error| cannot_open(dir, &Told(&error)).with(error);
        let open = || {
            Database::builder(dir)
                .worker_threads(WORKERS)
                .cache_size(CACHE_BYTES)
                .max_cached_files(Some(CACHED_FILES))
                .max_journaling_size(JOURNAL_BYTES)
                .open()
        };
        // fjall's own thread turns memtables into tables: up to three times the buffer may wait for it.
        let database = priority::giving_way(open).map_err(|error| cannot_open(dir, &error))?.map_err(failed)?;
        let found = identity::read(&database, dir)?;
        let is_new = found.is_none();
        let identity = found.unwrap_or_else(|| new.clone());
        let mut partitions = Vec::new();
        for partition in 0..identity.partitions {
            let name = format!("partition-{partition}");
            if !is_new && !database.keyspace_exists(&name) {
                return Err(cannot_open(dir, &format!("partition {partition} is missing")));
            }
            partitions.push(database.keyspace(&name, partition_options).map_err(failed)?);
        }
        if is_new {
            // Last, so that a log with an identity is whole.
            identity::write(&database, &identity).map_err(failed)?;
        }
        let unflushed = Unflushed::new(database.write_buffer_size(), partitions.iter().map(sight));
        Ok((Self { database, partitions, unflushed: Mutex::new(unflushed) }, identity))
    }

    /// What is there of a partition, from the tables' and the memtables' keys.
    pub(super) fn bounds(&self, partition: usize) -> Result<Bounds, Error> {
        let keyspace = &self.partitions[partition];
        let failed = |error: fjall::Error| unreadable(partition, &error);
        let version = keyspace.tree.current_version();
        let keys = || version.iter_tables().map(|table| &table.metadata.key_range);
        let first = keys().filter_map(|keys| record::seq_of(keys.min())).min();
        let last = keys().filter_map(|keys| record::seq_of(keys.max())).max();
        // Beyond the tables there are only memtables: this does not read the disk.
        let mut unflushed = range(keyspace, last.map_or(0, |last| last + 1), u64::MAX);
        let newest = match unflushed.next_back() {
            Some(entry) => record::seq_of(&entry.key().map_err(failed)?),
            None => None,
        };
        let oldest = match unflushed.next() {
            Some(entry) => record::seq_of(&entry.key().map_err(failed)?),
            None => newest,
        };
        let end = newest.or(last).map_or(0, |last| last + 1);
        Ok(Bounds { start: Seq(first.or(oldest).unwrap_or(end)), end: Seq(end) })
    }

    /// Writes records as one batch and syncs them.
    ///
    /// `fdatasync`, not `fsync`: it covers the file's length and its extents, everything that reading the bytes back needs.
    pub(super) fn write(&self, records: impl ExactSizeIterator<Item = (usize, Key, Bytes)>) -> Result<(), WriteError> {
        let mut batch = OwnedWriteBatch::with_capacity(self.database.clone(), records.len());
        for (partition, key, payload) in records {
            batch.insert(&self.partitions[partition], key, payload);
        }
        let outcome = batch.durability(Some(PersistMode::Buffer)).commit();
        outcome.map_err(|error| match error {
            // Asked under the journal's lock, before the first byte.
            fjall::Error::Poisoned => WriteError::Refused(error),
            error => WriteError::Unknown(error),
        })?;
        self.database.persist(PersistMode::SyncData).map_err(WriteError::Unknown)
    }

    /// Records of a partition from `from` on and before `end`, at least one and about `max_bytes` at most.
    pub(super) fn read(&self, partition: usize, from: u64, end: u64, max_bytes: usize) -> Result<Vec<Record>, Error> {
        let mut records = Vec::new();
        let mut bytes = 0;
        let mut entries = range(&self.partitions[partition], from, end);
        for seq in from..end {
            if bytes >= max_bytes && !records.is_empty() {
                break;
            }
            match entries.next().map(fjall::Guard::into_inner) {
                Some(Ok((key, payload))) if record::seq_of(&key) == Some(seq) => {
                    bytes += payload.len();
                    records.push(record::decode(seq, &key, payload.into()));
                }
                // What is whole before the trouble goes first.
                _ if !records.is_empty() => break,
                Some(Err(error)) if is_damage(&error) => return self.read_past_damage(partition, seq, end, &error),
                Some(Err(error)) => return Err(unreadable(partition, &error)),
                Some(Ok(_)) | None => {
                    let message = format!(
                        "partition {partition} has no record {seq} on disk, though it ends at {end}; restore it from a copy"
                    );
                    return Err(Error::new(Kind::Fatal, message));
                }
            }
        }
        Ok(records)
    }

    /// A damaged block hides all its records, and only trying tells where the next one begins.
    fn read_past_damage(
        &self,
        partition: usize,
        from: u64,
        end: u64,
        error: &fjall::Error,
    ) -> Result<Vec<Record>, Error> {
        let mut records = Vec::new();
        for seq in from..end.min(from + DAMAGED_AT_ONCE) {
            match range(&self.partitions[partition], seq, end).next().map(fjall::Guard::key) {
                Some(Err(error)) if is_damage(&error) => {
                    let damage = format!("its block on disk is damaged ({})", Told(&error));
                    records.push(record::damaged(seq, Bytes::new(), damage));
                }
                _ => break,
            }
        }
        // It could be read this time: the caller tries again.
        if records.is_empty() { Err(unreadable(partition, error)) } else { Ok(records) }
    }

    /// The tables of a partition, in order of seq.
    pub(super) fn tables(&self, partition: usize) -> Vec<Table> {
        let version = self.partitions[partition].tree.current_version();
        let tables = version.iter_tables().filter_map(|table| {
            let metadata = &table.metadata;
            let last = record::seq_of(metadata.key_range.max())?;
            Some(Table { last, bytes: metadata.file_size, created: *metadata.created_at })
        });
        let mut tables: Vec<_> = tables.collect();
        tables.sort_unstable_by_key(|table| table.last);
        tables
    }

    /// The files of a partition's tables that lie wholly below `start`.
    pub(super) fn paths_below(&self, partition: usize, start: u64) -> Vec<PathBuf> {
        let version = self.partitions[partition].tree.current_version();
        let below = |key: &[u8]| record::seq_of(key).is_some_and(|last| last < start);
        version
            .iter_tables()
            .filter(|table| below(table.metadata.key_range.max()))
            .map(|table| table.path.to_path_buf())
            .collect()
    }

    /// Drops the tables of a partition that lie wholly below `start`.
    pub(super) fn drop_below(&self, partition: usize, start: u64) -> Result<(), fjall::Error> {
        let end = start.to_be_bytes();
        self.partitions[partition]
            .tree
            .drop_range::<&[u8], _>((Bound::Unbounded, Bound::Excluded(&end[..])))
            .map_err(fjall::Error::from)
    }

    /// Bytes in memtables: not in tables yet, so the journal holds them too.
    pub(super) fn buffered_bytes(&self) -> u64 {
        let mut unflushed = self.unflushed.lock().unwrap_or_else(PoisonError::into_inner);
        unflushed.bytes(self.partitions.iter().map(sight))
    }

    /// Hands the largest memtable to the flusher; `false` if there is none that can be now.
    pub(super) fn rotate_largest(&self) -> Result<bool, fjall::Error> {
        let largest = self
            .partitions
            .iter()
            .filter(|keyspace| keyspace.sealed_memtable_count() == 0)
            .map(|keyspace| (keyspace.tree.active_memtable().size(), keyspace))
            .max_by_key(|(size, _)| *size);
        match largest {
            Some((size, keyspace)) if size > 0 => keyspace.rotate_memtable(),
            _ => Ok(false),
        }
    }

    /// Bytes in memtables that no flush has been asked for.
    pub(super) fn active_bytes(&self) -> u64 {
        self.partitions.iter().map(|keyspace| keyspace.tree.active_memtable().size()).sum()
    }

    /// Writes all memtables to tables and waits for it.
    ///
    /// After a failed sync the pages that it was for may be marked clean without being on disk, so that a later sync of
    /// the journal proves nothing: what was recovered from it is written anew, to other files.
    pub(super) fn flush_all(&self) -> Result<(), fjall::Error> {
        for keyspace in &self.partitions {
            keyspace.rotate_memtable()?;
        }
        while self.partitions.iter().any(|keyspace| keyspace.sealed_memtable_count() > 0) {
            if self.is_poisoned() {
                return Err(fjall::Error::Poisoned);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// The database, for what is beside the partitions.
    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    /// Whether an I/O error or a panic has closed the database for writes.
    pub(super) fn is_poisoned(&self) -> bool {
        self.database.persist(PersistMode::Buffer).is_err()
    }
}

fn partition_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(u64::MAX)
        .compaction_strategy(Arc::new(Fifo::new(u64::MAX, None)))
        .data_block_size_policy(BlockSizePolicy::all(BLOCK_BYTES))
        .index_block_pinning_policy(PinningPolicy::disabled())
        .filter_policy(FilterPolicy::disabled())
}

fn sight(keyspace: &Keyspace) -> Sight {
    let active = keyspace.tree.active_memtable();
    Sight { id: active.id(), active: active.size(), sealed: keyspace.sealed_memtable_count() }
}

fn range(keyspace: &Keyspace, from: u64, end: u64) -> fjall::Iter {
    let (from, end) = (from.to_be_bytes(), end.to_be_bytes());
    keyspace.range::<&[u8], _>((Bound::Included(&from[..]), Bound::Excluded(&end[..])))
}

/// Whether the bytes on disk are wrong, as opposed to: could not be read now.
pub(super) fn is_damage(error: &fjall::Error) -> bool {
    match error {
        fjall::Error::Storage(LsmError::Io(error)) | fjall::Error::Io(error) => {
            matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData)
        }
        fjall::Error::Storage(_) | fjall::Error::InvalidTrailer | fjall::Error::InvalidTag(_) => true,
        _ => false,
    }
}

fn cannot_open(dir: &Path, why: &dyn fmt::Display) -> Error {
    Error::new(Kind::Fatal, format!("the log in `{}` cannot be opened: {why}", dir.display()))
}

fn unreadable(partition: usize, error: &fjall::Error) -> Error {
    Error::new(Kind::Transient, format!("partition {partition} cannot be read: {}", Told(error)))
}

/// fjall's errors as people read them.
pub(super) struct Told<'a>(pub(super) &'a fjall::Error);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            fjall::Error::Io(error) | fjall::Error::Storage(LsmError::Io(error)) => error.fmt(f),
            fjall::Error::Locked => f.write_str("another process has it open; stop that one, or choose another folder"),
            fjall::Error::Poisoned => f.write_str("an earlier write failed"),
            fjall::Error::Storage(LsmError::ChecksumMismatch { .. }) => f.write_str("a checksum does not match"),
            fjall::Error::Storage(LsmError::Unrecoverable) | fjall::Error::Unrecoverable => {
                f.write_str("files are missing or damaged")
            }
            error => write!(f, "{error:?}"),
        }
    }
}
