//! How long after its 202 an increment is in the hot view: one is posted, then the view is asked until it shows it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::histogram::Histogram;

/// Between two questions about one increment, after the first.
const NAP: Duration = Duration::from_micros(500);
/// An increment that is not seen by then counts as lost to the view.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Args)]
pub struct Options {
    /// The public port of an ingest
    #[arg(long)]
    server: SocketAddr,
    /// Seconds that are measured
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Increments a second
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Counters among which they go round
    #[arg(long, default_value_t = 32)]
    counters: usize,
}

/// A kept connection that is asked one thing after the other.
struct Connection {
    stream: BufReader<TcpStream>,
    host: SocketAddr,
}

impl Connection {
    fn open(host: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&host, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE * 3))?;
        Ok(Self { stream: BufReader::new(stream), host })
    }

    /// The answer's status and body.
    fn ask(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, serde_json::Value)> {
        let length = body.len();
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n\r\n{body}", self.host);
        self.stream.get_mut().write_all(request.as_bytes())?;
        let (mut status, mut length, mut line) = (None, 0, String::new());
        loop {
            line.clear();
            ensure!(self.stream.read_line(&mut line)? > 0, "{method} {path}: the connection was closed");
            if line == "\r\n" {
                break;
            }
            match line.split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse()?,
                None if status.is_none() => status = line.split(' ').nth(1).and_then(|status| status.parse().ok()),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        let status = status.with_context(|| format!("{method} {path}: an answer without a status"))?;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    fn post(&mut self, counter: &str, query: &str) -> anyhow::Result<()> {
        let body =
            format!(r#"{{"counter":"{counter}","tags":{{"path":"/docs"}},"id":"{:016x}"}}"#, rand::random::<u64>());
        let (status, answer) = self.ask("POST", &format!("/v1/increments{query}"), &body)?;
        ensure!(status / 100 == 2, "an increment was answered {status}: {answer}");
        Ok(())
    }

    /// The counter's total as the hot view has it.
    fn hot_total(&mut self, counter: &str) -> anyhow::Result<Option<i64>> {
        let (status, answer) = self.ask("GET", &format!("/v1/counters/{counter}?consistency=hot"), "")?;
        Ok(answer["total"].as_i64().filter(|_| status == 200))
    }

    /// Brings a counter into the hot view, and answers its total.
    fn load(&mut self, counter: &str) -> anyhow::Result<i64> {
        let deadline = Instant::now() + PATIENCE * 2;
        loop {
            self.ask("GET", &format!("/v1/counters/{counter}"), "")?;
            if let Some(total) = self.hot_total(counter)? {
                return Ok(total);
            }
            ensure!(Instant::now() < deadline, "`{counter}` does not come into the hot view");
            std::thread::sleep(NAP * 20);
        }
    }
}

/// Named figures.
pub fn run(options: &Options) -> anyhow::Result<Vec<(String, f64)>> {
    let mut connection = Connection::open(options.server)?;
    let counters: Vec<_> = (0..options.counters.max(1)).map(|number| format!("visible_{number}")).collect();
    let mut totals = Vec::new();
    for counter in &counters {
        connection.post(counter, "?ack=stored")?;
        totals.push(connection.load(counter)?);
    }
    let (mut seen, mut answered) = (Histogram::default(), Histogram::default());
    let (mut first_time, mut missed, mut lost, mut rounds) = (0u64, 0u64, 0u64, 0u64);
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(options.seconds);
    while Instant::now() < end {
        std::thread::sleep((start + Duration::from_secs_f64(rounds as f64 / options.rate)) - Instant::now());
        let at = (rounds % counters.len() as u64) as usize;
        let counter = &counters[at];
        rounds += 1;
        let sent = Instant::now();
        connection.post(counter, "")?;
        let accepted = Instant::now();
        answered.record(accepted - sent);
        totals[at] += 1;
        let mut questions = 0;
        loop {
            questions += 1;
            match connection.hot_total(counter)? {
                Some(total) if total >= totals[at] => {
                    seen.record(accepted.elapsed());
                    first_time += u64::from(questions == 1);
                    break;
                }
                Some(_) => {}
                None => missed += 1,
            }
            if accepted.elapsed() > PATIENCE {
                seen.record(accepted.elapsed());
                lost += 1;
                totals[at] = connection.load(counter)?;
                break;
            }
            std::thread::sleep(NAP);
        }
    }
    let figures = [
        ("increments", rounds as f64),
        ("p50_ms", seen.quantile_ms(0.5)),
        ("p99_ms", seen.quantile_ms(0.99)),
        ("max_ms", seen.max_ms()),
        ("answered_p50_ms", answered.quantile_ms(0.5)),
        ("answered_p99_ms", answered.quantile_ms(0.99)),
        ("first_time_share", first_time as f64 / rounds.max(1) as f64),
        ("misses", missed as f64),
        ("lost", lost as f64),
    ];
    Ok(figures.map(|(name, figure)| (name.to_owned(), figure)).into())
}
