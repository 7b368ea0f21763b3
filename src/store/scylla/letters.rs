//! Dead letters and their replays. That a record is a dead letter is a row with nothing in it; which pack has replayed it
//! is in cells of their own, so that neither undoes the other whatever their stamps (S7).

use async_trait::async_trait;
use scylla::response::PagingState;

use crate::{
    item::{Coordinates, Lane, Seq, Stamp, TopicId},
    store::{Error, LetterRow, Letters, Replayed},
};

use super::{
    Scylla, fault,
    lanes::{array, small},
    limit, timestamp,
};

/// A seq as CQL's bigint, which ends sooner.
fn big(seq: Seq) -> i64 {
    i64::try_from(seq.0).unwrap_or(i64::MAX)
}

#[async_trait]
impl Letters for Scylla {
    async fn write_letter(&self, topic: &str, at: Coordinates, stamp: Stamp) -> Result<(), Error> {
        let Coordinates { lane, seq } = at;
        let values = (topic, &lane.topic_id.0[..], small("partition", lane.partition)?, big(seq), timestamp(stamp));
        self.run(&self.statements.insert_letter, values).await
    }

    async fn write_replayed(&self, topic: &str, at: Coordinates, by: Replayed) -> Result<(), Error> {
        let Coordinates { lane, seq } = at;
        let values = (
            topic,
            &lane.topic_id.0[..],
            small("partition", lane.partition)?,
            big(seq),
            &by.topic_id.0[..],
            big(by.seq),
            timestamp(by.stamp),
        );
        self.run(&self.statements.insert_replayed, values).await
    }

    async fn letters(&self, topic: &str, lane: Lane, from: Seq, to: Seq, most: usize) -> Result<Vec<LetterRow>, Error> {
        type Row<'r> = (i64, Option<&'r [u8]>, Option<i64>, Option<i64>);
        let partition = small("partition", lane.partition)?;
        let values = (topic, &lane.topic_id.0[..], partition, big(from), big(to), limit(most));
        let mut rows = Vec::new();
        let mut next = Some(PagingState::start());
        while let Some(from) = next {
            let (page, later) = self.page(&self.statements.letters, &values, from).await?;
            next = later;
            for row in page.rows::<Row<'_>>().map_err(fault::damaged)? {
                let (seq, by_topic_id, by_seq, stamp) = row.map_err(fault::damaged)?;
                let replayed = match (by_topic_id, by_seq, stamp) {
                    (Some(topic_id), Some(seq), Some(stamp)) => Some(Replayed {
                        topic_id: TopicId(array(topic_id)?),
                        seq: Seq(seq.cast_unsigned()),
                        stamp: Stamp(stamp),
                    }),
                    _ => None,
                };
                rows.push(LetterRow { seq: Seq(seq.cast_unsigned()), replayed });
            }
        }
        Ok(rows)
    }
}
