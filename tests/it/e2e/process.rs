//! The real binary, started and ended as an operator would, with its addresses read from its own log.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{LazyLock, mpsc},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::runtime::Runtime;

/// How long anything may take that should happen at once.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The binary that is tested.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_tallymark");

/// A command of the binary, with an environment of its own.
pub fn tallymark(args: &[&str]) -> Command {
    program(PROGRAM, args)
}

/// The same of another build.
pub fn program(path: &str, args: &[&str]) -> Command {
    let mut command = Command::new(path);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TALLYMARK_")) {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn output(command: &mut Command) -> (i32, String, String) {
    let output = command.output().expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// A command at a terminal, whose user gives this answer: its exit code, and what the terminal shows.
pub fn at_terminal(args: &[&str], answer: &str) -> (i32, String) {
    let words: Vec<String> = [PROGRAM].iter().chain(args).map(|word| format!("'{word}'")).collect();
    let mut script = program("script", &["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]);
    let child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script is in every Debian");
    writeln!(child.stdin.as_ref().expect("piped"), "{answer}").expect("it takes the answer");
    let output = child.wait_with_output().expect("it ends");
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A running `tallymark run`.
pub struct Server {
    child: Child,
    /// `http://…` of ingest and query; empty for a worker.
    pub url: String,
    /// `http://…` of the admin port.
    pub admin: String,
    log: mpsc::Receiver<String>,
    /// What it wrote before it was ready.
    first: Vec<String>,
}

impl Server {
    /// Starts all roles on a data folder and waits until they are ready.
    pub fn start(data: &Path, extra: &[&str]) -> Self {
        let embedded = format!("embedded:{}", data.display());
        let mut args = vec!["--log", &embedded, "--store", &embedded];
        args.extend(extra);
        Self::run("all", &args)
    }

    /// Starts a role and waits until it is ready.
    pub fn run(role: &str, extra: &[&str]) -> Self {
        Self::run_program(PROGRAM, role, extra)
    }

    /// The same of another build.
    pub fn run_program(path: &str, role: &str, extra: &[&str]) -> Self {
        let mut args = vec!["run", role, "--admin-listen", "127.0.0.1:0", "--log-format", "json"];
        let serves = role != "worker";
        if serves {
            args.extend(["--listen", "127.0.0.1:0"]);
        }
        args.extend(extra);
        let mut child = program(path, &args).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let stderr = child.stderr.take().expect("piped");
        // Bounded only by what the process writes: a test reads it all.
        let (send, log) = mpsc::sync_channel(100_000);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if send.try_send(line).is_err() {
                    break;
                }
            }
        });
        let mut server = Self { child, url: String::new(), admin: String::new(), log, first: Vec::new() };
        let deadline = Instant::now() + PATIENCE;
        while (serves && server.url.is_empty()) || server.admin.is_empty() {
            let line = server
                .log
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
                .unwrap_or_else(|_| panic!("no addresses in its log:\n{}", server.first.join("\n")));
            if let Some((what, address)) = listening(&line) {
                let url = format!("http://{address}");
                if what == "http" { server.url = url } else { server.admin = url }
            }
            server.first.push(line);
        }
        wait_until("it is ready", || {
            get_json(&format!("{}/health/readyz", server.admin)).is_some_and(|(status, _)| status == 200)
        });
        server
    }

    /// kill −9.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written since it was started, once it has ended.
    pub fn last_words(&self) -> String {
        self.first.iter().cloned().chain(self.log.iter()).collect::<Vec<_>>().join("\n")
    }

    /// Memory that it holds, in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says it");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of kB") << 10
    }

    /// SIGTERM, and how it ended.
    pub fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// GET on the public port: status and JSON.
    pub fn get(&self, path: &str) -> (u16, Value) {
        get_json(&format!("{}{path}", self.url)).expect("it answers")
    }

    /// GET on the admin port.
    pub fn get_admin(&self, path: &str) -> (u16, Value) {
        get_json(&format!("{}{path}", self.admin)).expect("it answers")
    }

    /// POST of a body: status and JSON.
    pub fn post(&self, path: &str, body: &str) -> (u16, Value) {
        post(&format!("{}{path}", self.url), body).expect("it answers")
    }

    /// The total of a counter as the store alone knows it.
    pub fn stored(&self, counter: &str) -> Option<i64> {
        self.get(&format!("/v1/counters/{counter}?consistency=stored")).1["total"].as_i64()
    }

    /// Waits until lag is zero.
    pub fn settle(&self) {
        wait_until("lag is zero", || self.get_admin("/api/v1/lag").1["lag_packs"] == 0);
    }

    /// Waits until lag is zero and nothing keeps it from being measured.
    pub fn settle_well(&self) {
        wait_until("all is stored and well", || {
            let (_, lag) = self.get_admin("/api/v1/lag");
            lag["lag_packs"] == 0 && lag["status"] == "OK"
        });
    }

    /// `tallymark lag --check`: exit code and what it says.
    pub fn lag_check(&self) -> (i32, String) {
        let (code, stdout, stderr) = output(&mut tallymark(&["lag", "--check", "--admin-url", &self.admin]));
        (code, stdout + &stderr)
    }

    /// What it says of its readiness, and of one dependency.
    pub fn readiness(&self, dependency: &str) -> (u16, Value, Value) {
        let (status, mut answer) = self.get_admin("/health/readyz");
        let found = answer["dependencies"][dependency].take();
        (status, answer, found)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            for line in self.log.try_iter() {
                eprintln!("  {line}");
            }
        }
    }
}

