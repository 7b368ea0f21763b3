//! Writing and reading totals.

use std::ops::Bound;

use crate::{
    item::Stamp,
    store::{RowName, ShardKey, Slice, TotalRow},
};

use super::{
    Mutation,
    fault::Fault,
    is_empty,
    keys::{self, KeyReader},
    tables::{self, Entry, Table, Tables},
    values,
};

/// The rows with their stamps.
pub fn entries(key: &ShardKey, rows: &[TotalRow]) -> Vec<(Stamp, Entry)> {
    let mut prefix = Vec::with_capacity(80);
    keys::push_shard(&mut prefix, key);
    let names: usize = rows.iter().map(|row| row.name.counter.len() + row.name.tags.len()).sum();
    let mut mutation = Mutation::with_capacity(rows.len(), names + rows.len() * (prefix.len() + 20));
    for row in rows {
        let key = |out: &mut Vec<u8>| {
            out.extend_from_slice(&prefix);
            keys::push_row_name(out, &row.name);
        };
        mutation.push(row.stamp, key, |out| values::push_total(out, row));
    }
    mutation.finish()
}

/// Reads a slice of a shard.
pub fn read_slice(tables: &Tables, key: &ShardKey, slice: &Slice) -> Result<Vec<TotalRow>, Fault> {
    let mut shard = Vec::new();
    keys::push_shard(&mut shard, key);
    let mut first = shard.clone();
    if let Some(counter) = &slice.counter {
        keys::push_text(&mut first, counter);
    }
    let end = keys::after_prefix(&first).map_or(Bound::Unbounded, Bound::Excluded);
    let mut start = Bound::Included(first);
    if let Some(after) = &slice.after {
        let mut key = shard.clone();
        keys::push_row_name(&mut key, after);
        if matches!(&start, Bound::Included(first) if *first <= key) {
            start = Bound::Excluded(key);
        }
    }
    let mut rows: Vec<TotalRow> = Vec::new();
    if is_empty(&start, &end) {
        return Ok(rows);
    }
    for found in tables.keyspace(Table::CounterTotals).range((start, end)).take(slice.limit) {
        let (key, value) = tables::row(found)?;
        let name = KeyReader::new(&key, shard.len())?.row_name(rows.last().map(|row| &row.name))?;
        let (stamp, seq, total) = values::read_total(&value)?;
        rows.push(TotalRow { name, total, seq, stamp });
    }
    Ok(rows)
}

/// Reads rows by name.
pub fn read_named(tables: &Tables, key: &ShardKey, names: &[RowName]) -> Result<Vec<Option<TotalRow>>, Fault> {
    let mut bytes = Vec::new();
    keys::push_shard(&mut bytes, key);
    let shard = bytes.len();
    let read = |name: &RowName| {
        bytes.truncate(shard);
        keys::push_row_name(&mut bytes, name);
        let Some(value) = tables.get(Table::CounterTotals, &bytes)? else { return Ok(None) };
        let (stamp, seq, total) = values::read_total(&value)?;
        Ok(Some(TotalRow { name: name.clone(), total, seq, stamp }))
    };
    names.iter().map(read).collect()
}

/// Every shard that has rows: the first row of each is looked at, and the rest of it stepped over.
pub fn read_shards(tables: &Tables) -> Result<Vec<ShardKey>, Fault> {
    let mut shards = Vec::new();
    let mut start = Bound::Unbounded;
    loop {
        let Some(found) = tables.keyspace(Table::CounterTotals).range::<Vec<u8>, _>((start, Bound::Unbounded)).next()
        else {
            return Ok(shards);
        };
        let (key, _) = tables::row(found)?;
        let shard = KeyReader::new(&key, 0)?.shard()?;
        let mut prefix = Vec::new();
        keys::push_shard(&mut prefix, &shard);
        shards.push(shard);
        match keys::after_prefix(&prefix) {
            Some(after) => start = Bound::Included(after),
            None => return Ok(shards),
        }
    }
}
