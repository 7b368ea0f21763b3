//! Events against the log: each one that the log gives a lane is looked for in the store, by its name and by its subject.
//!
//! An event is a row of its own, so there is nothing to sum up: the store has it as the log does, or has it from a later pack
//! that brought its id again when the dedup window had passed (it is stamped later then), or it is wrong. Events are looked for a
//! few thousand at a time while the log goes by, and each page of the store that is read begins at the next one that is looked
//! for. A row that no pack explains is not found this way: nothing names it.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::report::{Drift, EventName, Kind};
use crate::{
    item::{Namespace, Seq},
    store::{Error, EventRow, EventsBy, EventsPage, Store},
};

/// Events that are looked for together.
const BATCH: usize = 2_000;
/// Rows read at a time.
const PAGE: usize = 500;
/// Pages that are read at once.
const WIDTH: usize = 16;

/// What has become of the events that were looked for.
#[derive(Default)]
pub(super) struct Events {
    waiting: Vec<(Seq, EventRow)>,
    pub(super) fine: u64,
    pub(super) lost: u64,
    pub(super) stale: u64,
    pub(super) foreign: u64,
    /// Some of those that are wrong.
    pub(super) drifts: Vec<Drift>,
}

impl Events {
    /// Takes events that a checkpoint covers, and looks for them once there are enough.
    pub(super) async fn add(
        &mut self,
        store: &dyn Store,
        partition: u32,
        worst: usize,
        events: impl IntoIterator<Item = (Seq, EventRow)>,
    ) -> Result<(), Error> {
        self.waiting.extend(events);
        if self.waiting.len() < BATCH { Ok(()) } else { self.look(store, partition, worst).await }
    }

    /// How many differ from the log.
    pub(super) fn wrong(&self) -> u64 {
        self.lost + self.stale + self.foreign
    }

    /// Looks for those that wait.
    pub(super) async fn look(&mut self, store: &dyn Store, partition: u32, worst: usize) -> Result<(), Error> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut lists: BTreeMap<(bool, Namespace, Arc<str>), Vec<usize>> = BTreeMap::new();
        for (at, (_, row)) in waiting.iter().enumerate() {
            let by_name = (true, row.namespace.clone(), row.name.clone());
            let by_subject = row.subject.clone().map(|subject| (false, row.namespace.clone(), subject));
            for list in [Some(by_name), by_subject].into_iter().flatten() {
                lists.entry(list).or_default().push(at);
            }
        }
        let looked = stream::iter(lists)
            .map(|((is_name, namespace, of), ats)| {
                let by = if is_name { EventsBy::Name(of) } else { EventsBy::Subject(of) };
                compare(store, namespace, by, ats, &waiting)
            })
            .buffer_unordered(WIDTH);
        let mut wrong: BTreeMap<usize, Kind> = BTreeMap::new();
        for (at, kind) in looked.try_collect::<Vec<_>>().await?.into_iter().flatten() {
            wrong.entry(at).or_insert(kind);
        }
        self.fine += (waiting.len() - wrong.len()) as u64;
        for (at, kind) in wrong {
            match kind {
                Kind::Lost => self.lost += 1,
                Kind::Stale => self.stale += 1,
                _ => self.foreign += 1,
            }
            if self.drifts.len() < worst {
                self.drifts.push(drift(kind, partition, &waiting[at]));
            }
        }
        Ok(())
    }
}

fn drift(kind: Kind, partition: u32, (seq, row): &(Seq, EventRow)) -> Drift {
    let event = EventName { name: row.name.to_string(), id: row.id.to_string(), time_ms: row.time_ms };
    Drift {
        kind,
        partition,
        namespace: row.namespace.to_string(),
        counter: None,
        tags: None,
        shard: None,
        event: Some(event),
        seq: Some(seq.0),
        found: None,
        expected: None,
        pending: false,
    }
}

/// Where an event stands in the order of pages, which is descending.
fn place(row: &EventRow) -> (i64, &str, &str) {
    (row.time_ms, &row.id, &row.name)
}

