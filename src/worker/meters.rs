//! The metrics of one lane, their handles taken once.

use crate::{
    metrics::{self, Counter, Gauge},
    worker::machine::{Applied, Machine},
};

pub(super) struct LaneMeters {
    packs: Counter,
    items: Counter,
    duplicates: Counter,
    rows: Gauge,
    dirty: Gauge,
    ids: Gauge,
    window: Gauge,
    pub(super) halted: Gauge,
}

impl LaneMeters {
    pub(super) fn new(partition: u32) -> Self {
        let partition = partition.to_string();
        let labels = [partition.as_str()];
        Self {
            packs: metrics::LANE_PACKS.counter(&labels),
            items: metrics::LANE_ITEMS.counter(&labels),
            duplicates: metrics::LANE_DUPLICATES.counter(&labels),
            rows: metrics::LANE_ROWS.gauge(&labels),
            dirty: metrics::LANE_DIRTY_ROWS.gauge(&labels),
            ids: metrics::DEDUP_IDS.gauge(&labels),
            window: metrics::DEDUP_WINDOW_SECONDS.gauge(&labels),
            halted: metrics::LANE_HALTED.gauge(&labels),
        }
    }

    pub(super) fn applied(&self, applied: &Applied) {
        self.packs.increment(1);
        self.items.increment(applied.items as u64);
        self.duplicates.increment(applied.duplicates as u64);
    }

    pub(super) fn state(&self, machine: &Machine) {
        let window = machine.window();
        self.rows.set(machine.fold().len() as f64);
        self.dirty.set(machine.fold().dirty() as f64);
        self.ids.set(window.len() as f64);
        let effective_us = match window.bound_at() {
            Some(oldest) => machine.stamp().0 - oldest.0,
            None => window.configured_us(),
        };
        self.window.set(effective_us as f64 / 1e6);
    }
}
