//! From a client's increments and events to the answers of queries.

use serde_json::json;

use super::process::{Server, get_text, wait_until};

#[test]
fn a_first_counter_is_visible_at_once_and_stored_soon() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    let (status, answer) = server.post("/v1/increments", r#"{"counter": "page_views", "tags": {"path": "/docs"}}"#);
    assert_eq!(status, 202, "{answer}");
    assert_eq!(answer["accepted"], 1);
    let (status, total) = server.get("/v1/counters/page_views");
    assert_eq!((status, &total["total"]), (200, &json!(1)), "{total}");
    let receipt = answer["receipt"].as_str().unwrap();
    let (status, total) = server.get(&format!("/v1/counters/page_views?tag.path=/docs&at_least={receipt}&timeout=20s"));
    assert_eq!((status, &total["total"]), (200, &json!(1)), "{total}");
    let (_, stored) = server.get(&format!("/v1/receipts/{receipt}"));
    assert_eq!(stored["stored"], true, "{stored}");
    assert!(server.stop().success());
}

#[test]
fn ack_stored_answers_when_the_store_has_it() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &["--set", "worker.flush_age=20s"]);
    let (status, answer) = server.post("/v1/increments?ack=stored&timeout=20s", r#"[{"counter": "c", "amount": -7}]"#);
    assert_eq!((status, &answer["stored"]), (200, &json!(true)), "{answer}");
    assert_eq!(server.stored("c"), Some(-7));
}

#[test]
fn groups_tags_series_and_names_are_answered() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    let items: Vec<_> = (0..30)
        .map(|n| json!({"counter": "hits", "tags": {"path": format!("/p{}", n % 3), "n": n.to_string()}, "amount": n}))
        .collect();
    let (status, _) = server.post("/v1/increments?ack=stored&timeout=20s", &json!(items).to_string());
    assert_eq!(status, 200);
    let (_, groups) = server.get("/v1/counters/hits?by=path&top=2");
    assert_eq!(groups["groups"][0], json!({"tags": {"path": "/p2"}, "total": 155}), "{groups}");
    assert_eq!((&groups["other"], &groups["total"]), (&json!(135), &json!(435)));
    assert_eq!(server.get("/v1/counters/hits?tag.path=/p1").1["total"], 145);
    assert_eq!(server.get("/v1/counters/hits?tag.path=/p*&tag.n=4").1["total"], 4);
    assert_eq!(server.get("/v1/counters").1["counters"], json!(["hits"]));
    let (_, series) = server.get("/v1/series?counter=hits&limit=20");
    assert_eq!(series["series"].as_array().unwrap().len(), 20, "{series}");
}

#[test]
fn events_are_listed_newest_first_by_name_and_by_subject_and_count_once() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    let body = r#"{"name": "signup", "subject": "user-17", "time": 1769860800000, "id": "evt_42", "properties": {"plan":  "pro"}}
{"name": "signup", "subject": "user-18", "time": 1769860801000, "id": "evt_43"}
{"name": "login", "subject": "user-17", "time": 1769860802000, "id": "evt_44"}"#;
    for _ in 0..2 {
        let (status, answer) =
            server.post("/v1/events?ack=stored&timeout=20s", &format!("[{}]", body.replace('\n', ",")));
        assert_eq!(status, 200, "{answer}");
    }
    let ids = |path: &str| {
        let (status, page) = server.get(path);
        assert_eq!(status, 200, "{page}");
        let events = page["events"].as_array().unwrap().clone();
        events.into_iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids("/v1/events?name=signup"), ["evt_43", "evt_42"]);
    assert_eq!(ids("/v1/events?subject=user-17"), ["evt_44", "evt_42"]);
    let page = get_text(&format!("{}/v1/events?name=signup&subject=user-17", server.url)).unwrap().1;
    assert!(page.contains(r#"{"plan":  "pro"}"#), "properties stay as received: {page}");
}

#[test]
fn lag_health_and_metrics_tell_what_happens() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    server.post("/v1/increments", r#"{"counter": "c"}"#);
    server.settle();
    let (_, lag) = server.get_admin("/api/v1/lag");
    assert_eq!(lag["status"], "OK", "{lag}");
    assert_eq!(lag["lanes"].as_array().unwrap().len(), 4);
    assert_eq!(server.get_admin("/health/livez").0, 200);
    assert_eq!(server.get("/health/livez").0, 404, "not on the public port");
    assert_eq!(server.get("/metrics").0, 404);
    wait_until("the metrics show the stored item", || {
        let metrics = get_text(&format!("{}/metrics", server.admin)).unwrap().1;
        ["tallymark_ingest_items_total", "tallymark_lag_packs", "tallymark_flush_seconds_count", "tallymark_build_info"]
            .iter()
            .all(|name| metrics.contains(name))
    });
}

#[test]
fn without_a_hot_view_reads_come_from_the_store() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &["--hot", "none:"]);
    server.post("/v1/increments?ack=stored&timeout=20s", r#"{"counter": "c", "amount": 3}"#);
    let (_, total) = server.get("/v1/counters/c");
    assert_eq!((&total["total"], &total["source"]), (&json!(3), &json!("store")), "{total}");
}
