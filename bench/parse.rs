//! What ingest's own work costs an item, without HTTP and without the log: parsing a body of 100 items, adding them to an
//! open pack, closing the pack. CPU time and allocations.
//!
//! `cargo bench --bench parse`. Its sum is the part of "our CPU up to the acknowledgement" that does not depend on how
//! requests arrive; the rest of that figure is the kernel's TCP and the HTTP server's.

mod cpu;
#[path = "load/request.rs"]
mod request;
mod workload;

use std::{hint::black_box, time::Duration};

use allocation_counter::measure;
use request::{Request, Shape};
use tallymark::{
    ingest::{Batch, Builder, Framing, Head, Kind, Limits, Options, Parser},
    item::{Grains, PackId},
    pack::FORMAT,
};
use workload::Zipf;

const BATCH: usize = 100;
const PACK_ITEMS: usize = 1000;
const BODIES: usize = 2000;
const SERIES: usize = 100_000;

fn main() {
    let rounds = if std::env::args().any(|arg| arg == "--quick") { 1 } else { 7 };
    println!("Bodies of {BATCH} items, packs of {PACK_ITEMS}; three tags, a time; zipf 1.1 over {SERIES} series\n");
    println!("| items | step | ns an item | allocations an item |");
    println!("| --- | --- | ---: | ---: |");
    for (what, ids) in [("with 16-byte ids", true), ("without ids", false)] {
        let steps = Steps::new(ids, rounds);
        steps.row(what, "parse and check", Steps::parse);
        steps.row(what, "parse, add to a pack and close it", |steps| steps.pack(false));
        steps.row(what, "the same, with sums for the hot view", |steps| steps.pack(true));
    }
}

/// Bodies and what ingest needs to take them.
struct Steps {
    bodies: Vec<String>,
    limits: Limits,
    now_ms: i64,
    rounds: usize,
}

impl Steps {
    fn new(ids: bool, rounds: usize) -> Self {
        let now_ms = tallymark::clock::now_ms();
        let zipf = Zipf::new(SERIES, 1.1);
        let mut request = Request::new(Shape { batch: BATCH, ids, hot_skip: false, subjects: None }, "localhost", 7);
        let mut body = || {
            let bytes = request.next(&zipf, now_ms.unsigned_abs());
            let text = std::str::from_utf8(bytes).expect("a request is text");
            text.split_once("\r\n\r\n").expect("a head and a body").1.to_owned()
        };
        let bodies = (0..BODIES).map(|_| body()).collect();
        Self { bodies, limits: Limits::new(&Options::default()).expect("defaults are valid"), now_ms, rounds }
    }

    fn parser(&self) -> Parser<'_> {
        Parser {
            limits: &self.limits,
            namespace: "default",
            now_ms: self.now_ms,
            idempotency_key: None,
            partial: false,
            shards: 256,
            partitions: 4,
        }
    }

    fn parse(&self) {
        let (parser, mut batch) = (self.parser(), Batch::default());
        for body in &self.bodies {
            parser.parse(Kind::Increment, Framing::Json, body, &mut batch).expect("it is valid");
            assert_eq!(batch.len(), BATCH);
        }
    }

    fn pack(&self, hot: bool) {
        let (parser, mut batch) = (self.parser(), Batch::default());
        for bodies in self.bodies.chunks(PACK_ITEMS / BATCH) {
            let mut builder = Builder::new(Grains::HOUR.with(Grains::DAY), hot);
            for body in bodies {
                parser.parse(Kind::Increment, Framing::Json, body, &mut batch).expect("it is valid");
                builder.add_all(&batch, hot);
            }
            let closed = builder.close(Head {
                format: FORMAT,
                id: PackId::random(),
                ingest: [3; 16],
                receive_ms: self.now_ms,
                partitions: 4,
                shards: 256,
                urgent: false,
                traceparent: String::new(),
                claims: Vec::new(),
            });
            if hot {
                black_box(closed.deltas());
            }
            black_box(closed);
        }
    }

    fn row(&self, items: &str, step: &str, work: impl Fn(&Self)) {
        let allocations = measure(|| work(self)).count_total;
        let mut best = Duration::MAX;
        for _ in 0..self.rounds {
            let begin = cpu::process();
            work(self);
            best = best.min(cpu::process() - begin);
        }
        let count = (BODIES * BATCH) as f64;
        let ns = best.as_secs_f64() * 1e9 / count;
        println!("| {items} | {step} | {ns:.0} | {:.3} |", allocations as f64 / count);
    }
}
