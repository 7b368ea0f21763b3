//! The connections: one thread, non-blocking sockets, at most one request under way on each.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use mio::{Events, Interest, Poll, Token, net::TcpStream};

use super::{
    options::Options,
    pace::{Due, Pace},
    request::Request,
    watch::Watch,
};
use crate::{cpu, histogram::Histogram, workload::Zipf};

/// How long answers are awaited after the last request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Sleeps are no longer than this while answers may come: epoll counts in milliseconds, requests are due more often.
const NAP: Duration = Duration::from_micros(100);

/// What was measured.
#[derive(Default)]
pub struct Run {
    /// From due (or, without a rate, sent) to answered.
    pub latency: Histogram,
    /// From due to sent.
    pub lateness: Histogram,
    /// Answers within the measured time, by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests that were accepted at any time, before and after it too.
    pub accepted: u64,
    /// Connections that the server closed.
    pub closed: u64,
    /// Requests that were due and found no connection idle in time.
    pub unsent: u64,
    /// Requests that nobody answered.
    pub unanswered: u64,
    /// The measured time.
    pub elapsed: Duration,
    /// Our own CPU time in it.
    pub cpu: Duration,
}

struct Connection {
    stream: TcpStream,
    /// When the request under way was due.
    due: Option<Instant>,
    /// What of it is not written yet.
    unwritten: Vec<u8>,
    /// What of its answer was read.
    read: Vec<u8>,
}

/// The answer's status and how long it is, head and body; `None` while its head is not complete.
fn head(read: &[u8]) -> anyhow::Result<Option<(u16, usize)>> {
    const LENGTH: &[u8] = b"content-length:";
    let (mut status, mut length, mut at) = (None, None, 0);
    for line in read.split_inclusive(|byte| *byte == b'\n') {
        at += line.len();
        if line == b"\r\n" {
            let (Some(status), Some(length)) = (status, length) else {
                bail!("an answer without a status or a length: {}", String::from_utf8_lossy(read));
            };
            return Ok(Some((status, at + length)));
        }
        let number = |from: &[u8]| std::str::from_utf8(from).ok()?.trim().parse::<usize>().ok();
        if status.is_none() {
            status = line.get(9..12).and_then(number).and_then(|status| u16::try_from(status).ok());
        } else if line.len() > LENGTH.len() && line[..LENGTH.len()].eq_ignore_ascii_case(LENGTH) {
            length = number(&line[LENGTH.len()..]);
        }
    }
    Ok(None)
}

struct Client<'a> {
    target: SocketAddr,
    poll: Poll,
    connections: Vec<Connection>,
    idle: VecDeque<usize>,
    request: Request,
    chunk: Vec<u8>,
    zipf: &'a Zipf,
    begin: Instant,
    end: Instant,
    run: Run,
}

/// Sends the load and collects the answers.
pub fn run(options: &Options, target: &SocketAddr, zipf: &Zipf, watch: &Watch) -> anyhow::Result<Run> {
    let mut client = Client {
        target: *target,
        poll: Poll::new()?,
        connections: Vec::new(),
        idle: (0..options.connections).collect(),
        request: Request::new(options.shape(), &target.to_string(), rand::random()),
        chunk: vec![0; 64 * 1024],
        zipf,
        begin: Instant::now(),
        end: Instant::now(),
        run: Run::default(),
    };
    for index in 0..options.connections {
        let connection = client.connect(index)?;
        client.connections.push(connection);
    }
    let start = Instant::now();
    client.begin = start + options.warmup();
    client.end = client.begin + options.measured();
    let most = options.items.map(|items| items.div_ceil(options.batch as u64));
    let mut pace = Pace::new(start, client.end, options.rate.map(|rate| rate / options.batch as f64), most);
    let mut cpu_at_begin = None;
    let mut events = Events::with_capacity(1024);
    loop {
        let now = Instant::now();
        if cpu_at_begin.is_none() && now >= client.begin {
            watch.begin();
            cpu_at_begin = Some(cpu::process());
        }
        if now >= client.end {
            break;
        }
        let wake = client.send(&mut pace)?.min(client.end);
        if pace.is_spent() && client.idle.len() == client.connections.len() {
            client.end = Instant::now();
            break;
        }
        client.wait(&mut events, wake)?;
    }
    client.run.cpu = cpu::process() - cpu_at_begin.unwrap_or_default();
    client.run.elapsed = client.end - client.begin;
    watch.end();
    client.wind_up(&mut pace, &mut events)
}

