//! The fold: a lane's rows in memory, absolute totals to which packs are added (laws 3 and 4).
//!
//! A row must be loaded before it is folded into: [`Fold::prepare`] resolves a pack's dictionary to rows and says what must
//! be read first, [`Fold::install`] takes what was read, [`Fold::add`] folds. Deltas of packs that the loaded base already
//! covers change nothing, but they touch the row: a row touched since the checkpoint is owed a write, with its own stamp,
//! and is not evicted before the checkpoint passes it.
//!
//! Every series is folded twice: into its own row, and into its counter's total in the lane's reserved shard.
//!
//! Pure: no clock, no I/O. `flush` writes what [`Fold::take`] hands out.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    item::{Namespace, Seq, SeriesRef, Shard, Stamp, series_hash},
    store::{EpochRow, RowName, ShardKey, TotalRow},
    worker::index::Index,
};

mod corrections;
mod rows;

use rows::Row;
pub use rows::{Named, RowId, Taken};

/// What a fold needs read before a pack can be folded.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Shards nobody has read yet: read them as one slice.
    pub shards: Vec<u32>,
    /// Rows to read by name, by shard.
    pub rows: HashMap<u32, Vec<RowName>>,
}

impl Missing {
    /// Whether everything is there.
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty() && self.rows.is_empty()
    }
}

/// A dictionary entry, resolved: the rows that its items fold into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    series: RowId,
    counter: RowId,
}

/// Keys that are prepared together: what they touch fits into a core's own cache. Few in tests: there a pack of a few keys
/// takes several rounds.
const TOGETHER: usize = if cfg!(test) { 2 } else { 256 };

/// What is known of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Not read yet.
    Nothing,
    /// Every row of it is in memory: a row that is not here does not exist.
    Whole,
    /// Too large, or evicted from: a row that is not here must be read by name.
    Partly,
}

#[derive(Debug)]
struct ShardState {
    key: ShardKey,
    /// Index of its epoch, for comparing rows cheaply.
    epoch: u32,
    known: Known,
    rows: u32,
}

/// Which of the two rows of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Series,
    Counter,
}

/// The rows of one lane.
pub struct Fold {
    partition: u32,
    epochs: Vec<EpochRow>,
    shards: Vec<ShardState>,
    by_key: HashMap<ShardKey, u32>,
    rows: Vec<Row>,
    free: Vec<RowId>,
    index: Index,
    counters: HashSet<Arc<str>>,
    /// The placement hashes of the keys that are being prepared.
    placements: Vec<u64>,
    /// Rows named by a pack since the last flush, dropped duplicates included.
    named: Vec<RowId>,
    dirty: usize,
    /// Where the next eviction goes on.
    hand: usize,
    max_rows: usize,
}

/// A series key that does not belong into this lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Misplaced;

impl Fold {
    /// An empty fold of a lane that keeps about `max_rows` rows.
    pub fn new(partition: u32, epochs: Vec<EpochRow>, max_rows: usize) -> Self {
        Self {
            partition,
            epochs,
            shards: Vec::new(),
            by_key: HashMap::new(),
            rows: Vec::new(),
            free: Vec::new(),
            index: Index::new(),
            counters: HashSet::new(),
            placements: Vec::new(),
            named: Vec::new(),
            dirty: 0,
            hand: 0,
            max_rows,
        }
    }

