//! Wrong starts, full disks, and ends: what an operator is told.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use serde_json::json;

use super::process::{Server, get_text, output, tallymark, wait_until};

/// One line on standard error that begins with `error:` and says all of `words`.
fn assert_one_line(stderr: &str, words: &[&str]) {
    let lines: Vec<_> = stderr.lines().filter(|line| !line.is_empty()).collect();
    assert!(lines.len() <= 2, "one or two lines: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "`{word}` in: {stderr}");
    }
}

fn run(data: &Path, extra: &[&str]) -> (i32, String, String) {
    let embedded = format!("embedded:{}", data.display());
    let mut args = vec!["run", "all", "--log", &embedded, "--store", &embedded, "--log-level", "error"];
    args.extend(["--admin-listen", "127.0.0.1:0"]);
    if !extra.contains(&"--listen") {
        args.extend(["--listen", "127.0.0.1:0"]);
    }
    args.extend(extra);
    output(&mut tallymark(&args))
}

#[test]
fn a_second_process_on_the_same_data_is_refused_in_one_line() {
    let data = tempfile::tempdir().unwrap();
    let _first = Server::start(data.path(), &[]);
    let (code, _, stderr) = run(data.path(), &[]);
    assert_eq!(code, 1, "{stderr}");
    assert_one_line(&stderr, &["another process", data.path().to_str().unwrap()]);
}

#[test]
fn a_taken_port_is_named_with_its_setting() {
    let (data, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = Server::start(data.path(), &[]);
    let taken = first.url.strip_prefix("http://").unwrap();
    let (code, _, stderr) = run(other.path(), &["--listen", taken]);
    assert_eq!(code, 1, "{stderr}");
    assert_one_line(&stderr, &["listen", taken, "in use"]);
}

#[test]
fn a_data_folder_that_is_a_file_is_refused_in_one_line() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let (code, _, stderr) = run(&file, &[]);
    assert!(code == 1 || code == 3, "{code} {stderr}");
    assert_one_line(&stderr, &[file.to_str().unwrap()]);
}

#[test]
fn an_unknown_setting_names_the_nearest_one() {
    let data = tempfile::tempdir().unwrap();
    let (code, _, stderr) = run(data.path(), &["--set", "worker.flush_aeg=1s"]);
    assert_eq!(code, 2, "{stderr}");
    assert_one_line(&stderr, &["worker.flush_aeg", "worker.flush_age"]);
}

#[test]
fn a_role_alone_refuses_embedded_backends_and_says_why() {
    for role in ["ingest", "worker"] {
        let (code, _, stderr) = output(&mut tallymark(&["run", role]));
        assert_eq!(code, 2, "{stderr}");
        assert_one_line(&stderr, &["embedded"]);
    }
}

#[test]
fn sigterm_drains_and_exits_0_and_a_second_signal_ends_at_once() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &["--set", "worker.flush_age=60s"]);
    server.post("/v1/increments", r#"{"counter": "c", "amount": 9}"#);
    // What no lane has read by then stays in the log for the next start.
    wait_until("a lane has applied it", || {
        let metrics = get_text(&format!("{}/metrics", server.admin)).unwrap().1;
        metrics.lines().any(|line| line.starts_with("tallymark_lane_items_total") && line.ends_with(" 1"))
    });
    assert_eq!(server.stop().code(), Some(0));
    let server = Server::start(data.path(), &[]);
    assert_eq!(server.stored("c"), Some(9), "the drain has flushed");
    let mut server = server;
    server.signal("TERM");
    server.signal("TERM");
    assert!(server.wait().code().is_some());
}

/// A file system of a few megabytes that is gone with its guard.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder.path());
        let mounted = mount.status().expect("mount runs");
        assert!(mounted.success(), "this test mounts a small tmpfs: run it as root");
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).stderr(Stdio::null()).status();
    }
}

#[test]
fn a_full_disk_is_answered_503_and_recovers_by_itself_when_there_is_room() {
    let disk = SmallDisk::new("512m");
    let data = disk.path().join("data");
    let server = Server::start(&data, &[]);
    let send = |id: String| server.post("/v1/increments", &json!([{"counter": "c", "id": id}]).to_string()).0;
    let mut acknowledged = 0;
    assert_eq!(send("first".to_owned()), 202);
    acknowledged += 1;
    let ballast = disk.path().join("ballast");
    // As much as there is: dd ends with an error when the disk is full, and that is what is wanted.
    let _ = Command::new("dd")
        .args(["if=/dev/zero", "bs=1M"])
        .arg(format!("of={}", ballast.display()))
        .stderr(Stdio::null())
        .status();
    let mut sent = 0;
    wait_until("the full disk is answered 503", || {
        sent += 1;
        match send(format!("full-{sent}")) {
            202 => {
                acknowledged += 1;
                false
            }
            status => {
                assert_eq!(status, 503);
                true
            }
        }
    });
    std::fs::remove_file(&ballast).unwrap();
    wait_until("there is room again", || send("after".to_owned()) == 202);
    acknowledged += 1;
    // The one that was refused is unknown: its retry must count once.
    assert_eq!(send(format!("full-{sent}")), 202);
    acknowledged += 1;
    server.settle();
    assert_eq!(server.stored("c"), Some(acknowledged));
    server.kill();
    let server = Server::start(&data, &[]);
    server.settle();
    assert_eq!(server.stored("c"), Some(acknowledged), "what was acknowledged is there after a restart");
}
