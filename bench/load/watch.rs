//! Looks at the servers while the load runs: their CPU time, their memory, the lag, the histograms that they keep.

use std::{
    net::SocketAddr,
    str::FromStr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{buckets::Buckets, options::Options};
use crate::probe::{self, Process};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(250);

/// A histogram that a server shows on `/metrics`, and what the report calls it: `NAME=ADDRESS:PORT/METRIC`.
#[derive(Clone, Debug)]
pub struct Shown {
    name: String,
    server: SocketAddr,
    metric: String,
}

impl FromStr for Shown {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('=').and_then(|(name, rest)| Some((name, rest.split_once('/')?)));
        let (name, (server, metric)) = parts.ok_or("expected NAME=ADDRESS:PORT/METRIC")?;
        let server = server.parse().map_err(|error| format!("{server}: {error}"))?;
        Ok(Self { name: name.to_owned(), server, metric: metric.to_owned() })
    }
}

impl Shown {
    fn read(&self) -> anyhow::Result<Buckets> {
        Ok(Buckets::read(&probe::get(self.server, "/metrics")?, &self.metric))
    }
}

/// What was seen from begin to end.
#[derive(Default)]
pub struct Watched {
    /// The server: CPU time, and resident memory every quarter of a second; every minute of a long run.
    pub server: Option<Seen>,
    /// The other processes, by name.
    pub processes: Vec<(String, Seen)>,
    /// The whole machine's CPU time.
    pub machine: Option<Duration>,
    /// The lag.
    pub lag: Option<Lag>,
    /// Quantiles of the servers' own histograms, by name: of a half, of 99 in a hundred, in milliseconds.
    pub shown: Vec<(String, f64, f64)>,
}

/// A process in the course of the run.
#[derive(Default)]
pub struct Seen {
    /// CPU time that it took.
    pub cpu: Duration,
    /// Its resident memory.
    pub rss_mib: Vec<f64>,
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

/// What is noted at the begin, and again at the end.
struct Mark {
    at: Instant,
    cpu: Vec<Option<Duration>>,
    machine: Option<Duration>,
    shown: Vec<Option<Buckets>>,
}

#[derive(Default)]
struct Looks {
    begin: Option<Mark>,
    end: Option<Mark>,
    /// Of each process.
    rss_mib: Vec<(Instant, Vec<Option<f64>>)>,
    /// When, packs, seconds.
    lag: Vec<(Instant, f64, f64)>,
}

/// A thread that looks now and then.
pub struct Watch {
    /// The server first, if it is looked at.
    processes: Vec<Process>,
    has_server: bool,
    shown: Vec<Shown>,
    looks: Arc<Mutex<Looks>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Starts to look at what the options name.
    pub fn start(options: &Options) -> anyhow::Result<Self> {
        let (looks, stop) = (Arc::<Mutex<Looks>>::default(), Arc::new(AtomicBool::new(false)));
        let server = options.pid.map(|pid| Process { name: "--pid".to_owned(), pid });
        let has_server = server.is_some();
        let processes: Vec<Process> = server.into_iter().chain(options.processes.iter().cloned()).collect();
        for process in &processes {
            process.cpu()?;
        }
        let admin = options.admin;
        if let Some(admin) = admin {
            probe::lag(admin).with_context(|| format!("--admin {admin}"))?;
        }
        for shown in &options.shown {
            shown.read().with_context(|| format!("{shown:?}"))?;
        }
        let thread = std::thread::spawn({
            let (looks, stop, processes) = (looks.clone(), stop.clone(), processes.clone());
            move || {
                let mut minutes = 0;
                while !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(EVERY);
                    let rss: Vec<_> = processes.iter().map(Process::rss_mib).collect();
                    let lag = admin.and_then(|admin| probe::lag(admin).ok());
                    let now = Instant::now();
                    let mut looks = looks.lock().expect("nobody panics with it");
                    if let Some(begin) = &looks.begin
                        && (now - begin.at).as_secs() / 60 > minutes
                    {
                        minutes += 1;
                        let rss = rss.first().copied().flatten();
                        eprintln!("load: minute {minutes}: {rss:.0?} MiB, lag {:.1?} s", lag.map(|lag| lag.1));
                    }
                    looks.rss_mib.push((now, rss));
                    looks.lag.extend(lag.map(|(packs, seconds)| (now, packs, seconds)));
                }
            }
        });
        Ok(Self { processes, has_server, shown: options.shown.clone(), looks, stop, thread })
    }

    fn mark(&self) -> Mark {
        Mark {
            at: Instant::now(),
            cpu: self.processes.iter().map(|process| process.cpu().ok()).collect(),
            machine: probe::machine().ok(),
            shown: self.shown.iter().map(|shown| shown.read().ok()).collect(),
        }
    }

    /// The measurement begins.
    pub fn begin(&self) {
        let mark = self.mark();
        self.looks.lock().expect("nobody panics with it").begin = Some(mark);
    }

    /// The measurement ends.
    pub fn end(&self) {
        let mark = self.mark();
        self.looks.lock().expect("nobody panics with it").end = Some(mark);
    }

    /// Stops looking and tells what was seen.
    pub fn finish(self) -> Watched {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
        let mut looks = self.looks.lock().expect("nobody panics with it");
        let (Some(begin), Some(end)) = (looks.begin.take(), looks.end.take()) else { return Watched::default() };
        let measured = begin.at..=end.at;
        looks.rss_mib.retain(|(at, _)| measured.contains(at));
        looks.lag.retain(|(at, ..)| measured.contains(at));
        let long = end.at - begin.at > Duration::from_secs(120);
        let step = if long { (60_000 / EVERY.as_millis()) as usize } else { 1 };
        let process = |index: usize| {
            let rss: Vec<f64> = looks.rss_mib.iter().filter_map(|(_, rss)| rss[index]).collect();
            let rss_mib = rss.iter().step_by(step).chain(rss.last()).copied().collect();
            Some(Seen { cpu: end.cpu[index]?.saturating_sub(begin.cpu[index]?), rss_mib })
        };
        let others = usize::from(self.has_server)..self.processes.len();
        let quantiles = |(index, shown): (usize, &Shown)| {
            let (before, after) = (begin.shown[index].as_ref()?, end.shown[index].as_ref()?);
            let of = |share| after.quantile_ms_since(before, share);
            Some((shown.name.clone(), of(0.5), of(0.99)))
        };
        Watched {
            server: self.has_server.then(|| process(0)).flatten(),
            processes: others.filter_map(|at| Some((self.processes[at].name.clone(), process(at)?))).collect(),
            machine: begin.machine.zip(end.machine).map(|(begin, end)| end.saturating_sub(begin)),
            lag: course(&looks.lag),
            shown: self.shown.iter().enumerate().filter_map(quantiles).collect(),
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
