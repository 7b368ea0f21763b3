//! What the hot view is told of a pack.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use serde_json::json;
use tallymark::{
    hot::{HotKey, HotKind},
    ingest::Options,
    item::Seq,
};

use super::Rig;
use crate::support::{MemoryLog, Told};

const PATH: &str = "/v1/increments";

fn entry(kind: HotKind, key: &'static str) -> HotKey {
    HotKey { kind, key: Bytes::from_static(key.as_bytes()) }
}

#[tokio::test]
async fn each_pack_is_shown_once_by_series_and_by_counter_before_it_is_answered() {
    let rig = Rig::on(Options::default(), MemoryLog::new(1), Told::default());
    let body = json!([
        {"counter": "c", "tags": {"k": "a"}, "amount": 1, "id": "1"},
        {"counter": "c", "tags": {"k": "b"}, "amount": 10},
        {"counter": "c", "tags": {"k": "b"}, "amount": i64::MAX},
        {"counter": "c", "amount": 100},
        {"counter": "d", "amount": -5},
        {"counter": "d", "amount": 5},
    ]);
    rig.post(PATH, &[], body.to_string()).await.is_accepted(6);
    let big = i128::from(i64::MAX);
    let expected = [
        (entry(HotKind::Series, "default\0c\0k=a"), 1),
        (entry(HotKind::Series, "default\0c\0k=b"), 10 + big),
        (entry(HotKind::Series, "default\0c\0"), 100),
        (entry(HotKind::Series, "default\0d\0"), 0),
        (entry(HotKind::Counter, "default\0c\0"), 111 + big),
        (entry(HotKind::Counter, "default\0d\0"), 0),
    ];
    assert_eq!(rig.hot.sums(), expected.into_iter().collect());
    let adds = rig.hot.adds.lock().unwrap();
    assert_eq!(adds.len(), 1);
    assert_eq!((adds[0].0.partition, adds[0].1), (0, Seq(0)));
}

#[tokio::test]
async fn items_that_skip_the_hot_view_and_events_are_not_shown() {
    let rig = Rig::on(Options::default(), MemoryLog::new(1), Told::default());
    rig.post("/v1/increments?hot=skip", &[], "{\"counter\":\"c\"}").await.is_accepted(1);
    rig.post("/v1/events", &[], "{\"name\":\"n\"}").await.is_accepted(1);
    assert!(rig.hot.adds.lock().unwrap().is_empty());
    let off = Rig::on(Options::default(), MemoryLog::new(1), Told { off: true, ..Told::default() });
    off.post(PATH, &[], "{\"counter\":\"c\"}").await.is_accepted(1);
    assert!(off.hot.adds.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_hot_view_that_hangs_or_fails_costs_no_acknowledgement() {
    let rig = Rig::on(Options::default(), MemoryLog::new(1), Told::default());
    rig.hot.hang.store(true, Ordering::SeqCst);
    rig.post(PATH, &[], "{\"counter\":\"c\"}").await.is_accepted(1);
    rig.hot.hang.store(false, Ordering::SeqCst);
    rig.hot.fail.store(true, Ordering::SeqCst);
    rig.post(PATH, &[], "{\"counter\":\"c\"}").await.is_accepted(1);
    assert_eq!(rig.handle.buffered_bytes(), 0);
}

#[tokio::test]
async fn packs_go_on_to_the_log_while_the_hot_view_hangs() {
    let options = Options { in_flight: 1, ..Options::default() };
    let rig = Rig::on(options, MemoryLog::new(1), Told::default());
    rig.hot.hang.store(true, Ordering::SeqCst);
    let waiting: Vec<_> = (0..3).map(|n| rig.post_soon(PATH, format!("{{\"counter\":\"c{n}\"}}"))).collect();
    for request in waiting {
        request.await.unwrap().is_accepted(1);
    }
    // In sequence: each pack is with the log while the one before it still waits for the hot view.
    let first = rig.post_soon(PATH, "{\"counter\":\"a\"}");
    let before = rig.log.packs().len();
    crate::support::until("the first is in the log", || rig.log.packs().len() > before || first.is_finished()).await;
    rig.post(PATH, &[], "{\"counter\":\"b\"}").await.is_accepted(1);
    first.await.unwrap().is_accepted(1);
}
