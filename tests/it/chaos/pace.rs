//! How much is sent, and how long a fault lasts: what `tests/chaos` was asked for.

use std::time::Duration;

/// Senders of the load.
pub const SENDERS: usize = 6;
/// Series that they count in: enough for every lane to have some.
pub const KEYS: u32 = 40;
/// Increments of a request.
pub const BATCH: u32 = 20;
/// Events of a request.
pub const EVENTS: u32 = 5;

/// How long what lasts.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The long form: every link with every fault of it, every policy.
    pub long: bool,
    /// Of what is killed and comes back.
    pub outage: Duration,
    /// `worker.session_timeout`.
    pub session: Duration,
    /// Of rebalances, of kills every five seconds.
    pub spell: Duration,
    /// Of one fault of one link.
    pub link: Duration,
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Pace {
    /// At most eight minutes in all.
    pub const SHORT: Self =
        Self { long: false, outage: seconds(12), session: seconds(6), spell: seconds(12), link: seconds(6) };
    /// Each fault for long enough to matter.
    pub const LONG: Self =
        Self { long: true, outage: seconds(60), session: seconds(10), spell: seconds(60), link: seconds(30) };
}
