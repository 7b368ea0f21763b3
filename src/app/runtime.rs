//! A runtime of its own for the lanes, on threads that give way.
//!
//! Folding a large pack or gathering a flush takes milliseconds of a core. On the runtime that answers clients those would
//! stand in a client's way until they are through.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::priority;

/// Threads for the embedded backends' blocking calls: many of them, each with a share of the cores of its own, would
/// together not give way any more.
const BLOCKING: usize = 4;

/// Threads for work that nobody waits for at once. Dropping it ends what still runs there, without waiting.
pub struct Background(Option<Runtime>);

impl Background {
    /// A runtime whose threads carry this name.
    pub fn start(name: &str) -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.enable_all().thread_name(name).max_blocking_threads(BLOCKING).on_thread_start(priority::give_way);
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
