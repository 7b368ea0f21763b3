//! Lanes and epochs: a few rows for each topic.
//!
//! `stored` has a stamp of its own, beside the checkpoint's columns in one row. An epoch is written once: whoever begins it
//! looks first, and its write timestamp falls with its age, so that of two that are begun at once the older one stays,
//! whole.

use scylla::{
    response::PagingState,
    value::{CqlTimestamp, CqlVarintBorrowed},
};

use crate::{
    item::{Epoch, Lane, PackId, Seq, Stamp, TopicId},
    retry::Kind,
    store::{Checkpoint, Counted, EpochRow, Error, LaneRow},
};

use super::{Scylla, fault, timestamp, totals};

/// Every lane of a topic.
pub async fn read(store: &Scylla, topic: &str) -> Result<Vec<LaneRow>, Error> {
    type Row<'r> = (
        &'r [u8],
        i32,
        Option<i64>,
        Option<i32>,
        Option<&'r [u8]>,
        Option<i64>,
        Option<i64>,
        Option<i64>,
        Option<i64>,
        Option<i64>,
        Option<i64>,
        Option<i64>,
        Option<i64>,
        Option<i64>,
        Option<CqlVarintBorrowed<'r>>,
    );
    let mut lanes = Vec::new();
    let mut next = Some(PagingState::start());
    while let Some(from) = next {
        let (page, later) = store.page(&store.statements.lanes, &(topic,), from).await?;
        next = later;
        for row in page.rows::<Row<'_>>().map_err(fault::damaged)? {
            let row = row.map_err(fault::damaged)?;
            let (topic_id, partition, seq, leader_epoch, pack, stamp, dedup_from, dedup_stamp, unmet_base, ..) = row;
            let (.., stored, stored_stamp, since, items, duplicates, amount) = row;
            let partition = u32::try_from(partition).map_err(fault::damaged)?;
            let lane = Lane { topic_id: TopicId(array(topic_id)?), partition };
            let checkpoint = match seq {
                None => None,
                Some(seq) => Some(Checkpoint {
                    lane,
                    counted: counted(Seq(seq.cast_unsigned()), since, items, duplicates, amount)?,
                    seq: Seq(seq.cast_unsigned()),
                    leader_epoch,
                    pack: PackId(array(there(pack, "pack")?)?),
                    stamp: Stamp(there(stamp, "stamp")?),
                    dedup_from: Seq(there(dedup_from, "dedup_from")?.cast_unsigned()),
                    dedup_stamp: Stamp(there(dedup_stamp, "dedup_stamp")?),
                    unmet_base: unmet_base.map(|base| Seq(base.cast_unsigned())),
                }),
            };
            let stored = stored.map(|seq| Seq(seq.cast_unsigned()));
            lanes.push(LaneRow { lane, checkpoint, stored, stored_stamp: stored_stamp.map(Stamp) });
        }
    }
    Ok(lanes)
}

/// What a checkpoint at `seq` has counted; one that was written before they did counts from the next record on.
fn counted(
    seq: Seq,
    since: Option<i64>,
    items: Option<i64>,
    duplicates: Option<i64>,
    amount: Option<CqlVarintBorrowed<'_>>,
) -> Result<Counted, Error> {
    let Some(since) = since else { return Ok(Counted::since(seq.next())) };
    let amount = there(amount, "counted_amount")?;
    Ok(Counted {
        since: Seq(since.cast_unsigned()),
        items: there(items, "counted_items")?.cast_unsigned(),
        duplicates: there(duplicates, "counted_duplicates")?.cast_unsigned(),
        amount: totals::number(amount.as_signed_bytes_be_slice())
            .ok_or_else(|| fault::damaged("counted_amount takes more than 128 bits"))?,
    })
}

