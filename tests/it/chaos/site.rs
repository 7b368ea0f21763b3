//! A run of one fault: two ingests, three workers, the load, the watch; and the count at the end.

use std::time::{Duration, Instant};

use super::{
    books::Fate,
    cluster::{Cluster, PARTITIONS, holds, until},
    count,
    load::Load,
    pace::Pace,
    row::Row,
    watch::Watch,
};
use crate::e2e::{
    place::Place,
    process::{Server, get_json},
};

/// How long what must happen by itself may take on a machine that others use too.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// See the module.
pub struct Site {
    pub place: Place,
    pub ingests: Vec<Server>,
    pub workers: Vec<Server>,
    load: Option<Load>,
    /// Where clients reach the ingests, when it is not directly.
    pub fronts: Vec<String>,
    pub watch: Watch,
    /// What the load counts in; its events have the same name.
    pub counter: String,
    /// What went on besides, for the row.
    pub notes: Vec<String>,
    /// What was not as it must be.
    pub problems: Vec<String>,
}

/// What a site is made of.
pub struct Plan {
    pub place: Place,
    /// The same topic and tables for one role, by way of something.
    pub ingest: Option<Place>,
    pub worker: Option<Place>,
    pub workers: usize,
}

impl Plan {
    pub fn new(cluster: &Cluster, pace: &Pace, name: &str) -> Self {
        let place = cluster.place(name).set(&format!("worker.session_timeout={}s", pace.session.as_secs()));
        Self { place, ingest: None, worker: None, workers: 3 }
    }
}

impl Site {
    /// Everything is up, each worker has its share of the lanes, and the load runs.
    pub fn start(plan: Plan) -> Result<Self, String> {
        let Plan { place, ingest, worker, workers: count } = plan;
        place.do_well(&["topic", "create"]);
        let (front, back) = (ingest.as_ref().unwrap_or(&place), worker.as_ref().unwrap_or(&place));
        let ingests = start_together(front, "ingest", 2);
        let workers = start_together(back, "worker", count);
        let watch = Watch::start();
        ingests.iter().chain(&workers).for_each(|server| watch.add(server.pid(), &server.admin));
        let mut site = Self {
            place,
            ingests,
            workers,
            load: None,
            fronts: Vec::new(),
            watch,
            counter: String::new(),
            notes: Vec::new(),
            problems: Vec::new(),
        };
        site.all_have_lanes()?;
        site.begin()?;
        Ok(site)
    }

    /// A load of its own for the next row.
    pub fn begin(&mut self) -> Result<(), String> {
        self.counter = format!("c{:08x}", rand::random::<u32>());
        let urls = self.ingests.iter().enumerate();
        let urls = urls.map(|(n, ingest)| self.fronts.get(n).cloned().unwrap_or_else(|| ingest.url.clone())).collect();
        self.load = Some(Load::start(&self.counter, urls));
        self.goes_on()?;
        self.watch.forget();
        Ok(())
    }

    pub fn load(&self) -> &Load {
        self.load.as_ref().expect("it runs from one row's begin to its count")
    }

    /// Notes what is not as it must be; the run goes on, for the count.
    pub fn expect(&mut self, what: Result<(), String>) {
        self.problems.extend(what.err());
    }

    /// Some more items are acknowledged.
    pub fn goes_on(&self) -> Result<(), String> {
        let goal = self.load().acknowledged() + 200;
        until("items are acknowledged", PATIENCE, || {
            let now = self.load().acknowledged();
            holds(now >= goal, || format!("{now} of {goal}"))
        })
    }

    /// Another process of the role, in the place of the one with this number; the former one is handed back.
    pub fn replace_ingest(&mut self, number: usize) -> Server {
        self.put_ingest(number, self.place.start("ingest"))
    }

    /// The same with one that was started otherwise.
    pub fn put_ingest(&mut self, number: usize, ingest: Server) -> Server {
        self.watch.add(ingest.pid(), &ingest.admin);
        self.load().redirect(number, &ingest.url);
        std::mem::replace(&mut self.ingests[number], ingest)
    }

    pub fn add_workers(&mut self, count: usize) {
        for worker in start_together(&self.place, "worker", count) {
            self.put_worker(worker);
        }
    }

    pub fn add_worker(&mut self) {
        self.put_worker(self.place.start("worker"));
    }

    pub fn put_worker(&mut self, worker: Server) {
        self.watch.add(worker.pid(), &worker.admin);
        self.workers.push(worker);
    }

    /// Waits until all lanes run in some worker, and answers how long it took.
    pub fn lanes_run(&self, within: Duration) -> Result<Duration, String> {
        let began = Instant::now();
        until("every lane has a worker", within, || {
            let lanes: Vec<usize> = self.workers.iter().map(lanes).collect();
            holds(lanes.iter().sum::<usize>() == PARTITIONS, || format!("the workers run {lanes:?}"))
        })?;
        Ok(began.elapsed())
    }

    /// Waits until each worker has its share.
    pub fn all_have_lanes(&self) -> Result<(), String> {
        until("each worker has lanes", PATIENCE, || {
            let all: Vec<usize> = self.workers.iter().map(lanes).collect();
            holds(all.iter().sum::<usize>() == PARTITIONS && !all.contains(&0), || format!("the workers run {all:?}"))
        })
    }

