//! Records that no lane can apply, on the embedded backends: the lane goes on, the commands find them, and a replay counts once.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use serde_json::Value;
use tallymark::{
    data_dir,
    item::{Coordinates, Lane, PackId, Seq, SeriesRef, Shard, Stamp, series_hash},
    log::{self, Class, DeadLetter, Log, embedded::Embedded},
    pack::{FORMAT, Increments, Pack},
    store::{self, Letters, embedded::Embedded as Tables},
};

use super::process::{Server, block_on, get_text, output, tallymark, wait_until};

/// A pack of one increment of `mended`, for a partition, as an ingest of this layout would have made it.
pub fn pack_for(partition: u32, (partitions, shards): (u32, u32), amount: i64) -> Bytes {
    let mut keys = (0..).map(|n| {
        let tags = format!("k={n}");
        SeriesRef { namespace: "default", counter: "mended", tags: &tags }.to_key()
    });
    let here = |key: &Vec<u8>| Shard::of(series_hash(key), shards).partition(partitions) == partition;
    let key = keys.find(here).expect("some series is");
    let increments = Increments {
        key_lengths: vec![key.len() as u32],
        keys: key.into(),
        grains: vec![0],
        series: vec![0],
        amounts: vec![amount],
        times: vec![0],
        ids: Bytes::new(),
    };
    let pack = Pack {
        version: FORMAT,
        id: Bytes::copy_from_slice(&PackId::random().0),
        ingest: Bytes::from_static(&[3; 16]),
        receive_ms: tallymark::clock::now_ms(),
        partitions,
        shards,
        increments: Some(increments),
        ..Pack::default()
    };
    pack.encode_record()
}

/// Appends a pack that can be read, and says of it what a version of the program has said that could not read it.
pub async fn append_misread(log: &dyn Log, store: &dyn Letters, partition: u32, payload: Bytes) -> Seq {
    let topology = log.topology();
    let seq = log.append(partition, FORMAT, payload.clone()).await.unwrap().seq.unwrap();
    let at = Coordinates { lane: Lane { topic_id: topology.topic_id, partition }, seq };
    store.write_letter(&topology.topic, at, Stamp(1)).await.unwrap();
    let reason = "not a pack: as far as that version knew".to_owned();
    let letter = DeadLetter { at, append_ms: 1, format: FORMAT, class: Class::Malformed, reason, payload };
    log.dead_letters().unwrap().bury(&letter).await.unwrap();
    seq
}

/// The folder's log and store, while nobody runs.
fn opened(data: &Path) -> (Arc<dyn Log>, Tables) {
    let log = Embedded::open(&data_dir::log_in(data), "tallymark.packs", &log::Options::default()).unwrap();
    let store = Tables::open(&data_dir::store_in(data), &store::Options::default()).unwrap();
    (Arc::new(log), store)
}

