//! The oracle's books: what was sent under which id, what was answered, and what a count must therefore be.
//!
//! An item is acknowledged once any of its requests was answered 2xx; unknown when none was, and one may have been accepted
//! all the same; refused when every answer said that nothing was accepted. So the truth lies between the sum of the
//! acknowledged and that sum with the unknown added; and when all that was not acknowledged has been sent again until it
//! was, there is one truth only.
//!
//! An increment's amount is one, and above it a random weight: a lost and a doubled item of one series do not cancel out.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// Where the weight begins in an amount; below it items are counted.
const WEIGHT: u32 = 32;
/// Weights are below this: so that the sum of all series stays within 64 bits.
const WEIGHTS: u64 = 1 << 8;

/// What a request has told about its items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Nothing of it was accepted, or it was never sent.
    Refused,
    /// It may have been accepted.
    Unknown,
    /// It is durable.
    Acknowledged,
}

impl Fate {
    /// Of an answer; `None`: nobody answered, or the answer was cut off.
    pub fn of(answer: Option<(u16, &str)>) -> Self {
        match answer {
            Some((200..=299, _)) => Self::Acknowledged,
            Some((429 | 503, body)) if body.contains("nothing was accepted") => Self::Refused,
            Some((400..=499, _)) => Self::Refused,
            _ => Self::Unknown,
        }
    }
}

/// What a batch consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Increments,
    Events,
}

/// Items that are sent together, and share their fate.
#[derive(Clone, Debug)]
pub struct Batch {
    pub kind: Kind,
    /// Key and amount of each.
    items: Vec<(u32, i64)>,
    /// Prefix of their ids.
    id: String,
    pub fate: Fate,
    pub was_sent: bool,
}

impl Batch {
    /// Items with random weights for `keys`.
    pub fn new(kind: Kind, id: String, keys: impl Iterator<Item = u32>) -> Self {
        let weight = || i64::try_from(rand::random_range(0..WEIGHTS)).expect("a few bits");
        let items = keys.map(|key| (key, 1 + (weight() << WEIGHT))).collect();
        Self { kind, items, id, fate: Fate::Refused, was_sent: false }
    }

    /// The request's body. The same batch has the same ids.
    pub fn body(&self, counter: &str) -> String {
        let item = |(n, (key, amount)): (usize, &(u32, i64))| match self.kind {
            Kind::Increments => json!({
                "counter": counter, "tags": {"key": format!("k{key}")}, "amount": amount, "id": self.item_id(n)
            }),
            Kind::Events => json!({"name": counter, "subject": format!("k{key}"), "id": self.item_id(n)}),
        };
        Value::from(self.items.iter().enumerate().map(item).collect::<Vec<_>>()).to_string()
    }

    pub fn path(&self) -> &'static str {
        match self.kind {
            Kind::Increments => "/v1/increments",
            Kind::Events => "/v1/events",
        }
    }

    fn item_id(&self, n: usize) -> String {
        format!("{}-{n}", self.id)
    }

    /// What it adds to the counter's total.
    pub fn sum(&self) -> i64 {
        if self.kind == Kind::Events { 0 } else { self.items.iter().map(|(_, amount)| amount).sum() }
    }

    pub fn len(&self) -> u64 {
        self.items.len() as u64
    }
}

/// One request, for what is asked about times.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    pub began: Instant,
    pub ended: Instant,
    /// `None`: nobody answered.
    pub status: Option<u16>,
}

/// All batches, and all requests.
#[derive(Default)]
pub struct Books {
    pub batches: Vec<Batch>,
    pub attempts: Vec<Attempt>,
    /// Batches that were not acknowledged by their second request, though the first had failed too.
    pub failed_twice: u64,
}

/// What the store has of one fault's items.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Each series' total.
    pub totals: BTreeMap<String, i64>,
    /// Each event's id, and how many rows have it.
    pub events: BTreeMap<String, u64>,
}

/// What is wrong with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Error {
    /// Items that were acknowledged and are not there.
    pub lost: u64,
    /// Items that are there more often than they were sent.
    pub doubled: u64,
}

#[derive(Clone, Copy, Default)]
struct Bounds {
    least: i64,
    most: i64,
}

impl Books {
    /// Items with this fate.
    pub fn items(&self, fate: Fate) -> u64 {
        self.batches.iter().filter(|batch| batch.fate == fate).map(Batch::len).sum()
    }

    /// The longest time without an acknowledgement from `began` to `ended`.
    pub fn longest_stall(&self, began: Instant, ended: Instant) -> Duration {
        let acknowledged = self.attempts.iter().filter(|attempt| matches!(attempt.status, Some(200..=299)));
        let mut times: Vec<Instant> = acknowledged.map(|attempt| attempt.ended).filter(|at| *at < ended).collect();
        times.push(ended);
        times.sort();
        let mut last = began;
        times
            .into_iter()
            .map(|at| at.saturating_duration_since(std::mem::replace(&mut last, at)))
            .max()
            .unwrap_or_default()
    }

