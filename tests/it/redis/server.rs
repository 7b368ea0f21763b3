//! Redis servers of a test's own: started on a free port of loopback, ended by their pid.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use ::redis::{Client, Cmd, FromRedisValue, Value, aio::MultiplexedConnection};
use tallymark::{hot, hot::redis::Redis, units::Span, url::HotUrl, url::Servers};

/// The program, as the environment names it or as it is found in the path.
fn program() -> PathBuf {
    if let Ok(program) = std::env::var("TALLYMARK_TEST_REDIS_SERVER") {
        return program.into();
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).map(|folder| folder.join("redis-server")).find(|path| path.exists()).unwrap_or_else(
        || {
            panic!(
                "no redis-server in PATH: install it, or name it in TALLYMARK_TEST_REDIS_SERVER (`tests/stack up` does)"
            )
        },
    )
}

/// A port that is free now, so low that a cluster's bus (ten thousand above) has one too.
fn free_port() -> u16 {
    loop {
        let port = rand::random_range(12_000..32_000);
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port + 10_000) {
            return port;
        }
    }
}

pub struct Server {
    child: Option<Child>,
    pub port: u16,
    pub folder: tempfile::TempDir,
    arguments: Vec<String>,
    /// How its own connections reach it.
    url: String,
}

impl Server {
    /// A server with these arguments beside what every one gets: loopback, no snapshots of its own accord.
    pub async fn start(arguments: &[&str]) -> Self {
        Self::start_with(|_, _| (arguments.iter().map(|argument| (*argument).to_owned()).collect(), String::new()))
            .await
    }

    /// The same, with arguments that depend on port and folder, and what its own connections say before the host.
    pub async fn start_with(arguments: impl FnOnce(u16, &Path) -> (Vec<String>, String)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let (arguments, login) = arguments(port, folder.path());
        let url = format!("redis://{login}127.0.0.1:{port}");
        let mut server = Self { child: None, port, folder, arguments, url };
        server.run().await;
        server
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    async fn run(&mut self) {
        let mut command = Command::new(program());
        let (port, folder) = (self.port.to_string(), self.folder.path().display().to_string());
        let log = self.log().display().to_string();
        command.args(["--bind", "127.0.0.1", "--port", &port, "--dir", &folder, "--logfile", &log, "--save", ""]);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program().display())));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while self.try_ask::<Value>(::redis::cmd("PING")).await.is_err() {
            if tokio::time::Instant::now() > deadline || self.child.as_mut().unwrap().try_wait().unwrap().is_some() {
                panic!("redis-server does not start:\n{}", fs::read_to_string(self.log()).unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    async fn connection(&self) -> ::redis::RedisResult<MultiplexedConnection> {
        Client::open(self.url.as_str())?.get_multiplexed_async_connection().await
    }

    async fn try_ask<T: FromRedisValue>(&self, command: Cmd) -> ::redis::RedisResult<T> {
        command.query_async(&mut self.connection().await?).await
    }

    /// Says something to it, with another client than the one that is tested.
    pub async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = Cmd::new();
        words.iter().for_each(|word| {
            command.arg(*word);
        });
        self.try_ask(command).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// The same about an entry: what follows its key are the command's further words.
    pub async fn ask_of<T: FromRedisValue>(&self, word: &str, key: &[u8], more: &[&str]) -> T {
        let mut command = ::redis::cmd(word);
        command.arg(key).arg(more);
        self.try_ask(command).await.unwrap_or_else(|error| panic!("{word}: {error}"))
    }

    /// A command of any form.
    pub async fn query<T: FromRedisValue>(&self, command: Cmd) -> T {
        self.try_ask(command).await.unwrap_or_else(|error| panic!("{error}"))
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// As a crash: nothing is written any more.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// After [`Server::kill`], with what is in its folder.
    pub async fn start_again(&mut self) {
        self.run().await;
    }

    pub fn view(&self) -> Redis {
        self.view_with(&options())
    }

    pub fn view_with(&self, options: &hot::Options) -> Redis {
        open(&format!("redis://{}", self.address()), options)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Settings for a busy machine.
pub fn options() -> hot::Options {
    hot::Options { timeout: Span::from_secs(5), ..hot::Options::default() }
}

pub fn servers(url: &str) -> (bool, bool, Servers) {
    match url.parse() {
        Ok(HotUrl::Redis { tls, cluster, servers }) => (tls, cluster, servers),
        other => panic!("{url}: {other:?}"),
    }
}

pub fn open(url: &str, options: &hot::Options) -> Redis {
    let (tls, cluster, servers) = servers(url);
    Redis::open(tls, cluster, &servers, options).unwrap()
}
