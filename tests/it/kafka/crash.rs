//! A broker that crashes, hangs and loses bytes: appends answer in time, and everything goes on when it is back.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tallymark::{
    item::Seq,
    log::{Change, Log, Options, kafka::Kafka},
    retry::Kind,
    units::{Size, Span},
};
use tokio::time::timeout;

use super::{
    broker::Broker,
    support::{TIMEOUT, Topic, until},
};

fn options() -> Options {
    Options {
        partitions: 2,
        append_timeout: Span::from_secs(3),
        request_timeout: Span::from_secs(2),
        buffer: Size::mib(1),
        identity_interval: Span::from_millis(500),
        ..Options::default()
    }
}

/// Appends until one succeeds.
async fn first_append(log: &Kafka) -> Duration {
    let began = Instant::now();
    until("an append succeeds", async || log.append(0, 1, Bytes::from_static(b"again")).await.ok()).await;
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_crashes_and_hangs_costs_time_and_no_record() {
    let mut broker = tokio::task::spawn_blocking(|| Broker::start(None)).await.unwrap();
    let topic = Topic::at(&broker.address());
    let log = Arc::new(topic.made(&options()).await);
    let mut changes = log.join().await.unwrap();
    let Some(Change::Assigned(mut lanes)) = timeout(TIMEOUT, changes.recv()).await.unwrap() else { panic!() };
    lanes.sort_unstable();
    assert_eq!(lanes, [0, 1]);
    // Whatever else the group decides while its broker is away: this member stays the only one.
    let following = tokio::spawn(async move {
        while let Some(change) = changes.recv().await {
            if let Change::Revoked { released, .. } = change {
                let _ = released.send(());
            }
        }
    });
    let mut acknowledged = vec![log.append(0, 1, Bytes::from_static(b"before")).await.unwrap().seq.unwrap()];
    let mut cursor = log.open(0, Seq(0), None).await.unwrap();
    assert_eq!(timeout(TIMEOUT, cursor.next()).await.unwrap().unwrap()[0].seq, Seq(0));

    // Crashed: the answer comes when the deadline is over, and says what is known.
    broker.kill();
    let began = Instant::now();
    let big = Bytes::from(vec![1; 300 << 10]);
    let failing: Vec<_> = (0..8)
        .map(|_| {
            let (log, big) = (log.clone(), big.clone());
            tokio::spawn(async move { log.append(1, 1, big).await.unwrap_err() })
        })
        .collect();
    let mut kinds = Vec::new();
    for failing in failing {
        kinds.push(failing.await.unwrap().kind);
    }
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    // Three of them fill the bound of 1 MiB; what never left this process was certainly not appended.
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::Transient).count(), 3, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::Permanent).count(), 5, "{kinds:?}");
    assert_eq!(log.check().await.unwrap_err().kind, Kind::Transient);
    assert_eq!(log.bounds(0).await.unwrap_err().kind, Kind::Transient);

    let broker = tokio::task::spawn_blocking(move || {
        broker.restart();
        broker
    })
    .await
    .unwrap();
    let recovered = first_append(&log).await;
    assert!(recovered < Duration::from_secs(5), "appends go on {recovered:?} after the broker is back");
    acknowledged.push(log.append(0, 1, Bytes::from_static(b"after")).await.unwrap().seq.unwrap());
    until("the check is content", async || log.check().await.ok()).await;

    // Hung: nothing answers, nothing refuses.
    broker.signal("-STOP");
    let began = Instant::now();
    let error = log.append(0, 1, Bytes::from_static(b"perhaps")).await.unwrap_err();
    assert_eq!(error.kind, Kind::Transient, "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    broker.signal("-CONT");
    first_append(&log).await;

    // What was acknowledged is read in order. The group may have gone on without this member for a while; then its lanes
    // were lost, and are opened again as they were assigned again.
    let last = log.append(0, 1, Bytes::from_static(b"last")).await.unwrap().seq.unwrap();
    acknowledged.push(last);
    let mut read = vec![Seq(0)];
    let reading = async {
        while *read.last().unwrap() < last {
            let error = match cursor.next().await {
                Ok(records) => {
                    read.extend(records.iter().map(|record| record.seq));
                    continue;
                }
                Err(error) => error,
            };
            assert_eq!(error.kind, Kind::Transient, "{error}");
            let next = read.last().unwrap().next();
            cursor = until("the lane can be opened", async || log.open(0, next, None).await.ok()).await;
        }
    };
    timeout(TIMEOUT, reading).await.expect("the lane goes on");
    let expected: Vec<Seq> = (0..=last.0).map(Seq).collect();
    assert_eq!(read, expected);
    assert!(acknowledged.iter().all(|seq| read.contains(seq)));
    drop((cursor, log));
    following.await.unwrap();
    topic.forget();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_whose_bytes_have_changed_on_disk_is_delivered_as_damaged() {
    const MARK: &[u8] = b"this will be changed on the disk";
    let broker = tokio::task::spawn_blocking(|| Broker::start(None)).await.unwrap();
    let topic = Topic::at(&broker.address());
    let log = topic.made(&options()).await;
    for n in 0..10_u8 {
        let payload = if n == 4 || n == 9 { Bytes::from_static(MARK) } else { Bytes::from(vec![n; 100]) };
        log.append(0, 1, payload).await.unwrap();
    }
    let name = topic.name.clone();
    // Shut down in good order: a broker that has crashed looks at its files, and cuts them.
    let broker = tokio::task::spawn_blocking(move || {
        let mut broker = broker;
        broker.shut_down();
        let file = fs::read_dir(broker.partition_dir(&name, 0))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.extension().is_some_and(|extension| extension == "log"))
            .unwrap();
        let mut bytes = fs::read(&file).unwrap();
        let marks: Vec<usize> =
            (0..bytes.len() - MARK.len()).filter(|at| &bytes[*at..*at + MARK.len()] == MARK).collect();
        assert_eq!(marks.len(), 2);
        for mark in marks {
            bytes[mark] = b'T';
        }
        fs::write(&file, bytes).unwrap();
        broker.restart();
        broker
    })
    .await
    .unwrap();
    let judge = |records: &[tallymark::log::Record]| {
        for (record, n) in records.iter().zip(0..) {
            let damaged = n == 4 || n == 9;
            assert_eq!((record.seq, record.damage.is_some()), (Seq(n), damaged), "{record:?}");
            if damaged {
                assert_eq!(&record.payload[1..], &MARK[1..], "whole, as it is now");
                assert!(record.damage.as_ref().unwrap().contains("checksum"));
            }
        }
    };
    // Read as such, and through a cursor.
    let records = until("it can be read", async || {
        let mut records = log.read(0, Seq(0), 1 << 20).await.ok()?;
        while records.len() < 10 {
            records.extend(log.read(0, Seq(records.len() as u64), 1 << 20).await.ok()?);
        }
        Some(records)
    })
    .await;
    judge(&records);
    let mut cursor = log.open(0, Seq(0), None).await.unwrap();
    let mut records = Vec::new();
    let reading = async {
        while records.len() < 10 {
            records.extend(cursor.next().await.unwrap());
        }
    };
    timeout(TIMEOUT, reading).await.expect("the cursor gets past what is damaged");
    judge(&records);
    drop((cursor, log, broker));
    topic.forget();
}
