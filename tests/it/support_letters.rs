//! Dead letters in memory, and stores that keep none.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use async_trait::async_trait;
use tallymark::{
    clock,
    item::{Coordinates, Lane, Seq, Stamp},
    log::{DeadLetter, DeadLetters, Error, Found, Place},
    retry::Kind,
    store::{self, LetterRow, Letters, Replayed},
};

/// A dead-letter log in memory, as Kafka's: a letter that is buried again is there twice.
#[derive(Default)]
pub struct MemoryLetters {
    buried: Mutex<Vec<(i64, DeadLetter)>>,
    away: AtomicBool,
    lost_answers: AtomicUsize,
    refused: AtomicUsize,
}

impl MemoryLetters {
    /// Nothing can be buried while it is away.
    pub fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    /// The next so many letters are kept, and their answers lost.
    pub fn lose_answers(&self, times: usize) {
        self.lost_answers.store(times, Ordering::SeqCst);
    }

    /// How often burying failed.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    /// Every letter, in the order of burial, repeated ones too.
    pub fn all(&self) -> Vec<DeadLetter> {
        self.buried.lock().unwrap().iter().map(|(_, letter)| letter.clone()).collect()
    }
}

#[async_trait]
impl DeadLetters for MemoryLetters {
    async fn bury(&self, letter: &DeadLetter) -> Result<(), Error> {
        if self.away.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(Error::new(Kind::Transient, "the dead-letter log was told to be away"));
        }
        self.buried.lock().unwrap().push((clock::now_ms(), letter.clone()));
        let lose = |left: usize| left.checked_sub(1);
        if self.lost_answers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose).is_ok() {
            return Err(Error::new(Kind::Transient, "this answer was told to be lost"));
        }
        Ok(())
    }

    async fn read_letters(&self, after: Option<&Place>, max_bytes: usize) -> Result<Vec<Found>, Error> {
        let from = after.map_or(0, |place| u64::from_be_bytes(place.0[..].try_into().unwrap()) + 1);
        let mut bytes = 0;
        let buried = self.buried.lock().unwrap();
        let wanted = (0..).zip(buried.iter()).skip(from as usize).take_while(|(_, (_, letter))| {
            let first = bytes == 0;
            bytes += letter.payload.len().max(1);
            first || bytes <= max_bytes
        });
        let found = wanted.map(|(place, (buried_ms, letter)): (u64, _)| Found {
            place: Place(place.to_be_bytes().to_vec()),
            buried_ms: *buried_ms,
            letter: Ok(letter.clone()),
        });
        Ok(found.collect())
    }
}

/// Stores that nobody asks for dead letters.
macro_rules! keep_no_letters {
    ($($store:ty),*) => {$(
        #[async_trait]
        impl Letters for $store {
            async fn write_letter(&self, _: &str, _: Coordinates, _: Stamp) -> Result<(), store::Error> {
                unreachable!("it keeps no dead letters")
            }

            async fn write_replayed(&self, _: &str, _: Coordinates, _: Replayed) -> Result<(), store::Error> {
                unreachable!("it keeps no dead letters")
            }

            async fn letters(
                &self,
                _: &str,
                _: Lane,
                _: Seq,
                _: Seq,
                _: usize,
            ) -> Result<Vec<LetterRow>, store::Error> {
                Ok(Vec::new())
            }
        }
    )*};
}

keep_no_letters!(crate::support::Lanes, crate::support_lag::FakeStore, crate::support_query::MemoryStore);
