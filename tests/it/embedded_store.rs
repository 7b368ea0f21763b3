//! The embedded store on a real disk: it comes back from a kill, a full disk, a torn journal, and says what it cannot.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;
use tallymark::{
    item::{Epoch, Lane, Namespace, PackId, Seq, Shard, Stamp, TopicId},
    retry::Kind,
    store::{
        Checkpoint, Counted, EpochRow, Error, EventRow, Events, EventsBy, EventsPage, Ledger, Options, RowName,
        ShardKey, Slice, TotalRow, Totals, embedded::Embedded,
    },
};

const TOPIC: &str = "tallymark.packs";
/// Tells a child of this test binary which folder to write to until it is killed.
const CHILD_DIR: &str = "TALLYMARK_TEST_STORE_DIR";

fn open(dir: &Path) -> Result<Embedded, Error> {
    Embedded::open(dir, &Options::default())
}

fn key(shard: i32) -> ShardKey {
    ShardKey { namespace: Namespace::default(), shard: Shard(shard), epoch: Epoch([3; 8]) }
}

/// The rows of one mutation: a hundred, told apart by its number, which is also their stamp and total.
fn rows(mutation: u64) -> Vec<TotalRow> {
    let row = |index: u64| TotalRow {
        name: RowName {
            counter: "page_views".into(),
            tags: format!("path=/docs/{mutation:07}/{index:02},x={}", "~".repeat(50)).into(),
        },
        total: i128::from(mutation),
        seq: Seq(mutation),
        stamp: Stamp(mutation as i64),
    };
    (0..100).map(row).collect()
}

fn lane() -> Lane {
    Lane { topic_id: TopicId([5; 16]), partition: 2 }
}

fn checkpoint(seq: u64) -> Checkpoint {
    Checkpoint {
        lane: lane(),
        seq: Seq(seq),
        leader_epoch: None,
        pack: PackId([8; 16]),
        stamp: Stamp(seq as i64 + 1),
        dedup_from: Seq(0),
        dedup_stamp: Stamp(0),
        unmet_base: None,
        counted: Counted::since(Seq(0)),
    }
}

fn event(time_ms: i64) -> EventRow {
    EventRow {
        namespace: Namespace::default(),
        name: "login".into(),
        subject: Some("u1".into()),
        time_ms,
        id: format!("{time_ms}").into(),
        properties: Bytes::from_static(b"{\"a\":1}"),
        received_ms: time_ms,
        stamp: Stamp(time_ms),
    }
}

async fn all(store: &Embedded, key: &ShardKey) -> Vec<TotalRow> {
    store.totals(key, &Slice { limit: usize::MAX, ..Slice::default() }).await.unwrap()
}

async fn holds(store: &Embedded, mutations: impl IntoIterator<Item = u64>) {
    for mutation in mutations {
        let expected = rows(mutation);
        let names: Vec<_> = expected.iter().map(|row| row.name.clone()).collect();
        let read = store.totals_named(&key(0), &names).await.unwrap();
        assert!(read.into_iter().eq(expected.into_iter().map(Some)), "mutation {mutation} is not whole");
    }
}

#[tokio::test]
async fn a_reopened_store_has_everything_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let epoch = EpochRow {
        epoch: Epoch([3; 8]),
        topic_id: TopicId([5; 16]),
        cluster_id: "c".into(),
        partitions: 4,
        shards: 256,
        dedup_window_us: 1,
        dedup_max_ids: 2,
        created_ms: 3,
    };
    let page = EventsPage {
        namespace: Namespace::default(),
        by: EventsBy::Subject("u1".into()),
        from_ms: 0,
        to_ms: i64::MAX,
        before: None,
        limit: 10,
    };
    for round in 1..4 {
        let store = open(dir.path()).unwrap();
        store.write_totals(&key(round), &rows(round as u64)).await.unwrap();
        store.write_events(&[event(round.into())]).await.unwrap();
        store.write_checkpoint(TOPIC, &checkpoint(round as u64)).await.unwrap();
        store.write_stored(TOPIC, lane(), Seq(100 + round as u64), Stamp(round.into())).await.unwrap();
        store.begin_epoch(TOPIC, &epoch).await.unwrap();
        drop(store);

        let store = open(dir.path()).unwrap();
        for earlier in 1..=round {
            assert_eq!(all(&store, &key(earlier)).await, rows(earlier as u64));
        }
        assert_eq!(store.events(&page).await.unwrap(), (1..=round.into()).rev().map(event).collect::<Vec<_>>());
        let lanes = store.lanes(TOPIC).await.unwrap();
        assert_eq!(lanes[0].checkpoint, Some(checkpoint(round as u64)));
        assert_eq!(lanes[0].stored, Some(Seq(100 + round as u64)));
        assert_eq!(store.epochs(TOPIC).await.unwrap(), std::slice::from_ref(&epoch));
        // What was written before still wins over what comes late.
        let mut late = rows(round as u64);
        late.iter_mut().for_each(|row| (row.total, row.stamp) = (-1, Stamp(row.stamp.0 - 1)));
        store.write_totals(&key(round), &late).await.unwrap();
        assert_eq!(all(&store, &key(round)).await, rows(round as u64));
    }
}

