//! The rules that keep the rooms apart, checked on the source itself.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A vendor's crate and the rooms that may name it.
const ROOMS: &[(&str, &[&str])] = &[
    ("fjall", &["log/embedded", "store/embedded"]),
    ("rdkafka", &["log/kafka"]),
    ("axum", &["ingest", "query", "admin", "problem.rs", "server.rs", "app"]),
    ("hyper", &["server.rs"]),
    ("clap", &["cli", "main.rs"]),
    ("reqwest", &["client"]),
    ("backoff", &["retry.rs"]),
    ("scylla", &["store/scylla"]),
    ("redis", &["hot/redis"]),
    ("prost", &["pack", "log/dead.rs", "receipt.rs", "ingest/batch.rs", "ingest/builder.rs"]),
    ("metrics_exporter_prometheus", &["telemetry.rs"]),
];

/// Rooms that decide: no async, no I/O, no clock.
const PURE: &[&str] = &[
    "item.rs",
    "pack.rs",
    "worker/accepted.rs",
    "worker/stamp.rs",
    "worker/dedup.rs",
    "worker/fold.rs",
    "worker/claims.rs",
    "worker/lives.rs",
    "worker/trail.rs",
    "worker/machine.rs",
    "worker/machine/letters.rs",
    "worker/poison.rs",
    "worker/replays.rs",
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
fn unsafe_code_is_in_one_file_and_each_block_says_why_it_is_sound() {
    let sources = sources();
    let (_, ffi) = sources.iter().find(|(path, _)| path == "log/kafka/ffi.rs").unwrap();
    let lines: Vec<&str> = ffi.lines().map(str::trim).collect();
    let mut blocks = 0;
    for (at, _) in lines.iter().enumerate().filter(|(_, line)| line.contains("unsafe {")) {
        let before = lines[..at].iter().rev().take_while(|line| line.starts_with("//"));
        assert!(before.clone().any(|line| line.starts_with("// SAFETY:")), "line {} has no argument", at + 1);
        blocks += 1;
    }
    assert!(blocks > 0);
    let expecting = sources.iter().filter(|(_, text)| text.contains("(unsafe_code")).map(|(path, _)| path.as_str());
    assert_eq!(expecting.collect::<Vec<_>>(), ["lib.rs", "log/kafka.rs"], "denied for all, expected for that file");
}

#[test]
fn nothing_panics_on_purpose_or_is_unsafe() {
    for (path, text) in sources() {
        let code = code(&text);
        // A file of tests only.
        if code.contains("#[test]") || code.contains("#[tokio::test") {
            continue;
        }
        for word in [".unwrap()", "todo!(", "unimplemented!(", "unsafe {", "unsafe fn", "allow(unsafe_code"] {
            let allowed = word == "unsafe {" && path == "log/kafka/ffi.rs";
            assert!(allowed || !code.contains(word), "src/{path} contains {word}");
        }
    }
}

/// The pages that people read, by their path in the repository.
fn pages() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [root.join("docs"), root.join("docs/decisions"), root.join("bench")];
    let found = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    let found = found.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let at_root = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root.join(name));
    found.chain(at_root).map(|path| (path.clone(), fs::read_to_string(&path).unwrap())).collect()
}

/// The targets of a page's links and pictures: `[text](target)`, `src="target"`, `[label]: target`. Code is no link.
fn links(page: &str) -> Vec<&str> {
    let mut links = Vec::new();
    let mut in_code = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        let label = line.starts_with('[').then(|| line.split_once("]: ")).flatten();
        links.extend(label.map(|(_, target)| target.trim()));
        for (open, close) in [("](", ')'), ("src=\"", '"'), ("href=\"", '"')] {
            links.extend(line.split(open).skip(1).filter_map(|rest| rest.split(close).next()));
        }
    }
    links
}

/// How a heading is named in a link.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_link_of_the_documentation_leads_to_a_file_of_the_repository_and_to_a_heading_that_is_there() {
    let mut followed = 0;
    for (page, text) in pages() {
        for link in links(&text) {
            if link.starts_with("http://") || link.starts_with("https://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, heading) = link.split_once('#').map_or((link, None), |(file, heading)| (file, Some(heading)));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(target.exists(), "{} links to {link}, which is not there", page.display());
            if let Some(heading) = heading {
                let text = fs::read_to_string(&target).unwrap();
                let mut anchors =
                    text.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#')));
                assert!(anchors.any(|anchor| anchor == heading), "{} links to {link}: no such heading", page.display());
            }
            followed += 1;
        }
    }
    assert!(followed > 0, "the pages link to each other");
}

#[test]
fn the_documentation_names_only_settings_that_exist() {
    let keys: Vec<&str> = tallymark::config::keys().iter().map(|key| key.name.as_str()).collect();
    let sections: Vec<&str> = keys.iter().filter_map(|key| key.split_once('.')).map(|(section, _)| section).collect();
    let mut named = 0;
    for (page, text) in pages() {
        let mut in_code = false;
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim_start().starts_with("```") {
                in_code = !in_code;
            }
            if in_code {
                continue;
            }
            for word in line.split('`').skip(1).step_by(2) {
                // `worker.flush_age`, `worker.flush_age=5s`, `--set worker.flush_age=5s`.
                let word = word.trim_start_matches("--set ").split(['=', ' ']).next().unwrap_or_default();
                let Some((section, key)) = word.split_once('.') else { continue };
                let is_name = |text: &str| text.chars().all(|char| char.is_ascii_lowercase() || char == '_');
                // A file of the same name as a section is no setting.
                if !sections.contains(&section)
                    || key.is_empty()
                    || !is_name(key)
                    || matches!(key, "rs" | "md" | "proto")
                {
                    continue;
                }
                assert!(keys.contains(&word), "{}:{number} names `{word}`, which is no setting", page.display());
                named += 1;
            }
        }
    }
    assert!(named > 20, "the pages name settings: {named}");
}
