//! `tallymark completions SHELL`.

use crate::exit::{Exit, Failure};

/// Prints the completions of a shell. They are made in memory first: the generator panics when its stream closes.
pub fn print(shell: clap_complete::Shell, mut command: clap::Command) -> Result<Exit, Failure> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    super::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
