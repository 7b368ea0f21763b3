//! `tallymark audit` on Kafka, a CQL store and Redis: rows changed by plain CQL and a hash changed by hand are found, exactly
//! those, and mended through the log; under load it finds nothing.

use serde_json::{Value, json};
use tallymark::{
    hot::{HotKey, HotKind, Options, redis::Redis},
    item::{SeriesRef, Shard, series_hash},
    url::HotUrl,
};

use super::super::{
    load::Load,
    place::Place,
    process::{block_on, wait_until},
};
use crate::{stack, support_scylla};

fn audit(place: &Place, flags: &[&str]) -> (i32, Value, String) {
    let (code, out, err) = place.command(&[&["audit", "--json"], flags].concat());
    (code, serde_json::from_str(&out).unwrap_or(Value::Null), err)
}

fn ask_redis(words: &[&[u8]]) -> redis::Value {
    block_on(async {
        let client = redis::Client::open(format!("redis://{}", stack::redis())).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        command.query_async(&mut connection).await.unwrap()
    })
}

#[test]
fn rows_changed_by_cql_and_a_hash_changed_by_hand_are_found_and_mended_and_load_is_no_drift() {
    let place = Place::new().made();
    let (ingest, worker) = (place.start("ingest"), place.start("worker"));
    let load = Load::start(&ingest, 2);
    load.goes_on_by(200);
    for _ in 0..3 {
        let (code, report, err) = audit(&place, &["--naive"]);
        assert_eq!((code, &report["clean"]), (0, &json!(true)), "under load: {report} {err}");
        load.goes_on_by(200);
    }
    let totals = load.finish();
    ingest.settle_well();
    // Somebody reads one series, so that the hot view has it.
    assert_eq!(ingest.get("/v1/counters/load").0, 200);
    wait_until("the hot view has it", || ingest.get("/v1/counters/load").1["source"] == "hot");

    let epochs = format!("SELECT epoch FROM {}.epochs WHERE topic = '{}'", place.keyspace, place.topic);
    let epoch: Vec<(Vec<u8>,)> = block_on(support_scylla::rows(&epochs));
    let epoch: String = epoch[0].0.iter().map(|byte| format!("{byte:02x}")).collect();
    let where_is = |tags: &str| {
        let key = SeriesRef { namespace: "default", counter: "load", tags }.to_key();
        let shard = Shard::of(series_hash(&key), 256).0;
        format!(
            "WHERE namespace = 'default' AND shard = {shard} AND epoch = 0x{epoch} AND counter = 'load' AND series = '{tags}'"
        )
    };
    let table = format!("{}.counter_totals", place.keyspace);
    // While the worker has the right ones in memory.
    block_on(async {
        support_scylla::run(&format!("UPDATE {table} SET total = 1 {}", where_is("key=k1"))).await;
        support_scylla::run(&format!("UPDATE {table} SET total = 1000000 {}", where_is("key=k2"))).await;
        support_scylla::run(&format!("DELETE FROM {table} {}", where_is("key=k3"))).await;
    });
    let url: HotUrl = format!("redis://{}", stack::redis()).parse().unwrap();
    let HotUrl::Redis { servers, .. } = url else { panic!() };
    let view =
        Redis::open(false, false, &servers, &Options { prefix: place.topic.clone(), ..Options::default() }).unwrap();
    let entry = HotKey {
        kind: HotKind::Counter,
        key: SeriesRef { namespace: "default", counter: "load", tags: "" }.to_key().into(),
    };
    let name = view.key_of(&entry);
    let redis::Value::Array(fields) = ask_redis(&[b"HKEYS", &name]) else { panic!() };
    let base = fields.iter().find_map(|field| match field {
        redis::Value::BulkString(field) if field.starts_with(b"b:") => Some(field.clone()),
        _ => None,
    });
    let base = base.expect("a lane has published its base");
    let redis::Value::BulkString(value) = ask_redis(&[b"HGET", &name, &base]) else { panic!() };
    let at = String::from_utf8(value).unwrap().split_once('@').unwrap().1.to_owned();
    ask_redis(&[b"HSET", &name, &base, format!("424242@{at}").as_bytes()]);

    let (code, report, err) = audit(&place, &["--naive"]);
    assert_eq!(code, 1, "{report} {err}");
    let mut found: Vec<_> = report["worst"]
        .as_array()
        .unwrap()
        .iter()
        .map(|drift| (drift["kind"].as_str().unwrap(), drift["tags"].as_str().unwrap_or("*"), drift["found"].as_i64()))
        .collect();
    found.sort_unstable();
    let expected = [
        ("doubled", "key=k2", Some(1_000_000)),
        ("hot", "*", Some(424_242)),
        ("lost", "key=k1", Some(1)),
        ("lost", "key=k3", None),
    ];
    assert_eq!(found, expected, "{report}");

    let (code, report, err) = audit(&place, &["--repair", "--yes"]);
    assert_eq!((code, report["counts"]["pending"].as_u64()), (1, Some(0)), "{report} {err}");
    ingest.settle_well();
    wait_until("it is clean again", || audit(&place, &[]).0 == 0);
    totals.assert_stored(&ingest);
    wait_until("the hot view tells the truth again", || {
        let (_, total) = ingest.get("/v1/counters/load");
        total["source"] == "hot" && total["total"] == ingest.stored("load").unwrap()
    });
    let (code, report, _) = audit(&place, &["--repair", "--yes"]);
    assert_eq!((code, &report["repairs"]), (0, &json!([])), "{report}");
    for server in [worker, ingest] {
        assert!(server.stop().success());
    }
}

