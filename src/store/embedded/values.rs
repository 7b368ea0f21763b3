//! The values of the embedded tables: a version, the stamp, then the columns.
//!
//! `[version 1][stamp 8]…` in every table but the events', whose keys hold their stamps, and `epochs`, whose rows are
//! written once. Integers are little-endian, counts
//! are LEB128, a total is the shortest big-endian two's complement that holds it (CQL's `varint`). A version that this
//! program does not know is never guessed at.

use bytes::Bytes;

use crate::{
    item::{Lane, PackId, Seq, Stamp, TopicId},
    store::{Checkpoint, Counted, EpochRow, EventRow, Replayed, TotalRow},
};

/// The version of every value that is written.
const VERSION: u8 = 1;
/// The flag of a checkpoint that carries control totals.
const COUNTED: u8 = 4;

/// What is wrong with bytes that this program did not write like that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged(pub &'static str);

/// The part of an event's value that a page reads beside its key.
pub struct EventValue {
    /// When ingest received it.
    pub received_ms: i64,
    /// To whom, where the key does not say it.
    pub subject: Option<String>,
    /// The JSON as received.
    pub properties: Bytes,
}

/// The stamp that a value was written with.
pub fn stamp(value: &[u8]) -> Result<Stamp, Damaged> {
    Reader::versioned(value)?.i64().map(Stamp)
}

fn begin(out: &mut Vec<u8>, stamp: Stamp) {
    out.push(VERSION);
    out.extend_from_slice(&stamp.0.to_le_bytes());
}

fn push_count(out: &mut Vec<u8>, mut count: u64) {
    while count >= 0x80 {
        out.push(count as u8 | 0x80);
        count >>= 7;
    }
    out.push(count as u8);
}

/// Appends the value of a row of the totals.
pub fn push_total(out: &mut Vec<u8>, row: &TotalRow) {
    begin(out, row.stamp);
    push_count(out, row.seq.0);
    let bytes = row.total.to_be_bytes();
    let sign = if row.total < 0 { 0xff } else { 0 };
    let spare = bytes.windows(2).take_while(|pair| pair[0] == sign && (pair[0] ^ pair[1]) & 0x80 == 0).count();
    out.extend_from_slice(&bytes[spare..]);
}

/// Reads the value of a row of the totals: stamp, seq and total.
pub fn read_total(value: &[u8]) -> Result<(Stamp, Seq, i128), Damaged> {
    let mut reader = Reader::versioned(value)?;
    let (stamp, seq) = (Stamp(reader.i64()?), Seq(reader.count()?));
    let bytes = reader.0;
    if bytes.is_empty() || bytes.len() > 16 {
        return Err(Damaged("a total is not of 1 to 16 bytes"));
    }
    let mut total = [if bytes[0] & 0x80 == 0 { 0 } else { 0xff }; 16];
    total[16 - bytes.len()..].copy_from_slice(bytes);
    Ok((stamp, seq, i128::from_be_bytes(total)))
}

/// Appends the value of an event; by subject, the key holds the subject and the value does not.
pub fn push_event(out: &mut Vec<u8>, row: &EventRow, with_subject: bool) {
    out.push(VERSION);
    out.extend_from_slice(&row.received_ms.to_le_bytes());
    match row.subject.as_deref().filter(|_| with_subject) {
        None => out.push(0),
        Some(subject) => {
            push_count(out, subject.len() as u64 + 1);
            out.extend_from_slice(subject.as_bytes());
        }
    }
    out.extend_from_slice(&row.properties);
}

/// Reads the value of an event.
pub fn read_event(value: &[u8]) -> Result<EventValue, Damaged> {
    let mut reader = Reader::versioned(value)?;
    let received_ms = reader.i64()?;
    let subject = match reader.count()? {
        0 => None,
        length => Some(reader.text(length - 1)?),
    };
    // A copy: a slice would hold the block or the mutation that it was read from for as long as the answer lives.
    Ok(EventValue { received_ms, subject, properties: Bytes::copy_from_slice(reader.0) })
}

/// The value of a checkpoint.
pub fn checkpoint(row: &Checkpoint) -> Vec<u8> {
    let mut out = Vec::with_capacity(80);
    begin(&mut out, row.stamp);
    push_count(&mut out, row.seq.0);
    out.extend_from_slice(&row.pack.0);
    push_count(&mut out, row.dedup_from.0);
    out.extend_from_slice(&row.dedup_stamp.0.to_le_bytes());
    out.push(u8::from(row.leader_epoch.is_some()) | u8::from(row.unmet_base.is_some()) << 1 | COUNTED);
    if let Some(leader_epoch) = row.leader_epoch {
        out.extend_from_slice(&leader_epoch.to_le_bytes());
    }
    if let Some(base) = row.unmet_base {
        push_count(&mut out, base.0);
    }
    let Counted { since, items, duplicates, amount } = row.counted;
    [since.0, items, duplicates].into_iter().for_each(|count| push_count(&mut out, count));
    out.extend_from_slice(&amount.to_le_bytes());
    out
}

