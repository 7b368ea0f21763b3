//! The lane's pure part against a naive model: whatever crashes, half-written flushes, late writes, lost checkpoints and
//! evictions come in between, the store ends with the sums of the log's unique items, and every replay computes the same.

use std::collections::{BTreeMap, HashMap, HashSet, btree_map::Entry};

use bytes::Bytes;
use proptest::prelude::*;

mod corrections;

use super::*;
use crate::{
    item::{Epoch, SeriesRef, Shard, TopicId, series_hash},
    pack::{Claim, Increments},
    store::{RowName, ShardKey, TotalRow},
};

mod events;
mod letters;

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
    /// Packs, each with a step of the clock.
    packs: Vec<(i64, Vec<Item>, Form)>,
    window_us: i64,
    max_ids: u64,
}

/// What a record is.
#[derive(Clone, Copy, Debug)]
enum Form {
    Plain,
    /// The record before it, which its producer appended twice.
    Again,
    /// Nothing that can be read.
    Poison,
    /// Of a series that belongs into another lane.
    Misplaced,
    /// The replay of an earlier record; only poison has any, and the lane takes a pack's word for it.
    Replay(u64),
}

fn scripts() -> impl Strategy<Value = Script> {
    let amount = prop_oneof![5 => -3..4i64, 1 => Just(i64::MAX), 1 => Just(i64::MIN)];
    let item =
        (0..6u8, amount, proptest::option::of(0..10u8)).prop_map(|(series, amount, id)| Item { series, amount, id });
    let form = prop_oneof![
        14 => Just(Form::Plain),
        2 => Just(Form::Again),
        1 => Just(Form::Poison),
        1 => Just(Form::Misplaced),
        3 => (0..6u64).prop_map(Form::Replay),
    ];
    let pack = (0..30i64, proptest::collection::vec(item, 0..5), form);
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
    for (seq, (step, items, form)) in (0..).zip(&script.packs) {
        now_ms += step;
        let payload = match (form, records.last()) {
            (Form::Again, Some(last)) => last.payload.clone(),
            (Form::Poison, _) => Bytes::from_static(&[0xff; 9]),
            (Form::Misplaced, _) => {
                // Routed for two partitions, of which one takes nothing here.
                let stray =
                    (0..).find(|n| Shard::of(series_hash(&key(*n)), SHARDS).partition(2) == 1).expect("some are");
                let item = Item { series: stray, amount: 1, id: Some(1) };
                let mut pack = pack::decode(1, encode(seq, now_ms, &[item])).unwrap();
                pack.partitions = 2;
                pack.encode_record()
            }
            (Form::Replay(of), _) if *of < seq => {
                let mut pack = pack::decode(1, encode(seq, now_ms, items)).unwrap();
                let topic_id = Bytes::copy_from_slice(&LANE.topic_id.0);
                pack.replayed = Some(pack::Coordinates { topic_id, partition: 0, seq: *of });
                pack.encode_record()
            }
            _ => encode(seq, now_ms, items),
        };
        records.push(Record { seq: Seq(seq), append_ms: now_ms, leader_epoch: None, format: 1, payload, damage: None });
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
    let mut replayed = HashSet::new();
    for record in records {
        let Some(pack) = pack::decode(1, record.payload.clone()).ok().filter(|pack| pack.partitions == 1) else {
            stamp += 1;
            continue;
        };
        stamp = (stamp + 1).max(record.append_ms * 1000);
        let mut note = |id: [u8; 16]| {
            let live = notes.len().saturating_sub(script.max_ids as usize);
            let seen = notes[live..].iter().any(|(noted, at)| *noted == id && *at >= stamp - script.window_us);
            notes.push((id, stamp));
            seen
        };
        let twice = note(pack.pack_id().0);
        let again = pack.replayed.as_ref().is_some_and(|at| replayed.contains(&at.seq));
        if let Some(at) = pack.replayed.as_ref().filter(|_| !twice) {
            replayed.insert(at.seq);
        }
        let whole = twice || again;
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
    replayed: BTreeMap<Coordinates, Replayed>,
    late: Vec<Write>,
    /// What each seq has computed.
    computed: HashMap<Seq, (Stamp, Counted)>,
}

/// A write of a flush.
enum Write {
    Row(ShardKey, TotalRow),
    Replayed(Coordinates, Replayed),
}

/// What a flush writes, what was replayed first or last.
fn taken(machine: &mut Machine, replayed_first: bool) -> Vec<Write> {
    let rows = machine.take().0.shards.into_iter();
    let rows = rows.flat_map(|(key, rows)| rows.into_iter().map(move |row| Write::Row(key.clone(), row)));
    let replayed = machine.take_replayed().into_iter().map(|(at, by)| Write::Replayed(at, by));
    if replayed_first {
        replayed.chain(rows).collect()
    } else {
        rows.collect::<Vec<_>>().into_iter().chain(replayed).collect()
    }
}

impl World {
    fn arrive(&mut self, write: Write) {
        match write {
            Write::Row(key, row) => self.write(&key, &row),
            Write::Replayed(at, by) => match self.replayed.entry(at) {
                Entry::Occupied(there) if there.get().stamp > by.stamp => {}
                Entry::Occupied(there) if there.get().stamp == by.stamp => assert_eq!(*there.get(), by),
                Entry::Occupied(mut there) => drop(there.insert(by)),
                Entry::Vacant(place) => drop(place.insert(by)),
            },
        }
    }

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
        // Misplaced records were routed by the second one.
        let other = EpochRow { epoch: Epoch::of(LANE.topic_id, 2, SHARDS), partitions: 2, ..epoch(script) };
        let epochs = vec![epoch(script), other];
        let Some(checkpoint) = &self.checkpoint else { return Machine::new(LANE, Seq(0), Stamp(0), epochs, max_rows) };
        let mut machine = Machine::new(LANE, checkpoint.dedup_from, checkpoint.dedup_stamp, epochs, max_rows);
        for record in &records[checkpoint.dedup_from.0 as usize..=checkpoint.seq.0 as usize] {
            machine.rebuild_from(record).unwrap();
        }
        if checkpoint.dedup_from <= checkpoint.seq {
            assert_eq!(machine.stamp(), checkpoint.stamp);
        }
        machine.resume_at(checkpoint);
        machine
    }

    fn apply(&mut self, machine: &mut Machine, record: &Record, slice_rows: usize) {
        let read = machine.judge(record).and_then(|read| self.load(machine, &read, slice_rows).map(|()| read));
        // Whoever only rebuilds the window comes to the same verdict.
        assert_eq!(machine.judge_whole(record).is_ok(), read.is_ok());
        match read {
            Ok(read) => drop(machine.apply(&read).unwrap()),
            Err(refusal) => {
                assert!(matches!(refusal, Refusal::Poison(_)), "{refusal:?}");
                machine.bury(record).unwrap();
            }
        }
        let computed = (machine.stamp(), *machine.counted());
        let before = *self.computed.entry(record.seq).or_insert(computed);
        assert_eq!(before, computed, "every replay computes the same stamp and the same control totals");
    }

    fn load(&self, machine: &mut Machine, read: &Read, slice_rows: usize) -> Result<(), Refusal> {
        if let Some(at) = machine.lacks_replay(read) {
            machine.install_replay(at, self.replayed.get(&at).copied());
        }
        loop {
            let missing = machine.prepare(read)?;
            if missing.is_empty() {
                return Ok(());
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
            taken(machine, true).into_iter().for_each(|write| world.arrive(write));
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
                    let mut writes = taken(&mut machine, arrives % 2 == 0).into_iter();
                    for write in writes.by_ref().take(arrives) {
                        world.arrive(write);
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
                        machine.forget_replays(mark.seq.next());
                        world.checkpoint = Some(mark);
                    }
                }
                Step::Late => {
                    if let Some(write) = world.late.pop() {
                        world.arrive(write);
                    }
                }
            }
        }
        while let Some(record) = records.get(machine.next().0 as usize) {
            world.apply(&mut machine, record, slice_rows);
        }
        flush(&mut machine, &mut world, &mut stored);
        for write in std::mem::take(&mut world.late) {
            world.arrive(write);
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
    world.load(&mut machine, &read, 100).unwrap();
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
    let newer = Read::decode(&Record { format: 2, ..record.clone() }).err();
    assert!(matches!(newer, Some(Refusal::Halt(Halt::Newer { .. }))));
    let mut pack = pack::decode(1, record.payload.clone()).unwrap();
    pack.shards = 99;
    let read = Read::decode(&Record { payload: pack.encode_record(), ..record }).unwrap();
    assert!(matches!(machine.prepare(&read), Err(Refusal::Halt(Halt::Epoch { shards: 99, .. }))));
}
