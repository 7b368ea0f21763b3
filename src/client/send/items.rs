//! From a line of the input to the items that are sent.
//!
//! Ids are made here: BLAKE3 of the file's name, the line's number and its text, so that the same file sent twice counts
//! once, and so that a line that stands in it twice counts twice. In a loop each round's ids are its own.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::{
    Format,
    batch::{Chunk, Kind},
};
use crate::client::combined::{self, MAX_TEXT_BYTES, shorten};

/// The longest text in an event's properties: four of them, each byte escaped, stay below the 32 KiB that properties
/// may have.
const MAX_PROPERTY_BYTES: usize = 4000;

/// Where ids come from.
#[derive(Clone, Debug)]
pub(super) struct Ids {
    /// Has taken the file's name in, and the round.
    scope: blake3::Hasher,
    /// In a loop: ids that the input brings are replaced by this round's.
    replace: bool,
    /// Whether items without an id get one.
    make: bool,
}

impl Ids {
    /// Ids for a file of this name. `make`: whether items without an id get one.
    pub(super) fn new(name: &str, make: bool) -> Self {
        let mut scope = blake3::Hasher::new();
        scope.update(name.as_bytes()).update(&[0]);
        Self { scope, replace: false, make }
    }

    /// Ids for one round of a loop: other than those of every other round, and of every other `run`.
    pub(super) fn round(&self, run: u64, round: u64) -> Self {
        let mut scope = self.scope.clone();
        scope.update(&run.to_le_bytes()).update(&round.to_le_bytes());
        Self { scope, replace: true, make: self.make }
    }

    fn of_line(&self, number: u64, text: &[u8]) -> String {
        let mut hasher = self.scope.clone();
        hasher.update(&number.to_le_bytes()).update(text);
        hasher.finalize().to_hex()[..32].to_owned()
    }
}

/// Reads a line, which is not blank, into `chunk`.
pub(super) fn read(format: Format, ids: &Ids, number: u64, line: &[u8], chunk: &mut Chunk) {
    let read = match format {
        Format::Ndjson => ndjson(ids, number, line, chunk),
        Format::Combined => access(ids, number, line, chunk),
    };
    if let Err(reason) = read {
        chunk.bad.push((number, reason));
    }
}

/// What has to be known of an item to route it. What else it holds is the ingest's to judge.
#[derive(Deserialize)]
struct Probe<'a> {
    #[serde(default, borrow, deserialize_with = "present")]
    counter: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "present")]
    name: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "present")]
    id: Option<&'a RawValue>,
}

/// `null` is a value too: the ingest refuses it, and a second `id` beside it would hide why.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

fn ndjson(ids: &Ids, number: u64, line: &[u8], chunk: &mut Chunk) -> Result<(), String> {
    let text = std::str::from_utf8(line).map_err(|_| "not UTF-8".to_owned())?.trim_ascii();
    if !text.starts_with('{') {
        return Err("not a JSON object: each line is one increment or one event".to_owned());
    }
    let probe: Probe<'_> =
        serde_json::from_str(text).map_err(|error| format!("not an item: {}", without_line(&error)))?;
    let batch = match (probe.counter, probe.name) {
        (Some(_), None) => &mut chunk.increments,
        (None, Some(_)) => &mut chunk.events,
        (Some(_), Some(_)) => {
            return Err("has both `counter` and `name`: it must be an increment or an event".to_owned());
        }
        (None, None) => return Err("has neither `counter` (an increment) nor `name` (an event)".to_owned()),
    };
    let own: Option<Cow<'_, str>> = probe.id.and_then(|id| serde_json::from_str(id.get()).ok());
    batch.push_with(number, |body| {
        match (probe.id, own) {
            (None, _) if ids.make => {
                body.extend_from_slice(b"{\"id\":\"");
                body.extend_from_slice(ids.of_line(number, text.as_bytes()).as_bytes());
                body.extend_from_slice(b"\",");
                body.extend_from_slice(&text.as_bytes()[1..]);
            }
            (Some(raw), Some(own)) if ids.replace => {
                // The value borrows from the line: where it begins is the distance of the two.
                let start = raw.get().as_ptr().addr() - text.as_ptr().addr();
                body.extend_from_slice(&text.as_bytes()[..start]);
                body.push(b'"');
                body.extend_from_slice(ids.of_line(0, own.as_bytes()).as_bytes());
                body.push(b'"');
                body.extend_from_slice(&text.as_bytes()[start + raw.get().len()..]);
            }
            _ => body.extend_from_slice(text.as_bytes()),
        }
        body.push(b'\n');
    });
    Ok(())
}

