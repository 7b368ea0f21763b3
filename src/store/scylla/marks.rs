//! Which hours of a name, and which months of a namespace, hold events: rows that say so are owed with the events in them.
//!
//! Nearly every event falls into an hour and a month that were marked a moment ago, so what was acknowledged is remembered,
//! for as long as it may be trusted: a few seconds. A store that loses its last seconds to a power cut loses marks, too, and
//! whoever repeats the events must then mark again; so a failed write forgets everything.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::item::Namespace;

/// How long a mark is trusted. Less than a server takes to come back.
const TRUSTED: Duration = Duration::from_secs(5);
/// Most marks that are remembered.
const MOST: usize = 8_192;

/// A row that says where events are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    /// An hour of a name, since 1970.
    Hour(Namespace, Arc<str>, i64),
    /// A month of a namespace, since 1970.
    Month(Namespace, i32),
}

/// The marks that were acknowledged lately, and when their writes began.
#[derive(Debug, Default)]
pub struct Marks(Mutex<HashMap<Mark, Instant>>);

impl Marks {
    /// Those of `wanted` that must be written.
    pub fn missing(&self, wanted: HashSet<Mark>, now: Instant) -> Vec<Mark> {
        let known = self.lock();
        wanted.into_iter().filter(|mark| !known.get(mark).is_some_and(|since| trusted(*since, now))).collect()
    }

    /// Notes marks that the servers have acknowledged; their writes began at `since`.
    pub fn note(&self, marks: Vec<Mark>, since: Instant) {
        let mut known = self.lock();
        if known.len() + marks.len() > MOST {
            known.retain(|_, earlier| trusted(*earlier, since));
        }
        for mark in marks {
            if known.len() >= MOST {
                break;
            }
            known.insert(mark, since);
        }
    }

    /// Trusts nothing any more.
    pub fn forget(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Mark, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn trusted(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < TRUSTED
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hour(hour: i64) -> Mark {
        Mark::Hour(Namespace::default(), "login".into(), hour)
    }

    #[test]
    fn a_mark_is_trusted_for_a_while_and_not_after_a_failure() {
        let (marks, now) = (Marks::default(), Instant::now());
        let missing = |wanted: Mark, at: Instant| !marks.missing(HashSet::from([wanted]), at).is_empty();
        assert!(missing(hour(1), now));
        marks.note(vec![hour(1), Mark::Month(Namespace::default(), 1)], now);
        assert!(!missing(hour(1), now) && missing(hour(2), now));
        assert!(!missing(hour(1), now + TRUSTED - Duration::from_millis(1)) && missing(hour(1), now + TRUSTED));
        marks.note(vec![hour(1)], now);
        marks.forget();
        assert!(missing(hour(1), now));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (marks, now) = (Marks::default(), Instant::now());
        let most = i64::try_from(MOST).unwrap();
        marks.note((0..most + 10).map(hour).collect(), now);
        assert_eq!(marks.lock().len(), MOST);
        marks.note(vec![hour(-1)], now + TRUSTED);
        assert_eq!(marks.lock().len(), 1, "what is not trusted any more makes room");
    }
}
