//! placeholder
use serde::{Deserialize, Serialize};

use crate::units::Span;

/// Settings under `query.`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How long a query may take.
    pub timeout: Span,
    /// Most series that one query may read.
    pub max_series: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { timeout: Span::from_secs(10), max_series: 2_000_000 }
    }
}
