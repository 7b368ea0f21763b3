//! `tallymark audit` on embedded backends: through the running instance, and over the folder when none runs.

use std::path::Path;

use serde_json::{Value, json};
use tallymark::{
    data_dir,
    store::{Options, Slice, Totals as _, embedded::Embedded},
};

use super::process::{Server, at_terminal, block_on, output, tallymark, wait_until};

/// An audit through a running instance: exit code, report, stderr.
fn through(server: &Server, flags: &[&str]) -> (i32, Value, String) {
    let (code, out, err) =
        output(&mut tallymark(&[&["audit", "--json", "--admin-url", &server.admin], flags].concat()));
    (code, serde_json::from_str(&out).unwrap_or(Value::Null), err)
}

/// An audit of a folder that nobody runs.
fn over(data: &Path, flags: &[&str]) -> (i32, Value, String) {
    let embedded = format!("embedded:{}", data.display());
    let settings = ["audit", "--json", "--log", &embedded, "--store", &embedded, "--admin-listen", "127.0.0.1:0"];
    let (code, out, err) = output(&mut tallymark(&[&settings, flags].concat()));
    (code, serde_json::from_str(&out).unwrap_or(Value::Null), err)
}

/// Changes the row of `views{path=/docs}` while nobody runs.
fn garble(data: &Path, change: i128) {
    block_on(async {
        let store = Embedded::open(&data_dir::store_in(data), &Options::default()).unwrap();
        for key in store.shards().await.unwrap() {
            let rows = store.totals(&key, &Slice { limit: 100, ..Slice::default() }).await.unwrap();
            for mut row in rows.into_iter().filter(|row| &*row.name.tags == "path=/docs") {
                row.total += change;
                row.stamp.0 += 1;
                store.write_totals(&key, &[row]).await.unwrap();
            }
        }
    });
}

#[test]
fn a_garbled_row_is_found_repaired_through_the_log_and_clean_again() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &["--set", "worker.checkpoint_delay=0s"]);
    for path in ["/docs", "/"] {
        let item = format!(r#"{{"counter": "views", "tags": {{"path": "{path}"}}, "amount": 5, "id": "{path}"}}"#);
        for _ in 0..2 {
            assert_eq!(server.post("/v1/increments", &item).0, 202);
        }
    }
    server.settle();
    let (code, report, err) = through(&server, &["--naive"]);
    assert_eq!((code, &report["clean"], &report["counts"]["lost"]), (0, &json!(true), &json!(0)), "{report} {err}");
    let sum =
        |name: &str| report["lanes"].as_array().unwrap().iter().map(|lane| lane[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("items"), sum("duplicates")), (2, 2), "{report}");
    assert!(report["lanes"].as_array().unwrap().iter().all(|lane| lane["naive"] == true), "{report}");
    assert!(server.stop().success());

    garble(data.path(), 1_000);
    let (code, report, err) = over(data.path(), &[]);
    assert_eq!(code, 1, "{report} {err}");
    assert!(err.contains("no running instance") && err.contains(&data.path().display().to_string()), "{err}");
    let [drift] = &report["worst"].as_array().unwrap()[..] else { panic!("{report}") };
    assert_eq!((&drift["kind"], &drift["tags"]), (&json!("doubled"), &json!("path=/docs")), "{drift}");
    assert_eq!((&drift["found"], &drift["expected"]), (&json!(1005), &json!(5)), "{drift}");
    let (code, _, err) = over(data.path(), &["--repair"]);
    assert!(code == 2 && err.contains("--yes"), "{code} {err}");
    let embedded = format!("embedded:{}", data.path().display());
    let asks = ["audit", "--repair", "--log", &embedded, "--store", &embedded, "--admin-listen", "127.0.0.1:0"];
    let (code, said) = at_terminal(&asks, "n");
    assert!(code == 1 && said.contains("append corrections of 1 rows to the log"), "{code} {said}");
    let (code, report, err) = over(data.path(), &["--repair", "--yes"]);
    assert_eq!((code, &report["repairs"][0]["rows"]), (1, &json!(1)), "{report} {err}");

    let server = Server::start(data.path(), &["--set", "worker.checkpoint_delay=0s"]);
    server.settle();
    let (code, report, err) = through(&server, &[]);
    assert_eq!((code, &report["clean"]), (0, &json!(true)), "{report} {err}");
    assert_eq!(server.get("/v1/counters/views?tag.path=/docs&consistency=stored").1["total"], 5);
    assert_eq!(server.stored("views"), Some(10), "the whole counter was right, and stays so");
}

#[test]
fn what_an_audit_says_to_people_names_the_row_and_the_remedy() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    server.post("/v1/increments?ack=stored&timeout=20s", r#"{"counter": "views", "tags": {"path": "/docs"}}"#);
    let (code, out, _) = output(&mut tallymark(&["audit", "--admin-url", &server.admin]));
    assert!(code == 0 && out.ends_with("clean: 2 rows are what the log says\n"), "{code} {out}");
    assert!(server.stop().success());
    garble(data.path(), -3);
    let embedded = format!("embedded:{}", data.path().display());
    let args = ["audit", "--log", &embedded, "--store", &embedded, "--admin-listen", "127.0.0.1:0"];
    let (code, out, _) = output(&mut tallymark(&args));
    assert!(code == 1 && out.contains("views{path=/docs}") && out.contains("drift: 1 lost"), "{code} {out}");
    assert!(out.contains("tallymark audit --repair"), "{out}");
}

#[test]
fn an_audit_beside_a_load_is_clean_and_only_one_is_made_at_a_time() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    let load = super::load::Load::start(&server, 2);
    let mut audits = 0;
    load.goes_on_by(200);
    while load.acknowledged() < 3_000 {
        let (code, report, err) = through(&server, &[]);
        assert_eq!((code, &report["clean"]), (0, &json!(true)), "{report} {err}");
        audits += 1;
    }
    assert!(audits > 1);
    load.finish().assert_stored(&server);
    wait_until("it is clean at the end", || through(&server, &["--naive"]).0 == 0);
}

#[test]
fn with_nothing_to_audit_the_exit_code_says_why() {
    let data = tempfile::tempdir().unwrap();
    let (code, _, err) = over(&data.path().join("nowhere"), &[]);
    assert!(code == 3 && err.contains("no running instance"), "{code} {err}");
    let (code, _, err) = output(&mut tallymark(&["audit", "--admin-url", "http://127.0.0.1:9"]));
    assert!(code == 3 && err.contains("--admin-url"), "{code} {err}");
    let (code, _, err) = output(&mut tallymark(&["audit", "--from", "yesterday"]));
    assert!(code == 2 && err.contains("2026-01-31T12:00:00Z"), "{code} {err}");
}
