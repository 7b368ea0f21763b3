//! Tests of what the reserve normally prevents: the storage itself meets a full disk, in a write or in the background.

use std::{fs, path::Path, process::Command, sync::Arc, time::Duration};

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

const DEADLINE: Duration = Duration::from_secs(30);
const RECORD: usize = 100_000;
/// More than what waits in memtables: without it there is no recovery.
const ROOM: u64 = 160 << 20;

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
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn payload(n: u64) -> Bytes {
    n.to_be_bytes().iter().copied().cycle().take(RECORD).collect()
}

fn open(dir: &Path, buffer_bytes: u64) -> Embedded {
    let options = Options { partitions: 1, ..Options::default() };
    let limits = Limits { buffer_bytes, retention_bytes: u64::MAX, reserve_bytes: 0 };
    Embedded::open_within(dir, "packs", &options, limits).unwrap()
}

async fn read_all(log: &Embedded) -> Vec<Record> {
    let mut records = Vec::new();
    while Seq(records.len() as u64) < log.bounds(0).await.unwrap().end {
        records.extend(log.read(0, Seq(records.len() as u64), 1 << 20).await.unwrap());
    }
    records
}

/// Appends from many tasks until the disk is full, makes room, and again; answers what was acknowledged, and how many
/// appends met the full disk in the middle of a write.
async fn struggle(log: Arc<Embedded>, filler: &Path, rounds: u64) -> (Vec<(Seq, u64)>, usize) {
    let mut acknowledged = Vec::new();
    let mut unknown = 0;
    for round in 0..rounds {
        let tasks: Vec<_> = (0..50)
            .map(|task| {
                let log = log.clone();
                tokio::spawn(async move {
                    let mut acknowledged = Vec::new();
                    for n in (round << 32 | task << 16).. {
                        match timeout(DEADLINE, log.append(0, 1, payload(n))).await.expect("an answer") {
                            Ok(appended) => acknowledged.push((appended.seq.unwrap(), n)),
                            Err(error) => return (acknowledged, error.kind),
                        }
                    }
                    unreachable!("the disk is full before")
                })
            })
            .collect();
        for task in tasks {
            let (some, kind) = task.await.unwrap();
            acknowledged.extend(some);
            assert_ne!(kind, Kind::Fatal);
            unknown += usize::from(kind == Kind::Transient);
        }
        let filler = fs::OpenOptions::new().write(true).open(filler).unwrap();
        filler.set_len(filler.metadata().unwrap().len() - ROOM).unwrap();
        let recovered = timeout(DEADLINE, async {
            while let Err(error) = log.check().await {
                assert_ne!(error.kind, Kind::Fatal, "{error}");
                tokio::task::yield_now().await;
            }
            loop {
                match log.append(0, 1, payload(round)).await {
                    Ok(appended) => return appended.seq.unwrap(),
                    Err(error) => assert_ne!(error.kind, Kind::Fatal, "{error}"),
                }
                tokio::task::yield_now().await;
            }
        });
        acknowledged.push((recovered.await.expect("it recovers by itself"), round));
    }
    (acknowledged, unknown)
}

fn assert_all_there(records: &[Record], acknowledged: &[(Seq, u64)]) {
    for (seq, n) in acknowledged {
        let record = &records[usize::try_from(seq.0).unwrap()];
        assert_eq!((record.seq, &record.damage), (*seq, &None));
        assert!(record.payload == payload(*n), "another record at {seq}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_suddenly_full_loses_nothing_that_was_acknowledged() {
    // With a small buffer the flusher meets the full disk as often as the journal does.
    for buffer_bytes in [1 << 20, 64 << 20] {
        const ROUNDS: u64 = 2;
        // Whether a write meets the full disk before the check refuses it is the schedule's: look until one does. What
        // must hold is held against every schedule on the way.
        let mut met = 0;
        for _ in 0..10 {
            let disk = Tmpfs::new("size=500m");
            let path = disk.0.path().join("log");
            let filler = disk.0.path().join("filler");
            fs::write(&filler, vec![1; usize::try_from(ROUNDS * ROOM).unwrap()]).unwrap();
            let log = Arc::new(open(&path, buffer_bytes));
            let (acknowledged, unknown) = struggle(log.clone(), &filler, ROUNDS).await;
            assert_all_there(&read_all(&log).await, &acknowledged);
            drop(Arc::into_inner(log));
            assert_all_there(&read_all(&open(&path, buffer_bytes)).await, &acknowledged);
            met += unknown;
            if met > 0 {
                break;
            }
        }
        assert!(met > 0, "the storage never met the full disk");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storage_that_failed_is_opened_anew_with_what_may_have_been_written() {
    let disk = Tmpfs::new("size=200m");
    let filler = disk.0.path().join("filler");
    let log = open(&disk.0.path().join("log"), 64 << 20);
    for n in 0..5 {
        log.append(0, 1, payload(n)).await.unwrap();
    }
    let mut cursor = log.open(0, Seq(5), None).await.unwrap();
    // The write fails in the middle of the batch, past the check that is switched off here.
    fs::write(&filler, vec![1; 190 << 20]).unwrap();
    let mut full = fs::OpenOptions::new().append(true).open(&filler).unwrap();
    while std::io::Write::write_all(&mut full, &[1; 4096]).is_ok() {}
    let written = log
        .shared
        .with_disk(|disk| disk.write([(0, record::key(5, 1, 1, &payload(5)), payload(5))].into_iter()).unwrap_err());
    assert!(matches!(written, Some(disk::WriteError::Unknown(_))), "{written:?}");
    let written = log.shared.with_disk(|disk| disk.write([(0, record::key(5, 1, 1, b""), Bytes::new())].into_iter()));
    assert!(matches!(written, Some(Err(disk::WriteError::Refused(_)))), "{written:?}");
    assert_eq!(read_all(&log).await.len(), 5, "what was there can be read");
    let refused = log.append(0, 1, payload(5)).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Permanent, "{refused}");

    drop(full);
    fs::remove_file(&filler).unwrap();
    let appended = timeout(DEADLINE, async {
        loop {
            if let Ok(appended) = log.append(0, 1, payload(6)).await {
                return appended.seq.unwrap();
            }
        }
    });
    let seq = appended.await.unwrap();
    // Whether the failed one is there is unknown; its offset is not given to another.
    let records = read_all(&log).await;
    assert_eq!(records.len() as u64, seq.0 + 1);
    assert!(records[..records.len() - 1].iter().zip(0..).all(|(record, n)| record.payload == payload(n)));
    assert_eq!(records.last().unwrap().payload, payload(6));
    let batch = timeout(DEADLINE, cursor.next()).await.unwrap().unwrap();
    assert_eq!(batch[0].seq, Seq(5));
}
