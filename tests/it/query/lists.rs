//! Lists: a namespace's counters, a counter's series.

use serde_json::{Value, json};

use crate::support_query::World;

/// Every page of a list, and how many there were.
async fn pages(world: &World, path: &str, list: &str) -> (Vec<Value>, usize) {
    let (mut all, mut cursor, mut count) = (Vec::new(), String::new(), 0);
    loop {
        let mut body = world.ok(&format!("{path}{cursor}")).await;
        count += 1;
        all.append(body[list].as_array_mut().unwrap());
        match body.get("next_cursor") {
            Some(next) => cursor = format!("&cursor={}", next.as_str().unwrap()),
            None => return (all, count),
        }
        assert!(count < 1000, "{path} has no end");
    }
}

#[tokio::test]
async fn counters_are_listed_once_each_in_order_page_by_page() {
    let world = World::new().await;
    assert_eq!(world.ok("/v1/counters").await, json!({"counters": []}));
    let mut names: Vec<_> = (0..25).map(|at| format!("counter_{at}")).collect();
    for name in &names {
        for tag in ["a", "b", "c", "d"] {
            world.count(name, &[("tag", tag)], 1).await;
        }
    }
    world.count_in("acme", "theirs", &[], 1).await;
    world.flush().await;
    names.sort();
    let (all, _) = pages(&world, "/v1/counters?limit=1000", "counters").await;
    assert_eq!(all, names);
    for limit in [1, 7, 24, 25] {
        let (all, count) = pages(&world, &format!("/v1/counters?limit={limit}"), "counters").await;
        assert_eq!(all, names, "by {limit}");
        assert_eq!(count, 25_usize.div_ceil(limit), "by {limit}");
    }
    assert_eq!(world.get_in(Some("acme"), "/v1/counters").await.1, json!({"counters": ["theirs"]}));
}

#[tokio::test]
async fn series_are_listed_with_their_totals_page_by_page() {
    let world = World::new().await;
    let mut expected = Vec::new();
    for at in 0..60 {
        let value = format!("{at:02},\\");
        world.count("c", &[("n", &value), ("z", "")], at).await;
        expected.push(json!({"counter": "c", "tags": {"n": value, "z": ""}, "total": at}));
    }
    world.count("c", &[], 7).await;
    expected.insert(0, json!({"counter": "c", "tags": {}, "total": 7}));
    world.count("d", &[("n", "1")], 1).await;
    world.flush().await;
    for limit in [1, 13, 60, 61, 1000] {
        let (all, count) = pages(&world, &format!("/v1/series?counter=c&limit={limit}"), "series").await;
        assert_eq!(all, expected, "by {limit}");
        assert_eq!(count, 61_usize.div_ceil(limit), "by {limit}");
    }
    let body = world.ok("/v1/series?counter=c").await;
    assert_eq!((&body["source"], &body["stale"]), (&json!("store"), &json!(false)));
}

#[tokio::test]
async fn series_of_a_counter_that_nobody_has_counted_are_not_found() {
    let world = World::new().await;
    assert_eq!(world.refused("/v1/series?counter=nope").await, (404, "unknown_counter".into()));
    world.count("soon", &[("a", "b")], 1).await;
    let body = world.ok("/v1/series?counter=soon").await;
    assert_eq!((&body["series"], &body["stale"]), (&json!([]), &json!(true)));
}
