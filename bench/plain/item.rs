//! What comes in by HTTP and what is in a record: the same JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An increment.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    pub counter: String,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    #[serde(default = "one")]
    pub amount: i64,
    pub time: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

fn one() -> i64 {
    1
}

impl Item {
    /// One object, or an array of them.
    pub fn read(body: &[u8]) -> serde_json::Result<Vec<Self>> {
        if body.first() == Some(&b'[') { serde_json::from_slice(body) } else { Ok(vec![serde_json::from_slice(body)?]) }
    }

    /// The tags as one text: `key=value,…`.
    pub fn series(&self) -> String {
        let tags: Vec<_> = self.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        tags.join(",")
    }
}
