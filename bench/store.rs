//! What the CQL store takes and gives: rows a second, our CPU time and the server's for each, by the shape of the mutation.
//!
//! `cargo bench --bench store -- [--seconds N] [--server-pid PID] [--only TEXT]`, with the nodes in TALLYMARK_TEST_SCYLLA (see
//! `tests/stack`). A keyspace is made for it and taken away at the end. A server that has just started gives half its rate
//! for its first 20 seconds: the first part warms it and is not shown.

mod cpu;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use scylla::client::session_builder::SessionBuilder;
use tallymark::{
    item::{Epoch, Namespace, Seq, Shard, Stamp},
    store::{
        EventRow, Events as _, Options, RowName, ShardKey, Slice, TotalRow, Totals as _,
        scylla::{Scylla, schema},
    },
    url::StoreUrl,
};

const SHARDS: u64 = 256;
const SERIES_OF_A_SHARD: u64 = 400;
const MUTATIONS_IN_FLIGHT: usize = 48;

struct Bench {
    store: Scylla,
    seconds: u64,
    server: Option<u32>,
    namespace: Namespace,
    /// Only parts whose name has this.
    only: String,
    turn: AtomicU64,
}

fn main() {
    let option = |name: &str| std::env::args().skip_while(|argument| argument != name).nth(1);
    let number = |name: &str| option(name).map(|value| value.parse::<u32>().expect("the option takes a number"));
    let (seconds, server) = (number("--seconds").unwrap_or(10), number("--server-pid"));
    let only = option("--only").unwrap_or_default();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(run(seconds.into(), server, only));
}

async fn run(seconds: u64, server: Option<u32>, only: String) {
    let nodes =
        std::env::var("TALLYMARK_TEST_SCYLLA").expect("TALLYMARK_TEST_SCYLLA names the nodes: `tests/stack up`");
    let keyspace = format!("bench_{:08x}", rand::random::<u32>());
    let url = format!("scylla://{nodes}/{keyspace}");
    let Ok(StoreUrl::Scylla { servers }) = url.parse() else { panic!("{url} is no URL of a store") };
    let options = Options { replication: 1, ..Options::default() };
    schema::apply(&servers, &options, false).await.expect("the schema is applied");
    let store = Scylla::open(&servers, &options).await.expect("the store opens");
    let namespace = Namespace::default();
    let bench = Arc::new(Bench { store, seconds, server, namespace, only, turn: AtomicU64::new(1) });

    let totals = |rows: u64| {
        move |bench: Arc<Bench>, turn: u64| async move {
            let (key, rows) = bench.rows(turn, rows);
            bench.store.write_totals(&key, &rows).await.expect("the store takes it");
            rows.len()
        }
    };
    bench.measure(MUTATIONS_IN_FLIGHT, totals(100)).await;
    println!("| what | in flight | rows a second | our CPU, µs a row | the server's, µs a row |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    for rows in [1, 10, 30, 100, 400] {
        bench.part(&format!("totals, mutations of {rows}"), MUTATIONS_IN_FLIGHT, totals(rows)).await;
    }
    let slice = |bench: Arc<Bench>, turn: u64| async move {
        let slice = Slice { limit: usize::MAX, ..Slice::default() };
        bench.store.totals(&bench.key(turn), &slice).await.expect("the store answers").len()
    };
    bench.part("totals, slices of a shard", 8, slice).await;
    for count in [1, 8, 64] {
        let named = move |bench: Arc<Bench>, turn: u64| async move {
            let (key, rows) = bench.rows(turn, count);
            let names: Vec<RowName> = rows.into_iter().map(|row| row.name).collect();
            bench.store.totals_named(&key, &names).await.expect("the store answers").len()
        };
        bench.part(&format!("totals, {count} by name"), 8, named).await;
    }
    // The last of each is what a flush does: two calls at a time, a subject's events side by side.
    for (what, subjects, beside, of_a_call, calls) in [
        ("distinct subjects, calls of 100", u64::MAX, 1, 100, 16),
        ("distinct subjects, calls of 4,000", u64::MAX, 1, 4_000, 2),
        ("1,000 subjects, calls of 100", 1_000, 1, 100, 16),
        ("1,000 subjects, calls of 4,000", 1_000, 1, 4_000, 2),
        ("1,000 subjects, 10 side by side, calls of 4,000", 1_000, 10, 4_000, 2),
    ] {
        let events = move |bench: Arc<Bench>, turn: u64| async move {
            let rows = bench.events(turn, of_a_call, subjects, beside);
            bench.store.write_events(&rows).await.expect("the store takes it");
            rows.len()
        };
        bench.part(&format!("events of {what}"), calls, events).await;
    }
    drop(bench);
    let cql = SessionBuilder::new().known_nodes(nodes.split(',')).build().await.expect("the store is there");
    cql.query_unpaged(format!("DROP KEYSPACE {keyspace}"), ()).await.expect("the keyspace is dropped");
}

