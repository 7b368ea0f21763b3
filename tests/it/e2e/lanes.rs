//! A halted lane on the embedded backends, from the alarm to the remedy: shown everywhere, remedied by a command.

use std::path::Path;

use serde_json::{Value, json};

use super::process::{Server, at_terminal, output, tallymark, wait_until};

/// Short windows, and a log that keeps little: retention may soon remove what is stored.
const SETTINGS: &[&str] = &[
    "--set",
    "dedup.window=1s",
    "--set",
    "log.partitions=1",
    "--set",
    "log.retention_bytes=4MiB",
    "--set",
    "worker.checkpoint_delay=100ms",
];

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &to) } else { _ = std::fs::copy(entry.path(), to).unwrap() }
    }
}

/// `tallymark lanes …` of a running process.
fn lanes(server: &Server, words: &[&str]) -> (i32, String, String) {
    output(&mut tallymark(&[&["lanes"], words, &["--admin-url", &server.admin]].concat()))
}

/// `tallymark lanes …` of a folder that nobody runs.
fn lanes_of(data: &Path, words: &[&str]) -> (i32, String, String) {
    let embedded = format!("embedded:{}", data.display());
    let settings = ["--log", &embedded, "--store", &embedded, "--admin-listen", "127.0.0.1:0"];
    output(&mut tallymark(&[&["lanes"], words, &settings].concat()))
}

fn checkpointed(server: &Server) {
    wait_until("the checkpoint is at the end", || {
        let (_, lag) = server.get_admin("/api/v1/lag");
        let lane = &lag["lanes"][0];
        lane["checkpoint"].as_u64().map(|seq| seq + 1) == lane["end"].as_u64()
    });
}

