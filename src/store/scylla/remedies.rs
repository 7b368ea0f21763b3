//! Halts and remedies: a few rows for each topic, written as they come.

use async_trait::async_trait;
use scylla::{response::PagingState, value::CqlTimestamp};

use crate::{
    item::{Lane, Seq, TopicId},
    store::{Columns, Error, HaltRow, Remedies, Remedy, RemedyRow},
};

use super::{
    Scylla, fault,
    lanes::{array, small},
};

fn number(seq: Option<u64>) -> Option<i64> {
    seq.map(u64::cast_signed)
}

fn count(column: &'static str, count: Option<u32>) -> Result<Option<i32>, Error> {
    count.map(|count| small(column, count)).transpose()
}

fn read_count(count: Option<i32>) -> Result<Option<u32>, Error> {
    count.map(|count| u32::try_from(count).map_err(fault::damaged)).transpose()
}

#[async_trait]
impl Remedies for Scylla {
    async fn halts(&self, topic: &str) -> Result<Vec<HaltRow>, Error> {
        type Row<'r> = (
            &'r [u8],
            i32,
            Option<String>,
            Option<String>,
            Option<String>,
            Option<i64>,
            Option<i64>,
            Option<i32>,
            Option<i32>,
            Option<String>,
            Option<CqlTimestamp>,
        );
        let mut halts = Vec::new();
        let mut next = Some(PagingState::start());
        while let Some(from) = next {
            let (page, later) = self.page(&self.statements.halts, &(topic,), from).await?;
            next = later;
            for row in page.rows::<Row<'_>>().map_err(fault::damaged)? {
                let (topic_id, partition, kind, reason, command, from, to, partitions, shards, worker, since) =
                    row.map_err(fault::damaged)?;
                let partition = u32::try_from(partition).map_err(fault::damaged)?;
                halts.push(HaltRow {
                    lane: Lane { topic_id: TopicId(array(topic_id)?), partition },
                    kind: kind.unwrap_or_default(),
                    reason: reason.unwrap_or_default(),
                    command,
                    from: from.map(|seq| Seq(seq.cast_unsigned())),
                    to: to.map(|seq| Seq(seq.cast_unsigned())),
                    partitions: read_count(partitions)?,
                    shards: read_count(shards)?,
                    worker: worker.unwrap_or_default(),
                    since_ms: since.map_or(0, |since| since.0),
                });
            }
        }
        Ok(halts)
    }

    async fn write_halt(&self, topic: &str, halt: &HaltRow) -> Result<(), Error> {
        let values = (
            topic,
            &halt.lane.topic_id.0[..],
            small("partition", halt.lane.partition)?,
            &halt.kind,
            &halt.reason,
            halt.command.as_deref(),
            number(halt.from.map(|seq| seq.0)),
            number(halt.to.map(|seq| seq.0)),
            count("partitions", halt.partitions)?,
            count("shards", halt.shards)?,
            &halt.worker,
            CqlTimestamp(halt.since_ms),
        );
        self.run(&self.statements.insert_halt, values).await
    }

    async fn clear_halt(&self, topic: &str, lane: Lane) -> Result<(), Error> {
        let values = (topic, &lane.topic_id.0[..], small("partition", lane.partition)?);
        self.run(&self.statements.delete_halt, values).await
    }

    async fn remedies(&self, topic: &str) -> Result<Vec<RemedyRow>, Error> {
        type Row<'r> = (
            CqlTimestamp,
            &'r [u8],
            Option<&'r [u8]>,
            Option<String>,
            Option<i32>,
            Option<i64>,
            Option<i64>,
            Option<i64>,
            Option<i32>,
            Option<i32>,
            Option<String>,
            Option<String>,
            Option<String>,
        );
        let mut remedies = Vec::new();
        let mut next = Some(PagingState::start());
        while let Some(from) = next {
            let (page, later) = self.page(&self.statements.remedies, &(topic,), from).await?;
            next = later;
            for row in page.rows::<Row<'_>>().map_err(fault::damaged)? {
                let (at, id, topic_id, kind, partition, from, to, floor, partitions, shards, who, why, says) =
                    row.map_err(fault::damaged)?;
                let columns = Columns {
                    kind: kind.unwrap_or_default(),
                    partition: read_count(partition)?,
                    from: from.map(i64::cast_unsigned),
                    to: to.map(i64::cast_unsigned),
                    floor,
                    partitions: read_count(partitions)?,
                    shards: read_count(shards)?,
                };
                // One that this version does not know might be a loss that lanes must know of: nothing is guessed.
                let what = Remedy::from_columns(&columns).ok_or_else(|| {
                    fault::damaged(format_args!(
                        "a remedy of the kind `{}` is not one that this version knows",
                        columns.kind
                    ))
                })?;
                let topic_id = topic_id.ok_or_else(|| fault::damaged("a remedy lacks its topic_id"))?;
                remedies.push(RemedyRow {
                    at_ms: at.0,
                    id: array(id)?,
                    topic_id: TopicId(array(topic_id)?),
                    what,
                    who: who.unwrap_or_default(),
                    why: why.unwrap_or_default(),
                    says: says.unwrap_or_default(),
                });
            }
        }
        Ok(remedies)
    }

    async fn record_remedy(&self, topic: &str, remedy: &RemedyRow) -> Result<(), Error> {
        let columns = remedy.what.columns();
        let values = (
            topic,
            CqlTimestamp(remedy.at_ms),
            &remedy.id[..],
            &remedy.topic_id.0[..],
            &columns.kind,
            count("partition", columns.partition)?,
            number(columns.from),
            number(columns.to),
            columns.floor,
            count("partitions", columns.partitions)?,
            count("shards", columns.shards)?,
            &remedy.who,
            &remedy.why,
            &remedy.says,
        );
        self.run(&self.statements.insert_remedy, values).await
    }
}
