//! Repairing: packs of corrections, appended to the log like everything else (law 10).
//!
//! A correction says what the log gives a row as of everything that was counted. It is void once a later pack counts in the
//! row, so a row that is counted into all the time may take more than one repair; it cannot be applied twice.

use bytes::Bytes;

use super::{Error, epoch_of, key_of, report::Repair};
use crate::{
    clock,
    item::Seq,
    log::Log,
    pack::{Correction, Pack, WRITTEN},
    store::{EpochRow, RowName, ShardKey},
};

/// Rows of one pack.
const ROWS: usize = 500;

/// Appends corrections of these rows, which the lane's log below `as_of` gives these totals.
pub(super) async fn append(
    log: &dyn Log,
    partition: u32,
    epochs: &[EpochRow],
    as_of: Seq,
    rows: &[((ShardKey, RowName), i128)],
) -> Result<Vec<Repair>, Error> {
    let mut repairs = Vec::new();
    for epoch in epochs {
        let of_epoch: Vec<_> = rows
            .iter()
            .filter(|((key, _), _)| epoch_of(epochs, key.epoch).is_some_and(|found| found.epoch == epoch.epoch))
            .collect();
        for rows in of_epoch.chunks(ROWS) {
            let corrections = rows.iter().map(|((key, name), total)| {
                Correction::of_total(key_of(key, name).into(), key.shard.0 < 0, as_of, *total)
            });
            let pack = Pack {
                version: WRITTEN,
                id: Bytes::copy_from_slice(&rand::random::<[u8; 16]>()),
                ingest: Bytes::copy_from_slice(&rand::random::<[u8; 16]>()),
                receive_ms: clock::now_ms(),
                partitions: epoch.partitions,
                shards: epoch.shards,
                urgent: true,
                corrections: corrections.collect(),
                ..Pack::default()
            };
            let appended = log.append(partition, WRITTEN, pack.encode_record()).await?;
            repairs.push(Repair { partition, seq: appended.seq.map(|seq| seq.0), rows: rows.len() as u64 });
        }
    }
    Ok(repairs)
}
