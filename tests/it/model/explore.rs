//! Many seeds over all cores, or one with its trace. `tests/model` says which in variables.

use std::{
    cell::Cell,
    num::NonZero,
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
    str::FromStr,
    sync::{
        Once,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tallymark::bugs::Bug;

use super::schedule::{Outcome, run};

/// Seeds of one run of the tests.
pub const SEEDS: u64 = 2_000;

pub fn variable<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(format!("TALLYMARK_TEST_MODEL_{name}")).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("TALLYMARK_TEST_MODEL_{name} is not a number: {text}")))
}

thread_local! {
    static PANICKED: Cell<Option<String>> = const { Cell::new(None) };
}

/// A panic is as good as a law broken.
pub fn outcome(seed: u64, traced: bool, bug: Option<Bug>) -> Outcome {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            PANICKED.set(Some(panic.to_string()));
            before(panic);
        }));
    });
    PANICKED.set(None);
    let run = catch_unwind(AssertUnwindSafe(|| run(seed, traced, bug)));
    let mut outcome = run.unwrap_or(Outcome { violation: None, trace: Vec::new() });
    // Those of tasks that nobody waits for too.
    outcome.violation = outcome.violation.or(PANICKED.take());
    outcome
}

/// The lowest seed of `[first, first + count)` that breaks a law, and which. The seeds are dealt out to all cores.
pub fn first_failing(first: u64, count: u64, run: impl Fn(u64) -> Option<String> + Sync) -> Option<(u64, String)> {
    let (next, lowest) = (AtomicU64::new(first), AtomicU64::new(u64::MAX));
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let (end, began) = (first + count, Instant::now());
    let found = thread::scope(|scope| {
        let seeds = |_| {
            scope.spawn(|| {
                let mut found = Vec::new();
                let mut told = Instant::now();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end.min(lowest.load(Ordering::Relaxed)) {
                        return found;
                    }
                    if let Some(what) = run(seed) {
                        lowest.fetch_min(seed, Ordering::Relaxed);
                        found.push((seed, what));
                    }
                    if told.elapsed() > Duration::from_secs(10) && count > SEEDS {
                        told = Instant::now();
                        let done = seed - first;
                        let rate = done as f64 / began.elapsed().as_secs_f64();
                        eprintln!("{done} of {count} seeds, {rate:.0} a second");
                    }
                }
            })
        };
        let threads: Vec<_> = (0..threads).map(seeds).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("it catches panics")).collect::<Vec<_>>()
    });
    found.into_iter().min()
}

#[test]
fn every_seed_keeps_the_laws() {
    let traced: Option<u8> = variable("TRACE");
    let bug = variable::<String>("BUG").map(|name| {
        let named = Bug::ALL.iter().find(|bug| format!("{bug:?}") == name);
        *named.unwrap_or_else(|| panic!("no bug is called {name}; there are {:?}", Bug::ALL))
    });
    if let Some(seed) = variable("SEED") {
        let Outcome { violation, trace } = outcome(seed, traced.is_some(), bug);
        trace.iter().for_each(|line| println!("{line}"));
        match violation {
            None => println!("seed {seed} keeps the laws"),
            Some(what) => panic!("seed {seed}: {what}"),
        }
        return;
    }
    let (first, count, began) = (variable("FIRST").unwrap_or(0), variable("SEEDS").unwrap_or(SEEDS), Instant::now());
    let failing = first_failing(first, count, |seed| outcome(seed, false, bug).violation);
    println!("{count} seeds from {first} in {:.1} s", began.elapsed().as_secs_f64());
    if let Some((seed, what)) = failing {
        panic!("seed {seed}: {what}\nreplay it with: tests/model --seed {seed} --trace");
    }
}

#[test]
fn a_seed_is_the_same_world_every_time() {
    for seed in 0..20 {
        let (first, second) = (outcome(seed, true, None), outcome(seed, true, None));
        assert!(first.trace.len() > 100, "seed {seed} does something");
        assert_eq!(first.trace, second.trace, "seed {seed}");
    }
}
