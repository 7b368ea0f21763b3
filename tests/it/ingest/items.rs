//! What an item may be: every row of its limits, at the limit and beyond it.

use serde_json::{Value, json};
use tallymark::{
    clock,
    ingest::Options,
    item::{Grains, IdScope, SeriesRef},
    units::Span,
};

use super::Rig;

const INCREMENTS: &str = "/v1/increments";
const EVENTS: &str = "/v1/events";

fn long(bytes: usize) -> String {
    "x".repeat(bytes)
}

fn tags(count: usize) -> Value {
    (0..count).map(|n| (format!("t{n}"), json!("v"))).collect::<serde_json::Map<_, _>>().into()
}

fn nested(depth: usize) -> String {
    format!("{}{}", "{\"a\":".repeat(depth - 1) + "{}", "}".repeat(depth - 1))
}

fn properties_of(bytes: usize) -> String {
    format!("{{\"a\":\"{}\"}}", long(bytes - 8))
}

/// `{"counter": "c", FIELD: VALUE}` as text, so that a case can say what JSON values cannot.
fn increment(field: &str, value: &str) -> String {
    if field == "counter" {
        format!("{{\"counter\":{value}}}")
    } else {
        format!("{{\"counter\":\"c\",\"{field}\":{value}}}")
    }
}

fn event(field: &str, value: &str) -> String {
    if field == "name" { format!("{{\"name\":{value}}}") } else { format!("{{\"name\":\"n\",\"{field}\":{value}}}") }
}

fn text(value: &str) -> String {
    json!(value).to_string()
}

#[tokio::test]
async fn every_value_at_its_limit_is_accepted() {
    let rig = Rig::new();
    let now = clock::now_ms();
    let day = 86_400_000;
    let increments = [
        ("counter", text("a")),
        ("counter", text("_A9_.:/-")),
        ("counter", text(&long(128))),
        ("counter", "\"\\u0061b\"".to_owned()),
        ("tags", "{}".to_owned()),
        ("tags", tags(16).to_string()),
        ("tags", json!({long(64): long(256)}).to_string()),
        ("tags", json!({"k": ""}).to_string()),
        ("tags", json!({"k": "é".repeat(128)}).to_string()),
        ("tags", json!({"k": "a,b\\c=\"d\""}).to_string()),
        ("amount", "0".to_owned()),
        ("amount", "-1".to_owned()),
        ("amount", i64::MAX.to_string()),
        ("amount", i64::MIN.to_string()),
        ("time", "0".to_owned()),
        ("time", "-1".to_owned()),
        ("time", (now + day - 60_000).to_string()),
        ("time", text("2026-01-31T12:00:00Z")),
        ("time", text("2026-01-31T12:00:00.123456789+01:30")),
        ("time", text("0000-01-01T00:00:00Z")),
        ("id", text("i")),
        ("id", text(&long(128))),
        ("id", text(&"é".repeat(64))),
    ];
    for (field, value) in increments {
        let body = increment(field, &value);
        let answer = rig.post(INCREMENTS, &[], body.clone()).await;
        assert_eq!(answer.status, 202, "{body}: {answer:?}");
    }
    let events = [
        ("name", text(&long(256))),
        ("name", text("é ü")),
        ("subject", text(&long(256))),
        ("time", "1769860800000".to_owned()),
        ("id", text(&long(128))),
        ("properties", "{}".to_owned()),
        ("properties", nested(32)),
        ("properties", properties_of(32 << 10)),
        ("properties", "{\"a\":1,\"a\":1e999,\"b\":\"\\ud800\"}".to_owned()),
    ];
    for (field, value) in events {
        let body = event(field, &value);
        let answer = rig.post(EVENTS, &[], body.clone()).await;
        assert_eq!(answer.status, 202, "{body}: {answer:?}");
    }
}

