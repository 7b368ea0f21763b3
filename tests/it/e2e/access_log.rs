//! Ten thousand lines of a real access log through `tallymark send`, against a recount of the file by the test itself.

use std::{collections::BTreeMap, path::PathBuf, process::Stdio};

use serde_json::Value;

use super::process::{PATIENCE, Server, output, tallymark, wait_until};

pub fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/access.log")
}

/// The truth, as awk would tell it: words of a line by position.
pub struct Truth {
    pub requests: i64,
    pub bytes: i64,
    by_status: BTreeMap<String, i64>,
    by_method: BTreeMap<String, i64>,
    by_path: BTreeMap<String, i64>,
    by_client: BTreeMap<String, i64>,
}

pub fn recount() -> Truth {
    let text = std::fs::read_to_string(file()).unwrap();
    let mut truth = Truth {
        requests: 0,
        bytes: 0,
        by_status: BTreeMap::new(),
        by_method: BTreeMap::new(),
        by_path: BTreeMap::new(),
        by_client: BTreeMap::new(),
    };
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        truth.requests += 1;
        truth.bytes += words[9].parse::<i64>().unwrap_or(0);
        let path = words[6].split('?').next().unwrap();
        for (counts, word) in [
            (&mut truth.by_status, words[8]),
            (&mut truth.by_method, words[5].trim_start_matches('"')),
            (&mut truth.by_path, path),
            (&mut truth.by_client, words[0]),
        ] {
            *counts.entry(word.to_owned()).or_default() += 1;
        }
    }
    assert_eq!(truth.requests, 10_000);
    truth
}

pub fn send(server: &Server) -> (i32, String, String) {
    let path = file();
    output(&mut tallymark(&["send", path.to_str().unwrap(), "--format", "combined", "--url", &server.url]))
}

fn groups(server: &Server, by: &str) -> BTreeMap<String, i64> {
    let (status, answer) = server.get(&format!("/v1/counters/requests?by={by}&top=10000&consistency=stored"));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["other"], 0);
    let groups = answer["groups"].as_array().unwrap().iter();
    groups.map(|group| (group["tags"][by].as_str().unwrap().to_owned(), group["total"].as_i64().unwrap())).collect()
}

pub fn assert_equals_the_recount(server: &Server, truth: &Truth) {
    server.settle();
    assert_eq!(server.get("/v1/counters/requests").1["total"], truth.requests);
    assert_eq!(server.stored("requests"), Some(truth.requests));
    assert_eq!(server.stored("response_bytes"), Some(truth.bytes));
    assert_eq!(groups(server, "status"), truth.by_status);
    assert_eq!(groups(server, "method"), truth.by_method);
    // A path over 256 bytes is cut and marked; the others are as they stand in the file.
    let by_path = groups(server, "path");
    assert_eq!(by_path.values().sum::<i64>(), truth.requests);
    for (path, count) in truth.by_path.iter().filter(|(path, _)| path.len() <= 256) {
        assert_eq!(by_path.get(path), Some(count), "{path}");
    }
    for client in truth.by_client.keys().take(25) {
        assert_eq!(events_of(server, client), truth.by_client[client], "{client}");
    }
}

fn events_of(server: &Server, client: &str) -> i64 {
    let (mut count, mut cursor) = (0, String::new());
    loop {
        let (status, page) = server.get(&format!("/v1/events?subject={client}&limit=1000{cursor}"));
        assert_eq!(status, 200, "{page}");
        count += page["events"].as_array().unwrap().len() as i64;
        match page.get("next_cursor").and_then(Value::as_str) {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return count,
        }
    }
}

#[test]
fn an_access_log_sent_twice_equals_a_recount_of_the_file() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    let truth = recount();
    for _ in 0..2 {
        let (code, _, stderr) = send(&server);
        assert_eq!(code, 0, "{stderr}");
        assert_equals_the_recount(&server, &truth);
    }
}

#[test]
fn an_access_log_sent_again_after_kill_9_in_the_middle_equals_the_recount() {
    let data = tempfile::tempdir().unwrap();
    let server =
        Server::start(data.path(), &["--set", "worker.flush_age=50ms", "--set", "worker.checkpoint_delay=100ms"]);
    let path = file();
    let args = [
        "send",
        path.to_str().unwrap(),
        "--format",
        "combined",
        "--url",
        &server.url,
        "--batch",
        "20",
        "--timeout",
        "1s",
    ];
    let mut sender = tallymark(&args).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    wait_until("some of it has arrived", || server.stored("requests").is_some_and(|total| total > 500));
    server.kill();
    let deadline = std::time::Instant::now() + PATIENCE;
    let code = loop {
        if let Some(status) = sender.try_wait().unwrap() {
            break status.code();
        }
        assert!(std::time::Instant::now() < deadline, "the sender does not give up");
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    };
    assert_eq!(code, Some(3), "the ingest could not be reached any more");
    let server = Server::start(data.path(), &[]);
    let arrived = server.stored("requests").unwrap_or(0);
    assert!(arrived < 10_000, "the kill came in the middle: {arrived}");
    let (code, _, stderr) = send(&server);
    assert_eq!(code, 0, "{stderr}");
    assert_equals_the_recount(&server, &recount());
}
