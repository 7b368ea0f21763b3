//! The laws of dead letters and their replays.

use tallymark::{
    item::{Coordinates, Lane, Seq, Stamp, TopicId},
    store::{LetterRow, Replayed},
};

use super::Bed;

fn lane(life: u8, partition: u32) -> Lane {
    Lane { topic_id: TopicId([life; 16]), partition }
}

fn by(life: u8, seq: u64, stamp: i64) -> Replayed {
    Replayed { topic_id: TopicId([life; 16]), seq: Seq(seq), stamp: Stamp(stamp) }
}

fn row(seq: u64, replayed: Option<Replayed>) -> LetterRow {
    LetterRow { seq: Seq(seq), replayed }
}

const ALL: usize = 1000;

pub async fn a_dead_letter_stays_one_and_its_replay_outlives_every_later_word(bed: &Bed) {
    let (store, topic) = (&bed.store, bed.topic());
    let at = |seq| Coordinates { lane: lane(1, 2), seq: Seq(seq) };
    let rows = async || store.letters(&topic, lane(1, 2), Seq(0), Seq(u64::MAX), ALL).await.unwrap();
    store.write_letter(&topic, at(5), Stamp(100)).await.unwrap();
    store.write_letter(&topic, at(5), Stamp(100)).await.unwrap();
    assert_eq!(rows().await, [row(5, None)]);
    store.write_replayed(&topic, at(5), by(1, 20, 300)).await.unwrap();
    assert_eq!(rows().await, [row(5, Some(by(1, 20, 300)))]);
    store.write_letter(&topic, at(5), Stamp(100)).await.unwrap();
    store.write_letter(&topic, at(5), Stamp(900)).await.unwrap();
    assert_eq!(rows().await, [row(5, Some(by(1, 20, 300)))], "said to be one again");
    store.write_replayed(&topic, at(5), by(1, 10, 200)).await.unwrap();
    assert_eq!(rows().await, [row(5, Some(by(1, 20, 300)))], "older");
    store.write_replayed(&topic, at(5), by(2, 3, 400)).await.unwrap();
    assert_eq!(rows().await, [row(5, Some(by(2, 3, 400)))], "newer");
    // Nobody has to have said before that it is one; and clocks go back between a topic's lives.
    store.write_replayed(&topic, at(7), by(2, 4, -5)).await.unwrap();
    store.write_letter(&topic, at(8), Stamp(1_000)).await.unwrap();
    store.write_replayed(&topic, at(8), by(2, 5, 10)).await.unwrap();
    let expected = [row(5, Some(by(2, 3, 400))), row(7, Some(by(2, 4, -5))), row(8, Some(by(2, 5, 10)))];
    assert_eq!(rows().await, expected);
}

pub async fn dead_letters_of_a_lane_come_in_order_of_seq_and_by_range(bed: &Bed) {
    let (store, topic, other) = (&bed.store, bed.topic(), bed.topic());
    let write = async |topic: &str, lane, seq| {
        store.write_letter(topic, Coordinates { lane, seq: Seq(seq) }, Stamp(seq as i64)).await.unwrap();
    };
    for seq in [300, 2, 256, 70_000, 1] {
        write(&topic, lane(1, 1), seq).await;
    }
    write(&topic, lane(1, 0), 3).await;
    write(&topic, lane(2, 1), 4).await;
    write(&other, lane(1, 1), 5).await;
    let read = async |lane, from, to, limit| {
        let rows = store.letters(&topic, lane, Seq(from), Seq(to), limit).await.unwrap();
        rows.into_iter().map(|row| row.seq.0).collect::<Vec<_>>()
    };
    assert_eq!(read(lane(1, 1), 0, u64::MAX, ALL).await, [1, 2, 256, 300, 70_000]);
    assert_eq!(read(lane(1, 1), 2, 300, ALL).await, [2, 256, 300], "both ends are in it");
    assert_eq!(read(lane(1, 1), 3, u64::MAX, 2).await, [256, 300]);
    assert_eq!(read(lane(1, 1), 256, 256, ALL).await, [256]);
    assert!(read(lane(1, 1), 5, 4, ALL).await.is_empty());
    assert_eq!(read(lane(1, 0), 0, u64::MAX, ALL).await, [3]);
    assert_eq!(read(lane(2, 1), 0, u64::MAX, ALL).await, [4]);
    assert!(read(lane(3, 1), 0, u64::MAX, ALL).await.is_empty());
}
