//! Writing and reading events, by name and by subject.

use std::ops::Bound;

use crate::store::{EventRow, EventsBy, EventsPage};

use super::{
    Mutation,
    fault::Fault,
    is_empty,
    keys::{self, KeyReader},
    tables::{self, Entry, Table, Tables},
    values,
};

const STAMP_BYTES: usize = size_of::<i64>();

/// The rows that these events are.
pub fn entries(rows: &[EventRow]) -> Vec<(Table, Entry)> {
    let mut mutation = Mutation::with_capacity(2 * rows.len(), 0);
    for row in rows {
        let by_name = |out: &mut Vec<u8>| {
            keys::push_events_of(out, &row.namespace, &row.name);
            keys::push_event(out, row.time_ms, &row.id);
            keys::push_i64(out, row.stamp.0);
        };
        mutation.push(Table::Events, by_name, |out| values::push_event(out, row, true));
        if let Some(subject) = &row.subject {
            let by_subject = |out: &mut Vec<u8>| {
                keys::push_events_of(out, &row.namespace, subject);
                keys::push_event(out, row.time_ms, &row.id);
                keys::push_text(out, &row.name);
                keys::push_i64(out, row.stamp.0);
            };
            mutation.push(Table::EventsBySubject, by_subject, |out| values::push_event(out, row, false));
        }
    }
    mutation.finish()
}

/// Reads a page.
pub fn read(tables: &Tables, page: &EventsPage) -> Result<Vec<EventRow>, Fault> {
    let (table, of) = match &page.by {
        EventsBy::Name(name) => (Table::Events, name),
        EventsBy::Subject(subject) => (Table::EventsBySubject, subject),
    };
    let mut prefix = Vec::new();
    keys::push_events_of(&mut prefix, &page.namespace, of);
    let at = |time_ms: i64| {
        let mut key = prefix.clone();
        keys::push_i64(&mut key, time_ms);
        key
    };
    let mut end = at(page.to_ms);
    if let Some((time_ms, id)) = &page.before {
        let mut before = prefix.clone();
        keys::push_event(&mut before, *time_ms, id);
        end = end.min(before);
    }
    let (start, end) = (Bound::Included(at(page.from_ms)), Bound::Excluded(end));
    let mut rows = Vec::new();
    if is_empty(&start, &end) {
        return Ok(rows);
    }
    let mut found = tables.keyspace(table).range((start, end)).rev();
    let mut newer: Option<fjall::Slice> = None;
    while rows.len() < page.limit {
        let Some(guard) = found.next() else { break };
        let (key, value) = tables::row(guard)?;
        // Backwards, the newest of an event's rows comes first: the others are writes that came late.
        let event = key.len().saturating_sub(STAMP_BYTES);
        if newer.is_some_and(|newer| newer.len() == key.len() && newer[..event] == key[..event]) {
            newer = Some(key);
            continue;
        }
        rows.push(row(page, &key, &value, prefix.len())?);
        newer = Some(key);
    }
    Ok(rows)
}

fn row(page: &EventsPage, key: &[u8], value: &[u8], prefix: usize) -> Result<EventRow, Fault> {
    let mut reader = KeyReader::new(key, prefix)?;
    let (time_ms, id) = (reader.i64()?, reader.text()?.into());
    let value = values::read_event(value)?;
    let (name, subject) = match &page.by {
        EventsBy::Name(name) => (name.clone(), value.subject.map(Into::into)),
        EventsBy::Subject(subject) => (reader.text()?.into(), Some(subject.clone())),
    };
    let stamp = crate::item::Stamp(reader.i64()?);
    let (properties, received_ms) = (value.properties, value.received_ms);
    Ok(EventRow { namespace: page.namespace.clone(), name, subject, time_ms, id, properties, received_ms, stamp })
}
