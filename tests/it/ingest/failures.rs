//! The log fails, hangs or is too slow; the buffer is full; ingest is told to stop.

use serde_json::json;
use tallymark::{
    ingest::{self, Deps, Options},
    item::Seq,
    progress::Progress,
    retry::Kind,
    units::{Size, Span},
};

use super::Rig;
use crate::support::{Lanes, MemoryLog, Told, until};

const PATH: &str = "/v1/increments";

fn counted(counter: &str) -> String {
    json!({"counter": counter, "id": "i"}).to_string()
}

fn batch(items: usize) -> String {
    let items: Vec<_> = (0..items).map(|n| json!({"counter": format!("c{n}"), "id": "i"})).collect();
    json!(items).to_string()
}

#[tokio::test]
async fn a_failed_append_is_a_503_for_everybody_in_the_pack_and_says_what_is_known() {
    let options = Options { linger: Span::from_millis(20), ..Options::default() };
    let rig = Rig::on(options, MemoryLog::new(1), Told::default());
    for (kind, known) in [
        (Kind::Permanent, "nothing was accepted"),
        (Kind::Transient, "may have been accepted"),
        (Kind::Fatal, "may have been accepted"),
    ] {
        rig.log.fail(Some(kind));
        let requests: Vec<_> = (0..5).map(|n| rig.post_soon(PATH, counted(&format!("c{n}")))).collect();
        for request in requests {
            let answer = request.await.unwrap();
            answer.is_problem(503, "log_unavailable");
            let detail = answer.json["detail"].as_str().unwrap();
            assert!(detail.contains(known) && detail.contains("retry with the same ids"), "{detail}");
        }
    }
    rig.log.fail(None);
    rig.post(PATH, &[], counted("c")).await.is_accepted(1);
    assert_eq!(rig.handle.buffered_bytes(), 0);
}

#[tokio::test]
async fn what_a_failed_pack_claimed_is_claimed_again() {
    let rig = Rig::on(Options::default(), MemoryLog::new(1), Told::default());
    rig.post(PATH, &[], counted("a")).await.is_accepted(1);
    rig.log.fail(Some(Kind::Transient));
    rig.post(PATH, &[], counted("b")).await.is_problem(503, "log_unavailable");
    rig.log.fail(None);
    rig.post(PATH, &[], counted("c")).await.is_accepted(1);
    let packs = rig.stop().await.packs();
    assert_eq!(packs.len(), 2);
    assert_eq!(packs[1].2.claims.len(), 1);
    assert_eq!(packs[1].2.claims[0].parts().1, Seq(0));
}

#[tokio::test]
async fn a_log_that_does_not_answer_in_time_is_a_503() {
    let options = Options { ack_timeout: Span::from_millis(50), ..Options::default() };
    let rig = Rig::with(options);
    rig.log.hold();
    let answer = rig.post(PATH, &[], counted("c")).await;
    answer.is_problem(503, "ack_timeout");
    assert!(answer.json["detail"].as_str().unwrap().contains("may have been accepted: retry with the same ids"));
    rig.log.release();
    assert_eq!(rig.stop().await.packs().len(), 1, "the pack was still on its way");
}

#[tokio::test]
async fn at_the_bound_of_the_buffer_a_request_is_refused_whole() {
    let rig = Rig::with(Options { buffer: Size::kib(64), ..Options::default() });
    rig.log.hold();
    let mut accepted = Vec::new();
    for _ in 0..4 {
        let before = rig.handle.buffered_bytes();
        accepted.push(rig.post_soon(PATH, batch(100)));
        until("it is buffered", || rig.handle.buffered_bytes() > before + 10_000).await;
    }
    let before = rig.handle.buffered_bytes();
    rig.post(PATH, &[], batch(300)).await.is_problem(429, "overloaded");
    assert_eq!(rig.handle.buffered_bytes(), before);
    rig.log.release();
    for request in accepted {
        request.await.unwrap().is_accepted(100);
    }
    rig.post(PATH, &[], batch(300)).await.is_accepted(300);
    let answer = rig.post(PATH, &[], batch(800)).await;
    answer.is_problem(429, "overloaded");
    assert!(answer.json["detail"].as_str().unwrap().contains("alone needs more than ingest.buffer"));
    assert_eq!(rig.handle.buffered_bytes(), 0);
    let items: usize = rig.stop().await.packs().iter().map(|(_, _, pack)| pack.items()).sum();
    assert_eq!(items, 700);
}

#[tokio::test]
async fn a_drain_answers_what_was_accepted_and_takes_nothing_more() {
    let rig = Rig::with(Options { linger: Span::from_secs(5), ..Options::default() });
    rig.log.hold();
    let accepted = rig.post_soon(PATH, batch(50));
    until("it is buffered", || rig.handle.buffered_bytes() > 5000).await;
    rig.shutdown.cancel();
    until("the packs leave without lingering", || rig.log.in_flight() == 4).await;
    rig.post(PATH, &[], counted("late")).await.is_problem(503, "draining");
    assert!(!rig.running.is_finished());
    rig.log.release();
    accepted.await.unwrap().is_accepted(50);
    assert_eq!(rig.handle.buffered_bytes(), 0);
    let router = rig.router.clone();
    assert_eq!(rig.stop().await.packs().len(), 4);
    super::send(router, super::post(PATH, &[], counted("later"))).await.is_problem(503, "draining");
}

#[tokio::test]
async fn an_acknowledgement_without_an_offset_is_covered_by_the_end_of_the_lane() {
    let rig = Rig::on(Options::default(), MemoryLog::new(1), Told::default());
    rig.log.forget_offsets();
    rig.post(PATH, &[], counted("a")).await.is_accepted(1);
    let answer = rig.post(PATH, &[], counted("b")).await;
    assert_eq!(answer.receipt().packs, [(0, Seq(1))]);
    assert!(rig.hot.adds.lock().unwrap().is_empty(), "the hot view is not told without a seq");
    assert!(rig.stop().await.packs().iter().all(|(_, _, pack)| pack.claims.is_empty()));
}

#[tokio::test]
async fn what_does_not_fit_is_said_at_the_start() {
    let new = |options: Options, partitions: u32, shards: u32| {
        let deps = Deps {
            log: MemoryLog::new(partitions),
            hot: std::sync::Arc::new(Told::default()),
            progress: std::sync::Arc::new(Progress::new(std::sync::Arc::new(Lanes::default()), "t")),
            shards,
            hot_timeout: std::time::Duration::from_millis(50),
        };
        ingest::Service::new(options, deps).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(new(Options::default(), 128, 256), "");
    assert!(new(Options::default(), 129, 256).contains("129 partitions"));
    assert!(new(Options::default(), 4, 0).contains("store.shards is 0"));
    assert!(new(Options { in_flight: 0, ..Options::default() }, 4, 256).starts_with("ingest.in_flight: "));
}
