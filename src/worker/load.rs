//! Loading: reads from the store what a lane's fold misses, whole shards and rows by name, all at once (law 4).

use futures_util::future::try_join_all;

use super::{flush::Context, fold::Missing, halt::Halt, machine::Machine};
use crate::{
    item::Lane,
    store::{RowName, Slice, TotalRow},
};

impl Context {
    /// Reads what is missing and installs it. It takes as long as the store is away.
    pub(super) async fn load(&self, lane: Lane, machine: &mut Machine, missing: Missing) -> Result<(), Halt> {
        let limit = self.options.slice_rows + 1;
        let fold = machine.fold();
        let slices = missing.shards.iter().map(|shard| {
            let key = fold.shard_key(*shard).clone();
            async move {
                let slice = Slice { limit, ..Slice::default() };
                let rows = self.settled(lane, || self.store.totals(&key, &slice)).await?;
                Ok::<_, Halt>((*shard, Some(rows).filter(|rows| rows.len() < limit)))
            }
        });
        let named = missing.rows.iter().map(|(shard, names)| {
            let key = fold.shard_key(*shard).clone();
            async move {
                let rows = self.settled(lane, || self.store.totals_named(&key, names)).await?;
                Ok::<(u32, &Vec<RowName>, Vec<Option<TotalRow>>), Halt>((*shard, names, rows))
            }
        });
        let (slices, named) = tokio::try_join!(try_join_all(slices), try_join_all(named))?;
        machine.install(|fold, met| {
            for (shard, rows) in slices {
                fold.install(shard, rows, &mut *met);
            }
            for (shard, names, rows) in named {
                fold.install_named(shard, names, rows, &mut *met);
            }
        });
        Ok(())
    }
}
