//! What an audit has found: what `--json` prints, and what the admin port answers.

use serde::{Deserialize, Serialize};

use crate::store::Counted;

/// The whole answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whether nothing was found. What could not be checked is no drift, and not called fine either: see `counts.unchecked`.
    pub clean: bool,
    /// Sums over all lanes.
    pub counts: Counts,
    /// Lane by lane.
    pub lanes: Vec<LaneReport>,
    /// The largest differences first; as many as were asked for.
    pub worst: Vec<Drift>,
    /// Corrections that were appended, by pack.
    pub repairs: Vec<Repair>,
    /// What should be known besides.
    pub notes: Vec<String>,
}

/// Rows by what was found of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows that are what the log says.
    pub fine: u64,
    /// Rows whose history is not wholly in what was read of the log: nothing can be said of their totals.
    pub unchecked: u64,
    /// Rows that have changed at every look.
    pub moved: u64,
    /// The store has less than the log.
    pub lost: u64,
    /// The store has more than the log.
    pub doubled: u64,
    /// The row is behind a checkpoint that covers it.
    pub stale: u64,
    /// No pack of the log explains the row.
    pub foreign: u64,
    /// The hot view has another total than the log gives at the same seq.
    pub hot: u64,
    /// Entries of the hot view that were compared.
    pub hot_fine: u64,
    /// Events that are in the store as the log has them. Others are among `lost`, `stale` and `foreign`.
    pub events: u64,
    /// Of the rows that are wrong: those whose correction is in the log already, and not applied yet.
    pub pending: u64,
}

impl Counts {
    /// How many differences there are.
    pub fn drift(&self) -> u64 {
        self.lost + self.doubled + self.stale + self.foreign + self.hot
    }

    /// Adds another lane's.
    pub fn add(&mut self, other: &Self) {
        let Self { fine, unchecked, moved, lost, doubled, stale, foreign, hot, hot_fine, events, pending } = other;
        self.fine += fine;
        self.unchecked += unchecked;
        self.moved += moved;
        self.lost += lost;
        self.doubled += doubled;
        self.stale += stale;
        self.foreign += foreign;
        self.hot += hot;
        self.hot_fine += hot_fine;
        self.events += events;
        self.pending += pending;
    }
}

/// What was read and found of one lane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneReport {
    /// Its partition.
    pub partition: u32,
    /// The first seq whose items were counted.
    pub from: u64,
    /// One past the last.
    pub to: u64,
    /// Whether everything from the lane's first record on was read: only then are all totals known.
    pub whole: bool,
    /// Items that counted, and those that were dropped.
    pub items: u64,
    /// Duplicates.
    pub duplicates: u64,
    /// Rows by verdict.
    pub counts: Counts,
    /// What two checkpoints, or the lane's beginning and its checkpoint, say came in between, against the log.
    pub control: Option<Control>,
    /// The sum of the lane's series in the store, against its checkpoint's.
    pub sum: Option<Sum>,
    /// Whether the independent recount came to the same; absent when it was not asked for.
    pub naive: Option<bool>,
}

/// A checkpoint's control totals against the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// After this seq; absent: from the lane's beginning.
    pub after: Option<u64>,
    /// Up to this one.
    pub to: u64,
    /// What the checkpoints say.
    pub checkpoints: Tally,
    /// What the log says.
    pub log: Tally,
}

impl Control {
    /// Whether they agree.
    pub fn agrees(&self) -> bool {
        self.checkpoints == self.log
    }
}

/// Control totals over a stretch of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Items that counted.
    pub items: u64,
    /// Items that were dropped.
    pub duplicates: u64,
    /// The sum of the increments, in 128 bits.
    pub amount: i128,
}

impl From<Counted> for Tally {
    fn from(Counted { items, duplicates, amount, .. }: Counted) -> Self {
        Self { items, duplicates, amount }
    }
}

/// The sum of a lane's series as of its checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// Of the rows in the store.
    pub rows: i128,
    /// That the checkpoint says.
    pub checkpoint: i128,
}

/// How a row differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The store has less than the log.
    Lost,
    /// The store has more than the log.
    Doubled,
    /// The row is behind a checkpoint that covers it.
    Stale,
    /// No pack of the log explains it.
    Foreign,
    /// The hot view's total is not the log's at the same seq.
    Hot,
}

impl Kind {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::Stale => "stale",
            Self::Foreign => "foreign",
            Self::Hot => "hot",
        }
    }
}

/// A row that is not what the log says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// How it differs.
    pub kind: Kind,
    /// The lane's partition.
    pub partition: u32,
    /// The tenant.
    pub namespace: String,
    /// The counter; absent for an event.
    pub counter: Option<String>,
    /// The series' tags; absent for the whole counter's row.
    pub tags: Option<String>,
    /// The row's shard; absent for an event.
    pub shard: Option<i32>,
    /// The event, when it is one.
    pub event: Option<EventName>,
    /// The seq that store or hot view name, or of an event's pack; absent when there is no row.
    pub seq: Option<u64>,
    /// The total that they have.
    pub found: Option<i128>,
    /// The total that the log gives at that seq (of a row that is stale or lost: up to the checkpoint); absent when it is not known.
    pub expected: Option<i128>,
    /// Whether a correction is in the log that the lane has not applied yet.
    pub pending: bool,
}

/// Which event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventName {
    /// What happened.
    pub name: String,
    /// The client's id.
    pub id: String,
    /// When, in milliseconds since 1970.
    pub time_ms: i64,
}

impl Drift {
    /// How large the difference is; what is not known is as large as what was found. An event is one.
    pub fn size(&self) -> u128 {
        if self.event.is_some() {
            return 1;
        }
        self.expected.unwrap_or(0).abs_diff(self.found.unwrap_or(0))
    }
}

/// A pack of corrections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// The lane's partition.
    pub partition: u32,
    /// Where the log has put it, if it said so.
    pub seq: Option<u64>,
    /// How many rows it corrects.
    pub rows: u64,
}
