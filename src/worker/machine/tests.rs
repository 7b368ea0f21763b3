//! The lane's pure part against a naive model: whatever crashes, half-written flushes, late writes, lost checkpoints and
//! evictions come in between, the store ends with the sums of the log's unique items, and every replay computes the same.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use proptest::prelude::*;

mod corrections;

use super::*;
use crate::{
    item::{Epoch, SeriesRef, Shard, TopicId, series_hash},
    pack::{Claim, Event, Increments},
    store::{RowName, ShardKey, TotalRow},
};

const LANE: Lane = Lane { topic_id: TopicId([5; 16]), partition: 0 };
const SHARDS: u32 = 4;

/// One item of a scripted pack.
#[derive(Clone, Debug)]
struct Item {
    series: u8,
    amount: i64,
    id: Option<u8>,
}

#[derive(Clone, Debug)]
struct Script {
    /// Packs, each with a step of the clock; `true` repeats the pack before it (the producer appended it twice).
    packs: Vec<(i64, Vec<Item>, bool)>,
    window_us: i64,
    max_ids: u64,
}

fn scripts() -> impl Strategy<Value = Script> {
    let amount = prop_oneof![5 => -3..4i64, 1 => Just(i64::MAX), 1 => Just(i64::MIN)];
    let item =
        (0..6u8, amount, proptest::option::of(0..10u8)).prop_map(|(series, amount, id)| Item { series, amount, id });
    let pack = (0..30i64, proptest::collection::vec(item, 0..5), proptest::bool::weighted(0.1));
    (proptest::collection::vec(pack, 1..25), 0..200i64, 1..40u64).prop_map(|(packs, window_ms, max_ids)| Script {
        packs,
        window_us: window_ms * 1000,
        max_ids,
    })
}

fn key(series: u8) -> Vec<u8> {
    let (counter, tags) = (["a", "b"][usize::from(series % 2)], format!("k={series}"));
    SeriesRef { namespace: "default", counter, tags: &tags }.to_key()
}

fn epoch(script: &Script) -> EpochRow {
    EpochRow {
        epoch: Epoch::of(LANE.topic_id, 1, SHARDS),
        topic_id: LANE.topic_id,
        cluster_id: String::new(),
        partitions: 1,
        shards: SHARDS,
        dedup_window_us: script.window_us,
        dedup_max_ids: script.max_ids,
        created_ms: 0,
    }
}

fn id(n: u8) -> [u8; 16] {
    [n + 1; 16]
}

fn records(script: &Script) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    let mut now_ms = 1_000;
    for (seq, (step, items, again)) in script.packs.iter().enumerate() {
        now_ms += step;
        let payload = match records.last().filter(|_| *again) {
            Some(last) => last.payload.clone(),
            None => encode(seq as u64, now_ms, items),
        };
        records.push(Record {
            seq: Seq(seq as u64),
            append_ms: now_ms,
            leader_epoch: None,
            format: 1,
            payload,
            damage: None,
        });
    }
    records
}

fn encode(seq: u64, receive_ms: i64, items: &[Item]) -> Bytes {
    let mut increments = Increments::default();
    let (mut keys, mut ids) = (Vec::new(), Vec::new());
    let mut dictionary: Vec<u8> = Vec::new();
    let (with, without): (Vec<&Item>, Vec<&Item>) = items.iter().partition(|item| item.id.is_some());
    for item in with.into_iter().chain(without) {
        let index = dictionary.iter().position(|series| *series == item.series).unwrap_or_else(|| {
            dictionary.push(item.series);
            keys.extend_from_slice(&key(item.series));
            increments.key_lengths.push(key(item.series).len() as u32);
            increments.grains.push(0);
            dictionary.len() - 1
        });
        increments.series.push(index as u32);
        increments.amounts.push(item.amount);
        increments.times.push(0);
        ids.extend(item.id.iter().flat_map(|n| id(*n)));
    }
    increments.keys = keys.into();
    increments.ids = ids.into();
    let mut pack_id = [0xff; 16];
    pack_id[..8].copy_from_slice(&seq.to_le_bytes());
    let pack = Pack {
        version: 1,
        id: Bytes::copy_from_slice(&pack_id),
        ingest: Bytes::copy_from_slice(&[3; 16]),
        receive_ms,
        partitions: 1,
        shards: SHARDS,
        increments: Some(increments),
        ..Pack::default()
    };
    pack.encode_record()
}