#[tokio::test]
async fn every_value_beyond_its_limit_is_refused_with_its_field_and_code() {
    let rig = Rig::new();
    let beyond_a_day = (clock::now_ms() + 86_400_000 + 60_000).to_string();
    let increments = [
        ("counter", text(""), "counter", "empty"),
        ("counter", text(&long(129)), "counter", "too_long"),
        ("counter", text("1a"), "counter", "malformed"),
        ("counter", text("a b"), "counter", "malformed"),
        ("counter", text("é"), "counter", "malformed"),
        ("counter", "1".to_owned(), "counter", "wrong_type"),
        ("counter", "null".to_owned(), "counter", "wrong_type"),
        ("counter", "\"\\ud800\"".to_owned(), "counter", "malformed"),
        ("tags", tags(17).to_string(), "tags", "too_many"),
        ("tags", "null".to_owned(), "tags", "wrong_type"),
        ("tags", "[]".to_owned(), "tags", "wrong_type"),
        ("tags", text("a=b"), "tags", "wrong_type"),
        ("tags", json!({"": "v"}).to_string(), "tags.", "empty"),
        ("tags", json!({long(65): "v"}).to_string(), "", "too_long"),
        ("tags", json!({"a/b": "v"}).to_string(), "tags.a/b", "malformed"),
        ("tags", json!({"k": long(257)}).to_string(), "tags.k", "too_long"),
        ("tags", json!({"k": "a\nb"}).to_string(), "tags.k", "malformed"),
        ("tags", json!({"k": "\u{85}"}).to_string(), "tags.k", "malformed"),
        ("tags", json!({"k": "\u{7f}"}).to_string(), "tags.k", "malformed"),
        ("tags", json!({"k": 1}).to_string(), "tags.k", "wrong_type"),
        ("tags", json!({"k": null}).to_string(), "tags.k", "wrong_type"),
        ("tags", json!({"k": {}}).to_string(), "tags.k", "wrong_type"),
        ("tags", "{\"k\":\"a\",\"k\":\"a\"}".to_owned(), "tags.k", "repeated_field"),
        ("amount", "9223372036854775808".to_owned(), "amount", "out_of_range"),
        ("amount", "-9223372036854775809".to_owned(), "amount", "out_of_range"),
        ("amount", "1.0".to_owned(), "amount", "not_an_integer"),
        ("amount", "1e3".to_owned(), "amount", "not_an_integer"),
        ("amount", "1e999".to_owned(), "amount", "not_an_integer"),
        ("amount", text("1"), "amount", "wrong_type"),
        ("amount", "null".to_owned(), "amount", "wrong_type"),
        ("amount", "true".to_owned(), "amount", "wrong_type"),
        ("time", beyond_a_day, "time", "out_of_range"),
        ("time", i64::MIN.to_string(), "time", "out_of_range"),
        ("time", "99999999999999999999".to_owned(), "time", "out_of_range"),
        ("time", text("2026-01-31"), "time", "malformed"),
        ("time", text("2026-02-30T00:00:00Z"), "time", "malformed"),
        ("time", text("2026-01-31T12:00:00"), "time", "malformed"),
        ("time", text("1769860800000"), "time", "malformed"),
        ("time", text(""), "time", "malformed"),
        ("time", "1.5".to_owned(), "time", "not_an_integer"),
        ("time", "null".to_owned(), "time", "wrong_type"),
        ("id", text(""), "id", "empty"),
        ("id", text(&long(129)), "id", "too_long"),
        ("id", "7".to_owned(), "id", "wrong_type"),
        ("id", "null".to_owned(), "id", "wrong_type"),
        ("value", "1".to_owned(), "value", "unknown_field"),
        ("Counter", text("c"), "Counter", "unknown_field"),
        ("counter\":\"c\",\"amount\":1,\"amount", "1".to_owned(), "counter", "repeated_field"),
        ("amount\":1,\"\\u0061mount", "1".to_owned(), "amount", "repeated_field"),
    ];
    for (name, value, field, code) in increments {
        refused(&rig, INCREMENTS, &increment(name, &value), field, code).await;
    }
    let events = [
        ("name", text(""), "name", "empty"),
        ("name", text(&long(257)), "name", "too_long"),
        ("name", text("a\u{0}b"), "name", "malformed"),
        ("name", "[]".to_owned(), "name", "wrong_type"),
        ("subject", text(""), "subject", "empty"),
        ("subject", text(&long(257)), "subject", "too_long"),
        ("subject", text("a\tb"), "subject", "malformed"),
        ("subject", "null".to_owned(), "subject", "wrong_type"),
        ("time", text("now"), "time", "malformed"),
        ("id", text(&long(129)), "id", "too_long"),
        ("properties", "[]".to_owned(), "properties", "wrong_type"),
        ("properties", "null".to_owned(), "properties", "wrong_type"),
        ("properties", text("{}"), "properties", "wrong_type"),
        ("properties", nested(33), "properties", "too_deep"),
        ("properties", properties_of((32 << 10) + 1), "properties", "too_long"),
        ("properties\":{},\"properties", "{}".to_owned(), "properties", "repeated_field"),
        ("counter", text("c"), "counter", "unknown_field"),
    ];
    for (name, value, field, code) in events {
        refused(&rig, EVENTS, &event(name, &value), field, code).await;
    }
    for (path, body, field, code) in [
        (INCREMENTS, "{}", "counter", "missing"),
        (EVENTS, "{}", "name", "missing"),
        (INCREMENTS, "[1]", "", "wrong_type"),
        (INCREMENTS, "[null]", "", "wrong_type"),
        (INCREMENTS, "[[]]", "", "wrong_type"),
        (EVENTS, "[\"a\"]", "", "wrong_type"),
    ] {
        refused(&rig, path, body, field, code).await;
    }
    assert!(rig.stop().await.packs().is_empty(), "nothing of a refused request is accepted");
}

