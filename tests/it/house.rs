//! The rules that keep the rooms apart, checked on the source itself.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A vendor's crate and the rooms that may name it.
const ROOMS: &[(&str, &[&str])] = &[
    ("fjall", &["log/embedded", "store/embedded"]),
    ("axum", &["ingest", "query", "admin", "problem.rs", "server.rs", "app"]),
    ("hyper", &["server.rs"]),
    ("clap", &["cli", "main.rs"]),
    ("reqwest", &["client"]),
    ("backoff", &["retry.rs"]),
    ("prost", &["pack", "receipt.rs", "ingest/batch.rs", "ingest/builder.rs"]),
    ("metrics_exporter_prometheus", &["telemetry.rs"]),
];

/// Rooms that decide: no async, no I/O, no clock.
const PURE: &[&str] = &[
    "item.rs",
    "pack.rs",
    "worker/stamp.rs",
    "worker/dedup.rs",
    "worker/fold.rs",
    "worker/claims.rs",
    "worker/trail.rs",
    "worker/machine.rs",
    "lag/status.rs",
];

fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    found.sort();
    found
        .into_iter()
        .map(|path| (path.strip_prefix(&root).unwrap().display().to_string(), fs::read_to_string(&path).unwrap()))
        .collect()
}

/// The file without its comments and its unit tests.
fn code(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn names(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        code[at + word.len()..].starts_with("::")
            && before.is_none_or(|char| !char.is_alphanumeric() && char != '_' && char != ':')
    })
}

#[test]
fn a_vendors_crate_is_named_in_its_room_only() {
    for (path, text) in sources() {
        let code = code(&text);
        for (vendor, rooms) in ROOMS {
            let allowed = rooms.iter().any(|room| path.starts_with(room));
            assert!(allowed || !names(&code, vendor), "src/{path} names {vendor}; its rooms are {rooms:?}");
        }
    }
}

#[test]
fn rooms_that_decide_know_no_clock_and_no_io() {
    let sources = sources();
    for pure in PURE {
        let (path, text) = sources.iter().find(|(path, _)| path == pure).unwrap_or_else(|| panic!("no src/{pure}"));
        let code = code(text);
        for word in ["tokio", "async", "await", "Instant", "SystemTime", "clock::", "std::fs", "std::net"] {
            assert!(!code.contains(word), "src/{path} is pure and names {word}");
        }
    }
}

#[test]
fn no_file_is_longer_than_two_rooms() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= 500, "src/{path} has {lines} lines: two rooms?");
    }
}

#[test]
fn nothing_panics_on_purpose_or_is_unsafe() {
    for (path, text) in sources() {
        let code = code(&text);
        // A file of tests only.
        if code.contains("#[test]") || code.contains("#[tokio::test") {
            continue;
        }
        for word in [".unwrap()", "todo!(", "unimplemented!(", "unsafe {", "unsafe fn"] {
            assert!(!code.contains(word), "src/{path} contains {word}");
        }
    }
}
