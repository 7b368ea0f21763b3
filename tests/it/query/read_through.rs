//! Reading through the hot view: one load at a time, what a load may miss, and what happens when a part is away.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::json;
use tallymark::units::Span;

use crate::support_query::{PARTITIONS, Setup, World, topic_id};

/// A process that has just started over what another left behind: nothing is hot.
async fn restarted(world: &World) -> World {
    let next = World::over(world.store.clone(), Setup::default());
    for partition in 0..PARTITIONS {
        next.log.set_end(partition, world.end(partition).await);
    }
    next
}

fn reads(world: &World) -> usize {
    world.store.reads.load(Ordering::Relaxed)
}

#[tokio::test]
async fn a_miss_is_loaded_once_and_then_answered_without_the_store() {
    let world = World::new().await;
    world.count("c", &[], 5).await;
    world.flush().await;
    let world = restarted(&world).await;
    assert_eq!(world.refused("/v1/counters/c?consistency=hot").await, (404, "not_hot".into()));
    let body = world.ok("/v1/counters/c").await;
    assert_eq!((&body["total"], &body["stale"]), (&json!(5), &json!(false)));
    let before = reads(&world);
    world.count("c", &[], 2).await;
    for _ in 0..10 {
        assert_eq!(world.ok("/v1/counters/c").await["total"], 7);
    }
    assert_eq!(reads(&world), before);
}

#[tokio::test]
async fn many_who_miss_at_once_share_one_load() {
    let world = World::new().await;
    world.count("c", &[], 5).await;
    world.flush().await;
    let alone = restarted(&world).await;
    let before = reads(&alone);
    alone.ok("/v1/counters/c").await;
    let one_load = reads(&alone) - before;

    let world = Arc::new(restarted(&world).await);
    let before = reads(&world);
    let gate = world.store.gate.write().await;
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let world = world.clone();
            tokio::spawn(async move { world.ok("/v1/counters/c").await })
        })
        .collect();
    // The load is held up in the store, with everybody behind it.
    while reads(&world) == before {
        tokio::task::yield_now().await;
    }
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    drop(gate);
    for answer in join_all(asking).await {
        assert_eq!(answer.unwrap()["total"], 5);
    }
    assert_eq!(reads(&world) - before, one_load);
}

#[tokio::test]
async fn one_who_hangs_up_does_not_take_the_load_from_the_others() {
    let world = World::new().await;
    world.count("c", &[], 5).await;
    world.flush().await;
    let world = Arc::new(restarted(&world).await);
    let before = reads(&world);
    let gate = world.store.gate.write().await;
    let ask = || {
        let world = world.clone();
        tokio::spawn(async move { world.ok("/v1/counters/c").await })
    };
    let first = ask();
    while reads(&world) == before {
        tokio::task::yield_now().await;
    }
    let second = ask();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    drop(gate);
    assert_eq!(second.await.unwrap()["total"], 5);
    // And when all hang up, the next one begins anew.
    let third = World::over(world.store.clone(), Setup::default());
    let gate = third.store.gate.write().await;
    assert!(tokio::time::timeout(Duration::from_millis(5), third.ok("/v1/counters/c")).await.is_err());
    drop(gate);
    assert_eq!(third.ok("/v1/counters/c").await["total"], 5);
}

#[tokio::test]
async fn what_went_by_before_a_load_makes_it_stale_until_the_lanes_pass_it() {
    let world = World::new().await;
    world.count("c", &[], 5).await;
    world.flush().await;
    let receipt = world.log_only("default", "c", &[], 2);
    let body = world.ok("/v1/counters/c").await;
    assert_eq!((&body["total"], &body["stale"]), (&json!(5), &json!(true)));
    world.flush().await;
    let body = world.ok("/v1/counters/c").await;
    assert_eq!((&body["total"], &body["stale"]), (&json!(7), &json!(false)));
    assert_eq!(receipt.topic_id, topic_id());
}

#[tokio::test]
async fn a_counter_is_known_from_its_first_acknowledgement_on() {
    let world = World::new().await;
    for _ in 0..3 {
        assert_eq!(world.refused("/v1/counters/new").await, (404, "unknown_counter".into()));
    }
    // Remembered as unknown just now, and counted all the same; an amount of zero counts too.
    world.count("new", &[("a", "b")], 0).await;
    assert_eq!(world.ok("/v1/counters/new").await["total"], 0);
    assert_eq!(world.ok("/v1/counters/new?consistency=stored").await["total"], 0);
}

