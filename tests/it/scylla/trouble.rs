//! Servers that are away, come back, or do not answer.

use std::time::{Duration, Instant};

use tallymark::{
    item::{Epoch, Namespace, Seq, Shard, Stamp},
    retry::Kind,
    store::{Ledger as _, Options, RowName, ShardKey, TotalRow, Totals as _, scylla::Scylla},
    units::Span,
};
use tokio::net::TcpListener;

use crate::{
    support_scylla::{Keyspace, options, servers},
    support_wire::Wire,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_are_not_there_or_do_not_answer_are_named_within_ten_seconds() {
    // A port that nobody listens on, and one that takes connections and says nothing.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hosts = [
        free.to_string(),
        silent.local_addr().unwrap().to_string(),
        format!("{free},{}", silent.local_addr().unwrap()),
        "no-such-host.invalid:9042".to_owned(),
    ];
    for host in hosts {
        let started = Instant::now();
        let error = Scylla::open(&servers(&format!("scylla://{host}/k")), &options()).await.err().unwrap();
        assert!(started.elapsed() < Duration::from_secs(10), "{host}: {:?}", started.elapsed());
        assert!(error.kind == Kind::Transient && error.message.contains(&host), "{host}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_away_or_silent_is_written_to_again_without_a_restart() {
    let keyspace = Keyspace::applied().await;
    let wire = Wire::to_store().await;
    let through = servers(&format!("scylla://{}/{}", wire.address, keyspace.name));
    let options = Options { timeout: Span::from_millis(500), ..options() };
    let store = Scylla::open(&through, &options).await.unwrap();
    let key = ShardKey { namespace: Namespace::default(), shard: Shard(0), epoch: Epoch([7; 8]) };
    let row = |total: i128| TotalRow {
        name: RowName { counter: "c".into(), tags: "".into() },
        total,
        seq: Seq(total as u64),
        stamp: Stamp(total as i64),
    };
    let write = async |total: i128| store.write_totals(&key, &[row(total)]).await;
    let recovered = async |total: i128| {
        let started = Instant::now();
        while let Err(error) = write(total).await {
            assert_eq!(error.kind, Kind::Transient, "{error}");
            assert!(started.elapsed() < Duration::from_secs(40), "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(store.totals_named(&key, &[row(0).name]).await.unwrap(), [Some(row(total))]);
    };
    write(1).await.unwrap();

    wire.hush();
    let started = Instant::now();
    let error = write(2).await.unwrap_err();
    assert!(error.kind == Kind::Transient && error.message.contains("store.timeout"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
    wire.speak();
    recovered(3).await;

    wire.cut();
    let started = Instant::now();
    // A write that is under way when the wire is cut may have got through.
    while write(4).await.is_ok() {
        assert!(started.elapsed() < Duration::from_secs(5), "the wire is cut");
    }
    let error = write(5).await.unwrap_err();
    assert_eq!(error.kind, Kind::Transient, "{error}");
    wire.mend();
    recovered(6).await;
    drop(wire);
    drop(store);
    keyspace.drop().await;
}

#[tokio::test]
async fn tables_that_are_taken_away_are_no_passing_trouble() {
    let keyspace = Keyspace::applied().await;
    let store = Scylla::open(&keyspace.servers, &options()).await.unwrap();
    keyspace.run("DROP TABLE {ks}.checkpoints").await;
    let error = store.lanes("t").await.unwrap_err();
    assert_ne!(error.kind, Kind::Transient, "{error}");
    keyspace.drop().await;
}
