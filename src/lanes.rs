//! The lanes as an operator sees them, and the remedies of those that have halted (law 6).
//!
//! [`Desk::show`] puts together what the lag room measures, what this process's lanes say and what those elsewhere have
//! noted in the store. [`Desk::propose`] looks at log and store as they are now and says what a remedy would do, in words;
//! [`Desk::carry_out`] does exactly what was proposed, or nothing: if what stands there is another than what was shown it
//! refuses. Every remedy leaves a record. The lanes find it by themselves (`worker/halting.rs`).
//!
//! What a remedy does is decided in [`plan`], which is pure. Who may call this is `admin`'s and `cli`'s to say.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::{
    clock,
    exit::Failure,
    item::{Lane, Seq},
    lag::{self, Status},
    log::{Log, Topology},
    process,
    store::{HaltRow, Remedy, RemedyRow, Store},
    worker::{accepted::Accepted, board::Board, resume},
};

pub mod plan;
mod view;

pub use plan::{Plan, Wish};
pub use view::{LaneView, Lanes, RecordView};

/// What an epoch pins when no former one says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pins {
    /// `store.shards`
    pub shards: u32,
    /// `dedup.window`, in microseconds.
    pub dedup_window_us: i64,
    /// `dedup.max_ids`
    pub dedup_max_ids: u64,
}

/// Opens the log as it is now: the one that the process has may be of an earlier life of the topic.
pub type Reopen = Arc<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Log>, Failure>> + Send + Sync>;

/// What the desk works with.
#[derive(Clone)]
pub struct Deps {
    /// The log that this process has open.
    pub log: Arc<dyn Log>,
    /// Where halts and remedies are kept.
    pub store: Arc<dyn Store>,
    /// What this process's lanes are doing.
    pub board: Board,
    /// How far the lanes are.
    pub lag: lag::Handle,
    /// For what concerns the topic and not one lane.
    pub reopen: Reopen,
    /// For epochs that none came before.
    pub pins: Pins,
    /// No other process can run a lane, and this one does not: what the log lacks is for this desk to find.
    pub alone: bool,
}

/// Why the desk does not do what it is asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The remedy does not fit what is found; what to do instead.
    #[error("{0}")]
    Refused(String),
    /// Log or store do not answer.
    #[error("{0}")]
    Unavailable(String),
}

impl Error {
    fn away(what: &str, error: impl std::fmt::Display) -> Self {
        Self::Unavailable(format!("the {what} does not answer: {error}"))
    }
}

/// Who asks for a remedy, and why, as they say themselves.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Author {
    /// Who.
    pub who: String,
    /// Why.
    pub why: String,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Desk(Arc<Deps>);

impl Desk {
    /// A desk over these.
    pub fn new(deps: Deps) -> Self {
        Self(Arc::new(deps))
    }

    fn topic(&self) -> &str {
        &self.0.log.topology().topic
    }

