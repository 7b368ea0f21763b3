//! Threads that give way: work that nobody waits for at once must not keep those waiting who answer clients.
//!
//! The lanes, and what the embedded backends do in the background, are a little less urgent to the operating system than
//! the threads that take requests and make them durable: when the cores do not suffice, the lag grows before the
//! acknowledgements get slow. `docs/decisions/0009-threads-that-give-way.md` has the figures.

use std::{io, thread};

/// By how many steps of nice(1): enough to stand back, and not so much that a thread that holds a lock which others wait
/// for is not let go on.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// Makes the calling thread, and those that it starts from now on, give way.
#[cfg(target_os = "linux")]
pub fn give_way() {
    // On Linux this is of the calling thread alone, and inherited (sched(7)). Becoming less urgent is always allowed.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::warn!(error = %error, "a thread could not be made less urgent");
    }
}

/// Elsewhere the same call means the whole process: nothing is done.
#[cfg(not(target_os = "linux"))]
pub fn give_way() {}

/// Runs `work` on a thread of its own that gives way, as do those that it starts. Waits for it.
///
/// # Errors
/// There is no thread to be had, or the work panicked.
pub fn giving_way<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let given = thread::Builder::new().spawn_scoped(scope, || {
            give_way();
            work()
        })?;
        given.join().map_err(|_| io::Error::other("it ended by a bug"))
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gives_way_with_all_that_it_starts_and_nobody_else_does() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        assert_eq!(giving_way(|| (nice(), thread::spawn(nice).join().unwrap())).unwrap(), (NICE, NICE));
        assert_eq!(nice(), before);
        assert!(giving_way(|| panic!("on purpose")).is_err());
    }
}
