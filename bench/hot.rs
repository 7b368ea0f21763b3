//! What the hot view in Redis costs: operations a second, our CPU time and the server's for each.
//!
//! `cargo bench --bench hot -- HOST:PORT` measures against a Redis that is there for that; its keys begin with `bench` and
//! expire. Wall clock, one run each: on a machine that does something else, too, these are orders of magnitude.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cpu_time::ProcessTime;
use tallymark::{
    hot::{Base, Delta, HotKey, HotKind, HotView as _, LoadedBase, Options, redis::Redis},
    item::{Lane, Seq, TopicId},
    units::Span,
    url::HotUrl,
};

const TASKS: u64 = 8;

fn lane(partition: u64) -> Lane {
    Lane { topic_id: TopicId([5; 16]), partition: partition as u32 }
}

fn key(kind: HotKind, n: u64) -> HotKey {
    let key = format!("default\0page_views\0method=GET,path=/docs/{n},status=200");
    HotKey { kind, key: key.into_bytes().into() }
}

/// The server's CPU time, as it says itself.
fn server_cpu(address: &str) -> f64 {
    let (host, port) = address.rsplit_once(':').expect("HOST:PORT");
    let output =
        Command::new("redis-cli").args(["-h", host, "-p", port, "INFO", "cpu"]).output().expect("redis-cli runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let part = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    part("used_cpu_user:").unwrap_or(0.0) + part("used_cpu_sys:").unwrap_or(0.0)
}

/// Runs `work` in so many tasks for a while; it answers how many operations it has done.
async fn measure<F: Future<Output = u64> + Send>(
    what: &str,
    address: &str,
    seconds: u64,
    work: impl Fn(u64, u64) -> F + Copy + Send + Sync + 'static,
) {
    let done = Arc::new(AtomicU64::new(0));
    let (cpu, served, began) = (ProcessTime::now(), server_cpu(address), Instant::now());
    let tasks = (0..TASKS).map(|task| {
        let done = done.clone();
        tokio::spawn(async move {
            let mut round = 0;
            while began.elapsed() < Duration::from_secs(seconds) {
                done.fetch_add(work(task, round).await, Ordering::Relaxed);
                round += 1;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("the work does not panic");
    }
    let count = done.load(Ordering::Relaxed).max(1) as f64;
    let (wall, ours) = (began.elapsed().as_secs_f64(), cpu.elapsed().as_secs_f64());
    let theirs = server_cpu(address) - served;
    println!("| {what} | {:.0} | {:.2} | {:.2} |", count / wall, ours / count * 1e6, theirs / count * 1e6);
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--bench")).collect();
    let seconds = if arguments.iter().any(|argument| argument == "--quick") { 1 } else { 4 };
    let Some(address) = arguments.iter().find(|argument| argument.contains(':')).cloned() else {
        eprintln!("bench hot: name a Redis: cargo bench --bench hot -- HOST:PORT");
        return;
    };
    let Ok(HotUrl::Redis { tls, cluster, servers }) = format!("redis://{address}").parse() else {
        panic!("{address} is no HOST:PORT")
    };
    let options = Options {
        prefix: format!("bench{:08x}", rand::random::<u32>()),
        ttl: Span::from_secs(60),
        timeout: Span::from_secs(5),
        ..Options::default()
    };
    let view: &'static Redis =
        Box::leak(Box::new(Redis::open(tls, cluster, &servers, &options).expect("options are fine")));
    view.read(&[]).await.expect("the server answers");

    println!("| operation, {TASKS} tasks | a second | our CPU, µs each | Redis's CPU, µs each |");
    println!("| --- | ---: | ---: | ---: |");
    let address = &*address.leak();
    measure("delta of a counter, packs of 100", address, seconds, move |task, round| async move {
        let deltas =
            (0..100).map(|n| Delta { key: key(HotKind::Counter, task * 10_000 + round % 100 * 100 + n), amount: 1 });
        view.add(lane(task), Seq(round), deltas.collect()).await.expect("it is added");
        100
    })
    .await;
    measure(
        "delta of a series that nobody reads, packs of 100 and their counter",
        address,
        seconds,
        move |task, round| async move {
            let deltas = (0..100).map(|n| Delta { key: key(HotKind::Series, n), amount: 1 });
            let counter = Delta { key: key(HotKind::Counter, task), amount: 100 };
            view.add(lane(task), Seq(round), deltas.chain([counter]).collect()).await.expect("it is added");
            // So that it does not grow without end.
            if round % 200 == 199 {
                let base = Base { key: key(HotKind::Counter, task), total: 1 };
                view.publish(lane(task), Seq(round), &[base]).await.expect("it is published");
            }
            100
        },
    )
    .await;
    measure(
        "base published over one pending delta, 1,000 at a time",
        address,
        seconds,
        move |task, round| async move {
            let keys = (0..1000).map(|n| key(HotKind::Counter, task * 10_000 + round % 10 * 1000 + n));
            let bases: Vec<_> = keys.map(|key| Base { key, total: i128::from(round) }).collect();
            view.publish(lane(task), Seq(1_000_000 + round), &bases).await.expect("it is published").written as u64
        },
    )
    .await;
    measure("entry asked whether it is there, 1,000 at a time", address, seconds, move |task, round| async move {
        let keys: Vec<_> = (0..1000).map(|n| key(HotKind::Counter, task * 10_000 + round % 10 * 1000 + n)).collect();
        view.known(&keys).await.expect("they are known").len() as u64
    })
    .await;
    measure("whole load of a counter", address, seconds, move |task, round| async move {
        let key = key(HotKind::Counter, task * 10_000 + round % 10_000);
        let token = view.begin_load(&key).await.expect("it is begun");
        let base = LoadedBase { lane: lane(task), base: Some((1, Seq(2_000_000))) };
        u64::from(view.finish_load(&key, token, &[base], &[]).await.expect("it is finished"))
    })
    .await;
    measure("read of a counter, one at a time", address, seconds, move |task, round| async move {
        view.read(&[key(HotKind::Counter, task * 10_000 + round % 10_000)]).await.expect("it is read").len() as u64
    })
    .await;
}