struct Measured {
    rows: u64,
    took: Duration,
    ours: Duration,
    theirs: Option<Duration>,
}

impl Bench {
    /// Runs `operation` in so many tasks until the time is up.
    async fn measure<F: Future<Output = usize> + Send>(
        self: &Arc<Self>,
        tasks: usize,
        operation: impl Fn(Arc<Self>, u64) -> F + Send + Copy + 'static,
    ) -> Measured {
        let (began, ours, theirs) = (Instant::now(), cpu::process(), self.server_cpu());
        let until = began + Duration::from_secs(self.seconds);
        let task = || {
            let bench = self.clone();
            tokio::spawn(async move {
                let mut rows = 0;
                while Instant::now() < until {
                    let turn = bench.turn.fetch_add(1, Ordering::Relaxed);
                    rows += operation(bench.clone(), turn).await as u64;
                }
                rows
            })
        };
        let mut rows = 0;
        for task in (0..tasks).map(|_| task()).collect::<Vec<_>>() {
            rows += task.await.expect("no task fails");
        }
        let theirs = theirs.and_then(|before| Some(self.server_cpu()? - before));
        Measured { rows, took: began.elapsed(), ours: cpu::process() - ours, theirs }
    }

    async fn part<F: Future<Output = usize> + Send>(
        self: &Arc<Self>,
        what: &str,
        tasks: usize,
        operation: impl Fn(Arc<Self>, u64) -> F + Send + Copy + 'static,
    ) {
        if !what.contains(&self.only) {
            return;
        }
        let measured = self.measure(tasks, operation).await;
        let a_row = |time: Duration| time.as_secs_f64() * 1e6 / measured.rows.max(1) as f64;
        let theirs = measured.theirs.map_or("-".to_owned(), |time| format!("{:.2}", a_row(time)));
        let rate = measured.rows as f64 / measured.took.as_secs_f64();
        println!("| {what} | {tasks} | {rate:.0} | {:.2} | {theirs} |", a_row(measured.ours));
    }

    /// What the server has used so far, in clock ticks of 10 ms.
    fn server_cpu(&self) -> Option<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.server?)).ok()?;
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        Some(Duration::from_millis(10 * ticks))
    }

    fn key(&self, turn: u64) -> ShardKey {
        let shard = Shard((turn % SHARDS) as i32);
        ShardKey { namespace: self.namespace.clone(), shard, epoch: Epoch([1; 8]) }
    }

    /// Neighbours of one shard, as a flush has them.
    fn rows(&self, turn: u64, count: u64) -> (ShardKey, Vec<TotalRow>) {
        let (key, counter) = (self.key(turn), Arc::<str>::from("page_views"));
        let first = turn / SHARDS * count % SERIES_OF_A_SHARD;
        let row = |series: u64| TotalRow {
            name: RowName {
                counter: counter.clone(),
                tags: format!("country=fr,path=/docs/{:06},status=200", series % SERIES_OF_A_SHARD).into(),
            },
            total: i128::from(turn * 1_000),
            seq: Seq(turn),
            stamp: Stamp(1_700_000_000_000_000 + turn as i64),
        };
        let mut rows: Vec<_> = (first..first + count).map(row).collect();
        rows.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        (key, rows)
    }

    fn events(&self, turn: u64, of_a_call: u64, subjects: u64, beside: u64) -> Vec<EventRow> {
        let event = |index: u64| {
            let number = turn * of_a_call + index;
            EventRow {
                namespace: self.namespace.clone(),
                name: "request".into(),
                subject: Some(format!("user-{}", number / beside % subjects).into()),
                time_ms: 1_700_000_000_000 + number as i64 / 50,
                id: format!("evt-{number:012}").into(),
                properties: Bytes::from_static(br#"{"path":"/docs","status":200}"#),
                received_ms: 1_700_000_000_000,
                stamp: Stamp(1_700_000_000_000_000 + turn as i64),
            }
        };
        (0..of_a_call).map(event).collect()
    }
}