/// Reads the value of a checkpoint of this lane.
pub fn read_checkpoint(lane: Lane, value: &[u8]) -> Result<Checkpoint, Damaged> {
    let mut reader = Reader::versioned(value)?;
    let stamp = Stamp(reader.i64()?);
    let seq = Seq(reader.count()?);
    let pack = PackId(reader.bytes()?);
    let dedup_from = Seq(reader.count()?);
    let dedup_stamp = Stamp(reader.i64()?);
    let [flags] = reader.bytes()?;
    let leader_epoch = if flags & 1 == 0 { None } else { Some(i32::from_le_bytes(reader.bytes()?)) };
    let unmet_base = if flags & 2 == 0 { None } else { Some(Seq(reader.count()?)) };
    let counted = match flags & COUNTED {
        // Before checkpoints carried control totals: they are counted from the next record on.
        0 => Counted::since(seq.next()),
        _ => Counted {
            since: Seq(reader.count()?),
            items: reader.count()?,
            duplicates: reader.count()?,
            amount: i128::from_le_bytes(reader.bytes()?),
        },
    };
    Ok(Checkpoint { lane, seq, leader_epoch, pack, stamp, dedup_from, dedup_stamp, unmet_base, counted })
}

/// The value of a lane's `stored` seq.
pub fn stored(seq: Seq, stamp: Stamp) -> Vec<u8> {
    let mut out = Vec::with_capacity(20);
    begin(&mut out, stamp);
    push_count(&mut out, seq.0);
    out
}

/// Reads a lane's `stored` seq and its stamp.
pub fn read_stored(value: &[u8]) -> Result<(Seq, Stamp), Damaged> {
    let mut reader = Reader::versioned(value)?;
    let stamp = Stamp(reader.i64()?);
    Ok((Seq(reader.count()?), stamp))
}

/// The value of a dead letter that nothing has replayed: the stamp of its record.
pub fn letter(stamp: Stamp) -> Vec<u8> {
    let mut out = Vec::with_capacity(10);
    begin(&mut out, stamp);
    out.push(0);
    out
}

/// The value of a dead letter that this pack has replayed.
pub fn replayed(by: Replayed) -> Vec<u8> {
    let mut out = Vec::with_capacity(40);
    begin(&mut out, by.stamp);
    out.push(1);
    out.extend_from_slice(&by.topic_id.0);
    push_count(&mut out, by.seq.0);
    out
}

/// Reads which pack has replayed a dead letter.
pub fn read_replayed(value: &[u8]) -> Result<Option<Replayed>, Damaged> {
    let mut reader = Reader::versioned(value)?;
    let stamp = Stamp(reader.i64()?);
    match reader.bytes()? {
        [0] => Ok(None),
        [1] => Ok(Some(Replayed { topic_id: TopicId(reader.bytes()?), seq: Seq(reader.count()?), stamp })),
        _ => Err(Damaged("a dead letter is in an unknown state")),
    }
}

/// The value of an epoch.
pub fn epoch(row: &EpochRow) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(&row.topic_id.0);
    push_count(&mut out, row.cluster_id.len() as u64);
    out.extend_from_slice(row.cluster_id.as_bytes());
    push_count(&mut out, row.partitions.into());
    push_count(&mut out, row.shards.into());
    out.extend_from_slice(&row.dedup_window_us.to_le_bytes());
    push_count(&mut out, row.dedup_max_ids);
    out.extend_from_slice(&row.created_ms.to_le_bytes());
    out
}

