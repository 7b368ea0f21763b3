//! What is looked at from outside while something is measured: processes by /proc, the program by its admin port.

use std::{
    fmt,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context as _, ensure};

/// The kernel tells CPU times in hundredths of a second.
const TICKS_A_SECOND: f64 = 100.0;
/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process and what the report calls it: `NAME=PID`.
#[derive(Clone, Debug)]
pub struct Process {
    /// What the report calls it.
    pub name: String,
    /// Its number.
    pub pid: u32,
}

impl FromStr for Process {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, pid) = text.split_once('=').ok_or("expected NAME=PID")?;
        let pid = pid.parse().map_err(|error| format!("{pid}: {error}"))?;
        Ok(Self { name: name.to_owned(), pid })
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.pid)
    }
}

impl Process {
    /// CPU time so far: the 14th and 15th field of its `stat`, counted after the name, which may contain spaces.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).with_context(|| self.to_string())?;
        let after_name = stat.rsplit_once(')').context("a process's stat has a name in parentheses")?.1;
        let ticks: u64 =
            after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(Duration::from_secs_f64(ticks as f64 / TICKS_A_SECOND))
    }

    /// Resident memory; `None` when it is gone.
    pub fn rss_mib(&self) -> Option<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? / 1024.0)
    }
}

/// CPU time of the whole machine so far, whoever had it: what it was not idle. What others take is missing to us.
pub fn machine() -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks = fields.map(str::parse::<u64>).collect::<Result<Vec<_>, _>>().context("/proc/stat counts")?;
    // Idle, and idle while a disk is waited for. What follows the eighth is counted in the first two as well.
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    Ok(Duration::from_secs_f64((ticks.iter().take(8).sum::<u64>() - idle) as f64 / TICKS_A_SECOND))
}

/// The body of what a server answers with 200.
pub fn get(server: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {server}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
    ensure!(head.split(' ').nth(1) == Some("200"), "{server}{path}: {}", head.lines().next().unwrap_or_default());
    Ok(body.to_owned())
}

/// Packs and seconds that are in the log and not in the store.
pub fn lag(admin: SocketAddr) -> anyhow::Result<(f64, f64)> {
    let body = get(admin, "/api/v1/lag")?;
    let lag: serde_json::Value = serde_json::from_str(&body).with_context(|| format!("not JSON: {body}"))?;
    let number = |name: &str| lag[name].as_f64().with_context(|| format!("no number {name} in {body}"));
    Ok((number("lag_packs")?, number("lag_seconds")?))
}

/// The samples of one name in an exposition for Prometheus: labels and value.
pub fn samples<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
    text.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        let whole = labels.is_empty() || labels.starts_with('{');
        Some((labels, value.parse().ok()?)).filter(|_| whole)
    })
}
