//! When requests are due.

use std::time::{Duration, Instant};

/// What came of asking for the next request.
pub enum Due {
    /// It was due then.
    Since(Instant),
    /// Nothing is due before then.
    At(Instant),
    /// Nothing is due any more.
    Never,
}

/// Due times: evenly spread at a rate, or always now.
pub struct Pace {
    begin: Instant,
    end: Instant,
    /// Requests a second.
    rate: Option<f64>,
    /// Most requests.
    most: Option<u64>,
    taken: u64,
}

impl Pace {
    /// From `begin` to `end`, `most` requests at most; `rate` in requests a second.
    pub fn new(begin: Instant, end: Instant, rate: Option<f64>, most: Option<u64>) -> Self {
        Self { begin, end, rate, most, taken: 0 }
    }

    /// Whether as many were taken as there may be.
    pub fn is_spent(&self) -> bool {
        self.most.is_some_and(|most| self.taken >= most)
    }

    /// The next request's due time; it is taken when it has come.
    pub fn next(&mut self, now: Instant) -> Due {
        let due = match self.rate {
            None => now,
            Some(rate) => self.begin + Duration::from_secs_f64(self.taken as f64 / rate),
        };
        if due >= self.end || self.is_spent() {
            Due::Never
        } else if due > now {
            Due::At(due)
        } else {
            self.taken += 1;
            Due::Since(due)
        }
    }
}
