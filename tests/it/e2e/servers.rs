//! The real binary on the real servers: roles apart, killed in the middle, read by HTTP, by plain CQL and by Kafka's own tool.

use std::{process::Command, time::Instant};

use super::{
    access_log,
    place::{PARTITIONS, Place},
    process::{PATIENCE, tallymark, wait_until},
};
use crate::{stack, support_scylla};

mod audit;
mod dead_letters;
mod kafka_away;
mod kills;
mod leaving;
mod redis_away;
mod start;
mod store_away;
mod topic;

/// What a user who knows the tables would ask: the whole counter, over the rows that the lanes keep of it.
async fn total_by_cql(place: &Place, counter: &str) -> i64 {
    let epochs = format!("SELECT epoch FROM {}.epochs WHERE topic = '{}'", place.keyspace, place.topic);
    let epochs: Vec<(Vec<u8>,)> = support_scylla::rows(&epochs).await;
    let [(epoch,)] = &epochs[..] else { panic!("one epoch: {epochs:?}") };
    let epoch: String = epoch.iter().map(|byte| format!("{byte:02x}")).collect();
    let total = format!(
        "SELECT sum(CAST(total AS bigint)) FROM {}.counter_totals WHERE namespace = 'default' \
         AND shard IN (-1, -2, -3, -4) AND epoch = 0x{epoch} AND counter = '{counter}' AND series = ''",
        place.keyspace
    );
    let rows: Vec<(i64,)> = support_scylla::rows(&total).await;
    rows[0].0
}

#[test]
fn an_access_log_sent_twice_through_kafka_into_cql_equals_the_recount_though_each_role_is_killed() {
    let place = Place::new().made();
    let (ingest, workers) = (place.start("ingest"), [place.start("worker"), place.start("worker")]);
    let file = access_log::file();
    let sending = ["send", file.to_str().unwrap(), "--format", "combined", "--url", &ingest.url];
    let mut slowly = tallymark(&[&sending[..], &["--batch", "20", "--timeout", "1s"]].concat());
    let mut sender = slowly.stderr(std::process::Stdio::null()).stdout(std::process::Stdio::null()).spawn().unwrap();
    wait_until("some of it has arrived", || ingest.stored("requests").is_some_and(|total| total > 300));
    let [first, second] = workers;
    first.kill();
    ingest.kill();
    let deadline = Instant::now() + PATIENCE;
    let code = loop {
        if let Some(status) = sender.try_wait().unwrap() {
            break status.code();
        }
        assert!(Instant::now() < deadline, "the sender does not give up");
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    };
    assert_eq!(code, Some(3), "the ingest could not be reached any more");

    // Another ingest, and the worker that is left takes the lanes of the other over.
    let ingest = place.start("ingest");
    let truth = access_log::recount();
    for _ in 0..2 {
        let (code, _, stderr) = access_log::send(&ingest);
        assert_eq!(code, 0, "{stderr}");
        access_log::assert_equals_the_recount(&ingest, &truth);
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    assert_eq!(runtime.block_on(total_by_cql(&place, "requests")), truth.requests);
    assert_eq!(runtime.block_on(total_by_cql(&place, "response_bytes")), truth.bytes);
    kafka_s_own_tool_sees_no_lag(&place);
    assert!(second.stop().success());
    assert!(ingest.stop().success());
}

/// Within the checkpoint's delay and five seconds of our own zero, every partition's committed offset is its end.
fn kafka_s_own_tool_sees_no_lag(place: &Place) {
    let described = || {
        let described = Command::new(stack::java())
            .args(["-cp", &stack::kafka_classpath(), "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"])
            .args(["--bootstrap-server", &stack::kafka(), "--describe", "--group", &place.topic])
            .output()
            .expect("java runs");
        assert!(described.status.success(), "{}", String::from_utf8_lossy(&described.stderr));
        String::from_utf8(described.stdout).unwrap()
    };
    wait_until("Kafka's own tool sees no lag", || {
        let text = described();
        // GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG …
        let lanes: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|words| words.get(1) == Some(&place.topic.as_str()))
            .collect();
        // A partition that nobody has written to has no checkpoint, and nothing committed or 0.
        lanes.len() == PARTITIONS && lanes.iter().all(|words| words[5] == "0" || (words[3] == "-" && words[4] == "0"))
    });
}

#[test]
fn processes_share_one_hot_view_and_the_lanes_move_when_a_worker_leaves() {
    let place = Place::new().made();
    let (here, there) = (place.start("ingest"), place.start("ingest"));
    let (first, second) = (place.start("worker"), place.start("worker"));
    let increments =
        r#"[{"counter": "visits", "tags": {"k": "a"}, "id": "1"}, {"counter": "visits", "tags": {"k": "b"}}]"#;
    assert_eq!(here.post("/v1/increments", increments).0, 202);
    wait_until("the other ingest knows it from the hot view", || {
        let (status, answer) = there.get("/v1/counters/visits");
        status == 200 && answer["total"] == 2 && answer["source"] == "hot" && answer["stale"] == false
    });
    assert!(first.stop().success());
    // A retry of the first, and one more: the lanes have been taken over with their windows.
    let again = r#"[{"counter": "visits", "tags": {"k": "a"}, "id": "1"}, {"counter": "visits", "tags": {"k": "a"}, "id": "2"}]"#;
    assert_eq!(there.post("/v1/increments", again).0, 202);
    here.settle();
    assert_eq!(here.stored("visits"), Some(3));
    wait_until("the hot view has dropped what was a retry", || {
        there.get("/v1/counters/visits").1["total"] == 3 && here.get("/v1/counters/visits").1["total"] == 3
    });
    for server in [here, there, second] {
        assert!(server.stop().success());
    }
}
