//! What somebody writes into Redis by hand: the next publish counts it as drift and rewrites it; what no publish can reach,
//! because it claims packs that the log does not have, or cannot be read, is forgotten and loaded again.

use std::sync::Arc;

use tallymark::{
    hot::{HotKey, HotKind, HotView as _, LoadedBase, View, redis::Redis},
    item::Seq,
};

use super::super::{
    fixture::World,
    packs::{key, pack},
};
use crate::redis::server::Server;

const SERIES: &str = "visits k=a";

struct Bench {
    world: World,
    view: Arc<Redis>,
    server: Server,
    entry: HotKey,
    name: Vec<u8>,
    base: String,
}

impl Bench {
    /// A series that counts 5 as of seq 0, loaded, and a worker beside it.
    async fn new() -> (Self, super::super::fixture::Running) {
        let server = Server::start(&[]).await;
        let view = Arc::new(server.view());
        let mut world = World::new(1).await;
        world.hot = view.clone();
        let entry = HotKey { kind: HotKind::Series, key: key(SERIES).into() };
        let name = view.key_of(&entry);
        let lane = world.lane(0);
        world.append(0, pack().add(SERIES, 5)).await;
        let running = world.start();
        running.stored(0, 1).await;
        let token = view.begin_load(&entry).await.unwrap();
        let loaded = LoadedBase { lane, base: Some((5, Seq(0))) };
        assert!(view.finish_load(&entry, token, &[loaded], &[]).await.unwrap());
        let fields: Vec<String> = server.ask_of("HKEYS", &name, &[]).await;
        let base = fields.into_iter().find(|field| field.starts_with("b:")).unwrap();
        (Self { world, view, server, entry, name, base }, running)
    }

    async fn view(&self) -> View {
        self.view.read(std::slice::from_ref(&self.entry)).await.unwrap().remove(0)
    }

    /// Counts one more, and waits until this is what is shown.
    async fn counts_and_shows(&self, expected: View) {
        self.world.append(0, pack().add(SERIES, 1)).await;
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
        while self.view().await != expected {
            assert!(tokio::time::Instant::now() < deadline, "it shows {:?}", self.view().await);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn a_base_that_was_garbled_in_redis_is_rewritten_by_the_next_publish() {
    let (bench, running) = Bench::new().await;
    let () = bench.server.ask_of("HSET", &bench.name, &[&bench.base, "999@0"]).await;
    assert_eq!(bench.view().await, View::Full { total: 999, stale: false });
    bench.counts_and_shows(View::Full { total: 6, stale: false }).await;
    running.stop().await;
}

#[tokio::test]
async fn an_entry_in_redis_that_names_packs_which_the_log_does_not_have_is_forgotten() {
    let (bench, running) = Bench::new().await;
    let () = bench.server.ask_of("HSET", &bench.name, &[&bench.base, "999@900000"]).await;
    bench.counts_and_shows(View::Miss).await;
    running.stop().await;

    let (bench, running) = Bench::new().await;
    let pending = format!("p:{}:900000", bench.base.strip_prefix("b:").unwrap());
    let () = bench.server.ask_of("HSET", &bench.name, &[&pending, "1000"]).await;
    assert_eq!(bench.view().await, View::Full { total: 1005, stale: false });
    bench.counts_and_shows(View::Miss).await;
    running.stop().await;
}

#[tokio::test]
async fn an_entry_in_redis_with_fields_that_are_not_ours_is_forgotten_and_can_be_loaded_again() {
    let (bench, running) = Bench::new().await;
    let () = bench.server.ask_of("HSET", &bench.name, &["name", "x"]).await;
    assert_eq!(bench.view().await, View::Miss);
    bench.world.append(0, pack().add(SERIES, 1)).await;
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while bench.server.ask_of::<i64>("EXISTS", &bench.name, &[]).await == 1 {
        assert!(tokio::time::Instant::now() < deadline, "it stays");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    running.stop().await;
}
