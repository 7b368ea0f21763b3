//! The hot view that holds nothing, by choice: every read goes to the store and says how stale it is (law 8).

use async_trait::async_trait;

use super::{Base, Delta, Error, HotKey, HotView, LoadedBase, Published, Token, View};
use crate::item::{Lane, Seq};

/// Holds nothing: every write is forgotten, every read is a miss.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disabled;

#[async_trait]
impl HotView for Disabled {
    async fn add(&self, _lane: Lane, _seq: Seq, _deltas: Vec<Delta>) -> Result<(), Error> {
        Ok(())
    }

    async fn publish(&self, _lane: Lane, _seq: Seq, _bases: &[Base]) -> Result<Published, Error> {
        Ok(Published::default())
    }

    async fn known(&self, keys: &[HotKey]) -> Result<Vec<bool>, Error> {
        Ok(vec![false; keys.len()])
    }

    async fn read(&self, keys: &[HotKey]) -> Result<Vec<View>, Error> {
        Ok(vec![View::Miss; keys.len()])
    }

    async fn begin_load(&self, _key: &HotKey) -> Result<Token, Error> {
        Ok(Token(0))
    }

    async fn finish_load(
        &self,
        _key: &HotKey,
        _token: Token,
        _bases: &[LoadedBase],
        _ends: &[(Lane, Seq)],
    ) -> Result<bool, Error> {
        Ok(false)
    }

    async fn published(&self, _lane: Lane, _seq: Seq) -> Result<(), Error> {
        Ok(())
    }

    fn describe(&self) -> (&'static str, bool) {
        ("none", false)
    }
}
