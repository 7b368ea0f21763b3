//! The binary: parse, load, build, wait, drain, exit code.
//!
//! Everything that a command does is in `cli.rs` and below; here is what a process must do itself: read its arguments
//! and its environment, say on stderr why it failed, and end with the code by returning it.

use std::{io::Write as _, process::ExitCode};

use tallymark::cli;

/// Packs, rows and bodies come and go on every thread: the system's allocator spends a tenth of the program's time on it
/// and keeps what they leave behind.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let outcome = match cli::parse(std::env::args_os(), std::env::vars_os()) {
        Ok(invocation) => invocation.execute(),
        Err(refused) => return refused.print().into(),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            // Nobody can be told when stderr is closed; the code says it all the same.
            let _ = writeln!(std::io::stderr(), "error: {failure}");
            failure.exit.into()
        }
    }
}
