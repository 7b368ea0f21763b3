//! Group commit: what shares a record, when a pack closes, what it says.

use std::{collections::HashSet, time::Duration};

use serde_json::json;
use tallymark::{
    ingest::Options,
    item::{PackId, Seq},
    units::{Size, Span},
};

use super::Rig;
use crate::support::{MemoryLog, Told, until};

const PATH: &str = "/v1/increments";

fn counted(counter: &str) -> String {
    json!({"counter": counter, "id": "i"}).to_string()
}

#[tokio::test]
async fn many_requests_share_a_record_and_one_acknowledgement_answers_them_all() {
    let options = Options { linger: Span::from_millis(50), ..Options::default() };
    let rig = Rig::on(options, MemoryLog::new(1), Told::default());
    let requests: Vec<_> = (0..40).map(|n| rig.post_soon(PATH, counted(&format!("c{n}")))).collect();
    let mut receipts = HashSet::new();
    for request in requests {
        let answer = request.await.unwrap();
        answer.is_accepted(1);
        receipts.insert(answer.receipt().to_string());
    }
    let log = rig.stop().await;
    let packs = log.packs();
    assert!(packs.len() < 10, "{} records for 40 requests", packs.len());
    assert_eq!(receipts.len(), packs.len());
    assert_eq!(packs.iter().map(|(_, _, pack)| pack.items()).sum::<usize>(), 40);
}

#[tokio::test]
async fn at_most_in_flight_packs_are_with_the_log_and_the_next_gathers_what_comes() {
    let options = Options { linger: Span::default(), ..Options::default() };
    let rig = Rig::on(options, MemoryLog::new(1), Told::default());
    rig.log.hold();
    let mut requests = Vec::new();
    for n in 0..2 {
        requests.push(rig.post_soon(PATH, counted(&format!("first{n}"))));
        until("the pack is with the log", || rig.log.in_flight() == n + 1).await;
    }
    let before = rig.handle.buffered_bytes();
    for n in 0..30 {
        requests.push(rig.post_soon(PATH, counted(&format!("later{n}"))));
    }
    until("all are buffered", || rig.handle.buffered_bytes() >= before * 10).await;
    assert_eq!(rig.log.in_flight(), 2);
    rig.log.release();
    for request in requests {
        request.await.unwrap().is_accepted(1);
    }
    assert_eq!(rig.log.most_in_flight(), 2);
    assert_eq!(rig.handle.buffered_bytes(), 0);
    let packs = rig.stop().await.packs();
    assert_eq!(packs.iter().map(|(_, _, pack)| pack.items()).sum::<usize>(), 32);
    assert!(packs.len() <= 5, "{} packs", packs.len());
}

#[tokio::test]
async fn a_full_pack_closes_at_once_and_a_request_may_span_several() {
    let options = Options { linger: Span::from_secs(5), pack_bytes: Size::kib(1), ..Options::default() };
    let rig = Rig::on(options, MemoryLog::new(1), Told::default());
    let items: Vec<_> = (0..200).map(|n| json!({"counter": format!("counter{n}"), "id": n.to_string()})).collect();
    let answering = rig.post_soon(PATH, json!(items).to_string());
    until("the full packs are written", || rig.log.packs().len() >= 6).await;
    rig.shutdown.cancel();
    let answer = answering.await.unwrap();
    answer.is_accepted(200);
    let log = rig.stop().await;
    let packs = log.packs();
    assert_eq!(answer.receipt().packs, [(0, Seq(packs.len() as u64 - 1))], "the last seq of the lane covers them all");
    assert!(packs.iter().all(|(_, _, pack)| pack.encode_record().len() < 2048));
    assert_eq!(packs.iter().map(|(_, _, pack)| pack.items()).sum::<usize>(), 200);
}

#[tokio::test]
async fn increments_without_an_id_are_merged_per_series_and_finest_bucket() {
    let rig = Rig::on(Options::default(), MemoryLog::new(1), Told::default());
    let hour = 3_600_000;
    let at = |amount: i64, time: i64| json!({"counter": "c", "amount": amount, "time": time});
    let body = json!([
        at(1, 0), at(2, hour - 1), at(4, hour), at(8, 1), at(16, -1), at(32, hour + 5),
        {"counter": "c", "amount": 64, "time": 0, "id": "i"},
        {"counter": "d", "amount": 128, "time": 0},
        at(i64::MAX, 2 * hour), at(1, 2 * hour), at(5, 2 * hour),
        at(256, 0),
    ]);
    rig.post(PATH, &[], body.to_string()).await.is_accepted(12);
    let (_, _, pack) = rig.stop().await.packs().remove(0);
    let increments = pack.increments.unwrap();
    let keys: Vec<_> = increments.dictionary().map(|entry| entry.key.to_vec()).collect();
    let items: Vec<_> = increments
        .iter()
        .map(|item| {
            let counter = if keys[item.series as usize] == b"default\0c\0" { 'c' } else { 'd' };
            (counter, item.amount, (item.time_ms + pack.receive_ms).div_euclid(hour), item.id.is_some())
        })
        .collect();
    let expected = [
        ('c', 64, 0, true),
        ('c', 1 + 2 + 8 + 256, 0, false),
        ('c', 4 + 32, 1, false),
        ('c', 16, -1, false),
        ('d', 128, 0, false),
        ('c', i64::MAX, 2, false),
        ('c', 6, 2, false),
    ];
    assert_eq!(items, expected, "those with an id first, the others in the order they came, no sum overflown");
}

