//! The keys of the embedded tables: bytes whose order is the order of the CQL primary keys.
//!
//! Numbers are big-endian with their sign flipped. A text that something follows is closed by `00 01`, and a NUL in it
//! becomes `00 FF`: so a text sorts before every longer one that begins with it, whatever it holds. The last text of a
//! key stands as it is. What a key holds is read back from it; values do not repeat it.

use std::{borrow::Cow, sync::Arc};

use crate::{
    item::{Epoch, Lane, Namespace, Seq, Shard, TopicId},
    store::{RowName, ShardKey},
};

use super::values::Damaged;

/// No key of the engine is longer.
pub const MAX_KEY_BYTES: usize = u16::MAX as usize;

const END: [u8; 2] = [0, 1];
const NUL: [u8; 2] = [0, 0xff];

/// Which half of a lane's row a key of `checkpoints` names: each has a stamp of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LaneHalf {
    /// The checkpoint.
    Checkpoint = 0,
    /// The `stored` seq.
    Stored = 1,
}

/// Appends a text that something follows.
pub fn push_text(out: &mut Vec<u8>, text: &str) {
    if text.as_bytes().contains(&0) {
        for byte in text.bytes() {
            if byte == 0 {
                out.extend_from_slice(&NUL);
            } else {
                out.push(byte);
            }
        }
    } else {
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(&END);
}

/// Appends a number so that bytes compare as it does.
pub fn push_i64(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(&(number ^ i64::MIN).to_be_bytes());
}

/// What all keys of a partition of the totals begin with.
pub fn push_shard(out: &mut Vec<u8>, key: &ShardKey) {
    push_text(out, key.namespace.as_str());
    out.extend_from_slice(&(key.shard.0 ^ i32::MIN).to_be_bytes());
    out.extend_from_slice(&key.epoch.0);
}

/// A row of the totals, after [`push_shard`].
pub fn push_row_name(out: &mut Vec<u8>, name: &RowName) {
    push_text(out, &name.counter);
    out.extend_from_slice(name.tags.as_bytes());
}

/// What all keys of one name's, or one subject's, events begin with.
pub fn push_events_of(out: &mut Vec<u8>, namespace: &Namespace, name_or_subject: &str) {
    push_text(out, namespace.as_str());
    push_text(out, name_or_subject);
}

/// Where the events of this time and id begin, after [`push_events_of`]; an event by name ends in its stamp,
/// one by subject in its name and its stamp.
///
/// The stamp is part of the key so that an event is written without a look at what is there: an older one has no effect
/// because it comes after the newer one in the order of a page, which takes the first of each.
pub fn push_event(out: &mut Vec<u8>, time_ms: i64, id: &str) {
    push_i64(out, time_ms);
    push_text(out, id);
}

/// One half of a lane's row.
pub fn lane(topic: &str, lane: Lane, half: LaneHalf) -> Vec<u8> {
    let mut key = Vec::with_capacity(topic.len() + 32);
    push_text(&mut key, topic);
    key.extend_from_slice(&lane.topic_id.0);
    key.extend_from_slice(&lane.partition.to_be_bytes());
    key.push(half as u8);
    key
}

/// What the dead letters of a lane begin with.
pub fn letters(topic: &str, lane: Lane) -> Vec<u8> {
    let mut key = Vec::with_capacity(topic.len() + 40);
    push_text(&mut key, topic);
    key.extend_from_slice(&lane.topic_id.0);
    key.extend_from_slice(&lane.partition.to_be_bytes());
    key
}

/// A dead letter, after [`letters`].
pub fn push_seq(out: &mut Vec<u8>, seq: Seq) {
    out.extend_from_slice(&seq.0.to_be_bytes());
}

/// An epoch of a topic.
pub fn epoch(topic: &str, epoch: Epoch) -> Vec<u8> {
    let mut key = Vec::with_capacity(topic.len() + 16);
    push_text(&mut key, topic);
    key.extend_from_slice(&epoch.0);
    key
}

/// The least key that is greater than every key that begins with `prefix`; none when there is no such key.
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut after = prefix[..=last].to_vec();
    after[last] += 1;
    Some(after)
}

/// Reads a key from its front.
pub struct KeyReader<'a>(&'a [u8]);

