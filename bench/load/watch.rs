//! Looks at the server while the load runs: its CPU time, its memory, its lag.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::options::Options;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(250);
/// The kernel tells CPU times in hundredths of a second.
const TICKS_A_SECOND: f64 = 100.0;

/// What was seen from begin to end.
#[derive(Default)]
pub struct Watched {
    /// CPU time of the server.
    pub cpu: Option<Duration>,
    /// Its resident memory, every quarter of a second; every minute of a long run.
    pub rss_mib: Vec<f64>,
    /// Its lag.
    pub lag: Option<Lag>,
}

/// The lag in the course of the run.
pub struct Lag {
    /// Seconds at the begin.
    pub begin: f64,
    /// Seconds at the end.
    pub end: f64,
    /// Most seconds.
    pub max: f64,
    /// Seconds a second: the slope of the straight line that fits best. 0.1 means that a tenth of the load stays behind.
    pub slope: f64,
    /// Packs at the end.
    pub packs: f64,
}

#[derive(Default)]
struct Seen {
    begin: Option<Instant>,
    end: Option<Instant>,
    cpu_begin: Option<Duration>,
    cpu_end: Option<Duration>,
    rss_mib: Vec<(Instant, f64)>,
    /// When, packs, seconds.
    lag: Vec<(Instant, f64, f64)>,
}

/// A thread that looks now and then.
pub struct Watch {
    pid: Option<u32>,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Starts to look at what the options name.
    pub fn start(options: &Options) -> anyhow::Result<Self> {
        let (seen, stop) = (Arc::<Mutex<Seen>>::default(), Arc::new(AtomicBool::new(false)));
        let (pid, admin) = (options.pid, options.admin);
        if let Some(pid) = pid {
            cpu(pid).with_context(|| format!("--pid {pid}"))?;
        }
        if let Some(admin) = admin {
            lag(admin).with_context(|| format!("--admin {admin}"))?;
        }
        let thread = std::thread::spawn({
            let (seen, stop) = (seen.clone(), stop.clone());
            move || {
                let mut minutes = 0;
                while !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(EVERY);
                    let (rss, lag) = (pid.and_then(rss_mib), admin.and_then(|admin| lag(admin).ok()));
                    let now = Instant::now();
                    let mut seen = seen.lock().expect("nobody panics with it");
                    seen.rss_mib.extend(rss.map(|rss| (now, rss)));
                    seen.lag.extend(lag.map(|(packs, seconds)| (now, packs, seconds)));
                    if let Some(begin) = seen.begin
                        && (now - begin).as_secs() / 60 > minutes
                    {
                        minutes += 1;
                        eprintln!("load: minute {minutes}: {rss:.0?} MiB, lag {:.1?} s", lag.map(|lag| lag.1));
                    }
                }
            }
        });
        Ok(Self { pid, seen, stop, thread })
    }

    /// The measurement begins.
    pub fn begin(&self) {
        let mut seen = self.seen.lock().expect("nobody panics with it");
        seen.begin = Some(Instant::now());
        seen.cpu_begin = self.pid.and_then(|pid| cpu(pid).ok());
    }

    /// The measurement ends.
    pub fn end(&self) {
        let mut seen = self.seen.lock().expect("nobody panics with it");
        seen.end = Some(Instant::now());
        seen.cpu_end = self.pid.and_then(|pid| cpu(pid).ok());
    }

    /// Stops looking and tells what was seen.
    pub fn finish(self) -> Watched {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
        let mut seen = self.seen.lock().expect("nobody panics with it");
        let (Some(begin), Some(end)) = (seen.begin, seen.end) else { return Watched::default() };
        let measured = begin..=end;
        seen.rss_mib.retain(|(at, _)| measured.contains(at));
        seen.lag.retain(|(at, ..)| measured.contains(at));
        let step = if end - begin > Duration::from_secs(120) { (60_000 / EVERY.as_millis()) as usize } else { 1 };
        Watched {
            cpu: seen.cpu_begin.zip(seen.cpu_end).map(|(begin, end)| end - begin),
            rss_mib: seen.rss_mib.iter().step_by(step).chain(seen.rss_mib.last()).map(|(_, rss)| *rss).collect(),
            lag: course(&seen.lag),
        }
    }
}

fn course(lag: &[(Instant, f64, f64)]) -> Option<Lag> {
    let ((first, ..), (_, packs, _)) = (lag.first()?, lag.last()?);
    let points: Vec<_> = lag.iter().map(|(at, _, seconds)| ((*at - *first).as_secs_f64(), *seconds)).collect();
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let slope = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>() / spread.max(1e-9);
    Some(Lag {
        begin: points[0].1,
        end: points[points.len() - 1].1,
        max: points.iter().fold(0.0, |max, (_, y)| y.max(max)),
        slope,
        packs: *packs,
    })
}

/// CPU time of a process: the 14th and 15th field of its `stat`, counted after the name, which may contain spaces.
fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').context("a process's stat has a name in parentheses")?.1;
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Ok(Duration::from_secs_f64(ticks as f64 / TICKS_A_SECOND))
}

fn rss_mib(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? / 1024.0)
}

/// Packs and seconds.
fn lag(admin: SocketAddr) -> anyhow::Result<(f64, f64)> {
    let mut stream = TcpStream::connect_timeout(&admin, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(stream, "GET /api/v1/lag HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").context("an answer without a body")?.1;
    let lag: serde_json::Value = serde_json::from_str(body).with_context(|| format!("not JSON: {body}"))?;
    let number = |name: &str| lag[name].as_f64().with_context(|| format!("no number {name} in {body}"));
    Ok((number("lag_packs")?, number("lag_seconds")?))
}
