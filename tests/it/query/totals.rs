//! Totals: plain, filtered, grouped, from either view, and not before a receipt counts.

use serde_json::{Value, json};
use tallymark::{
    item::{Seq, TopicId},
    receipt::Receipt,
};

use crate::support_query::{Setup, World, topic_id};

async fn some_views(world: &World) {
    for (path, country, amount) in [("/docs", "fr", 1), ("/docs", "de", 2), ("/dogs", "fr", 4), ("/", "fr", 8)] {
        world.count("page_views", &[("path", path), ("country", country)], amount).await;
    }
    world.count("page_views", &[], 16).await;
}

#[tokio::test]
async fn a_total_shows_what_is_acknowledged_at_once_and_what_is_stored_for_good() {
    let world = World::new().await;
    some_views(&world).await;
    let body = world.ok("/v1/counters/page_views").await;
    assert_eq!(body["total"], 31);
    assert_eq!(body["counter"], "page_views");
    assert_eq!(body["tags"], json!({}));
    assert_eq!(body["source"], "hot");
    assert!(body.get("groups").is_none(), "{body}");
    world.flush().await;
    world.count("page_views", &[], -40).await;
    let body = world.ok("/v1/counters/page_views").await;
    assert_eq!((&body["total"], &body["stale"]), (&json!(-9), &json!(false)));
    let stored = world.ok("/v1/counters/page_views?consistency=stored").await;
    assert_eq!((&stored["total"], &stored["source"], &stored["stale"]), (&json!(31), &json!("store"), &json!(true)));
}