impl<'a> KeyReader<'a> {
    /// Reads what follows the first `skip` bytes.
    pub fn new(key: &'a [u8], skip: usize) -> Result<Self, Damaged> {
        key.get(skip..).map(Self).ok_or(Damaged("a key is too short"))
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Damaged("a key is too short"))?;
        self.0 = rest;
        Ok(*bytes)
    }

    /// A text that something follows.
    pub fn text(&mut self) -> Result<Cow<'a, str>, Damaged> {
        let mut joined = Vec::new();
        let mut rest = self.0;
        loop {
            let at = rest.iter().position(|byte| *byte == 0).ok_or(Damaged("a key has an open text"))?;
            let (piece, mark) = rest.split_at(at);
            let (mark, after) = mark.split_first_chunk().ok_or(Damaged("a key has an open text"))?;
            match *mark {
                END => {
                    self.0 = after;
                    if joined.is_empty() {
                        return utf8(piece).map(Cow::Borrowed);
                    }
                    joined.extend_from_slice(piece);
                    return String::from_utf8(joined).map(Cow::Owned).map_err(|_| NOT_TEXT);
                }
                NUL => {
                    joined.extend_from_slice(piece);
                    joined.push(0);
                    rest = after;
                }
                _ => return Err(Damaged("a key has an unknown escape")),
            }
        }
    }

    /// The text that ends the key.
    pub fn last_text(self) -> Result<&'a str, Damaged> {
        utf8(self.0)
    }

    /// A number.
    pub fn i64(&mut self) -> Result<i64, Damaged> {
        Ok(i64::from_be_bytes(self.bytes()?) ^ i64::MIN)
    }

    /// A lane and which half of it, ending the key.
    pub fn lane(mut self) -> Result<(Lane, LaneHalf), Damaged> {
        let topic_id = TopicId(self.bytes()?);
        let partition = u32::from_be_bytes(self.bytes()?);
        let half = match self.0 {
            [0] => LaneHalf::Checkpoint,
            [1] => LaneHalf::Stored,
            _ => return Err(Damaged("a lane's key ends in an unknown half")),
        };
        Ok((Lane { topic_id, partition }, half))
    }

    /// A seq.
    pub fn seq(&mut self) -> Result<Seq, Damaged> {
        Ok(Seq(u64::from_be_bytes(self.bytes()?)))
    }

    /// An epoch.
    pub fn epoch(&mut self) -> Result<Epoch, Damaged> {
        self.bytes().map(Epoch)
    }

    /// A partition of the totals.
    pub fn shard(&mut self) -> Result<ShardKey, Damaged> {
        let namespace = Namespace::parse(&self.text()?).map_err(|_| Damaged("a key's namespace is malformed"))?;
        let shard = Shard(i32::from_be_bytes(self.bytes()?) ^ i32::MIN);
        Ok(ShardKey { namespace, shard, epoch: self.epoch()? })
    }

    /// A row of the totals; its counter is shared with the row before it where it is the same.
    pub fn row_name(mut self, previous: Option<&RowName>) -> Result<RowName, Damaged> {
        let counter = self.text()?;
        let counter = match previous {
            Some(previous) if *previous.counter == *counter => previous.counter.clone(),
            _ => Arc::from(counter),
        };
        Ok(RowName { counter, tags: self.last_text()?.into() })
    }
}

const NOT_TEXT: Damaged = Damaged("a key is not UTF-8");

fn utf8(bytes: &[u8]) -> Result<&str, Damaged> {
    std::str::from_utf8(bytes).map_err(|_| NOT_TEXT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = String> {
        "[a\u{0}\u{1}\u{ff}é]{0,5}"
    }

    fn row(counter: String, tags: String) -> RowName {
        RowName { counter: counter.into(), tags: tags.into() }
    }

    proptest! {
        #[test]
        fn keys_of_rows_sort_as_their_names_and_read_back(a in (text(), text()), b in (text(), text())) {
            let (a, b) = (row(a.0, a.1), row(b.0, b.1));
            let key = |name: &RowName| {
                let mut key = Vec::new();
                push_row_name(&mut key, name);
                key
            };
            prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
            prop_assert_eq!(KeyReader::new(&key(&a), 0).unwrap().row_name(Some(&b)).unwrap(), a);
        }

        #[test]
        fn keys_of_events_sort_by_time_id_and_name(
            a in (any::<i64>(), text(), text()),
            b in (any::<i64>(), text(), text()),
            near in any::<bool>(),
        ) {
            let b = if near { (a.0, b.1, b.2) } else { b };
            let by_name = |(time, id, _): &(i64, String, String)| {
                let mut key = Vec::new();
                push_event(&mut key, *time, id);
                key
            };
            let by_subject = |event: &(i64, String, String)| {
                let mut key = by_name(event);
                push_text(&mut key, &event.2);
                key
            };
            prop_assert_eq!(by_subject(&a).cmp(&by_subject(&b)), a.cmp(&b));
            prop_assert_eq!(by_name(&a).cmp(&by_name(&b)), (a.0, &a.1).cmp(&(b.0, &b.1)));
            let key = by_subject(&a);
            let mut reader = KeyReader::new(&key, 0).unwrap();
            prop_assert_eq!((reader.i64().unwrap(), reader.text().unwrap().into_owned()), (a.0, a.1));
            prop_assert_eq!(reader.text().unwrap(), a.2);
        }

        #[test]
        fn no_partition_begins_as_another(a in text(), b in text(), rest in text()) {
            prop_assume!(a != b);
            let (mut one, mut other) = (Vec::new(), Vec::new());
            push_text(&mut one, &a);
            push_text(&mut other, &b);
            other.extend_from_slice(rest.as_bytes());
            prop_assert!(!other.starts_with(&one));
        }

        #[test]
        fn bytes_that_are_no_key_are_damage_and_not_a_panic(key in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = KeyReader::new(&key, 0).unwrap().row_name(None);
            let _ = KeyReader::new(&key, 0).unwrap().lane();
            let _ = KeyReader::new(&key, 0).unwrap().epoch();
            prop_assert!(KeyReader::new(&key, 41).is_err());
        }

        #[test]
        fn what_follows_a_prefix_is_above_all_that_begin_with_it(
            prefix in prop::collection::vec(prop_oneof![Just(0xff), any::<u8>()], 0..4),
            rest in prop::collection::vec(any::<u8>(), 0..4),
        ) {
            if let Some(after) = after_prefix(&prefix) {
                prop_assert!([prefix.clone(), rest].concat() < after);
                prop_assert!(!after.starts_with(&prefix));
            } else {
                prop_assert!(prefix.iter().all(|byte| *byte == 0xff));
            }
        }
    }

    #[test]
    fn negative_shards_sort_before_the_others() {
        let key = |shard: i32| {
            let mut key = Vec::new();
            push_shard(
                &mut key,
                &ShardKey { namespace: Namespace::default(), shard: Shard(shard), epoch: Epoch([0xff; 8]) },
            );
            key
        };
        let order = [i32::MIN, -2, -1, 0, 1, i32::MAX].map(key);
        assert!(order.is_sorted());
    }
}
