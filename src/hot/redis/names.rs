//! How keys and fields are called, and the slot of a key.
//!
//! | key | what |
//! | --- | --- |
//! | `PREFIX:c:{namespace\0counter\0}` | the entry of a whole counter, a hash |
//! | `PREFIX:s:{namespace\0counter\0tags}` | the entry of a series, a hash |
//! | `PREFIX:{lanes}:p:LANE` | one past the seq up to which the lane's publishes are through |
//! | `PREFIX:{lanes}:marks` | a hash: what holds for every entry, see `marks.rs` |
//!
//! A lane is called by the first half of its topic's id and its partition.

use redis::Cmd;

use crate::{
    hot::{HotKey, HotKind},
    item::{Lane, Seq},
};

/// Slots of a cluster.
pub(super) const SLOTS: u16 = 16_384;

/// Names under one prefix.
pub(super) struct Names {
    prefix: String,
    /// The key of the marks.
    pub(super) marks: Vec<u8>,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), marks: format!("{prefix}:{{lanes}}:marks").into_bytes() }
    }

    /// Writes the key of an entry over `out`.
    pub(super) fn write_entry(&self, out: &mut Vec<u8>, key: &HotKey) {
        out.clear();
        out.extend_from_slice(self.prefix.as_bytes());
        out.extend_from_slice(match key.kind {
            HotKind::Counter => b":c:{",
            HotKind::Series => b":s:{",
        });
        out.extend_from_slice(&key.key);
        out.push(b'}');
    }

    pub(super) fn entry(&self, key: &HotKey) -> Vec<u8> {
        let mut name = Vec::with_capacity(self.prefix.len() + key.key.len() + 5);
        self.write_entry(&mut name, key);
        name
    }

    /// The key of what a lane has published.
    pub(super) fn published(&self, lane: &str) -> String {
        format!("{}:{{lanes}}:p:{lane}", self.prefix)
    }
}

/// How a lane is called in keys and fields.
pub(super) fn lane_name(lane: Lane) -> String {
    use std::fmt::Write as _;
    let mut name = String::with_capacity(20);
    for byte in &lane.topic_id.0[..8] {
        // Writing to a String does not fail.
        let _ = write!(name, "{byte:02x}");
    }
    let _ = write!(name, ".{}", lane.partition);
    name
}

/// The field of a pending delta.
pub(super) fn pending_field(lane: &str, seq: Seq) -> String {
    format!("p:{lane}:{seq}")
}

/// A command that is sent to the server of a slot.
pub(super) struct Command {
    pub(super) slot: u16,
    pub(super) cmd: Cmd,
}

impl Command {
    /// A command on `key`, which is its first argument.
    pub(super) fn on(name: &str, key: &[u8], room: usize) -> Self {
        let mut cmd = Cmd::with_capacity(5, name.len() + key.len() + room);
        cmd.arg(name).arg(key);
        Self { slot: slot(key), cmd }
    }
}

/// The slot of a key: CRC16 (XMODEM) of its hash tag, or of all of it.
pub(super) fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let length = rest.iter().position(|byte| *byte == b'}')?;
        (length > 0).then_some(&rest[..length])
    });
    let crc = tag.unwrap_or(key).iter().fold(0_u16, |crc, byte| (crc << 8) ^ CRC[usize::from((crc >> 8) as u8 ^ byte)]);
    crc % SLOTS
}

const CRC: [u16; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let mut crc = (at as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[at] = crc;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::TopicId;

    #[test]
    fn slots_are_those_that_servers_compute() {
        // As `CLUSTER KEYSLOT` answers.
        for (key, expected) in [("123456789", 12_739), ("foo", 12_182), ("{foo}bar", 12_182), ("a{}b", 13_694)] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
        let names = Names::new("t");
        assert_eq!(slot(&names.marks), slot(names.published("a.1").as_bytes()));
    }

    #[test]
    fn entries_and_lanes_have_names_of_their_own() {
        let names = Names::new("tallymark");
        let key = |kind| HotKey { kind, key: b"default\0c\0"[..].into() };
        assert_eq!(names.entry(&key(HotKind::Counter)), b"tallymark:c:{default\0c\0}");
        assert_eq!(names.entry(&key(HotKind::Series)), b"tallymark:s:{default\0c\0}");
        let lane = Lane { topic_id: TopicId([0xab; 16]), partition: 12 };
        assert_eq!(lane_name(lane), "abababababababab.12");
    }
}
