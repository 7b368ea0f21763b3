//! How a record lies on disk: its header is the key, its payload is the value, untouched and uncopied.
//!
//! The key is `seq (8) · append_ms (8) · format (4) · xxh3 (8)`, big-endian, so that a partition's records sort by seq.
//! The checksum covers the header before it and the payload: end to end, above the ones that the storage keeps for its
//! own blocks. What does not match it is delivered with the reason, never skipped (L5).

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::{item::Seq, log::Record};

/// The length of a key.
pub(super) const KEY_BYTES: usize = 28;
const SUMMED_BYTES: usize = 20;

/// A record's key.
pub(super) type Key = [u8; KEY_BYTES];

fn checksum(head: &[u8], payload: &[u8]) -> u64 {
    xxh3_64_with_seed(payload, xxh3_64(head))
}

/// The key of a record.
pub(super) fn key(seq: u64, append_ms: i64, format: u32, payload: &[u8]) -> Key {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&seq.to_be_bytes());
    key[8..16].copy_from_slice(&append_ms.to_be_bytes());
    key[16..SUMMED_BYTES].copy_from_slice(&format.to_be_bytes());
    let sum = checksum(&key[..SUMMED_BYTES], payload);
    key[SUMMED_BYTES..].copy_from_slice(&sum.to_be_bytes());
    key
}

/// The seq that a key begins with.
pub(super) fn seq_of(key: &[u8]) -> Option<u64> {
    key.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// The record of a key and its payload.
pub(super) fn decode(seq: u64, key: &[u8], payload: Bytes) -> Record {
    let Ok(key) = Key::try_from(key) else {
        return damaged(seq, payload, format!("its header has {} bytes, not {KEY_BYTES}", key.len()));
    };
    let append_ms = i64::from_be_bytes(key[8..16].try_into().expect("eight bytes"));
    let format = u32::from_be_bytes(key[16..SUMMED_BYTES].try_into().expect("four bytes"));
    let sum = u64::from_be_bytes(key[SUMMED_BYTES..].try_into().expect("eight bytes"));
    let damage = (checksum(&key[..SUMMED_BYTES], &payload) != sum)
        .then(|| "its checksum does not match its header and payload".to_owned());
    Record { seq: Seq(seq), append_ms, leader_epoch: None, format, payload, damage }
}

/// A record of which only the place is known.
pub(super) fn damaged(seq: u64, payload: Bytes, damage: String) -> Record {
    Record { seq: Seq(seq), append_ms: 0, leader_epoch: None, format: 0, payload, damage: Some(damage) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // The layout is what is on people's disks: it may grow beside this one, never change.
    #[test]
    fn the_key_of_layout_1_is_frozen() {
        let key = key(0x0102_0304_0506_0708, 1_700_000_000_123, 1, b"tallymark");
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "01020304050607080000018bcfe5687b00000001382a315c065cfa62");
    }

    proptest! {
        #[test]
        fn a_record_reads_back_and_any_changed_bit_is_seen(
            seq: u64, append_ms: i64, format: u32, payload in proptest::collection::vec(any::<u8>(), 0..64), at: usize, bit in 0_u8..8,
        ) {
            let mut key = key(seq, append_ms, format, &payload);
            let record = decode(seq, &key, Bytes::from(payload.clone()));
            prop_assert_eq!((record.seq, record.append_ms, record.format), (Seq(seq), append_ms, format));
            prop_assert_eq!(&record.payload[..], &payload[..]);
            prop_assert_eq!(record.damage, None);
            prop_assert_eq!(seq_of(&key), Some(seq));

            let mut payload = payload;
            let at = at % (KEY_BYTES + payload.len());
            match at.checked_sub(KEY_BYTES) {
                Some(at) => payload[at] ^= 1 << bit,
                None => key[at] ^= 1 << bit,
            }
            prop_assert!(decode(seq, &key, Bytes::from(payload)).damage.is_some());
        }
    }
}
