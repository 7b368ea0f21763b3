//! Reading a page of events, newest first.
//!
//! The marks say which hours of a name, or which months of a namespace, are worth asking. They are asked from the newest
//! on: one first, then more of them together, until the page is full. An hour is eight partitions, each in order, and they
//! are merged; a partition is read a few rows at a time, so that a page of large events stays small in memory.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::future::try_join_all;
use scylla::{
    deserialize::value::DeserializeValue,
    response::{PagingState, query_result::QueryRowsResult},
    statement::prepared::PreparedStatement,
    value::CqlTimestamp,
};

use crate::{
    item::Stamp,
    store::{Error, EventRow, EventsBy, EventsPage},
};

use super::{Scylla, events, fault, limit, months, statements::Statements};

/// Marks that are read at once.
const MARKS: i32 = 256;
/// Partitions that are asked together, at most.
const TOGETHER: usize = 32;
/// Rows of one answer of a partition, at least and at most.
const ROWS: (usize, usize) = (8, 64);

/// Reads a page.
pub async fn read(store: &Scylla, page: &EventsPage) -> Result<Vec<EventRow>, Error> {
    let mut reading = Reading::new(store, page);
    if page.limit == 0 || reading.before <= (page.from_ms, "") {
        return Ok(Vec::new());
    }
    let mut next = Some(PagingState::start());
    while let Some(from) = next.filter(|_| !reading.is_full()) {
        let (marks, later) = reading.marks(from).await?;
        next = later;
        reading.through(&marks).await?;
    }
    Ok(reading.found)
}

/// One partition, and how far it is read.
struct Part {
    /// The hour or the month.
    mark: i64,
    /// The eighth of the hour.
    shard: i32,
    rows: VecDeque<EventRow>,
    next: Option<PagingState>,
}

struct Reading<'a> {
    store: &'a Scylla,
    page: &'a EventsPage,
    /// What marks are read by, and rows.
    statements: (PreparedStatement, PreparedStatement),
    /// Only events before this place, in ascending order of (time, id).
    before: (i64, &'a str),
    /// Partitions of one mark.
    shards: i32,
    /// Marks that are asked together.
    together: usize,
    found: Vec<EventRow>,
}

impl<'a> Reading<'a> {
    fn new(store: &'a Scylla, page: &'a EventsPage) -> Self {
        let end = (page.to_ms, "");
        let before = page.before.as_ref().map_or(end, |(time_ms, id)| end.min((*time_ms, &**id)));
        let all = &store.statements;
        let (marks, rows, shards) = match page.by {
            EventsBy::Name(_) => (&all.hours, &all.events, events::SHARDS),
            EventsBy::Subject(_) => (&all.months, &all.events_by_subject, 1),
        };
        let share = (2 * page.limit / shards.unsigned_abs() as usize).clamp(ROWS.0, ROWS.1);
        let statements = (Statements::paged(marks, MARKS), Statements::paged(rows, limit(share)));
        Self { store, page, statements, before, shards, together: 1, found: Vec::new() }
    }

    fn is_full(&self) -> bool {
        self.found.len() >= self.page.limit
    }

    /// The next marks, newest first.
    async fn marks(&self, from: PagingState) -> Result<(Vec<i64>, Option<PagingState>), Error> {
        let (store, page, statement) = (self.store, self.page, &self.statements.0);
        let namespace = page.namespace.as_str();
        // At the bound itself there may be events with smaller ids.
        let (first_ms, last_ms) = (page.from_ms, self.before.0);
        match &page.by {
            EventsBy::Name(name) => {
                let values = (namespace, &**name, events::hour_of(first_ms), events::hour_of(last_ms));
                let (page, next) = store.page(statement, &values, from).await?;
                Ok((numbers::<i64>(&page)?, next))
            }
            EventsBy::Subject(_) => {
                let values = (namespace, months::of(first_ms), months::of(last_ms));
                let (page, next) = store.page(statement, &values, from).await?;
                Ok((numbers::<i32>(&page)?, next))
            }
        }
    }

