//! What an entry's fields say: its value, and whether it tells the truth. Pure.
//!
//! | field | value |
//! | --- | --- |
//! | `b:LANE` | `total@seq`: the lane's total as of a seq |
//! | `p:LANE:SEQ` | a pack's delta |
//! | `s:LANE` | the highest seq that was left out |
//! | `w:LANE` | the lane's end as it was at the load, to wait for |
//! | `t` | a load under way: `token:life` |
//! | `full` | every lane's base is loaded: in which life |
//!
//! A life is `run:generation`: one run of one server, and one generation of the marks. What an entry says of itself holds in
//! the life in which it was loaded, and in no other: a server that comes back with an old snapshot has another run.

use smallvec::SmallVec;

/// What one lane gives to an entry. Positions are one past a seq; 0: nothing yet.
#[derive(Debug)]
struct Part<'a> {
    lane: &'a [u8],
    covered: u64,
    base: i128,
    pending: SmallVec<[(u64, i128); 4]>,
    left_out: u64,
    wait: u64,
}

impl Part<'_> {
    /// What the part says of the lane's total over every seq below `end`.
    fn below(&self, end: u64) -> i128 {
        let live = self.pending.iter().filter(|(seq, _)| (self.covered..end).contains(seq));
        live.fold(self.base, |sum, (_, amount)| sum.wrapping_add(*amount))
    }
}

