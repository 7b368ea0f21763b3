//! Dead letters: what becomes of the records that no lane could apply. Finding them, and replaying those that can be read.
//!
//! A lane puts what it cannot apply into the dead-letter log and goes on (`worker`, law 6). Here is the operator's side:
//! [`Handle::page`] finds letters by a [`Filter`], [`Handle::replay`] appends one that this program can read to its own
//! partition, under a new pack id, with the counts that routed it and with its coordinates. The lane applies it once,
//! however often it is appended: so a replay whose answer was lost is simply asked for again, and nothing here has to be
//! remembered. What still cannot be read or applied is left where it is, with the reason.
//!
//! Who may ask is the admin port's, and `cli`'s.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use crate::{
    item::{Coordinates, PackId, Seq},
    log::{self, Class, DeadLetter, DeadLetters, Found, Log, Place, Record},
    pack::{self, Pack},
    retry::{Classified, Kind},
    store::{self, EpochRow, Replayed, Store},
    worker::{machine::Read, poison, poison::Refusal},
};

/// Bytes of letters that are read at a time,
const READ_BYTES: usize = 1 << 20;
/// and looked through for one page: a filter that finds nothing must not take for ever to say so.
const PAGE_BYTES: usize = 32 << 20;

/// Which letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this partition.
    pub partition: Option<u32>,
    /// That stood at this offset.
    pub seq: Option<Seq>,
    /// Of this class.
    pub class: Option<Class>,
    /// Buried then or later, in milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Buried before then.
    pub until_ms: Option<i64>,
}

impl Filter {
    /// Whether it finds this. What is no letter is found by its time alone, so that nobody takes a damaged log for an empty one.
    pub fn finds(&self, found: &Found) -> bool {
        let in_time = self.since_ms.is_none_or(|since| found.buried_ms >= since)
            && self.until_ms.is_none_or(|until| found.buried_ms < until);
        in_time
            && match &found.letter {
                Err(_) => self.seq.is_none(),
                Ok(letter) => {
                    let at = letter.at;
                    self.partition.is_none_or(|partition| partition == at.lane.partition)
                        && self.seq.is_none_or(|seq| seq == at.seq)
                        && self.class.is_none_or(|class| class == letter.class)
                }
            }
    }
}

/// Letters, in the order of their log, each coordinates once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// What was found.
    pub found: Vec<Found>,
    /// Where to go on; none at the end.
    pub next: Option<Place>,
}

/// What became of a letter that was to be replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was appended; a log may acknowledge without an offset.
    Replayed(Option<Seq>),
    /// It would be.
    WouldReplay,
    /// A pack has applied its replay before.
    Already(Replayed),
    /// It stays where it is: why.
    Left(String),
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log or its dead letters.
    #[error("the log: {0}")]
    Log(#[from] log::Error),
    /// The store.
    #[error("the store: {0}")]
    Store(#[from] store::Error),
}

impl Classified for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Log(error) => error.kind(),
            Self::Store(error) => error.kind(),
        }
    }
}

/// Finds and replays dead letters. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    log: Arc<dyn Log>,
    store: Arc<dyn Store>,
}

impl Handle {
    /// Those of this log.
    pub fn new(log: Arc<dyn Log>, store: Arc<dyn Store>) -> Self {
        Self { log, store }
    }

    fn letters(&self) -> Result<&dyn DeadLetters, Error> {
        let none = || log::Error::new(Kind::Permanent, "this log has no dead letters");
        Ok(self.log.dead_letters().ok_or_else(none)?)
    }

    /// Looks for letters after a place, or from the front: at most `limit`, and fewer when many others lie between.
    ///
    /// # Errors
    /// The dead-letter log cannot be read.
    pub async fn page(&self, filter: &Filter, after: Option<Place>, limit: usize) -> Result<Page, Error> {
        let letters = self.letters()?;
        let (mut page, mut seen, mut bytes) = (Page { found: Vec::new(), next: after }, BTreeSet::new(), 0);
        loop {
            let batch = letters.read_letters(page.next.as_ref(), READ_BYTES).await?;
            if batch.is_empty() {
                page.next = None;
                return Ok(page);
            }
            for found in batch {
                page.next = Some(found.place.clone());
                bytes += found.letter.as_ref().map_or(0, |letter| letter.payload.len());
                // One that was buried twice is the first one.
                let is_new = found.letter.as_ref().map_or(true, |letter| seen.insert(letter.at));
                if is_new && filter.finds(&found) {
                    page.found.push(found);
                }
                if page.found.len() >= limit || bytes >= PAGE_BYTES {
                    return Ok(page);
                }
            }
        }
    }

