//! A mutation of many rows: one statement, repeated, in an unlogged batch over one partition key. The servers apply it as one
//! mutation, and exempt it from their limits on batches.
//!
//! What the driver needs for a batch of so many rows is the same each time, and making it costs more than filling it in: it
//! is made once for each number of rows.

use std::{borrow::Cow, sync::OnceLock};

use scylla::statement::{
    batch::{Batch, BatchStatement, BatchType},
    prepared::PreparedStatement,
};

/// Batches of up to so many rows are kept: `store.batch_rows` is 100 unless somebody sets it.
const KEPT: usize = 128;
/// Bytes of rows that one request carries at most, or one row. Servers refuse requests past 16 MiB.
const MOST_BYTES: usize = 1 << 20;

/// The batches of one statement.
pub struct Batches {
    statement: PreparedStatement,
    by_rows: Vec<OnceLock<Batch>>,
}

impl Batches {
    /// Batches of this statement.
    pub fn new(statement: &PreparedStatement) -> Self {
        Self { statement: statement.clone(), by_rows: (0..=KEPT).map(|_| OnceLock::new()).collect() }
    }

    /// The batch for so many rows.
    pub fn of(&self, rows: usize) -> Cow<'_, Batch> {
        match self.by_rows.get(rows) {
            Some(batch) => Cow::Borrowed(batch.get_or_init(|| self.make(rows))),
            None => Cow::Owned(self.make(rows)),
        }
    }

    fn make(&self, rows: usize) -> Batch {
        let statements = vec![BatchStatement::from(self.statement.clone()); rows];
        let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements);
        batch.set_is_idempotent(true);
        batch
    }
}

/// Cuts rows into requests of at most so many rows, and of a bounded size.
pub fn requests<'a, R>(rows: &'a [R], most: usize, bytes: impl Fn(&R) -> usize + 'a) -> impl Iterator<Item = &'a [R]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let mut sum = 0;
        let fits = rest.iter().take(most).take_while(|row| {
            sum += bytes(row);
            sum <= MOST_BYTES
        });
        let rows = fits.count().max(1).min(rest.len());
        let (request, later) = rest.split_at(rows);
        rest = later;
        (!request.is_empty()).then_some(request)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_bounded_and_lose_no_row() {
        let sizes = |rows: &[usize]| requests(rows, 3, |row| *row).map(<[usize]>::to_vec).collect::<Vec<_>>();
        assert!(sizes(&[]).is_empty());
        assert_eq!(sizes(&[1, 2, 3]), [[1, 2, 3]]);
        assert_eq!(sizes(&[1, 2, 3, 4]), [vec![1, 2, 3], vec![4]]);
        let half = MOST_BYTES / 2;
        let larger = 2 * MOST_BYTES;
        assert_eq!(sizes(&[half, half, 1, larger, 1]), [vec![half, half], vec![1], vec![larger], vec![1]]);
    }
}
