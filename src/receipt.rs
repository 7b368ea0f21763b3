//! Receipts: where the items of one request are in the log.
//!
//! A receipt is opaque to clients: a version byte, the topic's id, and (partition, seq) pairs as variable-length integers,
//! in URL-safe base64 without padding. It is at most 2 KiB long.

use std::fmt;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use prost::encoding::{decode_varint, encode_varint};

use crate::item::{Seq, TopicId};

const VERSION: u8 = 1;

/// Longest receipt that is read or written, in bytes.
pub const MAX_BYTES: usize = 2048;

/// The packs that hold a request's items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The topic's life.
    pub topic_id: TopicId,
    /// (partition, seq) of each pack, in ascending order of partition.
    pub packs: Vec<(u32, Seq)>,
}

impl Receipt {
    /// Reads a receipt. `None` when it is not one that [`fmt::Display`] printed.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_BYTES {
            return None;
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (head, mut rest) = bytes.split_at_checked(17)?;
        if head[0] != VERSION {
            return None;
        }
        let mut packs = Vec::new();
        while !rest.is_empty() {
            let partition = decode_varint(&mut rest).ok()?;
            let seq = decode_varint(&mut rest).ok()?;
            packs.push((u32::try_from(partition).ok()?, Seq(seq)));
        }
        Some(Self { topic_id: TopicId(head[1..].try_into().ok()?), packs })
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(17 + self.packs.len() * 8);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.topic_id.0);
        for (partition, seq) in &self.packs {
            encode_varint(u64::from(*partition), &mut bytes);
            encode_varint(seq.0, &mut bytes);
        }
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_reads_back_and_a_full_one_fits() {
        let receipt = Receipt { topic_id: TopicId([9; 16]), packs: (0..128).map(|p| (p, Seq(1 << 50))).collect() };
        let text = receipt.to_string();
        assert!(text.len() <= MAX_BYTES, "{}", text.len());
        assert_eq!(Receipt::parse(&text), Some(receipt));
    }

    #[test]
    fn what_is_not_a_receipt_is_refused() {
        let good = Receipt { topic_id: TopicId([9; 16]), packs: vec![(1, Seq(300))] }.to_string();
        for bad in ["", "AA", "not base64!", &good[..good.len() - 1], &"A".repeat(MAX_BYTES + 1)] {
            assert_eq!(Receipt::parse(bad), None, "{bad}");
        }
    }
}
