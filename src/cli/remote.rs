//! The commands that talk to a running instance: from flags and configuration to the client, and back to an exit code.
//!
//! `get`, `lag` and `lanes` ask the instance at the configured address; when none runs there, they ask the data folder
//! (`lanes` also log and store on servers). An address
//! that was named on the command line is asked and nothing else.

use std::io::{self, IsTerminal as _};

use super::{
    block_on,
    confirm::confirm,
    dead_letters::Command,
    get::Get,
    lag::Lag,
    lanes::{self, Deed},
    send::Send,
};
use crate::{
    app::offline,
    client::{self, Console},
    config::Config,
    exit::{Exit, Failure},
    url::LogUrl,
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

fn with_console<T>(command: impl AsyncFnOnce(&mut Console<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let progress = err.is_terminal();
    let mut console = Console { out: &mut out, err: &mut err, progress };
    block_on(command(&mut console))?
}

/// Asks the instance at `url`, or, when nobody answers there and nobody named that address, the data folder.
async fn ask<T>(
    config: &Config,
    (url, named): (String, bool),
    servers_too: bool,
    console: &mut Console<'_>,
    mut question: impl AsyncFnMut(String, &mut Console<'_>) -> Result<T, client::Error>,
) -> Result<T, Failure> {
    let absent = match question(url, console).await {
        Err(absent @ client::Error::NotRunning { .. }) if !named => absent,
        answered => return Ok(answered?),
    };
    let client::Error::NotRunning { url, reason, flag } = &absent else { return Err(absent.into()) };
    let opened = if servers_too { offline::open_anywhere(config).await } else { offline::open(config).await };
    let folder = match opened {
        Ok(Some(folder)) => folder,
        Ok(None) => return Err(absent.into()),
        Err(offline::Error::InUse { path, pid }) => {
            let pid = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
            return Err(Failure::unreachable(format!(
                "no running instance at {url} ({reason}), but another process{pid} has the data folder `{}`; name its \
                 address with `{flag}`",
                path.display()
            )));
        }
        Err(offline::Error::Failed(Failure { exit, message })) => {
            let message = format!("no running instance at {url} ({reason}), nor can log and store be read: {message}");
            return Err(Failure { exit, message });
        }
    };
    let place = folder.place().to_owned();
    console.note(&format!("no running instance at {url} ({reason}): the answer is from {place}"));
    let answered = question(folder.url().to_owned(), console).await;
    folder.close().await;
    Ok(answered.map_err(|error| match error {
        // Nobody knows the port of the moment.
        client::Error::Refused { status, code, detail, .. } => {
            client::Error::Refused { url: place.clone(), status, code, detail }
        }
        other => other,
    })?)
}

pub(super) fn send(mut send: Send, config: &Config) -> Result<Exit, Failure> {
    send.namespace = send.namespace.or_else(|| config.namespace_if_set().map(ToString::to_string));
    let options = send.into_options(&config.listen.client_url());
    let summary = with_console(async |console| Ok(client::send::run(&options, console).await?))?;
    Ok(exit(summary.exit_code()))
}

pub(super) fn get(mut get: Get, config: &Config) -> Result<Exit, Failure> {
    get.namespace = get.namespace.or_else(|| config.namespace_if_set().map(ToString::to_string));
    let named = get.url.is_some();
    let mut options = get.into_options(&config.listen.client_url());
    let asked = (options.url.clone(), named);
    with_console(async |console| {
        let question = async |url, console: &mut Console<'_>| {
            options.url = url;
            client::get::run(&options, console).await
        };
        ask(config, asked, false, console, question).await
    })?;
    Ok(Exit::Done)
}

pub(super) fn lag(lag: Lag, config: &Config) -> Result<Exit, Failure> {
    let (check, named) = (lag.check, lag.admin_url.is_some());
    let mut options = lag.into_options(&config.admin_listen.client_url());
    let asked = (options.admin_url.clone(), named);
    let verdict = with_console(async |console| {
        let question = async |url, console: &mut Console<'_>| {
            options.admin_url = url;
            client::lag::run(&options, console).await
        };
        ask(config, asked, false, console, question).await
    })?;
    Ok(if check { exit(verdict.exit_code()) } else { Exit::Done })
}

pub(super) fn dead_letters(command: Command, config: &Config) -> Result<Exit, Failure> {
    let Command { mut options, named } = command;
    let asked = (options.admin_url.clone(), named);
    let is_replay = matches!(options.action, client::dead_letters::Action::Replay { .. });
    let summary = with_console(async |console| {
        // On servers whoever can reach them can ask; where log and store are files only the instance that has them can.
        if !named && matches!(config.log.url, LogUrl::Kafka { .. }) {
            let served = offline::dead_letters(config).await?;
            options.admin_url = served.url().to_owned();
            let answered = client::dead_letters::run(&options, console).await;
            served.close().await;
            return Ok(answered?);
        }
        let question = async |url, console: &mut Console<'_>| {
            options.admin_url = url;
            client::dead_letters::run(&options, console).await
        };
        ask(config, asked, false, console, question).await
    })?;
    Ok(if is_replay && summary.left > 0 { Exit::Failed } else { Exit::Done })
}

pub(super) fn lanes(asked: lanes::Asked, config: &Config) -> Result<Exit, Failure> {
    let mut options = asked.options(&config.admin_listen.client_url());
    let address = (options.admin_url.clone(), asked.admin_url.is_some());
    with_console(async |console| {
        let question = async |url, console: &mut Console<'_>| {
            options.admin_url = url;
            match &asked.deed {
                Deed::Show => {
                    let halted = client::lanes::show(&options, console).await?;
                    Ok(if halted { Exit::Halted } else { Exit::Done })
                }
                Deed::Records => client::lanes::records(&options, console).await.map(|()| Exit::Done),
                Deed::Remedy(remedy) => {
                    let ended = client::lanes::remedy(&options, remedy, console, &mut || confirm("Do it?")).await?;
                    Ok(if ended == client::lanes::Ended::Declined { Exit::Failed } else { Exit::Done })
                }
            }
        };
        ask(config, address, true, console, question).await
    })
}
