//! The CQL store: ScyllaDB, or Cassandra from 4.1 on. `schemas/scylla/` has its tables; this room speaks only what both accept.
//!
//! - S1, S3: every statement reads and writes at LOCAL_QUORUM, in one datacenter for the life of the process. The driver
//!   neither retries nor sends twice: an error is told at once, and only the port's callers try again.
//! - S2: a row's stamp is its write timestamp, set on every statement, so the servers keep the rule themselves, cell by cell.
//! - S4: text is ordered bytewise by the servers, too.
//! - S5: a checkpoint is a write like any other, as durable as the rows before it once the servers have synced both. Their
//!   commit logs do so every few seconds, each for itself: `worker.checkpoint_delay` must be the longer time.
//! - S6: each server of our datacenter is asked for its gossip generation, which it takes anew at every start.
//! - No lightweight transactions, no counter columns, no clock but the stamps.
//!
//! Rooms: `connect` (the session), `schema` (making and checking the tables), `statements` (everything that is ever asked),
//! `batches` (one mutation of many rows), `totals`, `events` and `pages` (writing and reading events), `marks` (which hours
//! and months hold events), `months` (the calendar), `lanes` (checkpoints and epochs), `letters` (dead letters), `generations` (which servers have
//! started again), `fault` (what errors mean).

use ::scylla::{
    client::session::Session,
    response::{PagingState, query_result::QueryRowsResult},
    serialize::row::SerializeRow,
    statement::prepared::PreparedStatement,
};
use async_trait::async_trait;
use std::ops::ControlFlow;
use tokio::sync::Semaphore;

use crate::{
    item::{Lane, Seq, Stamp},
    store::{
        self, Checkpoint, EpochRow, Error, EventRow, Events, EventsPage, Generations, LaneRow, Ledger, RowName,
        ShardKey, Slice, TotalRow, Totals,
    },
    url::Servers,
};

mod batches;
mod connect;
mod events;
mod fault;
mod generations;
mod lanes;
mod letters;
mod marks;
mod months;
mod pages;
pub mod schema;
mod statements;
mod totals;

use batches::Batches;
use marks::Marks;
use statements::Statements;

/// Requests of `write_events` under way, over all lanes: events of distinct subjects are a request each.
const EVENT_REQUESTS: usize = 128;

/// A store in a keyspace of ScyllaDB or Cassandra.
pub struct Scylla {
    session: Session,
    /// The datacenter whose quorum is asked.
    datacenter: Option<String>,
    statements: Statements,
    totals: Batches,
    events: events::Table,
    events_by_subject: events::Table,
    marks: Marks,
    event_requests: Semaphore,
    /// `store.batch_rows`, which callers keep to with totals; how events fall into partitions is known here alone.
    batch_rows: usize,
}

impl Scylla {
    /// Connects, looks at the schema, and prepares every statement. Takes 7 seconds at most.
    ///
    /// # Errors
    /// [`Transient`](crate::retry::Kind::Transient) when no server answers in time; [`Fatal`](crate::retry::Kind::Fatal) when
    /// the keyspace or its tables are missing or older than this program's, or the servers refuse the user.
    pub async fn open(servers: &Servers, options: &store::Options) -> Result<Self, Error> {
        let opening = async {
            let (session, datacenter) = connect::connect(servers, options, options.timeout.0).await?;
            schema::check(&session, servers, options).await?;
            let statements = Statements::prepare(&session, servers).await?;
            Ok(Self {
                totals: Batches::new(&statements.insert_total),
                events: events::Table::new("events", &statements.insert_event),
                events_by_subject: events::Table::new("events_by_subject", &statements.insert_event_by_subject),
                session,
                datacenter,
                statements,
                marks: Marks::default(),
                event_requests: Semaphore::new(EVENT_REQUESTS),
                batch_rows: options.batch_rows.max(1),
            })
        };
        connect::in_time(servers, opening).await
    }

    /// Runs a statement that answers nothing.
    async fn run(&self, statement: &PreparedStatement, values: impl SerializeRow) -> Result<(), Error> {
        self.session.execute_unpaged(statement, values).await.map(drop).map_err(fault::told)
    }

    /// Runs a statement that answers rows, from a place in them on. Answers a page, and the place to go on from.
    async fn page(
        &self,
        statement: &PreparedStatement,
        values: &impl SerializeRow,
        from: PagingState,
    ) -> Result<(QueryRowsResult, Option<PagingState>), Error> {
        let (page, next) = self.session.execute_single_page(statement, values, from).await.map_err(fault::told)?;
        let next = match next.into_paging_control_flow() {
            ControlFlow::Continue(next) => Some(next),
            ControlFlow::Break(()) => None,
        };
        Ok((page.into_rows_result().map_err(fault::damaged)?, next))
    }
}

#[async_trait]
impl Totals for Scylla {
    async fn write_totals(&self, key: &ShardKey, rows: &[TotalRow]) -> Result<(), Error> {
        totals::write(self, key, rows).await
    }

    async fn totals(&self, key: &ShardKey, slice: &Slice) -> Result<Vec<TotalRow>, Error> {
        totals::read_slice(self, key, slice).await
    }

    async fn shards(&self) -> Result<Vec<ShardKey>, Error> {
        totals::read_shards(self).await
    }

    async fn totals_named(&self, key: &ShardKey, names: &[RowName]) -> Result<Vec<Option<TotalRow>>, Error> {
        totals::read_named(self, key, names).await
    }
}

#[async_trait]
impl Events for Scylla {
    async fn write_events(&self, rows: &[EventRow]) -> Result<(), Error> {
        events::write(self, rows).await
    }

    async fn events(&self, page: &EventsPage) -> Result<Vec<EventRow>, Error> {
        pages::read(self, page).await
    }
}

#[async_trait]
impl Ledger for Scylla {
    async fn lanes(&self, topic: &str) -> Result<Vec<LaneRow>, Error> {
        lanes::read(self, topic).await
    }

    async fn write_checkpoint(&self, topic: &str, checkpoint: &Checkpoint) -> Result<(), Error> {
        lanes::write_checkpoint(self, topic, checkpoint).await
    }

    async fn write_stored(&self, topic: &str, lane: Lane, stored: Seq, stamp: Stamp) -> Result<(), Error> {
        lanes::write_stored(self, topic, lane, stored, stamp).await
    }

    async fn epochs(&self, topic: &str) -> Result<Vec<EpochRow>, Error> {
        lanes::epochs(self, topic).await
    }

    async fn begin_epoch(&self, topic: &str, epoch: &EpochRow) -> Result<(), Error> {
        lanes::begin_epoch(self, topic, epoch).await
    }

    async fn generations(&self) -> Generations {
        generations::read(self).await
    }
}

/// A stamp as a write timestamp. The servers keep the lowest number for "none".
fn timestamp(stamp: Stamp) -> i64 {
    stamp.0.max(i64::MIN + 1)
}

/// A number of rows as `LIMIT` takes it.
fn limit(rows: usize) -> i32 {
    i32::try_from(rows).unwrap_or(i32::MAX)
}
