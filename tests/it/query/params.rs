//! What is refused before anything is looked up.

use std::sync::atomic::Ordering;

use crate::support_query::World;

#[tokio::test]
async fn bad_parameters_are_refused_by_name_before_anything_is_looked_up() {
    let world = World::new().await;
    world.store.away.store(true, Ordering::Relaxed);
    world.log.away.store(true, Ordering::Relaxed);
    let long = "k".repeat(65);
    let value = "v".repeat(257);
    for (path, code) in [
        ("/v1/counters?x=1", "unknown_parameter"),
        ("/v1/counters?limit=0", "out_of_range"),
        ("/v1/counters?limit=1001", "out_of_range"),
        ("/v1/counters?limit=ten", "malformed"),
        ("/v1/counters?limit=", "malformed"),
        ("/v1/counters?limit=1&limit=1", "repeated_parameter"),
        ("/v1/counters?cursor=!", "malformed"),
        ("/v1/counters?cursor=c2Rl", "malformed"),
        ("/v1/counters/1bad", "malformed"),
        ("/v1/counters/a%20b", "malformed"),
        ("/v1/counters/a%FF", "malformed"),
        ("/v1/counters/a%2", "malformed"),
        (&*format!("/v1/counters/{}", "a".repeat(129)), "malformed"),
        ("/v1/counters/a?limit=5", "unknown_parameter"),
        ("/v1/counters/a?tag=5", "unknown_parameter"),
        ("/v1/counters/a?tag.=5", "empty"),
        ("/v1/counters/a?tag.1x=5", "malformed"),
        ("/v1/counters/a?tag.x=1&tag.x=2", "repeated_parameter"),
        ("/v1/counters/a?tag.x=%00", "malformed"),
        (&*format!("/v1/counters/a?tag.x={value}"), "too_long"),
        (&*format!("/v1/counters/a?tag.{long}=1"), "too_long"),
        ("/v1/counters/a?by=", "empty"),
        ("/v1/counters/a?by=x,", "empty"),
        ("/v1/counters/a?by=x,x", "malformed"),
        ("/v1/counters/a?by=x/y", "malformed"),
        ("/v1/counters/a?top=5", "malformed"),
        ("/v1/counters/a?by=x&top=0", "out_of_range"),
        ("/v1/counters/a?by=x&top=-1", "malformed"),
        ("/v1/counters/a?consistency=strong", "malformed"),
        ("/v1/counters/a?at_least=zzz", "malformed"),
        ("/v1/counters/a?timeout=2s", "malformed"),
        ("/v1/counters/a?at_least=AQ&timeout=soon", "malformed"),
        ("/v1/counters/a?grain=hour", "unsupported"),
        ("/v1/counters/a?from=0&to=1", "unsupported"),
        ("/v1/series", "missing"),
        ("/v1/series?counter=1", "malformed"),
        ("/v1/series?counter=", "malformed"),
        ("/v1/series?counter=a&tag.x=1", "unknown_parameter"),
        ("/v1/events", "missing"),
        ("/v1/events?name=", "empty"),
        ("/v1/events?name=a%0Ab", "malformed"),
        (&*format!("/v1/events?subject={value}"), "too_long"),
        ("/v1/events?name=a&from=yesterday", "malformed"),
        ("/v1/events?name=a&from=2&to=1", "out_of_range"),
        ("/v1/events?name=a&cursor=Y2E", "malformed"),
        ("/v1/events?name=a&id=1", "unknown_parameter"),
        ("/v1/receipts/zzz", "malformed"),
        ("/v1/receipts/zzz?x=1", "unknown_parameter"),
    ] {
        assert_eq!(world.refused(path).await, (400, code.to_owned()), "{path}");
    }
    for path in ["/v1/counters", "/v1/counters/a", "/v1/series?counter=a", "/v1/events?name=a", "/v1/receipts/zzz"] {
        let (status, body) = world.get_in(Some("No"), path).await;
        assert_eq!((status, body["code"].as_str()), (400, Some("malformed")), "{path}");
    }
}
