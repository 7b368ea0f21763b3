//! What an answer may miss: the log's ends beside what is stored.
//!
//! The ends are read first, then what is stored, then the rows: so when everything below the ends was stored, the rows
//! hold everything that was acknowledged before the ends were read.

use std::sync::Arc;

use futures_util::future::try_join_all;
use jiff::Timestamp;
use serde::Serialize;

use super::Inner;
use crate::{
    clock,
    item::{Lane, Seq},
    progress::Stored,
    store,
};

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Source {
    Hot,
    Store,
}

/// How the log and the store stood just before rows were read.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    /// When.
    pub(super) at_ms: i64,
    /// One past the last seq of each lane; `None` when the log did not say.
    pub(super) ends: Option<Vec<(Lane, Seq)>>,
    /// What each lane has stored.
    pub(super) stored: Arc<Stored>,
}

impl Standing {
    /// The lanes that have something in the log and not in the store, with their ends; `None` when that is not known.
    pub(super) fn behind(&self) -> Option<Vec<(Lane, Seq)>> {
        let behind =
            |(lane, end): &&(Lane, Seq)| end.0 > 0 && self.stored.get(lane).is_none_or(|stored| stored.next() < *end);
        Some(self.ends.as_ref()?.iter().filter(behind).copied().collect())
    }

    /// Whether rows read afterwards may miss something acknowledged.
    pub(super) fn stale(&self) -> bool {
        self.behind().is_none_or(|behind| !behind.is_empty())
    }
}

/// What an answer says of its own age.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Freshness {
    pub(super) source: Source,
    pub(super) as_of: String,
    pub(super) lag_ms: Option<i64>,
    pub(super) stale: bool,
}

impl Inner {
    /// Reads how log and store stand.
    pub(super) async fn standing(&self) -> Result<Standing, store::Error> {
        let at_ms = clock::now_ms();
        let topology = self.log.topology();
        // Others may write to partitions already that were added since.
        let ends = try_join_all((0..self.log.partitions()).map(async |partition| {
            let bounds = self.log.bounds(partition).await?;
            Ok::<_, crate::log::Error>((Lane { topic_id: topology.topic_id, partition }, bounds.end))
        }));
        let ends = ends.await.inspect_err(|error| tracing::debug!(%error, "the log does not say where it ends")).ok();
        Ok(Standing { at_ms, ends, stored: self.progress.ask().await? })
    }

    /// The age of a value that includes everything up to `at_ms`, or, when stale, misses what the lag says.
    pub(super) fn freshness(&self, source: Source, at_ms: i64, stale: bool) -> Freshness {
        let lag_ms = (self.lag_ms)();
        let behind_ms = if stale { lag_ms.unwrap_or(0) } else { 0 };
        Freshness { source, as_of: rfc3339(at_ms.saturating_sub(behind_ms)), lag_ms, stale }
    }
}

const YEAR_0_MS: i64 = -62_167_219_200_000;

/// RFC 3339 in UTC with milliseconds; the milliseconds themselves outside of the years that it can say.
pub(crate) fn rfc3339(time_ms: i64) -> String {
    match Timestamp::from_millisecond(time_ms) {
        Ok(time) if time_ms >= YEAR_0_MS => format!("{time:.3}"),
        _ => time_ms.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::TopicId;

    #[test]
    fn times_print_as_rfc_3339_with_milliseconds() {
        assert_eq!(rfc3339(1_769_860_800_000), "2026-01-31T12:00:00.000Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(rfc3339(i64::MAX), i64::MAX.to_string());
        assert_eq!(rfc3339(i64::MIN), i64::MIN.to_string());
    }

    #[test]
    fn a_lane_is_behind_until_its_last_seq_is_stored() {
        let lane = |partition| Lane { topic_id: TopicId([1; 16]), partition };
        let standing = |ends: Option<Vec<(Lane, Seq)>>, stored: &[(Lane, Seq)]| Standing {
            at_ms: 0,
            ends,
            stored: Arc::new(stored.iter().copied().collect()),
        };
        assert!(!standing(Some(vec![(lane(0), Seq(0))]), &[]).stale());
        assert!(standing(Some(vec![(lane(0), Seq(1))]), &[]).stale());
        assert!(standing(Some(vec![(lane(0), Seq(3))]), &[(lane(0), Seq(1))]).stale());
        assert!(!standing(Some(vec![(lane(0), Seq(3))]), &[(lane(0), Seq(2))]).stale());
        assert!(standing(None, &[]).stale());
        let behind = standing(Some(vec![(lane(0), Seq(1)), (lane(1), Seq(4))]), &[(lane(0), Seq(0))]).behind();
        assert_eq!(behind, Some(vec![(lane(1), Seq(4))]));
    }
}
