//! A runtime of its own for the lanes, on threads that give way.
//!
//! Folding a large pack or gathering a flush takes milliseconds of a core. On the runtime that answers clients those would
//! stand in a client's way until they are through. So the lanes, and the embedded store that they write to, have threads
//! of their own, and these are a little less urgent to the operating system than those that answer clients: when the
//! cores do not suffice, the lag grows before the acknowledgements get slow.

use std::{io, thread};

use tokio::runtime::{Builder, Handle, Runtime};

/// Threads for work that nobody waits for at once. Dropping it ends what still runs there, without waiting.
pub struct Background(Option<Runtime>);

impl Background {
    /// A runtime whose threads carry this name, and give way by `nice` steps (0 to 19, see nice(1)).
    pub fn start(name: &str, nice: u8) -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.enable_all().thread_name(name).on_thread_start(move || give_way(nice));
        builder.build().map(|runtime| Self(Some(runtime)))
    }

    /// Where to spawn.
    pub fn handle(&self) -> &Handle {
        self.0.as_ref().expect("only taken when it is dropped").handle()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // A runtime must not wait for its threads inside another one.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Runs `work` on a thread of its own that gives way, as do those that it starts. Waits for it.
///
/// # Errors
/// There is no thread to be had, or the work panicked.
pub fn giving_way<T: Send>(nice: u8, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let given = thread::Builder::new().spawn_scoped(scope, || {
            give_way(nice);
            work()
        })?;
        given.join().map_err(|_| io::Error::other("it ended by a bug"))
    })
}

/// Makes the calling thread less urgent. On other systems the call means the whole process: nothing is done there.
#[cfg(target_os = "linux")]
fn give_way(nice: u8) {
    // Linux: of the calling thread alone, and inherited by those it starts (sched(7)). Going down is always allowed.
    if let Err(error) = rustix::process::setpriority_process(None, i32::from(nice)) {
        tracing::warn!(error = %error, "a thread could not be made less urgent");
    }
}

#[cfg(not(target_os = "linux"))]
fn give_way(_nice: u8) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn nice() -> i32 {
        rustix::process::getpriority_process(None).unwrap()
    }

    #[test]
    fn threads_that_give_way_are_those_of_the_lanes_alone() {
        let before = nice();
        let background = Background::start("lanes", 7).unwrap();
        let (answer, answered) = std::sync::mpsc::sync_channel(2);
        let blocking = answer.clone();
        background.handle().spawn(async move { answer.send(nice()) });
        background.handle().spawn_blocking(move || blocking.send(nice()));
        assert_eq!([answered.recv(), answered.recv()], [Ok(7), Ok(7)]);
        assert_eq!(giving_way(9, || thread::spawn(nice).join().unwrap()).unwrap(), 9);
        assert_eq!(nice(), before);
    }
}