    /// The sum of a figure over all lanes, as the workers know it that run them.
    pub fn of_lanes(&self, what: &str) -> i64 {
        let shown = self.workers.iter().flat_map(|worker| {
            let (_, lag) = worker.get_admin("/api/v1/lag");
            let lanes = lag["lanes"].as_array().cloned().unwrap_or_default();
            lanes.into_iter().filter(|lane| lane["worker"].is_string())
        });
        shown.map(|lane| lane[what].as_i64().unwrap_or(-1)).sum()
    }

    /// One row of several that share their processes: a load of its own, a fault, the count.
    pub fn row(&mut self, fault: &str, make: impl FnOnce(&mut Self) -> Result<(), String>) -> Row {
        let begun = if self.load.is_some() { Ok(()) } else { self.begin() };
        if let Err(why) = begun {
            return Row::failed(fault, why);
        }
        let made = make(self);
        self.expect(made);
        self.count(fault)
    }

    /// Ends the load, waits until everything is stored, counts; sends again what is not known, and counts that.
    pub fn count(&mut self, fault: &str) -> Row {
        let ended = self.load.take().expect("it runs").finish();
        let pauses = self.watch.pauses();
        let began = Instant::now();
        let (ingest, counter) = (&self.ingests[0], &self.counter);
        let mut problems = std::mem::take(&mut self.problems);
        let settled = settle(ingest);
        let drain = began.elapsed();
        let items = |fate| ended.books(|books| books.items(fate));
        let (acknowledged, unknown, refused) = (items(Fate::Acknowledged), items(Fate::Unknown), items(Fate::Refused));
        let counted = settled.and_then(|()| count::by_http(&ingest.url, counter));
        let mut error = ended.books(|books| counted.as_ref().map(|found| books.compare(found)).unwrap_or_default());
        problems.extend(counted.err());
        let again = ended
            .retry_the_unknown(PATIENCE)
            .and_then(|()| settle(ingest))
            .and_then(|()| count::by_http(&ingest.url, counter))
            .and_then(|found| count::agree(&found, &count::by_cql(&self.place, counter)?).map(|()| found));
        match again {
            Ok(found) => {
                let exact = ended.books(|books| books.compare(&found));
                (error.lost, error.doubled) = (error.lost.max(exact.lost), error.doubled.max(exact.doubled));
            }
            Err(problem) => problems.push(problem),
        }
        Row {
            fault: fault.to_owned(),
            acknowledged,
            unknown,
            refused,
            failed_twice: ended.books(|books| books.failed_twice),
            lost: error.lost,
            doubled: error.doubled,
            stall: ended.longest_stall(),
            pauses,
            drain,
            memory: self.watch.memory(),
            notes: std::mem::take(&mut self.notes),
            problems,
        }
    }

    /// A row without a count: what is lost here was taken out of the log, and the lane that lacks it stands still.
    pub fn uncounted(&mut self, fault: &str) -> Row {
        let ended = self.load.take().expect("it runs").finish();
        let mut row = Row::failed(fault, String::new());
        row.acknowledged = ended.books(|books| books.items(Fate::Acknowledged));
        (row.stall, row.pauses, row.memory) = (ended.longest_stall(), self.watch.pauses(), self.watch.memory());
        row.notes = std::mem::take(&mut self.notes);
        row.problems = std::mem::take(&mut self.problems);
        row
    }

    /// Everybody leaves in good order, or the last row says so.
    pub fn rows(self, mut rows: Vec<Row>) -> Vec<Row> {
        let left = self.leave();
        if let Some(last) = rows.last_mut() {
            last.problems.extend(left.err());
        }
        rows
    }

    /// Everybody leaves in good order.
    pub fn leave(self) -> Result<(), String> {
        drop(self.watch);
        let leaving = |server: Server| {
            let pid = server.pid();
            let status = server.stop();
            holds(status.success(), || format!("process {pid} did not leave in good order: {status}"))
        };
        self.workers.into_iter().chain(self.ingests).try_for_each(leaving)
    }

    /// The only row, and the end.
    pub fn finish(mut self, fault: &str) -> Vec<Row> {
        let mut row = self.count(fault);
        row.problems.extend(self.leave().err());
        vec![row]
    }
}

/// Processes of a role, all at once.
fn start_together(place: &Place, role: &str, count: usize) -> Vec<Server> {
    std::thread::scope(|scope| {
        let starting: Vec<_> = (0..count).map(|_| scope.spawn(|| place.start(role))).collect();
        starting.into_iter().map(|one| one.join().expect("it starts")).collect()
    })
}

/// Lanes that this worker runs.
pub fn lanes(worker: &Server) -> usize {
    let lag = get_json(&format!("{}/api/v1/lag", worker.admin)).map(|(_, lag)| lag).unwrap_or_default();
    let runs = |lane: &&serde_json::Value| lane["worker"].is_string();
    lag["lanes"].as_array().map_or(0, |lanes| lanes.iter().filter(runs).count())
}

/// Waits until everything in the log is stored.
fn settle(ingest: &Server) -> Result<(), String> {
    until("everything is stored", PATIENCE * 2, || {
        let answer = get_json(&format!("{}/api/v1/lag", ingest.admin)).map(|(_, lag)| lag).unwrap_or_default();
        let lanes: Vec<String> = answer["lanes"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|lane| lane["lag_packs"] != 0 || lane["status"] != "OK")
            .map(|lane| format!("{} {} {} {}", lane["partition"], lane["status"], lane["lag_packs"], lane["reason"]))
            .collect();
        holds(answer["lag_packs"] == 0 && answer["status"] == "OK", || format!("{}; {lanes:?}", answer["status"]))
    })
}