/// Reads the value of this epoch.
pub fn read_epoch(epoch: crate::item::Epoch, value: &[u8]) -> Result<EpochRow, Damaged> {
    let mut reader = Reader::versioned(value)?;
    let topic_id = TopicId(reader.bytes()?);
    let length = reader.count()?;
    let cluster_id = reader.text(length)?;
    let mut small = || u32::try_from(reader.count()?).map_err(|_| Damaged("a count is too large"));
    let (partitions, shards) = (small()?, small()?);
    Ok(EpochRow {
        epoch,
        topic_id,
        cluster_id,
        partitions,
        shards,
        dedup_window_us: reader.i64()?,
        dedup_max_ids: reader.count()?,
        created_ms: reader.i64()?,
    })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn versioned(value: &'a [u8]) -> Result<Self, Damaged> {
        match value.split_first() {
            Some((&VERSION, rest)) => Ok(Self(rest)),
            Some(_) => Err(Damaged("a row is of a version that this program does not know")),
            None => Err(Damaged("a row is empty")),
        }
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Damaged("a row is too short"))?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn i64(&mut self) -> Result<i64, Damaged> {
        self.bytes().map(i64::from_le_bytes)
    }

    fn count(&mut self) -> Result<u64, Damaged> {
        let mut count = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.bytes()?;
            count |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(count);
            }
        }
        Err(Damaged("a count does not end"))
    }

    fn text(&mut self, length: u64) -> Result<String, Damaged> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (text, rest) = self.0.split_at_checked(length).ok_or(Damaged("a row is too short"))?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).map_err(|_| Damaged("a text is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{item::Epoch, store::RowName};

    fn total(total: i128, seq: u64, stamp: i64) -> Vec<u8> {
        let name = RowName { counter: "c".into(), tags: "".into() };
        let mut value = Vec::new();
        push_total(&mut value, &TotalRow { name, total, seq: Seq(seq), stamp: Stamp(stamp) });
        value
    }

    #[test]
    fn totals_take_as_few_bytes_as_a_varint() {
        for (number, bytes) in
            [(0, 1), (127, 1), (128, 2), (-1, 1), (-128, 1), (-129, 2), (i128::MAX, 16), (i128::MIN, 16)]
        {
            let value = total(number, 0, 0);
            assert_eq!(value.len(), 10 + bytes, "{number}");
            assert_eq!(read_total(&value), Ok((Stamp(0), Seq(0), number)));
        }
    }

    #[test]
    fn a_checkpoint_that_was_written_before_control_totals_is_read_and_they_begin_after_it() {
        let lane = Lane { topic_id: TopicId([0; 16]), partition: 0 };
        let mut old = Vec::new();
        begin(&mut old, Stamp(9));
        push_count(&mut old, 300);
        old.extend_from_slice(&[7; 16]);
        push_count(&mut old, 5);
        old.extend_from_slice(&8_i64.to_le_bytes());
        old.push(2);
        push_count(&mut old, 301);
        let read = read_checkpoint(lane, &old).unwrap();
        assert_eq!((read.seq, read.unmet_base, read.counted), (Seq(300), Some(Seq(301)), Counted::since(Seq(301))));
    }

    proptest! {
        #[test]
        fn totals_read_back(number: i128, shift in 0..128u32, seq: u64, at: i64) {
            let value = total(number >> shift, seq, at);
            prop_assert_eq!(stamp(&value), Ok(Stamp(at)));
            prop_assert_eq!(read_total(&value), Ok((Stamp(at), Seq(seq), number >> shift)));
        }

        #[test]
        fn checkpoints_and_epochs_read_back(
            numbers: [u64; 4], stamps: [i64; 3], counts: [u32; 3], ids: [u8; 16],
            leader_epoch: Option<i32>, unmet: Option<u64>, cluster_id: String, amount: i128,
        ) {
            let lane = Lane { topic_id: TopicId(ids), partition: counts[0] };
            let row = Checkpoint {
                lane, seq: Seq(numbers[0]), leader_epoch, pack: PackId(ids), stamp: Stamp(stamps[0]),
                dedup_from: Seq(numbers[1]), dedup_stamp: Stamp(stamps[1]), unmet_base: unmet.map(Seq),
                counted: Counted { since: Seq(numbers[3]), items: numbers[1], duplicates: numbers[2], amount },
            };
            prop_assert_eq!(read_checkpoint(lane, &checkpoint(&row)), Ok(row));
            let value = stored(Seq(numbers[2]), Stamp(stamps[2]));
            prop_assert_eq!(read_stored(&value), Ok((Seq(numbers[2]), Stamp(stamps[2]))));
            let name = Epoch([7; 8]);
            let row = EpochRow {
                epoch: name, topic_id: TopicId(ids), cluster_id, partitions: counts[1], shards: counts[2],
                dedup_window_us: stamps[0], dedup_max_ids: numbers[3], created_ms: stamps[1],
            };
            prop_assert_eq!(read_epoch(name, &epoch(&row)), Ok(row));
        }

        #[test]
        fn bytes_that_are_no_value_are_damage_and_not_a_panic(value in prop::collection::vec(any::<u8>(), 0..60), known: bool) {
            let mut value = value;
            if let Some(first) = value.first_mut().filter(|_| known) {
                *first = VERSION;
            }
            let lane = Lane { topic_id: TopicId([0; 16]), partition: 0 };
            let _ = (stamp(&value), read_total(&value), read_checkpoint(lane, &value), read_stored(&value));
            let _ = (read_epoch(Epoch([0; 8]), &value), read_event(&value).is_ok());
        }
    }
}
