//! The hot view in Redis when the server has trouble: whatever it loses, refuses or brings back, what is shown as full and
//! not stale is the truth, and everything heals by itself. The laws that every backend keeps are in `contract/hot.rs`.

use std::time::{Duration, Instant};

use tallymark::{
    hot::{Base, Delta, Error, HotKey, HotKind, HotView as _, LoadedBase, Options, Published, View, redis::Redis},
    item::{Lane, Seq, TopicId},
    retry::Kind,
    units::Span,
};

use self::server::{Server, open, options};

mod cluster;
mod login;
pub mod server;

fn lane(partition: u32) -> Lane {
    Lane { topic_id: TopicId([3; 16]), partition }
}

fn key(kind: HotKind, name: &str) -> HotKey {
    HotKey { kind, key: format!("default\0{name}\0").into_bytes().into() }
}

fn counter(name: &str) -> HotKey {
    key(HotKind::Counter, name)
}

fn series(name: &str) -> HotKey {
    key(HotKind::Series, name)
}

async fn try_add(view: &Redis, key: &HotKey, seq: u64, amount: i128) -> Result<(), Error> {
    view.add(lane(0), Seq(seq), vec![Delta { key: key.clone(), amount }]).await
}

async fn add(view: &Redis, key: &HotKey, seq: u64, amount: i128) {
    try_add(view, key, seq, amount).await.unwrap();
}

/// As a worker does after a flush.
async fn publish(view: &Redis, key: &HotKey, seq: u64, total: i128) -> Result<Published, Error> {
    let published = view.publish(lane(0), Seq(seq), &[Base { key: key.clone(), total }]).await?;
    view.published(lane(0), Seq(seq)).await?;
    Ok(published)
}

async fn read(view: &Redis, key: &HotKey) -> Result<View, Error> {
    Ok(view.read(std::slice::from_ref(key)).await?.remove(0))
}

/// A whole load, as of what is stored, and of where the log ended if that is above it.
async fn load(view: &Redis, key: &HotKey, base: (i128, u64), end: Option<u64>) -> Result<bool, Error> {
    let token = view.begin_load(key).await?;
    let base = LoadedBase { lane: lane(0), base: Some((base.0, Seq(base.1))) };
    let ends: Vec<_> = end.into_iter().map(|end| (lane(0), Seq(end))).collect();
    view.finish_load(key, token, &[base], &ends).await
}

const fn fresh(total: i128) -> View {
    View::Full { total, stale: false }
}

const fn stale(total: i128) -> View {
    View::Full { total, stale: true }
}