#[tokio::test]
async fn unknown_counters_are_remembered_for_a_moment_and_make_no_entries() {
    let setup = Setup {
        hot: tallymark::hot::Options { negative_ttl: Span::from_secs(60), ..Setup::default().hot },
        ..Setup::default()
    };
    let world = World::with(setup).await;
    assert_eq!(world.refused("/v1/counters/nope").await, (404, "unknown_counter".into()));
    let before = reads(&world);
    for _ in 0..10 {
        assert_eq!(world.refused("/v1/counters/nope").await, (404, "unknown_counter".into()));
    }
    assert_eq!(reads(&world), before);
    // Whoever asks the store by name is not answered from memory.
    world.log_only("default", "nope", &[], 1);
    world.flush().await;
    assert_eq!(world.ok("/v1/counters/nope?consistency=stored").await["total"], 1);
}

#[tokio::test]
async fn without_a_hot_view_totals_come_from_the_store_and_say_what_they_may_miss() {
    let world = World::with(Setup { holds: false, ..Setup::default() }).await;
    assert_eq!(world.refused("/v1/counters/c").await, (404, "unknown_counter".into()));
    world.count("c", &[], 1).await;
    world.flush().await;
    let body = world.ok("/v1/counters/c").await;
    assert_eq!((&body["total"], &body["source"], &body["stale"]), (&json!(1), &json!("store"), &json!(false)));
    world.count("c", &[], 1).await;
    let body = world.ok("/v1/counters/c").await;
    assert_eq!((&body["total"], &body["stale"]), (&json!(1), &json!(true)));
}

#[tokio::test]
async fn with_the_store_away_what_is_hot_is_answered_and_the_rest_is_503() {
    let world = World::new().await;
    world.count("hot", &[("a", "b")], 1).await;
    world.count("cold", &[("a", "b")], 1).await;
    world.flush().await;
    world.ok("/v1/counters/hot").await;
    world.store.away.store(true, Ordering::Relaxed);
    assert_eq!(world.ok("/v1/counters/hot").await["total"], 1);
    let receipt = world.count("hot", &[], 1).await;
    for path in [
        "/v1/counters",
        "/v1/counters/cold",
        "/v1/counters/nope",
        "/v1/counters/hot?consistency=stored",
        "/v1/counters/hot?by=a",
        "/v1/series?counter=hot",
        "/v1/events?name=a",
        &format!("/v1/receipts/{receipt}"),
        &format!("/v1/counters/hot?at_least={receipt}&timeout=30ms"),
    ] {
        assert_eq!(world.refused(path).await, (503, "store_unavailable".into()), "{path}");
    }
    world.store.away.store(false, Ordering::Relaxed);
    assert_eq!(world.ok("/v1/counters/cold").await["total"], 1);
    assert_eq!(world.ok("/v1/counters/hot").await["total"], 2);
}

#[tokio::test]
async fn with_the_log_away_nobody_knows_what_is_missing() {
    let world = World::new().await;
    world.count("c", &[], 1).await;
    world.flush().await;
    let world = restarted(&world).await;
    world.log.away.store(true, Ordering::Relaxed);
    let body = world.ok("/v1/counters/c").await;
    assert_eq!((&body["total"], &body["source"], &body["stale"]), (&json!(1), &json!("store"), &json!(true)));
    world.log.away.store(false, Ordering::Relaxed);
    let body = world.ok("/v1/counters/c").await;
    assert_eq!((&body["source"], &body["stale"]), (&json!("hot"), &json!(false)));
}

#[tokio::test]
async fn a_query_that_takes_too_long_is_504() {
    let mut setup = Setup::default();
    setup.query.timeout = Span::from_millis(20);
    let world = World::with(setup).await;
    world.count("c", &[], 1).await;
    let gate = world.store.gate.write().await;
    for path in ["/v1/counters/c", "/v1/counters", "/v1/counters/c?by=a", "/v1/series?counter=c"] {
        assert_eq!(world.refused(path).await, (504, "timeout".into()), "{path}");
    }
    drop(gate);
    assert_eq!(world.ok("/v1/counters/c").await["total"], 1);
}
