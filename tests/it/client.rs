//! The client commands against a real HTTP server that answers as a test tells it to, good and bad.

mod access_log;
mod asking;
mod sending;
mod server;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use tallymark::{
    client::{
        Console, Error,
        send::{self, Input, Options, Summary},
    },
    retry,
    units::Span,
};

/// What a command wrote, and how it ended.
struct Ran<T> {
    out: String,
    err: String,
    result: Result<T, Error>,
}

/// Runs a command with a console that keeps what it is told.
macro_rules! run {
    ($command:path, $options:expr) => {{
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut console = Console { out: &mut out, err: &mut err, progress: false };
        let result = $command($options, &mut console).await;
        Ran { out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap(), result }
    }};
}
use run;

/// Sends with delays that suit a test.
fn options(input: impl Into<PathBuf>, url: &str) -> Options {
    let mut options = Options::new(Input::File(input.into()), url);
    options.retry = retry::Options { initial: Span::from_millis(1), max: Span::from_millis(5) };
    options
}

async fn send(options: &Options) -> Ran<Summary> {
    run!(send::run, options)
}

/// A file with this text, under this name, that goes with its folder.
fn file(name: &str, text: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

/// Increments by one, a line each.
fn increments(count: usize) -> String {
    (0..count).map(|index| format!("{{\"counter\":\"c\",\"tags\":{{\"n\":\"{index}\"}}}}\n")).collect()
}

/// An address at which nobody listens, and the socket that keeps it from everybody else.
fn nobody() -> (tokio::net::TcpSocket, String) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    (socket, url)
}

/// What a command wrote while it runs.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits for a condition, and fails the test when it does not come true.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("in vain: {what}"));
}
