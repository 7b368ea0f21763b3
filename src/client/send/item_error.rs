//! What an ingest says against one item of a request.

use std::borrow::Cow;

use serde::Deserialize;

use crate::client::one_line;

/// What is wrong with one item.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct ItemError {
    pub(super) index: usize,
    pub(super) field: String,
    pub(super) message: String,
}

impl ItemError {
    /// What is wrong, for a line of a report.
    pub(super) fn describe(&self) -> Cow<'_, str> {
        match self.field.is_empty() {
            true => one_line(&self.message).into(),
            false => one_line(&format!("`{}`: {}", self.field, self.message)).into(),
        }
    }
}