type Rows = BTreeMap<(ShardKey, RowName), TotalRow>;

/// What the rows and the control totals must be: the definition, literally.
fn expected(script: &Script, records: &[Record]) -> (Rows, Counted) {
    let mut rows = Rows::new();
    let mut counted = Counted::since(Seq(0));
    let mut notes: Vec<([u8; 16], i64)> = Vec::new();
    let mut stamp = 0i64;
    for record in records {
        let pack = pack::decode(1, record.payload.clone()).unwrap();
        stamp = (stamp + 1).max(record.append_ms * 1000);
        let mut note = |id: [u8; 16]| {
            let live = notes.len().saturating_sub(script.max_ids as usize);
            let seen = notes[live..].iter().any(|(noted, at)| *noted == id && *at >= stamp - script.window_us);
            notes.push((id, stamp));
            seen
        };
        let whole = note(pack.pack_id().0);
        // Corrections are no items.
        let Some(increments) = pack.increments else { continue };
        let keys: Vec<_> = increments.dictionary().map(|entry| entry.key.to_vec()).collect();
        for item in increments.iter() {
            let seen = item.id.is_some_and(|id| note(id.0));
            if seen || whole {
                counted.duplicates += 1;
                continue;
            }
            counted.items += 1;
            counted.amount += i128::from(item.amount);
            let key = &keys[item.series as usize];
            let series = SeriesRef::from_key(key).unwrap();
            let names = [(Shard::of(series_hash(key), SHARDS), series.tags), (Shard::reserved(0), "")];
            for (shard, tags) in names {
                let key = ShardKey { namespace: Namespace::default(), shard, epoch: epoch(script).epoch };
                let name = RowName { counter: series.counter.into(), tags: tags.into() };
                let row = TotalRow { name: name.clone(), total: 0, seq: Seq(0), stamp: Stamp(0) };
                let row = rows.entry((key, name)).or_insert(row);
                row.total += i128::from(item.amount);
                row.seq = record.seq;
                row.stamp = Stamp(stamp);
            }
        }
    }
    (rows, counted)
}

/// A store that keeps the stamp rule, and writes that are still on their way from a worker that is gone.
#[derive(Default)]
struct World {
    rows: Rows,
    checkpoint: Option<Checkpoint>,
    late: Vec<(ShardKey, TotalRow)>,
    /// What each seq has computed.
    computed: HashMap<Seq, (Stamp, Counted)>,
}

impl World {
    fn write(&mut self, key: &ShardKey, row: &TotalRow) {
        let at = (key.clone(), row.name.clone());
        match self.rows.get(&at) {
            Some(there) if there.stamp > row.stamp => {}
            Some(there) if there.stamp == row.stamp => assert_eq!(there, row, "an equal stamp carries the same row"),
            _ => {
                self.rows.insert(at, row.clone());
            }
        }
    }

    fn resume(&self, script: &Script, records: &[Record], max_rows: usize) -> Machine {
        let epochs = vec![epoch(script)];
        let Some(checkpoint) = &self.checkpoint else { return Machine::new(LANE, Seq(0), Stamp(0), epochs, max_rows) };
        let mut machine = Machine::new(LANE, checkpoint.dedup_from, checkpoint.dedup_stamp, epochs, max_rows);
        for record in &records[checkpoint.dedup_from.0 as usize..=checkpoint.seq.0 as usize] {
            machine.rebuild(&Read::decode(record).unwrap()).unwrap();
        }
        if checkpoint.dedup_from <= checkpoint.seq {
            assert_eq!(machine.stamp(), checkpoint.stamp);
        }
        machine.resume_at(checkpoint);
        machine
    }

    fn apply(&mut self, machine: &mut Machine, record: &Record, slice_rows: usize) {
        let read = Read::decode(record).unwrap();
        self.load(machine, &read, slice_rows);
        machine.apply(&read).unwrap();
        let computed = (machine.stamp(), *machine.counted());
        let before = *self.computed.entry(record.seq).or_insert(computed);
        assert_eq!(before, computed, "every replay computes the same stamp and the same control totals");
    }

