//! The laws of halts and remedies.

use tallymark::{
    item::{Lane, Seq, Stamp, TopicId},
    store::{HaltRow, Remedy, RemedyRow},
};

use super::Bed;

fn halt(lane: Lane, reason: &str) -> HaltRow {
    HaltRow {
        lane,
        kind: "gap".to_owned(),
        reason: reason.to_owned(),
        command: Some("tallymark lanes accept-gap 3 1..2".to_owned()),
        from: Some(Seq(1)),
        to: Some(Seq(u64::from(u32::MAX))),
        partitions: None,
        shards: Some(256),
        worker: "host-1".to_owned(),
        since_ms: 1_769_860_800_123,
    }
}

fn remedy(at_ms: i64, id: u8, what: Remedy) -> RemedyRow {
    let topic_id = TopicId([id; 16]);
    let (who, why, says) = ("me@here".to_owned(), "because «ü»".to_owned(), "Lane 3 goes on.".to_owned());
    RemedyRow { at_ms, id: [id; 16], topic_id, what, who, why, says }
}

pub(super) async fn a_halt_is_what_was_noted_last_until_it_is_cleared(bed: &Bed) {
    let (topic, other) = (bed.topic(), bed.topic());
    let lane = |partition| Lane { topic_id: TopicId([9; 16]), partition };
    assert_eq!(bed.store.halts(&topic).await.unwrap(), []);
    bed.store.clear_halt(&topic, lane(3)).await.unwrap();
    bed.store.write_halt(&topic, &halt(lane(3), "first")).await.unwrap();
    bed.store.write_halt(&topic, &halt(lane(4), "another lane")).await.unwrap();
    bed.store.write_halt(&other, &halt(lane(3), "another topic")).await.unwrap();
    let second = HaltRow { command: None, from: None, to: None, shards: None, ..halt(lane(3), "second") };
    bed.store.write_halt(&topic, &second).await.unwrap();
    let mut halts = bed.store.halts(&topic).await.unwrap();
    halts.sort_by_key(|halt| halt.lane);
    assert_eq!(halts, [second, halt(lane(4), "another lane")]);
    bed.store.clear_halt(&topic, lane(3)).await.unwrap();
    assert_eq!(bed.store.halts(&topic).await.unwrap(), [halt(lane(4), "another lane")]);
    assert_eq!(bed.store.halts(&other).await.unwrap().len(), 1);
    bed.store.write_halt(&topic, &halt(lane(3), "again")).await.unwrap();
    assert_eq!(bed.store.halts(&topic).await.unwrap().len(), 2);
}

pub(super) async fn remedies_come_oldest_first_and_stay_as_they_were_recorded(bed: &Bed) {
    let topic = bed.topic();
    assert_eq!(bed.store.remedies(&topic).await.unwrap(), []);
    let gap = Remedy::Gap { partition: 3, from: Seq(1), to: Seq(9), floor: Stamp(i64::MAX) };
    let rows = [
        remedy(-5, 1, Remedy::Claims { partition: 0, seq: Seq(7) }),
        remedy(5, 2, gap),
        remedy(5, 3, Remedy::Epoch { partitions: 6, shards: 256 }),
    ];
    for row in rows.iter().rev() {
        bed.store.record_remedy(&topic, row).await.unwrap();
    }
    bed.store.record_remedy(&topic, &rows[1]).await.unwrap();
    bed.store.record_remedy(&bed.topic(), &rows[1]).await.unwrap();
    assert_eq!(bed.store.remedies(&topic).await.unwrap(), rows);
}
