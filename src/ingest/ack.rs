//! The answer of the log to one pack, shared by every request that has items in it.

use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use crate::item::Seq;

/// What became of a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is durable. Where: a seq that its own does not exceed; unknown when the log would not say.
    Durable(Option<Seq>),
    /// It is certainly not in the log.
    Refused(String),
    /// It may be in the log.
    Unknown(String),
}

/// A pack's outcome, once there is one.
#[derive(Default)]
pub(super) struct Ack {
    outcome: OnceLock<Outcome>,
    told: Notify,
}

impl Ack {
    /// Waits for the outcome. Cancelling it loses nothing.
    pub(super) async fn wait(&self) -> &Outcome {
        loop {
            let told = self.told.notified();
            tokio::pin!(told);
            // Enabled before the look, so that an answer between the look and the wait is not missed.
            told.as_mut().enable();
            if let Some(outcome) = self.outcome.get() {
                return outcome;
            }
            told.await;
        }
    }

    fn answer(&self, outcome: Outcome) {
        if self.outcome.set(outcome).is_ok() {
            self.told.notify_waiters();
        }
    }
}

/// The duty to answer: whoever holds a pack holds this. Dropped without an answer, e.g. by a panic or an aborted task, it
/// tells the waiters that the pack's fate is unknown.
#[derive(Default)]
pub(super) struct Owed(Arc<Ack>);

impl Owed {
    pub(super) fn ack(&self) -> &Arc<Ack> {
        &self.0
    }

    pub(super) fn answer(self, outcome: Outcome) {
        self.0.answer(outcome);
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.0.answer(Outcome::Unknown("ingest stopped before the log answered".to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_answer_reaches_all_who_wait_and_all_who_come_later() {
        let owed = Owed::default();
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let ack = owed.ack().clone();
                tokio::spawn(async move { ack.wait().await.clone() })
            })
            .collect();
        tokio::task::yield_now().await;
        let late = owed.ack().clone();
        owed.answer(Outcome::Durable(Some(Seq(7))));
        for waiter in waiting {
            assert_eq!(waiter.await.unwrap(), Outcome::Durable(Some(Seq(7))));
        }
        assert_eq!(late.wait().await, &Outcome::Durable(Some(Seq(7))));
    }

    #[tokio::test]
    async fn a_pack_that_is_dropped_answers_that_its_fate_is_unknown() {
        let owed = Owed::default();
        let ack = owed.ack().clone();
        drop(owed);
        assert!(matches!(ack.wait().await, Outcome::Unknown(_)));
    }
}
