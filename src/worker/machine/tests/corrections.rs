//! Corrections: rows that somebody has garbled become what the log says, whoever applies the correction and however often,
//! and whether the lane had loaded the garbled row or kept the right one in memory.

use super::*;
use crate::pack::Correction;

/// What happens to the store behind the lane's back, and to the lane.
#[derive(Clone, Copy, Debug)]
enum Step {
    Apply,
    Flush,
    Crash,
    Checkpoint,
    /// A row's total becomes another, or the row is lost.
    Garble {
        row: usize,
        by: Option<i64>,
    },
    /// Every row that differs is corrected as of the log's end: `times` operators at once.
    Correct {
        times: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Apply),
        2 => Just(Step::Flush),
        1 => Just(Step::Crash),
        2 => Just(Step::Checkpoint),
        2 => (0..20usize, proptest::option::of(-5..5_i64)).prop_map(|(row, by)| Step::Garble { row, by }),
        1 => (1..3usize).prop_map(|times| Step::Correct { times }),
    ];
    proptest::collection::vec(step, 0..60)
}

/// A store that gives way to newer stamps; of two rows with one stamp the larger total stays, as on real servers.
#[derive(Default)]
struct Garbled(World);

impl Garbled {
    fn flush(&mut self, machine: &mut Machine) -> Option<Checkpoint> {
        let mark = machine.mark();
        for (key, rows) in machine.take().0.shards {
            for row in rows {
                let at = (key.clone(), row.name.clone());
                let stays = |there: &TotalRow| (there.stamp, there.total) >= (row.stamp, row.total);
                if !self.0.rows.get(&at).is_some_and(stays) {
                    self.0.rows.insert(at, row);
                }
            }
        }
        for (at, by) in machine.take_replayed() {
            self.0.arrive(Write::Replayed(at, by));
        }
        mark
    }

    /// The corrections that somebody makes who has counted the log up to its end.
    fn corrections(&self, script: &Script, records: &[Record]) -> Vec<Correction> {
        let (truth, _) = expected(script, records);
        let total = |rows: &Rows, at: &(ShardKey, RowName)| rows.get(at).map_or(0, |row| row.total);
        let names: std::collections::BTreeSet<_> = truth.keys().chain(self.0.rows.keys()).collect();
        let wrong = names.into_iter().filter(|at| total(&truth, at) != total(&self.0.rows, at));
        wrong
            .map(|at @ (key, name)| {
                let series = SeriesRef { namespace: key.namespace.as_str(), counter: &name.counter, tags: &name.tags };
                let as_of = Seq(records.len() as u64);
                Correction::of_total(series.to_key().into(), key.shard.0 < 0, as_of, total(&truth, at))
            })
            .collect()
    }
}

