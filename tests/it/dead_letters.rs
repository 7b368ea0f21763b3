//! Replaying dead letters: what is appended, what is left and why, and that nothing is appended that would halt a lane.

use std::sync::Arc;

use bytes::Bytes;
use tallymark::{
    dead_letter::{Filter, Handle, Outcome},
    item::{Coordinates, Epoch, Lane, PackId, Seq, Stamp, TopicId},
    log::{Class, DeadLetter, DeadLetters as _, Log as _},
    pack::{self, Claim, Pack, WRITTEN},
    store::{EpochRow, Ledger as _, Letters as _, Replayed, memory::Memory},
};

use crate::{e2e::dead_letters::pack_for, support::MemoryLog};

const COUNTS: (u32, u32) = (2, 4);

struct World {
    log: Arc<MemoryLog>,
    store: Arc<Memory>,
    handle: Handle,
}

async fn world() -> World {
    let (log, store) = (MemoryLog::new(COUNTS.0), Arc::new(Memory::new()));
    let topic_id = log.topology().topic_id;
    let epoch = EpochRow {
        epoch: Epoch::of(topic_id, COUNTS.0, COUNTS.1),
        topic_id,
        cluster_id: String::new(),
        partitions: COUNTS.0,
        shards: COUNTS.1,
        dedup_window_us: 1,
        dedup_max_ids: 1,
        created_ms: 0,
    };
    store.begin_epoch(&log.topology().topic, &epoch).await.unwrap();
    World { handle: Handle::new(log.clone(), store.clone()), log, store }
}

impl World {
    fn at(&self, partition: u32, seq: u64) -> Coordinates {
        Coordinates { lane: Lane { topic_id: self.log.topology().topic_id, partition }, seq: Seq(seq) }
    }

    fn letter(&self, payload: Bytes) -> DeadLetter {
        let (class, reason) = (Class::Malformed, "not a pack".to_owned());
        DeadLetter { at: self.at(1, 7), append_ms: 1, format: WRITTEN, class, reason, payload }
    }

    async fn replay(&self, letter: &DeadLetter) -> Outcome {
        let epochs = self.handle.epochs().await.unwrap();
        let told = self.handle.replay(letter, &epochs, true).await.unwrap();
        let done = self.handle.replay(letter, &epochs, false).await.unwrap();
        match done {
            Outcome::Replayed(_) => assert_eq!(told, Outcome::WouldReplay),
            _ => assert_eq!(told, done, "a dry run says what happens"),
        }
        done
    }

    /// Why it was left; nothing was appended.
    async fn left(&self, letter: &DeadLetter) -> String {
        let Outcome::Left(why) = self.replay(letter).await else { panic!("it was replayed") };
        assert!(self.log.packs().is_empty());
        why
    }
}

fn changed(payload: &Bytes, change: impl FnOnce(&mut Pack)) -> Bytes {
    let mut pack = pack::decode(WRITTEN, payload.clone()).unwrap();
    change(&mut pack);
    pack.encode_record()
}

fn coordinates(at: Coordinates) -> pack::Coordinates {
    let topic_id = Bytes::copy_from_slice(&at.lane.topic_id.0);
    pack::Coordinates { topic_id, partition: at.lane.partition, seq: at.seq.0 }
}

#[tokio::test]
async fn a_readable_letter_is_appended_to_its_partition_with_its_counts_a_new_id_and_its_coordinates() {
    let world = world().await;
    let claim =
        Claim { topic_id: Bytes::copy_from_slice(&[7; 16]), seq: 3, pack: Bytes::copy_from_slice(&PackId::random().0) };
    let payload = changed(&pack_for(1, COUNTS, 5), |pack| pack.claims.push(claim));
    let original = pack::decode(WRITTEN, payload.clone()).unwrap();
    assert_eq!(world.replay(&world.letter(payload)).await, Outcome::Replayed(Some(Seq(0))));
    let packs = world.log.packs();
    let [(partition, _, again)] = &packs[..] else { panic!("{packs:?}") };
    assert_eq!((*partition, again.partitions, again.shards), (1, COUNTS.0, COUNTS.1));
    assert_eq!((&again.increments, again.receive_ms), (&original.increments, original.receive_ms));
    assert_eq!(again.replayed, Some(coordinates(world.at(1, 7))));
    assert!(again.id != original.id && again.claims.is_empty());
}

#[tokio::test]
async fn one_that_a_pack_has_applied_is_not_appended_and_one_that_waits_may_be_again() {
    let world = world().await;
    let letter = world.letter(pack_for(1, COUNTS, 5));
    for seq in 0..2 {
        assert_eq!(world.replay(&letter).await, Outcome::Replayed(Some(Seq(seq))));
    }
    let by = Replayed { topic_id: letter.at.lane.topic_id, seq: Seq(0), stamp: Stamp(9) };
    world.store.write_replayed(&world.log.topology().topic, letter.at, by).await.unwrap();
    assert_eq!(world.replay(&letter).await, Outcome::Already(by));
    // What it replays itself is what counts, for both carry the same.
    let replay = changed(&letter.payload, |pack| pack.replayed = Some(coordinates(letter.at)));
    let replay = DeadLetter { at: world.at(1, 20), ..world.letter(replay) };
    assert_eq!(world.replay(&replay).await, Outcome::Already(by));
}