#[tokio::test]
async fn a_second_process_is_told_that_the_folder_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    let error = open(dir.path()).err().unwrap();
    assert_eq!(error.kind, Kind::Fatal);
    assert!(error.message.contains("in use by another process") && error.message.contains("--store"), "{error}");
    drop(first);
    open(dir.path()).unwrap();
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"x").unwrap();
    let error = open(&file.join("store")).err().unwrap();
    assert_eq!(error.kind, Kind::Fatal);
    assert!(error.message.contains(file.to_str().unwrap()), "{error}");
}

/// Not a test by itself: the process that `what_was_acknowledged_outlives_kill_9` kills.
#[tokio::test]
async fn child_that_writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let store = open(Path::new(&dir)).unwrap();
    for mutation in 0.. {
        store.write_totals(&key(0), &rows(mutation)).await.unwrap();
        println!("acknowledged {mutation}");
    }
}

#[tokio::test]
async fn what_was_acknowledged_outlives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "embedded_store::child_that_writes_until_it_is_killed", "--nocapture"])
        .env(CHILD_DIR, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = |until: Option<u64>| {
        let mut last = None;
        for line in lines.by_ref().map_while(Result::ok) {
            last = line.split_once("acknowledged ").and_then(|(_, number)| number.trim().parse().ok()).or(last);
            if until.is_some() && last >= until {
                break;
            }
        }
        last
    };
    let first = acknowledged(Some(300)).expect("the child writes");
    child.kill().unwrap();
    child.wait().unwrap();
    let last = acknowledged(None).unwrap_or(first);
    holds(&open(dir.path()).unwrap(), 0..=last).await;
}

/// The journal that grows.
fn journal(dir: &Path) -> PathBuf {
    let journals = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let number = |path: &PathBuf| path.file_stem()?.to_str()?.parse::<u64>().ok();
    journals.filter(|path| path.extension().is_some_and(|extension| extension == "jnl")).max_by_key(number).unwrap()
}

/// How much of a journal is written: it is made longer than that.
fn written(path: &Path) -> u64 {
    let mut bytes = Vec::new();
    File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1)
}

/// A folder as a power cut may leave it: 20 mutations, a checkpoint, 20 mutations of which the disk has any part.
/// Returns where in the journal the checkpoint's sync ends.
async fn torn(dir: &Path) -> u64 {
    let store = open(dir).unwrap();
    for mutation in 0..20 {
        store.write_totals(&key(0), &rows(mutation)).await.unwrap();
    }
    store.write_checkpoint(TOPIC, &checkpoint(19)).await.unwrap();
    let synced = written(&journal(dir));
    for mutation in 20..40 {
        store.write_totals(&key(0), &rows(mutation)).await.unwrap();
    }
    synced
}

#[tokio::test]
async fn a_torn_journal_keeps_what_the_checkpoint_covers() {
    for (case, cut) in [("cut", 0.3), ("cut", 0.999), ("zeroed", 0.5), ("garbage", 0.7), ("hole", 0.4)] {
        let dir = tempfile::tempdir().unwrap();
        let synced = torn(dir.path()).await;
        let path = journal(dir.path());
        let end = written(&path);
        let at = synced + ((end - synced) as f64 * cut) as u64;
        let mut file = File::options().write(true).open(&path).unwrap();
        match case {
            "cut" => file.set_len(at).unwrap(),
            "zeroed" => {
                file.set_len(at).unwrap();
                file.set_len(64 << 20).unwrap();
            }
            _ => {
                let length = if case == "hole" { 4_096 } else { end - at } as usize;
                let byte = if case == "hole" { 0 } else { 0xa5 };
                file.seek(SeekFrom::Start(at)).unwrap();
                file.write_all(&vec![byte; length]).unwrap();
            }
        }
        drop(file);
        let store = open(dir.path()).unwrap_or_else(|error| panic!("{case} at {cut}: {error}"));
        holds(&store, 0..20).await;
        assert_eq!(store.lanes(TOPIC).await.unwrap()[0].checkpoint, Some(checkpoint(19)), "{case} at {cut}");
        let kept = all(&store, &key(0)).await.len();
        assert!(
            (2_000..4_000).contains(&kept) && kept.is_multiple_of(100),
            "{case} at {cut}: {kept} rows of whole mutations"
        );
        // The lane repeats what is gone.
        for mutation in 20..40 {
            store.write_totals(&key(0), &rows(mutation)).await.unwrap();
        }
        holds(&store, 0..40).await;
    }
}

/// Every file below a folder, relative to it.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let of = if entry.file_type().unwrap().is_dir() { &mut folders } else { &mut files };
            of.push(entry.path());
        }
    }
    files.iter().map(|file| file.strip_prefix(dir).unwrap().to_owned()).collect()
}

