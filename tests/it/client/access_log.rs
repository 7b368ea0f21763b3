//! `send --format combined` with ten thousand real lines, against a recount that knows nothing of our parser.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;
use tallymark::client::send::{Format, Options};

use super::{
    file, options, send,
    server::{Action, Request, Server},
};

const LOG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/access.log");

/// Totals by (counter, method, path, status), and events by subject.
#[derive(Debug, Default, PartialEq)]
struct Totals {
    counters: BTreeMap<(String, String, String, String), i64>,
    subjects: BTreeMap<String, u64>,
}

impl Totals {
    fn count(&mut self, counter: &str, [method, path, status]: [&str; 3], amount: i64) {
        let series = (counter.to_owned(), method.to_owned(), path.to_owned(), status.to_owned());
        *self.counters.entry(series).or_default() += amount;
    }

    /// As awk would: fields between blanks.
    fn recounted() -> Self {
        let mut totals = Self::default();
        for line in std::fs::read_to_string(LOG).unwrap().lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let path = fields[6].split('?').next().unwrap();
            let hash = blake3::hash(path.as_bytes()).to_hex();
            let cut = if path.len() > 256 { format!("{}~{}", &path[..239], &hash[..16]) } else { path.to_owned() };
            let tags = [&fields[5][1..], &cut, fields[8]];
            totals.count("requests", tags, 1);
            totals.count("response_bytes", tags, fields[9].parse().unwrap_or(0));
            *totals.subjects.entry(fields[0].to_owned()).or_default() += 1;
        }
        totals
    }

    /// As an ingest would that counts each id once per series or name.
    fn of(items: &[Value]) -> Self {
        let (mut totals, mut seen) = (Self::default(), HashSet::new());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        for item in items {
            if !seen.insert((item["counter"].clone().to_string(), item["tags"].to_string(), text(&item["id"]))) {
                continue;
            }
            if item["name"] == "request" {
                *totals.subjects.entry(text(&item["subject"])).or_default() += 1;
            } else {
                let tags = ["method", "path", "status"].map(|tag| text(&item["tags"][tag]));
                totals.count(
                    &text(&item["counter"]),
                    tags.each_ref().map(|tag| &**tag),
                    item["amount"].as_i64().unwrap(),
                );
            }
        }
        totals
    }
}

fn combined(path: impl Into<std::path::PathBuf>, url: &str) -> Options {
    Options { format: Format::Combined, ..options(path, url) }
}

fn sorted(items: &[Value]) -> Vec<String> {
    let mut items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.sort_unstable();
    items
}

#[tokio::test]
async fn totals_by_method_path_and_status_and_events_by_subject_equal_a_recount() {
    let server = Server::start(Action::accept).await;
    let ran = send(&combined(LOG, &server.url)).await;
    let summary = ran.result.unwrap();
    assert_eq!((summary.lines, summary.bad_lines, summary.items), (10_000, 0, 30_000), "{}", ran.err);
    assert_eq!((summary.accepted, summary.rejected, summary.exit_code()), (30_000, 0, 0));
    let items = server.items();
    assert_eq!(Totals::of(&items), Totals::recounted());
    let first = items.iter().find(|item| item["name"] == "request").unwrap();
    assert_eq!(first["time"], 1_431_857_103_000_i64);
    assert_eq!(first["properties"]["status"], 200);
    assert_eq!(first["properties"]["bytes"], 203_023);
}

#[tokio::test]
async fn every_item_that_a_real_line_gives_is_within_the_limits_of_the_ingest() {
    use tallymark::item::{check_event_text, check_id, check_tag_value};
    let server = Server::start(Action::accept).await;
    send(&combined(LOG, &server.url)).await.result.unwrap();
    for item in server.items() {
        check_id(item["id"].as_str().unwrap()).unwrap();
        if let Some(subject) = item["subject"].as_str() {
            check_event_text("subject", subject).unwrap();
        }
        for value in item["tags"].as_object().into_iter().flat_map(serde_json::Map::values) {
            check_tag_value(value.as_str().unwrap()).unwrap();
        }
    }
}

#[tokio::test]
async fn sent_twice_the_items_are_the_same_and_so_are_the_totals() {
    let server = Server::start(Action::accept).await;
    send(&combined(LOG, &server.url)).await.result.unwrap();
    let once = server.items();
    // From another folder, in other batches: the name, the lines and their numbers are what counts.
    let (_folder, copy) = file("access.log", std::fs::read(LOG).unwrap());
    send(&Options { batch: 77, concurrency: 1, ..combined(copy, &server.url) }).await.result.unwrap();
    let both = server.items();
    assert_eq!(sorted(&both[once.len()..]), sorted(&once));
    assert_eq!(Totals::of(&both), Totals::recounted());
}

#[tokio::test]
async fn an_ingest_that_fails_in_every_way_still_counts_every_line_once() {
    let server = Server::start(|request: &Request| match request.index % 5 {
        1 => Action::Cut,
        2 => Action::status(503),
        3 => Action::Reset,
        _ => Action::accept(request),
    })
    .await;
    let summary = send(&combined(LOG, &server.url)).await.result.unwrap();
    assert_eq!(summary.accepted, 30_000);
    assert!(summary.retries > 10);
    assert_eq!(Totals::of(&server.items()), Totals::recounted());
}

#[tokio::test]
async fn lines_that_do_not_parse_are_named_by_number_and_the_others_sent() {
    let server = Server::start(Action::accept).await;
    let log = std::fs::read_to_string(LOG).unwrap();
    let good: Vec<&str> = log.lines().take(3).collect();
    let text = [good[0].as_bytes(), b"garbage", good[1].as_bytes(), b"\xff\xfe - - [", b"", good[2].as_bytes()]
        .join(&b"\r\n"[..]);
    let (_folder, path) = file("access.log", text);
    let ran = send(&combined(path, &server.url)).await;
    let summary = ran.result.unwrap();
    assert_eq!((summary.lines, summary.bad_lines, summary.accepted, summary.exit_code()), (5, 2, 9, 1));
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(
        lines,
        [
            "line 2: not in the combined format: no identity after the client address",
            "line 4: not in the combined format: no time in brackets after the user",
        ]
    );
}
