//! The commands that talk to a running instance: from flags and configuration to the client, and back to an exit code.

use std::io::{self, IsTerminal as _};

use super::{block_on, get::Get, lag::Lag, send::Send};
use crate::{
    client::{self, Console},
    config::Config,
    exit::{Exit, Failure},
};

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        Self { exit: exit(error.exit_code()), message: error.to_string() }
    }
}

fn exit(code: u8) -> Exit {
    [Exit::Done, Exit::Usage, Exit::Unreachable, Exit::Halted]
        .into_iter()
        .find(|exit| exit.code() == code)
        .unwrap_or(Exit::Failed)
}

fn with_console<T>(command: impl AsyncFnOnce(&mut Console<'_>) -> Result<T, client::Error>) -> Result<T, Failure> {
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let progress = err.is_terminal();
    let mut console = Console { out: &mut out, err: &mut err, progress };
    Ok(block_on(command(&mut console))??)
}

pub(super) fn send(mut send: Send, config: &Config) -> Result<Exit, Failure> {
    send.namespace = send.namespace.or_else(|| config.namespace_if_set().map(ToString::to_string));
    let options = send.into_options(&config.listen.client_url());
    let summary = with_console(async |console| client::send::run(&options, console).await)?;
    Ok(exit(summary.exit_code()))
}

pub(super) fn get(mut get: Get, config: &Config) -> Result<Exit, Failure> {
    get.namespace = get.namespace.or_else(|| config.namespace_if_set().map(ToString::to_string));
    let options = get.into_options(&config.listen.client_url());
    with_console(async |console| client::get::run(&options, console).await)?;
    Ok(Exit::Done)
}

pub(super) fn lag(lag: Lag, config: &Config) -> Result<Exit, Failure> {
    let check = lag.check;
    let options = lag.into_options(&config.admin_listen.client_url());
    let verdict = with_console(async |console| client::lag::run(&options, console).await)?;
    Ok(if check { exit(verdict.exit_code()) } else { Exit::Done })
}
