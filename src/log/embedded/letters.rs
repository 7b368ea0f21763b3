//! The embedded log's dead letters: a keyspace of the same database, made with the first letter.
//!
//! A letter's key is its coordinates, so burying it again finds it there. Its value is `buried_ms (8) · xxh3 (8)` and the
//! letter, big-endian. Letters are few; they are written one at a time by the committer, which looks for room on the disk
//! first, and synced before the answer. Nothing removes them.

use std::ops::Bound;

use async_trait::async_trait;
use bytes::Bytes;
use fjall::{AbstractTree as _, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use tokio::{sync::oneshot, task::spawn_blocking};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Embedded,
    committer::Message,
    disk::{Disk, Told, is_damage},
    stopped,
};
use crate::{
    clock,
    log::{
        DeadLetter, DeadLetters, Error, Found, Place,
        dead::{self, ENVELOPE_BYTES},
    },
    retry::Kind,
};

const KEYSPACE: &str = "dead-letters";
/// Written to tables when so much is in memory: until then the journal is kept for it.
const MEMTABLE_BYTES: u64 = 1 << 20;
/// What a value has before the letter.
const HEAD_BYTES: usize = 16;

/// A letter on its way.
pub(super) struct Burial {
    pub(super) letter: DeadLetter,
    pub(super) answer: oneshot::Sender<Result<(), Error>>,
}

impl Burial {
    /// About what it takes on the disk.
    pub(super) fn bytes(&self) -> u64 {
        self.letter.payload.len() as u64 + ENVELOPE_BYTES
    }
}

fn open(database: &Database) -> Result<Keyspace, fjall::Error> {
    // As with the partitions, fjall does not turn memtables over by itself.
    database.keyspace(KEYSPACE, || KeyspaceCreateOptions::default().max_memtable_size(u64::MAX))
}

/// Writes a letter, unless it is there, and syncs it.
pub(super) fn bury(disk: &Disk, letter: &DeadLetter) -> Result<(), fjall::Error> {
    let database = disk.database();
    let keyspace = open(database)?;
    let key = dead::key(letter.at);
    if !keyspace.contains_key(key)? {
        let bytes = letter.encode();
        let mut value = Vec::with_capacity(HEAD_BYTES + bytes.len());
        value.extend_from_slice(&clock::now_ms().to_be_bytes());
        value.extend_from_slice(&xxh3_64(&bytes).to_be_bytes());
        value.extend_from_slice(&bytes);
        keyspace.insert(key, value)?;
    }
    // Also where it is there: who buried it may not have come so far.
    database.persist(PersistMode::SyncData)?;
    if keyspace.tree.active_memtable().size() >= MEMTABLE_BYTES && keyspace.sealed_memtable_count() == 0 {
        keyspace.rotate_memtable()?;
    }
    Ok(())
}

fn read(disk: &Disk, after: Option<&Place>, max_bytes: usize) -> Result<Vec<Found>, fjall::Error> {
    let database = disk.database();
    if !database.keyspace_exists(KEYSPACE) {
        return Ok(Vec::new());
    }
    let keyspace = open(database)?;
    let from = after.map_or(Bound::Unbounded, |place| Bound::Excluded(&place.0[..]));
    let (mut found, mut bytes) = (Vec::new(), 0);
    for entry in keyspace.range::<&[u8], _>((from, Bound::Unbounded)) {
        if bytes >= max_bytes {
            break;
        }
        match entry.into_inner() {
            Ok((key, value)) => {
                bytes += value.len();
                found.push(decode(&key, value.into()));
            }
            // What is whole before the trouble goes first.
            Err(_) if !found.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn decode(key: &[u8], value: Bytes) -> Found {
    let place = Place(key.to_vec());
    let Some((head, _)) = value.split_first_chunk::<HEAD_BYTES>() else {
        return Found { place, buried_ms: 0, letter: Err(format!("it has {} bytes", value.len())) };
    };
    let (buried_ms, sum) = head.split_at(8);
    let buried_ms = i64::from_be_bytes(buried_ms.try_into().expect("eight bytes"));
    let bytes = value.slice(HEAD_BYTES..);
    let letter = if xxh3_64(&bytes).to_be_bytes() == *sum {
        DeadLetter::decode(bytes)
    } else {
        Err("its checksum does not match: its bytes have changed on the disk".to_owned())
    };
    Found { place, buried_ms, letter }
}

#[async_trait]
impl DeadLetters for Embedded {
    async fn bury(&self, letter: &DeadLetter) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        self.send(Message::Bury(Burial { letter: letter.clone(), answer })).await?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }

    async fn read_letters(&self, after: Option<&Place>, max_bytes: usize) -> Result<Vec<Found>, Error> {
        let (shared, after) = (self.shared.clone(), after.cloned());
        let reading = spawn_blocking(move || shared.with_disk(|disk| read(disk, after.as_ref(), max_bytes)));
        match reading.await {
            Ok(Some(Ok(found))) => Ok(found),
            Ok(Some(Err(error))) => {
                let kind = if is_damage(&error) { Kind::Fatal } else { Kind::Transient };
                Err(Error::new(kind, format!("the dead letters cannot be read: {}", Told(&error))).with(error))
            }
            Ok(None) => Err(Error::new(Kind::Transient, "the log is being opened again")),
            Err(error) => Err(Error::new(Kind::Transient, "the read was cut short").with(error)),
        }
    }
}
