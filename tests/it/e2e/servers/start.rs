//! What is missing, away or wrong at the start: named with its remedy, and the exit code says which it is.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use super::super::{
    place::Place,
    process::{block_on, wait_until},
};
use crate::{kafka::support::Topic, stack, support_scylla};

/// So soon an operator is told.
const AT_ONCE: Duration = Duration::from_secs(10);

/// How a role that cannot start has ended, within [`AT_ONCE`].
fn told(place: &Place, role: &str) -> (i32, String) {
    let began = Instant::now();
    let (code, stderr) = place.refused(role);
    assert!(began.elapsed() < AT_ONCE, "{role}: {:?}: {stderr}", began.elapsed());
    let said = stderr.lines().filter(|line| line.starts_with("error:")).count();
    assert_eq!(said, 1, "{role}: one line says it: {stderr}");
    (code, stderr)
}

#[test]
fn what_is_missing_is_named_with_the_command_that_makes_it() {
    let place = Place::new();
    for role in ["ingest", "worker"] {
        let (code, stderr) = told(&place, role);
        assert!(code == 1 && stderr.contains("tallymark topic create"), "{role}: {code}: {stderr}");
    }
    let (code, stdout, stderr) = place.command(&["topic", "create"]);
    assert!(code == 0 && stdout.contains("first start"), "{code}: {stdout}{stderr}");
    for role in ["ingest", "worker"] {
        let (code, stderr) = told(&place, role);
        assert!(code == 1 && stderr.contains("tallymark schema apply"), "{role}: {code}: {stderr}");
    }
}

#[test]
fn a_server_that_refuses_or_does_not_answer_is_named_within_ten_seconds() {
    // One port that nobody listens on, and one that takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    let made = Place::new().made();
    let away = |log: &str, store: &str| Place::at(&made.topic, &made.keyspace).log_at(log).store_at(store);
    let (kafka, store) = (stack::kafka(), stack::scylla());
    let places = [
        ("127.0.0.1:9", "log.url", away("127.0.0.1:9", &store)),
        (silent.as_str(), "log.url", away(&silent, &store)),
        ("127.0.0.1:9", "store.url", away(&kafka, "127.0.0.1:9")),
        (silent.as_str(), "store.url", away(&kafka, &silent)),
    ];
    std::thread::scope(|scope| {
        for (address, setting, place) in &places {
            for role in ["ingest", "worker"] {
                scope.spawn(move || {
                    let (code, stderr) = told(place, role);
                    let named = stderr.contains(address) && stderr.contains(setting);
                    assert!(code == 3 && named, "{role} without {address}: {code}: {stderr}");
                });
            }
        }
    });
}

#[test]
fn each_setting_of_a_topic_that_breaks_a_law_refuses_the_start_with_the_command_that_mends_it() {
    let wrong = [
        ("message.timestamp.type", "CreateTime"),
        ("cleanup.policy", "compact"),
        ("unclean.leader.election.enable", "true"),
        ("retention.ms", "60000"),
        ("max.message.bytes", "100000"),
    ];
    const GOOD: [(&str, &str); 2] = [("message.timestamp.type", "LogAppendTime"), ("cleanup.policy", "delete")];
    let place = Place::new();
    place.do_well(&["schema", "apply"]);
    std::thread::scope(|scope| {
        for (setting, value) in wrong {
            let keyspace = place.keyspace.clone();
            scope.spawn(move || {
                let mut settings = GOOD.to_vec();
                settings.retain(|(known, _)| *known != setting);
                settings.push((setting, value));
                let topic = Topic::new();
                block_on(topic.create_with(4, &settings));
                let place = Place::at(&topic.name, &keyspace);
                for role in ["ingest", "worker"] {
                    let (code, stderr) = told(&place, role);
                    assert!(code == 1 && stderr.contains(&format!("{setting} is {value}")), "{code}: {stderr}");
                }
                // The whole remedy is one command further.
                let (code, stdout, _) = place.command(&["topic", "check"]);
                let remedy = format!("--add-config {setting}=");
                assert!(code == 1 && stdout.contains("kafka-configs.sh") && stdout.contains(&remedy), "{stdout}");
            });
        }
        // Another count than the configuration asks for.
        let keyspace = place.keyspace.clone();
        scope.spawn(move || {
            let topic = Topic::new();
            block_on(topic.create_with(2, &GOOD));
            let place = Place::at(&topic.name, &keyspace);
            let (code, stderr) = told(&place, "worker");
            assert!(code == 1 && stderr.contains("log.partitions=2"), "{code}: {stderr}");
        });
    });
}

#[test]
fn tables_that_are_older_are_refused_with_the_command_and_newer_ones_are_used() {
    let place = Place::new().made();
    let version = tallymark::store::scylla::schema::VERSION;
    let versions = format!("{}.schema_versions", place.keyspace);
    let run = |cql: String| block_on(support_scylla::run(&cql));
    run(format!("INSERT INTO {versions} (part, version, file) VALUES ('tallymark', {}, 'later')", version + 1));
    // A rolling upgrade: the tables are brought up to date first, by the newer program.
    let worker = place.start("worker");
    assert!(worker.stop().success());
    let (code, _, stderr) = place.command(&["schema", "apply"]);
    assert!(code == 1 && stderr.contains("forward only"), "{code}: {stderr}");

    run(format!("DELETE FROM {versions} WHERE part = 'tallymark' AND version IN ({version}, {})", version + 1));
    for role in ["ingest", "worker"] {
        let (code, stderr) = told(&place, role);
        let named = stderr.contains("tallymark schema apply") && stderr.contains(&format!("needs {version}"));
        assert!(code == 1 && named, "{role}: {code}: {stderr}");
    }
    place.do_well(&["schema", "apply"]);
    let ingest = place.start("ingest");
    assert_eq!(ingest.post("/v1/increments", r#"{"counter": "c"}"#).0, 202);
    let worker = place.start("worker");
    wait_until("it is stored", || ingest.stored("c") == Some(1));
    assert!(worker.stop().success() && ingest.stop().success());
}
