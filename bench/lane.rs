//! What one lane can do on one core: decode, dedup and fold, over packs encoded beforehand; and what a flush is made of.
//!
//! `cargo bench --bench lane`. Times are CPU times, the median and the best of several rounds: other programs on the
//! machine disturb the median, seldom the best.

mod cpu;
mod packs;
mod workload;

use std::{hint::black_box, time::Duration};

use packs::{Ids, Packs, key};
use tallymark::{
    item::{Epoch, Lane, Seq, Shard, Stamp, TopicId, series_hash},
    log::Record,
    pack,
    store::EpochRow,
    worker::machine::{Machine, Read},
};
use workload::Zipf;

const SERIES: usize = 100_000;
const PACK_ITEMS: usize = 1000;
/// Packs of one round.
const ROUND: usize = 400;
const MAX_IDS: u64 = 1_000_000;
const SHARDS: u32 = 256;
const LANE: Lane = Lane { topic_id: TopicId([5; 16]), partition: 0 };
const NOW_MS: i64 = 1_800_000_000_000;

fn main() {
    let rounds = if std::env::args().any(|arg| arg == "--quick") { 1 } else { 7 };
    let only: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let wanted = |part: &str| only.is_empty() || only.iter().any(|only| only == part);
    if wanted("lane") {
        println!(
            "One lane: {SERIES} series, zipf 1.1, {PACK_ITEMS} increments a pack, a window of {MAX_IDS} ids, one core\n"
        );
        println!(
            "| increments | M/s, best | M/s, median | decode ns | prepare ns | apply ns | series a pack | target M/s |"
        );
        println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
        lane("with unique 16-byte ids", Ids::Unique, "1.5", rounds);
        lane("without ids", Ids::None, "4", rounds);
        lane("without ids, merged by ingest (increments as sent)", Ids::Merged, "4", rounds);
        println!();
    }
    if wanted("pack") {
        println!("Packs of {PACK_ITEMS} increments, zipf 1.1 over {SERIES} series\n");
        println!("| increments | bytes an increment | encode ns | decode ns |");
        println!("| --- | ---: | ---: | ---: |");
        codec("with unique 16-byte ids", Ids::Unique, rounds);
        codec("without ids", Ids::None, rounds);
        println!();
    }
    if wanted("coalesce") {
        coalesce();
    }
}

fn machine(partitions: u32) -> Machine {
    let epoch = EpochRow {
        epoch: Epoch::of(LANE.topic_id, partitions, SHARDS),
        topic_id: LANE.topic_id,
        cluster_id: String::new(),
        partitions,
        shards: SHARDS,
        dedup_window_us: 600_000_000,
        dedup_max_ids: MAX_IDS,
        created_ms: 0,
    };
    Machine::new(LANE, Seq(0), Stamp(0), vec![epoch], 1_000_000)
}

fn record(seq: usize, payload: bytes::Bytes) -> Record {
    Record {
        seq: Seq(seq as u64),
        append_ms: NOW_MS + seq as i64,
        leader_epoch: None,
        format: pack::FORMAT,
        payload,
        damage: None,
    }
}

/// Prepares a pack; shards that nobody has read yet are empty.
fn prepare(machine: &mut Machine, read: &Read) {
    let missing = machine.prepare(read).expect("the pack belongs here");
    if !missing.is_empty() {
        machine.install(|fold, met| {
            for shard in &missing.shards {
                fold.install(*shard, Some(Vec::new()), &mut *met);
            }
        });
        assert!(machine.prepare(read).expect("the pack belongs here").is_empty());
    }
}

fn lane(what: &str, ids: Ids, target: &str, rounds: usize) {
    let mut packs = Packs::new(Zipf::new(SERIES, 1.1), ids, 1, SHARDS);
    let mut machine = machine(1);
    // Enough to fill the window and to meet most series.
    let warm_up = MAX_IDS as usize / PACK_ITEMS + 100;
    let mut seq = 0;
    let mut next_round = |packs: &mut Packs, count: usize| -> (Vec<Record>, usize) {
        let mut series = 0;
        let mut encode = |seq| {
            let pack = packs.pack(PACK_ITEMS, NOW_MS, |_| true);
            series += pack.increments.as_ref().map_or(0, |increments| increments.key_lengths.len());
            record(seq, pack.encode_record())
        };
        let records = (seq..seq + count).map(&mut encode).collect();
        seq += count;
        (records, series / count)
    };
    for record in next_round(&mut packs, warm_up).0 {
        let read = Read::decode(&record).expect("a pack");
        prepare(&mut machine, &read);
        machine.apply(&read).expect("applies");
    }
    let mut times = Vec::new();
    let mut series = 0;
    for _ in 0..rounds {
        drop(machine.take());
        let (records, in_a_pack) = next_round(&mut packs, ROUND);
        series = in_a_pack;
        let (mut decoding, mut preparing, mut applying) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        for record in &records {
            let begin = cpu::process();
            let read = Read::decode(record).expect("a pack");
            let decoded = cpu::process();
            prepare(&mut machine, &read);
            let prepared = cpu::process();
            machine.apply(&read).expect("applies");
            drop(read);
            let applied = cpu::process();
            decoding += decoded - begin;
            preparing += prepared - decoded;
            applying += applied - prepared;
        }
        times.push((decoding + preparing + applying, decoding, preparing, applying));
    }
    times.sort();
    let items = (ROUND * PACK_ITEMS) as f64;
    let (best, median) = (times[0], times[rounds / 2]);
    let rate = |time: Duration| items / time.as_secs_f64() / 1e6;
    let ns = |time: Duration| time.as_secs_f64() * 1e9 / items;
    println!(
        "| {what} | {:.2} | {:.2} | {:.0} | {:.0} | {:.0} | {series} | {target} |",
        rate(best.0),
        rate(median.0),
        ns(best.1),
        ns(best.2),
        ns(best.3),
    );
}

