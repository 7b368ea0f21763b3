//! Every series of a counter, from the store: one slice per shard, page by page, a few shards at once.
//!
//! A scan holds a page per shard that is being read and nothing else; how many series it may see is bounded by
//! `query.max_series`, how many run at once by `query.scans`.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{Error, Inner, freshness::Standing, merge::READS_AT_ONCE, params::unprocessable};
use crate::{
    item::Namespace,
    store::{self, ShardKey, Slice, TotalRow},
};

/// Rows of one read.
const PAGE: usize = 1000;

/// What a scan saw besides its rows.
pub(super) struct Scanned {
    /// Whether there was a row at all.
    pub(super) any: bool,
    /// How log and store stood before it.
    pub(super) standing: Standing,
}

impl Inner {
    /// Gives every row of the counter's series to `each`: in no order, and a series once for each epoch.
    pub(super) async fn scan(
        &self,
        namespace: &Namespace,
        counter: &str,
        mut each: impl FnMut(&TotalRow),
    ) -> Result<Scanned, Error> {
        let _turn = self.scans.acquire().await.expect("the semaphore is never closed");
        let standing = self.standing().await?;
        let shards = self.layout().await?.shards(namespace);
        let counter: Arc<str> = counter.into();
        let mut pages = stream::iter(shards)
            .map(|shard| Box::pin(self.pages(shard, counter.clone())))
            .flatten_unordered(READS_AT_ONCE);
        let mut series = 0;
        while let Some(rows) = pages.try_next().await? {
            series += rows.len();
            if series > self.max_series {
                let detail = format!(
                    "`{counter}` has more than {} series, the bound of one query (query.max_series)",
                    self.max_series
                );
                return Err(unprocessable("too_many_series", detail).into());
            }
            rows.iter().for_each(&mut each);
            // A store that answers at once must not keep the others of this thread waiting.
            tokio::task::consume_budget().await;
        }
        self.store_answered();
        Ok(Scanned { any: series > 0, standing })
    }

    fn pages(
        &self,
        shard: ShardKey,
        counter: Arc<str>,
    ) -> impl futures_util::Stream<Item = Result<Vec<TotalRow>, store::Error>> + Send {
        let store = self.store.clone();
        let first = Slice { counter: Some(counter), after: None, limit: PAGE };
        stream::try_unfold(Some(first), move |slice| {
            let (store, shard) = (store.clone(), shard.clone());
            async move {
                let Some(mut slice) = slice else { return Ok(None) };
                let rows = store.totals(&shard, &slice).await?;
                slice.after = rows.last().map(|row| row.name.clone());
                let next = (rows.len() == slice.limit).then_some(slice);
                Ok((!rows.is_empty()).then_some((rows, next)))
            }
        })
    }
}