#[test]
fn a_store_from_a_backup_that_retention_has_overtaken_goes_on_when_the_loss_is_accepted() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), SETTINGS);
    server.post("/v1/increments", r#"{"counter": "c", "amount": 1}"#);
    server.settle_well();
    checkpointed(&server);
    let (code, said, _) = lanes(&server, &[]);
    assert!(code == 0 && said.starts_with("OK: no lane has halted"), "{said}");
    assert!(server.stop().success());
    let (store, backup) = (data.path().join("store"), data.path().join("backup"));
    copy(&store, &backup);

    let server = Server::start(data.path(), SETTINGS);
    server.post("/v1/increments", r#"{"counter": "c", "amount": 10}"#);
    // Enough for the first packs to go.
    let event = json!({"name": "e", "properties": {"p": "x".repeat(30_000)}});
    let events = Value::from(vec![event; 60]).to_string();
    // What the dedup window still reaches is kept: so for longer than that, and as often as it takes to see the front go.
    let begun = std::time::Instant::now();
    for round in 0.. {
        assert_eq!(server.post("/v1/events", &events).0, 202);
        server.settle_well();
        checkpointed(&server);
        if round >= 16 && begun.elapsed() > std::time::Duration::from_secs(4) {
            break;
        }
    }
    assert!(server.stop().success());
    std::fs::remove_dir_all(&store).unwrap();
    std::fs::rename(&backup, &store).unwrap();

    // With nobody running it, the folder says it itself.
    let (code, said, err) = lanes_of(data.path(), &[]);
    assert_eq!(code, 4, "{said}{err}");
    let command = said.lines().last().unwrap().trim().to_owned();
    assert!(command.starts_with("tallymark lanes accept-gap 0 1.."), "{said}");

    let mut server = Server::start(data.path(), SETTINGS);
    wait_until("it has halted", || server.get_admin("/api/v1/lag").1["status"] == "HALTED");
    let (_, lag) = server.get_admin("/api/v1/lag");
    assert!(lag["lanes"][0]["reason"].as_str().unwrap().contains(&command), "{lag}");
    let (code, said) = server.lag_check();
    assert!(code == 4 && said.contains(&command), "{said}");
    let metrics = super::process::get_text(&format!("{}/metrics", server.admin)).unwrap().1;
    assert!(metrics.contains("tallymark_lane_halted{partition=\"0\"} 1"), "{metrics}");
    let (code, said, _) = lanes(&server, &["--json"]);
    let shown: Value = serde_json::from_str(&said).unwrap();
    let lane = &shown["lanes"][0];
    assert_eq!(
        (code, &lane["status"], &lane["halt"], &lane["command"]),
        (4, &json!("HALTED"), &json!("gap"), &json!(command))
    );
    // Ingest goes on meanwhile.
    assert_eq!(server.post("/v1/increments", r#"{"counter": "c", "amount": 100}"#).0, 202);

    let words: Vec<&str> = command.split(' ').skip(2).collect();
    let (code, said, err) = lanes(&server, &words);
    assert_eq!(code, 2, "there is no terminal to ask on: {said}{err}");
    assert!(said.contains("Lost: ") && err.contains("--yes"), "{said}{err}");
    let (code, said, _) = lanes(&server, &[&words[..], &["--dry-run"]].concat());
    assert!(code == 0 && said.contains("goes on at"), "{said}");
    let (code, _, err) = lanes(&server, &["accept-gap", "0", "1..2", "--yes"]);
    assert!(code == 1 && err.contains("which is more than 1..2"), "{err}");
    let (code, _, err) = lanes(&server, &["accept-claim", "0", "--yes"]);
    assert!(code == 1 && err.contains("has not halted for a claim"), "{err}");
    assert_eq!(server.get_admin("/api/v1/lag").1["status"], "HALTED", "nothing was done yet");
    let (code, said, err) = lanes(&server, &[&words[..], &["--yes", "--why", "an old backup"]].concat());
    assert!(code == 0 && said.contains("recorded"), "{said}{err}");
    server.settle_well();
    assert_eq!(server.stored("c"), Some(101), "what retention had removed is lost, and nothing else");
    wait_until("the hot view says the same", || {
        let (_, answer) = server.get("/v1/counters/c");
        answer["total"] == 101 && answer["stale"] == false
    });
    let (code, said, _) = lanes(&server, &["--records"]);
    assert!(code == 0 && said.contains("accepted the gap 1..") && said.contains("why: an old backup"), "{said}");
    server.signal("TERM");
    assert!(server.wait().success());
    // It asked for a remedy again and again meanwhile, and has said it once.
    let lines = server.last_words();
    assert_eq!(lines.matches("lane halted").count(), 1, "{lines}");
    let (code, said, err) = lanes_of(data.path(), &[]);
    assert_eq!(code, 0, "{said}{err}");
    let (_, records, _) = lanes_of(data.path(), &["--records", "--json"]);
    let records: Value = serde_json::from_str(&records).unwrap();
    assert_eq!((records.as_array().unwrap().len(), &records[0]["why"]), (1, &json!("an old backup")), "{records}");
}

#[test]
fn a_log_that_was_begun_anew_beside_its_store_begins_a_new_epoch_by_a_command() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    server.post("/v1/increments", r#"{"counter": "c", "amount": 1}"#);
    server.settle_well();
    assert!(server.stop().success());
    std::fs::remove_dir_all(data.path().join("log")).unwrap();

    let server = Server::start(data.path(), &[]);
    wait_until("it has halted", || server.get_admin("/api/v1/lag").1["status"] == "HALTED");
    assert_eq!(server.post("/v1/increments", r#"{"counter": "c", "amount": 10}"#).0, 202);
    let (code, said, _) = lanes(&server, &[]);
    assert!(code == 4 && said.ends_with("\n  tallymark lanes begin-epoch\n"), "{said}");
    let asks = ["lanes", "begin-epoch", "--admin-url", &server.admin];
    for no in ["n", ""] {
        let (code, said) = at_terminal(&asks, no);
        assert!(code == 1 && said.contains("Do it? [y/N]"), "{code} {said}");
    }
    assert_eq!(server.get_admin("/api/v1/lag").1["status"], "HALTED", "nothing was done");
    let (code, said) = at_terminal(&asks, "y");
    assert!(code == 0 && said.contains("Its lanes begin at 0."), "{code} {said}");
    server.settle_well();
    assert_eq!(server.stored("c"), Some(11));
    wait_until("the hot view says the same", || server.get("/v1/counters/c").1["total"] == 11);
}