#[tokio::test]
async fn the_replay_of_a_replay_keeps_what_that_one_replayed() {
    let world = world().await;
    let first = world.at(1, 7);
    let payload = changed(&pack_for(1, COUNTS, 5), |pack| pack.replayed = Some(coordinates(first)));
    let letter = DeadLetter { at: world.at(1, 20), ..world.letter(payload) };
    assert_eq!(world.replay(&letter).await, Outcome::Replayed(Some(Seq(0))));
    assert_eq!(world.log.packs()[0].2.replayed, Some(coordinates(first)));
}

#[tokio::test]
async fn what_would_halt_a_lane_or_come_back_is_left_with_the_reason() {
    let world = world().await;
    let good = pack_for(1, COUNTS, 5);
    let garbage = world.letter(Bytes::from_static(b"\xff\xff"));
    assert!(world.left(&garbage).await.contains("not a pack"));
    let newer = DeadLetter { format: 99, ..world.letter(good.clone()) };
    assert!(world.left(&newer).await.contains("newer than this program"));
    assert!(world.left(&world.letter(pack_for(0, COUNTS, 5))).await.contains("a series of another lane"));
    assert!(world.left(&world.letter(pack_for(1, (2, 8), 5))).await.contains("2 partitions and 8 shards"));
    let gone = DeadLetter { at: world.at(5, 7), ..world.letter(good.clone()) };
    assert!(world.left(&gone).await.contains("no partition 5"));
    let unsupported = changed(&good, |pack| pack.control = Some(pack::Control::default()));
    assert!(world.left(&world.letter(unsupported)).await.contains("control settings"));
    let later = changed(&good, |pack| pack.replayed = Some(coordinates(world.at(1, 900))));
    assert!(world.left(&world.letter(later)).await.contains("does not stand before it"));
}

#[tokio::test]
async fn bytes_that_had_changed_are_taken_from_the_log_once_it_has_them_whole_again_and_never_from_the_letter() {
    let world = world().await;
    let whole = pack_for(1, COUNTS, 5);
    let seq = world.log.append(1, WRITTEN, whole.clone()).await.unwrap().seq.unwrap();
    world.log.garble(1, seq, |record| record.damage = Some("its checksum does not match".to_owned()));
    // They would decode, and count another amount.
    let letter = DeadLetter { at: world.at(1, 0), class: Class::Damaged, ..world.letter(pack_for(1, COUNTS, 9)) };
    let Outcome::Left(why) = world.replay(&letter).await else { panic!("it was replayed") };
    assert!(why.contains("changed at rest"), "{why}");
    world.log.garble(1, seq, |record| record.damage = None);
    assert_eq!(world.replay(&letter).await, Outcome::Replayed(Some(Seq(1))));
    let again = world.log.packs().pop().unwrap().2;
    assert_eq!(again.increments, pack::decode(WRITTEN, whole).unwrap().increments);
    // Another life of the topic has other records there.
    let mut former = letter.clone();
    former.at.lane.topic_id = TopicId([1; 16]);
    assert!(matches!(world.replay(&former).await, Outcome::Left(_)));
}

#[tokio::test]
async fn a_dead_letter_of_a_former_life_of_the_topic_is_replayed_into_this_one() {
    let world = world().await;
    let mut letter = world.letter(pack_for(1, COUNTS, 5));
    letter.at.lane.topic_id = TopicId([1; 16]);
    assert_eq!(world.replay(&letter).await, Outcome::Replayed(Some(Seq(0))));
    assert_eq!(world.log.packs()[0].2.replayed, Some(coordinates(letter.at)));
}

#[tokio::test]
async fn pages_hold_each_letter_once_and_go_on_where_they_ended() {
    let world = world().await;
    for seq in [1, 2, 1, 3, 2, 4] {
        let letter = DeadLetter { at: world.at(seq % 2, u64::from(seq)), ..world.letter(Bytes::from_static(b"x")) };
        world.log.letters.bury(&letter).await.unwrap();
    }
    let seqs = async |filter: &Filter, limit| {
        let (mut seqs, mut after) = (Vec::new(), None);
        loop {
            let page = world.handle.page(filter, after, limit).await.unwrap();
            seqs.extend(page.found.iter().map(|found| found.letter.as_ref().unwrap().at.seq.0));
            after = page.next;
            if after.is_none() {
                return seqs;
            }
        }
    };
    assert_eq!(seqs(&Filter::default(), 100).await, [1, 2, 3, 4]);
    assert_eq!(seqs(&Filter { partition: Some(1), ..Filter::default() }, 100).await, [1, 3]);
    assert_eq!(
        seqs(&Filter { partition: Some(0), ..Filter::default() }, 1).await,
        [2, 2, 4],
        "a page knows itself alone"
    );
}
