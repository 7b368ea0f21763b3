//! The embedded log under what happens to disks: torn and damaged files, a disk that fills up, a second process.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use bytes::Bytes;
use tallymark::{
    data_dir::{self, DataDir},
    item::Seq,
    log::{Error, Log as _, Options, Record, embedded::Embedded},
    retry::Kind,
    units::Size,
};
use tempfile::TempDir;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(30);

fn open(dir: &Path) -> Result<Embedded, Error> {
    Embedded::open(dir, "packs", &Options { partitions: 2, ..Options::default() })
}

fn payload(n: u64, bytes: usize) -> Bytes {
    n.to_be_bytes().iter().copied().cycle().take(bytes).collect()
}

async fn read_all(log: &Embedded, partition: u32) -> Result<Vec<Record>, Error> {
    let bounds = log.bounds(partition).await?;
    let mut records: Vec<Record> = Vec::new();
    loop {
        let from = Seq(bounds.start.0 + records.len() as u64);
        if from == bounds.end {
            return Ok(records);
        }
        let batch = log.read(partition, from, 1 << 20).await?;
        assert!(!batch.is_empty());
        for record in batch {
            assert_eq!(record.seq, Seq(bounds.start.0 + records.len() as u64));
            records.push(record);
        }
    }
}

/// The folder as a power cut or `kill -9` leaves it: a copy taken while the log is open.
fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    let mut command = Command::new("cp");
    command.env("LC_ALL", "C");
    let copied = command.args(["-r", "--sparse=always"]).arg(from).arg(to.path().join("log")).output().unwrap();
    // A file that is written under another name first goes from `cp` between its listing and its opening: it is not in the
    // copy, and nothing else may be wrong with that.
    let said = String::from_utf8_lossy(&copied.stderr);
    let gone = |line: &str| line.ends_with("No such file or directory");
    assert!(copied.status.success() || (!said.is_empty() && said.lines().all(gone)), "{said}");
    to
}

fn newest_journal(dir: &Path) -> PathBuf {
    let journals = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let journals = journals.filter(|path| path.extension().is_some_and(|extension| extension == "jnl"));
    journals.max_by_key(|path| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap()).unwrap()
}

