//! The laws of the log port (`src/log.rs`, L1 to L6), the same for every backend.
//!
//! A backend gives a [`Site`]: a place where a log can be opened, dropped and opened again. What a power cut leaves is
//! each backend's own test; here "durable" means: still there when it is opened again.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tallymark::{
    clock,
    item::Seq,
    log::{Bounds, Change, Cursor, Error, Log, Options, Record},
    retry::Kind,
    units::Size,
};
use tokio::time::timeout;

/// Nothing that is waited for takes longer, unless it is broken.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A place for one log.
#[async_trait]
pub trait Site: Send + Sync {
    /// Opens the log, making it if it is not there. The one that was opened before has been dropped.
    async fn open(&self, options: Options) -> Arc<dyn Log>;
}

/// The payload of the `n`th record of a test: recognisable, of many sizes.
pub fn payload(n: u64) -> Bytes {
    let length = [0, 1, 200, 5_000, 70_000][usize::try_from(n % 5).unwrap()];
    n.to_be_bytes().iter().copied().cycle().take(length).collect()
}

/// Everything that is there of a partition.
pub async fn read_all(log: &dyn Log, partition: u32) -> Vec<Record> {
    let bounds = log.bounds(partition).await.unwrap();
    let mut records: Vec<Record> = Vec::new();
    while let Some(from) = Some(Seq(bounds.start.0 + records.len() as u64)).filter(|from| *from < bounds.end) {
        let batch = log.read(partition, from, 100_000).await.unwrap();
        assert!(!batch.is_empty(), "nothing at {from}, before the end {}", bounds.end);
        records.extend(batch);
    }
    for (record, seq) in records.iter().zip(bounds.start.0..) {
        assert_eq!(record.seq, Seq(seq));
    }
    records
}

async fn next(cursor: &mut Box<dyn Cursor>) -> Vec<Record> {
    timeout(DEADLINE, cursor.next()).await.expect("the cursor wakes up").unwrap()
}

fn partitions(partitions: u32) -> Options {
    Options { partitions, ..Options::default() }
}

fn error<T>(result: Result<T, Error>) -> Error {
    result.err().expect("an error")
}

pub async fn offsets_are_contiguous_from_0_and_bytes_stay_the_same(site: &dyn Site) {
    let log = site.open(partitions(3)).await;
    for partition in 0..3 {
        assert_eq!(log.bounds(partition).await.unwrap(), Bounds { start: Seq(0), end: Seq(0) });
        assert!(log.read(partition, Seq(0), 1000).await.unwrap().is_empty());
    }
    for n in 0..20 {
        for partition in 0..2 {
            let appended = log.append(partition, partition + 7, payload(n)).await.unwrap();
            assert!(appended.seq.is_none_or(|seq| seq == Seq(n)));
            assert_eq!(log.bounds(partition).await.unwrap().end, Seq(n + 1), "readable when acknowledged");
        }
    }
    for _ in 0..2 {
        for partition in 0..2 {
            let records = read_all(&*log, partition).await;
            assert_eq!(records.len(), 20);
            for (record, n) in records.iter().zip(0..) {
                assert_eq!((&record.payload, record.format, &record.damage), (&payload(n), partition + 7, &None));
            }
        }
    }
    assert_eq!(log.bounds(2).await.unwrap().end, Seq(0));
}

pub async fn what_was_acknowledged_is_there_when_the_log_is_opened_again(site: &dyn Site) {
    let mut expected = Vec::new();
    for life in 0..3 {
        let log = site.open(Options::default()).await;
        let records = read_all(&*log, 1).await;
        let read: Vec<_> = records.iter().map(|record| (record.append_ms, record.payload.clone())).collect();
        assert_eq!(read, expected, "life {life}");
        for n in 0..10 {
            let payload = payload(life * 10 + n);
            let appended = log.append(1, 1, payload.clone()).await.unwrap();
            expected.push((appended.append_ms, payload));
        }
    }
}

