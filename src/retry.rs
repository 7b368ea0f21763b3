//! Error classes and the backoff policy: the only room that names the `backoff` crate.
//!
//! A backend says what kind its error is; what to do about it is decided here and, for writes, in `worker/flush.rs`.
//! Delays grow exponentially to a cap with full jitter (each is uniform between nothing and twice the current step's
//! middle), so that many clients of one recovering server do not come back in step.

use std::{cell::RefCell, time::Duration};

use backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff as _};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde::{Deserialize, Serialize};

use crate::units::Span;

/// What a failure means for whoever met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It may pass: try again.
    Transient,
    /// This request will never succeed; others may.
    Permanent,
    /// Nothing of this kind will succeed until somebody acts.
    Fatal,
}

impl Kind {
    /// The kind as a metric's label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Fatal => "fatal",
        }
    }
}

/// An error that knows its kind.
pub trait Classified: std::fmt::Display {
    /// What it means for whoever met it.
    fn kind(&self) -> Kind;
}

/// Settings under `retry.`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The first delay's upper bound.
    pub initial: Span,
    /// No delay is longer.
    pub max: Span,
}

impl Default for Options {
    fn default() -> Self {
        Self { initial: Span::from_millis(50), max: Span::from_secs(5) }
    }
}

thread_local! {
    static JITTER: RefCell<StdRng> = RefCell::new(StdRng::from_rng(&mut rand::rng()));
}

/// Makes this thread's delays follow from a seed, so that a schedule can be repeated. For tests and the model.
pub fn seed_jitter(seed: u64) {
    JITTER.set(StdRng::seed_from_u64(seed));
}

/// The delays between the tries of one operation.
pub struct Backoff {
    inner: ExponentialBackoff,
    max: Duration,
}

impl Backoff {
    /// Delays that never run out: whoever retries decides when to stop.
    pub fn new(options: &Options) -> Self {
        // Steps without jitter: it is put around them below, by a generator that can be seeded.
        let half = |span: Span| (span.0 / 2).max(Duration::from_millis(1));
        let inner = ExponentialBackoffBuilder::new()
            .with_initial_interval(half(options.initial))
            .with_max_interval(half(options.max))
            .with_multiplier(2.0)
            .with_randomization_factor(0.0)
            .with_max_elapsed_time(None)
            .build();
        Self { inner, max: options.max.0 }
    }

    /// How long to wait before the next try.
    pub fn next_delay(&mut self) -> Duration {
        let step = self.inner.next_backoff().unwrap_or(self.max);
        // Uniform in [0, 2 × step): full jitter around the step.
        let jitter = JITTER.with_borrow_mut(|jitter| jitter.random_range(0.0..2.0));
        step.mul_f64(jitter).min(self.max)
    }

    /// Begins again with the first delay, after a success.
    pub fn reset(&mut self) {
        self.inner.reset();
    }
}

/// Tries `operation` until it succeeds or fails for good; each failure that will be retried is told to `failed`.
///
/// # Errors
/// The first error that is not transient.
pub async fn until_settled<T, E: Classified, F: Future<Output = Result<T, E>>>(
    options: &Options,
    mut operation: impl FnMut() -> F,
    mut failed: impl FnMut(&E),
) -> Result<T, E> {
    let mut backoff = Backoff::new(options);
    loop {
        match operation().await {
            Err(error) if error.kind() == Kind::Transient => failed(&error),
            settled => return settled,
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_are_jittered_and_never_run_out() {
        let options = Options { initial: Span::from_millis(100), max: Span::from_secs(1) };
        let tries = 200;
        let mut sums = [Duration::ZERO; 8];
        for _ in 0..tries {
            let mut backoff = Backoff::new(&options);
            for sum in &mut sums {
                let delay = backoff.next_delay();
                assert!(delay <= options.max.0);
                *sum += delay;
            }
        }
        let mean = |index: usize| sums[index].as_secs_f64() / f64::from(tries);
        assert!((0.03..0.08).contains(&mean(0)), "first: {}", mean(0));
        assert!((0.35..0.65).contains(&mean(7)), "last: {}", mean(7));
    }
}
