//! The pure parts one by one, timed by criterion: what a stamp, a note, a fold, a hash or a record costs by itself.
//!
//! `cargo bench --bench pure`, some 40 seconds; a word after `--` picks parts by name. The whole lane and the whole of
//! ingest's work, in which these disturb each other's caches, are `lane.rs`'s and `parse.rs`'s: those figures count.

mod packs;
#[path = "load/request.rs"]
mod request;
mod workload;

use std::{hint::black_box, time::Duration};

use criterion::{BatchSize, Criterion, Throughput};
use packs::{Ids, Packs, key};
use request::{Request, Shape};
use tallymark::{
    ingest::{Batch, Framing, Kind, Limits, Options, Parser},
    item::{Epoch, IdScope, Lane, PackId, Seq, Stamp, TopicId, event_hash, series_hash},
    pack,
    store::{Checkpoint, Counted, EpochRow},
    worker::{dedup::Window, fold::Fold, trail::Trail},
};
use workload::{Random, Zipf};

const SERIES: usize = 100_000;
const PACK_ITEMS: usize = 1000;
const BATCH: usize = 100;
const MAX_IDS: u64 = 1_000_000;
const SHARDS: u32 = 256;
const LANE: Lane = Lane { topic_id: TopicId([5; 16]), partition: 0 };
const NOW_MS: i64 = 1_800_000_000_000;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20)
        .without_plots()
        .configure_from_args();
    stamp(&mut criterion);
    hashes(&mut criterion);
    dedup(&mut criterion);
    fold(&mut criterion);
    packs(&mut criterion);
    parse(&mut criterion);
    trail(&mut criterion);
    criterion.final_summary();
}

fn stamp(criterion: &mut Criterion) {
    let mut stamp = Stamp(0);
    let mut append_ms = NOW_MS;
    criterion.bench_function("stamp", |bencher| {
        bencher.iter(|| {
            append_ms += 1;
            stamp = black_box(stamp).after(black_box(append_ms), black_box(NOW_MS));
        });
    });
}

fn hashes(criterion: &mut Criterion) {
    let key = key(17);
    let mut group = criterion.benchmark_group("hash");
    group.bench_function("placement of a series", |bencher| bencher.iter(|| series_hash(black_box(&key))));
    group.bench_function("placement of an event", |bencher| {
        bencher.iter(|| event_hash("default", black_box(Some("user-17")), "evt_42"));
    });
    group.bench_function("identity, its scope too", |bencher| {
        bencher.iter(|| IdScope::series(black_box(&key)).id(black_box(b"0123456789abcdef")));
    });
    let scope = IdScope::series(&key);
    group.bench_function("identity, its scope known", |bencher| {
        bencher.iter(|| scope.id(black_box(b"0123456789abcdef")));
    });
    group.finish();
}

/// Ids of one pack.
fn ids(random: &mut Random) -> Vec<[u8; 16]> {
    let mut id = || {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&random.draw().to_le_bytes());
        id[8..].copy_from_slice(&random.draw().to_le_bytes());
        id
    };
    (0..PACK_ITEMS).map(|_| id()).collect()
}

fn dedup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dedup");
    group.throughput(Throughput::Elements(PACK_ITEMS as u64));
    let mut random = Random::new(3);
    let mut window = Window::new(600_000_000, MAX_IDS);
    let mut seq = 0;
    let mut note = |ids: Vec<[u8; 16]>| {
        window.begin(Seq(seq), Stamp(seq as i64 + 1), Stamp(seq as i64));
        seq += 1;
        let mut seen = 0;
        window.note_all(&ids, |duplicate| seen += usize::from(duplicate));
        seen
    };
    for _ in 0..=MAX_IDS as usize / PACK_ITEMS {
        note(ids(&mut random));
    }
    group.bench_function("a pack of new ids into a full window", |bencher| {
        bencher.iter_batched(|| ids(&mut random), &mut note, BatchSize::LargeInput);
    });
    let known = ids(&mut random);
    group.bench_function("the same pack again", |bencher| {
        bencher.iter_batched(|| known.clone(), &mut note, BatchSize::LargeInput);
    });
    group.finish();
}

fn epoch() -> EpochRow {
    EpochRow {
        epoch: Epoch::of(LANE.topic_id, 1, SHARDS),
        topic_id: LANE.topic_id,
        cluster_id: String::new(),
        partitions: 1,
        shards: SHARDS,
        dedup_window_us: 600_000_000,
        dedup_max_ids: MAX_IDS,
        created_ms: 0,
    }
}

