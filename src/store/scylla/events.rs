//! Writing events: a row by name, a row by subject, and the marks that say where to look.
//!
//! Rows are grouped by partition and sorted; each partition is a request. What an event lacks is written as an empty text,
//! not left out: a later event of the same name, time and id replaces an earlier one whole, without tombstones.

use std::{collections::HashSet, time::Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use scylla::{serialize::row::SerializeRow, statement::prepared::PreparedStatement, value::CqlTimestamp};

use crate::{
    item, metrics,
    retry::Kind,
    store::{Error, EventRow},
};

use super::{Scylla, batches, batches::Batches, fault, marks::Mark, months, timestamp};

/// Partitions of an hour's events of one name.
pub const SHARDS: i32 = 8;
/// Bytes of a row beside its texts.
const ROW_OVERHEAD: usize = 120;
/// Requests of one call that are under way together.
const TOGETHER: usize = 64;

/// What writing into one table takes.
pub struct Table {
    batches: Batches,
    /// How many are written is known here alone: callers hand events over as they come.
    mutations: metrics::Counter,
}

impl Table {
    /// The table of this name, which the statement inserts into.
    pub fn new(name: &'static str, insert: &PreparedStatement) -> Self {
        Self { batches: Batches::new(insert), mutations: metrics::STORE_MUTATIONS.counter(&[name]) }
    }
}

/// The hour of a time, since 1970.
pub fn hour_of(time_ms: i64) -> i64 {
    time_ms.div_euclid(3_600_000)
}

/// Which eighth of its hour an event is in.
fn shard_of(row: &EventRow) -> i32 {
    let hash = item::event_hash(row.namespace.as_str(), row.subject.as_deref(), &row.id);
    i32::try_from(hash % u64::from(SHARDS.unsigned_abs())).expect("a remainder of 8")
}

/// Writes events and their marks; answers when all of them are acknowledged.
pub async fn write(store: &Scylla, rows: &[EventRow]) -> Result<(), Error> {
    let began = Instant::now();
    if rows.iter().any(|row| std::str::from_utf8(&row.properties).is_err()) {
        return Err(Error::new(Kind::Permanent, "an event's properties are not UTF-8"));
    }
    let (by_name, by_subject) = (by_name(rows), by_subject(rows));
    let hours = by_name.iter().map(|(at, row)| Mark::Hour(row.namespace.clone(), row.name.clone(), at.0));
    let months = by_subject.iter().map(|(month, row)| Mark::Month(row.namespace.clone(), *month));
    let wanted: HashSet<_> = hours.chain(months).collect();
    let missing = store.marks.missing(wanted, began);

    let mut writes: Vec<BoxFuture<'_, Result<(), Error>>> = Vec::new();
    // A mark has no columns: any stamp will do, and the highest spares the servers a comparison.
    let stamp = rows.iter().map(|row| timestamp(row.stamp)).max().unwrap_or_default();
    for mark in &missing {
        writes.push(Box::pin(write_mark(store, mark, stamp)));
    }
    for partition in by_name.chunk_by(|(a, x), (b, y)| (a, &x.namespace, &x.name) == (b, &y.namespace, &y.name)) {
        for rows in batches::requests(partition, store.batch_rows, |(_, row)| bytes(row)) {
            let values: Vec<_> = rows.iter().map(|(at, row)| named_values(*at, row)).collect();
            let (statement, table) = (&store.statements.insert_event, &store.events);
            writes.push(Box::pin(write_rows(store, statement, table, values)));
        }
    }
    for partition in
        by_subject.chunk_by(|(a, x), (b, y)| (a, &x.namespace, &x.subject) == (b, &y.namespace, &y.subject))
    {
        for rows in batches::requests(partition, store.batch_rows, |(_, row)| bytes(row)) {
            let values: Vec<_> = rows.iter().map(|(month, row)| subject_values(*month, row)).collect();
            let (statement, table) = (&store.statements.insert_event_by_subject, &store.events_by_subject);
            writes.push(Box::pin(write_rows(store, statement, table, values)));
        }
    }
    let written = stream::iter(writes).buffer_unordered(TOGETHER).try_collect::<()>().await;
    match &written {
        Ok(()) => store.marks.note(missing, began),
        Err(_) => store.marks.forget(),
    }
    written
}

/// The rows by name with their hours and shards, in the order of partitions and rows, each row once: its newest.
fn by_name(rows: &[EventRow]) -> Vec<((i64, i32), &EventRow)> {
    let mut placed: Vec<_> = rows.iter().map(|row| ((hour_of(row.time_ms), shard_of(row)), row)).collect();
    placed.sort_unstable_by(|(a, x), (b, y)| {
        (&x.namespace, &x.name, a, y.time_ms, &y.id, y.stamp).cmp(&(
            &y.namespace,
            &y.name,
            b,
            x.time_ms,
            &x.id,
            x.stamp,
        ))
    });
    placed.dedup_by(|(a, x), (b, y)| {
        (*a, &x.namespace, &x.name, x.time_ms, &x.id) == (*b, &y.namespace, &y.name, y.time_ms, &y.id)
    });
    placed
}

/// The rows by subject with their months, likewise.
fn by_subject(rows: &[EventRow]) -> Vec<(i32, &EventRow)> {
    let with_subject = rows.iter().filter(|row| row.subject.is_some());
    let mut placed: Vec<_> = with_subject.map(|row| (months::of(row.time_ms), row)).collect();
    placed.sort_unstable_by(|(a, x), (b, y)| {
        let partitions = (&x.namespace, &x.subject, a).cmp(&(&y.namespace, &y.subject, b));
        partitions.then_with(|| (y.time_ms, &y.id, &y.name, y.stamp).cmp(&(x.time_ms, &x.id, &x.name, x.stamp)))
    });
    placed.dedup_by(|(_, x), (_, y)| {
        (&x.namespace, &x.subject, x.time_ms, &x.id, &x.name) == (&y.namespace, &y.subject, y.time_ms, &y.id, &y.name)
    });
    placed
}

fn bytes(row: &EventRow) -> usize {
    let subject = row.subject.as_ref().map_or(0, |subject| subject.len());
    row.namespace.as_str().len() + row.name.len() + subject + row.id.len() + row.properties.len() + ROW_OVERHEAD
}

type NamedValues<'a> = (&'a str, &'a str, i64, i32, CqlTimestamp, &'a str, &'a str, &'a str, CqlTimestamp, i64);