/// The journal without the zeros at its end.
fn journal_bytes(path: &Path) -> Vec<u8> {
    let mut bytes = fs::read(path).unwrap();
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_tail_is_cut_at_the_last_whole_record_and_appends_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = open(&path).unwrap();
    let mut ends = Vec::new();
    for n in 0..6 {
        log.append(0, 1, payload(n, 3000)).await.unwrap();
        ends.push(journal_bytes(&newest_journal(&path)).len());
    }
    let (whole, last) = (ends[4], ends[5]);
    let garble = |bytes: &mut Vec<u8>, at: usize| bytes[at] ^= 0x55;
    let mut cases: Vec<(String, Vec<u8>)> = Vec::new();
    let bytes = journal_bytes(&newest_journal(&path));
    assert_eq!(bytes.len(), last);
    for cut in [whole + 1, whole + 13, whole + 40, whole + 1500, last - 1] {
        cases.push((format!("cut at {cut} of {last}"), bytes[..cut].to_vec()));
        // The length was preallocated; pages reach the disk in any order.
        let mut holes = bytes.clone();
        holes[whole..cut].fill(0);
        cases.push((format!("zeros up to {cut} of {last}"), holes));
        let mut garbled = bytes.clone();
        garble(&mut garbled, cut);
        cases.push((format!("garbled at {cut} of {last}"), garbled));
    }
    for (case, bytes) in cases {
        let copied = copy(&path);
        let copied = copied.path().join("log");
        fs::write(newest_journal(&copied), bytes).unwrap();
        let log = open(&copied).unwrap_or_else(|error| panic!("{case}: {error}"));
        let records = read_all(&log, 0).await.unwrap();
        assert_eq!(records.len(), 5, "{case}");
        for (record, n) in records.iter().zip(0..) {
            assert_eq!((&record.payload, &record.damage), (&payload(n, 3000), &None), "{case}");
        }
        assert_eq!(log.append(0, 1, payload(9, 10)).await.unwrap().seq, Some(Seq(5)), "{case}");
        drop(log);
        assert_eq!(read_all(&open(&copied).unwrap(), 0).await.unwrap().len(), 6, "{case}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_amid_the_journal_is_an_error_and_nothing_vanishes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = open(&path).unwrap();
    for n in 0..8 {
        log.append(0, 1, payload(n, 500)).await.unwrap();
    }
    let journal = newest_journal(&path);
    let bytes = journal_bytes(&journal);
    let batch = bytes.len() / 9;
    let mut refused = 0;
    for step in 0..60 {
        let at = step * 97 % (bytes.len() - 2 * batch);
        let copied = copy(&path);
        let copied = copied.path().join("log");
        let mut garbled = bytes.clone();
        garbled[at] ^= 0xff;
        fs::write(newest_journal(&copied), garbled).unwrap();
        match open(&copied) {
            Err(error) => {
                refused += 1;
                assert_eq!(error.kind, Kind::Fatal);
                let message = error.to_string();
                assert!(message.contains(&*copied.to_string_lossy()) && !message.contains('\n'), "{message}");
            }
            Ok(log) => {
                let whole = read_all(&log, 0).await.is_ok_and(|records| records.len() == 8);
                assert!(whole, "garbled at {at}: records vanished silently");
            }
        }
    }
    assert!(refused > 40, "only {refused} of 60");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_in_a_table_is_delivered_as_damage_or_keeps_the_log_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let options = Options { partitions: 1, retention_bytes: Size::mib(8), ..Options::default() };
    let log = Embedded::open(&path, "packs", &options).unwrap();
    let count = 3_000;
    for group in 0..30 {
        let appends = (0..100).map(|n| log.append(0, 1, payload(group * 100 + n, 2000)));
        for appended in futures_util::future::join_all(appends).await {
            appended.unwrap();
        }
    }
    drop(log);
    let tables: Vec<_> = walk(&path).into_iter().filter(|file| file.parent().unwrap().ends_with("tables")).collect();
    let largest = tables.iter().max_by_key(|file| fs::metadata(file).unwrap().len()).unwrap();
    let length = usize::try_from(fs::metadata(largest).unwrap().len()).unwrap();
    assert!(length > 500_000, "{length}");
    let (mut delivered, mut refused) = (0, 0);
    for step in 0..24 {
        let copied = copy(&path);
        let copied = copied.path().join("log");
        let table = copied.join(largest.strip_prefix(&path).unwrap());
        let mut bytes = fs::read(&table).unwrap();
        let at = if step < 12 { step * (length / 12) + 1000 } else { length - 1 - (step - 12) * 150 };
        bytes[at] ^= 0xff;
        fs::write(table, bytes).unwrap();
        let Ok(log) = Embedded::open(&copied, "packs", &options) else {
            refused += 1;
            continue;
        };
        let records = read_all(&log, 0).await.unwrap();
        assert_eq!(records.len(), count);
        let damaged = records.iter().filter(|record| record.damage.is_some()).count();
        delivered += usize::from(damaged > 0);
        let whole = records.iter().filter(|record| record.damage.is_none()).map(|record| &record.payload);
        let intact = whole.filter(|bytes| **bytes == payload(u64::from_be_bytes(*bytes.first_chunk().unwrap()), 2000));
        assert_eq!(intact.collect::<HashSet<_>>().len(), count - damaged);
        assert!(damaged < count / 2, "garbled at {at}: {damaged} records of one block");
    }
    assert!(delivered >= 10, "damage was delivered {delivered} times, opening refused {refused} times");
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_the_files_under_load_has_every_acknowledged_record() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let options = Options { partitions: 2, retention_bytes: Size::mib(64), ..Options::default() };
    let log = std::sync::Arc::new(Embedded::open(&path, "packs", &options).unwrap());
    let writer = {
        let log = log.clone();
        tokio::spawn(async move {
            for n in 0.. {
                if log.append(0, 1, payload(n, 20_000)).await.is_err() || n == 4_000 {
                    break;
                }
            }
        })
    };
    for _ in 0..3 {
        let acknowledged = log.bounds(0).await.unwrap().end;
        // A copy is not taken at once, as a crash is: files may be missing that a later manifest names. Such a copy is
        // refused; what opens is whole.
        let copied = copy(&path);
        if let Ok(copied) = Embedded::open(&copied.path().join("log"), "packs", &options) {
            let records = read_all(&copied, 0).await.unwrap();
            assert!(records.len() as u64 >= acknowledged.0);
            for (record, n) in records.iter().zip(0..) {
                assert_eq!(record.payload, payload(n, 20_000));
            }
        }
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn settings_that_are_not_the_logs_are_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    let open = |topic, partitions| {
        let options = Options { partitions, ..Options::default() };
        Embedded::open(dir.path(), topic, &options)
            .map(|log| log.topology().partitions)
            .map_err(|error| error.to_string())
    };
    assert_eq!(open("packs", 0), Ok(2));
    let refused = open("packs", 3).unwrap_err();
    assert!(refused.contains("log.partitions is 3") && refused.contains("set it to 2"), "{refused}");
    let refused = open("other", 2).unwrap_err();
    assert!(refused.contains("`packs`") && refused.contains("`other`"), "{refused}");
    let refused = open("packs", 100_000).unwrap_err();
    assert!(refused.contains("log.partitions is 100000") && refused.contains("256"), "{refused}");
}

#[tokio::test]
async fn a_log_that_is_open_is_not_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    let refused = open(dir.path()).err().unwrap();
    assert_eq!(refused.kind, Kind::Fatal);
    let refused = refused.to_string();
    assert!(refused.contains("another process") && refused.contains(&*dir.path().to_string_lossy()), "{refused}");
    log.append(0, 1, payload(1, 10)).await.unwrap();
    drop(log);
    open(dir.path()).unwrap();
}

#[tokio::test]
async fn a_record_that_is_too_large_is_refused_and_the_largest_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    let largest = Bytes::from(vec![3; 16 << 20]);
    log.append(0, 1, largest.clone()).await.unwrap();
    assert_eq!(log.read(0, Seq(0), 1).await.unwrap()[0].payload, largest);
    let refused = log.append(0, 1, Bytes::from(vec![3; (16 << 20) + 1])).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Permanent);
    assert!(refused.to_string().contains("16MiB"), "{refused}");
}

