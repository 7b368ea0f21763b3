//! The laws of events: pages newest first, and stamps as for rows.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use tallymark::{
    item::{Namespace, Stamp},
    store::{EventRow, EventsBy, EventsPage},
};

use super::{Bed, property};

pub(super) fn event(
    namespace: &Namespace,
    name: &str,
    subject: Option<&str>,
    time_ms: i64,
    id: &str,
    stamp: i64,
) -> EventRow {
    EventRow {
        namespace: namespace.clone(),
        name: name.into(),
        subject: subject.map(Into::into),
        time_ms,
        id: id.into(),
        properties: Bytes::from(format!(r#"{{"at":{stamp}}}"#)),
        received_ms: 1_000 + stamp,
        stamp: Stamp(stamp),
    }
}

pub(super) async fn pages_of_events_come_newest_first(bed: &Bed) {
    let time = prop_oneof![Just(i64::MIN), -2..3i64, 3_599_999..3_600_002i64, Just(1_700_000_000_000)];
    let id = prop::sample::select(vec!["1", "10", "2", "a\0b", "a", "é", "ab"]);
    let of = prop::sample::select(vec!["login", "log", "login ü"]);
    let subject = prop::option::of(prop::sample::select(vec!["u1", "u10", "u"]));
    let events = prop::collection::vec((of, subject, time.clone(), id), 0..30);
    let bounds = (prop::option::of(time.clone()), prop::option::of(time));
    property(64, (events, bounds, 1..5usize), |(events, (from, to), limit)| async move {
        let namespace = bed.namespace();
        // One event a (name, time, id): what it holds follows from them, as with a row and its stamp.
        let unique: BTreeMap<_, _> =
            events.iter().map(|(name, subject, time, id)| ((*name, *time, *id), *subject)).collect();
        let rows: Vec<_> =
            unique.iter().map(|((name, time, id), subject)| event(&namespace, name, *subject, *time, id, 7)).collect();
        for chunk in rows.chunks(4) {
            bed.store.write_events(chunk).await.unwrap();
        }
        let (from_ms, to_ms) = (from.unwrap_or(i64::MIN), to.unwrap_or(i64::MAX));
        for by in [
            EventsBy::Name("login".into()),
            EventsBy::Name("log".into()),
            EventsBy::Subject("u1".into()),
            EventsBy::Subject("u".into()),
        ] {
            let mut expected: Vec<_> = rows
                .iter()
                .filter(|row| match &by {
                    EventsBy::Name(name) => row.name == *name,
                    EventsBy::Subject(subject) => row.subject.as_ref() == Some(subject),
                })
                .filter(|row| (from_ms..to_ms).contains(&row.time_ms))
                .cloned()
                .collect();
            expected.sort_by_key(|row| std::cmp::Reverse((row.time_ms, row.id.clone(), row.name.clone())));
            let mut page = EventsPage { namespace: namespace.clone(), by, from_ms, to_ms, before: None, limit };
            // The cursor is (time, id): by subject, names that share both are one place in the order.
            let mut left = expected.as_slice();
            loop {
                let read = bed.store.events(&page).await.unwrap();
                prop_assert_eq!(&read[..], &left[..left.len().min(limit)]);
                let Some(last) = read.last() else { break };
                let cursor = (last.time_ms, last.id.clone());
                let older = |row: &EventRow| (row.time_ms, &row.id) < (cursor.0, &cursor.1);
                left = &left[left.iter().position(older).unwrap_or(left.len())..];
                page.before = Some(cursor);
            }
        }
        Ok(())
    });
}

pub(super) async fn an_older_event_has_no_effect_by_name_or_by_subject(bed: &Bed) {
    let namespace = bed.namespace();
    let at = |stamp| event(&namespace, "login", Some("u1"), 50, "1", stamp);
    let page = |by| EventsPage { namespace: namespace.clone(), by, from_ms: 0, to_ms: 100, before: None, limit: 10 };
    for (written, expected) in [(vec![at(5)], 5), (vec![at(4)], 5), (vec![at(5)], 5), (vec![at(8), at(7)], 8)] {
        bed.store.write_events(&written).await.unwrap();
        for by in [EventsBy::Name("login".into()), EventsBy::Subject("u1".into())] {
            assert_eq!(bed.store.events(&page(by)).await.unwrap(), [at(expected)]);
        }
    }
}

pub(super) async fn events_of_two_names_may_share_subject_time_and_id(bed: &Bed) {
    let namespace = bed.namespace();
    let rows = ["logout", "login"].map(|name| event(&namespace, name, Some("u1"), 50, "1", 3));
    bed.store.write_events(&rows).await.unwrap();
    let by = EventsBy::Subject("u1".into());
    let page = EventsPage { namespace, by, from_ms: 50, to_ms: 51, before: None, limit: 10 };
    assert_eq!(bed.store.events(&page).await.unwrap(), rows);
}
