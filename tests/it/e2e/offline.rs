//! `get` and `lag` with no instance running: the folder answers, and only when nobody else has it.

use std::path::Path;

use serde_json::Value;

use super::process::{Server, output, tallymark};

/// A command on a data folder, with addresses where nobody listens.
fn ask(data: &Path, args: &[&str]) -> (i32, String, String) {
    let embedded = format!("embedded:{}", data.display());
    let settings = ["--log", &embedded, "--store", &embedded, "--listen", "127.0.0.1:0", "--admin-listen"];
    output(&mut tallymark(&[args, &settings, &["127.0.0.1:0"]].concat()))
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn a_folder_that_nobody_runs_answers_get_and_lag() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    for path in ["/docs", "/"] {
        let item = format!(r#"{{"counter": "views", "tags": {{"path": "{path}"}}, "amount": 5}}"#);
        server.post("/v1/increments", &item);
    }
    server.settle();
    assert!(server.stop().success());

    let (code, out, err) = ask(data.path(), &["get", "views", "--tag", "path=/docs", "--json"]);
    assert_eq!(code, 0, "{err}");
    let total = json(&out);
    assert_eq!(total["total"], 5, "{total}");
    assert_eq!((&total["source"], &total["stale"]), (&"store".into(), &false.into()), "{total}");
    assert_eq!(total["lag_ms"], 0, "{total}");
    let folder = data.path().display().to_string();
    assert!(err.lines().count() == 1 && err.contains("no running instance") && err.contains(&folder), "{err}");

    let (code, out, err) = ask(data.path(), &["lag", "--json", "--check"]);
    assert_eq!(code, 0, "{err}");
    let lag = json(&out);
    assert_eq!((&lag["status"], &lag["lag_packs"]), (&"OK".into(), &0.into()), "{lag}");
    let lanes = lag["lanes"].as_array().unwrap();
    assert!(lanes.len() == 4 && lanes.iter().all(|lane| lane["worker"].is_null()), "{lag}");

    let (code, _, err) = ask(data.path(), &["get", "never_seen"]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("unknown_counter") && !err.contains("127.0.0.1:4"), "{err}");

    let server = Server::start(data.path(), &[]);
    assert_eq!(server.get("/v1/counters/views").1["total"], 10, "it goes on as if nobody had looked");
}

#[test]
fn packs_that_nobody_applies_are_a_stop_and_the_totals_say_that_they_are_stale() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &["--set", "worker.flush_age=60s"]);
    server.post("/v1/increments?ack=stored&timeout=20s", r#"{"counter": "c", "amount": 5}"#);
    server.post("/v1/increments", r#"{"counter": "c", "amount": 2}"#);
    server.kill();

    let (code, out, err) = ask(data.path(), &["lag", "--json", "--check"]);
    assert_eq!(code, 1, "{err}");
    let lag = json(&out);
    assert_eq!((&lag["status"], &lag["lag_packs"]), (&"STOP".into(), &1.into()), "{lag}");
    assert!(out.contains("tallymark run"), "{lag}");
    assert_eq!(ask(data.path(), &["lag"]).0, 0, "without --check the code does not judge");
    let (code, out, err) = ask(data.path(), &["get", "c", "--json"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!((&json(&out)["total"], &json(&out)["stale"]), (&5.into(), &true.into()), "{out}");
    assert!(err.contains("stale"), "{err}");

    let server = Server::start(data.path(), &[]);
    server.settle();
    assert_eq!(server.stored("c"), Some(7));
}

#[test]
fn a_folder_that_another_process_has_is_left_to_it() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    server.post("/v1/increments", r#"{"counter": "c"}"#);
    for (command, flag) in [(&["get", "c"][..], "`--url`"), (&["lag", "--check"], "`--admin-url`")] {
        let (code, out, err) = ask(data.path(), command);
        assert_eq!((code, out.as_str()), (3, ""), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
        for said in ["no running instance at http://127.0.0.1:0", "another process (pid ", flag] {
            assert!(err.contains(said), "{said}: {err}");
        }
        assert!(err.contains(&data.path().display().to_string()), "{err}");
    }
    server.settle();
    assert_eq!(server.stored("c"), Some(1));
}

#[test]
fn a_folder_without_data_is_not_made_into_one() {
    let parent = tempfile::tempdir().unwrap();
    let (absent, other) = (parent.path().join("absent"), parent.path().join("other"));
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("notes.txt"), "mine").unwrap();
    for command in [&["get", "c"][..], &["lag"]] {
        for folder in [&absent, &other] {
            let (code, out, err) = ask(folder, command);
            assert_eq!((code, out.as_str()), (3, ""), "{err}");
            assert!(err.starts_with("error: no running instance") && err.lines().count() == 1, "{err}");
        }
    }
    assert!(!absent.exists());
    assert_eq!(files(&other), 1);
}

#[test]
fn an_address_on_the_command_line_is_asked_and_nothing_else() {
    let data = tempfile::tempdir().unwrap();
    assert!(Server::start(data.path(), &[]).stop().success());
    for command in [&["get", "c", "--url", "http://127.0.0.1:1"][..], &["lag", "--admin-url", "http://127.0.0.1:1"]] {
        let (code, _, err) = ask(data.path(), command);
        assert_eq!(code, 3, "{err}");
        assert!(err.starts_with("error: no running instance at http://127.0.0.1:1"), "{err}");
    }
}