/// Moves a lane's checkpoint. What it lacks is null: one row a lane, written over and over, leaves no tombstones behind.
pub async fn write_checkpoint(store: &Scylla, topic: &str, checkpoint: &Checkpoint) -> Result<(), Error> {
    let (lane, counted) = (checkpoint.lane, checkpoint.counted);
    let amount = counted.amount.to_be_bytes();
    let values = (
        topic,
        &lane.topic_id.0[..],
        small("partition", lane.partition)?,
        checkpoint.seq.0.cast_signed(),
        checkpoint.leader_epoch,
        &checkpoint.pack.0[..],
        checkpoint.stamp.0,
        checkpoint.dedup_from.0.cast_signed(),
        checkpoint.dedup_stamp.0,
        checkpoint.unmet_base.map(|base| base.0.cast_signed()),
        counted.since.0.cast_signed(),
        counted.items.cast_signed(),
        counted.duplicates.cast_signed(),
        CqlVarintBorrowed::from_signed_bytes_be_slice(&amount[totals::spare(&amount)..]),
        timestamp(checkpoint.stamp),
    );
    store.run(&store.statements.insert_checkpoint, values).await
}

/// Moves a lane's `stored`.
pub async fn write_stored(store: &Scylla, topic: &str, lane: Lane, stored: Seq, stamp: Stamp) -> Result<(), Error> {
    let partition = small("partition", lane.partition)?;
    let values = (topic, &lane.topic_id.0[..], partition, stored.0.cast_signed(), timestamp(stamp));
    store.run(&store.statements.insert_stored, values).await
}

/// The epochs of a topic, oldest first.
pub async fn epochs(store: &Scylla, topic: &str) -> Result<Vec<EpochRow>, Error> {
    type Row<'r> = (&'r [u8], &'r [u8], &'r str, i32, i32, i64, i64, CqlTimestamp);
    let mut epochs = Vec::new();
    let mut next = Some(PagingState::start());
    while let Some(from) = next {
        let (page, later) = store.page(&store.statements.epochs, &(topic,), from).await?;
        next = later;
        for row in page.rows::<Row<'_>>().map_err(fault::damaged)? {
            let (epoch, topic_id, cluster_id, partitions, shards, window_us, max_ids, created) =
                row.map_err(fault::damaged)?;
            epochs.push(EpochRow {
                epoch: Epoch(array(epoch)?),
                topic_id: TopicId(array(topic_id)?),
                cluster_id: cluster_id.to_owned(),
                partitions: u32::try_from(partitions).map_err(fault::damaged)?,
                shards: u32::try_from(shards).map_err(fault::damaged)?,
                dedup_window_us: window_us,
                dedup_max_ids: max_ids.cast_unsigned(),
                created_ms: created.0,
            });
        }
    }
    epochs.sort_by_key(|row| (row.created_ms, row.epoch));
    Ok(epochs)
}

/// Begins an epoch, unless it has begun.
pub async fn begin_epoch(store: &Scylla, topic: &str, epoch: &EpochRow) -> Result<(), Error> {
    let key = (topic, &epoch.epoch.0[..]);
    let (begun, _) = store.page(&store.statements.epoch, &key, PagingState::start()).await?;
    if begun.rows_num() > 0 {
        return Ok(());
    }
    let values = (
        topic,
        &epoch.epoch.0[..],
        &epoch.topic_id.0[..],
        &epoch.cluster_id,
        small("partitions", epoch.partitions)?,
        small("shards", epoch.shards)?,
        epoch.dedup_window_us,
        epoch.dedup_max_ids.cast_signed(),
        CqlTimestamp(epoch.created_ms),
        timestamp(Stamp(epoch.created_ms.saturating_neg())),
    );
    store.run(&store.statements.insert_epoch, values).await
}

pub(super) fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Error> {
    bytes.try_into().map_err(|_| fault::damaged(format_args!("an id has {} bytes instead of {N}", bytes.len())))
}

fn there<T>(value: Option<T>, column: &str) -> Result<T, Error> {
    value.ok_or_else(|| fault::damaged(format_args!("a checkpoint lacks its {column}")))
}

pub(super) fn small(what: &str, number: u32) -> Result<i32, Error> {
    i32::try_from(number).map_err(|_| Error::new(Kind::Permanent, format!("{what}: {number} does not fit CQL's int")))
}