/// Looks for events of one list. Answers which of them are wrong, and how.
async fn compare(
    store: &dyn Store,
    namespace: Namespace,
    by: EventsBy,
    mut ats: Vec<usize>,
    events: &[(Seq, EventRow)],
) -> Result<Vec<(usize, Kind)>, Error> {
    ats.sort_by(|a, b| place(&events[*b].1).cmp(&place(&events[*a].1)));
    let oldest = ats.last().map_or(0, |at| events[*at].1.time_ms);
    let (mut wrong, mut rest) = (Vec::new(), &ats[..]);
    while let Some(first) = rest.first().map(|at| &events[*at].1) {
        let page = EventsPage {
            namespace: namespace.clone(),
            by: by.clone(),
            from_ms: oldest,
            to_ms: first.time_ms.saturating_add(1),
            // Whatever sorts after the smallest text above its id: the event itself, and what is older.
            before: Some((first.time_ms, format!("{}\0", first.id).into())),
            limit: PAGE,
        };
        let rows = store.events(&page).await?;
        // Of those that share time and id with the last row of a full page some may be on the next.
        let end = rows.last().filter(|_| rows.len() == PAGE).map(|last| (last.time_ms, last.id.clone()));
        let is_within = |row: &EventRow| {
            let at = (row.time_ms, &row.id);
            end.as_ref().is_none_or(|(time_ms, id)| at > (*time_ms, id) || at == (first.time_ms, &first.id))
        };
        let found: BTreeMap<_, &EventRow> = rows.iter().map(|row| (place(row), row)).collect();
        let within = rest.iter().take_while(|at| is_within(&events[**at].1)).count();
        for at in &rest[..within] {
            let event = &events[*at].1;
            wrong.extend(verdict(event, found.get(&place(event)).copied()).map(|kind| (*at, kind)));
        }
        rest = &rest[within..];
    }
    Ok(wrong)
}

/// What is wrong with an event of which the store has this.
fn verdict(event: &EventRow, found: Option<&EventRow>) -> Option<Kind> {
    match found {
        None => Some(Kind::Lost),
        Some(found) if found.stamp > event.stamp || found == event => None,
        Some(found) if found.stamp < event.stamp => Some(Kind::Stale),
        Some(_) => Some(Kind::Foreign),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        item::Stamp,
        store::{Events as _, memory::Memory},
    };

    fn event(n: usize, name: &str, subject: Option<&str>, time_ms: i64) -> (Seq, EventRow) {
        let row = EventRow {
            namespace: Namespace::default(),
            name: name.into(),
            subject: subject.map(Arc::from),
            time_ms,
            id: n.to_string().into(),
            properties: Bytes::from_static(b"{}"),
            received_ms: 5,
            stamp: Stamp(n as i64),
        };
        (Seq(n as u64), row)
    }

    /// More than a page of some lists, several names and subjects, times that many share.
    fn many() -> Vec<(Seq, EventRow)> {
        let of = |n| {
            let (name, subject) = (["a", "b"][n % 7 / 6], [None, Some("s"), Some("t")][n % 3]);
            event(n, name, subject, (n / 5 * 37 % 400) as i64)
        };
        (0..3 * PAGE).map(of).collect()
    }

    async fn looked(store: &Memory, events: Vec<(Seq, EventRow)>) -> Events {
        let mut looked = Events::default();
        looked.add(store, 0, 100, events).await.unwrap();
        looked.look(store, 0, 100).await.unwrap();
        looked
    }

    fn rows(events: &[(Seq, EventRow)]) -> Vec<EventRow> {
        events.iter().map(|(_, row)| row.clone()).collect()
    }

    #[tokio::test]
    async fn what_the_store_has_is_fine_whatever_else_it_has() {
        let store = Memory::new();
        store.write_events(&rows(&many())).await.unwrap();
        let every_third: Vec<_> = many().into_iter().step_by(3).collect();
        let (all, some) = (looked(&store, many()).await, looked(&store, every_third).await);
        assert_eq!((all.fine, all.wrong()), (3 * PAGE as u64, 0), "{:?}", all.drifts);
        assert_eq!((some.fine, some.wrong()), (PAGE as u64, 0), "{:?}", some.drifts);
    }

    #[tokio::test]
    async fn an_event_that_is_lacking_older_or_another_is_named() {
        let store = Memory::new();
        let events = many();
        let mut kept = rows(&events);
        kept.remove(700);
        kept[10].stamp = Stamp(-1);
        kept[20].properties = Bytes::from_static(b"{\"x\":1}");
        // Its id again, when the window had passed.
        kept[30].stamp = Stamp(i64::MAX);
        kept[30].properties = Bytes::from_static(b"{\"later\":1}");
        store.write_events(&kept).await.unwrap();
        let looked = looked(&store, events).await;
        assert_eq!((looked.lost, looked.stale, looked.foreign), (1, 1, 1), "{:?}", looked.drifts);
        assert_eq!(looked.fine, 3 * PAGE as u64 - 3);
        let mut named: Vec<_> =
            looked.drifts.iter().map(|drift| (drift.kind, drift.event.as_ref().unwrap().id.clone())).collect();
        named.sort();
        let expected = [(Kind::Lost, "700"), (Kind::Stale, "10"), (Kind::Foreign, "20")];
        assert_eq!(named, expected.map(|(kind, id)| (kind, id.to_owned())));
    }
}