    /// The pack that has applied the replay of a dead letter, if any has.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn replayed(&self, at: Coordinates) -> Result<Option<Replayed>, Error> {
        let topic = &self.log.topology().topic;
        let rows = self.store.letters(topic, at.lane, at.seq, at.seq, 1).await?;
        Ok(rows.iter().find(|row| row.seq == at.seq).and_then(|row| row.replayed))
    }

    /// The layouts that packs may be routed by.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn epochs(&self) -> Result<Vec<EpochRow>, Error> {
        let topology = self.log.topology();
        let mut epochs = self.store.epochs(&topology.topic).await?;
        epochs.retain(|epoch| epoch.topic_id == topology.topic_id);
        Ok(epochs)
    }

    /// Replays a letter, or says what would become of it.
    ///
    /// # Errors
    /// Log or store cannot be asked, or it is unknown whether it was appended: ask again.
    pub async fn replay(&self, letter: &DeadLetter, epochs: &[EpochRow], dry_run: bool) -> Result<Outcome, Error> {
        let record = match self.record(letter).await? {
            Ok(record) => record,
            Err(why) => return Ok(Outcome::Left(why)),
        };
        let pack = match self.fits(&record, letter.at, epochs) {
            Ok(pack) => pack,
            Err(why) => return Ok(Outcome::Left(why)),
        };
        // The replay of a replay is one of what that one replayed: what both carry counts once.
        let at = poison::replayed(&pack).unwrap_or(letter.at);
        if let Some(by) = self.replayed(at).await? {
            return Ok(Outcome::Already(by));
        }
        if dry_run {
            return Ok(Outcome::WouldReplay);
        }
        let appended = self.log.append(at.lane.partition, pack.version, again(pack, at)).await;
        match appended {
            Ok(appended) => Ok(Outcome::Replayed(appended.seq)),
            Err(error) if error.kind() == Kind::Permanent => Ok(Outcome::Left(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    /// The letter's record. Bytes that had changed at rest are not to be trusted, though they may make a pack: if the log
    /// has them whole again, restored from a copy, they are taken from there.
    async fn record(&self, letter: &DeadLetter) -> Result<Result<Record, String>, Error> {
        let DeadLetter { at, append_ms, format, payload, .. } = letter;
        let record = Record {
            seq: at.seq,
            append_ms: *append_ms,
            leader_epoch: None,
            format: *format,
            payload: payload.clone(),
            damage: None,
        };
        if letter.class != Class::Damaged {
            return Ok(Ok(record));
        }
        let why = format!("its bytes have changed at rest ({}), and the log has none that are whole", letter.reason);
        let topology = self.log.topology();
        if at.lane.topic_id != topology.topic_id || at.lane.partition >= self.log.partitions() {
            return Ok(Err(why));
        }
        let bounds = self.log.bounds(at.lane.partition).await?;
        if !(bounds.start..bounds.end).contains(&at.seq) {
            return Ok(Err(why));
        }
        let there = self.log.read(at.lane.partition, at.seq, 1).await?.into_iter().next();
        Ok(there.filter(|record| record.seq == at.seq && record.damage.is_none()).ok_or(why))
    }

    /// The pack, if its lane can apply it now. Nothing is appended that would halt the lane, or come back as a dead letter.
    fn fits(&self, record: &Record, at: Coordinates, epochs: &[EpochRow]) -> Result<Pack, String> {
        let pack = readable(record)?;
        let partition = at.lane.partition;
        let partitions = self.log.topology().partitions;
        if partition >= partitions {
            return Err(format!("the log has no partition {partition} now: it has {partitions}"));
        }
        poison::check_placement(&pack, partition).map_err(|poison| poison.reason)?;
        let is_begun = |epoch: &EpochRow| (epoch.partitions, epoch.shards) == (pack.partitions, pack.shards);
        if !epochs.iter().any(is_begun) {
            return Err(format!(
                "it was routed for {} partitions and {} shards, and no epoch of this log has these counts",
                pack.partitions, pack.shards
            ));
        }
        if let Some(replayed) = poison::replayed(&pack) {
            poison::check_replay(replayed, at.lane, at.seq).map_err(|poison| poison.reason)?;
        }
        Ok(pack)
    }
}

/// What this program reads in a record, or why it reads nothing.
pub fn readable(record: &Record) -> Result<Pack, String> {
    match Read::decode(record) {
        Ok(_) => pack::decode(record.format, record.payload.clone()).map_err(|error| error.to_string()),
        Err(Refusal::Poison(poison)) => Err(poison.reason),
        Err(Refusal::Halt(halt)) => Err(halt.to_string()),
    }
}

/// The pack once more: under a new id, and without the claims that its ingest made when it was appended first.
fn again(mut pack: Pack, at: Coordinates) -> Bytes {
    pack.id = Bytes::copy_from_slice(&PackId::random().0);
    pack.claims.clear();
    pack.urgent = false;
    pack.replayed = Some(pack::Coordinates {
        topic_id: Bytes::copy_from_slice(&at.lane.topic_id.0),
        partition: at.lane.partition,
        seq: at.seq.0,
    });
    pack.encode_record()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::{Lane, TopicId};

    fn found(partition: u32, seq: u64, class: Class, buried_ms: i64) -> Found {
        let lane = Lane { topic_id: TopicId([1; 16]), partition };
        let letter = DeadLetter {
            at: Coordinates { lane, seq: Seq(seq) },
            append_ms: 1,
            format: 1,
            class,
            reason: String::new(),
            payload: Bytes::new(),
        };
        Found { place: Place::default(), buried_ms, letter: Ok(letter) }
    }

    #[test]
    fn a_filter_finds_what_all_its_parts_find() {
        let letter = found(2, 7, Class::Damaged, 100);
        let all = Filter {
            partition: Some(2),
            seq: Some(Seq(7)),
            class: Some(Class::Damaged),
            since_ms: Some(100),
            until_ms: Some(101),
        };
        assert!(Filter::default().finds(&letter) && all.finds(&letter));
        for other in [
            Filter { partition: Some(1), ..all.clone() },
            Filter { seq: Some(Seq(8)), ..all.clone() },
            Filter { class: Some(Class::Malformed), ..all.clone() },
            Filter { since_ms: Some(101), ..all.clone() },
            Filter { until_ms: Some(100), ..all.clone() },
        ] {
            assert!(!other.finds(&letter), "{other:?}");
        }
        let none = Found { letter: Err("damaged".to_owned()), ..letter };
        assert!(Filter { partition: Some(9), ..Filter::default() }.finds(&none));
        assert!(!Filter { since_ms: Some(101), ..Filter::default() }.finds(&none));
    }
}
