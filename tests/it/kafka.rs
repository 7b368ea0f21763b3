//! The log on a real Kafka: what the contract cannot drive a remote log into, and the calls of `ffi.rs`.

pub mod broker;
mod crash;
mod group;
mod secure;
pub mod support;
mod topic;

use std::time::Duration;

use bytes::Bytes;
use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    types::RDKafkaErrorCode,
};
use tallymark::{
    item::Seq,
    log::{Bounds, Log as _, Options, kafka::ffi},
    retry::Kind,
    units::Span,
};
use tokio::time::{Instant, timeout};

use self::support::{TIMEOUT, Topic, until};

fn partitions(partitions: u32) -> Options {
    Options { partitions, ..Options::default() }
}

fn short(partitions: u32) -> Options {
    Options { partitions, identity_interval: Span::from_millis(300), ..Options::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_is_described_by_its_id_and_its_partitions() {
    let (one, other) = (Topic::new(), Topic::new());
    one.create_with(3, &[]).await;
    other.create_with(1, &[]).await;
    let client: BaseConsumer = one.config().create().unwrap();
    let describe = |name: &str| ffi::describe(client.client(), name, TIMEOUT);
    let (first, second) = (describe(&one.name).unwrap(), describe(&other.name).unwrap());
    assert_eq!((first.partitions, second.partitions), (3, 1));
    assert_ne!(first.topic_id, [0; 16]);
    assert_ne!(first.topic_id, second.topic_id);
    assert_eq!(describe(&one.name), Ok(first), "asked again");
    let missing = describe("test.this-is-no-topic");
    assert_eq!(missing, Err(RDKafkaErrorCode::UnknownTopicOrPartition));
    assert_eq!(describe("a\0b"), Err(RDKafkaErrorCode::InvalidArgument));
}

#[test]
fn nobody_who_answers_is_told_in_time() {
    let client: BaseConsumer = rdkafka::ClientConfig::new().set("bootstrap.servers", "127.0.0.1:1").create().unwrap();
    let began = Instant::now();
    assert!(ffi::describe(client.client(), "packs", Duration::from_millis(500)).is_err());
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_epochs_are_read_from_messages_and_set_in_positions() {
    let topic = Topic::new();
    let log = topic.made(&partitions(1)).await;
    log.append(0, 1, Bytes::from_static(b"first")).await.unwrap();
    let consumer: BaseConsumer = topic.config().set("group.id", "none").create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic.name, 0, rdkafka::Offset::Offset(0)).unwrap();
    assert_eq!(ffi::position_leader_epoch(&list, &topic.name, 0), None);
    ffi::set_leader_epoch(&mut list, &topic.name, 0, 0);
    assert_eq!(ffi::position_leader_epoch(&list, &topic.name, 0), Some(0));
    // What is not in the list is left alone.
    ffi::set_leader_epoch(&mut list, &topic.name, 7, 5);
    assert_eq!(ffi::position_leader_epoch(&list, &topic.name, 7), None);
    consumer.assign(&list).unwrap();
    let message = consumer.poll(TIMEOUT).unwrap().unwrap();
    assert_eq!(ffi::leader_epoch(&message), Some(0), "nobody but the first leader has led the partition");
    assert_eq!(log.read(0, Seq(0), 1).await.unwrap()[0].leader_epoch, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_made_anew_ends_cursors_and_appends_for_good() {
    let topic = Topic::new();
    let log = topic.made(&short(2)).await;
    for _ in 0..3 {
        log.append(0, 1, Bytes::from_static(b"old")).await.unwrap();
    }
    let mut cursor = log.open(0, Seq(0), None).await.unwrap();
    let mut read = 0;
    while read < 3 {
        read += timeout(TIMEOUT, cursor.next()).await.unwrap().unwrap().len();
    }
    topic.delete().await;
    until("the topic is made again", async || topic.create(&short(2)).await.ok()).await;
    let error = loop {
        match timeout(TIMEOUT, cursor.next()).await.expect("the cursor is told") {
            Err(error) if error.kind == Kind::Fatal => break error,
            // Until two looks have missed it, a topic that is gone may be a broker that has just started.
            Err(_) => {}
            Ok(records) => panic!("{records:?} are not of this log"),
        }
    };
    let text = error.to_string();
    assert!(text.contains("begin a new log epoch"), "{text}");
    let refused = log.append(0, 1, Bytes::from_static(b"new")).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Permanent, "{refused}");
    assert_eq!(log.check().await.unwrap_err().kind, Kind::Fatal);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_by_a_topic_that_was_made_anew_however_seldom_it_is_looked_at() {
    let topic = Topic::new();
    let seldom = Options { partitions: 2, identity_interval: Span::from_secs(3600), ..Options::default() };
    let log = topic.made(&seldom).await;
    for _ in 0..3 {
        log.append(0, 1, Bytes::from_static(b"old")).await.unwrap();
    }
    topic.delete().await;
    until("the topic is made again", async || topic.create(&seldom).await.ok()).await;
    let refused = log.append(0, 1, Bytes::from_static(b"to another log")).await.unwrap_err();
    assert_ne!(refused.kind, Kind::Fatal, "{refused}");
    let text = until("it is known for good", async || {
        let refused = log.append(0, 1, Bytes::from_static(b"never")).await.unwrap_err();
        (refused.kind == Kind::Permanent).then(|| refused.to_string())
    });
    let text = text.await;
    assert!(text.contains("made anew"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn added_partitions_are_reported_and_readable_and_appends_go_on_in_the_old_layout() {
    let topic = Topic::new();
    let log = topic.made(&short(2)).await;
    log.check().await.unwrap();
    topic.add_partitions(3).await;
    assert_eq!(log.partitions(), 2);
    // Not at once: it is looked for every `identity_interval`, and by every check.
    until("the added one is known", async || {
        log.check().await.unwrap();
        (log.partitions() == 3).then_some(())
    })
    .await;
    log.append(1, 1, Bytes::from_static(b"still")).await.unwrap();
    assert_eq!(log.append(2, 1, Bytes::new()).await.unwrap_err().kind, Kind::Permanent);
    assert_eq!(log.bounds(2).await.unwrap(), Bounds { start: Seq(0), end: Seq(0) });
    assert_eq!(log.topology().partitions, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_retention_has_removed_is_gone_for_reads_and_cursors() {
    let topic = Topic::new();
    let log = topic.made(&partitions(1)).await;
    let body = Bytes::from(vec![7; 100_000]);
    for _ in 0..60 {
        log.append(0, 1, body.clone()).await.unwrap();
    }
    let mut behind = log.open(0, Seq(0), None).await.unwrap();
    let first = timeout(TIMEOUT, behind.next()).await.unwrap().unwrap();
    assert!(first.len() < 60, "the reader is bounded: {}", first.len());
    topic.remove_before(0, 50).await;
    assert_eq!(log.bounds(0).await.unwrap(), Bounds { start: Seq(50), end: Seq(60) });
    assert!(log.read(0, Seq(49), 1).await.unwrap_err().gone);
    assert!(log.open(0, Seq(49), None).await.err().unwrap().gone);
    let gone = async {
        loop {
            if let Err(error) = behind.next().await {
                break error;
            }
        }
    };
    let gone = timeout(TIMEOUT, gone).await.unwrap();
    assert!(gone.gone, "{gone}");
    assert_eq!(log.read(0, Seq(50), 1).await.unwrap()[0].payload, body);
    let mut after = log.open(0, Seq(50), None).await.unwrap();
    assert_eq!(timeout(TIMEOUT, after.next()).await.unwrap().unwrap()[0].seq, Seq(50));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_with_its_producers_time_is_delivered_as_damaged() {
    let topic = Topic::new();
    let log = topic.made(&partitions(1)).await;
    log.append(0, 1, Bytes::from_static(b"stamped by the log")).await.unwrap();
    let admin = topic.admin();
    let mut config = rdkafka::admin::AlterConfig::new(rdkafka::admin::ResourceSpecifier::Topic(&topic.name));
    config = config.set("message.timestamp.type", "CreateTime");
    admin.alter_configs([&config], &rdkafka::admin::AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let damaged = until("a record has another clock's time", async || {
        let seq = log.append(0, 1, Bytes::from_static(b"stamped by its producer")).await.unwrap().seq.unwrap();
        log.read(0, seq, 1).await.unwrap().remove(0).damage
    })
    .await;
    assert!(damaged.contains("message.timestamp.type"), "{damaged}");
    let mut cursor = log.open(0, Seq(0), None).await.unwrap();
    assert_eq!(timeout(TIMEOUT, cursor.next()).await.unwrap().unwrap()[0].damage, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pack_that_is_too_large_is_certainly_not_appended() {
    let topic = Topic::new();
    let log = topic.made(&partitions(1)).await;
    let error = log.append(0, 1, Bytes::from(vec![0; 5 << 20])).await.unwrap_err();
    assert_eq!(error.kind, Kind::Permanent);
    assert!(error.to_string().contains("max.message.bytes"), "{error}");
    assert_eq!(log.append(0, 1, Bytes::new()).await.unwrap().seq, Some(Seq(0)), "nothing was appended before it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_append_after_opening_is_fast() {
    let topic = Topic::new();
    let mut firsts = Vec::new();
    for _ in 0..5 {
        let log = topic.made(&partitions(4)).await;
        let began = Instant::now();
        log.append(3, 1, Bytes::from_static(b"first")).await.unwrap();
        firsts.push(began.elapsed());
    }
    // A producer that has no id yet asks for it every half second.
    assert!(firsts.iter().all(|first| *first < Duration::from_millis(250)), "the first appends took {firsts:?}");
}
