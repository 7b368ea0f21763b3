//! placeholder
use serde::{Deserialize, Serialize};

use crate::units::{Size, Span};

/// Settings under `ingest.`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Largest body as sent.
    pub max_body: Size,
    /// Largest body after decompression.
    pub max_decoded: Size,
    /// Most items of one request.
    pub max_items: usize,
    /// How far ahead of now an item's time may be.
    pub max_future: Span,
    /// How old an item may be; 0: no bound.
    pub max_age: Span,
    /// How long a pack waits for more items.
    pub linger: Span,
    /// A pack closes at this size.
    pub pack_bytes: Size,
    /// Unacknowledged packs of one partition.
    pub in_flight: usize,
    /// Bytes of items that are accepted into packs and not acknowledged; beyond it: 429.
    pub buffer: Size,
    /// How long a request waits for the log; beyond it: 503.
    pub ack_timeout: Span,
    /// The format version that packs are written in.
    pub format: u32,
    /// The time buckets that every increment counts into: `minute`, `hour`, `day`.
    pub grains: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_body: Size::mib(5),
            max_decoded: Size::mib(20),
            max_items: 10_000,
            max_future: Span::from_secs(86_400),
            max_age: Span::default(),
            linger: Span::from_millis(1),
            pack_bytes: Size::kib(256),
            in_flight: 2,
            buffer: Size::mib(64),
            ack_timeout: Span::from_secs(10),
            format: crate::pack::FORMAT,
            grains: vec!["hour".to_owned(), "day".to_owned()],
        }
    }
}
