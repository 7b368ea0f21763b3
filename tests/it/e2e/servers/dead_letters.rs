//! Garbage in a partition of a real topic: the lane goes on, and the commands ask Kafka and the store themselves.

use std::time::Duration;

use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::{Value, json};
use tallymark::{
    log::{Options, kafka::Kafka},
    store::scylla::Scylla,
};

use super::super::{
    dead_letters::{append_misread, pack_for},
    place::{PARTITIONS, Place},
    process::{block_on, get_text, wait_until},
};
use crate::{
    kafka::support::{Topic, needs},
    stack, support_scylla,
};

/// What some other program sends to the topic, by mistake.
fn produce_garbage(topic: &Topic, partition: i32) {
    let producer: BaseProducer = topic.config().create().unwrap();
    let garbage = b"{\"not\": \"a pack\"}";
    producer.send(BaseRecord::<(), _>::to(&topic.name).partition(partition).payload(&garbage[..])).unwrap();
    producer.flush(Duration::from_secs(20)).unwrap();
}

fn items(round: &str) -> String {
    let item = |n| json!({"counter": "c", "tags": {"key": format!("k{n}")}, "id": format!("{round}-{n}")});
    Value::from((0..40).map(item).collect::<Vec<_>>()).to_string()
}

#[test]
fn garbage_in_a_partition_is_passed_and_what_an_older_program_could_not_read_is_replayed_once() {
    let place = Place::new().made();
    let topic = Topic::named(&stack::kafka(), &place.topic);
    topic.will_be_made();
    let (ingest, worker) = (place.start("ingest"), place.start("worker"));
    assert_eq!(ingest.post("/v1/increments", &items("before")).0, 202);
    ingest.settle_well();
    produce_garbage(&topic, 0);
    assert_eq!(ingest.post("/v1/increments", &items("after")).0, 202);
    ingest.settle_well();
    assert_eq!(ingest.stored("c"), Some(80), "the lane goes on behind it");
    let (_, metrics) = get_text(&format!("{}/metrics", worker.admin)).unwrap();
    assert!(metrics.contains(r#"tallymark_dead_letters_total{partition="0",reason="malformed"} 1"#), "{metrics}");

    let list = || {
        let (code, out, err) = place.command(&["dead-letters", "list", "--json"]);
        assert_eq!(code, 0, "{err}");
        serde_json::from_str::<Value>(&out).unwrap()["letters"].as_array().unwrap().clone()
    };
    let letters = list();
    assert!(letters.len() == 1 && letters[0]["partition"] == 0 && letters[0]["reason"] == "malformed", "{letters:?}");
    let seq = letters[0]["seq"].to_string();
    let (code, out, err) = place.command(&["dead-letters", "show", "0", &seq]);
    assert!(code == 0 && out.contains(r#"{"not": "a pack""#), "{out}{err}");
    let (code, out, err) = place.command(&["dead-letters", "replay"]);
    assert!(code == 1 && out.ends_with("0 replayed, 0 replayed before, 1 left\n"), "{out}{err}");

    // A pack that is fine, and that the program before this one could not read: so it said, in the store and in the topic.
    assert!(worker.stop().success());
    let misread = block_on(async {
        let servers = topic.servers();
        let options = Options { replication: 1, ..Options::default() };
        let log = Kafka::open(&servers, &options, &needs()).await.unwrap();
        let servers = support_scylla::servers(&support_scylla::url(&place.keyspace));
        let store = Scylla::open(&servers, &tallymark::store::Options::default()).await.unwrap();
        let counts = (PARTITIONS as u32, 256);
        append_misread(&log, &store, 1, pack_for(1, counts, 30)).await
    });
    let worker = place.start("worker");
    assert_eq!(ingest.post("/v1/increments", &items("later")).0, 202);
    ingest.settle_well();
    assert_eq!((ingest.stored("c"), ingest.get("/v1/counters/mended").0), (Some(120), 404));
    let letters = list();
    assert_eq!(letters.len(), 2, "each coordinates once: {letters:?}");
    assert_eq!((&letters[1]["seq"], &letters[1]["reason"]), (&json!(misread.0), &json!("malformed")));

    let one = ["dead-letters", "replay", "--partition", "1", "--seq", &misread.0.to_string()].map(str::to_owned);
    let one: Vec<&str> = one.iter().map(String::as_str).collect();
    for _ in 0..2 {
        let (code, out, err) = place.command(&one);
        assert_eq!(code, 0, "{out}{err}");
    }
    ingest.settle_well();
    assert_eq!(ingest.stored("mended"), Some(30));
    wait_until("it is told which pack has applied it", || list()[1]["replayed"]["seq"].is_u64());
    let (code, out, _) = place.command(&one);
    assert!(code == 0 && out.contains("replayed before"), "{out}");

    // Another worker, with another window, and the replay once more.
    worker.kill();
    let worker = place.start("worker");
    assert_eq!(ingest.post("/v1/increments", &items("last")).0, 202);
    ingest.settle_well();
    assert_eq!((ingest.stored("c"), ingest.stored("mended")), (Some(160), Some(30)));
    assert!(worker.stop().success());
}

#[test]
fn a_topic_without_its_dead_letters_is_refused_at_start_with_the_command_and_made_by_it() {
    let place = Place::new().made();
    let topic = Topic::named(&stack::kafka(), &place.topic);
    topic.will_be_made();
    block_on(topic.delete_dead());
    wait_until("it is seen to be missing", || place.command(&["topic", "check"]).0 == 1);
    let (code, err) = place.refused("worker");
    assert!(code == 1 && err.contains(&topic.dead()) && err.contains("`tallymark topic create`"), "{code}: {err}");
    let (code, out, err) = place.command(&["topic", "create"]);
    assert!(code == 0 && out.contains("is there already"), "{out}{err}");
    place.do_well(&["topic", "check"]);
    assert!(place.start("worker").stop().success());
}
