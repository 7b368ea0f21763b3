//! Sums by the values of tags, and the largest of them.

use hashbrown::HashMap;

use super::tags::Tags;

/// Between the values of a group's key: no value contains it.
const SEPARATOR: char = '\0';

/// Sums of series by the values of some tags; a series that lacks a tag counts under the empty value.
pub(super) struct Groups<'a> {
    by: &'a [String],
    sums: HashMap<String, i128>,
    key: String,
}

impl<'a> Groups<'a> {
    /// Groups by these tags; by none, nothing is kept.
    pub(super) fn new(by: &'a [String]) -> Self {
        Self { by, sums: HashMap::new(), key: String::new() }
    }

    /// Adds a series with these canonical tags.
    pub(super) fn add(&mut self, tags: &str, total: i128) {
        if self.by.is_empty() {
            return;
        }
        self.key.clear();
        for (at, key) in self.by.iter().enumerate() {
            if at > 0 {
                self.key.push(SEPARATOR);
            }
            if let Some((_, value)) = Tags(tags).find(|(known, _)| known == key) {
                self.key.push_str(&value);
            }
        }
        let sum = self.sums.entry_ref(&self.key).or_insert(0);
        *sum = sum.saturating_add(total);
    }

    /// The `top` largest sums with their values, largest first and then by value, and the sum of the others.
    pub(super) fn largest(self, top: usize) -> (Vec<(Vec<String>, i128)>, i128) {
        let mut sums: Vec<_> = self.sums.into_iter().collect();
        let order = |a: &(String, i128), b: &(String, i128)| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0));
        if top < sums.len() {
            sums.select_nth_unstable_by(top, order);
        }
        let others = sums.split_off(top.min(sums.len()));
        sums.sort_unstable_by(order);
        let other = others.iter().fold(0_i128, |sum, (_, more)| sum.saturating_add(*more));
        let values = |key: String| key.split(SEPARATOR).map(str::to_owned).collect();
        (sums.into_iter().map(|(key, sum)| (values(key), sum)).collect(), other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_series_that_lacks_a_tag_counts_under_the_empty_value() {
        let by = ["path".to_owned(), "code".to_owned()];
        let mut groups = Groups::new(&by);
        groups.add("code=200,path=/a", 2);
        groups.add("code=200,lang=fr,path=/a", 3);
        groups.add("path=/a", 4);
        groups.add("", 1);
        let text = |values: [&str; 2]| values.map(str::to_owned).to_vec();
        let (largest, other) = groups.largest(2);
        assert_eq!(largest, [(text(["/a", "200"]), 5), (text(["/a", ""]), 4)]);
        assert_eq!(other, 1);
    }

    proptest! {
        #[test]
        fn the_largest_are_the_head_of_all_sorted_and_nothing_is_lost(
            rows in proptest::collection::vec(("[a-d]", -5_i128..5), 0..30),
            top in 1_usize..6,
        ) {
            let by = ["k".to_owned()];
            let mut groups = Groups::new(&by);
            let mut model = std::collections::BTreeMap::<String, i128>::new();
            for (value, total) in &rows {
                groups.add(&format!("k={value}"), *total);
                *model.entry(value.clone()).or_default() += total;
            }
            let mut sorted: Vec<_> = model.into_iter().map(|(value, sum)| (vec![value], sum)).collect();
            sorted.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            let rest = sorted.split_off(top.min(sorted.len()));
            let (largest, other) = groups.largest(top);
            prop_assert_eq!(largest, sorted);
            prop_assert_eq!(other, rest.iter().map(|(_, sum)| sum).sum::<i128>());
        }
    }
}
