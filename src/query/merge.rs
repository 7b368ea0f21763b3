//! Rows of many shards in one order: a merge of paged slices that holds one small page a shard.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc, vec};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::store::{self, RowName, ShardKey, Slice, Store, TotalRow};

/// Shards that are read at once.
pub(super) const READS_AT_ONCE: usize = 16;

struct Source {
    key: ShardKey,
    rows: vec::IntoIter<TotalRow>,
    last: Option<RowName>,
    ended: bool,
}

/// Rows of several shards, ascending by name; rows of one name are summed.
pub(super) struct Merge {
    store: Arc<dyn Store>,
    counter: Option<Arc<str>>,
    page: usize,
    sources: Vec<Source>,
    next: BinaryHeap<Reverse<(RowName, usize, i128)>>,
}

impl Merge {
    /// Begins after `after`. `page` rows are read from a shard at a time.
    pub(super) async fn open(
        store: Arc<dyn Store>,
        shards: Vec<ShardKey>,
        counter: Option<Arc<str>>,
        after: Option<RowName>,
        page: usize,
    ) -> Result<Self, store::Error> {
        let filled = shards.into_iter().map(|key| {
            let mut source = Source { key, rows: Vec::new().into_iter(), last: after.clone(), ended: false };
            let (store, counter) = (store.clone(), counter.clone());
            async move {
                source.fill(&*store, counter, page).await?;
                Ok::<_, store::Error>(source)
            }
        });
        let sources: Vec<_> = stream::iter(filled).buffered(READS_AT_ONCE).try_collect().await?;
        let mut merge = Self { store, counter, page, sources, next: BinaryHeap::new() };
        for at in 0..merge.sources.len() {
            merge.advance(at).await?;
        }
        Ok(merge)
    }

    /// The next name and its sum.
    pub(super) async fn next(&mut self) -> Result<Option<(RowName, i128)>, store::Error> {
        let Some(Reverse((name, at, mut sum))) = self.next.pop() else { return Ok(None) };
        self.advance(at).await?;
        while self.next.peek().is_some_and(|Reverse((next, _, _))| *next == name) {
            let Some(Reverse((_, at, total))) = self.next.pop() else { break };
            sum = sum.saturating_add(total);
            self.advance(at).await?;
        }
        Ok(Some((name, sum)))
    }

    /// Whether there is nothing more.
    pub(super) fn is_done(&self) -> bool {
        self.next.is_empty()
    }

    async fn advance(&mut self, at: usize) -> Result<(), store::Error> {
        let source = &mut self.sources[at];
        if source.rows.len() == 0 && !source.ended {
            source.fill(&*self.store, self.counter.clone(), self.page).await?;
        }
        if let Some(row) = source.rows.next() {
            self.next.push(Reverse((row.name, at, row.total)));
        }
        Ok(())
    }
}

impl Source {
    async fn fill(&mut self, store: &dyn Store, counter: Option<Arc<str>>, page: usize) -> Result<(), store::Error> {
        let slice = Slice { counter, after: self.last.take(), limit: page };
        let rows = store.totals(&self.key, &slice).await?;
        self.ended = rows.len() < page;
        self.last = rows.last().map(|row| row.name.clone());
        self.rows = rows.into_iter();
        Ok(())
    }
}