pub async fn an_append_is_stamped_by_the_logs_clock(site: &dyn Site) {
    let log = site.open(Options::default()).await;
    let before = clock::now_ms();
    let appended = log.append(0, 1, payload(2)).await.unwrap();
    let after = clock::now_ms();
    assert!((before..=after).contains(&appended.append_ms));
    assert_eq!(read_all(&*log, 0).await[0].append_ms, appended.append_ms);
}

pub async fn concurrent_appends_get_an_offset_each(site: &dyn Site) {
    let log = site.open(partitions(4)).await;
    let tasks: Vec<_> = (0..128_u64)
        .map(|task| {
            let log = log.clone();
            tokio::spawn(async move {
                let mut appended = Vec::new();
                for n in 0..25 {
                    let (partition, payload) =
                        (u32::try_from((task + n) % 4).unwrap(), Bytes::from(format!("{task}/{n}")));
                    let seq = log.append(partition, 1, payload.clone()).await.unwrap().seq;
                    appended.push((partition, seq, payload));
                }
                appended
            })
        })
        .collect();
    let mut found = BTreeMap::new();
    for partition in 0..4 {
        assert!(log.bounds(partition).await.is_ok());
    }
    let mut acknowledged = Vec::new();
    for task in tasks {
        acknowledged.extend(task.await.unwrap());
    }
    for partition in 0..4 {
        for record in read_all(&*log, partition).await {
            found.insert((partition, record.seq), record.payload);
        }
    }
    assert_eq!(found.len(), 128 * 25);
    assert_eq!(found.values().collect::<HashSet<_>>().len(), 128 * 25);
    for (partition, seq, payload) in acknowledged {
        if let Some(seq) = seq {
            assert_eq!(found[&(partition, seq)], payload);
        }
    }
}

pub async fn a_cursor_delivers_every_offset_in_order_once(site: &dyn Site) {
    const COUNT: u64 = 2_000;
    let log = site.open(partitions(2)).await;
    for n in 0..100 {
        log.append(1, 1, payload(n)).await.unwrap();
    }
    let writer = {
        let log = log.clone();
        tokio::spawn(async move {
            for n in 100..COUNT {
                log.append(1, 1, payload(n)).await.unwrap();
            }
        })
    };
    for from in [0, 50] {
        let mut cursor = log.open(1, Seq(from), None).await.unwrap();
        let mut expected = from;
        while expected < COUNT {
            let batch = next(&mut cursor).await;
            assert!(!batch.is_empty());
            let end = log.bounds(1).await.unwrap().end;
            for record in batch {
                assert_eq!((record.seq, record.payload), (Seq(expected), payload(expected)));
                assert!(record.seq < end, "read before it was the log's");
                expected += 1;
            }
        }
    }
    writer.await.unwrap();
}

pub async fn a_cursor_at_the_end_waits_and_cancelling_it_loses_nothing(site: &dyn Site) {
    let log = site.open(Options::default()).await;
    log.append(0, 1, payload(0)).await.unwrap();
    let mut cursor = log.open(0, Seq(1), None).await.unwrap();
    for n in 1..20 {
        assert!(timeout(Duration::from_millis(1), cursor.next()).await.is_err(), "there is nothing yet");
        let (batch, appended) = tokio::join!(next(&mut cursor), log.append(0, 1, payload(n)));
        appended.unwrap();
        assert_eq!(batch.iter().map(|record| record.seq).collect::<Vec<_>>(), [Seq(n)]);
    }
    // Whatever a cancelled wait had begun to read is delivered by the next one.
    let log = &log;
    let mut expected = 20;
    while expected < 60 {
        if log.bounds(0).await.unwrap().end == Seq(expected) {
            log.append(0, 1, payload(expected)).await.unwrap();
        }
        if let Ok(batch) = timeout(Duration::from_micros(expected % 7 * 20), cursor.next()).await {
            for record in batch.unwrap() {
                assert_eq!(record.seq, Seq(expected));
                expected += 1;
            }
        }
    }
}

