//! The table of faults on a real cluster: three brokers, three store nodes, Redis, two ingests, three workers, and a load whose
//! books say what must be stored in the end.
//!
//! `tests/chaos` brings the cluster up and runs it, and names what to run in `TALLYMARK_CHAOS_…`; without that the table is not
//! run. A fault is a module of `faults`; it makes trouble, notes what is not as expected, and hands back a row. What is lost and
//! doubled is counted the same way for all of them (`site`, `books`).

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

mod books;
mod cluster;
mod count;
mod faults;
mod load;
mod pace;
mod proxy;
mod row;
mod site;
mod watch;

use cluster::Cluster;
use faults::{Fault, TABLE};
use pace::Pace;
use row::Row;

/// What `tests/chaos` asks for.
struct Asked {
    pace: Pace,
    /// Again and again until so much has passed.
    minutes: u64,
    only: Vec<String>,
    /// Where the rows go, as JSON.
    rows: Option<String>,
}

impl Asked {
    fn by_environment() -> Option<Self> {
        let variable =
            |name: &str| std::env::var(format!("TALLYMARK_CHAOS_{name}")).ok().filter(|text| !text.is_empty());
        let minutes = variable("MINUTES")?.parse().expect("TALLYMARK_CHAOS_MINUTES is a number");
        Some(Self {
            pace: if minutes > 0 { Pace::LONG } else { Pace::SHORT },
            minutes,
            only: variable("ONLY").map(|only| only.split(',').map(str::to_owned).collect()).unwrap_or_default(),
            rows: variable("ROWS"),
        })
    }

    fn wants(&self, fault: &Fault) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == fault.name)
    }
}

/// A fault that cannot be run to its end is a row that says so.
fn run(cluster: &Cluster, pace: &Pace, fault: &Fault) -> Vec<Row> {
    let ran = catch_unwind(AssertUnwindSafe(|| (fault.run)(cluster, pace)));
    let failed = |why: String| vec![Row::failed(fault.name, why)];
    match ran {
        Ok(Ok(rows)) => rows,
        Ok(Err(why)) => failed(why),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            failed(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
        }
    }
}

/// Runs faults side by side.
fn together<'a>(cluster: &Cluster, pace: &Pace, faults: &[&'a Fault]) -> Vec<(&'a Fault, Vec<Row>, Duration)> {
    let timed = |fault: &'a Fault| {
        let began = Instant::now();
        let rows = run(cluster, pace, fault);
        (fault, rows, began.elapsed())
    };
    thread::scope(|scope| {
        let running: Vec<_> = faults.iter().map(|fault| scope.spawn(move || timed(fault))).collect();
        running.into_iter().map(|one| one.join().expect("a fault's panic is its row")).collect()
    })
}

#[test]
fn every_fault_of_the_table_loses_nothing_and_doubles_nothing() {
    let Some(asked) = Asked::by_environment() else {
        eprintln!("the table of faults is run by tests/chaos");
        return;
    };
    let unknown = asked.only.iter().find(|name| !TABLE.iter().any(|fault| fault.name == name.as_str()));
    let names: Vec<&str> = TABLE.iter().map(|fault| fault.name).collect();
    assert!(unknown.is_none(), "there is no fault {unknown:?}; there are {}", names.join(", "));
    let (began, cluster) = (Instant::now(), Cluster::found());
    let (mut rows, mut broken) = (Vec::<Value>::new(), Vec::new());
    eprintln!("\n{}", row::HEAD);
    loop {
        let wanted: Vec<&Fault> = TABLE.iter().filter(|fault| asked.wants(fault)).collect();
        // Each with those before it that run beside it.
        for faults in wanted.chunk_by(|fault, _| fault.is_apart) {
            for (fault, done, took) in together(&cluster, &asked.pace, faults) {
                for row in done {
                    eprintln!("{}", row.text());
                    if !row.holds() {
                        broken.push(row.fault.clone());
                    }
                    rows.push(row.json());
                }
                eprintln!("    ({} took {:.0} s)", fault.name, took.as_secs_f64());
            }
            if let Some(file) = &asked.rows {
                let report = json!({"holds": broken.is_empty(), "seconds": began.elapsed().as_secs(), "rows": rows});
                fs::write(file, format!("{report:#}\n")).expect("the rows can be written");
            }
        }
        if began.elapsed() > Duration::from_secs(asked.minutes * 60) {
            break;
        }
    }
    assert!(broken.is_empty(), "not as expected: {}", broken.join(", "));
}

#[test]
fn every_fault_is_named_once_and_listed() {
    for fault in TABLE {
        assert_eq!(TABLE.iter().filter(|other| other.name == fault.name).count(), 1, "{}", fault.name);
        assert!(fault.name.len() <= 17, "{}: the table has no room for it", fault.name);
    }
    if std::env::var("TALLYMARK_CHAOS_LIST").is_ok() {
        for Fault { name, expected, .. } in TABLE {
            println!("{name:<17}  {expected}");
        }
    }
}
