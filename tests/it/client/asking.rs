//! `get` and `lag`: what is asked, how answers are written, how refusals end.

use serde_json::{Value, json};
use tallymark::client::{Console, get, get::Output, lag};

use super::{
    Ran, nobody, run,
    server::{Action, Request, Server},
};

async fn answering(status: u16, body: Value) -> Server {
    Server::start(move |_: &Request| Action::Answer(status, vec![], body.clone())).await
}

fn total() -> Value {
    json!({"counter": "page_views", "tags": {"path": "/a,b"}, "total": 42, "source": "hot",
           "as_of": "2026-01-31T12:00:00.000Z", "lag_ms": 12, "stale": false})
}

fn groups() -> Value {
    json!({"counter": "page_views", "tags": {}, "total": 1207, "source": "store", "as_of": "2026-01-31T12:00:00.000Z",
           "lag_ms": null, "stale": true, "other": 5,
           "groups": [{"tags": {"path": "/docs \"x\""}, "total": 1200}, {"tags": {}, "total": 2}]})
}

#[tokio::test]
async fn a_question_is_encoded_into_the_request() {
    let server = answering(200, total()).await;
    let mut options = get::Options::new(format!("{}/", server.url), "a/b:c");
    options.tags = vec![("path".to_owned(), "/a&b=c é+%*".to_owned())];
    options.by = Some("status".to_owned());
    options.top = Some(3);
    options.consistency = Some("stored".to_owned());
    options.at_least = Some("AbC-_".to_owned());
    options.timeout = Some(std::time::Duration::from_secs(2));
    options.namespace = Some("tenant".to_owned());
    run!(get::run, &options).result.unwrap();
    let request = &server.requests()[0];
    assert_eq!(request.method, "GET");
    assert_eq!(request.headers["tallymark-namespace"], "tenant");
    assert_eq!(
        request.target,
        "/v1/counters/a%2Fb:c?tag.path=%2Fa%26b%3Dc+%C3%A9%2B%25*&by=status&top=3&consistency=stored&at_least=AbC-_&timeout=2000ms"
    );
}

#[tokio::test]
async fn a_total_is_a_line_json_as_it_came_or_csv() {
    let server = answering(200, total()).await;
    let mut options = get::Options::new(&server.url, "page_views");
    let mut written = Vec::new();
    for output in [Output::Table, Output::Json, Output::Csv] {
        options.output = output;
        let ran = run!(get::run, &options);
        ran.result.unwrap();
        assert_eq!(ran.err, "");
        written.push(ran.out);
    }
    assert_eq!(written[0], "page_views  path=/a,b  42\nfrom hot, as of 2026-01-31T12:00:00.000Z, lag 12 ms\n");
    assert_eq!(serde_json::from_str::<Value>(&written[1]).unwrap(), total());
    assert_eq!(
        written[2],
        "counter,path,total,source,as_of,lag_ms,stale\r\npage_views,\"/a,b\",42,hot,2026-01-31T12:00:00.000Z,12,false\r\n"
    );
}

#[tokio::test]
async fn groups_are_a_table_or_csv_and_staleness_is_told() {
    let server = answering(200, groups()).await;
    let mut options = get::Options::new(&server.url, "page_views");
    options.by = Some("path".to_owned());
    let ran = run!(get::run, &options);
    ran.result.unwrap();
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(
        lines,
        [
            "page_views",
            "",
            "path       total",
            "/docs \"x\"   1200",
            "(none)         2",
            "(other)        5",
            "(all)       1207",
            "",
            "from store, as of 2026-01-31T12:00:00.000Z, lag unknown, stale",
        ]
    );
    assert!(ran.err.contains("stale"), "{}", ran.err);
    options.output = Output::Csv;
    assert_eq!(run!(get::run, &options).out, "path,total\r\n\"/docs \"\"x\"\"\",1200\r\n,2\r\n");
}

