//! The commands, through the real binary: help, exit codes, streams.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, Output, Stdio},
};

use tempfile::TempDir;

/// The binary in an empty folder, with none of our variables set.
fn tallymark(dir: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallymark"));
    command.current_dir(dir.path()).args(arguments).env_remove("COLUMNS").stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TALLYMARK_") {
            command.env_remove(name);
        }
    }
    command
}

fn ended(arguments: &[&str]) -> (i32, String, String) {
    let dir = tempfile::tempdir().unwrap();
    parts(tallymark(&dir, arguments).output().unwrap())
}

fn parts(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("what is printed is UTF-8");
    (output.status.code().expect("it ended by itself"), text(output.stdout), text(output.stderr))
}

const COMMANDS: [&[&str]; 16] = [
    &[],
    &["run"],
    &["validate"],
    &["config"],
    &["config", "show"],
    &["schema"],
    &["schema", "print"],
    &["schema", "apply"],
    &["send"],
    &["get"],
    &["lag"],
    &["audit"],
    &["dead-letters", "list"],
    &["dead-letters", "show"],
    &["dead-letters", "replay"],
    &["completions"],
];

#[test]
fn every_command_has_help_with_an_example() {
    for command in COMMANDS {
        let (code, out, err) = ended(&[command, &["--help"]].concat());
        assert_eq!((code, err.as_str()), (0, ""), "{command:?}");
        assert!(out.contains("Examples:\n  "), "{command:?}: {out}");
        assert!(out.contains(&[&["tallymark"], command].concat().join(" ")), "{command:?}: {out}");
        let configured = !matches!(command, ["config"] | ["schema"] | ["completions"]);
        assert_eq!(out.contains("--set <SECTION.KEY=VALUE>"), configured, "{command:?}: {out}");
    }
}

#[test]
fn the_documentation_has_every_command_s_help() {
    let mut page = String::from(
        "# Commands\n\nOne binary; what each command prints for `--help`. Written by the tests from the code: \
         `BLESS=1 cargo test --release --test it cli`.\n",
    );
    for command in COMMANDS.iter().filter(|command| !matches!(command, ["config"] | ["schema"])) {
        let name = [&["tallymark"], *command].concat().join(" ");
        let (_, help, _) = ended(&[command, &["--help"][..]].concat());
        let lines: Vec<_> = help.lines().map(str::trim_end).collect();
        page.push_str(&format!("\n## `{name}`\n\n```text\n{}\n```\n", lines.join("\n")));
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/commands.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, page).unwrap();
    } else {
        let written = std::fs::read_to_string(&path).unwrap();
        assert!(written == page, "docs/commands.md is not what the commands say; run the tests with BLESS=1");
    }
}

#[test]
fn help_lists_the_commands_of_this_build_and_no_others() {
    let (_, out, _) = ended(&["--help"]);
    for listed in
        ["run", "schema", "topic", "validate", "config", "send", "get", "lag", "audit", "dead-letters", "completions"]
    {
        assert!(out.contains(&format!("\n  {listed} ")), "{listed}: {out}");
    }
    for later in ["lanes", "top", "rollups", "keys"] {
        assert!(!out.contains(&format!("\n  {later} ")), "{later}: {out}");
        assert_eq!(ended(&[later]).0, 2, "{later}");
    }
    let (code, out, _) = ended(&["--version"]);
    assert_eq!((code, out), (0, format!("tallymark {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn wrong_usage_and_wrong_configuration_end_with_2() {
    for arguments in [
        &["frobnicate"][..],
        &["--frobnicate"],
        &["run", "reader"],
        &["config"],
        &["topic"],
        &["topic", "create", "--json"],
        &["completions"],
        &["completions", "cobol"],
        &["run", "--set", "worker.flushage=1s"],
        &["run", "--set", "worker"],
        &["--config", "nowhere.toml"],
        &["--listen", "8080"],
        &["--log", "kafka://h:9092"],
        &["run", "worker"],
        &["run", "ingest"],
        &["validate", "--no-connect", "--set", "store.shards=0"],
        &["config", "show", "--set", "store.shards=0"],
        &["lag", "--set", "store.shards=0"],
    ] {
        let (code, _, err) = ended(arguments);
        assert_eq!(code, 2, "{arguments:?}: {err}");
        assert!(err.starts_with("error: ") || err.contains("Usage: "), "{arguments:?}: {err}");
    }
}

#[test]
fn a_configuration_error_is_one_or_two_lines_with_the_nearest_name() {
    let (_, out, err) = ended(&["run", "--set", "worker.flushage=1s"]);
    assert_eq!(out, "");
    assert_eq!(err, "error: unknown setting `worker.flushage` (--set); the nearest known one is `worker.flush_age`\n");
    let (_, _, err) = ended(&["--set", "a=1", "run", "--set", "b=1", "--set", "c=1"]);
    assert_eq!(err.lines().count(), 2, "{err}");
    assert!(err.contains("`a`") && err.contains("2 more"), "{err}");

    let dir = tempfile::tempdir().unwrap();
    let output = tallymark(&dir, &["run"]).env("TALLYMARK_LOGG", "embedded:x").output().unwrap();
    let (code, _, err) = parts(output);
    assert_eq!(code, 2);
    assert!(err.contains("TALLYMARK_LOGG; the nearest known one is TALLYMARK_LOG\n"), "{err}");
}

#[test]
fn config_show_says_what_is_in_force_and_where_it_came_from() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("t.toml"), "[worker]\nflush_rows = 1_000\n").unwrap();
    let arguments =
        ["--hot", "none:", "config", "show", "--config", "t.toml", "--hot", "memory:", "--set", "lag.warn=1m"];
    let output = tallymark(&dir, &arguments).env("TALLYMARK_STORE", "scylla://a:hunter2@h:1/k").output().unwrap();
    let (code, out, err) = parts(output);
    assert_eq!((code, err.as_str()), (0, ""));
    let line = |start: &str| {
        let line = out.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start} in {out}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("worker.flush_rows"), "worker.flush_rows = 1000 # t.toml:2");
    assert_eq!(line("hot.url"), "hot.url = \"memory:\" # --hot");
    assert_eq!(line("lag.warn"), "lag.warn = \"1m\" # --set lag.warn");
    assert_eq!(line("store.url"), "store.url = \"scylla://a:***@h:1/k\" # TALLYMARK_STORE");
    assert_eq!(line("listen"), "listen = \"127.0.0.1:8080\" # default");

    let (code, out, err) = ended(&["config", "show", "--json", "--set", "nope.nope=1"]);
    assert_eq!(code, 2);
    assert!(serde_json::from_str::<serde_json::Value>(&out).unwrap()["log.url"]["source"] == "default");
    assert!(err.contains("`nope.nope`"), "{err}");
}