/// An entry as it was read.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    full: Option<&'a [u8]>,
    parts: SmallVec<[Part<'a>; 2]>,
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `total@seq`
pub(super) fn base(text: &[u8]) -> Option<(i128, u64)> {
    let at = text.iter().rposition(|byte| *byte == b'@')?;
    Some((number(&text[..at])?, number(&text[at + 1..])?))
}

impl<'a> Entry<'a> {
    /// Reads an entry's fields; `None` when one of them is not ours.
    pub(super) fn read(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Option<Self> {
        let mut entry = Self { full: None, parts: SmallVec::new() };
        for (field, value) in fields {
            match field {
                b"full" => entry.full = Some(value),
                b"t" => {}
                [kind, b':', name @ ..] => match kind {
                    b'b' => {
                        let (total, seq) = base(value)?;
                        let part = entry.part(name);
                        (part.base, part.covered) = (total, seq + 1);
                    }
                    b'p' => {
                        let at = name.iter().rposition(|byte| *byte == b':')?;
                        let delta = (number(&name[at + 1..])?, number(value)?);
                        entry.part(&name[..at]).pending.push(delta);
                    }
                    b's' => entry.part(name).left_out = number::<u64>(value)? + 1,
                    b'w' => entry.part(name).wait = number(value)?,
                    _ => return None,
                },
                _ => return None,
            }
        }
        Some(entry)
    }

    fn part(&mut self, lane: &'a [u8]) -> &mut Part<'a> {
        let at = self.parts.iter().position(|part| part.lane == lane).unwrap_or_else(|| {
            let part = Part { lane, covered: 0, base: 0, pending: SmallVec::new(), left_out: 0, wait: 0 };
            self.parts.push(part);
            self.parts.len() - 1
        });
        &mut self.parts[at]
    }

    /// Whether every lane's base was loaded, in this life.
    pub(super) fn is_full(&self, run: &str, generation: Option<&str>) -> bool {
        let life = |full: &&[u8]| {
            full.strip_prefix(run.as_bytes()).and_then(|rest| rest.strip_prefix(b":")) == generation.map(str::as_bytes)
        };
        generation.is_some() && self.full.is_some_and(|full| life(&full))
    }

    pub(super) fn total(&self) -> i128 {
        self.parts.iter().fold(0, |sum, part| sum.wrapping_add(part.below(u64::MAX)))
    }

    /// Whether something was left out that no base has passed.
    pub(super) fn lacks(&self) -> bool {
        self.parts.iter().any(|part| part.left_out > part.covered)
    }

    /// The lanes that it waits for, with the ends that their publishes must reach.
    pub(super) fn waits(&self) -> impl Iterator<Item = (&'a [u8], u64)> {
        self.parts.iter().filter(|part| part.wait > 0).map(|part| (part.lane, part.wait))
    }

    /// One past the lane's base.
    pub(super) fn covered(&self, lane: &[u8]) -> u64 {
        self.parts.iter().find(|part| part.lane == lane).map_or(0, |part| part.covered)
    }

    /// The highest seq of the lane that it names.
    pub(super) fn highest(&self, lane: &[u8]) -> u64 {
        let part = self.parts.iter().find(|part| part.lane == lane);
        part.map_or(0, |part| {
            let named = part.covered.max(part.left_out).saturating_sub(1);
            part.pending.iter().fold(named, |high, (seq, _)| high.max(*seq))
        })
    }

    /// Whether it claimed another total of the lane, over every seq below `end`, than this; nothing is claimed of a lane
    /// that left something out, or that is waited for.
    pub(super) fn differs(&self, lane: &[u8], end: u64, total: i128, reached: u64) -> bool {
        let Some(part) = self.parts.iter().find(|part| part.lane == lane) else { return total != 0 };
        part.left_out <= part.covered && part.wait <= reached && part.below(end) != total
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn read(fields: &[(String, String)]) -> Option<Entry<'_>> {
        Entry::read(fields.iter().map(|(field, value)| (field.as_bytes(), value.as_bytes())))
    }

    fn fields(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(field, value)| ((*field).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn an_entry_is_full_in_the_life_in_which_it_was_loaded_only() {
        let loaded = fields(&[("full", "run1:g1"), ("b:a.0", "5@1")]);
        let entry = read(&loaded).unwrap();
        assert!(entry.is_full("run1", Some("g1")));
        for (run, generation) in [("run2", Some("g1")), ("run1", Some("g2")), ("run", Some("1:g1")), ("run1", None)] {
            assert!(!entry.is_full(run, generation), "{run} {generation:?}");
        }
        assert!(!read(&fields(&[("b:a.0", "5@1")])).unwrap().is_full("run1", Some("g1")));
    }

    #[test]
    fn fields_that_are_not_ours_make_no_entry() {
        for field in [("b:a.0", "5"), ("b:a.0", "x@1"), ("p:a.0", "1"), ("p:a.0:x", "1"), ("q:a.0", "1"), ("name", "x")]
        {
            assert!(read(&fields(&[field])).is_none(), "{field:?}");
        }
    }

    #[test]
    fn what_waits_or_was_left_out_is_not_called_wrong() {
        let other = |extra: &[(&str, &str)]| {
            let all = fields(&[&[("b:a.0", "5@1"), ("p:a.0:2", "1"), ("p:a.0:3", "1")], extra].concat());
            read(&all).unwrap().differs(b"a.0", 3, 7, 4)
        };
        assert!(other(&[]));
        assert!(!other(&[("s:a.0", "3")]));
        assert!(other(&[("s:a.0", "1")]));
        assert!(!other(&[("w:a.0", "5")]));
        assert!(other(&[("w:a.0", "4")]));
    }

    proptest! {
        #[test]
        fn the_value_is_the_bases_and_what_is_pending_above_them(
            bases in proptest::collection::btree_map(0..3_u32, (any::<i128>(), 0..20_u64), 0..3),
            pending in proptest::collection::btree_map((0..3_u32, 0..20_u64), any::<i64>(), 0..30),
            shuffle in any::<proptest::sample::Index>(),
        ) {
            let mut all: Vec<_> =
                bases.iter().map(|(lane, (total, seq))| (format!("b:t.{lane}"), format!("{total}@{seq}"))).collect();
            all.extend(pending.iter().map(|((lane, seq), amount)| (format!("p:t.{lane}:{seq}"), amount.to_string())));
            let by = if all.is_empty() { 0 } else { shuffle.index(all.len()) };
            all.rotate_left(by);
            let naive: BTreeMap<_, _> = pending
                .iter()
                .filter(|((lane, seq), _)| bases.get(lane).is_none_or(|(_, base)| seq > base))
                .collect();
            let expected = bases.values().fold(0_i128, |sum, (total, _)| sum.wrapping_add(*total));
            let expected = naive.values().fold(expected, |sum, amount| sum.wrapping_add(i128::from(**amount)));
            prop_assert_eq!(read(&all).unwrap().total(), expected);
        }
    }
}
