//! `tallymark run`: logs, runtime, signals, the program, and its end.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{
    app,
    config::Config,
    exit::{Exit, Failure},
    shutdown::{Ended, ProcessSignals, supervise},
    telemetry,
};

/// How long tasks that nobody waits for any more may hold up the end.
const LEFTOVERS: Duration = Duration::from_secs(1);

/// Runs the configuration's role until a signal, then drains. A second signal, or the deadline, ends it: exit code 1.
pub fn run(config: Config) -> Result<Exit, Failure> {
    config.check_runnable()?;
    telemetry::install_logs(config.log_format, &config.log_level);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("tallymark")
        .build()
        .map_err(|error| Failure::failed(format!("the runtime cannot be started: {error}")))?;
    let ended = runtime.block_on(async {
        let mut signals = ProcessSignals::install()
            .map_err(|error| Failure::failed(format!("signals cannot be received: {error}")))?;
        let shutdown = config.shutdown.clone();
        let stop = CancellationToken::new();
        let role = config.role;
        let program = app::run(config, role, stop.clone());
        Ok::<_, Failure>((supervise(program, stop, &mut signals, &shutdown).await, shutdown))
    });
    match ended? {
        (Ended::Finished(outcome), _) => {
            runtime.shutdown_timeout(LEFTOVERS);
            outcome.map(|()| Exit::Done)
        }
        (Ended::Forced, _) => {
            runtime.shutdown_background();
            Err(Failure::failed(
                "ended by a second signal before the drain was over; what was acknowledged is in the log and is applied after the next start",
            ))
        }
        (Ended::Overdue, shutdown) => {
            runtime.shutdown_background();
            Err(Failure::failed(format!(
                "shutdown.deadline ({}) passed before the drain was over; what was acknowledged is in the log and is applied after the next start",
                shutdown.deadline
            )))
        }
    }
}