#[tokio::test]
async fn damaged_files_are_an_error_with_a_remedy_and_never_a_panic_or_fewer_rows() {
    let dir = tempfile::tempdir().unwrap();
    for mutation in 0..2 {
        let store = open(dir.path()).unwrap();
        store.write_totals(&key(0), &rows(mutation)).await.unwrap();
        store.write_checkpoint(TOPIC, &checkpoint(mutation)).await.unwrap();
    }
    drop(open(dir.path()).unwrap());
    for (damaged, emptied) in files(dir.path()).into_iter().flat_map(|file| [(file.clone(), false), (file, true)]) {
        if damaged.extension().is_some_and(|extension| extension == "jnl") || damaged.ends_with("lock") {
            continue;
        }
        let copy = tempfile::tempdir().unwrap();
        for file in files(dir.path()) {
            let to = copy.path().join(&file);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(dir.path().join(&file), to).unwrap();
        }
        let mut bytes = fs::read(copy.path().join(&damaged)).unwrap();
        bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
        if emptied {
            bytes.clear();
        }
        fs::write(copy.path().join(&damaged), bytes).unwrap();
        let done = match open(copy.path()) {
            Ok(store) => {
                let read = store.totals(&key(0), &Slice { limit: usize::MAX, ..Slice::default() }).await;
                read.map(|rows| (rows.len(), store))
            }
            Err(error) => Err(error),
        };
        match done {
            Ok((rows, store)) => {
                assert_eq!(rows, 200, "with {} damaged", damaged.display());
                let lanes = store.lanes(TOPIC).await.unwrap();
                assert_eq!(lanes[0].checkpoint, Some(checkpoint(1)), "with {} damaged", damaged.display());
            }
            Err(error) => {
                assert!(error.message.contains(copy.path().to_str().unwrap()), "{error}");
                assert_eq!(error.kind, Kind::Fatal, "{error}");
            }
        }
    }
}

/// A small disk of its own.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount(mib: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mib}m");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).status();
        assert!(done.is_ok_and(|status| status.success()), "this test mounts a tmpfs, which needs root");
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

async fn a_full_disk(mib: u32, ballast_mib: usize, events: bool) {
    let disk = Disk::mount(mib);
    let (dir, ballast) = (disk.path().join("store"), disk.path().join("ballast"));
    let store = open(&dir).unwrap();
    store.write_checkpoint(TOPIC, &checkpoint(1)).await.unwrap();
    let mut ballast_file = File::create(&ballast).unwrap();
    for _ in 0..ballast_mib {
        ballast_file.write_all(&vec![1; 1 << 20]).unwrap();
    }
    let write = async |number: u64| {
        if events {
            let batch: Vec<_> = (0..100).map(|index| event((number * 100 + index) as i64)).collect();
            store.write_events(&batch).await
        } else {
            store.write_totals(&key(0), &rows(number)).await
        }
    };
    // Four writers at a time, so that one may fail while another opens the store again.
    let mut number = 0;
    let mut refused = Vec::new();
    while refused.is_empty() {
        let done = join_all((number..number + 4).map(&write)).await;
        for (number, done) in (number..).zip(done) {
            if let Err(error) = done {
                assert_eq!(error.kind, Kind::Transient, "{error}");
                refused.push(number);
            }
        }
        number += 4;
    }
    assert!(number > 10);
    // While it is full: every write is refused, reads go on.
    let again = store.write_checkpoint(TOPIC, &checkpoint(2)).await.unwrap_err();
    assert_eq!(again.kind, Kind::Transient, "{again}");
    assert!(again.message.contains(dir.to_str().unwrap()), "{again}");
    assert_eq!(store.lanes(TOPIC).await.unwrap()[0].checkpoint, Some(checkpoint(1)));

    fs::remove_file(&ballast).unwrap();
    drop(ballast_file);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !refused.is_empty() {
        assert!(Instant::now() < deadline, "still refused when there is room");
        let done = join_all(refused.iter().map(|number| write(*number))).await;
        let mut done = done.into_iter();
        refused.retain(|_| done.next().is_some_and(|done| done.is_err_and(|error| error.kind == Kind::Transient)));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    store.write_checkpoint(TOPIC, &checkpoint(3)).await.unwrap();

    let check = async |store: &Embedded| {
        if events {
            for by in [EventsBy::Name("login".into()), EventsBy::Subject("u1".into())] {
                let page = EventsPage {
                    namespace: Namespace::default(),
                    by,
                    from_ms: 0,
                    to_ms: i64::MAX,
                    before: None,
                    limit: usize::MAX,
                };
                let times: Vec<_> = store.events(&page).await.unwrap().iter().map(|row| row.time_ms).collect();
                assert!(times.into_iter().eq((0..number as i64 * 100).rev()));
            }
        } else {
            holds(store, 0..number).await;
        }
        assert_eq!(store.lanes(TOPIC).await.unwrap()[0].checkpoint, Some(checkpoint(3)));
    };
    check(&store).await;
    drop(store);
    check(&open(&dir).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_under_totals_is_transient_and_recovers_by_itself() {
    a_full_disk(160, 100, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_under_events_is_transient_and_recovers_by_itself() {
    a_full_disk(128, 80, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_was_nearly_full_is_transient_and_recovers_by_itself() {
    a_full_disk(64, 60, false).await;
}
