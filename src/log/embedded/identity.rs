//! What an embedded log says of itself: written once, when it is made, and checked whenever it is opened.

use std::path::Path;

use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use serde::{Deserialize, Serialize};

use super::disk::Told;
use crate::{item::TopicId, log::Error, retry::Kind};

const KEYSPACE: &str = "identity";
const KEY: &str = "identity";
/// The layout of everything in the folder; another one is not read.
const LAYOUT: u32 = 1;

/// Who this log is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    layout: u32,
    /// The topic's name.
    pub(super) topic: String,
    topic_id: String,
    /// The random name of this log's life as a whole.
    pub(super) cluster_id: String,
    /// How many partitions it has.
    pub(super) partitions: u32,
}

impl Identity {
    /// A new log's.
    pub(super) fn new(topic: &str, partitions: u32) -> Self {
        let random = || format!("{:032x}", rand::random::<u128>());
        Self { layout: LAYOUT, topic: topic.to_owned(), topic_id: random(), cluster_id: random(), partitions }
    }

    /// The topic's id.
    pub(super) fn topic_id(&self) -> Option<TopicId> {
        u128::from_str_radix(&self.topic_id, 16).ok().map(|id| TopicId(id.to_be_bytes()))
    }
}

/// The identity of an existing log.
pub(super) fn read(database: &Database, dir: &Path) -> Result<Option<Identity>, Error> {
    if !database.keyspace_exists(KEYSPACE) {
        return Ok(None);
    }
    let fatal =
        |why: String| Error::new(Kind::Fatal, format!("the log in `{}` cannot be opened: {why}", dir.display()));
    let bytes = database
        .keyspace(KEYSPACE, KeyspaceCreateOptions::default)
        .and_then(|keyspace| keyspace.get(KEY))
        .map_err(|error| fatal(Told(&error).to_string()))?;
    let Some(bytes) = bytes else { return Ok(None) };
    let identity: Identity =
        serde_json::from_slice(&bytes).map_err(|error| fatal(format!("its identity cannot be read ({error})")))?;
    if identity.layout != LAYOUT {
        return Err(fatal(format!("its layout is {}, and this version reads {LAYOUT}; upgrade", identity.layout)));
    }
    if identity.topic_id().is_none() || identity.partitions == 0 {
        return Err(fatal("its identity makes no sense".to_owned()));
    }
    Ok(Some(identity))
}

/// Gives a new log its identity, durably.
pub(super) fn write(database: &Database, identity: &Identity) -> Result<(), fjall::Error> {
    let keyspace = database.keyspace(KEYSPACE, KeyspaceCreateOptions::default)?;
    keyspace.insert(KEY, serde_json::to_vec(identity).expect("plain fields serialize"))?;
    database.persist(PersistMode::SyncAll)?;
    // To a table at once: this keyspace is not written again, and would hold the first journal.
    keyspace.rotate_memtable()?;
    Ok(())
}
