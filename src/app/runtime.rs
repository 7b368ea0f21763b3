//! A runtime of its own for the lanes.
//!
//! Folding a large pack or gathering a flush takes milliseconds of a core. On the runtime that answers clients those would
//! stand in a client's way until they are through; on threads of their own the operating system lets whoever has just
//! been woken go first.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// Threads for work that nobody waits for at once. Dropping it ends what still runs there, without waiting.
pub struct Background(Option<Runtime>);

impl Background {
    /// A runtime whose threads carry this name.
    pub fn start(name: &str) -> io::Result<Self> {
        Builder::new_multi_thread().enable_all().thread_name(name).build().map(|runtime| Self(Some(runtime)))
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
