//! The book against the definition: what a row must be at the seq that it names.

use proptest::prelude::*;

use super::*;
use crate::item::{Epoch, Namespace, Shard};

fn key() -> ShardKey {
    ShardKey { namespace: Namespace::default(), shard: Shard(1), epoch: Epoch([1; 8]) }
}

fn name(row: u8) -> RowName {
    RowName { counter: "c".into(), tags: format!("k={row}").into() }
}

fn stamp(seq: u64) -> Stamp {
    Stamp(seq as i64 * 10)
}

fn row(of: u8, total: i128, seq: u64) -> TotalRow {
    TotalRow { name: name(of), total, seq: Seq(seq), stamp: stamp(seq) }
}

/// How a row of the store is made from what the log gives.
#[derive(Clone, Copy, Debug)]
enum Stored {
    Absent,
    /// As of its pack of this number, and wrong by so much.
    At(usize, i128),
    /// At a seq of its own.
    Elsewhere(u64),
}

fn stored() -> impl Strategy<Value = Stored> {
    prop_oneof![
        1 => Just(Stored::Absent),
        4 => (0..8usize, prop_oneof![4 => Just(0), 1 => -3..4_i128]).prop_map(|(at, by)| Stored::At(at, by)),
        1 => (0..40_u64).prop_map(Stored::Elsewhere),
    ]
}

proptest! {
    #[test]
    fn a_row_is_judged_by_the_sum_at_its_own_seq_and_by_nothing_above_the_checkpoint(
        packs in proptest::collection::vec((0..3_u8, -5..6_i64), 0..30),
        rows in proptest::collection::vec(stored(), 3), checkpoint in proptest::option::of(0..30_u64), whole: bool,
    ) {
        let history = |of: u8| {
            let mut sum = 0;
            let of_row = (0..).zip(&packs).filter(move |(_, (row, _))| *row == of);
            of_row.map(move |(seq, (_, amount))| { sum += i128::from(*amount); (seq, sum) }).collect::<Vec<(u64, i128)>>()
        };
        let checkpoint = checkpoint.filter(|at| *at < packs.len() as u64);
        let extent = Extent { from: Seq(0), whole, checkpoint: checkpoint.map(Seq) };
        let mut book = Book::new(extent);
        let mut seen = Vec::new();
        for (of, stored) in (0..).zip(&rows) {
            let history = history(of);
            let at = match *stored {
                Stored::Absent => None,
                Stored::At(at, by) => history.get(at).map(|(seq, sum)| row(of, sum + by, *seq)),
                Stored::Elsewhere(seq) => Some(row(of, 5, seq)),
            };
            at.iter().for_each(|row| book.see(&key(), row));
            seen.push(at);
        }
        let mut totals = [0_i128; 3];
        for (seq, (of, amount)) in (0..).zip(&packs) {
            totals[usize::from(*of)] += i128::from(*amount);
            book.touch(&key(), &row(*of, totals[usize::from(*of)], seq), None);
        }
        let next = Seq(packs.len() as u64);
        for (of, seen) in (0..).zip(seen) {
            let history = history(of);
            let covered = |seq: u64| checkpoint.is_some_and(|at| seq <= at);
            let at = |limit: u64| history.iter().rev().find(|(seq, _)| *seq <= limit).map_or(0, |(_, sum)| *sum);
            let known = |total: i128| whole.then_some(total);
            let expected = match seen {
                None if history.first().is_some_and(|(seq, _)| covered(*seq)) => {
                    Verdict::Drift(Kind::Lost, known(at(checkpoint.unwrap())))
                }
                None => Verdict::Fine,
                Some(seen) if seen.seq >= next => Verdict::Drift(Kind::Foreign, known(at(u64::MAX))),
                Some(seen) if !history.iter().any(|(seq, _)| *seq == seen.seq.0) => {
                    Verdict::Drift(Kind::Foreign, known(at(seen.seq.0)))
                }
                Some(seen) if history.iter().any(|(seq, _)| *seq > seen.seq.0 && covered(*seq)) => {
                    Verdict::Drift(Kind::Stale, known(at(checkpoint.unwrap())))
                }
                Some(_) if !whole => Verdict::Unchecked,
                Some(seen) => match seen.total.cmp(&at(seen.seq.0)) {
                    std::cmp::Ordering::Less => Verdict::Drift(Kind::Lost, Some(at(seen.seq.0))),
                    std::cmp::Ordering::Greater => Verdict::Drift(Kind::Doubled, Some(at(seen.seq.0))),
                    std::cmp::Ordering::Equal => Verdict::Fine,
                },
            };
            prop_assert_eq!(book.judge(&key(), &name(of), next), expected, "row {}: {:?} {:?}", of, history, checkpoint);
        }
    }
}