/// `tallymark dead-letters …`, of an instance, or of the folder when none is named.
fn letters(data: &Path, admin: Option<&str>, words: &[&str]) -> (i32, String, String) {
    let embedded = format!("embedded:{}", data.display());
    let mut all = [&["dead-letters"], words, &["--log", &embedded, "--store", &embedded]].concat();
    // With nobody named: an address where nobody listens.
    all.extend(admin.map_or(["--admin-listen", "127.0.0.1:0"], |admin| ["--admin-url", admin]));
    output(&mut tallymark(&all))
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_record_that_cannot_be_read_is_passed_listed_and_shown_and_one_that_can_be_read_later_is_replayed_once() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    server.post("/v1/increments?ack=stored&timeout=20s", r#"{"counter": "c", "amount": 5}"#);
    assert!(server.stop().success());
    let (bad, misread) = {
        let (log, store) = opened(data.path());
        let garbage = Bytes::from_static(b"\xffno pack at all\n");
        let bad = block_on(log.append(1, FORMAT, garbage)).unwrap().seq.unwrap().0;
        (bad, block_on(append_misread(&*log, &store, 2, pack_for(2, (4, 256), 30))).0)
    };

    let server = Server::start(data.path(), &[]);
    for n in 0..40 {
        server.post("/v1/increments", &format!(r#"{{"counter": "c", "tags": {{"k": "{n}"}}}}"#));
    }
    server.settle_well();
    assert_eq!(server.stored("c"), Some(45), "the lanes go on behind them");
    assert_eq!(server.get("/v1/counters/mended").0, 404);
    let (_, metrics) = get_text(&format!("{}/metrics", server.admin)).unwrap();
    for line in [
        r#"tallymark_dead_letters_total{partition="1",reason="malformed"} 1"#,
        r#"tallymark_dead_letters_total{partition="2",reason="before"} 1"#,
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }

    wait_until("the overview counts them", || server.get_admin("/api/v1/overview").1["dead_letters"] == 2.0);

    let ask = |words: &[&str]| letters(data.path(), Some(&server.admin), words);
    let (code, out, err) = ask(&["list", "--json"]);
    assert_eq!(code, 0, "{err}");
    let listed = json(&out);
    let found: Vec<_> =
        listed["letters"].as_array().unwrap().iter().map(|letter| (&letter["partition"], &letter["seq"])).collect();
    assert_eq!(found, [(&Value::from(1), &Value::from(bad)), (&Value::from(2), &Value::from(misread))]);
    let (code, out, _) = ask(&["list", "--partition", "1"]);
    assert!(code == 0 && out.contains("malformed") && out.contains("not a pack") && out.lines().count() == 2, "{out}");
    assert_eq!(ask(&["list", "--reason", "damaged"]).1, "no dead letters\n");
    assert_eq!(ask(&["list", "--since", "1h", "--json"]).1, ask(&["list", "--json"]).1);
    assert_eq!(ask(&["list", "--until", "1h"]).1, "no dead letters\n");
    let (_, out, err) = ask(&["list", "--limit", "1", "--json"]);
    assert!(json(&out)["letters"].as_array().unwrap().len() == 1 && err.contains("--limit"), "{err}");

    let (code, out, _) = ask(&["show", "1", &bad.to_string()]);
    assert!(code == 0 && out.contains("reads as   nothing: not a pack") && out.contains("no pack at all"), "{out}");
    let (code, out, _) = ask(&["show", "2", &misread.to_string()]);
    assert!(code == 0 && out.contains("reads as   a pack of 1 items"), "{out}");
    let (code, _, err) = ask(&["show", "3", "999"]);
    assert!(code == 1 && err.contains("dead-letters list"), "{code}: {err}");

    let (code, out, _) = ask(&["replay", "--dry-run"]);
    assert!(code == 1 && out.ends_with("1 would be replayed, 0 replayed before, 1 left\n"), "{code}: {out}");
    assert_eq!(server.get("/v1/counters/mended").0, 404, "nothing was appended");
    let (code, out, _) = ask(&["replay"]);
    assert!(code == 1 && out.ends_with("1 replayed, 0 replayed before, 1 left\n"), "{code}: {out}");
    assert!(out.contains(&format!("partition 1 seq {bad}: left: not a pack")), "{out}");
    server.settle_well();
    assert_eq!(server.stored("mended"), Some(30));
    let (code, out, _) = ask(&["replay", "--partition", "2", "--seq", &misread.to_string(), "--json"]);
    let again = json(&out);
    assert!(code == 0 && again["summary"]["already"] == 1, "{again}");
    assert_eq!(again["letters"][0]["outcome"], "already_replayed");

    // With nobody running the folder answers, and takes a replay too; the lane drops it when it comes.
    server.kill();
    let folder = |words: &[&str]| letters(data.path(), None, words);
    let (code, out, err) = folder(&["list", "--json"]);
    assert!(code == 0 && err.contains("no running instance"), "{err}");
    assert_eq!(json(&out)["letters"].as_array().unwrap().len(), 2);
    let (code, _, err) = folder(&["replay", "--partition", "2"]);
    assert_eq!(code, 0, "{err}");
    let server = Server::start(data.path(), &[]);
    server.settle_well();
    assert_eq!((server.stored("c"), server.stored("mended")), (Some(45), Some(30)));
    let letters = server.get_admin("/api/v1/dead-letters").1;
    wait_until("it is told which pack has applied it", || letters["letters"][1]["replayed"]["seq"].is_u64());
}

#[test]
fn the_admin_port_tells_what_is_wrong_with_a_question_and_takes_no_replay_from_another_site() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    assert_eq!(server.get_admin("/api/v1/dead-letters").1["letters"], Value::Array(Vec::new()));
    for (query, code) in [("limit=0", "out_of_range"), ("reason=odd", "malformed"), ("colour=red", "unknown_parameter")]
    {
        let (status, problem) = server.get_admin(&format!("/api/v1/dead-letters?{query}"));
        assert_eq!((status, problem["code"].as_str()), (400, Some(code)), "{problem}");
    }
    let replay = format!("{}/api/v1/dead-letters/replay", server.admin);
    assert_eq!(super::process::post(&replay, "{}").unwrap().0, 200);
    let plain = block_on(async { reqwest::Client::new().post(&replay).body("{}").send().await.unwrap().status() });
    assert_eq!(plain, 415);
    assert_eq!(server.get("/api/v1/dead-letters").0, 404, "the public port has none of it");
}
