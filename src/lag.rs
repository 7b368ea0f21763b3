//! placeholder
use serde::{Deserialize, Serialize};

use crate::units::Span;

/// Settings under `lag.`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How often lag is measured.
    pub interval: Span,
    /// A lane whose oldest unstored pack is older than this is in WARN.
    pub warn: Span,
    /// A lane that has lag and has not moved for this long is in STALL.
    pub stall: Span,
}

impl Default for Options {
    fn default() -> Self {
        Self { interval: Span::from_secs(1), warn: Span::from_secs(30), stall: Span::from_secs(10) }
    }
}