    fn load(&self, machine: &mut Machine, read: &Read, slice_rows: usize) {
        loop {
            let missing = machine.prepare(read).unwrap();
            if missing.is_empty() {
                break;
            }
            machine.install(|fold, met| {
                for shard in missing.shards {
                    let key = fold.shard_key(shard).clone();
                    let rows: Vec<_> =
                        self.rows.iter().filter(|((at, _), _)| *at == key).map(|(_, row)| row.clone()).collect();
                    fold.install(shard, Some(rows).filter(|rows| rows.len() <= slice_rows), &mut *met);
                }
                for (shard, names) in missing.rows {
                    let key = fold.shard_key(shard).clone();
                    let rows = names.iter().map(|name| self.rows.get(&(key.clone(), name.clone())).cloned()).collect();
                    fold.install_named(shard, &names, rows, &mut *met);
                }
            });
        }
    }
}

/// What happens between two packs.
#[derive(Clone, Copy, Debug)]
enum Step {
    Apply,
    Flush,
    /// The flush's first writes arrive, the others arrive late or never, and the worker is gone.
    CrashInFlush {
        arrives: usize,
        late: usize,
    },
    Crash,
    /// What is stored becomes the checkpoint.
    Checkpoint,
    /// A write of a worker that is gone arrives.
    Late,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Apply),
        2 => Just(Step::Flush),
        1 => (0..6usize, 0..6usize).prop_map(|(arrives, late)| Step::CrashInFlush { arrives, late }),
        1 => Just(Step::Crash),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Late),
    ];
    proptest::collection::vec(step, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn every_schedule_ends_with_the_sums_of_unique_items(
        script in scripts(), steps in steps(), max_rows in prop_oneof![Just(1000usize), 4..12usize], slice_rows in prop_oneof![Just(1000usize), 0..3usize],
    ) {
        let records = records(&script);
        let mut world = World::default();
        let mut machine = world.resume(&script, &records, max_rows);
        let mut stored: Option<Checkpoint> = None;
        let flush = |machine: &mut Machine, world: &mut World, stored: &mut Option<Checkpoint>| {
            let mark = machine.mark();
            for (key, rows) in machine.take().0.shards {
                rows.iter().for_each(|row| world.write(&key, row));
            }
            if mark.is_some() {
                *stored = mark;
            }
        };
        for step in steps.into_iter().chain([Step::Apply; 25]) {
            let covered = world.checkpoint.as_ref().map_or(Seq(0), |checkpoint| checkpoint.seq.next());
            machine.fold_mut().make_room(4, covered);
            match step {
                Step::Apply => {
                    if let Some(record) = records.get(machine.next().0 as usize) {
                        world.apply(&mut machine, record, slice_rows);
                    }
                }
                Step::Flush => flush(&mut machine, &mut world, &mut stored),
                Step::CrashInFlush { arrives, late } => {
                    let taken = machine.take().0.shards;
                    let mut writes = taken.into_iter().flat_map(|(key, rows)| rows.into_iter().map(move |row| (key.clone(), row)));
                    for (key, row) in writes.by_ref().take(arrives) {
                        world.write(&key, &row);
                    }
                    world.late.extend(writes.take(late));
                    machine = world.resume(&script, &records, max_rows);
                    stored = None;
                }
                Step::Crash => {
                    machine = world.resume(&script, &records, max_rows);
                    stored = None;
                }
                Step::Checkpoint => {
                    if let Some(mark) = stored.take() {
                        world.checkpoint = Some(mark);
                    }
                }
                Step::Late => {
                    if let Some((key, row)) = world.late.pop() {
                        world.write(&key, &row);
                    }
                }
            }
        }
        while let Some(record) = records.get(machine.next().0 as usize) {
            world.apply(&mut machine, record, slice_rows);
        }
        flush(&mut machine, &mut world, &mut stored);
        for (key, row) in std::mem::take(&mut world.late) {
            world.write(&key, &row);
        }
        let (rows, counted) = expected(&script, &records);
        prop_assert_eq!(&world.rows, &rows);
        prop_assert_eq!(machine.counted(), &counted);
        prop_assert_eq!(machine.highest_unmet(), None);
    }
}