    /// Resolves a dictionary; `targets` gets one entry per key, valid once nothing is missing any more.
    ///
    /// # Errors
    /// When a key belongs into another lane by the counts of `epoch`: the record was routed by nobody's rules.
    pub fn prepare<'a>(
        &mut self,
        epoch: u32,
        mut keys: impl Iterator<Item = &'a [u8]>,
        targets: &mut Vec<Target>,
    ) -> Result<Missing, Misplaced> {
        let mut missing = Missing::default();
        let mut last: Option<(&[u8], RowId)> = None;
        targets.clear();
        let mut together = Vec::with_capacity(TOGETHER);
        loop {
            together.clear();
            together.extend(keys.by_ref().take(TOGETHER));
            if together.is_empty() {
                return Ok(missing);
            }
            self.bring_near(&together);
            for (at, key) in together.iter().enumerate() {
                let counter = match last {
                    // Neighbours often belong to one counter.
                    Some((prefix, row)) if key.starts_with(prefix) => row,
                    _ => {
                        let prefix = rows::counter_prefix(key).ok_or(Misplaced)?;
                        let row = self.resolve(epoch, prefix, series_hash(prefix), Role::Counter, &mut missing)?;
                        last = Some((prefix, row));
                        row
                    }
                };
                let series = self.resolve(epoch, key, self.placements[at], Role::Series, &mut missing)?;
                targets.push(Target { series, counter });
            }
        }
    }

    /// Hashes keys and reads what [`Fold::resolve`] will look at. Each row lies far from the last one: looked up one by
    /// one, every step of every key would wait for memory; read in rounds, the keys of a round wait together.
    fn bring_near(&mut self, keys: &[&[u8]]) {
        let Self { placements, index, rows, .. } = self;
        placements.clear();
        placements.extend(keys.iter().map(|key| series_hash(key)));
        let hashes = placements.iter().map(|placement| rows::hash(*placement, Role::Series));
        let slots = hashes.clone().fold(0, |all, hash| all ^ index.touch(hash));
        let likely = || hashes.clone().filter_map(|hash| index.find(hash, |_| true)).map(|row| &rows[row as usize]);
        let hashes = likely().fold(0, |all, row| all ^ row.hash ^ row.touched_end.0);
        let texts = likely().fold(0, |all, row| all ^ row.name.tags.bytes().next().unwrap_or(0));
        std::hint::black_box((slots, hashes, texts));
    }

    /// Finds a row, or makes one that waits for its base; what must be read for that goes into `missing`.
    fn resolve(
        &mut self,
        epoch: u32,
        key: &[u8],
        placement: u64,
        role: Role,
        missing: &mut Missing,
    ) -> Result<RowId, Misplaced> {
        let hash = rows::hash(placement, role);
        let found = self.index.find(hash, |row| {
            let row = &self.rows[row as usize];
            let shard = &self.shards[row.shard as usize];
            row.hash == hash && row.role == role && shard.epoch == epoch && row.has_key(shard, key)
        });
        if let Some(row) = found {
            self.require(row, missing);
            return Ok(row);
        }
        let series = SeriesRef::from_key(key).ok_or(Misplaced)?;
        let shard = self.shard(epoch, series.namespace, role, placement)?;
        let counter = self.counter(series.counter);
        let name = RowName { counter, tags: series.tags.into() };
        let row = self.insert(Row::new(shard, name, role, hash));
        self.require(row, missing);
        Ok(row)
    }

    /// Notes in `missing` what must be read before this row can be folded into.
    fn require(&mut self, row: RowId, missing: &mut Missing) {
        let Row { shard, name, loaded, role, .. } = &mut self.rows[row as usize];
        if *loaded {
            return;
        }
        match self.shards[*shard as usize].known {
            // Every row of the shard is here, so this one, which waited, does not exist in the store.
            Known::Whole => *loaded = true,
            Known::Nothing if missing.shards.contains(shard) => {}
            Known::Nothing => missing.shards.push(*shard),
            Known::Partly => {
                let names = missing.rows.entry(*shard).or_default();
                // A dictionary names a series once; only counters come up again.
                if *role == Role::Series || !names.contains(name) {
                    names.push(name.clone());
                }
            }
        }
    }

    fn shard(&mut self, epoch: u32, namespace: &str, role: Role, placement: u64) -> Result<u32, Misplaced> {
        let row = &self.epochs[epoch as usize];
        let shard = match role {
            Role::Series => Shard::of(placement, row.shards),
            Role::Counter => Shard::reserved(self.partition),
        };
        if shard.partition(row.partitions) != self.partition {
            return Err(Misplaced);
        }
        let namespace = Namespace::parse(namespace).map_err(|_| Misplaced)?;
        let key = ShardKey { namespace, shard, epoch: row.epoch };
        let next = self.shards.len() as u32;
        Ok(*self.by_key.entry(key).or_insert_with_key(|key| {
            self.shards.push(ShardState { key: key.clone(), epoch, known: Known::Nothing, rows: 0 });
            next
        }))
    }

    fn counter(&mut self, name: &str) -> Arc<str> {
        if let Some(counter) = self.counters.get(name) {
            return counter.clone();
        }
        let counter: Arc<str> = name.into();
        self.counters.insert(counter.clone());
        counter
    }

    fn insert(&mut self, row: Row) -> RowId {
        let hash = row.hash;
        self.shards[row.shard as usize].rows += 1;
        let id = match self.free.pop() {
            Some(id) => {
                self.rows[id as usize] = row;
                id
            }
            None => {
                self.rows.push(row);
                (self.rows.len() - 1) as RowId
            }
        };
        self.index.set(hash, id, |_| false);
        id
    }

    /// What a shard number of [`Missing`] stands for.
    pub fn shard_key(&self, shard: u32) -> &ShardKey {
        &self.shards[shard as usize].key
    }

    /// Takes a whole shard as read. `None`: it is too large, its rows are read by name from now on. Whoever waited for it
    /// prepares again. Every base is told to `met`.
    pub fn install(&mut self, shard: u32, read: Option<Vec<TotalRow>>, mut met: impl FnMut(Seq, Stamp)) {
        let Some(read) = read.filter(|read| self.len() + read.len() <= self.max_rows) else {
            self.shards[shard as usize].known = Known::Partly;
            return;
        };
        for row in read {
            met(row.seq, row.stamp);
            self.base(shard, row);
        }
        self.shards[shard as usize].known = Known::Whole;
    }

    /// Takes rows as read by name. Every base is told to `met`.
    pub fn install_named(
        &mut self,
        shard: u32,
        names: &[RowName],
        read: Vec<Option<TotalRow>>,
        mut met: impl FnMut(Seq, Stamp),
    ) {
        for (name, read) in names.iter().zip(read) {
            match read {
                Some(row) => {
                    met(row.seq, row.stamp);
                    self.base(shard, row);
                }
                None => {
                    if let Some(row) = self.find(shard, name) {
                        self.rows[row as usize].loaded = true;
                    }
                }
            }
        }
    }

    fn find(&self, shard: u32, name: &RowName) -> Option<RowId> {
        let state = &self.shards[shard as usize];
        let hash = rows::hash_of(state, name);
        self.index.find(hash, |row| {
            let row = &self.rows[row as usize];
            row.shard == shard && row.name == *name
        })
    }

    fn base(&mut self, shard: u32, read: TotalRow) {
        let row = match self.find(shard, &read.name) {
            Some(row) => row,
            None => {
                let role = if self.shards[shard as usize].key.shard.0 < 0 { Role::Counter } else { Role::Series };
                let hash = rows::hash_of(&self.shards[shard as usize], &read.name);
                let name = RowName { counter: self.counter(&read.name.counter), tags: read.name.tags.clone() };
                self.insert(Row::new(shard, name, role, hash))
            }
        };
        let row = &mut self.rows[row as usize];
        if !row.loaded {
            row.loaded = true;
            row.total = read.total;
            row.seq = read.seq;
            row.stamp = read.stamp;
            row.base_end = read.seq.next();
        }
    }

    /// Folds a pack's sum for one dictionary entry: `items` undropped items that add `sum`.
    ///
    /// With no undropped item the rows are only named: their hot entries are owed a publish.
    pub fn add(&mut self, target: Target, seq: Seq, stamp: Stamp, sum: i128, items: u32) {
        for id in [target.series, target.counter] {
            let row = &mut self.rows[id as usize];
            debug_assert!(row.loaded, "load, then fold");
            row.pending = row.pending.saturating_add(1);
            if !row.named {
                row.named = true;
                self.named.push(id);
            }
            if items > 0 {
                if !row.dirty {
                    row.dirty = true;
                    self.dirty += 1;
                }
                row.touched_end = seq.next();
                row.deltas = row.deltas.saturating_add(items);
                // The base covers it already: written again as it is, with its own stamp (law 4).
                if seq >= row.base_end {
                    row.total += sum;
                    row.seq = seq;
                    row.stamp = stamp;
                }
            }
        }
    }

    /// Hands out what is owed: dirty rows, sorted, by shard; and every row that was named.
    pub fn take(&mut self) -> Taken {
        let mut taken = Taken::default();
        let mut by_shard: HashMap<u32, Vec<RowId>> = HashMap::new();
        for id in std::mem::take(&mut self.named) {
            let row = &mut self.rows[id as usize];
            row.named = false;
            let shard = &self.shards[row.shard as usize];
            taken.named.push(Named {
                row: id,
                role: row.role.into(),
                namespace: shard.key.namespace.clone(),
                name: row.name.clone(),
                total: row.total,
                seq: row.seq,
                pending: std::mem::take(&mut row.pending),
            });
            if row.dirty {
                row.dirty = false;
                if row.role == Role::Series {
                    taken.deltas += u64::from(row.deltas);
                }
                row.deltas = 0;
                by_shard.entry(row.shard).or_default().push(id);
            }
        }
        self.dirty = 0;
        for (shard, ids) in by_shard {
            let mut rows: Vec<_> = ids.iter().map(|id| self.rows[*id as usize].to_total()).collect();
            rows.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            taken.shards.push((self.shards[shard as usize].key.clone(), rows));
        }
        taken
    }

    /// Owes these rows a publish again: the hot view did not take it, or the budget was used up. A row that was evicted meanwhile is let go: its entry
    /// keeps its pending deltas, which are above its base, and so its value. `false`: some were, and what their entries lack
    /// nobody will publish.
    pub fn owe_publish(&mut self, named: &[Named]) -> bool {
        let mut all = true;
        for owed in named {
            let same = |row: &&mut Row| {
                !row.vacant && row.name == owed.name && self.shards[row.shard as usize].key.namespace == owed.namespace
            };
            match self.rows.get_mut(owed.row as usize).filter(same) {
                Some(row) => {
                    // Whoever has waited comes before those that have as much: in the end it is its turn.
                    row.pending = row.pending.saturating_add(owed.pending).saturating_add(1);
                    if !row.named {
                        row.named = true;
                        self.named.push(owed.row);
                    }
                }
                None => all = false,
            }
        }
        all
    }

    /// Makes room for `wanted` more rows by evicting rows that are clean and that the checkpoint has passed.
    /// `covered` is one past the checkpoint. Answers whether there is room.
    pub fn make_room(&mut self, wanted: usize, covered: Seq) -> bool {
        let mut tried = 0;
        while self.len() + wanted > self.max_rows && tried < self.rows.len() {
            self.hand = if self.hand + 1 >= self.rows.len() { 0 } else { self.hand + 1 };
            tried += 1;
            let row = &self.rows[self.hand];
            if row.vacant || row.dirty || row.named || !row.loaded || row.touched_end > covered {
                continue;
            }
            let state = &mut self.shards[row.shard as usize];
            let hash = row.hash;
            state.known = Known::Partly;
            state.rows -= 1;
            let id = self.hand as RowId;
            self.index.remove(hash, id);
            self.rows[self.hand] = Row::vacant();
            self.free.push(id);
        }
        self.len() + wanted <= self.max_rows
    }

    /// Takes the epochs as they are now. Known ones keep their place.
    pub fn set_epochs(&mut self, epochs: Vec<EpochRow>) {
        for epoch in epochs {
            if !self.epochs.iter().any(|known| known.epoch == epoch.epoch) {
                self.epochs.push(epoch);
            }
        }
    }

    /// The index of the epoch with these counts.
    pub fn epoch(&self, partitions: u32, shards: u32) -> Option<u32> {
        let same = |epoch: &EpochRow| epoch.partitions == partitions && epoch.shards == shards;
        self.epochs.iter().position(same).map(|index| index as u32)
    }

    /// The epochs, by index.
    pub fn epochs(&self) -> &[EpochRow] {
        &self.epochs
    }

    /// Rows in memory.
    pub fn len(&self) -> usize {
        self.rows.len() - self.free.len()
    }

    /// Whether no row is in memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows that are owed a write.
    pub fn dirty(&self) -> usize {
        self.dirty
    }

    /// Rows that packs have named since the last flush.
    pub fn named(&self) -> usize {
        self.named.len()
    }
}
