//! Writing and reading totals.
//!
//! Writing is what the program does most, so the values go into the request as bytes, without the driver's look at the type
//! of each: `statements` has compared the types once.

use std::{cmp::Ordering, slice, sync::Arc};

use futures_util::{StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use scylla::{
    response::PagingState,
    serialize::{
        SerializationError,
        batch::{BatchValues, BatchValuesIterator},
        row::{RowSerializationContext, SerializeRow},
        writers::{CellOverflowError, RowWriter},
    },
    statement::prepared::PreparedStatement,
    value::CqlVarintBorrowed,
};

use crate::{
    item::{Epoch, Namespace, Seq, Shard, Stamp},
    store::{Error, RowName, ShardKey, Slice, TotalRow},
};

use super::{Scylla, batches, fault, limit, timestamp};

/// Statements of a batch, as the protocol counts them. The caller keeps to `store.batch_rows`.
const MOST_STATEMENTS: usize = 65_535;
/// Bytes of a row beside its names: numbers, lengths, and the statement's id.
const ROW_OVERHEAD: usize = 100;
/// Names of one request: ScyllaDB takes a hundred at most.
const NAMES: usize = 64;
/// Requests of one read by name that are under way together.
const NAMED_REQUESTS: usize = 8;

/// Writes rows of a shard, sorted and each once.
pub async fn write(store: &Scylla, key: &ShardKey, rows: &[TotalRow]) -> Result<(), Error> {
    let names = key.namespace.as_str().len();
    let bytes = |row: &TotalRow| names + row.name.counter.len() + row.name.tags.len() + ROW_OVERHEAD;
    for rows in batches::requests(rows, MOST_STATEMENTS, bytes) {
        match rows {
            [row] => store.run(&store.statements.insert_total, &One { key, row }).await?,
            rows => {
                let batch = store.totals.of(rows.len());
                store.session.batch(&batch, Many { key, rows }).await.map_err(fault::told)?;
            }
        }
    }
    Ok(())
}

struct One<'a> {
    key: &'a ShardKey,
    row: &'a TotalRow,
}

struct Many<'a> {
    key: &'a ShardKey,
    rows: &'a [TotalRow],
}

struct Rows<'a> {
    key: &'a ShardKey,
    rows: slice::Iter<'a, TotalRow>,
}

impl SerializeRow for One<'_> {
    fn serialize(&self, _: &RowSerializationContext<'_>, writer: &mut RowWriter) -> Result<(), SerializationError> {
        push_row(self.key, self.row, writer).map_err(SerializationError::new)
    }

    fn is_empty(&self) -> bool {
        false
    }
}

impl BatchValues for Many<'_> {
    type BatchValuesIter<'r>
        = Rows<'r>
    where
        Self: 'r;

    fn batch_values_iter(&self) -> Rows<'_> {
        Rows { key: self.key, rows: self.rows.iter() }
    }
}

impl<'a> BatchValuesIterator<'a> for Rows<'a> {
    fn serialize_next(
        &mut self,
        _: &RowSerializationContext<'_>,
        writer: &mut RowWriter,
    ) -> Option<Result<(), SerializationError>> {
        let row = self.rows.next()?;
        Some(push_row(self.key, row, writer).map_err(SerializationError::new))
    }

    fn is_empty_next(&mut self) -> Option<bool> {
        self.rows.next().map(|_| false)
    }

    fn skip_next(&mut self) -> Option<()> {
        self.rows.next().map(drop)
    }
}

/// The values of `insert_total`, in its order.
fn push_row(key: &ShardKey, row: &TotalRow, writer: &mut RowWriter) -> Result<(), CellOverflowError> {
    let mut push = |bytes: &[u8]| writer.make_cell_writer().set_value(bytes).map(drop);
    push(key.namespace.as_str().as_bytes())?;
    push(&key.shard.0.to_be_bytes())?;
    push(&key.epoch.0)?;
    push(row.name.counter.as_bytes())?;
    push(row.name.tags.as_bytes())?;
    let total = row.total.to_be_bytes();
    push(&total[spare(&total)..])?;
    push(&row.seq.0.to_be_bytes())?;
    push(&timestamp(row.stamp).to_be_bytes())
}

/// How many leading bytes of a number say nothing that its next one does not say, too: `varint` is two's complement in as
/// few bytes as hold it.
pub(super) fn spare(number: &[u8; 16]) -> usize {
    let sign = if number[0] & 0x80 == 0 { 0 } else { 0xff };
    number.windows(2).take_while(|pair| pair[0] == sign && (pair[0] ^ pair[1]) & 0x80 == 0).count()
}

/// The number that these bytes of a `varint` are; others may have written it in more bytes than it takes.
pub(super) fn number(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.first()? & 0x80 != 0;
    let fill = if negative { 0xff } else { 0 };
    let kept = bytes.len().min(16);
    let (spare, bytes) = bytes.split_at(bytes.len() - kept);
    let mut number = [fill; 16];
    number[16 - kept..].copy_from_slice(bytes);
    let number = i128::from_be_bytes(number);
    (spare.iter().all(|byte| *byte == fill) && (number < 0) == negative).then_some(number)
}