impl Client<'_> {
    fn connect(&self, index: usize) -> anyhow::Result<Connection> {
        let stream = std::net::TcpStream::connect_timeout(&self.target, Duration::from_secs(5))
            .with_context(|| format!("connecting to {}", self.target))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        self.poll.registry().register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        Ok(Connection { stream, due: None, unwritten: Vec::new(), read: Vec::new() })
    }

    /// Sends what is due on connections that are idle. Answers when to come again at the latest.
    fn send(&mut self, pace: &mut Pace) -> anyhow::Result<Instant> {
        while let Some(index) = self.idle.front().copied() {
            let now = Instant::now();
            match pace.next(now) {
                Due::Since(due) => {
                    self.idle.pop_front();
                    if due >= self.begin {
                        self.run.lateness.record(now - due);
                    }
                    self.connections[index].due = Some(due);
                    self.write(index)?;
                }
                Due::At(when) => return Ok(when),
                Due::Never => break,
            }
        }
        Ok(Instant::now() + PATIENCE)
    }

    /// Waits for answers, until `wake` at the latest, and takes them.
    fn wait(&mut self, events: &mut Events, wake: Instant) -> anyhow::Result<()> {
        let left = wake.saturating_duration_since(Instant::now());
        let whole_ms = Duration::from_millis(u64::try_from(left.as_millis())?);
        if whole_ms.is_zero() && !left.is_zero() {
            std::thread::sleep(left.min(NAP));
        }
        match self.poll.poll(events, Some(whole_ms)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            result => result.context("waiting for sockets")?,
        }
        for event in events.iter() {
            let index = event.token().0;
            if !self.connections[index].unwritten.is_empty() {
                self.write_rest(index)?;
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.read(index)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, index: usize) -> anyhow::Result<()> {
        let Self { connections, request, zipf, .. } = self;
        let connection = &mut connections[index];
        let bytes = request.next(zipf, tallymark::clock::now_ms().unsigned_abs());
        match connection.stream.write(bytes) {
            Ok(written) if written == bytes.len() => Ok(()),
            Ok(written) => {
                connection.unwritten.extend_from_slice(&bytes[written..]);
                self.write_rest(index)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                connection.unwritten.extend_from_slice(bytes);
                Ok(())
            }
            Err(_) => self.reconnect(index),
        }
    }

    fn write_rest(&mut self, index: usize) -> anyhow::Result<()> {
        let connection = &mut self.connections[index];
        while !connection.unwritten.is_empty() {
            match connection.stream.write(&connection.unwritten) {
                Ok(written) => drop(connection.unwritten.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return self.reconnect(index),
            }
        }
        Ok(())
    }

    fn read(&mut self, index: usize) -> anyhow::Result<()> {
        loop {
            let Self { connections, chunk, .. } = self;
            let connection = &mut connections[index];
            match connection.stream.read(chunk) {
                Ok(0) => return self.reconnect(index),
                Ok(length) => connection.read.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return self.reconnect(index),
            }
            if let Some((status, length)) = head(&connection.read)?
                && connection.read.len() >= length
            {
                connection.read.clear();
                // The next edge comes with the next answer: there is no need to read until the socket says that it is empty.
                let Some(due) = connection.due.take() else { bail!("an answer that nobody asked for") };
                let now = Instant::now();
                if due >= self.begin {
                    self.run.latency.record(now - due);
                }
                self.run.accepted += u64::from(status / 100 == 2);
                if (self.begin..self.end).contains(&now) {
                    *self.run.statuses.entry(status).or_default() += 1;
                }
                self.idle.push_back(index);
                return Ok(());
            }
        }
    }

    /// The server has closed this connection: whatever was under way on it got no answer.
    fn reconnect(&mut self, index: usize) -> anyhow::Result<()> {
        self.run.closed += 1;
        if self.connections[index].due.take().is_some() {
            self.run.unanswered += 1;
            self.idle.push_back(index);
        }
        self.connections[index] = self.connect(index)?;
        Ok(())
    }

    /// Nothing is sent any more: what was due counts as waiting until now, what is under way is awaited.
    fn wind_up(mut self, pace: &mut Pace, events: &mut Events) -> anyhow::Result<Run> {
        while let Due::Since(due) = pace.next(self.end) {
            self.run.unsent += 1;
            self.run.latency.record(self.end - due);
        }
        let deadline = self.end + PATIENCE;
        while self.idle.len() < self.connections.len() && Instant::now() < deadline {
            self.wait(events, Instant::now() + Duration::from_millis(20))?;
        }
        for due in self.connections.iter().filter_map(|connection| connection.due) {
            self.run.unanswered += 1;
            self.run.latency.record(due.elapsed());
        }
        Ok(self.run)
    }
}
