//! The one bound on what ingest holds in memory for clients: bodies being read, and items in packs (law 9).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use metrics::Gauge;

use crate::metrics::{INGEST_BUFFER_LIMIT_BYTES, INGEST_BUFFERED_BYTES};

/// Counts bytes up to `ingest.buffer`.
pub(super) struct Budget {
    used: AtomicUsize,
    limit: usize,
    gauge: Gauge,
}

/// Bytes that are taken from the budget until this is dropped.
pub(super) struct Reserved {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        INGEST_BUFFER_LIMIT_BYTES.gauge(&[]).set(limit as f64);
        Arc::new(Self { used: AtomicUsize::new(0), limit, gauge: INGEST_BUFFERED_BYTES.gauge(&[]) })
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// A reservation of nothing, that can grow.
    pub(super) fn open(self: &Arc<Self>) -> Reserved {
        Reserved { budget: self.clone(), bytes: 0 }
    }
}

impl Reserved {
    /// Takes more bytes; `false`, and nothing taken, when the budget does not have them.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let budget = &self.budget;
        let fits = |used: usize| used.checked_add(bytes).filter(|used| *used <= budget.limit);
        let Ok(before) = budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) else { return false };
        budget.gauge.set((before + bytes) as f64);
        self.bytes += bytes;
        true
    }

    /// Moves bytes to another reservation of the same budget.
    pub(super) fn give(&mut self, bytes: usize, to: &mut Self) {
        debug_assert!(bytes <= self.bytes, "only what was reserved can be given");
        self.bytes -= bytes;
        to.bytes += bytes;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.bytes > 0 {
            let before = self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
            self.budget.gauge.set((before - self.bytes) as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_comes_back_once_wherever_it_went() {
        let budget = Budget::new(100);
        let (mut request, mut pack) = (budget.open(), budget.open());
        assert!(request.grow(60));
        assert!(!budget.open().grow(41));
        request.give(50, &mut pack);
        drop(request);
        assert_eq!(budget.used(), 50);
        assert!(!pack.grow(usize::MAX));
        drop(pack);
        assert_eq!(budget.used(), 0);
    }
}
