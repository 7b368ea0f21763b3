//! Generations: the same for as long as a node runs, whatever becomes of the connections to it, and another one after it
//! was started again.

use std::time::{Duration, Instant};

use tallymark::{
    retry::Kind,
    store::{
        Generation, Ledger as _, Options,
        scylla::{Scylla, schema},
    },
    units::Span,
};

use super::node::Node;
use crate::{
    support_scylla::{Keyspace, options, servers},
    support_wire::Wire,
};

type Told = Vec<(String, Option<Generation>)>;

async fn ask(store: &Scylla) -> Told {
    let told = store.generations().await.into_iter();
    told.map(|(node, told)| {
        if let Err(error) = &told {
            assert_eq!(error.kind, Kind::Transient, "{error}");
        }
        (node, told.ok())
    })
    .collect()
}

fn is_whole(told: &Told) -> bool {
    !told.is_empty() && told.iter().all(|(_, told)| told.is_some())
}

/// Asks until the answer is as it should be.
async fn until(what: &str, store: &Scylla, wanted: impl Fn(&Told) -> bool) -> Told {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let told = ask(store).await;
        if wanted(&told) {
            return told;
        }
        assert!(Instant::now() < deadline, "waited too long until {what}: {told:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_lost_changes_no_generation() {
    let keyspace = Keyspace::applied().await;
    let wire = Wire::to_store().await;
    let through = servers(&format!("scylla://{}/{}", wire.address, keyspace.name));
    let options = Options { timeout: Span::from_millis(500), ..options() };
    let store = Scylla::open(&through, &options).await.unwrap();
    let before = until("all nodes answer", &store, is_whole).await;
    wire.cut();
    until("the wire is cut", &store, |told| told.iter().any(|(_, told)| told.is_none())).await;
    wire.mend();
    assert_eq!(until("all nodes answer again", &store, is_whole).await, before);
    let another = Scylla::open(&keyspace.servers, &options).await.unwrap();
    assert_eq!(ask(&another).await, before, "and whoever asks is told the same");
    drop(wire);
    keyspace.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_killed_and_started_again_has_another_generation() {
    let node = tokio::task::spawn_blocking(Node::start).await.unwrap();
    let servers = servers(&format!("scylla://{}/restarts", node.address()));
    schema::apply(&servers, &options(), false).await.unwrap();
    let store = Scylla::open(&servers, &options()).await.unwrap();
    let before = ask(&store).await;
    assert!(is_whole(&before) && before.len() == 1, "{before:?}");
    node.kill();
    until("it is known to be gone", &store, |told| told.iter().all(|(_, told)| told.is_none())).await;
    let node = tokio::task::spawn_blocking(move || {
        node.start_again();
        node
    });
    let node = node.await.unwrap();
    let after = until("it answers again", &store, is_whole).await;
    assert_eq!((&after[0].0, after.len()), (&before[0].0, 1), "it keeps its name");
    assert_ne!(after, before);
    drop(store);
    tokio::task::spawn_blocking(move || drop(node)).await.unwrap();
}