/// serde_json counts lines in what it was given, which is always the first: only the column tells something.
fn without_line(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at column ")
}

#[derive(Serialize)]
struct Event<'a> {
    id: &'a str,
    name: &'a str,
    subject: &'a str,
    time: i64,
    properties: Properties<'a>,
}

#[derive(Serialize)]
struct Properties<'a> {
    method: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<Cow<'a, str>>,
    status: u16,
    bytes: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    referer: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
struct Increment<'a> {
    id: &'a str,
    counter: &'a str,
    tags: Tags<'a>,
    amount: i64,
    time: i64,
}

#[derive(Clone, Copy, Serialize)]
struct Tags<'a> {
    method: &'a str,
    path: &'a str,
    status: &'a str,
}

/// An event `request`, and increments of `requests` and `response_bytes`, also by nothing: so every path has both.
fn access(ids: &Ids, number: u64, line: &[u8], chunk: &mut Chunk) -> Result<(), String> {
    let entry = combined::parse(line).map_err(|malformed| malformed.to_string())?;
    let id = ids.of_line(number, line);
    let property =
        |text: &Option<Cow<'_, str>>| text.as_ref().map(|text| shorten(text, MAX_PROPERTY_BYTES).into_owned());
    let event = Event {
        id: &id,
        name: "request",
        subject: &shorten(&entry.client, MAX_TEXT_BYTES),
        time: entry.time_ms,
        properties: Properties {
            method: entry.method,
            path: &shorten(&entry.path, MAX_PROPERTY_BYTES),
            query: property(&entry.query).map(Cow::Owned),
            status: entry.status.parse().expect("three digits"),
            bytes: entry.bytes,
            referer: property(&entry.referer).map(Cow::Owned),
            agent: property(&entry.agent).map(Cow::Owned),
        },
    };
    push(chunk, Kind::Events, number, &event);
    let path = shorten(&entry.path, MAX_TEXT_BYTES);
    let tags = Tags { method: entry.method, path: &path, status: entry.status };
    for (counter, amount) in [("requests", 1), ("response_bytes", entry.bytes)] {
        let increment = Increment { id: &id, counter, tags, amount, time: entry.time_ms };
        push(chunk, Kind::Increments, number, &increment);
    }
    Ok(())
}