/// Reads a slice of a shard.
pub async fn read_slice(store: &Scylla, key: &ShardKey, slice: &Slice) -> Result<Vec<TotalRow>, Error> {
    if slice.limit == 0 {
        return Ok(Vec::new());
    }
    let (namespace, shard, epoch) = (key.namespace.as_str(), key.shard.0, &key.epoch.0[..]);
    let (statements, most) = (&store.statements, limit(slice.limit));
    match (slice.counter.as_deref(), slice.after.as_ref().map(|after| (&*after.counter, &*after.tags))) {
        (None, None) => rows(store, &statements.slice, &(namespace, shard, epoch, most)).await,
        (None, Some((counter, tags))) => {
            rows(store, &statements.slice_after, &(namespace, shard, epoch, counter, tags, most)).await
        }
        (Some(of), after) => match after.map(|(counter, tags)| (counter.cmp(of), tags)) {
            Some((Ordering::Greater, _)) => Ok(Vec::new()),
            Some((Ordering::Equal, tags)) => {
                rows(store, &statements.slice_of_after, &(namespace, shard, epoch, of, tags, most)).await
            }
            Some((Ordering::Less, _)) | None => {
                rows(store, &statements.slice_of, &(namespace, shard, epoch, of, most)).await
            }
        },
    }
}

/// Reads rows by name: all names of a request in one statement, which costs the servers far less than a request a row.
pub async fn read_named(store: &Scylla, key: &ShardKey, names: &[RowName]) -> Result<Vec<Option<TotalRow>>, Error> {
    let mut wanted: Vec<_> = names.iter().map(|name| (&*name.counter, &*name.tags)).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let mut requests: Vec<BoxFuture<'_, Result<Vec<TotalRow>, Error>>> = Vec::new();
    for names in wanted.chunks(NAMES) {
        requests.push(Box::pin(some_named(store, key, names)));
    }
    let found: Vec<_> = stream::iter(requests).buffered(NAMED_REQUESTS).try_collect().await?;
    // The servers answer in order of the names, and so were the requests.
    let found: Vec<TotalRow> = found.into_iter().flatten().collect();
    let row = |name: &RowName| found.binary_search_by(|row| row.name.cmp(name)).ok().map(|at| found[at].clone());
    Ok(names.iter().map(row).collect())
}

/// Every shard that has rows.
pub async fn read_shards(store: &Scylla) -> Result<Vec<ShardKey>, Error> {
    let mut shards = Vec::new();
    let mut next = Some(PagingState::start());
    while let Some(from) = next {
        let (page, later) = store.page(&store.statements.shards, &(), from).await?;
        next = later;
        for row in page.rows::<(&str, i32, &[u8])>().map_err(fault::damaged)? {
            let (namespace, shard, epoch) = row.map_err(fault::damaged)?;
            let namespace = Namespace::parse(namespace).map_err(|error| fault::damaged(error.message))?;
            let epoch = epoch.try_into().map_err(|_| fault::damaged("an epoch is not of 8 bytes"))?;
            shards.push(ShardKey { namespace, shard: Shard(shard), epoch: Epoch(epoch) });
        }
    }
    Ok(shards)
}

async fn some_named(store: &Scylla, key: &ShardKey, names: &[(&str, &str)]) -> Result<Vec<TotalRow>, Error> {
    let values = (key.namespace.as_str(), key.shard.0, &key.epoch.0[..], names);
    rows(store, &store.statements.named, &values).await
}

async fn rows(
    store: &Scylla,
    statement: &PreparedStatement,
    values: &(impl SerializeRow + Sync),
) -> Result<Vec<TotalRow>, Error> {
    let mut rows: Vec<TotalRow> = Vec::new();
    let mut next = Some(PagingState::start());
    while let Some(from) = next {
        let (page, later) = store.page(statement, values, from).await?;
        next = later;
        rows.reserve(page.rows_num());
        let read = page.rows::<(&str, &str, CqlVarintBorrowed<'_>, i64, i64)>().map_err(fault::damaged)?;
        for row in read {
            let (counter, tags, total, seq, stamp) = row.map_err(fault::damaged)?;
            let total = number(total.as_signed_bytes_be_slice())
                .ok_or_else(|| fault::damaged("a total takes more than 128 bits"))?;
            // Rows come in the counters' order: most share their neighbour's.
            let counter = match rows.last() {
                Some(last) if *last.name.counter == *counter => last.name.counter.clone(),
                _ => Arc::from(counter),
            };
            let name = RowName { counter, tags: tags.into() };
            rows.push(TotalRow { name, total, seq: Seq(seq.cast_unsigned()), stamp: Stamp(stamp) });
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_take_as_few_bytes_as_the_servers_write() {
        for (value, bytes) in [
            (0, &[0][..]),
            (1, &[1]),
            (127, &[0x7f]),
            (128, &[0, 0x80]),
            (-1, &[0xff]),
            (-128, &[0x80]),
            (-129, &[0xff, 0x7f]),
            (1 << 64, &[1, 0, 0, 0, 0, 0, 0, 0, 0]),
        ] {
            let whole = i128::to_be_bytes(value);
            assert_eq!(&whole[spare(&whole)..], bytes, "{value}");
        }
        assert_eq!(spare(&i128::MIN.to_be_bytes()), 0);
    }

    #[test]
    fn longer_forms_are_read_and_larger_numbers_are_not() {
        assert_eq!(number(&[]), None);
        assert_eq!(number(&[0; 20]), Some(0));
        assert_eq!(number(&[0xff; 17]), Some(-1));
        let mut larger = [0; 17];
        larger[1] = 0x80;
        assert_eq!(number(&larger), None, "2^127");
        larger[0] = 1;
        assert_eq!(number(&larger), None);
    }

    proptest! {
        #[test]
        fn numbers_read_back(value: i128, shift in 0..128u32) {
            let value = value >> shift;
            let bytes = value.to_be_bytes();
            prop_assert_eq!(number(&bytes[spare(&bytes)..]), Some(value));
        }
    }
}
