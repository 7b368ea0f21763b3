//! The topic's settings: made as the laws need them, and explained where they are otherwise.

use std::process::Command;

use tallymark::{
    log::{
        Options,
        kafka::topic::{Created, Report, check},
    },
    retry::Kind,
};
use tokio::time::{Duration, Instant};

use super::{
    partitions,
    support::{Topic, needs, servers},
};

fn settings(report: &Report) -> Vec<&str> {
    report.refused().map(|finding| finding.setting.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_is_made_once_and_fits() {
    let topic = Topic::new();
    let Created::Made(report) = topic.create(&partitions(5)).await.unwrap() else { panic!("there was one already") };
    assert_eq!((report.partitions, report.replication, settings(&report)), (5, 1, vec![]));
    // One copy is a choice that is pointed out.
    assert!(report.warnings().any(|finding| finding.setting == "replication factor"));
    assert!(report.max_message_bytes >= 4 << 20);
    let again = topic.create(&partitions(5)).await.unwrap();
    assert_eq!(again, Created::Existing(report));
    topic.open(&partitions(0)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_setting_that_breaks_a_law_is_named_and_the_log_refused() {
    let topic = Topic::new();
    topic
        .create_with(
            2,
            &[
                ("message.timestamp.type", "CreateTime"),
                ("cleanup.policy", "compact"),
                ("unclean.leader.election.enable", "true"),
                ("retention.ms", "60000"),
                ("max.message.bytes", "100000"),
            ],
        )
        .await;
    let report = check(&topic.servers(), &partitions(0), &needs()).await.unwrap();
    let wrong = [
        "message.timestamp.type",
        "cleanup.policy",
        "unclean.leader.election.enable",
        "retention.ms",
        "max.message.bytes",
    ];
    assert_eq!(settings(&report), wrong);
    for finding in report.refused() {
        assert!(finding.remedy.contains(&format!("--add-config {}=", finding.setting)), "{finding}");
    }
    let error = topic.open(&partitions(0)).await.err().unwrap();
    assert_eq!(error.kind, Kind::Fatal);
    assert!(error.to_string().contains("message.timestamp.type is CreateTime, must be LogAppendTime"), "{error}");
    let Created::Existing(left) = topic.create(&partitions(0)).await.unwrap() else { panic!("it was there") };
    assert_eq!(left, report, "left as it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_topic_is_refused_with_the_command_that_makes_it() {
    let topic = Topic::new();
    for error in [
        topic.open(&Options::default()).await.err().unwrap(),
        check(&topic.servers(), &Options::default(), &needs()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind, Kind::Fatal);
        assert!(error.to_string().contains("`tallymark topic create`"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_copies_than_brokers_are_refused_with_the_choice() {
    let topic = Topic::new();
    let options = Options { replication: 3, ..Options::default() };
    let error = tallymark::log::kafka::topic::create(&topic.servers(), &options, &needs()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Fatal);
    assert!(error.to_string().contains("log.replication=1"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_partition_count_than_was_asked_for_is_refused() {
    let topic = Topic::new();
    topic.create(&partitions(2)).await.unwrap();
    let error = topic.open(&partitions(4)).await.err().unwrap();
    assert!(error.to_string().contains("log.partitions=2"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_that_are_away_at_start_are_named_within_ten_seconds() {
    let began = Instant::now();
    let servers = servers("kafka://127.0.0.1:1/packs");
    let error = tallymark::log::kafka::Kafka::open(&servers, &Options::default(), &needs()).await.err().unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(error.kind, Kind::Transient);
    let text = error.to_string();
    assert!(text.contains("127.0.0.1:1") && text.contains("refused"), "{text}");
}

/// Exit code, stdout, stderr.
fn command(arguments: &[&str]) -> (i32, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallymark"));
    // Those that say where the servers are would be unknown settings.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TALLYMARK_")) {
        command.env_remove(name);
    }
    let output = command.current_dir(&dir).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_make_look_explain_and_end_with_the_verdict() {
    let topic = Topic::new();
    let url = format!("kafka://{}/{}", topic.brokers, topic.name);
    let (code, _, err) = command(&["topic", "check", "--log", &url]);
    assert_eq!(code, 1);
    assert!(err.contains("`tallymark topic create`"), "{err}");
    let (code, _, err) = command(&["topic", "create", "--log", &url]);
    assert_eq!(code, 1);
    assert!(err.contains("log.replication=1"), "{err}");

    topic.will_be_made();
    let create = ["topic", "create", "--log", &url, "--set", "log.replication=1", "--set", "log.partitions=3"];
    let (code, out, err) = command(&create);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("made: id ") && out.contains("3 partitions"), "{out}");
    let (code, out, _) = command(&create);
    assert_eq!(code, 0);
    assert!(out.contains("is there already"), "{out}");
    let (code, out, _) = command(&["topic", "check", "--log", &url, "--json"]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["partitions"]), (0, &serde_json::json!(3)));
    assert!(report["findings"].as_array().unwrap().iter().all(|finding| finding["refused"] == false), "{out}");

    // The window grew past what the topic keeps.
    let (code, out, err) = command(&["topic", "check", "--log", &url, "--set", "dedup.window=30d"]);
    assert_eq!(code, 1);
    assert!(out.contains("wrong: retention.ms is 604800000") && out.contains("--add-config retention.ms="), "{out}");
    assert_eq!(err.lines().count(), 1, "{err}");

    let (code, _, err) = command(&["topic", "check", "--log", "kafka://127.0.0.1:1/packs"]);
    assert_eq!(code, 3);
    assert!(err.contains("log.url") && err.contains("127.0.0.1:1"), "{err}");
    let (code, out, _) = command(&["topic", "create"]);
    assert_eq!(code, 0);
    assert!(out.contains("embedded"), "{out}");
}