/// Alone, among good items, and with `partial=true`. A `field` of "" is not compared when the code says enough.
async fn refused(rig: &Rig, path: &str, body: &str, field: &str, code: &str) {
    let answer = rig.post(path, &[], body.to_owned()).await;
    answer.is_problem(400, "invalid_items");
    let errors = answer.json["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{body}: {errors:?}");
    assert_eq!(errors[0]["code"], code, "{body}: {errors:?}");
    assert_eq!(errors[0]["index"], 0);
    assert!(!errors[0]["message"].as_str().unwrap().is_empty());
    if !field.is_empty() {
        assert_eq!(errors[0]["field"], field, "{body}: {errors:?}");
    }
    if !body.starts_with('[') {
        let good = if path == INCREMENTS { "{\"counter\":\"c\"}" } else { "{\"name\":\"n\"}" };
        let answer = rig.post(path, &[], format!("[{good},{good},{body},{good}]")).await;
        answer.is_problem(400, "invalid_items");
        let errors = answer.json["errors"].as_array().unwrap();
        assert_eq!((errors.len(), &errors[0]["index"], &errors[0]["code"]), (1, &json!(2), &json!(code)), "{body}");
    }
}

#[tokio::test]
async fn an_item_may_be_as_old_as_max_age_and_no_older() {
    let rig = Rig::with(Options { max_age: Span::from_secs(3600), ..Options::default() });
    let now = clock::now_ms();
    rig.post(INCREMENTS, &[], increment("time", &(now - 3_500_000).to_string())).await.is_accepted(1);
    refused(&rig, INCREMENTS, &increment("time", &(now - 3_700_000).to_string()), "time", "out_of_range").await;
}

