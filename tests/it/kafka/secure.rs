//! Encrypted connections and log-in, on a broker that asks for both.

use std::{path::Path, process::Command};

use bytes::Bytes;
use tallymark::{
    item::Seq,
    log::{
        Change, Log as _, Options,
        kafka::{Kafka, topic},
    },
    retry::Kind,
    units::Span,
};
use tokio::time::timeout;

use super::{
    broker::{Broker, Secure},
    support::{TIMEOUT, needs, servers},
};

/// A certificate for 127.0.0.1 that is its own authority: `ca.pem`, and `broker.pem` with its key.
fn certificate(dir: &Path) {
    let (key, ca) = (dir.join("key.pem"), dir.join("ca.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&ca)
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let both = std::fs::read_to_string(&key).unwrap() + &std::fs::read_to_string(&ca).unwrap();
    std::fs::write(dir.join("broker.pem"), both).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mechanism_logs_in_over_tls_and_a_wrong_password_is_named() {
    let dir = tempfile::tempdir().unwrap();
    certificate(dir.path());
    let keystore = dir.path().join("broker.pem");
    let broker = tokio::task::spawn_blocking(move || {
        Broker::start(Some(&Secure { keystore: &keystore, user: "tally", password: "p@ss" }))
    })
    .await
    .unwrap();
    let address = broker.secure_address();
    let options = |mechanism: &str| Options {
        partitions: 1,
        replication: 1,
        tls: true,
        ca_file: dir.path().join("ca.pem").display().to_string(),
        sasl_mechanism: mechanism.to_owned(),
        request_timeout: Span::from_secs(4),
        ..Options::default()
    };
    for (n, mechanism) in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"].into_iter().enumerate() {
        let servers = servers(&format!("kafka://tally:p%40ss@{address}/safe.{n}"));
        topic::create(&servers, &options(mechanism), &needs()).await.unwrap();
        let log = Kafka::open(&servers, &options(mechanism), &needs()).await.unwrap();
        let mut changes = log.join().await.unwrap();
        let change = timeout(TIMEOUT, changes.recv()).await.unwrap();
        assert!(matches!(change, Some(Change::Assigned(_))), "{mechanism}: {change:?}");
        log.append(0, 1, Bytes::from_static(b"safe")).await.unwrap();
        assert_eq!(log.read(0, Seq(0), 1).await.unwrap()[0].payload, Bytes::from_static(b"safe"));
    }

    let wrong = servers(&format!("kafka://tally:hunter2@{address}/safe.0"));
    let error = Kafka::open(&wrong, &options("SCRAM-SHA-256"), &needs()).await.err().unwrap();
    let text = error.to_string();
    assert_eq!(error.kind, Kind::Fatal, "{text}");
    assert!(text.contains("log.sasl_mechanism") && !text.contains("hunter2"), "{text}");

    // The certificate's authority is not the system's.
    let untrusting = Options { ca_file: String::new(), ..options("PLAIN") };
    let known = servers(&format!("kafka://tally:p%40ss@{address}/safe.0"));
    let error = Kafka::open(&known, &untrusting, &needs()).await.err().unwrap();
    assert!(error.to_string().contains("log.tls"), "{error}");
    drop(broker);
}
