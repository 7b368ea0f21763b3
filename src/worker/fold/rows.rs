//! One row in memory, and how rows are hashed.

use super::{Role, ShardState};
use crate::{
    hot::{HotKey, HotKind},
    item::{KEY_SEPARATOR, Namespace, Seq, SeriesRef, Stamp, series_hash},
    store::{RowName, ShardKey, TotalRow},
};

/// The place of a row in memory.
pub type RowId = u32;

#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: RowName,
    pub(super) total: i128,
    pub(super) seq: Seq,
    pub(super) stamp: Stamp,
    /// What the index knows it by.
    pub(super) hash: u64,
    /// One past the loaded base's seq: packs below it are in the base already.
    pub(super) base_end: Seq,
    /// One past the last pack with an undropped item for it.
    pub(super) touched_end: Seq,
    pub(super) shard: u32,
    /// Items folded since the last flush.
    pub(super) deltas: u32,
    /// How often packs have named it since its hot entry was last told: about what the entry has pending.
    pub(super) pending: u32,
    pub(super) role: Role,
    /// Its base is known.
    pub(super) loaded: bool,
    /// Owed a write.
    pub(super) dirty: bool,
    /// In the list of named rows.
    pub(super) named: bool,
    /// An empty place.
    pub(super) vacant: bool,
}

impl Row {
    pub(super) fn new(shard: u32, name: RowName, role: Role, hash: u64) -> Self {
        Self {
            name,
            total: 0,
            seq: Seq(0),
            stamp: Stamp(0),
            hash,
            base_end: Seq(0),
            touched_end: Seq(0),
            shard,
            deltas: 0,
            pending: 0,
            role,
            loaded: false,
            dirty: false,
            named: false,
            vacant: false,
        }
    }

    pub(super) fn vacant() -> Self {
        let nothing = RowName { counter: "".into(), tags: "".into() };
        Self { vacant: true, shard: u32::MAX, ..Self::new(0, nothing, Role::Series, 0) }
    }

    /// Whether these are its series' key bytes; `shard` is its own.
    pub(super) fn has_key(&self, shard: &ShardState, key: &[u8]) -> bool {
        let parts = [shard.key.namespace.as_str(), &self.name.counter];
        let tags = parts.iter().try_fold(key, |rest, part| {
            rest.strip_prefix(part.as_bytes()).and_then(|rest| rest.strip_prefix(&[KEY_SEPARATOR]))
        });
        tags == Some(self.name.tags.as_bytes())
    }

    pub(super) fn to_total(&self) -> TotalRow {
        TotalRow { name: self.name.clone(), total: self.total, seq: self.seq, stamp: self.stamp }
    }
}

/// A row that packs have named: its hot entry is owed a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Where it was in memory.
    pub row: RowId,
    /// A series or a whole counter.
    pub role: HotKind,
    /// The tenant.
    pub namespace: Namespace,
    /// The row.
    pub name: RowName,
    /// The lane's total for it.
    pub total: i128,
    /// The last pack that the total includes: ahead of the lane while it replays what its base covers.
    pub seq: Seq,
    /// About what its entry has pending; more, the longer its publish is owed.
    pub pending: u32,
}

impl Named {
    /// The hot entry's name.
    pub fn hot_key(&self) -> HotKey {
        let series =
            SeriesRef { namespace: self.namespace.as_str(), counter: &self.name.counter, tags: &self.name.tags };
        HotKey { kind: self.role, key: series.to_key().into() }
    }
}

/// What one flush writes and publishes.
#[derive(Debug, Default)]
pub struct Taken {
    /// Dirty rows by shard, sorted by name.
    pub shards: Vec<(ShardKey, Vec<TotalRow>)>,
    /// Every row that was named since the last flush.
    pub named: Vec<Named>,
    /// Undropped items that the series' rows stand for.
    pub deltas: u64,
}

impl From<Role> for HotKind {
    fn from(role: Role) -> Self {
        match role {
            Role::Series => Self::Series,
            Role::Counter => Self::Counter,
        }
    }
}

/// The part of a series key that is its counter's own: namespace and counter, with their separators.
pub(super) fn counter_prefix(key: &[u8]) -> Option<&[u8]> {
    let mut separators = key.iter().enumerate().filter(|(_, byte)| **byte == KEY_SEPARATOR);
    separators.nth(1).map(|(at, _)| &key[..=at])
}

/// The index's hash: the placement hash, told apart by role (a counter's total has its untagged series' key).
pub(super) fn hash(placement: u64, role: Role) -> u64 {
    match role {
        Role::Series => placement,
        Role::Counter => !placement,
    }
}

pub(super) fn hash_of(shard: &ShardState, name: &RowName) -> u64 {
    let series = SeriesRef { namespace: shard.key.namespace.as_str(), counter: &name.counter, tags: &name.tags };
    let role = if shard.key.shard.0 < 0 { Role::Counter } else { Role::Series };
    hash(series_hash(&series.to_key()), role)
}
