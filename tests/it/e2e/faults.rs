//! kill −9 and what must be true afterwards.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::json;

use super::process::{Server, post, wait_until};

/// What a client knows: items by id, and whether they were acknowledged.
type Book = Arc<Mutex<BTreeMap<String, (String, bool)>>>;

/// Sends items with ids until told to stop; notes what was acknowledged.
fn send_until(stop: Arc<AtomicBool>, url: String, sender: usize, book: Book) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for round in 0.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let batch: Vec<_> =
                (0..20).map(|n| (format!("{sender}-{round}-{n}"), format!("k{}", (round + n) % 7))).collect();
            {
                let mut book = book.lock().unwrap();
                book.extend(batch.iter().map(|(id, key)| (id.clone(), (key.clone(), false))));
            }
            let items: Vec<_> =
                batch.iter().map(|(id, key)| json!({"counter": "load", "tags": {"key": key}, "id": id})).collect();
            if post(&format!("{url}/v1/increments"), &json!(items).to_string()).is_some_and(|(status, _)| status == 202)
            {
                let mut book = book.lock().unwrap();
                batch.iter().for_each(|(id, _)| book.get_mut(id).unwrap().1 = true);
            }
        }
    })
}

#[test]
fn kill_9_under_load_loses_nothing_and_a_retry_by_id_counts_once() {
    let data = tempfile::tempdir().unwrap();
    let book = Book::default();
    for round in 0..3 {
        let server =
            Server::start(data.path(), &["--set", "worker.checkpoint_delay=300ms", "--set", "worker.flush_age=100ms"]);
        let stop = Arc::new(AtomicBool::new(false));
        let senders: Vec<_> =
            (0..4).map(|n| send_until(stop.clone(), server.url.clone(), round * 10 + n, book.clone())).collect();
        let goal = 2_000 * (round + 1);
        wait_until("enough was acknowledged", || {
            book.lock().unwrap().values().filter(|(_, acked)| *acked).count() > goal
        });
        server.kill();
        stop.store(true, Ordering::Relaxed);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    }
    // What was acknowledged is there without a retry; then everything is sent again, as a client would.
    let server = Server::start(data.path(), &[]);
    server.settle();
    let all = book.lock().unwrap().clone();
    let acknowledged = all.values().filter(|(_, acked)| *acked).count() as i64;
    let stored = server.stored("load").unwrap();
    assert!((acknowledged..=all.len() as i64).contains(&stored), "{acknowledged} <= {stored} <= {}", all.len());
    for chunk in all.iter().collect::<Vec<_>>().chunks(1000) {
        let items: Vec<_> =
            chunk.iter().map(|(id, (key, _))| json!({"counter": "load", "tags": {"key": key}, "id": id})).collect();
        assert_eq!(server.post("/v1/increments", &json!(items).to_string()).0, 202);
    }
    server.settle();
    assert_eq!(server.stored("load"), Some(all.len() as i64));
    let (_, groups) = server.get("/v1/counters/load?by=key&top=10&consistency=stored");
    let mut expected: BTreeMap<&str, i64> = BTreeMap::new();
    all.values().for_each(|(key, _)| *expected.entry(key).or_default() += 1);
    for group in groups["groups"].as_array().unwrap() {
        assert_eq!(group["total"].as_i64(), expected.get(group["tags"]["key"].as_str().unwrap()).copied(), "{groups}");
    }
    assert_eq!(groups["groups"].as_array().unwrap().len(), expected.len());
}

#[test]
fn a_restart_goes_on_where_the_checkpoint_is_and_counts_nothing_twice() {
    let data = tempfile::tempdir().unwrap();
    for round in 1..=4 {
        let server = Server::start(data.path(), &["--set", "worker.checkpoint_delay=100ms"]);
        server.post("/v1/increments?ack=stored&timeout=20s", r#"{"counter": "c", "amount": 5}"#);
        assert_eq!(server.get("/v1/counters/c").1["total"], 5 * round);
        if round % 2 == 0 {
            server.kill();
        } else {
            assert!(server.stop().success());
        }
    }
}