#[test]
fn validate_prints_every_verdict() {
    let (code, out, err) = ended(&["validate", "--no-connect"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.starts_with("ok    configuration"), "{out}");

    let (code, out, err) = ended(&["validate", "--set", "store.shards=0", "--set", "nope=1", "--listen", "x"]);
    assert_eq!(code, 2);
    assert_eq!(out.lines().filter(|line| line.starts_with("fail  configuration")).count(), 3, "{out}");
    assert!(err.starts_with("error: configuration: ") && err.lines().count() == 1, "{err}");

    let (code, out, _) = ended(&["validate", "--no-connect", "--role", "ingest"]);
    assert_eq!(code, 2);
    assert!(out.contains("one process owns it"), "{out}");
}

#[test]
fn completions_are_printed_for_the_shells_that_people_use() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, err) = ended(&["completions", shell]);
        assert_eq!((code, err.as_str()), (0, ""), "{shell}");
        assert!(out.contains("tallymark") && out.contains("completions") && out.contains("admin-listen"), "{shell}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    for arguments in [&["config", "show"][..], &["completions", "bash"], &["--help"]] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = tallymark(&dir, arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

struct Running {
    child: Child,
    lines: Box<dyn Iterator<Item = String>>,
}

impl Running {
    fn start(dir: &TempDir, arguments: &[&str]) -> Self {
        let mut command = tallymark(dir, &["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        let mut child = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        Self { child, lines: Box::new(lines) }
    }

    /// Reads log lines until one has this text; all of them, when none has.
    fn until(&mut self, text: &str) -> Vec<String> {
        let mut read = Vec::new();
        for line in self.lines.by_ref() {
            let found = line.contains(text);
            read.push(line);
            if found {
                return read;
            }
        }
        panic!("no line has `{text}`: {read:#?}");
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status().unwrap();
        assert!(sent.success());
    }

    fn end(mut self) -> i32 {
        self.lines.by_ref().for_each(drop);
        self.child.wait().unwrap().code().expect("it ended by itself")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_signal_drains_the_run_and_it_ends_with_0() {
    for (signal, arguments) in [("TERM", &["run"][..]), ("INT", &[])] {
        let dir = tempfile::tempdir().unwrap();
        let mut running = Running::start(&dir, arguments);
        for line in running.until("started") {
            let json: serde_json::Value = serde_json::from_str(&line).expect("lines are JSON without a terminal");
            assert!(json["level"].is_string() && json["message"].is_string(), "{line}");
        }
        running.signal(signal);
        running.until(&format!("SIG{signal}"));
        assert_eq!(running.end(), 0, "{signal}");
    }
}

#[test]
fn log_lines_are_text_when_asked_and_filtered_by_level() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(&dir, &["run", "--log-format", "text"]);
    let lines = running.until("started");
    assert!(lines.iter().all(|line| !line.starts_with('{') && !line.contains('\u{1b}')), "{lines:?}");
    running.signal("TERM");
    assert_eq!(running.end(), 0);
}