fn listening(line: &str) -> Option<(String, String)> {
    let event: Value = serde_json::from_str(line).ok()?;
    let fields = event.get("fields").unwrap_or(&event);
    (fields["message"] == "listening").then(|| {
        let text = |name: &str| fields[name].as_str().unwrap_or_default().to_owned();
        (text("what"), text("address"))
    })
}

/// Waits for a condition, with a deadline.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime starts"));

static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
    // Somebody else in this process may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // A server that was killed leaves dead connections behind: none is kept.
    let client = reqwest::Client::builder().pool_max_idle_per_host(0).timeout(PATIENCE).no_proxy();
    client.build().expect("a client builds")
});

/// Runs something asynchronous to its end. What it spawns lives on.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.block_on(future)
}

fn answer(request: reqwest::RequestBuilder) -> Option<(u16, String)> {
    RUNTIME.block_on(async {
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.text().await.ok()?))
    })
}

fn json((status, body): (u16, String)) -> (u16, Value) {
    (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
}

/// GET: status and body as text; `None` when nobody answers.
pub fn get_text(url: &str) -> Option<(u16, String)> {
    answer(CLIENT.get(url))
}

/// GET: status and JSON; `None` when nobody answers.
pub fn get_json(url: &str) -> Option<(u16, Value)> {
    get_text(url).map(json)
}

/// POST: status and JSON; `None` when nobody answers, or the answer was cut off.
pub fn post(url: &str, body: &str) -> Option<(u16, Value)> {
    answer(CLIENT.post(url).header("content-type", "application/json").body(body.to_owned())).map(json)
}

/// An answer with the headers that tell a client what to do.
#[derive(Clone, Debug)]
pub struct Posted {
    pub status: u16,
    pub content_type: String,
    /// In seconds.
    pub retry_after: Option<u64>,
    pub body: Value,
}

/// POST: the whole answer; `None` when nobody answers, or the answer was cut off.
pub fn post_whole(url: &str, body: &str) -> Option<Posted> {
    let request = CLIENT.post(url).header("content-type", "application/json").body(body.to_owned());
    block_on(async {
        let answer = request.send().await.ok()?;
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (content_type, retry_after) = (header("content-type").unwrap_or_default(), header("retry-after"));
        let status = answer.status().as_u16();
        let text = answer.text().await.ok()?;
        let (_, body) = json((status, text));
        Some(Posted { status, content_type, retry_after: retry_after.and_then(|text| text.parse().ok()), body })
    })
}