/// A small file system of its own.
struct Tmpfs(TempDir);

impl Tmpfs {
    fn new(options: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir.path()).output().unwrap();
        let why = String::from_utf8_lossy(&mounted.stderr);
        assert!(mounted.status.success(), "this test mounts a tmpfs and needs root for that: {why}");
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_said_in_one_line() {
    let disk = Tmpfs::new("ro,size=1m");
    let path = disk.path().join("data");
    let refused = DataDir::open(&path).unwrap_err();
    assert!(matches!(refused, data_dir::Error::NotWritable { .. }), "{refused}");
    let refused = refused.to_string();
    assert!(refused.contains(&*path.to_string_lossy()) && !refused.contains('\n'), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_appends_loses_nothing_and_recovers_by_itself() {
    let disk = Tmpfs::new("size=160m");
    let path = disk.path().join("log");
    let filler = disk.path().join("filler");
    fs::write(&filler, vec![1; 60 << 20]).unwrap();
    let log = open(&path).unwrap();
    let (mut acknowledged, mut before) = (0, 0);
    let fill = async |mut n: u64| {
        timeout(DEADLINE, async {
            loop {
                match log.append(0, 1, payload(n, 100_000)).await {
                    Ok(_) => n += 1,
                    Err(error) => return (n, error),
                }
            }
        })
        .await
        .expect("a disk that is full answers")
    };
    for round in 0..3 {
        let (n, refused) = fill(acknowledged).await;
        assert!(n > before, "round {round}: there was room for some");
        (acknowledged, before) = (n, n);
        assert_eq!(refused.kind, Kind::Permanent, "{refused}");
        assert!(refused.to_string().contains("make room"), "{refused}");
        assert!(log.check().await.is_err());
        // What is there can still be read.
        assert_eq!(read_all(&log, 0).await.unwrap().len() as u64, acknowledged);

        let room = (2 - round) * (20 << 20);
        fs::OpenOptions::new().write(true).open(&filler).unwrap().set_len(room).unwrap();
        // What was freed may just do for the check and, a moment later, not for an append: wait for the append.
        timeout(DEADLINE, async {
            while log.check().await.is_err() {
                tokio::task::yield_now().await;
            }
            while let Err(refused) = log.append(0, 1, payload(acknowledged, 100_000)).await {
                assert_eq!(refused.kind, Kind::Permanent, "{refused}");
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("it recovers by itself");
        acknowledged += 1;
    }
    drop(log);
    let log = open(&path).unwrap();
    let records = read_all(&log, 0).await.unwrap();
    assert_eq!(records.len() as u64, acknowledged);
    for (record, n) in records.iter().zip(0..) {
        assert_eq!(record.payload, payload(n, 100_000));
    }
}
