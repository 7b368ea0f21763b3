//! The topic is another than before, while the program runs: made anew, or with more partitions than its epoch.

use serde_json::{Value, json};
use tallymark::{
    item::Epoch,
    store::{EpochRow, Ledger as _, scylla::Scylla},
};

use super::super::{
    place::Place,
    process::{Server, block_on, post_whole, wait_until},
};
use crate::{kafka::support::Topic, stack, support_scylla};

/// The topic of a place, for what an operator does to it with other tools.
fn topic_of(place: &Place) -> Topic {
    let topic = Topic::named(&stack::kafka(), &place.topic);
    topic.will_be_made();
    topic
}

/// Reasons of the lanes that have halted.
fn halted(worker: &Server) -> Vec<String> {
    let (_, lag) = worker.get_admin("/api/v1/lag");
    let lanes = lag["lanes"].as_array().unwrap().iter().filter(|lane| lane["status"] == "HALTED");
    lanes.map(|lane| lane["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

/// One item for each of many series, so that every lane gets some.
fn items(round: &str) -> String {
    let item = |n| json!({"counter": "c", "tags": {"key": format!("k{n}")}, "id": format!("{round}-{n}")});
    Value::from((0..40).map(item).collect::<Vec<_>>()).to_string()
}

#[test]
fn a_topic_that_was_made_anew_halts_its_lanes_and_ends_intake_and_both_say_what_to_do() {
    let place = Place::new().set("log.identity_interval=1s").made();
    let topic = topic_of(&place);
    let (ingest, worker) = (place.start("ingest"), place.start("worker"));
    let url = format!("{}/v1/increments", ingest.url);
    assert_eq!(post_whole(&url, &items("before")).unwrap().status, 202);
    ingest.settle_well();
    block_on(topic.delete());
    wait_until("it is made anew", || place.command(&["topic", "create"]).0 == 0);

    // From here on nothing that is acknowledged could be in the log that was opened.
    wait_until("every lane has halted", || {
        let answer = post_whole(&url, &items("meanwhile")).unwrap();
        assert_eq!(answer.status, 503, "{answer:?}");
        halted(&worker).len() == 4
    });
    for why in halted(&worker) {
        assert!(why.contains(&place.topic) && why.contains("begin a new log epoch"), "{why}");
    }
    assert_eq!(worker.get_admin("/api/v1/lag").1["status"], "HALTED");
    let (code, said) = worker.lag_check();
    assert!(code == 4 && said.contains("begin a new log epoch"), "{code}: {said}");

    wait_until("the ingest is not ready, and says what to do", || {
        let (status, _, log) = ingest.readiness("log");
        status == 503 && log["detail"].as_str().is_some_and(|why| why.contains("begin a new log epoch"))
    });
    for n in 0..10 {
        let answer = post_whole(&url, &items(&format!("after-{n}"))).unwrap();
        assert!(answer.status == 503 && answer.body["code"] == "log_unavailable", "{answer:?}");
        assert!(answer.retry_after.is_some() && answer.content_type == "application/problem+json", "{answer:?}");
        assert!(answer.body["detail"].as_str().unwrap().contains("nothing was accepted"), "{answer:?}");
    }
    // Totals stay what they were.
    assert_eq!(ingest.stored("c"), Some(40));

    // A worker that starts now knows the old life from the store.
    let later = place.start("worker");
    worker.kill();
    wait_until("its lanes halt too", || halted(&later).len() == 4);
    assert!(halted(&later).iter().all(|why| why.contains("recreated") && why.contains("begin a new log epoch")));
}

#[test]
fn partitions_that_were_added_stop_nothing_until_somebody_uses_them_without_an_epoch() {
    let place = Place::new().set("log.identity_interval=1s").made();
    let topic = topic_of(&place);
    let (ingest, worker) = (place.start("ingest"), place.start("worker"));
    let url = format!("{}/v1/increments", ingest.url);
    assert_eq!(post_whole(&url, &items("before")).unwrap().status, 202);
    block_on(topic.add_partitions(6));

    // Packs of the old layout are durable as before: no reason to turn clients away.
    for server in [&ingest, &worker] {
        wait_until("it says that the layout has changed, and what to do", || {
            let (status, answer, layout) = server.readiness("layout");
            assert_eq!(status, 200, "{answer}");
            let detail = layout["detail"].as_str().unwrap_or_default();
            answer["status"] == "degraded" && detail.contains("6 partitions") && detail.contains("epoch")
        });
    }
    assert_eq!(post_whole(&url, &items("old layout")).unwrap().status, 202);
    ingest.settle_well();
    assert_eq!(ingest.stored("c"), Some(80));

    // An ingest that is started now routes by the new counts, and no epoch has them.
    let place = place.set("log.partitions=0");
    let later = place.start("ingest");
    assert_eq!(post_whole(&format!("{}/v1/increments", later.url), &items("new layout")).unwrap().status, 202);
    wait_until("lanes halt", || !halted(&worker).is_empty());
    for why in halted(&worker) {
        assert!(why.contains("6 partitions") && why.contains("begin that epoch"), "{why}");
    }
    assert_eq!(worker.lag_check().0, 4);
    wait_until("the lanes that were added are shown as well", || {
        worker.get_admin("/api/v1/lag").1["lanes"].as_array().unwrap().len() == 6
    });
    // Nothing is lost: it is in the log. What is not applied is not called fresh.
    assert_eq!(post_whole(&url, &items("old layout again")).unwrap().status, 202);
    assert_eq!(ingest.get("/v1/counters/c?consistency=stored").1["stale"], true);

    // The epoch is begun, and a worker started anew goes on.
    block_on(begin_epoch(&place, 6));
    worker.kill();
    let worker = place.start("worker");
    later.settle_well();
    assert_eq!(later.stored("c"), Some(160));
    assert_eq!(halted(&worker), Vec::<String>::new());
}

/// The epoch of a new layout, as an operator begins it.
async fn begin_epoch(place: &Place, partitions: u32) {
    let servers = support_scylla::servers(&support_scylla::url(&place.keyspace));
    let store = Scylla::open(&servers, &support_scylla::options()).await.unwrap();
    let former = store.epochs(&place.topic).await.unwrap().pop().unwrap();
    let epoch = Epoch::of(former.topic_id, partitions, former.shards);
    let row = EpochRow { epoch, partitions, created_ms: former.created_ms + 1, ..former };
    store.begin_epoch(&place.topic, &row).await.unwrap();
}