fn codec(what: &str, ids: Ids, rounds: usize) {
    let mut packs = Packs::new(Zipf::new(SERIES, 1.1), ids, 1, SHARDS);
    let packs: Vec<_> = (0..ROUND).map(|_| packs.pack(PACK_ITEMS, NOW_MS, |_| true)).collect();
    let (mut encoding, mut decoding) = (Duration::MAX, Duration::MAX);
    let mut bytes = 0;
    for _ in 0..rounds {
        let begin = cpu::process();
        let records: Vec<_> = packs.iter().map(|pack| pack.encode_record()).collect();
        let encoded = cpu::process();
        bytes = records.iter().map(|record| record.len()).sum();
        let begin_decoding = cpu::process();
        for record in &records {
            black_box(pack::decode(pack::FORMAT, record.clone()).expect("a pack"));
        }
        encoding = encoding.min(encoded - begin);
        decoding = decoding.min(cpu::process() - begin_decoding);
    }
    let items = (ROUND * PACK_ITEMS) as f64;
    let ns = |time: Duration| time.as_secs_f64() * 1e9 / items;
    println!("| {what} | {:.1} | {:.1} | {:.1} |", bytes as f64 / items, ns(encoding), ns(decoding));
}

/// What a flush writes, by its age: pure arithmetic on what [`Machine::take`] hands out, for one of four lanes.
fn coalesce() {
    const PARTITIONS: u32 = 4;
    const RATE: usize = 250_000;
    const BATCH_ROWS: usize = 100;
    println!(
        "Coalescing: {SERIES} series, zipf 1.0, {SHARDS} shards over {PARTITIONS} lanes, {RATE} increments/s a lane, store.batch_rows {BATCH_ROWS}\n"
    );
    println!("| flush age | deltas a row | rows a mutation | rows a flush | mutations/s a lane | take ns a row |");
    println!("| ---: | ---: | ---: | ---: | ---: | ---: |");
    let here: Vec<bool> = (0..SERIES as u32)
        .map(|series| Shard::of(series_hash(&key(series)), SHARDS).partition(PARTITIONS) == LANE.partition)
        .collect();
    for age_ms in [250, 1000, 4000] {
        let mut packs = Packs::new(Zipf::new(SERIES, 1.0), Ids::None, PARTITIONS, SHARDS);
        let mut machine = machine(PARTITIONS);
        let (mut rows, mut mutations, mut deltas, mut flushes) = (0, 0, 0, 0);
        let mut taking = Duration::ZERO;
        let each = RATE * age_ms / 1000 / PACK_ITEMS;
        let mut seq = 0;
        // The first flush meets every shard for the first time: left out.
        for flush in 0..=(8000 / age_ms).max(3) {
            for _ in 0..each {
                let pack = packs.pack(PACK_ITEMS, NOW_MS, |series| here[series as usize]);
                let read = Read::decode(&record(seq, pack.encode_record())).expect("a pack");
                prepare(&mut machine, &read);
                machine.apply(&read).expect("applies");
                seq += 1;
            }
            let begin = cpu::process();
            let (taken, _) = machine.take();
            if flush > 0 {
                taking += cpu::process() - begin;
                flushes += 1;
                deltas += taken.deltas as usize;
                rows += taken.shards.iter().map(|(_, rows)| rows.len()).sum::<usize>();
                mutations += taken.shards.iter().map(|(_, rows)| rows.len().div_ceil(BATCH_ROWS)).sum::<usize>();
            }
        }
        println!(
            "| {} s | {:.1} | {:.1} | {} | {:.0} | {:.0} |",
            age_ms as f64 / 1000.0,
            deltas as f64 / rows as f64,
            rows as f64 / mutations as f64,
            rows / flushes,
            mutations as f64 / flushes as f64 * 1000.0 / age_ms as f64,
            taking.as_secs_f64() * 1e9 / rows as f64,
        );
    }
}
