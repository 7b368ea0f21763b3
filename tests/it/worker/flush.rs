//! What makes a lane flush: age, rows, bytes, somebody who waits, a shutdown.

use std::time::Duration;

use tallymark::{
    item::{Namespace, Seq},
    store::{Events as _, EventsBy, EventsPage},
    units::Span,
};
use tokio::time::Instant;

use super::{
    fixture::{NEVER, World, sums},
    packs::{pack, series_of},
    store::Op,
};

#[tokio::test]
async fn a_lane_flushes_when_its_oldest_delta_is_old_enough_and_not_before() {
    let mut world = World::new(1).await;
    world.options.flush_age = Span::from_millis(150);
    let running = world.start();
    let began = Instant::now();
    for _ in 0..5 {
        world.append(0, pack().add("visits k=a", 1)).await;
    }
    running.stored(0, 5).await;
    running.stop().await;
    let first = world.store.done(Op::Rows)[0].at - began;
    assert!(first >= Duration::from_millis(150), "{first:?}");
    assert_eq!(world.totals().await, sums([("visits k=a", 5)]));
}

#[tokio::test]
async fn it_flushes_when_so_many_rows_wait_and_each_row_is_written_once() {
    let mut world = World::new(1).await;
    world.flush_at(11, 1 << 30);
    let running = world.start();
    let series = series_of(0, 1, 10);
    for _ in 0..3 {
        for series in &series[..9] {
            world.append(0, pack().add(series, 1)).await;
        }
    }
    running.applied(0, 27).await;
    assert_eq!(world.store.done(Op::Rows).len(), 0, "9 series and their counter are 10 rows, however often");
    world.append(0, pack().add(&series[9], 1)).await;
    running.stored(0, 28).await;
    let written: usize = world.store.done(Op::Rows).iter().map(|call| call.size).sum();
    assert_eq!(written, 11);
    running.stop().await;
}

#[tokio::test]
async fn it_flushes_when_so_many_bytes_of_events_wait() {
    let mut world = World::new(1).await;
    world.flush_at(1_000_000, 10 << 10);
    let running = world.start();
    for n in 0..5 {
        world.append(0, pack().event("signup", "u", &n.to_string(), 1000)).await;
    }
    running.applied(0, 5).await;
    assert_eq!(world.store.done(Op::Events).len(), 0);
    for n in 5..10 {
        world.append(0, pack().event("signup", "u", &n.to_string(), 1000)).await;
    }
    running.stored(0, 5).await;
    running.stop().await;
}

#[tokio::test]
async fn events_are_handed_to_the_store_by_the_thousand() {
    let mut world = World::new(1).await;
    world.flush_at(1_000_000, 1 << 30);
    let running = world.start();
    for n in 0..90 {
        let draft =
            (0..100).fold(pack(), |draft, id| draft.event("signup", &format!("u{id}"), &format!("{n}.{id}"), 9));
        world.append(0, if n == 89 { draft.urgent() } else { draft }).await;
    }
    running.stored(0, 90).await;
    running.stop().await;
    let mut sizes: Vec<_> = world.store.done(Op::Events).iter().map(|call| call.size).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1_000, 4_000, 4_000]);
    let (namespace, by) = (Namespace::default(), EventsBy::Subject("u7".into()));
    let page = EventsPage { namespace, by, from_ms: 0, to_ms: i64::MAX, before: None, limit: 1_000 };
    assert_eq!(world.store.events(&page).await.unwrap().len(), 90);
}

#[tokio::test]
async fn it_flushes_at_once_when_somebody_waits() {
    let mut world = World::new(1).await;
    world.flush_at(1_000_000, 1 << 30);
    let running = world.start();
    world.append(0, pack().add("visits k=a", 1)).await;
    running.applied(0, 1).await;
    assert_eq!(world.store.done(Op::Rows).len(), 0);
    world.append(0, pack().add("visits k=a", 2).urgent()).await;
    running.stored(0, 2).await;
    assert_eq!(world.totals().await, sums([("visits k=a", 3)]));
    running.stop().await;
}

#[tokio::test]
async fn a_shutdown_stores_what_was_applied() {
    let mut world = World::new(1).await;
    world.options.flush_age = NEVER;
    let running = world.start();
    let draft = pack().add("visits k=a", i64::MAX).add("visits k=a", i64::MAX).event("signup", "user-1", "id", 4);
    world.append(0, draft).await;
    running.applied(0, 1).await;
    running.stop().await;
    assert_eq!(world.totals().await, sums([("visits k=a", 2 * i128::from(i64::MAX))]));
    for by in [EventsBy::Name("signup".into()), EventsBy::Subject("user-1".into())] {
        let namespace = Namespace::default();
        let page = EventsPage { namespace, by, from_ms: 0, to_ms: i64::MAX, before: None, limit: 10 };
        let events = world.store.events(&page).await.unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!((&*events[0].id, &events[0].properties[..]), ("id", &b"{\"p\":\"xxxx\"}"[..]));
        assert_eq!(events[0].stamp, world.rows().await["visits k=a"].stamp, "its pack's");
    }
    assert_eq!(world.store.known("test.packs").await[0].stored, Some(Seq(0)));
}
