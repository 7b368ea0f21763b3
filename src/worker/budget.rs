//! What publishing may cost: so many entries of the hot view a second, over all lanes of the process
//! (`hot.publish_budget`), for Redis does everything on one core. Whoever asks late in a second gets what is left of it.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// Entries that may still be published.
pub(super) struct Budget {
    a_second: f64,
    left: Mutex<(f64, Instant)>,
}

impl Budget {
    /// So many a second; at first a second's worth.
    pub(super) fn new(a_second: usize) -> Self {
        let a_second = a_second as f64;
        Self { a_second, left: Mutex::new((a_second, Instant::now())) }
    }

    /// How many of the wanted ones may be published now. What a second has not used is not kept for later ones.
    pub(super) fn take(&self, wanted: usize) -> usize {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let grown = left.0 + self.a_second * (now - left.1).as_secs_f64();
        let there = grown.min(self.a_second);
        let granted = wanted.min(there as usize);
        *left = (there - granted as f64, now);
        granted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_grants_its_share_and_no_more_however_often_it_is_asked() {
        let budget = Budget::new(100);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!([70, 70, 70].map(|wanted| budget.take(wanted)), [70, 30, 0]);
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(budget.take(1_000), 25);
        let mut granted = 0;
        for _ in 0..3_000 {
            tokio::time::advance(Duration::from_millis(1)).await;
            granted += budget.take(7);
        }
        assert!((298..=300).contains(&granted), "{granted} in three seconds");
    }
}