#[tokio::test]
async fn the_first_hundred_errors_are_listed() {
    let rig = Rig::new();
    let body = format!("[{}]", vec!["{\"counter\":\"c\",\"amount\":\"1\"}"; 150].join(","));
    let answer = rig.post(INCREMENTS, &[], body).await;
    answer.is_problem(400, "invalid_items");
    let errors = answer.json["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 100);
    assert!(errors.iter().enumerate().all(|(at, error)| error["index"] == at));
    assert!(answer.json["detail"].as_str().unwrap().starts_with("150 of 150 items"));
}

#[tokio::test]
async fn partial_accepts_the_valid_items_and_names_every_other() {
    let rig = Rig::new();
    let bad = "{\"counter\":\"c\",\"amount\":1.5}";
    let body = format!("[{{\"counter\":\"a\"}},{},{{\"counter\":\"b\"}}]", vec![bad; 150].join(","));
    let answer = rig.post("/v1/increments?partial=true", &[], body).await;
    answer.is_accepted(2);
    let rejected = answer.json["rejected"].as_array().unwrap();
    assert_eq!(rejected.len(), 150);
    assert_eq!(rejected[0]["index"], 1);
    assert_eq!(rejected[0]["field"], "amount");
    assert_eq!(rejected[0]["code"], "not_an_integer");

    let answer = rig.post("/v1/increments?partial=true", &[], "[{\"counter\":\"a\"}]").await;
    answer.is_accepted(1);
    assert_eq!(answer.json["rejected"], json!([]));

    rig.post("/v1/increments?partial=true", &[], format!("[{bad}]")).await.is_problem(400, "invalid_items");
    let broken = "[{\"counter\":\"a\"},{\"counter\":\"b\"";
    rig.post("/v1/increments?partial=true", &[], broken).await.is_problem(400, "malformed_json");
    rig.post("/v1/increments?partial=false", &[], format!("[{{\"counter\":\"a\"}},{bad}]"))
        .await
        .is_problem(400, "invalid_items");
}

#[tokio::test]
async fn a_bad_line_is_rejected_alone() {
    let rig = Rig::new();
    let ndjson = [("content-type", "application/x-ndjson")];
    let body = "{\"counter\":\"a\"}\n{\"counter\":\r\n\n{\"counter\":\"b\"} {}\n[]\n{\"counter\":\"1\"}\n  {\"counter\":\"c\"}\r\n";
    let answer = rig.post("/v1/increments?partial=true", &ndjson, body).await;
    answer.is_accepted(2);
    let rejected = answer.json["rejected"].as_array().unwrap();
    let codes: Vec<_> = rejected.iter().map(|error| (error["index"].as_u64(), error["code"].as_str())).collect();
    let expected = [(1, "malformed_json"), (2, "malformed_json"), (3, "wrong_type"), (4, "malformed")];
    assert_eq!(codes, expected.map(|(index, code)| (Some(index), Some(code))));

    let answer = rig.post(INCREMENTS, &ndjson, body).await;
    answer.is_problem(400, "invalid_items");
    assert_eq!(answer.json["errors"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn what_an_increment_leaves_out_is_filled_in() {
    let rig = Rig::new();
    let before = clock::now_ms();
    let body = "[{\"counter\":\"c\",\"tags\":{\"b\":\"2,\\\\\",\"a\":\"1\"},\"id\":\"i\",\"time\":\"2026-01-31T12:00:00Z\"},{\"counter\":\"d\"}]";
    rig.post(INCREMENTS, &[("tallymark-namespace", "shop")], body).await.is_accepted(2);
    let mut found = Vec::new();
    for (partition, _, pack) in rig.stop().await.packs() {
        assert_eq!((pack.version, pack.partitions, pack.shards), (1, 4, 256));
        let increments = pack.increments.as_ref().unwrap();
        let keys: Vec<_> = increments.dictionary().collect();
        for item in increments.iter() {
            let entry = keys[item.series as usize];
            assert_eq!(entry.grains, Grains::HOUR.with(Grains::DAY));
            let shard = tallymark::item::Shard::of(tallymark::item::series_hash(entry.key), 256);
            assert_eq!(shard.partition(4), partition);
            found.push((SeriesRef::from_key(entry.key).unwrap().to_key(), item, item.time_ms + pack.receive_ms));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(found[0].0, b"shop\0c\0a=1,b=2\\,\\\\");
    assert_eq!(found[0].1.id, Some(IdScope::series(&found[0].0).id(b"i")));
    assert_eq!((found[0].1.amount, found[0].2), (1, 1_769_860_800_000));
    assert_eq!(found[1].0, b"shop\0d\0");
    assert_eq!((found[1].1.id, found[1].1.amount), (None, 1));
    assert!((before..=clock::now_ms()).contains(&found[1].2));
}

#[tokio::test]
async fn an_event_is_kept_byte_for_byte_and_its_retry_goes_to_the_same_partition() {
    let rig = Rig::new();
    let properties = "{ \"a\" : 1.0, \"b\":\"\\u00e9\",\"a\":[ ] }";
    let body = format!(
        "{{\"name\":\"signup\",\"subject\":\"user-17\",\"time\":1769860800000,\"id\":\"evt_42\",\"properties\":{properties}}}"
    );
    let first = rig.post(EVENTS, &[], body.clone()).await;
    let second = rig.post(EVENTS, &[], body).await;
    assert_eq!(first.receipt().packs[0].0, second.receipt().packs[0].0);
    rig.post(EVENTS, &[], "[{\"name\":\"a\"},{\"name\":\"a\"}]").await.is_accepted(2);
    let packs = rig.stop().await.packs();
    let events: Vec<_> = packs.into_iter().flat_map(|(_, _, pack)| pack.events).collect();
    let signup = events.iter().find(|event| event.name == "signup").unwrap();
    assert_eq!(signup.properties, properties.as_bytes());
    assert_eq!((signup.namespace.as_str(), signup.subject.as_str()), ("default", "user-17"));
    assert_eq!((signup.id.as_str(), signup.time_ms), ("evt_42", 1_769_860_800_000));
    let mut made: Vec<_> = events.iter().filter(|event| event.name == "a").map(|event| event.id.clone()).collect();
    made.dedup();
    assert_eq!(made.len(), 2, "an event without an id gets one of its own");
    assert!(made.iter().all(|id| id.len() == 32));
}

#[tokio::test]
async fn an_idempotency_key_gives_ids_to_the_items_without_one() {
    let rig = Rig::new();
    let body = "[{\"counter\":\"c\"},{\"counter\":\"c\",\"id\":\"own\"},{\"counter\":\"c\"}]";
    rig.post(INCREMENTS, &[("idempotency-key", "K")], body).await.is_accepted(3);
    rig.post(EVENTS, &[("idempotency-key", "K")], "[{\"name\":\"n\"},{\"name\":\"n\",\"id\":\"own\"}]")
        .await
        .is_accepted(2);
    let packs = rig.stop().await.packs();
    let scope = IdScope::series(b"default\0c\0");
    let ids: Vec<_> =
        packs.iter().filter_map(|(_, _, pack)| pack.increments.as_ref()).flat_map(|i| i.iter()).map(|i| i.id).collect();
    assert_eq!(ids, [b"K#0".as_slice(), b"own", b"K#2"].map(|id| Some(scope.id(id))));
    let mut events: Vec<_> = packs.iter().flat_map(|(_, _, pack)| &pack.events).map(|e| e.id.as_str()).collect();
    events.sort_unstable();
    assert_eq!(events, ["K#0", "own"]);
}