#[test]
fn a_right_total_that_was_written_at_another_time_is_somebody_else_s() {
    let mut book = Book::new(Extent { from: Seq(0), whole: true, checkpoint: None });
    book.see(&key(), &TotalRow { stamp: Stamp(99), ..row(0, 4, 2) });
    book.touch(&key(), &row(0, 4, 2), None);
    assert_eq!(book.judge(&key(), &name(0), Seq(3)), Verdict::Drift(Kind::Foreign, Some(4)));
}

#[test]
fn a_correction_makes_a_row_known_whose_beginning_is_gone_and_adds_nothing() {
    let mut book = Book::new(Extent { from: Seq(10), whole: false, checkpoint: None });
    book.see(&key(), &row(0, 107, 12));
    book.touch(&key(), &row(0, 3, 11), None);
    // Whoever made it has counted from the beginning: 103, of which 3 came since.
    book.touch(&key(), &row(0, 103, 11), Some(true));
    book.touch(&key(), &row(0, 108, 12), None);
    assert_eq!(book.judge(&key(), &name(0), Seq(13)), Verdict::Drift(Kind::Lost, Some(108)));
    // One that rests on packs which this recount has not seen says nothing.
    let mut book = Book::new(Extent { from: Seq(10), whole: false, checkpoint: None });
    book.see(&key(), &row(0, 107, 12));
    book.touch(&key(), &row(0, 103, 12), Some(false));
    assert_eq!(book.judge(&key(), &name(0), Seq(13)), Verdict::Unchecked);
}

#[test]
fn a_row_that_has_moved_is_judged_where_it_is_by_then() {
    let mut book = Book::new(Extent { from: Seq(0), whole: true, checkpoint: None });
    book.see(&key(), &row(0, 9, 1));
    book.touch(&key(), &row(0, 4, 1), None);
    assert_eq!(book.suspects(Seq(2)), [(key(), name(0))]);
    let seen = |total, seq| Some(Seen::from(&row(0, total, seq)));
    assert_eq!(book.look_again(&key(), &name(0), seen(9, 1)), None, "as it was");
    assert_eq!(book.look_again(&key(), &name(0), seen(6, 3)), Some(Seq(3)));
    book.touch(&key(), &row(0, 6, 3), None);
    assert_eq!(book.judge(&key(), &name(0), Seq(4)), Verdict::Fine);
    // It is between packs of which only the last is known.
    book.touch(&key(), &row(0, 7, 4), None);
    book.touch(&key(), &row(0, 8, 5), None);
    assert_eq!(book.look_again(&key(), &name(0), seen(7, 4)), Some(Seq(4)));
    assert!(book.is_moving(&key(), &name(0)));
    assert_eq!(book.judge(&key(), &name(0), Seq(6)), Verdict::Unchecked);
}

#[test]
fn a_base_of_the_hot_view_is_judged_at_its_own_seq() {
    let mut book = Book::new(Extent { from: Seq(0), whole: true, checkpoint: None });
    book.see(&key(), &row(0, 4, 1));
    book.see_hot(&key(), &name(0), 4, Seq(2));
    book.touch(&key(), &row(0, 4, 1), None);
    book.touch(&key(), &row(0, 9, 3), None);
    let verdict = |book: &Book, next| book.rows().next().unwrap().2.judge_hot(Seq(next));
    assert_eq!(verdict(&book, 4), Some(Verdict::Fine));
    assert_eq!(verdict(&book, 2), Some(Verdict::Drift(Kind::Hot, Some(9))), "beyond the log");
}
