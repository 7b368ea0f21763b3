//! A topic that was made anew, once its epoch has begun: what this process has open is the old one, and is to be opened again.

use std::time::Duration;

use crate::{log::Log, store::Store};

/// How often the store is asked while the log is lost.
const LOOK: Duration = Duration::from_secs(2);

/// Returns when the log that is open is not the topic any more, and an operator has begun the epoch of the one that is.
pub(super) async fn of(log: &dyn Log, store: &dyn Store) {
    loop {
        tokio::time::sleep(LOOK).await;
        if log.lost().is_none() {
            continue;
        }
        // What does not answer now is asked again.
        let Ok(epochs) = store.epochs(&log.topology().topic).await else { continue };
        if epochs.last().is_some_and(|newest| newest.topic_id != log.topology().topic_id) {
            return;
        }
    }
}