fn push(chunk: &mut Chunk, kind: Kind, number: u64, item: &impl Serialize) {
    let batch = match kind {
        Kind::Increments => &mut chunk.increments,
        Kind::Events => &mut chunk.events,
    };
    batch.push_with(number, |body| {
        serde_json::to_writer(&mut *body, item).expect("strings and integers serialize into memory");
        body.push(b'\n');
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read_all(format: Format, ids: &Ids, lines: &[&str]) -> Chunk {
        let mut chunk = Chunk::new();
        for (number, line) in (1..).zip(lines) {
            read(format, ids, number, line.as_bytes(), &mut chunk);
        }
        chunk
    }

    fn values(batch: &super::super::batch::Batch) -> Vec<Value> {
        batch.items().map(|(_, item)| serde_json::from_slice(item).unwrap()).collect()
    }

    fn id(value: &Value) -> &str {
        value["id"].as_str().unwrap()
    }

    #[test]
    fn lines_go_where_they_belong_and_what_is_no_item_is_named() {
        let lines = [
            r#"{"counter":"a","amount":2}"#,
            r#" {"name":"n","id":"own"} "#,
            "[]",
            "{}",
            r#"{"counter":"a","name":"n"}"#,
            r#"{"counter":"a"} x"#,
            r#"{"counter":"a","counter":"b"}"#,
            r#"{"counter":"a","id":null}"#,
        ];
        let chunk = read_all(Format::Ndjson, &Ids::new("f", true), &lines);
        let increments = values(&chunk.increments);
        assert_eq!(increments[0], json!({"counter": "a", "amount": 2, "id": id(&increments[0])}));
        assert_eq!(id(&increments[0]).len(), 32);
        assert_eq!(increments[1], json!({"counter": "a", "id": null}));
        assert_eq!(values(&chunk.events), [json!({"name": "n", "id": "own"})]);
        assert_eq!(chunk.bad.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [3, 4, 5, 6, 7]);
        assert!(chunk.bad[3].1.contains("at column"), "{}", chunk.bad[3].1);
    }

    #[test]
    fn an_id_depends_on_file_line_and_text_and_nothing_else() {
        let line = r#"{"counter":"a"}"#;
        let ids = |name| values(&read_all(Format::Ndjson, &Ids::new(name, true), &[line, line]).increments);
        let [first, again, other] = [ids("f"), ids("f"), ids("g")];
        assert_eq!(first, again);
        assert_ne!(id(&first[0]), id(&first[1]));
        assert_ne!(id(&first[0]), id(&other[0]));
        let without = values(&read_all(Format::Ndjson, &Ids::new("f", false), &[line]).increments);
        assert_eq!(without, [json!({"counter": "a"})]);
    }

    #[test]
    fn every_round_of_a_loop_has_ids_of_its_own() {
        let ids = Ids::new("f", true);
        let lines = [r#"{"id" : "x\u0041", "counter":"a"}"#, r#"{"counter":"a"}"#];
        let round = |run, round| values(&read_all(Format::Ndjson, &ids.round(run, round), &lines).increments);
        let (first, second, later) = (round(1, 0), round(1, 1), round(2, 0));
        for line in 0..2 {
            assert_ne!(id(&first[line]), id(&second[line]));
            assert_ne!(id(&first[line]), id(&later[line]));
        }
        assert_eq!(first[0]["counter"], "a");
        assert_eq!(round(1, 0), first);
    }

    #[test]
    fn a_line_of_a_log_gives_an_event_and_two_increments() {
        let line = r#"1.2.3.4 - - [17/May/2015:10:05:03 +0000] "GET /a?b=\"c\" HTTP/1.1" 304 - "-" "agent""#;
        let chunk = read_all(Format::Combined, &Ids::new("access.log", true), &[line]);
        let (events, increments) = (values(&chunk.events), values(&chunk.increments));
        let properties =
            json!({"method": "GET", "path": "/a", "query": r#"b=\"c\""#, "status": 304, "bytes": 0, "agent": "agent"});
        let time = 1_431_857_103_000_i64;
        let id = id(&events[0]);
        assert_eq!(
            events,
            [json!({"id": id, "name": "request", "subject": "1.2.3.4", "time": time, "properties": properties})]
        );
        let tags = json!({"method": "GET", "path": "/a", "status": "304"});
        let increment =
            |counter, amount| json!({"id": id, "counter": counter, "tags": tags, "amount": amount, "time": time});
        assert_eq!(increments, [increment("requests", 1), increment("response_bytes", 0)]);
    }

    #[test]
    fn a_long_path_is_cut_in_tags_and_whole_in_the_event() {
        let path = format!("/{}", "é".repeat(300));
        let line = format!(r#"h - - [17/May/2015:10:05:03 +0000] "GET {path} HTTP/1.1" 200 1 "-" "-""#);
        let chunk = read_all(Format::Combined, &Ids::new("f", true), &[&line]);
        assert_eq!(values(&chunk.events)[0]["properties"]["path"], *path);
        let hash = blake3::hash(path.as_bytes()).to_hex();
        let short = format!("/{}~{}", "é".repeat(119), &hash[..16]);
        assert_eq!(values(&chunk.increments)[0]["tags"]["path"], *short);
    }

    #[test]
    fn properties_stay_within_their_limit_whatever_the_line_holds() {
        let long = r#"\""#.repeat(20_000);
        let line =
            format!(r#"h - - [17/May/2015:10:05:03 +0000] "GET /{long}?{long} HTTP/1.1" 200 1 "{long}" "{long}""#);
        let chunk = read_all(Format::Combined, &Ids::new("f", true), &[&line]);
        assert!(values(&chunk.events)[0]["properties"].to_string().len() <= 32 << 10);
    }
}
