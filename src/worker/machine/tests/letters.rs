//! What makes a record a dead letter, and what the lane does with one and with its replay.

use super::*;
use crate::{log::Class, pack::Event};

fn script() -> Script {
    Script { packs: vec![], window_us: 1_000_000, max_ids: 10 }
}

fn machine() -> Machine {
    Machine::new(LANE, Seq(0), Stamp(0), vec![epoch(&script())], 100)
}

fn record(seq: u64, payload: Bytes) -> Record {
    Record { seq: Seq(seq), append_ms: 1_000, leader_epoch: None, format: 1, payload, damage: None }
}

fn one(seq: u64) -> Record {
    record(seq, encode(seq, 1_000, &[Item { series: 0, amount: 1, id: None }]))
}

fn changed(seq: u64, change: impl FnOnce(&mut Pack)) -> Record {
    let mut pack = pack::decode(1, one(seq).payload).unwrap();
    change(&mut pack);
    record(seq, pack.encode_record())
}

fn poison(machine: &Machine, record: &Record) -> (Class, String) {
    match machine.judge_whole(record) {
        Err(Refusal::Poison(poison)) => (poison.class, poison.reason),
        Err(Refusal::Halt(halt)) => panic!("{halt}"),
        Ok(_) => panic!("it was read"),
    }
}

fn replay(seq: u64, of: u64, partition: u32, topic_id: TopicId) -> Record {
    changed(seq, |pack| {
        let topic_id = Bytes::copy_from_slice(&topic_id.0);
        pack.replayed = Some(pack::Coordinates { topic_id, partition, seq: of });
    })
}

#[test]
fn what_no_lane_can_apply_is_poison_with_its_class_and_reason() {
    let machine = machine();
    let damaged = Record { damage: Some("a checksum does not match".to_owned()), ..one(0) };
    assert_eq!(poison(&machine, &damaged), (Class::Damaged, "a checksum does not match".to_owned()));
    let garbage = record(0, Bytes::from_static(b"\xff\xff"));
    assert_eq!(poison(&machine, &garbage).0, Class::Malformed);
    let torn = changed(0, |pack| pack.increments.as_mut().unwrap().amounts.clear());
    assert_eq!(poison(&machine, &torn).1, "not a well-formed pack: the items' columns differ in length");
    let unnamed = changed(0, |pack| {
        let event = Event { namespace: "Not One".into(), name: "n".into(), id: "1".into(), ..Event::default() };
        pack.events.push(event);
    });
    assert_eq!(poison(&machine, &unnamed).0, Class::Malformed);
    let stray = changed(0, |pack| (pack.partitions, pack.shards) = (7, 4096));
    assert_eq!(poison(&machine, &stray).0, Class::Misplaced);
}

#[test]
fn a_replay_of_what_cannot_have_stood_in_the_lane_is_poison() {
    let machine = machine();
    assert_eq!(poison(&machine, &replay(9, 3, 1, LANE.topic_id)).0, Class::Replay, "of another partition");
    assert_eq!(poison(&machine, &replay(9, 9, 0, LANE.topic_id)).0, Class::Replay, "of itself");
    assert_eq!(poison(&machine, &replay(9, 10, 0, LANE.topic_id)).0, Class::Replay, "of what comes later");
    assert!(machine.judge_whole(&replay(9, 8, 0, LANE.topic_id)).is_ok());
    assert!(machine.judge_whole(&replay(9, 900, 0, TopicId([8; 16]))).is_ok(), "of another life of the topic");
}

#[test]
fn a_dead_letter_takes_a_stamp_and_is_named_by_its_hash() {
    let (mut machine, mut world) = (machine(), World::default());
    world.apply(&mut machine, &one(0), 100);
    let stamp = machine.stamp();
    let garbage = record(1, Bytes::from_static(b"\xff\xff"));
    assert_eq!(machine.letter_stamp(Seq(1)), Ok(Stamp(stamp.0 + 1)));
    machine.bury(&garbage).unwrap();
    let mark = machine.mark().unwrap();
    assert_eq!((mark.seq, mark.stamp), (Seq(1), Stamp(stamp.0 + 1)));
    assert_eq!(mark.pack, poison::name(&garbage.payload));
    assert_eq!(machine.bury(&record(5, Bytes::new())), Err(Halt::Missing { expected: Seq(2), found: Seq(5) }));
}

#[test]
fn a_verdict_stands_though_the_record_can_be_read_later() {
    let mut machine = machine();
    machine.know_letters([Seq(3)]);
    assert_eq!(poison(&machine, &one(3)).0, Class::Before);
    assert!(machine.judge_whole(&one(4)).is_ok());
    // Whatever this program makes of it now: it was never applied, and a newer one was not met then.
    let newer = Record { format: 2, ..one(3) };
    assert_eq!(poison(&machine, &newer).0, Class::Before);
    assert_eq!(
        poison(&machine, &record(3, Bytes::from_static(b"\xff"))).0,
        Class::Malformed,
        "its own reason says more"
    );
}

#[test]
fn a_row_that_names_a_dead_letter_halts_the_lane() {
    let mut world = World::default();
    let mut first = machine();
    world.apply(&mut first, &one(0), 100);
    taken(&mut first, true).into_iter().for_each(|write| world.arrive(write));
    // Its bytes changed on the disk after it was applied, and before the checkpoint passed it.
    let mut second = machine();
    second.bury(&record(0, Bytes::from_static(b"\xff"))).unwrap();
    let next = second.judge(&one(1)).unwrap();
    world.load(&mut second, &next, 100).unwrap();
    assert_eq!(second.apply(&next), Err(Halt::Base { seq: Seq(0) }));
    // The same when the row was read before the record was met.
    let mut third = machine();
    let read = third.judge(&one(0)).unwrap();
    world.load(&mut third, &read, 100).unwrap();
    assert_eq!(third.bury(&record(0, Bytes::from_static(b"\xff"))), Err(Halt::Base { seq: Seq(0) }));
}

#[test]
fn a_replay_that_the_log_does_not_hold_any_more_halts_the_lane() {
    let mut machine = machine();
    let read = machine.judge(&replay(0, 7, 0, TopicId([8; 16]))).unwrap();
    let at = machine.lacks_replay(&read).unwrap();
    machine.install_replay(at, Some(Replayed { topic_id: LANE.topic_id, seq: Seq(40), stamp: Stamp(9) }));
    assert_eq!(machine.highest_unmet(), Some(Seq(40)), "checked against the log's end, like a row's base");
    assert_eq!(machine.lacks_replay(&read), None);
}