    /// Reads what is at these marks, newest first, until the page is full.
    async fn through(&mut self, marks: &[i64]) -> Result<(), Error> {
        let mut rest = marks;
        while !rest.is_empty() && !self.is_full() {
            let (now, later) = rest.split_at(self.together.min(rest.len()));
            rest = later;
            let part = |mark, shard| Part { mark, shard, rows: VecDeque::new(), next: Some(PagingState::start()) };
            let mut asked: Vec<Vec<Part>> =
                now.iter().map(|mark| (0..self.shards).map(|shard| part(*mark, shard)).collect()).collect();
            try_join_all(asked.iter_mut().flatten().map(|part| self.fill(part))).await?;
            for parts in asked {
                self.merge(parts).await?;
            }
            self.together = (2 * self.together).min(TOGETHER / self.shards.unsigned_abs() as usize);
        }
        Ok(())
    }

    /// Takes the newest rows of the parts of one mark, until they end or the page is full.
    async fn merge(&mut self, mut parts: Vec<Part>) -> Result<(), Error> {
        while !self.is_full() {
            let dry = parts.iter_mut().filter(|part| part.rows.is_empty() && part.next.is_some());
            try_join_all(dry.map(|part| self.fill(part))).await?;
            let order =
                |part: &Part| part.rows.front().map(|row| (row.time_ms, row.id.clone(), row.name.clone(), row.stamp));
            let Some(newest) = parts.iter_mut().filter(|part| !part.rows.is_empty()).max_by_key(|part| order(part))
            else {
                return Ok(());
            };
            let Some(row) = newest.rows.pop_front() else { return Ok(()) };
            // An event that came again with another subject is in another part; the newer one has come first.
            let again = |last: &EventRow| (last.time_ms, &last.id, &last.name) == (row.time_ms, &row.id, &row.name);
            if !self.found.last().is_some_and(again) {
                self.found.push(row);
            }
        }
        Ok(())
    }

    /// Reads on in a partition. An empty answer need not be the last one.
    async fn fill(&self, part: &mut Part) -> Result<(), Error> {
        while part.rows.is_empty()
            && let Some(from) = part.next.take()
        {
            let (answer, next) = self.ask(part, from).await?;
            part.next = next;
            type Row<'r> = (CqlTimestamp, &'r str, Option<&'r str>, Option<&'r str>, CqlTimestamp, i64);
            for row in answer.rows::<Row<'_>>().map_err(fault::damaged)? {
                part.rows.push_back(self.row(row.map_err(fault::damaged)?));
            }
        }
        Ok(())
    }

    async fn ask(&self, part: &Part, from: PagingState) -> Result<(QueryRowsResult, Option<PagingState>), Error> {
        let (store, page, statement) = (self.store, self.page, &self.statements.1);
        let namespace = page.namespace.as_str();
        let (first, (time_ms, id)) = (CqlTimestamp(page.from_ms), self.before);
        let (before, most) = (CqlTimestamp(time_ms), limit(page.limit));
        match &page.by {
            EventsBy::Name(name) => {
                let values = (namespace, &**name, part.mark, part.shard, first, "", before, id, most);
                store.page(statement, &values, from).await
            }
            EventsBy::Subject(subject) => {
                let month = i32::try_from(part.mark).map_err(fault::damaged)?;
                let values = (namespace, &**subject, month, first, "", before, id, most);
                store.page(statement, &values, from).await
            }
        }
    }

    fn row(
        &self,
        (time, id, text, properties, received, stamp): (
            CqlTimestamp,
            &str,
            Option<&str>,
            Option<&str>,
            CqlTimestamp,
            i64,
        ),
    ) -> EventRow {
        let text = text.filter(|text| !text.is_empty());
        let (name, subject) = match &self.page.by {
            EventsBy::Name(name) => (name.clone(), text.map(Into::into)),
            EventsBy::Subject(subject) => (text.unwrap_or_default().into(), Some(subject.clone())),
        };
        EventRow {
            namespace: self.page.namespace.clone(),
            name,
            subject,
            time_ms: time.0,
            id: id.into(),
            properties: properties.map_or_else(Bytes::new, |text| Bytes::copy_from_slice(text.as_bytes())),
            received_ms: received.0,
            stamp: Stamp(stamp),
        }
    }
}

/// The only column of an answer.
fn numbers<T>(page: &QueryRowsResult) -> Result<Vec<i64>, Error>
where
    T: for<'r> DeserializeValue<'r, 'r> + Into<i64>,
{
    let rows = page.rows::<(T,)>().map_err(fault::damaged)?;
    rows.map(|row| Ok(row.map_err(fault::damaged)?.0.into())).collect()
}
