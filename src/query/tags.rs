//! Tags of a series, read in place, and what a filter or a grouping asks of them.

use std::borrow::Cow;

use serde::{Serialize, Serializer, ser::SerializeMap as _};

/// Tags as a JSON object, in the order given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TagMap(pub(super) Vec<(String, String)>);

impl Serialize for TagMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// Walks canonical tags without copying them; a value with escapes is unescaped.
pub(super) struct Tags<'a>(pub(super) &'a str);

impl<'a> Iterator for Tags<'a> {
    type Item = (&'a str, Cow<'a, str>);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, rest) = self.0.split_once('=')?;
        let mut escaped = false;
        let mut escapes = false;
        let end = rest.bytes().position(|byte| {
            let ends = !escaped && byte == b',';
            escaped = !escaped && byte == b'\\';
            escapes |= escaped;
            ends
        });
        let value = &rest[..end.unwrap_or(rest.len())];
        self.0 = end.map_or("", |end| &rest[end + 1..]);
        Some((key, if escapes { unescape(value).into() } else { value.into() }))
    }
}

fn unescape(value: &str) -> String {
    let mut chars = value.chars();
    let mut plain = String::with_capacity(value.len());
    while let Some(char) = chars.next() {
        plain.extend(if char == '\\' { chars.next() } else { Some(char) });
    }
    plain
}

/// What a tag's value must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// This value.
    Exact(String),
    /// A value that begins so.
    Prefix(String),
}

impl Pattern {
    /// Reads a pattern: a `*` at its end stands for anything. Backslashes right before that `*` escape it and each other:
    /// `a\*` is the value `a*`, `a\\*` anything that begins with `a\`.
    pub(super) fn parse(text: &str) -> Self {
        let Some(before) = text.strip_suffix('*') else { return Self::Exact(text.to_owned()) };
        let stem = before.trim_end_matches('\\');
        let backslashes = before.len() - stem.len();
        let stem = format!("{stem}{}", "\\".repeat(backslashes / 2));
        if backslashes % 2 == 1 { Self::Exact(stem + "*") } else { Self::Prefix(stem) }
    }

    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => value == exact,
            Self::Prefix(prefix) => value.starts_with(prefix.as_str()),
        }
    }

    /// The text that the value must be or begin with.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Prefix(text) => text,
        }
    }
}

/// Which series count: those that have all of these tags.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter(pub(super) Vec<(String, Pattern)>);

impl Filter {
    /// Whether a series with these canonical tags counts.
    pub(super) fn matches(&self, canonical: &str) -> bool {
        // Both are sorted by key, so one walk is enough.
        let mut tags = Tags(canonical);
        self.0.iter().all(|(key, pattern)| {
            tags.by_ref()
                .find(|(known, _)| *known >= key.as_str())
                .is_some_and(|(known, value)| known == key && pattern.matches(&value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::{read_tags, write_tags};
    use proptest::prelude::*;

    #[test]
    fn a_star_at_the_end_is_a_prefix_unless_escaped() {
        assert_eq!(Pattern::parse("a"), Pattern::Exact("a".into()));
        assert_eq!(Pattern::parse("a*"), Pattern::Prefix("a".into()));
        assert_eq!(Pattern::parse("*"), Pattern::Prefix(String::new()));
        assert_eq!(Pattern::parse(r"a\*"), Pattern::Exact("a*".into()));
        assert_eq!(Pattern::parse(r"a\\*"), Pattern::Prefix(r"a\".into()));
        assert_eq!(Pattern::parse(r"a\"), Pattern::Exact(r"a\".into()));
        assert_eq!(Pattern::parse("a*b"), Pattern::Exact("a*b".into()));
    }

    proptest! {
        #[test]
        fn tags_read_in_place_are_the_tags_that_were_written(
            tags in proptest::collection::btree_map("[a-z_][a-z.]{0,3}", r"[ab,\\=é]{0,6}", 0..5),
        ) {
            let tags: Vec<_> = tags.into_iter().collect();
            let mut text = Vec::new();
            write_tags(&mut text, &tags);
            let text = String::from_utf8(text).unwrap();
            let read: Vec<_> = Tags(&text).map(|(key, value)| (key.to_owned(), value.into_owned())).collect();
            prop_assert_eq!(&read, &read_tags(&text).unwrap());
            prop_assert_eq!(&read, &tags);
        }

        #[test]
        fn a_filter_matches_the_series_that_have_all_its_tags(
            tags in proptest::collection::btree_map("[abc]", "[xy]{0,2}", 0..4),
            wanted in proptest::collection::btree_map("[abc]", "[xy]{0,2}[*]?", 0..3),
        ) {
            let pairs: Vec<_> = tags.iter().collect();
            let mut text = Vec::new();
            write_tags(&mut text, &pairs);
            let expected = wanted.iter().all(|(key, value)| tags.get(key).is_some_and(|has| match value.strip_suffix('*') {
                Some(prefix) => has.starts_with(prefix),
                None => has == value,
            }));
            let filter = Filter(wanted.iter().map(|(key, value)| (key.clone(), Pattern::parse(value))).collect());
            prop_assert_eq!(filter.matches(std::str::from_utf8(&text).unwrap()), expected);
        }
    }
}