    /// Compares with what is stored.
    pub fn compare(&self, found: &Found) -> Error {
        let mut bounds: BTreeMap<String, Bounds> = BTreeMap::new();
        let mut error = Error::default();
        let mut events = found.events.clone();
        for batch in &self.batches {
            for (n, (key, amount)) in batch.items.iter().enumerate() {
                if batch.kind == Kind::Increments {
                    let bounds = bounds.entry(format!("k{key}")).or_default();
                    bounds.least += if batch.fate == Fate::Acknowledged { *amount } else { 0 };
                    bounds.most += if batch.fate == Fate::Refused { 0 } else { *amount };
                    continue;
                }
                let rows = events.remove(&batch.item_id(n)).unwrap_or(0);
                let (least, most) =
                    (u64::from(batch.fate == Fate::Acknowledged), u64::from(batch.fate != Fate::Refused));
                error.lost += least.saturating_sub(rows);
                error.doubled += rows.saturating_sub(most);
            }
        }
        // What nobody has sent.
        error.doubled += events.values().sum::<u64>();
        let series: std::collections::BTreeSet<&String> = bounds.keys().chain(found.totals.keys()).collect();
        for key in series {
            let Bounds { least, most } = bounds.get(key).copied().unwrap_or_default();
            let total = found.totals.get(key).copied().unwrap_or(0);
            let (lost, doubled) = (count(least) - count(total), count(total) - count(most));
            error.lost += u64::try_from(lost).unwrap_or(0);
            error.doubled += u64::try_from(doubled).unwrap_or(0);
            // As many as there should be, but others: some are lost and some count twice.
            let heavy = total >> WEIGHT;
            if lost <= 0 && doubled <= 0 && !((least >> WEIGHT)..=(most >> WEIGHT)).contains(&heavy) {
                error.lost += 1;
                error.doubled += 1;
            }
        }
        error
    }
}

/// How many items an amount stands for.
fn count(amount: i64) -> i64 {
    amount & ((1 << WEIGHT) - 1)
}

mod tests {
    use super::*;

    fn batch(id: &str, fate: Fate) -> Batch {
        Batch { fate, ..Batch::new(Kind::Increments, id.to_owned(), [1, 2].into_iter()) }
    }

    fn totals(batches: &[&Batch]) -> Found {
        let mut found = Found::default();
        for (key, amount) in batches.iter().flat_map(|batch| &batch.items) {
            *found.totals.entry(format!("k{key}")).or_default() += amount;
        }
        found
    }

    fn error(lost: u64, doubled: u64) -> Error {
        Error { lost, doubled }
    }

    #[test]
    fn what_is_unknown_may_be_there_or_not_and_what_was_refused_must_not() {
        let [mut a, mut b, mut c] = [Fate::Acknowledged, Fate::Unknown, Fate::Refused].map(|fate| batch("x", fate));
        // Weights that cannot be taken for another's.
        for (n, batch) in [&mut a, &mut b, &mut c].into_iter().enumerate() {
            batch.items.iter_mut().for_each(|(_, amount)| *amount = 1 + ((n as i64 + 1) << (WEIGHT + 2)));
        }
        let books = Books { batches: vec![a.clone(), b.clone(), c.clone()], ..Books::default() };
        assert_eq!(books.compare(&totals(&[&a])), error(0, 0));
        assert_eq!(books.compare(&totals(&[&a, &b])), error(0, 0));
        assert_eq!(books.compare(&totals(&[&b])), error(0, 0), "no sum can tell it as long as something is unknown");
        assert_eq!(books.compare(&totals(&[])), error(2, 0));
        assert_eq!(books.compare(&totals(&[&a, &b, &c])), error(0, 2));
        assert_eq!(books.compare(&totals(&[&a, &a, &a])), error(0, 2));
    }

    #[test]
    fn a_lost_and_a_doubled_item_of_one_series_do_not_cancel_out() {
        let (mut a, mut b) = (batch("a", Fate::Acknowledged), batch("b", Fate::Acknowledged));
        a.items = vec![(1, 1 + (5 << WEIGHT))];
        b.items = vec![(1, 1 + (9 << WEIGHT))];
        let books = Books { batches: vec![a.clone(), b.clone()], ..Books::default() };
        assert_eq!(books.compare(&totals(&[&a, &b])), error(0, 0));
        assert_eq!(books.compare(&totals(&[&a, &a])), error(1, 1));
    }

    #[test]
    fn an_event_is_there_once() {
        let mut events = Batch::new(Kind::Events, "e".to_owned(), [1, 2].into_iter());
        events.fate = Fate::Acknowledged;
        let books = Books { batches: vec![events], ..Books::default() };
        let found = |rows: &[(&str, u64)]| Found {
            events: rows.iter().map(|(id, rows)| ((*id).to_owned(), *rows)).collect(),
            ..Found::default()
        };
        assert_eq!(books.compare(&found(&[("e-0", 1), ("e-1", 1)])), error(0, 0));
        assert_eq!(books.compare(&found(&[("e-0", 2)])), error(1, 1));
        assert_eq!(books.compare(&found(&[("e-0", 1), ("e-1", 1), ("of nobody", 1)])), error(0, 1));
    }

    #[test]
    fn an_answer_that_does_not_say_that_nothing_was_accepted_is_unknown() {
        assert_eq!(Fate::of(Some((202, ""))), Fate::Acknowledged);
        assert_eq!(Fate::of(Some((503, "…; nothing was accepted: retry, elsewhere"))), Fate::Refused);
        assert_eq!(Fate::of(Some((503, "some or all items may have been accepted"))), Fate::Unknown);
        assert_eq!(Fate::of(None), Fate::Unknown);
    }

    #[test]
    fn a_stall_is_the_longest_time_without_an_acknowledgement() {
        let began = Instant::now();
        let at = |ms, status| {
            let ended = began + Duration::from_millis(ms);
            Attempt { began: ended, ended, status: Some(status) }
        };
        let books = Books { attempts: vec![at(900, 202), at(100, 202), at(500, 503)], ..Books::default() };
        assert_eq!(books.longest_stall(began, began + Duration::from_millis(1_200)), Duration::from_millis(800));
        assert_eq!(Books::default().longest_stall(began, began + Duration::from_secs(7)), Duration::from_secs(7));
    }
}
