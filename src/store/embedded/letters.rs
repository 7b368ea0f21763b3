//! Dead letters and their replays: few rows, written one by one and synced, so that a verdict is not the one to be lost.

use async_trait::async_trait;

use crate::{
    item::{Coordinates, Lane, Seq, Stamp},
    store::{Error, LetterRow, Letters, Replayed},
};

use super::{
    Embedded,
    engine::Engine,
    keys::{self, KeyReader},
    tables::{self, Table, Tables, lock},
    values,
};

/// The key of a dead letter.
fn key(topic: &str, at: Coordinates) -> Vec<u8> {
    let mut key = keys::letters(topic, at.lane);
    keys::push_seq(&mut key, at.seq);
    key
}

/// What the table has of a dead letter: whether anything, and its replay.
fn known(tables: &Tables, key: &[u8]) -> Result<(bool, Option<Replayed>), super::Fault> {
    let value = tables.get(Table::Replayed, key)?;
    let replayed = value.as_ref().map(|value| values::read_replayed(value)).transpose()?.flatten();
    Ok((value.is_some(), replayed))
}

#[async_trait]
impl Letters for Embedded {
    async fn write_letter(&self, topic: &str, at: Coordinates, stamp: Stamp) -> Result<(), Error> {
        let key = key(topic, at);
        let work = move |engine: &Engine| {
            let _turn = lock(&engine.lanes);
            engine.write(|tables| {
                if !known(tables, &key)?.0 {
                    tables.put(Table::Replayed, key, values::letter(stamp))?;
                }
                tables.sync()
            })
        };
        self.blocking(&self.writers, work).await
    }

    async fn write_replayed(&self, topic: &str, at: Coordinates, by: Replayed) -> Result<(), Error> {
        let key = key(topic, at);
        let work = move |engine: &Engine| {
            let _turn = lock(&engine.lanes);
            engine.write(|tables| {
                if known(tables, &key)?.1.is_none_or(|there| there.stamp < by.stamp) {
                    tables.put(Table::Replayed, key, values::replayed(by))?;
                }
                Ok(())
            })
        };
        self.blocking(&self.writers, work).await
    }

    async fn letters(
        &self,
        topic: &str,
        lane: Lane,
        from: Seq,
        to: Seq,
        limit: usize,
    ) -> Result<Vec<LetterRow>, Error> {
        let prefix = keys::letters(topic, lane);
        let work = move |engine: &Engine| {
            engine.read(|tables| {
                let bound = |seq: Seq| {
                    let mut bound = prefix.clone();
                    keys::push_seq(&mut bound, seq);
                    bound
                };
                let mut rows = Vec::new();
                if from > to {
                    return Ok(rows);
                }
                for found in tables.keyspace(Table::Replayed).range(bound(from)..=bound(to)).take(limit) {
                    let (key, value) = tables::row(found)?;
                    let seq = KeyReader::new(&key, prefix.len())?.seq()?;
                    rows.push(LetterRow { seq, replayed: values::read_replayed(&value)? });
                }
                Ok(rows)
            })
        };
        self.blocking(&self.readers, work).await
    }
}
