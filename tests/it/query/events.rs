//! Events: by name, by subject, newest first, page by page.

use serde_json::{Value, json};

use crate::support_query::World;

const NOON: i64 = 1_769_860_800_000;

async fn ids(world: &World, query: &str) -> Vec<String> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    for _ in 0..200 {
        let body = world.ok(&format!("/v1/events?{query}{cursor}")).await;
        let events = body["events"].as_array().unwrap();
        all.extend(
            events.iter().map(|event| format!("{}:{}", event["name"].as_str().unwrap(), event["id"].as_str().unwrap())),
        );
        match body.get("next_cursor").and_then(Value::as_str) {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
    panic!("{query} has no end");
}

#[tokio::test]
async fn an_event_reads_as_it_was_sent() {
    let world = World::new().await;
    world
        .event(
            "signup",
            Some("user 17"),
            NOON,
            "evt_42",
            r#"{"plan": "pro", "big": 12345678901234567890123, "f": 1.0}"#,
        )
        .await;
    world.event("signup", None, NOON - 1, "evt_41", "").await;
    let body = world.ok("/v1/events?name=signup").await;
    let text = serde_json::to_string(&body["events"][1]).unwrap();
    assert_eq!(text, r#"{"id":"evt_41","name":"signup","time":"2026-01-31T11:59:59.999Z"}"#);
    let first = &body["events"][0];
    assert_eq!((&first["subject"], &first["time"]), (&json!("user 17"), &json!("2026-01-31T12:00:00.000Z")));
    assert_eq!(first["properties"]["plan"], "pro");
    assert!(body.get("next_cursor").is_none());
    let raw = world.raw("/v1/events?subject=user+17").await;
    assert!(raw.contains(r#""properties":{"plan": "pro", "big": 12345678901234567890123, "f": 1.0}"#), "{raw}");
}

#[tokio::test]
async fn events_of_a_name_come_newest_first_within_their_time() {
    let world = World::new().await;
    for at in 0..40 {
        world.event("e", None, NOON + at / 3 * 1000, &format!("{at:02}"), "").await;
        world.event("other", None, NOON + at, &format!("{at:02}"), "").await;
    }
    let mut expected: Vec<_> = (0..40).map(|at| format!("e:{at:02}")).collect();
    expected.reverse();
    for limit in [1, 3, 7, 40, 1000] {
        assert_eq!(ids(&world, &format!("name=e&limit={limit}")).await, expected, "by {limit}");
    }
    let middle = format!("name=e&from={}&to=2026-01-31T12:00:03Z", NOON + 1000);
    assert_eq!(ids(&world, &middle).await, ["e:08", "e:07", "e:06", "e:05", "e:04", "e:03"]);
    assert_eq!(ids(&world, "name=e&from=2026-01-31T13:00:03%2B01:00&to=2026-01-31T13:00:03+01:00").await, [""; 0]);
    assert_eq!(ids(&world, "name=nothing").await, [""; 0]);
}

#[tokio::test]
async fn events_of_a_subject_that_share_time_and_id_are_all_paged() {
    let world = World::new().await;
    let mut expected = Vec::new();
    for at in 0..30 {
        let name = format!("n{at:02}");
        world.event(&name, Some("s"), NOON, "same", "").await;
        expected.insert(0, format!("{name}:same"));
    }
    world.event("n00", Some("s"), NOON - 1, "same", "").await;
    expected.push("n00:same".into());
    for limit in [1, 4, 30, 31] {
        assert_eq!(ids(&world, &format!("subject=s&limit={limit}")).await, expected, "by {limit}");
    }
    assert_eq!(ids(&world, "subject=s&name=n00&limit=1").await, ["n00:same", "n00:same"]);
    assert_eq!(ids(&world, "subject=s&name=n07").await, ["n07:same"]);
    assert_eq!(ids(&world, "subject=t").await, [""; 0]);
}

#[tokio::test]
async fn a_run_of_one_time_and_id_that_is_longer_than_a_read_is_passed() {
    let world = World::new().await;
    for at in 0..350 {
        world.event(&format!("n{at:03}"), Some("s"), NOON, "same", "").await;
    }
    assert_eq!(ids(&world, "subject=s&limit=3").await.len(), 350);
    assert_eq!(ids(&world, "subject=s&name=n000&limit=3").await, ["n000:same"]);
}
