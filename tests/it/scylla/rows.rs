//! Rows that the backend has written, as others see them, and reads that are longer than an answer.

use std::collections::BTreeMap;

use bytes::Bytes;
use scylla::value::{CqlTimestamp, CqlVarint};
use tallymark::{
    item::{Epoch, Lane, Namespace, PackId, Seq, Shard, Stamp, TopicId},
    store::{
        Checkpoint, Counted, EpochRow, EventRow, Events as _, EventsBy, EventsPage, Ledger as _, RowName, ShardKey,
        Slice, TotalRow, Totals as _, scylla::Scylla,
    },
};

use crate::support_scylla::{Keyspace, options, shared};

fn namespace() -> Namespace {
    Namespace::parse(&format!("n{:016x}", rand::random::<u64>())).unwrap()
}

fn total(tags: &str, total: i128, stamp: i64) -> TotalRow {
    let name = RowName { counter: "page_views".into(), tags: tags.into() };
    TotalRow { name, total, seq: Seq(stamp.unsigned_abs()), stamp: Stamp(stamp) }
}

fn event(namespace: &Namespace, time_ms: i64, id: &str) -> EventRow {
    EventRow {
        namespace: namespace.clone(),
        name: "login".into(),
        subject: Some("u1".into()),
        time_ms,
        id: id.into(),
        properties: Bytes::from_static(br#"{"plan": "pro"}"#),
        received_ms: time_ms + 5,
        stamp: Stamp(77),
    }
}

/// The queries of `docs/store.md`, on rows that the backend has written.
#[tokio::test]
async fn plain_cql_reads_what_the_backend_has_written() {
    let keyspace = Keyspace::applied().await;
    let store = Scylla::open(&keyspace.servers, &options()).await.unwrap();
    let (namespace, epoch) = (Namespace::default(), Epoch([1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]));
    let key = |shard| ShardKey { namespace: namespace.clone(), shard: Shard(shard), epoch };
    for lane in 0..4 {
        store.write_totals(&key(-1 - lane), &[total("", 1 << 40, i64::from(lane) + 10)]).await.unwrap();
    }
    store.write_totals(&key(17), &[total("path=/docs", -3, 20), total("path=/docs/a", 8, 21)]).await.unwrap();
    store.write_events(&[event(&namespace, 1_748_736_000_123, "evt_1")]).await.unwrap();
    let lane = Lane { topic_id: TopicId([5; 16]), partition: 2 };
    let checkpoint = Checkpoint {
        lane,
        seq: Seq(41),
        leader_epoch: None,
        pack: PackId([8; 16]),
        stamp: Stamp(1_000),
        dedup_from: Seq(0),
        dedup_stamp: Stamp(0),
        unmet_base: None,
        counted: Counted::since(Seq(0)),
    };
    store.write_checkpoint("tallymark.packs", &checkpoint).await.unwrap();
    store.write_stored("tallymark.packs", lane, Seq(44), Stamp(1_003)).await.unwrap();
    let begun = EpochRow {
        epoch,
        topic_id: lane.topic_id,
        cluster_id: "here".into(),
        partitions: 4,
        shards: 256,
        dedup_window_us: 600_000_000,
        dedup_max_ids: 1_000_000,
        created_ms: 1_748_736_000_000,
    };
    store.begin_epoch("tallymark.packs", &begun).await.unwrap();

    keyspace.cql.use_keyspace(&keyspace.name, true).await.unwrap();
    let ask = async |cql: &str| keyspace.cql.query_unpaged(cql, ()).await.unwrap().into_rows_result().unwrap();

    let rows = ask("SELECT epoch, partitions, shards, created FROM epochs WHERE topic = 'tallymark.packs'").await;
    let row = rows.single_row::<(&[u8], i32, i32, CqlTimestamp)>().unwrap();
    assert_eq!(row, (&epoch.0[..], 4, 256, CqlTimestamp(begun.created_ms)));

    let rows = ask("SELECT shard, total, seq, WRITETIME(total) FROM counter_totals \
                    WHERE namespace = 'default' AND shard IN (-1, -2, -3, -4) AND epoch = 0x0123456789abcdef \
                    AND counter = 'page_views'")
    .await;
    let rows: BTreeMap<i32, _> = rows
        .rows::<(i32, CqlVarint, i64, i64)>()
        .unwrap()
        .map(Result::unwrap)
        .map(|(shard, total, seq, stamp)| (shard, (total, seq, stamp)))
        .collect();
    let whole = |stamp: i64| (CqlVarint::from_signed_bytes_be(vec![1, 0, 0, 0, 0, 0]), stamp, stamp);
    assert_eq!(rows, BTreeMap::from([(-1, whole(10)), (-2, whole(11)), (-3, whole(12)), (-4, whole(13))]));

    // A sum by the server itself.
    let rows = ask("SELECT CAST(SUM(total) AS text) FROM counter_totals \
                    WHERE namespace = 'default' AND shard = 17 AND epoch = 0x0123456789abcdef AND counter = 'page_views'")
    .await;
    assert_eq!(rows.single_row::<(String,)>().unwrap().0, "5");

    let rows = ask("SELECT series, CAST(total AS bigint) FROM counter_totals \
                    WHERE namespace = 'default' AND shard = 17 AND epoch = 0x0123456789abcdef \
                    AND counter = 'page_views' AND series > 'path=/docs' LIMIT 100")
    .await;
    assert_eq!(rows.single_row::<(&str, i64)>().unwrap(), ("path=/docs/a", 8));

    let rows = ask("SELECT time, name, properties FROM events_by_subject \
                    WHERE namespace = 'default' AND subject = 'u1' AND month = 665 AND time >= '2025-06-01' LIMIT 50")
    .await;
    let row = rows.single_row::<(CqlTimestamp, &str, &str)>().unwrap();
    assert_eq!(row, (CqlTimestamp(1_748_736_000_123), "login", r#"{"plan": "pro"}"#));

    let rows = ask("SELECT time, id, subject FROM events WHERE namespace = 'default' AND name = 'login' \
                    AND hour = 485760 AND shard IN (0, 1, 2, 3, 4, 5, 6, 7)")
    .await;
    assert_eq!(rows.single_row::<(CqlTimestamp, &str, &str)>().unwrap().1, "evt_1");
    let rows = ask("SELECT hour FROM event_hours WHERE namespace = 'default' AND name = 'login' LIMIT 10").await;
    assert_eq!(rows.single_row::<(i64,)>().unwrap(), (485_760,));

    let rows =
        ask("SELECT partition, seq, stored, stamp, WRITETIME(seq) FROM checkpoints WHERE topic = 'tallymark.packs'")
            .await;
    assert_eq!(rows.single_row::<(i32, i64, i64, i64, i64)>().unwrap(), (2, 41, 44, 1_000, 1_000));
    keyspace.drop().await;
}

#[tokio::test]
async fn an_older_write_of_anybody_loses_and_a_newer_one_is_read() {
    let keyspace = Keyspace::applied().await;
    let store = Scylla::open(&keyspace.servers, &options()).await.unwrap();
    let key = ShardKey { namespace: Namespace::default(), shard: Shard(3), epoch: Epoch([2; 8]) };
    store.write_totals(&key, &[total("", 5, 1_000)]).await.unwrap();
    let write = async |total: i64, stamp: i64| {
        let cql = format!(
            "UPDATE {{ks}}.counter_totals USING TIMESTAMP {stamp} SET total = {total}, seq = {stamp} \
             WHERE namespace = 'default' AND shard = 3 AND epoch = 0x0202020202020202 \
             AND counter = 'page_views' AND series = ''"
        );
        keyspace.run(&cql).await;
        store.totals_named(&key, &[total_name()]).await.unwrap().remove(0).unwrap()
    };
    assert_eq!(write(6, 999).await, total("", 5, 1_000));
    assert_eq!(write(7, 1_001).await, total("", 7, 1_001));
    keyspace.drop().await;
}

fn total_name() -> RowName {
    total("", 0, 0).name
}

#[tokio::test]
async fn an_event_that_comes_again_replaces_the_earlier_one_whole() {
    let (store, namespace) = (shared(), namespace());
    let first = event(&namespace, 1_000, "1");
    let bare = EventRow { properties: Bytes::new(), stamp: Stamp(78), received_ms: 9, ..first.clone() };
    store.write_events(std::slice::from_ref(&first)).await.unwrap();
    store.write_events(std::slice::from_ref(&bare)).await.unwrap();
    let page = |by| EventsPage { namespace: namespace.clone(), by, from_ms: 0, to_ms: 2_000, before: None, limit: 9 };
    for by in [EventsBy::Name("login".into()), EventsBy::Subject("u1".into())] {
        assert_eq!(store.events(&page(by)).await.unwrap(), std::slice::from_ref(&bare));
    }
    // With another subject it is in another eighth of the hour, and still one event.
    for (subject, stamp) in [(None, 79), (Some("u2"), 80), (Some("u3"), 81)] {
        let moved = EventRow { subject: subject.map(Into::into), stamp: Stamp(stamp), ..bare.clone() };
        store.write_events(std::slice::from_ref(&moved)).await.unwrap();
        assert_eq!(store.events(&page(EventsBy::Name("login".into()))).await.unwrap(), [moved]);
    }
}

#[tokio::test]
async fn slices_mutations_and_names_longer_than_a_request_are_whole() {
    let store = shared();
    let key = ShardKey { namespace: namespace(), shard: Shard(0), epoch: Epoch([7; 8]) };
    // More than a kept batch has rows, more than a page has, more than a request of names has.
    let mut rows: Vec<_> = (0..4_500).map(|index| total(&format!("i={index:05}"), index, 5)).collect();
    // And more than a request has bytes.
    rows.extend((0..40).map(|index| total(&format!("j={index:05}{}", "~".repeat(60_000)), index, 6)));
    store.write_totals(&key, &rows).await.unwrap();
    let all = Slice { limit: usize::MAX, ..Slice::default() };
    assert!(store.totals(&key, &all).await.unwrap() == rows);
    let some = Slice { limit: 2_100, after: Some(rows[99].name.clone()), ..all };
    assert!(store.totals(&key, &some).await.unwrap() == rows[100..2_200]);
    let names: Vec<_> = rows.iter().rev().step_by(3).map(|row| row.name.clone()).collect();
    let expected: Vec<_> = rows.iter().rev().step_by(3).cloned().map(Some).collect();
    assert!(store.totals_named(&key, &names).await.unwrap() == expected);
}

#[tokio::test]
async fn pages_go_through_many_hours_and_months() {
    let (store, namespace) = (shared(), namespace());
    let hour_ms = 3_600_000;
    // Three events in each of 300 hours, and one in each of 300 months (of 31 days, so some have none).
    let mut rows: Vec<_> =
        (0..900).map(|index| event(&namespace, index * hour_ms / 3, &format!("{index:04}"))).collect();
    rows.extend((0..300).map(|index| event(&namespace, -1 - index * 31 * 24 * hour_ms, &format!("m{index}"))));
    for chunk in rows.chunks(100) {
        store.write_events(chunk).await.unwrap();
    }
    rows.sort_by_key(|row| std::cmp::Reverse((row.time_ms, row.id.clone())));
    for by in [EventsBy::Name("login".into()), EventsBy::Subject("u1".into())] {
        let mut page = EventsPage {
            namespace: namespace.clone(),
            by,
            from_ms: i64::MIN,
            to_ms: i64::MAX,
            before: None,
            limit: 2_000,
        };
        assert!(store.events(&page).await.unwrap() == rows);
        page.limit = 170;
        let mut read = Vec::new();
        loop {
            let found = store.events(&page).await.unwrap();
            let Some(last) = found.last() else { break };
            page.before = Some((last.time_ms, last.id.clone()));
            read.extend(found);
        }
        assert!(read == rows);
    }
}
