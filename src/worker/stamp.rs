//! Stamps: the write timestamp of a seq, computed from the log alone (law 3).
//!
//! `stamp(s) = max(stamp(previous) + 1, min(append_ms(s), receive_ms(s) + 1 h) · 1000)`: strictly increasing in a lane
//! even when a broker's clock goes backwards, and never far ahead of the ingest's clock even when a broker's clock is.

use crate::item::Stamp;

/// How far the log's clock may be ahead of the ingest's before it is no longer believed.
const AHEAD_MS: i64 = 3_600_000;

impl Stamp {
    /// The stamp of the pack that follows this one.
    pub fn after(self, append_ms: i64, receive_ms: i64) -> Self {
        let clock_ms = append_ms.min(receive_ms.saturating_add(AHEAD_MS));
        Self(self.0.saturating_add(1).max(clock_ms.saturating_mul(1000)))
    }

    /// The stamp of an unreadable record that follows this one.
    pub fn after_unreadable(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stamp_is_the_append_time_unless_the_clock_went_backwards_or_far_ahead() {
        assert_eq!(Stamp(0).after(1_000, 900), Stamp(1_000_000));
        assert_eq!(Stamp(1_000_000).after(900, 900), Stamp(1_000_001));
        assert_eq!(Stamp(0).after(100 * AHEAD_MS, 0), Stamp(AHEAD_MS * 1000));
        assert_eq!(Stamp(7).after_unreadable(), Stamp(8));
    }

    proptest! {
        #[test]
        fn stamps_strictly_increase_whatever_the_clocks_say(times in proptest::collection::vec((any::<i64>(), any::<i64>()), 1..50)) {
            let mut previous = Stamp(0);
            for (append_ms, receive_ms) in times {
                let next = previous.after(append_ms, receive_ms);
                prop_assert!(next > previous || previous.0 == i64::MAX);
                previous = next;
            }
        }
    }
}