#[test]
fn a_claim_that_another_pack_stands_at_its_offset_halts_the_lane() {
    let script = Script { packs: vec![], window_us: 1, max_ids: 10 };
    let mut machine = Machine::new(LANE, Seq(0), Stamp(0), vec![epoch(&script)], 100);
    let record = |seq: u64, payload| Record {
        seq: Seq(seq),
        append_ms: 1,
        leader_epoch: None,
        format: 1,
        payload,
        damage: None,
    };
    let mut world = World::default();
    world.apply(&mut machine, &record(0, encode(0, 1, &[])), 100);
    let mut pack = pack::decode(1, encode(1, 1, &[])).unwrap();
    pack.claims.push(Claim {
        topic_id: Bytes::copy_from_slice(&LANE.topic_id.0),
        seq: 0,
        pack: Bytes::copy_from_slice(&[9; 16]),
    });
    let read = Read::decode(&record(1, pack.encode_record())).unwrap();
    machine.prepare(&read).unwrap();
    assert!(matches!(machine.apply(&read), Err(Halt::Claim { seq: Seq(1), .. })));
}

#[test]
fn a_base_that_the_log_contradicts_halts_the_lane() {
    let script = Script { packs: vec![], window_us: 1, max_ids: 10 };
    let item = Item { series: 0, amount: 1, id: None };
    let record = Record {
        seq: Seq(0),
        append_ms: 7,
        leader_epoch: None,
        format: 1,
        payload: encode(0, 1, &[item]),
        damage: None,
    };
    let mut world = World::default();
    let mut machine = Machine::new(LANE, Seq(0), Stamp(0), vec![epoch(&script)], 100);
    world.apply(&mut machine, &record, 100);
    for (key, rows) in machine.take().0.shards {
        rows.iter().for_each(|row| world.write(&key, row));
    }
    let read = Read::decode(&Record { append_ms: 8, ..record }).unwrap();
    let mut machine = Machine::new(LANE, Seq(0), Stamp(0), vec![epoch(&script)], 100);
    world.load(&mut machine, &read, 100);
    assert_eq!(machine.apply(&read), Err(Halt::Base { seq: Seq(0) }));
}

#[test]
fn gaps_newer_formats_and_unknown_layouts_halt_the_lane() {
    let script = Script { packs: vec![], window_us: 1, max_ids: 10 };
    let mut machine = Machine::new(LANE, Seq(0), Stamp(0), vec![epoch(&script)], 100);
    let payload = encode(0, 1, &[]);
    let record = Record { seq: Seq(1), append_ms: 1, leader_epoch: None, format: 1, payload, damage: None };
    let read = Read::decode(&record).unwrap();
    machine.prepare(&read).unwrap();
    assert_eq!(machine.apply(&read), Err(Halt::Missing { expected: Seq(0), found: Seq(1) }));
    assert!(matches!(Read::decode(&Record { format: 2, ..record.clone() }), Err(Halt::Newer { .. })));
    let garbled = Record { payload: Bytes::from_static(b"\xff\xff"), ..record.clone() };
    assert!(matches!(Read::decode(&garbled), Err(Halt::Unreadable { .. })));
    let damaged = Record { damage: Some("checksum".to_owned()), ..record.clone() };
    assert!(matches!(Read::decode(&damaged), Err(Halt::Unreadable { .. })));
    let mut pack = pack::decode(1, record.payload.clone()).unwrap();
    pack.shards = 99;
    let read = Read::decode(&Record { payload: pack.encode_record(), ..record }).unwrap();
    assert!(matches!(machine.prepare(&read), Err(Halt::Epoch { shards: 99, .. })));
}

#[test]
fn an_event_counts_once_and_keeps_its_properties() {
    let script = Script { packs: vec![], window_us: 1_000_000, max_ids: 10 };
    let mut machine = Machine::new(LANE, Seq(0), Stamp(0), vec![epoch(&script)], 100);
    let mut world = World::default();
    let event = Event {
        namespace: "default".into(),
        name: "signup".into(),
        subject: "user-1".into(),
        time_ms: 5,
        id: "e1".into(),
        properties: Bytes::from_static(br#"{"a": 1}"#),
    };
    for seq in 0..2 {
        let mut pack = pack::decode(1, encode(seq, 1, &[])).unwrap();
        pack.events = vec![event.clone()];
        let record = Record {
            seq: Seq(seq),
            append_ms: 1,
            leader_epoch: None,
            format: 1,
            payload: pack.encode_record(),
            damage: None,
        };
        world.apply(&mut machine, &record, 100);
    }
    let events = machine.take().1;
    assert_eq!(events.len(), 1);
    assert_eq!(&events[0].properties[..], br#"{"a": 1}"#);
    assert_eq!(events.iter().map(|event| &*event.id).collect::<HashSet<_>>(), HashSet::from(["e1"]));
}
