//! A message as the port's record.

use bytes::Bytes;
use rdkafka::{
    Timestamp,
    message::{BorrowedMessage, Headers as _, Message as _},
};

use super::{super::Record, ffi};
use crate::item::Seq;

/// The header that carries the format version, as decimal digits.
pub(super) const FORMAT_HEADER: &str = "tallymark-format";

/// Copies the message out of the library's memory.
pub(super) fn of(message: &BorrowedMessage<'_>) -> Record {
    let (append_ms, damage) = match message.timestamp() {
        Timestamp::LogAppendTime(ms) => (ms, None),
        // Stamps are computed from the log's clock: another clock's time is as good as none (law 3).
        Timestamp::CreateTime(ms) => (ms, Some(FOREIGN_CLOCK.to_owned())),
        Timestamp::NotAvailable => (0, Some(FOREIGN_CLOCK.to_owned())),
    };
    Record {
        seq: Seq(u64::try_from(message.offset()).unwrap_or(0)),
        append_ms,
        leader_epoch: ffi::leader_epoch(message),
        format: format(message).unwrap_or(0),
        payload: message.payload().map_or_else(Bytes::new, Bytes::copy_from_slice),
        damage,
    }
}

const FOREIGN_CLOCK: &str = "it carries its producer's time instead of the log's: the topic's message.timestamp.type was \
                             not LogAppendTime when it was appended";

fn format(message: &BorrowedMessage<'_>) -> Option<u32> {
    let header = message.headers()?.iter().find(|header| header.key == FORMAT_HEADER)?;
    std::str::from_utf8(header.value?).ok()?.parse().ok()
}
