//! The topic is another than before, while the program runs: made anew, or with more partitions than its epoch.

use serde_json::{Value, json};

use super::super::{
    place::Place,
    process::{Server, block_on, output, post_whole, tallymark, wait_until},
};
use crate::{kafka::support::Topic, stack};

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

    // An ingest knows of it from the store alone, and so does whoever asks log and store themselves.
    let (code, said, _) = place.command(&["lanes", "--admin-listen", "127.0.0.1:0"]);
    assert!(code == 4 && said.contains("\n  tallymark lanes begin-epoch\n"), "{code}: {said}");
    let (code, said, why) = remedy(&later, &["begin-epoch"]);
    assert_eq!(code, 2, "nobody can be asked: {said}{why}");
    assert!(
        said.contains("Kept: what was stored of the old topic still counts.") && why.contains("--yes"),
        "{said}{why}"
    );
    assert_eq!(remedy(&later, &["begin-epoch", "--dry-run"]).0, 0);
    assert_eq!(halted(&later).len(), 4, "nothing was done yet");
    let (code, said, why) = remedy(&later, &["begin-epoch", "--yes", "--why", "the topic was deleted by mistake"]);
    assert_eq!(code, 0, "{said}{why}");

    // Nothing is restarted by hand: the worker's lanes begin, and the ingest opens the new topic by itself.
    wait_until("the lanes go on", || halted(&later).is_empty());
    let mut last = None;
    wait_until("the ingest takes items again", || {
        last = post_whole(&url, &items("anew")).map(|answer| answer.status);
        last == Some(202)
    });
    // Of what was refused while the topic changed some packs may be in the new one; sent again, all of it counts once.
    assert_eq!(post_whole(&url, &items("meanwhile")).unwrap().status, 202);
    wait_until("old and new count together", || ingest.stored("c") == Some(120));
    later.settle_well();
    assert_eq!(ingest.stored("c"), Some(120), "what was said not to be accepted is not there");
    // What was sent again is shown twice until the lanes have published that it counts once (law 8).
    wait_until("the hot view says so, too", || ingest.get("/v1/counters/c").1["total"] == 120);
    let (code, records, _) = remedy(&later, &["--records", "--json"]);
    let records: Value = serde_json::from_str(&records).unwrap();
    assert_eq!(code, 0);
    assert_eq!(
        (&records[0]["kind"], &records[0]["why"]),
        (&json!("epoch"), &json!("the topic was deleted by mistake"))
    );
    let (code, said, _) = remedy(&later, &["begin-epoch", "--yes"]);
    assert!(code == 0 && said.contains("there is nothing to do"), "{code}: {said}");
}

/// `tallymark lanes …` of a running process.
fn remedy(server: &Server, words: &[&str]) -> (i32, String, String) {
    output(&mut tallymark(&[&["lanes"], words, &["--admin-url", &server.admin]].concat()))
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
        assert!(why.contains("6 partitions") && why.contains("`tallymark lanes begin-epoch`"), "{why}");
    }
    assert_eq!(worker.lag_check().0, 4);
    wait_until("the lanes that were added are shown as well", || {
        worker.get_admin("/api/v1/lag").1["lanes"].as_array().unwrap().len() == 6
    });
    // Nothing is lost: it is in the log. What is not applied is not called fresh.
    assert_eq!(post_whole(&url, &items("old layout again")).unwrap().status, 202);
    assert_eq!(ingest.get("/v1/counters/c?consistency=stored").1["stale"], true);

    // The epoch is begun, and the lanes go on where they are.
    let (code, said, _) = remedy(&worker, &[]);
    assert!(code == 4 && said.contains("\n  tallymark lanes begin-epoch\n"), "{code}: {said}");
    let (code, said, why) = remedy(&worker, &["begin-epoch", "--yes"]);
    assert!(code == 0 && said.contains("the epoch of 6 partitions (256 shards) begins"), "{said}{why}");
    wait_until("the lanes go on", || halted(&worker).is_empty());
    later.settle_well();
    assert_eq!(later.stored("c"), Some(160));
    assert_eq!(later.get("/v1/counters/c").1["total"], 160);
    assert_eq!(remedy(&worker, &[]).0, 0);
    // Packs of both layouts go on side by side.
    assert_eq!(post_whole(&url, &items("old, once more")).unwrap().status, 202);
    assert_eq!(post_whole(&format!("{}/v1/increments", later.url), &items("new, once more")).unwrap().status, 202);
    wait_until("both count", || later.stored("c") == Some(240));
}

#[test]
fn records_that_were_deleted_past_the_checkpoint_halt_their_lane_until_the_loss_is_accepted() {
    let place = Place::new().made();
    let topic = topic_of(&place);
    let (ingest, worker) = (place.start("ingest"), place.start("worker"));
    let url = format!("{}/v1/increments", ingest.url);
    assert_eq!(post_whole(&url, &items("stored")).unwrap().status, 202);
    ingest.settle_well();
    assert!(worker.stop().success());
    // While nobody runs the lanes, the log loses what they need next; in one lane only.
    assert_eq!(post_whole(&url, &items("lost in one lane")).unwrap().status, 202);
    assert_eq!(post_whole(&url, &items("kept")).unwrap().status, 202);
    let lag = |server: &Server| server.get_admin("/api/v1/lag").1["lanes"].clone();
    wait_until("all of it is seen", || {
        lag(&ingest)
            .as_array()
            .unwrap()
            .iter()
            .all(|lane| lane["end"].as_u64() > lane["stored"].as_u64().map(|seq| seq + 2))
    });
    let stored = lag(&ingest)[1]["stored"].as_i64().unwrap();
    block_on(topic.remove_before(1, stored + 2));

    let worker = place.start("worker");
    wait_until("one lane has halted, and the others go on", || {
        let lanes = lag(&worker);
        let lanes = lanes.as_array().unwrap();
        halted(&worker).len() == 1 && lanes.iter().filter(|lane| lane["lag_packs"] == 0).count() == 3
    });
    let (code, said, _) = remedy(&worker, &[]);
    let command = said.lines().last().unwrap().trim().to_owned();
    // From the checkpoint on, which trails what is stored.
    let (begins, ends) = ("tallymark lanes accept-gap 1 ", format!("..{}", stored + 2));
    assert!(code == 4 && command.starts_with(begins) && command.ends_with(&ends), "{said}");
    // The ingest, where no lane runs, shows the same, and takes the command.
    wait_until("the ingest shows it", || lag(&ingest)[1]["status"] == "HALTED");
    assert_eq!(ingest.lag_check().0, 4);
    let words: Vec<&str> = command.split(' ').skip(2).collect();
    let (code, said, why) = remedy(&ingest, &[&words[..], &["--yes"]].concat());
    assert!(code == 0 && said.contains("Lost: 1 pack"), "{said}{why}");
    worker.settle_well();
    assert_eq!(remedy(&worker, &[]).0, 0);
    // What one pack of one lane carried is missing, and nothing else.
    let lost = 120 - ingest.stored("c").unwrap();
    assert!((1..40).contains(&lost), "{lost}");
    assert_eq!(post_whole(&url, &items("after")).unwrap().status, 202);
    wait_until("it goes on", || ingest.stored("c") == Some(160 - lost));
}