/// Tries until it succeeds; what fails meanwhile is only trouble that passes.
async fn healed<T, F: Future<Output = Result<T, Error>>>(what: &str, mut attempt: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => {
                assert_eq!(error.kind, Kind::Transient, "{error}");
                assert!(Instant::now() < deadline, "waited too long until {what}: {error}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

async fn reads(view: &Redis, key: &HotKey, expected: View) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let seen = read(view, key).await;
        if matches!(&seen, Ok(seen) if *seen == expected) {
            return;
        }
        assert!(Instant::now() < deadline, "waited too long for {expected:?}; it is {seen:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_flush_of_everything_is_a_miss_until_it_is_loaded_again() {
    let server = Server::start(&[]).await;
    let (view, key) = (server.view(), counter("a"));
    assert!(load(&view, &key, (5, 5), None).await.unwrap());
    add(&view, &key, 6, 1).await;
    assert_eq!(read(&view, &key).await.unwrap(), fresh(6));
    let token = view.begin_load(&counter("b")).await.unwrap();
    let () = server.ask(&["FLUSHALL"]).await;
    assert_eq!(read(&view, &key).await.unwrap(), View::Miss);
    add(&view, &key, 7, 1).await;
    assert_eq!(read(&view, &key).await.unwrap(), View::Miss, "seq 6 is gone");
    assert!(!view.finish_load(&counter("b"), token, &[], &[]).await.unwrap(), "so is the token");
    assert!(load(&view, &key, (5, 5), Some(8)).await.unwrap());
    assert_eq!(read(&view, &key).await.unwrap(), stale(6), "seq 6 is not stored yet");
    publish(&view, &key, 7, 7).await.unwrap();
    assert_eq!(read(&view, &key).await.unwrap(), fresh(7));
}

#[tokio::test]
async fn a_server_that_comes_back_empty_is_found_again() {
    let mut server = Server::start(&[]).await;
    let (view, key) = (server.view(), counter("a"));
    assert!(load(&view, &key, (5, 5), None).await.unwrap());
    server.kill();
    let error = loop {
        // What is answered is not wrong: the connection may have been used once more before it was seen to be broken.
        if let Err(error) = read(&view, &key).await {
            break error;
        }
    };
    assert_eq!(error.kind, Kind::Transient, "{error}");
    assert!(error.message.contains(&server.address()), "{error}");
    try_add(&view, &key, 6, 1).await.unwrap_err();
    server.start_again().await;
    reads(&view, &key, View::Miss).await;
    healed("deltas are taken", || try_add(&view, &key, 7, 1)).await;
    assert!(load(&view, &key, (5, 5), Some(8)).await.unwrap());
    assert_eq!(read(&view, &key).await.unwrap(), stale(6));
    publish(&view, &key, 7, 7).await.unwrap();
    reads(&view, &key, fresh(7)).await;
}

#[tokio::test]
async fn what_comes_back_from_an_old_snapshot_is_not_shown() {
    let mut server = Server::start(&[]).await;
    let (view, key, tagged) = (server.view(), counter("a"), series("a"));
    for key in [&key, &tagged] {
        assert!(load(&view, key, (5, 5), None).await.unwrap());
        add(&view, key, 6, 1).await;
        assert_eq!(read(&view, key).await.unwrap(), fresh(6));
    }
    let token = view.begin_load(&counter("b")).await.unwrap();
    let () = server.ask(&["SAVE"]).await;
    for key in [&key, &tagged] {
        add(&view, key, 7, 10).await;
        publish(&view, key, 7, 16).await.unwrap();
        add(&view, key, 8, 100).await;
        assert_eq!(read(&view, key).await.unwrap(), fresh(116));
    }
    server.kill();
    server.start_again().await;
    // The snapshot says of itself what was true once.
    let (full, base): (Option<String>, String) =
        server.ask_of("HMGET", &view.key_of(&key), &["full", "b:0303030303030303.0"]).await;
    assert!(full.is_some());
    assert_eq!(base, "5@5");
    reads(&view, &key, View::Miss).await;
    reads(&view, &tagged, View::Miss).await;
    // Nor does a load count that began in the life before.
    assert!(!finish(&view, &counter("b"), token).await);
    assert_eq!(read(&view, &counter("b")).await.unwrap(), View::Miss);
    // Another process, which has never seen the one before, is not deceived either.
    let other = server.view();
    assert_eq!(read(&other, &key).await.unwrap(), View::Miss);
    for key in [&key, &tagged] {
        assert!(load(&other, key, (116, 8), None).await.unwrap());
        add(&view, key, 9, 1000).await;
        assert_eq!(read(&other, key).await.unwrap(), fresh(1116));
        assert_eq!(read(&view, key).await.unwrap(), fresh(1116));
    }
}

/// Ends a load and says whether the entry is full now.
async fn finish(view: &Redis, key: &HotKey, token: tallymark::hot::Token) -> bool {
    let counted = view.finish_load(key, token, &[], &[]).await.unwrap();
    counted && read(view, key).await.unwrap() != View::Miss
}

#[tokio::test]
async fn a_full_server_that_evicts_nothing_deletes_what_would_be_wrong() {
    let server = Server::start(&["--maxmemory-policy", "noeviction"]).await;
    let (view, key) = (server.view(), counter("a"));
    assert!(load(&view, &key, (5, 5), None).await.unwrap());
    assert_eq!(read(&view, &key).await.unwrap(), fresh(5));
    let () = server.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let error = try_add(&view, &key, 6, 1).await.unwrap_err();
    assert_eq!(error.kind, Kind::Transient);
    assert!(error.message.contains("maxmemory"), "{error}");
    assert_eq!(read(&view, &key).await.unwrap(), View::Miss);
    // Nothing can be loaded, nothing is known, and publishing goes on.
    view.begin_load(&key).await.unwrap_err();
    assert_eq!(publish(&view, &key, 6, 6).await.unwrap(), Published::default());
    let () = server.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert!(load(&view, &key, (6, 6), None).await.unwrap());
    add(&view, &key, 7, 1).await;
    assert_eq!(read(&view, &key).await.unwrap(), fresh(7));
    // An entry that is there is published into, and so made smaller, also while the server is full.
    let () = server.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert_eq!(publish(&view, &key, 7, 7).await.unwrap().written, 1);
    let () = server.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(read(&view, &key).await.unwrap(), fresh(7));
}

#[tokio::test]
async fn a_full_server_that_evicts_shows_the_truth_or_nothing() {
    let server = Server::start(&["--maxmemory", "3mb", "--maxmemory-policy", "allkeys-random"]).await;
    let view = server.view();
    let keys: Vec<_> =
        (0..200).map(|n| if n % 2 == 0 { counter(&n.to_string()) } else { series(&n.to_string()) }).collect();
    let mut misses = 0;
    for seq in 0..60_u64 {
        // Crowds out a part of what is there.
        let crowd = (0..200).map(|n| Delta { key: counter(&format!("crowd{seq}/{n}{}", "x".repeat(200))), amount: 1 });
        view.add(lane(1), Seq(seq), crowd.collect()).await.unwrap();
        let deltas = keys.iter().map(|key| Delta { key: key.clone(), amount: 1 });
        view.add(lane(0), Seq(seq), deltas.collect()).await.unwrap();
        let truth = i128::from(seq) + 1;
        for (key, seen) in keys.iter().zip(view.read(&keys).await.unwrap()) {
            match seen {
                View::Full { total, stale } => assert!(total == truth && !stale, "{total} of {truth}, stale: {stale}"),
                View::Miss => {
                    misses += 1;
                    load(&view, key, (truth, seq), None).await.unwrap();
                }
            }
        }
    }
    let evicted: String = server.ask(&["INFO", "stats"]).await;
    assert!(!evicted.contains("evicted_keys:0\r"), "{evicted}");
    assert!(misses > keys.len(), "{misses}");
}

#[tokio::test]
async fn a_frozen_server_costs_an_acknowledgement_no_more_than_the_timeout_and_what_it_missed_is_said() {
    let server = Server::start(&[]).await;
    let timeout = Duration::from_millis(100);
    let view = server.view_with(&Options { timeout: Span(timeout), ..options() });
    let other = server.view();
    let key = counter("a");
    assert!(load(&view, &key, (5, 5), None).await.unwrap());
    assert_eq!(read(&other, &key).await.unwrap(), fresh(5));
    server.freeze();
    let mut longest = Duration::ZERO;
    let mut at_once = false;
    for seq in 6..40 {
        let began = Instant::now();
        try_add(&view, &key, seq, 1).await.unwrap_err();
        longest = longest.max(began.elapsed());
        at_once |= began.elapsed() < timeout / 2;
    }
    server.thaw();
    assert!(longest < timeout * 5, "{longest:?}");
    assert!(at_once, "a server that is known to be away is not waited for");
    healed("deltas are taken", || try_add(&view, &key, 40, 1)).await;
    // Some of what was sent may have arrived, some not. Everybody says so until it is published.
    for view in [&view, &other] {
        assert!(matches!(read(view, &key).await.unwrap(), View::Full { stale: true, .. }));
    }
    publish(&other, &key, 40, 40).await.unwrap();
    for view in [&view, &other] {
        assert_eq!(read(view, &key).await.unwrap(), fresh(40));
    }
}

#[tokio::test]
async fn what_is_read_from_a_server_that_takes_no_writes_is_called_stale() {
    let server = Server::start(&[]).await;
    let (view, key) = (server.view(), counter("a"));
    assert!(load(&view, &key, (5, 5), None).await.unwrap());
    assert_eq!(read(&view, &key).await.unwrap(), fresh(5));
    // Like a disk that is full: reads are answered, writes are not.
    let () = server.ask(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    reads(&view, &key, stale(5)).await;
    assert_eq!(try_add(&view, &key, 6, 1).await.unwrap_err().kind, Kind::Transient);
    let () = server.ask(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await;
    assert_eq!(read(&view, &key).await.unwrap(), stale(5), "seq 6 is missing");
    publish(&view, &key, 6, 6).await.unwrap();
    assert_eq!(read(&view, &key).await.unwrap(), fresh(6));
}

#[tokio::test]
async fn a_primary_that_becomes_a_replica_is_left_and_taken_again_when_it_is_primary() {
    let (server, primary) = (Server::start(&[]).await, Server::start(&[]).await);
    let (view, key) = (server.view(), counter("a"));
    assert!(load(&view, &key, (5, 5), None).await.unwrap());
    let port = primary.port.to_string();
    let () = server.ask(&["REPLICAOF", "127.0.0.1", &port]).await;
    assert_eq!(try_add(&view, &key, 6, 1).await.unwrap_err().kind, Kind::Transient);
    let error = loop {
        // Nothing that it says from now on may be called fresh.
        match read(&view, &key).await {
            Ok(seen) => assert!(!matches!(seen, View::Full { stale: false, .. }), "{seen:?}"),
            Err(error) => break error,
        }
    };
    assert!(error.message.contains("primary"), "{error}");
    let () = server.ask(&["REPLICAOF", "NO", "ONE"]).await;
    healed("it is taken", || try_add(&view, &key, 7, 1)).await;
    assert!(!matches!(read(&view, &key).await.unwrap(), View::Full { stale: false, .. }));
    publish(&view, &key, 7, 7).await.unwrap();
    load(&view, &key, (7, 7), None).await.unwrap();
    assert_eq!(read(&view, &key).await.unwrap(), fresh(7));
}

#[tokio::test]
async fn publishes_that_were_lost_with_a_worker_make_every_entry_a_miss() {
    let server = Server::start(&[]).await;
    let (worker, reader, key) = (server.view(), server.view(), counter("a"));
    worker.publishes_from(lane(0), Seq(0));
    assert!(load(&reader, &key, (5, 5), None).await.unwrap());
    publish(&worker, &key, 6, 6).await.unwrap();
    assert_eq!(read(&reader, &key).await.unwrap(), fresh(6));
    // The next worker goes on where this one had published.
    let next = server.view();
    next.publishes_from(lane(0), Seq(7));
    publish(&next, &key, 8, 8).await.unwrap();
    assert_eq!(read(&reader, &key).await.unwrap(), fresh(8));
    // And the one after it goes on behind what was never published: the reader was not told of it by a delta either.
    let after = server.view();
    after.publishes_from(lane(0), Seq(12));
    publish(&after, &counter("other"), 13, 1).await.unwrap();
    assert_eq!(read(&reader, &key).await.unwrap(), View::Miss);
    assert!(load(&reader, &key, (20, 13), None).await.unwrap());
    publish(&after, &key, 14, 21).await.unwrap();
    assert_eq!(read(&reader, &key).await.unwrap(), fresh(21));
}

#[tokio::test]
async fn a_series_that_nobody_reads_is_not_written_and_one_that_is_loaded_misses_nothing() {
    let server = Server::start(&[]).await;
    let (ingest, reader, tagged) = (server.view(), server.view(), series("a"));
    add(&ingest, &tagged, 0, 1).await;
    let exists: bool = server.ask_of("EXISTS", &ingest.key_of(&tagged), &[]).await;
    assert!(!exists);
    assert_eq!(ingest.known(std::slice::from_ref(&tagged)).await.unwrap(), [false]);
    let token = reader.begin_load(&tagged).await.unwrap();
    // Ingest has not heard of the load; it hears of it by its own write.
    add(&ingest, &tagged, 1, 10).await;
    let base = LoadedBase { lane: lane(0), base: Some((1, Seq(0))) };
    assert!(reader.finish_load(&tagged, token, &[base], &[]).await.unwrap());
    assert_eq!(read(&reader, &tagged).await.unwrap(), fresh(11));
    add(&ingest, &tagged, 2, 100).await;
    assert_eq!(read(&reader, &tagged).await.unwrap(), fresh(111));
    // Nor does a worker pass it by that had never met it.
    let worker = server.view();
    assert_eq!(worker.known(&[tagged.clone(), series("b")]).await.unwrap(), [true, false]);
    assert_eq!(publish(&worker, &tagged, 2, 110).await.unwrap(), Published { written: 1, drifted: 1 });
    assert_eq!(read(&ingest, &tagged).await.unwrap(), fresh(110));
}

#[tokio::test]
async fn marks_that_are_evicted_alone_make_every_entry_a_miss() {
    let server = Server::start(&[]).await;
    let (view, tagged) = (server.view(), series("a"));
    assert!(load(&view, &tagged, (5, 5), None).await.unwrap());
    let () = server.ask(&["DEL", "tallymark:{lanes}:marks"]).await;
    // A process that starts now does not know that the series was announced.
    add(&server.view(), &tagged, 6, 1).await;
    assert_eq!(read(&view, &tagged).await.unwrap(), View::Miss);
    assert!(load(&view, &tagged, (6, 6), None).await.unwrap());
    add(&server.view(), &tagged, 7, 1).await;
    assert_eq!(read(&view, &tagged).await.unwrap(), fresh(7));
}

#[tokio::test]
async fn scripts_that_the_server_has_forgotten_are_loaded_again() {
    let server = Server::start(&[]).await;
    let (view, key) = (server.view(), counter("a"));
    assert!(load(&view, &key, (5, 5), None).await.unwrap());
    let () = server.ask(&["SCRIPT", "FLUSH"]).await;
    assert_eq!(publish(&view, &key, 6, 6).await.unwrap().written, 1);
    let () = server.ask(&["SCRIPT", "FLUSH"]).await;
    assert!(load(&view, &key, (7, 7), None).await.unwrap());
    assert_eq!(read(&view, &key).await.unwrap(), fresh(7));
}

#[tokio::test]
async fn somebody_elses_key_under_our_name_is_a_miss_and_stays() {
    let server = Server::start(&[]).await;
    let (view, key, fine) = (server.view(), counter("a"), counter("b"));
    let () = server.ask_of("SET", &view.key_of(&key), &["theirs"]).await;
    assert_eq!(try_add(&view, &key, 0, 1).await.unwrap_err().kind, Kind::Transient);
    assert!(load(&view, &fine, (1, 1), None).await.unwrap());
    publish(&view, &key, 2, 2).await.unwrap();
    assert_eq!(view.read(&[key.clone(), fine.clone()]).await.unwrap(), [View::Miss, fresh(1)]);
    let theirs: String = server.ask_of("GET", &view.key_of(&key), &[]).await;
    assert_eq!(theirs, "theirs");
    let () = server.ask_of("DEL", &view.key_of(&key), &[]).await;
    assert!(load(&view, &key, (2, 2), None).await.unwrap());
    assert_eq!(read(&view, &key).await.unwrap(), fresh(2));
}

#[tokio::test]
async fn entries_expire_within_their_time_and_views_with_other_prefixes_do_not_meet() {
    let server = Server::start(&[]).await;
    let options = Options { ttl: Span::from_secs(100), ..options() };
    let (view, key) = (server.view_with(&options), counter("a"));
    let ttl = async || -> i64 { server.ask_of("PTTL", &view.key_of(&key), &[]).await };
    assert!(load(&view, &key, (5, 5), None).await.unwrap());
    assert!((80_000..=110_000).contains(&ttl().await), "{}", ttl().await);
    let () = server.ask_of("PEXPIRE", &view.key_of(&key), &["5000"]).await;
    publish(&view, &key, 6, 6).await.unwrap();
    assert!((80_000..=110_000).contains(&ttl().await), "{}", ttl().await);
    let () = server.ask_of("PERSIST", &view.key_of(&key), &[]).await;
    for seq in 7..1000 {
        add(&view, &key, seq, 1).await;
        if ttl().await > 0 {
            break;
        }
    }
    assert!((80_000..=110_000).contains(&ttl().await), "{}", ttl().await);
    let other = server.view_with(&Options { prefix: "other".to_owned(), ..options });
    assert_eq!(read(&other, &key).await.unwrap(), View::Miss);
    assert_eq!(other.known(&[key]).await.unwrap(), [false]);
}

#[tokio::test]
async fn an_entry_that_nobody_publishes_stays_within_its_bound_and_says_so() {
    let server = Server::start(&[]).await;
    let (view, key) = (server.view_with(&Options { max_pending: 64, ..options() }), counter("a"));
    assert!(load(&view, &key, (0, 0), None).await.unwrap());
    for seq in 1..=600 {
        add(&view, &key, seq, 1).await;
    }
    let fields: u64 = server.ask_of("HLEN", &view.key_of(&key), &[]).await;
    // One add in four looks at what is there.
    assert!((64..110).contains(&fields), "{fields}");
    assert!(matches!(read(&view, &key).await.unwrap(), View::Full { stale: true, .. }));
    assert_eq!(publish(&view, &key, 600, 600).await.unwrap(), Published { written: 1, drifted: 0 });
    assert_eq!(read(&view, &key).await.unwrap(), fresh(600));
    for seq in 601..=632 {
        add(&view, &key, seq, 1).await;
    }
    assert_eq!(publish(&view, &key, 632, 632).await.unwrap().written, 1);
    add(&view, &key, 633, 1).await;
    assert_eq!(read(&view, &key).await.unwrap(), fresh(633), "there is room again");
}

#[tokio::test]
async fn connections_are_made_once() {
    let server = Server::start(&[]).await;
    let (view, keys) = (server.view(), ["a", "b"].map(counter));
    let made = async || -> String {
        let stats: String = server.ask(&["INFO", "stats"]).await;
        stats.lines().find(|line| line.starts_with("total_connections_received")).expect("it counts").to_owned()
    };
    view.read(&[]).await.unwrap();
    let (first, second) = (made().await, made().await);
    assert_ne!(first, second, "each question is asked by a connection of its own");
    for seq in 0..50 {
        view.add(lane(0), Seq(seq), Vec::new()).await.unwrap();
        add(&view, &keys[0], seq, 1).await;
        assert!(load(&view, &keys[1], (1, seq), Some(seq)).await.unwrap());
        view.read(&[]).await.unwrap();
        view.read(&keys).await.unwrap();
        view.known(&[]).await.unwrap();
        view.known(&keys).await.unwrap();
        view.publish(lane(0), Seq(seq), &[]).await.unwrap();
        publish(&view, &keys[0], seq, 1).await.unwrap();
    }
    let count =
        |line: &str| line.trim_start_matches(|char: char| !char.is_ascii_digit()).trim().parse::<u64>().unwrap();
    assert_eq!(count(&made().await), count(&second) + 1);
}

#[tokio::test]
async fn many_deltas_at_once_are_all_there() {
    let server = Server::start(&[]).await;
    let view = server.view();
    let keys: Vec<_> = (0..2_000).map(|n| counter(&n.to_string())).collect();
    for key in &keys[..10] {
        assert!(load(&view, key, (0, 0), None).await.unwrap());
    }
    for seq in 1..4 {
        let deltas = keys.iter().map(|key| Delta { key: key.clone(), amount: 1 });
        view.add(lane(0), Seq(seq), deltas.collect()).await.unwrap();
    }
    assert!(view.known(&keys).await.unwrap().into_iter().all(|known| known));
    let bases: Vec<_> = keys.iter().map(|key| Base { key: key.clone(), total: 3 }).collect();
    assert_eq!(view.publish(lane(0), Seq(3), &bases).await.unwrap(), Published { written: 2_000, drifted: 0 });
    let seen = view.read(&keys).await.unwrap();
    assert!(seen[..10].iter().all(|seen| *seen == fresh(3)) && seen[10..].iter().all(|seen| *seen == View::Miss));
    let fields: i64 = server.ask_of("HLEN", &view.key_of(&keys[100]), &[]).await;
    assert_eq!(fields, 1, "what the base covers is gone");
}
