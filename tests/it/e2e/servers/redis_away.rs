//! The hot view's server down, flushed, full and frozen: items are acknowledged as before, reads come from the store and say
//! so, nothing that lacks something is ever called fresh, and the view heals by itself.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::{
    place::Place,
    process::{Server, block_on, wait_until},
};
use crate::redis::server::Server as Redis;

/// So long an acknowledgement may take, on a busy machine, when the hot view is not waited for.
const PROMPT: Duration = Duration::from_secs(2);

/// One who counts and reads, and knows what must be there.
struct Client<'a> {
    ingest: &'a Server,
    counted: i64,
}

impl Client<'_> {
    /// Counts some more: acknowledged, and soon.
    fn count(&mut self) {
        let items: Vec<_> = (0..5)
            .map(|n| json!({"counter": "c", "tags": {"key": format!("k{n}")}, "id": format!("{}-{n}", self.counted)}))
            .collect();
        let began = Instant::now();
        let (status, answer) = self.ingest.post("/v1/increments", &json!(items).to_string());
        assert_eq!(status, 202, "{answer}");
        assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
        self.counted += 5;
    }

    /// What is answered now; it may be behind, but then it must say so.
    fn total(&self) -> Value {
        let (status, answer) = self.ingest.get("/v1/counters/c");
        assert_eq!(status, 200, "{answer}");
        let whole = answer["total"] == self.counted;
        assert!(whole || answer["stale"] == true, "{answer} is called fresh, and {} were acknowledged", self.counted);
        answer
    }

    /// Counting goes on; reads come from the store.
    fn does_without(&mut self, what: &str) {
        wait_until(what, || {
            self.count();
            self.total()["source"] == "store"
        });
        // Nothing is lacking in the store either, a flush later.
        wait_until("the store has it all, and it is said", || {
            let total = self.total();
            total["source"] == "store" && total["total"] == self.counted && total["stale"] == false
        });
    }

    /// The view is whole again, and follows.
    fn heals(&mut self) {
        let began = Instant::now();
        self.count();
        wait_until("the view is whole", || {
            let total = self.total();
            total["source"] == "hot" && total["stale"] == false && total["total"] == self.counted
        });
        eprintln!("whole after {:?}", began.elapsed());
        self.count();
        wait_until("and follows", || self.total()["source"] == "hot");
    }
}

#[test]
fn a_hot_view_that_is_down_flushed_full_or_frozen_is_done_without_and_heals() {
    let mut redis = block_on(Redis::start(&["--maxmemory-policy", "noeviction"]));
    let place = Place::new().hot_at(&redis.address()).made();
    let (ingest, worker) = (place.start("ingest"), place.start("worker"));
    let mut client = Client { ingest: &ingest, counted: 0 };
    client.heals();

    redis.kill();
    client.does_without("it is down");
    for server in [&ingest, &worker] {
        wait_until("it is degraded and ready", || {
            let (status, answer, hot) = server.readiness("hot");
            assert_eq!(status, 200, "{answer}");
            answer["status"] == "degraded" && hot["status"] == "failing" && hot["detail"].is_string()
        });
    }
    block_on(redis.start_again());
    client.heals();

    for _ in 0..3 {
        let () = block_on(redis.ask(&["FLUSHALL"]));
        client.count();
        client.total();
        client.heals();
    }

    let () = block_on(redis.ask(&["CONFIG", "SET", "maxmemory", "1"]));
    client.does_without("it is full");
    let () = block_on(redis.ask(&["CONFIG", "SET", "maxmemory", "0"]));
    client.heals();

    redis.freeze();
    client.does_without("it is frozen");
    redis.thaw();
    client.heals();

    for server in [&ingest, &worker] {
        wait_until("all is well", || server.readiness("hot").1["status"] == "ready");
    }
    ingest.settle_well();
    assert_eq!(ingest.stored("c"), Some(client.counted));
    assert!(worker.stop().success() && ingest.stop().success());
}