/// The values of `insert_event`, in its order.
fn named_values((hour, shard): (i64, i32), row: &EventRow) -> NamedValues<'_> {
    (
        row.namespace.as_str(),
        &row.name,
        hour,
        shard,
        CqlTimestamp(row.time_ms),
        &row.id,
        row.subject.as_deref().unwrap_or_default(),
        properties(row),
        CqlTimestamp(row.received_ms),
        timestamp(row.stamp),
    )
}

type SubjectValues<'a> = (&'a str, &'a str, i32, CqlTimestamp, &'a str, &'a str, &'a str, CqlTimestamp, i64);

/// The values of `insert_event_by_subject`, in its order.
fn subject_values(month: i32, row: &EventRow) -> SubjectValues<'_> {
    (
        row.namespace.as_str(),
        row.subject.as_deref().unwrap_or_default(),
        month,
        CqlTimestamp(row.time_ms),
        &row.id,
        &row.name,
        properties(row),
        CqlTimestamp(row.received_ms),
        timestamp(row.stamp),
    )
}

fn properties(row: &EventRow) -> &str {
    std::str::from_utf8(&row.properties).expect("`write` refuses others")
}

async fn write_rows<R: SerializeRow + Sync>(
    store: &Scylla,
    statement: &PreparedStatement,
    table: &Table,
    values: Vec<R>,
) -> Result<(), Error> {
    let _permit = store.event_requests.acquire().await.expect("this semaphore is never closed");
    match &values[..] {
        [row] => store.run(statement, row).await?,
        rows => store.session.batch(&table.batches.of(rows.len()), &values).await.map(drop).map_err(fault::told)?,
    }
    table.mutations.increment(1);
    Ok(())
}

async fn write_mark(store: &Scylla, mark: &Mark, stamp: i64) -> Result<(), Error> {
    match mark {
        Mark::Hour(namespace, name, hour) => {
            store.run(&store.statements.insert_hour, (namespace.as_str(), &**name, hour, stamp)).await
        }
        Mark::Month(namespace, month) => {
            store.run(&store.statements.insert_month, (namespace.as_str(), month, stamp)).await
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::item::{Namespace, Stamp};

    fn row(name: &str, subject: Option<&str>, time_ms: i64, id: &str, stamp: i64) -> EventRow {
        EventRow {
            namespace: Namespace::default(),
            name: name.into(),
            subject: subject.map(Into::into),
            time_ms,
            id: id.into(),
            properties: Bytes::new(),
            received_ms: 0,
            stamp: Stamp(stamp),
        }
    }

    #[test]
    fn a_row_is_written_once_a_call_and_it_is_the_newest() {
        let rows = [
            row("a", Some("u"), 5, "1", 7),
            row("a", Some("u"), 5, "1", 9),
            row("b", Some("u"), 5, "1", 8),
            row("a", Some("u"), 6, "1", 1),
            row("a", None, 5, "1", 2),
        ];
        let shown = |row: &EventRow| (row.name.to_string(), row.time_ms, row.stamp.0);
        let subjects: Vec<_> = by_subject(&rows).into_iter().map(|(_, row)| shown(row)).collect();
        assert_eq!(subjects, [("a".into(), 6, 1), ("b".into(), 5, 8), ("a".into(), 5, 9)]);
        let mut names: Vec<_> = by_name(&rows).into_iter().map(|(_, row)| shown(row)).collect();
        names.sort();
        assert_eq!(names, [("a".into(), 5, 2), ("a".into(), 5, 9), ("a".into(), 6, 1), ("b".into(), 5, 8)]);
    }

    #[test]
    fn hours_and_shards_are_fixed_for_ever() {
        assert_eq!([0, -1, 3_599_999, 3_600_000].map(hour_of), [0, -1, 0, 1]);
        // XXH3-64("default\0user-17") and ("default\0evt_42"), of `item.rs`'s test vectors.
        assert_eq!(
            shard_of(&row("signup", Some("user-17"), 0, "evt_42", 1)),
            (4_573_163_339_707_667_410_u64 % 8) as i32
        );
        assert_eq!(shard_of(&row("signup", None, 0, "evt_42", 1)), (1_493_650_658_633_757_439_u64 % 8) as i32);
    }
}