#[tokio::test]
async fn a_total_says_how_old_it_is() {
    let world = World::new().await;
    world.count("a", &[], 1).await;
    world.flush().await;
    let fresh = world.ok("/v1/counters/a?consistency=stored").await;
    assert_eq!((&fresh["stale"], &fresh["lag_ms"]), (&json!(false), &json!(0)));
    world.count("a", &[], 1).await;
    world.lag_ms.store(86_400_000, std::sync::atomic::Ordering::Relaxed);
    let stale = world.ok("/v1/counters/a?consistency=stored").await;
    assert_eq!((&stale["stale"], &stale["lag_ms"]), (&json!(true), &json!(86_400_000)));
    let at = |body: &Value| body["as_of"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond();
    assert!(at(&fresh) - at(&stale) > 80_000_000, "a stale answer is as old as the lag: {stale}");
    world.lag_ms.store(-1, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(world.ok("/v1/counters/a").await["lag_ms"], Value::Null);
}

#[tokio::test]
async fn a_filter_counts_the_series_that_have_all_its_tags() {
    let world = World::new().await;
    some_views(&world).await;
    world.count("page_views", &[("path", "100%,*"), ("q", r"a\b")], 64).await;
    world.flush().await;
    for (query, total) in [
        ("tag.path=/docs", 3),
        ("tag.path=/docs&tag.country=fr", 1),
        ("tag.country=fr", 13),
        ("tag.country=es", 0),
        ("tag.path=/do*", 7),
        ("tag.path=*", 79),
        ("tag.path=%2Fdocs&tag.country=*", 3),
        ("tag.path=100%25,%5C*", 64),
        ("tag.path=100*&tag.q=a%5Cb", 64),
        ("tag.path=/&tag.country=fr", 8),
        ("tag.lang=", 0),
    ] {
        let body = world.ok(&format!("/v1/counters/page_views?{query}")).await;
        assert_eq!(body["total"], total, "{query}");
        assert_eq!((&body["source"], &body["stale"]), (&json!("store"), &json!(false)));
    }
    let body = world.ok("/v1/counters/page_views?tag.path=/do*&tag.country=fr").await;
    assert_eq!(body["tags"], json!({"country": "fr", "path": "/do*"}));
    assert_eq!(world.refused("/v1/counters/nope?tag.path=/docs").await, (404, "unknown_counter".into()));
}

#[tokio::test]
async fn a_filtered_total_of_a_counter_that_is_not_stored_yet_is_zero_and_stale() {
    let world = World::new().await;
    world.count("new", &[("a", "b")], 1).await;
    for query in ["tag.a=b", "by=a"] {
        let body = world.ok(&format!("/v1/counters/new?{query}")).await;
        assert_eq!((&body["total"], &body["stale"]), (&json!(0), &json!(true)), "{query}");
    }
}

#[tokio::test]
async fn groups_are_the_largest_first_with_the_rest_and_the_whole() {
    let world = World::new().await;
    some_views(&world).await;
    world.flush().await;
    let body = world.ok("/v1/counters/page_views?by=path&top=2").await;
    let group = |path: &str, total: i64| json!({"tags": {"path": path}, "total": total});
    assert_eq!(body["groups"], json!([group("", 16), group("/", 8)]));
    assert_eq!((&body["other"], &body["total"]), (&json!(7), &json!(31)));
    let body = world.ok("/v1/counters/page_views?by=path&tag.country=fr").await;
    assert_eq!(body["groups"], json!([group("/", 8), group("/dogs", 4), group("/docs", 1)]));
    assert_eq!((&body["other"], &body["total"]), (&json!(0), &json!(13)));
    let body = world.ok("/v1/counters/page_views?by=country,path&top=1&tag.path=/d*").await;
    assert_eq!(body["groups"], json!([{"tags": {"country": "fr", "path": "/dogs"}, "total": 4}]));
    assert_eq!(body["other"], 3);
}

#[tokio::test]
async fn a_sum_past_64_bits_is_refused_and_one_at_the_edge_is_not() {
    let world = World::new().await;
    world.count("big", &[("a", "1")], i64::MAX).await;
    assert_eq!(world.ok("/v1/counters/big").await["total"], i64::MAX);
    world.count("big", &[("a", "2")], 1).await;
    assert_eq!(world.refused("/v1/counters/big").await, (422, "overflow".into()));
    world.flush().await;
    for query in ["", "?consistency=stored", "?by=a", "?tag.a=*"] {
        assert_eq!(world.refused(&format!("/v1/counters/big{query}")).await, (422, "overflow".into()), "{query}");
    }
    assert_eq!(world.ok("/v1/counters/big?tag.a=1").await["total"], i64::MAX);
    world.count("big", &[("a", "3")], -1).await;
    assert_eq!(world.ok("/v1/counters/big").await["total"], i64::MAX);
    world.count("low", &[], i64::MIN).await;
    assert_eq!(world.ok("/v1/counters/low").await["total"], i64::MIN);
    world.count("low", &[], -1).await;
    assert_eq!(world.refused("/v1/counters/low").await, (422, "overflow".into()));
}

#[tokio::test]
async fn namespaces_do_not_see_each_other() {
    let world = World::new().await;
    world.count_in("acme", "visits", &[("a", "b")], 3).await;
    world.count("visits", &[("a", "b")], 4).await;
    world.flush().await;
    for (namespace, total) in [(Some("acme"), 3), (Some("default"), 4), (None, 4)] {
        for path in ["/v1/counters/visits", "/v1/counters/visits?tag.a=b", "/v1/counters/visits?consistency=stored"] {
            assert_eq!(world.get_in(namespace, path).await.1["total"], total, "{path}");
        }
    }
    assert_eq!(world.get_in(Some("other"), "/v1/counters/visits").await.0, 404);
    assert_eq!(world.get_in(Some("Acme"), "/v1/counters/visits").await.1["code"], "malformed");
}

#[tokio::test]
async fn a_name_may_hold_slashes_and_colons_encoded_or_not() {
    let world = World::new().await;
    world.count("http/requests:total", &[], 3).await;
    for path in ["http/requests:total", "http%2Frequests%3Atotal"] {
        assert_eq!(world.ok(&format!("/v1/counters/{path}")).await["counter"], "http/requests:total");
    }
}

#[tokio::test]
async fn rows_of_older_lives_of_the_topic_count() {
    let world = World::new().await;
    world.count("c", &[], 1).await;
    world.older_life("c", 100).await;
    assert_eq!(world.ok("/v1/counters/c").await["total"], 101);
    world.flush().await;
    assert_eq!(world.ok("/v1/counters/c").await["total"], 101);
    for path in ["/v1/counters/c?consistency=stored", "/v1/counters/c?by=x"] {
        assert_eq!(world.ok(path).await["total"], 101, "{path}");
    }
    let series = world.ok("/v1/series?counter=c").await;
    assert_eq!(series["series"], json!([{"counter": "c", "tags": {}, "total": 101}]));
}

#[tokio::test]
async fn too_many_series_for_one_query_is_said() {
    let mut setup = Setup::default();
    setup.query.max_series = 10;
    let world = World::with(setup).await;
    for at in 0..11 {
        world.count("wide", &[("n", &at.to_string())], 1).await;
    }
    world.flush().await;
    assert_eq!(world.refused("/v1/counters/wide?by=n").await, (422, "too_many_series".into()));
    assert_eq!(world.ok("/v1/counters/wide").await["total"], 11);
}

#[tokio::test]
async fn the_hot_view_alone_answers_or_says_that_it_cannot() {
    let world = World::new().await;
    world.count("c", &[("a", "b")], 5).await;
    assert_eq!(world.refused("/v1/counters/c?consistency=hot").await, (404, "not_hot".into()));
    world.ok("/v1/counters/c").await;
    let body = world.ok("/v1/counters/c?consistency=hot").await;
    assert_eq!((&body["total"], &body["source"]), (&json!(5), &json!("hot")));
    assert_eq!(world.refused("/v1/counters/c?consistency=hot&tag.a=b").await, (404, "not_hot".into()));
    let without = World::with(Setup { holds: false, ..Setup::default() }).await;
    without.count("c", &[], 5).await;
    without.flush().await;
    assert_eq!(without.refused("/v1/counters/c?consistency=hot").await, (404, "not_hot".into()));
    assert_eq!(without.ok("/v1/counters/c").await["source"], "store");
}

#[tokio::test]
async fn at_least_waits_until_the_receipt_counts() {
    let world = World::new().await;
    world.count("c", &[], 1).await;
    world.flush().await;
    world.ok("/v1/counters/c").await;
    // Written around the hot view: it cannot know.
    let receipt = world.log_only("default", "c", &[], 10);
    let path = format!("/v1/counters/c?at_least={receipt}");
    assert_eq!(world.refused(&format!("{path}&timeout=20ms")).await, (504, "timeout".into()));
    let late = format!("{path}&timeout=8s");
    let (body, ()) = tokio::join!(world.ok(&late), world.flush());
    assert_eq!((&body["total"], &body["source"]), (&json!(11), &json!("store")));
    let by = world.ok(&format!("{path}&by=x")).await;
    assert_eq!(by["total"], 11);
}

#[tokio::test]
async fn receipts_that_are_not_ours_are_refused() {
    let world = World::new().await;
    world.count("c", &[], 1).await;
    let foreign = Receipt { topic_id: TopicId([8; 16]), packs: vec![(0, Seq(0))] };
    let beyond = Receipt { topic_id: topic_id(), packs: vec![(77, Seq(0))] };
    for (receipt, code) in
        [(foreign.to_string(), "other_log"), (beyond.to_string(), "malformed"), ("x".into(), "malformed")]
    {
        assert_eq!(world.refused(&format!("/v1/receipts/{receipt}")).await, (400, code.into()));
        assert_eq!(world.refused(&format!("/v1/counters/c?at_least={receipt}")).await, (400, code.into()));
    }
}

#[tokio::test]
async fn a_receipt_of_an_earlier_life_of_the_topic_still_says_what_was_stored() {
    let world = World::new().await;
    world.count("c", &[], 1).await;
    world.older_life("c", 30).await;
    let former = world.older_lane_stored(1, 5).await;
    let receipt = |seq| Receipt { topic_id: former.topic_id, packs: vec![(1, Seq(seq))] };
    for (seq, stored) in [(5, true), (6, false)] {
        let body = world.ok(&format!("/v1/receipts/{}", receipt(seq))).await;
        assert_eq!(body["stored"], stored, "{seq}");
    }
    world.flush().await;
    assert_eq!(world.ok(&format!("/v1/counters/c?at_least={}", receipt(5))).await["total"], 31);
    let lost = format!("/v1/counters/c?at_least={}&timeout=20ms", receipt(6));
    assert_eq!(world.refused(&lost).await, (504, "timeout".into()));
    let beyond = Receipt { topic_id: former.topic_id, packs: vec![(77, Seq(0))] };
    assert_eq!(world.refused(&format!("/v1/receipts/{beyond}")).await, (400, "malformed".into()));
}

#[tokio::test]
async fn a_receipt_says_which_lanes_have_stored_it() {
    let world = World::new().await;
    let mut packs = vec![world.count("a", &[], 1).await.packs[0]];
    world.flush().await;
    let stored = Receipt { topic_id: topic_id(), packs: packs.clone() };
    let (partition, seq) = packs[0];
    let body = world.ok(&format!("/v1/receipts/{stored}")).await;
    assert_eq!(body, json!({"stored": true, "lanes": [{"partition": partition, "seq": seq, "stored": true}]}));
    packs.push((partition, seq.next()));
    let half = Receipt { topic_id: topic_id(), packs };
    let body = world.ok(&format!("/v1/receipts/{half}")).await;
    assert_eq!(body["stored"], false);
    assert_eq!(body["lanes"][1], json!({"partition": partition, "seq": seq.next(), "stored": false}));
    let nothing = Receipt { topic_id: topic_id(), packs: Vec::new() };
    assert_eq!(world.ok(&format!("/v1/receipts/{nothing}")).await, json!({"stored": true, "lanes": []}));
}