#[test]
fn events_that_somebody_has_deleted_are_named() {
    let place = Place::new().set("worker.checkpoint_delay=0s").made();
    let (ingest, worker) = (place.start("ingest"), place.start("worker"));
    // In January 2026, the 672nd month.
    let (time, month) = (1_769_860_800_000_i64, 672);
    let event =
        |n| json!({"name": "signup", "subject": format!("user-{}", n % 7), "id": format!("e{n}"), "time": time});
    let events = Value::from((0..60).map(event).collect::<Vec<_>>()).to_string();
    assert_eq!(ingest.post("/v1/events", &events).0, 202);
    ingest.settle_well();
    wait_until("every event is covered and there", || {
        let (code, report, _) = audit(&place, &[]);
        code == 0 && report["counts"]["events"] == 60
    });
    let of = format!("{}.events WHERE namespace = 'default' AND name = 'signup' AND id = 'e3'", place.keyspace);
    let found: Vec<(i64, i32)> =
        block_on(support_scylla::rows(&format!("SELECT hour, shard FROM {of} ALLOW FILTERING")));
    let (hour, shard) = found[0];
    block_on(async {
        let keyspace = &place.keyspace;
        support_scylla::run(&format!(
            "DELETE FROM {keyspace}.events WHERE namespace = 'default' AND name = 'signup' AND hour = {hour} AND \
             shard = {shard} AND time = {time} AND id = 'e3'"
        ))
        .await;
        support_scylla::run(&format!(
            "DELETE FROM {keyspace}.events_by_subject WHERE namespace = 'default' AND subject = 'user-5' AND \
             month = {month} AND time = {time} AND id = 'e5' AND name = 'signup'"
        ))
        .await;
    });
    let (code, report, err) = audit(&place, &[]);
    let mut named: Vec<_> =
        report["worst"].as_array().unwrap().iter().map(|drift| (&drift["kind"], &drift["event"]["id"])).collect();
    named.sort_by_key(|(_, id)| id.as_str());
    let (lost, e3, e5) = (json!("lost"), json!("e3"), json!("e5"));
    assert_eq!((code, named), (1, vec![(&lost, &e3), (&lost, &e5)]), "{report} {err}");
    assert_eq!(audit(&place, &["--skip-events"]).0, 0);
    for server in [worker, ingest] {
        assert!(server.stop().success());
    }
}