pub async fn a_cursor_that_is_not_polled_keeps_its_place(site: &dyn Site) {
    let log = site.open(Options::default()).await;
    let mut cursor = log.open(0, Seq(0), None).await.unwrap();
    let big = Bytes::from(vec![7; 500_000]);
    for _ in 0..40 {
        log.append(0, 1, big.clone()).await.unwrap();
    }
    let mut expected = 0;
    while expected < 40 {
        let batch = next(&mut cursor).await;
        assert!(batch.len() <= 10, "{} at once are more than a bounded batch", batch.len());
        for record in batch {
            assert_eq!((record.seq, record.payload.len()), (Seq(expected), big.len()));
            expected += 1;
        }
    }
}

pub async fn a_read_is_bounded_by_bytes_and_ends_at_the_end(site: &dyn Site) {
    let log = site.open(Options::default()).await;
    for _ in 0..10 {
        log.append(0, 1, Bytes::from(vec![1; 1000])).await.unwrap();
    }
    let count = async |from, bytes| log.read(0, Seq(from), bytes).await.unwrap().len();
    assert_eq!(count(0, 1).await, 1, "one at least");
    assert!((2..=4).contains(&count(0, 3000).await));
    assert_eq!(count(7, 1 << 20).await, 3);
    assert_eq!(count(10, 1 << 20).await, 0);
}

pub async fn offsets_outside_the_bounds_are_gone(site: &dyn Site) {
    let log = site.open(Options::default()).await;
    log.append(0, 1, payload(1)).await.unwrap();
    assert!(error(log.read(0, Seq(2), 1000).await).gone);
    assert!(error(log.open(0, Seq(2), None).await).gone);
    assert!(log.open(0, Seq(1), None).await.is_ok());
}

pub async fn a_partition_that_is_not_there_is_an_error(site: &dyn Site) {
    let log = site.open(partitions(2)).await;
    for partition in [2, u32::MAX] {
        assert_eq!(error(log.append(partition, 1, payload(1)).await).kind, Kind::Permanent);
        assert!(log.bounds(partition).await.is_err());
        assert!(log.read(partition, Seq(0), 1000).await.is_err());
        assert!(log.open(partition, Seq(0), None).await.is_err());
        assert!(log.progress(partition, Seq(0), Seq(0)).await.is_err());
    }
}

pub async fn the_topology_is_the_same_for_life(site: &dyn Site) {
    let log = site.open(partitions(3)).await;
    let topology = log.topology().clone();
    assert_eq!(topology.partitions, 3);
    assert_ne!(topology.topic_id.0, [0; 16]);
    assert!(!topology.cluster_id.is_empty() && !topology.topic.is_empty());
    drop(log);
    let log = site.open(Options::default()).await;
    assert_eq!(*log.topology(), topology);
}

pub async fn a_member_is_assigned_partitions_until_the_log_is_gone(site: &dyn Site) {
    let log = site.open(partitions(3)).await;
    let mut changes = log.join().await.unwrap();
    let change = timeout(DEADLINE, changes.recv()).await.unwrap();
    let Some(Change::Assigned(mut assigned)) = change else { panic!("{change:?}") };
    assigned.sort_unstable();
    assert_eq!(assigned, [0, 1, 2]);
    assert!(timeout(Duration::from_millis(20), changes.recv()).await.is_err(), "nothing changes by itself");
    drop(log);
    assert!(timeout(DEADLINE, changes.recv()).await.unwrap().is_none());
}