#[tokio::test]
async fn refusals_of_a_question_are_one_line_with_an_exit_code() {
    for (status, body, code, part) in [
        (
            404,
            json!({"code": "unknown_counter", "detail": "no counter\n`c`"}),
            1,
            "404 (unknown_counter): no counter `c`",
        ),
        (422, json!({"code": "overflow", "detail": "too large"}), 1, "overflow"),
        (503, json!({"code": "store", "detail": "the store is away"}), 3, "the store is away"),
        (504, json!({"code": "timeout", "detail": "not stored within 2s"}), 3, "not stored within 2s"),
        (500, json!(null), 1, "500: without saying why"),
        (200, json!([1]), 1, "not the answer of a Tallymark instance"),
    ] {
        let server = answering(status, body).await;
        let ran = run!(get::run, &get::Options::new(&server.url, "c"));
        let error = ran.result.unwrap_err();
        assert_eq!(error.exit_code(), code, "{error}");
        let text = error.to_string();
        assert!(text.contains(part) && !text.contains('\n'), "{text}");
        assert_eq!(ran.out, "");
    }
    let error = run!(get::run, &get::Options::new("http://127.0.0.1:1", "not a name")).result.unwrap_err();
    assert_eq!(error.exit_code(), 2);
}

#[tokio::test]
async fn without_a_running_instance_the_remedy_is_named_and_the_exit_code_is_3() {
    let (_socket, url) = nobody();
    let got = run!(get::run, &get::Options::new(&url, "c")).result.unwrap_err();
    let lag = run!(lag::run, &lag::Options::new(&url)).result.unwrap_err();
    for (error, flag) in [(got, "--url"), (lag, "--admin-url")] {
        assert_eq!(error.exit_code(), 3);
        let text = error.to_string();
        assert!(text.starts_with(&format!("no running instance at {url}")), "{text}");
        assert!(text.contains("`tallymark run`") && text.contains(flag), "{text}");
    }
}

#[tokio::test]
async fn an_instance_that_hangs_up_is_not_reached() {
    let server = Server::start(|_: &Request| Action::Cut).await;
    let error = run!(get::run, &get::Options::new(&server.url, "c")).result.unwrap_err();
    assert_eq!(error.exit_code(), 3, "{error}");
    let server = Server::start(|_: &Request| Action::Reset).await;
    let error = run!(lag::run, &lag::Options::new(&server.url)).result.unwrap_err();
    assert_eq!(error.exit_code(), 3, "{error}");
}

fn lag_of(status: &str) -> Value {
    json!({"status": status, "lag_packs": 12, "lag_seconds": 3.25, "drain_seconds": null, "apply_rate": 1500.4, "lanes": [
        {"partition": 0, "epoch": "29c43f68880bc0c2", "end": 20, "stored": 7, "checkpoint": null, "lag_packs": 12,
         "lag_seconds": 3.25, "status": status, "reason": "the store\nis slow", "worker": "me"},
        {"partition": 1, "epoch": null, "end": 0, "stored": null, "checkpoint": null, "lag_packs": 0,
         "lag_seconds": 0, "status": "OK", "reason": null, "worker": null},
    ]})
}

#[tokio::test]
async fn lag_is_a_verdict_and_a_row_per_lane() {
    let server = answering(200, lag_of("WARN")).await;
    let ran = run!(lag::run, &lag::Options::new(&server.url));
    ran.result.unwrap();
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(
        lines,
        [
            "WARN: 12 packs not in the store, the oldest 3.2 s old; not gaining on the log; 1500 items/s applied",
            "",
            "lane  status  packs  seconds  end  stored  checkpoint  epoch             worker  reason",
            "   0  WARN       12      3.2   20       7           -  29c43f68880bc0c2  me      the store is slow",
            "   1  OK          0      0.0    0       -           -  -                 -",
        ]
    );
    assert_eq!(server.requests()[0].target, "/api/v1/lag");
}

#[tokio::test]
async fn lag_as_json_is_as_it_came_and_the_verdict_gives_the_exit_code() {
    for (status, code) in [("OK", 0), ("WARN", 1), ("STALL", 1), ("STOP", 1), ("REWIND", 1), ("HALTED", 4), ("NEW", 1)]
    {
        let server = answering(200, lag_of(status)).await;
        let ran = run!(lag::run, &lag::Options { json: true, ..lag::Options::new(&server.url) });
        assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap(), lag_of(status));
        assert_eq!(ran.result.unwrap().exit_code(), code, "{status}");
    }
    let server = answering(200, json!({"hello": 1})).await;
    assert_eq!(run!(lag::run, &lag::Options::new(&server.url)).result.unwrap_err().exit_code(), 1);
}
