//! `tallymark schema`, and what a start says about tables that are not as they should be.

use std::process::Command;

use tallymark::{
    retry::Kind,
    store::{
        Error, Ledger as _, Options,
        scylla::{Scylla, schema},
    },
};

use crate::support_scylla::{Keyspace, options, url};

/// Runs `tallymark schema …` with none of our variables set.
fn schema_command(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallymark"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TALLYMARK_")) {
        command.env_remove(name);
    }
    let output = command.arg("schema").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Runs it on a keyspace.
fn tallymark(keyspace: &Keyspace, arguments: &[&str]) -> (i32, String, String) {
    let store = url(&keyspace.name);
    schema_command(&[arguments, &["--store", &store, "--set", "store.replication=1"]].concat())
}

async fn refusal(keyspace: &Keyspace) -> Error {
    Scylla::open(&keyspace.servers, &options()).await.err().expect("it is refused")
}

#[tokio::test]
async fn an_apply_makes_everything_and_a_second_one_has_nothing_to_do() {
    let keyspace = Keyspace::new().await;
    let (code, out, err) = tallymark(&keyspace, &["apply", "--dry-run"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.starts_with("CREATE KEYSPACE IF NOT EXISTS ") && out.ends_with("none of them run\n"), "{out}");
    assert!(refusal(&keyspace).await.message.contains("has no keyspace"), "a dry run makes nothing");

    let (code, out, err) = tallymark(&keyspace, &["apply"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.starts_with(&format!("-- schema version 0 -> {}: ", schema::VERSION)), "{out}");
    let store = Scylla::open(&keyspace.servers, &options()).await.unwrap();
    assert_eq!(store.lanes("t").await.unwrap(), []);

    for arguments in [&["apply"][..], &["apply", "--dry-run"]] {
        let (code, out, _) = tallymark(&keyspace, arguments);
        assert_eq!((code, out), (0, format!("-- schema version {}: nothing to do\n", schema::VERSION)));
    }
    keyspace.drop().await;
}

#[tokio::test]
async fn an_apply_never_goes_backwards_and_a_start_accepts_a_newer_schema() {
    let keyspace = Keyspace::applied().await;
    keyspace.run("INSERT INTO {ks}.schema_versions (part, version, file) VALUES ('tallymark', 99, 'later')").await;
    for arguments in [&["apply"][..], &["apply", "--dry-run"]] {
        let (code, out, err) = tallymark(&keyspace, arguments);
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(err.contains("version 99") && err.contains("forward only") && err.lines().count() == 1, "{err}");
    }
    Scylla::open(&keyspace.servers, &options()).await.unwrap();
    keyspace.drop().await;
}

#[tokio::test]
async fn a_start_names_tables_that_are_missing_or_older_and_the_command_that_makes_them() {
    let keyspace = Keyspace::new().await;
    let command = format!("tallymark schema apply --store {}", url(&keyspace.name));
    let missing = refusal(&keyspace).await;
    assert_eq!(missing.kind, Kind::Fatal);
    assert!(missing.message.contains("has no keyspace") && missing.message.contains(&command), "{missing}");

    keyspace.run("CREATE KEYSPACE {ks} WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}").await;
    let empty = refusal(&keyspace).await;
    assert_eq!(empty.kind, Kind::Fatal);
    assert!(empty.message.contains("has no tables") && empty.message.contains(&command), "{empty}");

    // A keyspace that somebody has made is kept as it is.
    schema::apply(&keyspace.servers, &options(), false).await.unwrap();
    Scylla::open(&keyspace.servers, &options()).await.unwrap();

    let last = schema::VERSION;
    keyspace.run(&format!("DELETE FROM {{ks}}.schema_versions WHERE part = 'tallymark' AND version = {last}")).await;
    let older = refusal(&keyspace).await;
    assert_eq!(older.kind, Kind::Fatal);
    assert!(older.message.contains(&format!("needs {last}")) && older.message.contains(&command), "{older}");
    let applied = schema::apply(&keyspace.servers, &options(), false).await.unwrap();
    // Its columns are there: an apply that was cut short goes on.
    assert!(applied.from < last && applied.to == last && !applied.statements.is_empty(), "{applied:?}");
    assert!(older.message.contains(&format!("version {}", applied.from)), "{older}");
    Scylla::open(&keyspace.servers, &options()).await.unwrap();

    keyspace.run("DROP TABLE {ks}.counter_totals").await;
    let other = refusal(&keyspace).await;
    assert!(other.kind == Kind::Fatal && other.message.contains("schema print"), "{other}");
    keyspace.run("CREATE TABLE {ks}.counter_totals (namespace text, shard int, epoch blob, counter text, series text, total bigint, seq bigint, PRIMARY KEY ((namespace, shard, epoch), counter, series))").await;
    let other = refusal(&keyspace).await;
    assert!(other.kind == Kind::Fatal && other.message.contains("other types"), "{other}");
    keyspace.drop().await;
}

#[tokio::test]
async fn what_is_printed_does_what_an_apply_does() {
    let keyspace = Keyspace::new().await;
    let (code, out, err) = tallymark(&keyspace, &["print"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let without_comments: Vec<_> = out.lines().map(|line| line.split("--").next().unwrap()).collect();
    for statement in without_comments.join("\n").split(';').map(str::trim).filter(|text| !text.is_empty()) {
        match statement.strip_prefix("USE ") {
            Some(name) => keyspace.cql.use_keyspace(name.trim_matches('"'), true).await.unwrap(),
            None => drop(keyspace.cql.query_unpaged(statement, ()).await.unwrap()),
        }
    }
    Scylla::open(&keyspace.servers, &options()).await.unwrap();
    let applied = schema::apply(&keyspace.servers, &options(), false).await.unwrap();
    assert_eq!((applied.from, applied.statements.len()), (schema::VERSION, 0));
    keyspace.drop().await;
}

#[tokio::test]
async fn more_copies_than_servers_and_datacenters_that_are_not_there_are_refused() {
    let keyspace = Keyspace::new().await;
    let many = Options { replication: 32, ..options() };
    let error = schema::apply(&keyspace.servers, &many, false).await.unwrap_err();
    assert!(error.kind == Kind::Permanent && error.message.contains("--set store.replication="), "{error}");
    assert!(refusal(&keyspace).await.message.contains("has no keyspace"), "nothing was made");

    let elsewhere = Options { datacenter: "nowhere".to_owned(), ..options() };
    let error = schema::apply(&keyspace.servers, &elsewhere, false).await.unwrap_err();
    assert!(error.kind == Kind::Fatal && error.message.contains("store.datacenter is `nowhere`"), "{error}");

    schema::apply(&keyspace.servers, &options(), false).await.unwrap();
    let applied = schema::apply(&keyspace.servers, &many, false).await.unwrap();
    let [warning] = &applied.warnings[..] else { panic!("{applied:?}") };
    assert!(warning.contains("keeps 1 copies") && warning.contains("store.replication"), "{warning}");
    keyspace.drop().await;
}

#[tokio::test]
async fn a_keyspace_keeps_the_case_of_its_name() {
    let mut keyspace = Keyspace::new().await;
    keyspace.servers.path = keyspace.name.replacen("test_", "Test_", 1);
    schema::apply(&keyspace.servers, &options(), false).await.unwrap();
    let store = Scylla::open(&keyspace.servers, &options()).await.unwrap();
    assert_eq!(store.epochs("t").await.unwrap(), []);
    keyspace.name = format!("\"{}\"", keyspace.servers.path);
    keyspace.drop().await;
}

#[test]
fn a_store_without_tables_of_its_own_is_wrong_usage() {
    let (code, _, err) = schema_command(&["apply"]);
    assert!(code == 2 && err.contains("--store scylla://"), "{err}");
    let (code, out, _) = schema_command(&["print"]);
    assert!(code == 0 && out.starts_with("CREATE KEYSPACE IF NOT EXISTS \"tallymark\""), "{out}");
}