fn fold(criterion: &mut Criterion) {
    let mut fold = Fold::new(LANE.partition, vec![epoch()], 1_000_000);
    let (all, mut targets) = ((0..SERIES as u32).map(key).collect::<Vec<_>>(), Vec::new());
    let mut prepare = |fold: &mut Fold, keys: &[&[u8]]| {
        let missing = fold.prepare(0, keys.iter().copied(), &mut targets).expect("they belong here");
        for shard in &missing.shards {
            fold.install(*shard, Some(Vec::new()), |_, _| {});
        }
        if !missing.is_empty() {
            assert!(fold.prepare(0, keys.iter().copied(), &mut targets).expect("they belong here").is_empty());
        }
        targets.clone()
    };
    let every: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    prepare(&mut fold, &every);
    let (zipf, mut random) = (Zipf::new(SERIES, 1.1), Random::new(5));
    let mut draw = || (0..PACK_ITEMS).map(|_| every[zipf.draw(&mut random) as usize]).collect::<Vec<_>>();
    let mut group = criterion.benchmark_group("fold");
    group.throughput(Throughput::Elements(PACK_ITEMS as u64));
    group.bench_function("find the rows of a pack's series", |bencher| {
        bencher.iter_batched(&mut draw, |keys| prepare(&mut fold, &keys), BatchSize::LargeInput);
    });
    let targets = prepare(&mut fold, &draw());
    let mut seq = 0;
    group.bench_function("add", |bencher| {
        bencher.iter(|| {
            seq += 1;
            for target in &targets {
                fold.add(*target, Seq(seq), Stamp(seq as i64), 1, 1);
            }
        });
    });
    group.finish();
}

fn packs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pack");
    group.throughput(Throughput::Elements(PACK_ITEMS as u64));
    for (what, ids) in [("with ids", Ids::Unique), ("without ids", Ids::None), ("merged by ingest", Ids::Merged)] {
        let pack = Packs::new(Zipf::new(SERIES, 1.1), ids, 1, SHARDS).pack(PACK_ITEMS, NOW_MS, |_| true);
        group.bench_function(format!("encode, {what}"), |bencher| bencher.iter(|| black_box(&pack).encode_record()));
        let record = pack.encode_record();
        group.bench_function(format!("decode, {what}"), |bencher| {
            bencher.iter(|| pack::decode(pack::FORMAT, black_box(&record).clone()).expect("a pack"));
        });
    }
    group.finish();
}

fn parse(criterion: &mut Criterion) {
    let now_ms = tallymark::clock::now_ms();
    let zipf = Zipf::new(SERIES, 1.1);
    let limits = Limits::new(&Options::default()).expect("defaults are valid");
    let parser = Parser {
        limits: &limits,
        namespace: "default",
        now_ms,
        idempotency_key: None,
        partial: false,
        shards: SHARDS,
        partitions: 4,
    };
    let mut group = criterion.benchmark_group("parse");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (what, ids) in [("with ids", true), ("without ids", false)] {
        let mut request = Request::new(Shape { batch: BATCH, ids, hot_skip: false, subjects: None }, "localhost", 7);
        let text = std::str::from_utf8(request.next(&zipf, now_ms.unsigned_abs())).expect("a request is text");
        let body = text.split_once("\r\n\r\n").expect("a head and a body").1;
        let mut batch = Batch::default();
        group.bench_function(format!("a body of {BATCH}, {what}"), |bencher| {
            bencher.iter(|| {
                parser.parse(Kind::Increment, Framing::Json, black_box(body), &mut batch).expect("it is valid");
                batch.len()
            });
        });
    }
    group.finish();
}

fn trail(criterion: &mut Criterion) {
    let mark = Checkpoint {
        lane: LANE,
        seq: Seq(7),
        leader_epoch: None,
        pack: PackId([0; 16]),
        stamp: Stamp(0),
        dedup_from: Seq(0),
        dedup_stamp: Stamp(0),
        unmet_base: None,
        counted: Counted::since(Seq(0)),
    };
    let (mut trail, mut now_ms) = (Trail::new(30_000), 0);
    criterion.bench_function("trail: a mark in, and whether one is due", |bencher| {
        bencher.iter(|| {
            now_ms += 50;
            trail.stored(now_ms, mark.clone());
            black_box(trail.due(now_ms))
        });
    });
}
