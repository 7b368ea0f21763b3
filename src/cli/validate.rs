//! `tallymark validate`: every verdict on stdout, the first thing to mend on stderr, the exit code of them all.

use crate::{
    app,
    config::{
        Config, Error, Layers, Role, keys,
        verdict::{Standing, Verdict, exit_of},
    },
    exit::{Exit, Failure},
};

/// Looks at the configuration and, when it can run, at everything that it names.
pub fn validate(layers: Layers, role: Role, no_connect: bool) -> Result<Exit, Failure> {
    let mut verdicts = Vec::new();
    let config = Config::load(layers, role).and_then(|config| config.check_runnable().map(|()| config));
    match &config {
        Ok(_) => {
            let message = format!("all {} settings are valid for the role {role}", keys().len());
            verdicts.push(Verdict::new("configuration", Standing::Good, message));
        }
        Err(Error { problems }) => verdicts.extend(
            problems.iter().map(|problem| Verdict::new("configuration", Standing::Configuration, &problem.message)),
        ),
    }
    if let Ok(config) = &config
        && !no_connect
    {
        verdicts.extend(super::block_on(app::validate(config))?);
    }
    super::print(&verdicts.iter().map(|verdict| format!("{verdict}\n")).collect::<String>())?;
    let exit = exit_of(&verdicts);
    match verdicts.iter().find(|verdict| verdict.standing.exit() == exit) {
        Some(first) if exit != Exit::Done => {
            Err(Failure { exit, message: format!("{}: {}", first.subject, first.message) })
        }
        _ => Ok(exit),
    }
}