    /// The lanes, as they stand now.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn show(&self) -> Result<Lanes, Error> {
        let Deps { log, store, lag, .. } = &*self.0;
        let measured = lag.measure().await;
        let store_failed = |error| Error::away("store", error);
        let epochs = store.epochs(self.topic()).await.map_err(store_failed)?;
        let mut halts = self.halts(log.topology()).await?;
        for lane in &measured.lanes {
            if halts.iter().any(|halt| halt.lane.partition == lane.partition) {
                continue;
            }
            halts.extend(self.found(log.topology(), lane.partition).await?);
        }
        Ok(Lanes::of(log.topology(), log.partitions(), &measured, &epochs, &halts))
    }

    /// Every remedy that was recorded for the topic, oldest first.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn records(&self) -> Result<Vec<RecordView>, Error> {
        let remedies = self.0.store.remedies(self.topic()).await.map_err(|error| Error::away("store", error))?;
        Ok(remedies.iter().map(RecordView::of).collect())
    }

    /// What a remedy would do.
    ///
    /// # Errors
    /// It does not fit what is found, or log or store do not answer.
    pub async fn propose(&self, wish: &Wish) -> Result<Plan, Error> {
        match wish {
            Wish::AcceptGap { partition, range } => self.gap(*partition, *range).await,
            Wish::AcceptClaim { partition, seq } => self.claim(*partition, *seq).await,
            Wish::BeginEpoch {} => self.epoch().await,
        }
    }

    /// Does what was proposed under this name, and records it.
    ///
    /// # Errors
    /// As for [`Desk::propose`]; or what is found is not what was proposed.
    pub async fn carry_out(&self, wish: &Wish, name: &str, author: &Author) -> Result<Plan, Error> {
        let plan = self.propose(wish).await?;
        if plan.name != name {
            let now = plan.says.join(" ");
            return Err(Error::Refused(format!(
                "what is found has changed since it was shown; look again. Now: {now}"
            )));
        }
        let store_failed = |error| Error::away("store", error);
        for epoch in &plan.epochs {
            self.0.store.begin_epoch(self.topic(), epoch).await.map_err(store_failed)?;
        }
        for remedy in &plan.remedies {
            let row = RemedyRow {
                at_ms: clock::now_ms(),
                id: rand::random(),
                topic_id: plan.topic_id,
                what: *remedy,
                who: author.who.clone(),
                why: author.why.clone(),
                says: plan.says.join(" "),
            };
            self.0.store.record_remedy(self.topic(), &row).await.map_err(store_failed)?;
            tracing::warn!(remedy = ?row.what, who = row.who, why = row.why, "remedy carried out");
        }
        Ok(plan)
    }

    /// What halted lanes say: this process's, and those elsewhere.
    async fn halts(&self, topology: &Topology) -> Result<Vec<HaltRow>, Error> {
        let Deps { store, board, log, .. } = &*self.0;
        let boards = board.lanes();
        let mut halts: Vec<HaltRow> = boards
            .iter()
            .filter_map(|(partition, status)| {
                let (halt, since_ms) = status.halt.as_ref()?;
                let lane = Lane { topic_id: log.topology().topic_id, partition: *partition };
                Some(halt.row(lane, process::name(), *since_ms))
            })
            .collect();
        let elsewhere = store.halts(&topology.topic).await.map_err(|error| Error::away("store", error))?;
        // What runs here is known better than what it has noted.
        let elsewhere = elsewhere.into_iter().filter(|halt| {
            halt.lane.topic_id == topology.topic_id
                && (halt.lane.topic_id != log.topology().topic_id || !boards.contains_key(&halt.lane.partition))
        });
        halts.extend(elsewhere);
        Ok(halts)
    }

    /// What a lane that nobody runs would halt for at once.
    async fn found(&self, topology: &Topology, partition: u32) -> Result<Option<HaltRow>, Error> {
        let Deps { log, store, board, alone, .. } = &*self.0;
        let lane = Lane { topic_id: topology.topic_id, partition };
        if board.lanes().contains_key(&partition) {
            return Ok(None);
        }
        let (rows, epochs, remedies) = tokio::try_join!(
            store.lanes(&topology.topic),
            store.epochs(&topology.topic),
            store.remedies(&topology.topic)
        )
        .map_err(|error| Error::away("store", error))?;
        let Ok(bounds) = log.bounds(partition).await else { return Ok(None) };
        let row = rows.iter().find(|row| row.lane == lane);
        let checked = resume::check(lane, bounds, row, &epochs, &Accepted::of(lane, &remedies));
        // Whether a lane that runs elsewhere lacks anything only it can say: its checkpoint trails. But nobody can run one
        // of a topic that no epoch knows.
        Ok(checked
            .err()
            .filter(|halt| *alone || halt.kind() == "recreated")
            .map(|halt| halt.row(lane, String::new(), 0)))
    }

    async fn gap(&self, partition: u32, range: Option<(u64, u64)>) -> Result<Plan, Error> {
        let Deps { log, store, .. } = &*self.0;
        let (topology, store_failed) = (log.topology(), |error| Error::away("store", error));
        let lane = self.lane(partition)?;
        let halt = self.halt_of(lane).await?;
        let (rows, epochs, remedies) = tokio::try_join!(
            store.lanes(&topology.topic),
            store.epochs(&topology.topic),
            store.remedies(&topology.topic)
        )
        .map_err(store_failed)?;
        let bounds = log.bounds(partition).await.map_err(|error| Error::away("log", error))?;
        let scene = plan::Scene {
            lane,
            bounds,
            row: rows.iter().find(|row| row.lane == lane),
            epochs: &epochs,
            accepted: &Accepted::of(lane, &remedies),
            halt: halt.as_ref(),
            now_ms: clock::now_ms(),
        };
        plan::gap(&scene, range.map(|(from, to)| (Seq(from), Seq(to)))).map_err(Error::Refused)
    }

    async fn claim(&self, partition: u32, seq: Option<u64>) -> Result<Plan, Error> {
        let lane = self.lane(partition)?;
        let halt = self.halt_of(lane).await?;
        plan::claim(lane, halt.as_ref(), seq.map(Seq)).map_err(Error::Refused)
    }

    async fn epoch(&self) -> Result<Plan, Error> {
        let Deps { store, reopen, pins, .. } = &*self.0;
        let log = reopen().await.map_err(|failure| Error::Unavailable(failure.message))?;
        let topology = log.topology();
        let (rows, epochs) = tokio::try_join!(store.lanes(&topology.topic), store.epochs(&topology.topic))
            .map_err(|error| Error::away("store", error))?;
        let halts = self.halts(topology).await?;
        let halts: Vec<HaltRow> = halts.into_iter().filter(|halt| halt.lane.topic_id == topology.topic_id).collect();
        let partitions = log.partitions();
        plan::epoch(topology, partitions, &epochs, &rows, &halts, *pins, clock::now_ms()).map_err(Error::Refused)
    }

    fn lane(&self, partition: u32) -> Result<Lane, Error> {
        let log = &self.0.log;
        if let Some(lost) = log.lost() {
            return Err(Error::Refused(lost));
        }
        let partitions = log.partitions();
        if partition >= partitions {
            return Err(Error::Refused(format!("there is no lane {partition}: the log has {partitions} partitions")));
        }
        Ok(Lane { topic_id: log.topology().topic_id, partition })
    }

    /// What a lane has halted for; when it has not, why nothing is to be accepted.
    async fn halt_of(&self, lane: Lane) -> Result<Option<HaltRow>, Error> {
        let halts = self.halts(self.0.log.topology()).await?;
        if let Some(halt) = halts.into_iter().find(|halt| halt.lane == lane) {
            return Ok(Some(halt));
        }
        self.found(self.0.log.topology(), lane.partition).await
    }
}

/// Whether any lane has halted.
pub fn any_halted(lanes: &Lanes) -> bool {
    lanes.lanes.iter().any(|lane| lane.status == Status::Halted)
}

/// The words of a remedy for people.
pub(crate) fn words(remedy: &Remedy) -> String {
    match remedy {
        Remedy::Gap { partition, from, to, .. } => format!("lane {partition}: accepted the gap {from}..{to}"),
        Remedy::Claims { partition, seq } => format!("lane {partition}: accepted the claims of pack {seq}"),
        Remedy::Epoch { partitions, shards } => format!("began the epoch of {partitions} partitions, {shards} shards"),
    }
}