#[tokio::test]
async fn a_pack_claims_what_was_acknowledged_since_the_one_before_it() {
    let rig = Rig::on(Options::default(), MemoryLog::new(1), Told::default());
    for n in 0..4 {
        rig.post(PATH, &[], counted(&format!("c{n}"))).await.is_accepted(1);
    }
    let packs = rig.stop().await.packs();
    assert!(packs[0].2.claims.is_empty());
    let ids: HashSet<PackId> = packs.iter().map(|(_, _, pack)| pack.pack_id()).collect();
    assert_eq!(ids.len(), 4);
    for pair in packs.windows(2) {
        let claims: Vec<_> = pair[1].2.claims.iter().map(|claim| claim.parts()).collect();
        assert_eq!(claims, [(tallymark::item::TopicId([7; 16]), pair[0].1, pair[0].2.pack_id())]);
        assert_eq!(pair[0].2.ingest, pair[1].2.ingest);
    }
}

#[tokio::test]
async fn a_request_that_waits_for_the_store_makes_its_packs_urgent() {
    let rig = Rig::on(Options::default(), MemoryLog::new(1), Told::default());
    let lane = tallymark::item::Lane { topic_id: tallymark::item::TopicId([7; 16]), partition: 0 };
    rig.post(PATH, &[], counted("a")).await.is_accepted(1);

    let answer = rig.post("/v1/increments?ack=stored&timeout=20ms", &[], counted("b")).await;
    answer.is_accepted(1);
    assert_eq!(answer.json["stored"], false);

    rig.lanes.away.store(true, std::sync::atomic::Ordering::SeqCst);
    let answer = rig.post("/v1/increments?ack=stored&timeout=20ms", &[], counted("c")).await;
    answer.is_accepted(1);
    assert_eq!(answer.json["stored"], false);
    rig.lanes.away.store(false, std::sync::atomic::Ordering::SeqCst);

    let router = rig.router.clone();
    let request = super::post("/v1/increments?ack=stored", &[], counted("d"));
    let waiting = tokio::spawn(super::send(router, request));
    until("the pack is written", || rig.log.packs().len() == 4).await;
    rig.lanes.stored(lane, Seq(3));
    let answer = waiting.await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!((&answer.json["accepted"], &answer.json["stored"]), (&json!(1), &json!(true)));
    assert_eq!(answer.receipt().packs, [(0, Seq(3))]);

    let answer = rig.post("/v1/increments?ack=stored", &[], "[]").await;
    assert_eq!((answer.status.as_u16(), &answer.json["stored"]), (200, &json!(true)));
    let urgent: Vec<_> = rig.stop().await.packs().into_iter().map(|(_, _, pack)| pack.urgent).collect();
    assert_eq!(urgent, [false, true, true, true]);
}

#[tokio::test]
async fn a_pack_carries_the_trace_of_its_first_request_that_has_one() {
    let trace = |n: u8| format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333{n}-01");
    let options = Options { linger: Span::from_secs(60), ack_timeout: Span::from_secs(90), ..Options::default() };
    let rig = Rig::on(options, MemoryLog::new(1), Told::default());
    let mut answers = Vec::new();
    for (n, sent) in [None, Some("not a trace".to_owned()), Some(trace(1)), Some(trace(2))].into_iter().enumerate() {
        let (router, before) = (rig.router.clone(), rig.handle.buffered_bytes());
        let headers: Vec<_> = sent.iter().map(|trace| ("traceparent", trace.as_str())).collect();
        let request = super::post(PATH, &headers, counted(&format!("c{n}")));
        answers.push(tokio::spawn(super::send(router, request)));
        until("its item is in the open pack", || rig.handle.buffered_bytes() > before).await;
    }
    let log = rig.stop().await;
    for answer in answers {
        answer.await.unwrap().is_accepted(1);
    }
    let packs = log.packs();
    let traces: Vec<_> = packs.iter().map(|(_, _, pack)| pack.traceparent.as_str()).collect();
    assert_eq!(traces, [trace(1)]);
}

#[tokio::test]
async fn a_client_that_goes_away_takes_nothing_with_it() {
    let options = Options { linger: Span::from_millis(50), ..Options::default() };
    let rig = Rig::on(options, MemoryLog::new(1), Told::default());
    rig.log.hold();
    let gone = rig.post_soon(PATH, counted("gone"));
    let stays = rig.post_soon(PATH, counted("stays"));
    until("the pack is with the log", || rig.log.in_flight() == 1).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    rig.log.release();
    tokio::time::timeout(Duration::from_secs(10), stays).await.unwrap().unwrap().is_accepted(1);
    assert_eq!(rig.stop().await.packs().iter().map(|(_, _, pack)| pack.items()).sum::<usize>(), 2);
}