pub async fn retention_removes_from_the_front_and_never_what_is_needed(site: &dyn Site) {
    const KEEP: u64 = 8 << 20;
    let log = site.open(Options { partitions: 2, retention_bytes: Size(KEEP), ..Options::default() }).await;
    let body = |n: u64| Bytes::from(n.to_be_bytes().repeat(4_000));
    let append = async |from: u64, count: u64| {
        for n in from..from + count {
            for partition in 0..2 {
                log.append(partition, 1, body(n)).await.unwrap();
            }
        }
    };
    append(0, 800).await;
    for partition in 0..2 {
        assert_eq!(log.bounds(partition).await.unwrap().start, Seq(0), "no lane has said what it needs");
    }
    let mut behind = log.open(0, Seq(0), None).await.unwrap();

    // Partition 0 is done with 500 records, partition 1 needs them all.
    log.progress(0, Seq(600), Seq(500)).await.unwrap();
    let mut from = 800;
    let removed = timeout(DEADLINE, async {
        while log.bounds(0).await.unwrap().start < Seq(300) {
            append(from, 20).await;
            from += 20;
        }
    });
    removed.await.expect("old records are removed");
    assert_eq!(log.bounds(1).await.unwrap().start, Seq(0));
    let bounds = log.bounds(0).await.unwrap();
    assert!(bounds.start <= Seq(500));
    assert!(error(log.read(0, Seq(bounds.start.0 - 1), 1000).await).gone);
    assert!(error(behind.next().await).gone);
    for partition in 0..2 {
        let start = log.bounds(partition).await.unwrap().start.0;
        for (record, n) in read_all(&*log, partition).await.into_iter().zip(start..) {
            assert_eq!(record.payload, body(n));
        }
    }

    // Both are done with everything: what is left is what is retained, and the end stays.
    for partition in 0..2 {
        log.progress(partition, Seq(from - 1), Seq(from)).await.unwrap();
    }
    let shrunk = timeout(DEADLINE, async {
        while log.bounds(1).await.unwrap().start < Seq(500) {
            append(from, 20).await;
            from += 20;
        }
    });
    shrunk.await.expect("old records are removed");
    drop(behind);
    let before = log.bounds(1).await.unwrap();
    drop(log);
    let log = site.open(Options { partitions: 2, retention_bytes: Size(KEEP), ..Options::default() }).await;
    let after = log.bounds(1).await.unwrap();
    assert_eq!(after.end, before.end);
    assert!(after.start >= before.start);
    assert_eq!(read_all(&*log, 1).await.len() as u64, after.end.0 - after.start.0);
}

pub async fn a_log_in_order_takes_appends(site: &dyn Site) {
    let log = site.open(Options::default()).await;
    log.check().await.unwrap();
}

/// Runs every law against a backend: `suite!(site)`, where `site` is an expression that makes a new [`Site`]. Retention of a
/// remote log is its servers', and cannot be driven from here: `suite!(site, remote)` leaves that law to the backend's tests.
macro_rules! suite {
    ($site:expr) => {
        suite!($site, remote);
        suite!($site; retention_removes_from_the_front_and_never_what_is_needed,);
    };
    ($site:expr, remote) => {
        suite!($site;
            offsets_are_contiguous_from_0_and_bytes_stay_the_same,
            what_was_acknowledged_is_there_when_the_log_is_opened_again,
            an_append_is_stamped_by_the_logs_clock,
            concurrent_appends_get_an_offset_each,
            a_cursor_delivers_every_offset_in_order_once,
            a_cursor_at_the_end_waits_and_cancelling_it_loses_nothing,
            a_cursor_that_is_not_polled_keeps_its_place,
            a_read_is_bounded_by_bytes_and_ends_at_the_end,
            offsets_outside_the_bounds_are_gone,
            a_partition_that_is_not_there_is_an_error,
            the_topology_is_the_same_for_life,
            a_member_is_assigned_partitions_until_the_log_is_gone,
            a_log_in_order_takes_appends,
        );
    };
    ($site:expr; $($law:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $law() {
                $crate::contract::log::$law(&$site).await;
            }
        )*
    };
}

pub mod embedded {
    use super::*;

    pub struct Folder(pub tempfile::TempDir);

    #[async_trait]
    impl Site for Folder {
        async fn open(&self, options: Options) -> Arc<dyn Log> {
            let path = self.0.path().join("log");
            Arc::new(tallymark::log::embedded::Embedded::open(&path, "packs", &options).unwrap())
        }
    }

    suite!(Folder(tempfile::tempdir().unwrap()));
}

mod kafka {
    use super::*;
    use crate::kafka::support::Topic;

    #[async_trait]
    impl Site for Topic {
        async fn open(&self, options: Options) -> Arc<dyn Log> {
            Arc::new(self.made(&options).await)
        }
    }

    suite!(Topic::new(), remote);
}