fn correcting(records: &[Record], corrections: Vec<Correction>) -> Record {
    let last = records.last().expect("there is one");
    let mut pack = pack::decode(1, encode(1_000 + records.len() as u64, last.append_ms, &[])).unwrap();
    pack.increments = None;
    pack.corrections = corrections;
    let seq = Seq(records.len() as u64);
    Record {
        seq,
        append_ms: last.append_ms,
        leader_epoch: None,
        format: 1,
        payload: pack.encode_record(),
        damage: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn corrections_make_garbled_rows_what_the_log_says_and_never_count_twice(
        script in scripts(), steps in steps(), max_rows in prop_oneof![Just(1000usize), 4..12usize],
    ) {
        let script_records = records(&script);
        let mut waiting = script_records.clone();
        waiting.reverse();
        let mut log: Vec<Record> = waiting.pop().into_iter().collect();
        let mut world = Garbled::default();
        let mut machine = world.0.resume(&script, &log, max_rows);
        let mut stored: Option<Checkpoint> = None;
        for step in steps {
            let covered = world.0.checkpoint.as_ref().map_or(Seq(0), |checkpoint| checkpoint.seq.next());
            machine.fold_mut().make_room(14, covered);
            match step {
                Step::Apply => match log.get(machine.next().0 as usize) {
                    Some(record) => world.0.apply(&mut machine, &record.clone(), 1000),
                    None => if let Some(mut record) = waiting.pop() {
                        record.seq = Seq(log.len() as u64);
                        log.push(record);
                    },
                },
                Step::Flush => stored = world.flush(&mut machine).or(stored),
                Step::Crash => {
                    machine = world.0.resume(&script, &log, max_rows);
                    stored = None;
                }
                Step::Checkpoint => if let Some(mark) = stored.take() {
                    world.0.checkpoint = Some(mark);
                },
                Step::Garble { row, by } => {
                    let Some((at, _)) = world.0.rows.iter().nth(row) else { continue };
                    let at = at.clone();
                    match by {
                        Some(by) => world.0.rows.get_mut(&at).unwrap().total += i128::from(by),
                        None => drop(world.0.rows.remove(&at)),
                    }
                }
                Step::Correct { times } => {
                    let corrections = world.corrections(&script, &log);
                    for _ in 0..times {
                        log.push(correcting(&log, corrections.clone()));
                    }
                }
            }
        }
        while let Some(mut record) = waiting.pop() {
            record.seq = Seq(log.len() as u64);
            log.push(record);
        }
        // The lane catches up; what is wrong then is corrected, while it has the rows in memory and after a crash.
        for crashes in [false, true] {
            if crashes {
                machine = world.0.resume(&script, &log, 1000);
            }
            for _ in 0..2 {
                while let Some(record) = log.get(machine.next().0 as usize) {
                    machine.fold_mut().make_room(14, Seq(0));
                    world.0.apply(&mut machine, &record.clone(), 1000);
                }
                world.flush(&mut machine);
                let corrections = world.corrections(&script, &log);
                log.push(correcting(&log, corrections));
            }
            prop_assert_eq!(world.corrections(&script, &log), []);
        }
        // A correction is no item: control totals say what came in.
        prop_assert_eq!(*machine.counted(), expected(&script, &log).1);
    }
}

#[test]
fn a_correction_is_void_once_a_pack_counts_in_its_row() {
    let script = Script { packs: vec![], window_us: 1, max_ids: 10 };
    let item = |amount| Item { series: 0, amount, id: None };
    let record = |seq: u64, payload| Record {
        seq: Seq(seq),
        append_ms: 1,
        leader_epoch: None,
        format: 1,
        payload,
        damage: None,
    };
    let mut world = World::default();
    let mut machine = Machine::new(LANE, Seq(0), Stamp(0), vec![epoch(&script)], 100);
    let mut log = vec![record(0, encode(0, 1, &[item(5)])), record(1, encode(1, 1, &[item(7)]))];
    let correct = |as_of, total| Correction::of_total(key(0).into(), false, Seq(as_of), total);
    log.push(correcting(&log, vec![correct(1, 1_000)]));
    log.push(correcting(&log, vec![correct(2, 2_000)]));
    // It was made before the one at 3 and comes after it.
    log.push(correcting(&log, vec![correct(2, 3_000)]));
    let mut totals = Vec::new();
    for record in &log {
        world.apply(&mut machine, record, 100);
        for (key, rows) in machine.take().0.shards {
            totals.extend(rows.into_iter().filter(|_| key.shard.0 >= 0).map(|row| (row.seq.0, row.total)));
        }
    }
    assert_eq!(totals, [(0, 5), (1, 12), (3, 2_000)]);
}

#[test]
fn corrections_that_this_version_does_not_apply_halt_the_lane_and_malformed_ones_are_unreadable() {
    let correction = Correction::of_total(key(0).into(), false, Seq(1), -300);
    assert_eq!(correction.total(), Some(-300));
    let read = |corrections: Vec<Correction>| {
        let first = Record {
            seq: Seq(0),
            append_ms: 1,
            leader_epoch: None,
            format: 1,
            payload: encode(0, 1, &[]),
            damage: None,
        };
        Read::decode(&correcting(&[first], corrections)).err()
    };
    assert_eq!(read(vec![correction.clone()]), None);
    let amount = Correction { amount: Bytes::from_static(&[1]), total: Bytes::new(), ..correction.clone() };
    let bucket = Correction { grain_ms: 60_000, ..correction.clone() };
    for unsupported in [amount, bucket] {
        assert!(matches!(read(vec![unsupported]), Some(Refusal::Halt(Halt::Unsupported { seq: Seq(1), .. }))));
    }
    let tagged = Correction { counter: true, ..correction.clone() };
    let unnamed = Correction { key: Bytes::from_static(b"a"), ..correction.clone() };
    let long = Correction { total: Bytes::from_static(&[1; 17]), ..correction.clone() };
    for unreadable in [vec![tagged], vec![unnamed], vec![long], vec![correction.clone(), correction]] {
        assert!(matches!(read(unreadable), Some(Refusal::Poison(_))));
    }
}
