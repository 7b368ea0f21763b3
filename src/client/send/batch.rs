//! Items on their way, as NDJSON, each with the number of the line that it came from.

use std::ops::Range;

/// Which endpoint takes an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `/v1/increments`.
    Increments,
    /// `/v1/events`.
    Events,
}

impl Kind {
    /// The last segment of the endpoint's path.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Increments => "increments",
            Self::Events => "events",
        }
    }
}

/// Items for one endpoint, in order.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) kind: Kind,
    body: Vec<u8>,
    /// Where each item ends in `body`, its line break included.
    ends: Vec<usize>,
    lines: Vec<u64>,
}

impl Batch {
    pub(super) const fn new(kind: Kind) -> Self {
        Self { kind, body: Vec::new(), ends: Vec::new(), lines: Vec::new() }
    }

    /// Adds the item that `write` appends: one line of JSON, its line break included.
    pub(super) fn push_with(&mut self, line: u64, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.body);
        self.ends.push(self.body.len());
        self.lines.push(line);
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.body.len()
    }

    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// The line that an item came from.
    pub(super) fn line(&self, index: usize) -> Option<u64> {
        self.lines.get(index).copied()
    }

    /// The first and the last line that items came from.
    pub(super) fn span(&self) -> Option<(u64, u64)> {
        Some((*self.lines.first()?, *self.lines.last()?))
    }

    /// Each item's line and bytes.
    pub(super) fn items(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let ranges = starts.zip(&self.ends).map(|(start, end)| Range { start, end: *end });
        self.lines.iter().copied().zip(ranges.map(|range| &self.body[range]))
    }

    /// Two halves; `None` when there is nothing to divide.
    pub(super) fn halves(&self) -> Option<[Self; 2]> {
        if self.len() < 2 {
            return None;
        }
        let mut halves = [Self::new(self.kind), Self::new(self.kind)];
        for (index, (line, item)) in self.items().enumerate() {
            let half = usize::from(index >= self.len() / 2);
            halves[half].push_with(line, |body| body.extend_from_slice(item));
        }
        Some(halves)
    }
}

/// What the reader read: some lines' items, and the lines that gave none.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) increments: Batch,
    pub(super) events: Batch,
    /// Lines that are no items, with the reason.
    pub(super) bad: Vec<(u64, String)>,
    /// How many lines were read, blank ones left out.
    pub(super) lines: u64,
    /// How many bytes of the input were read.
    pub(super) bytes: u64,
}

impl Chunk {
    pub(super) const fn new() -> Self {
        Self {
            increments: Batch::new(Kind::Increments),
            events: Batch::new(Kind::Events),
            bad: Vec::new(),
            lines: 0,
            bytes: 0,
        }
    }

    /// How many bytes of items are in it.
    pub(super) fn item_bytes(&self) -> usize {
        self.increments.bytes() + self.events.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_hold_the_same_items_in_the_same_order() {
        let mut batch = Batch::new(Kind::Events);
        for line in 1..=5 {
            batch.push_with(line, |body| body.extend_from_slice(format!("{line}\n").as_bytes()));
        }
        let [first, second] = batch.halves().unwrap();
        assert_eq!((first.body(), second.body()), (&b"1\n2\n"[..], &b"3\n4\n5\n"[..]));
        assert_eq!((first.span(), second.span(), second.line(1)), (Some((1, 2)), Some((3, 5)), Some(4)));
        assert!(first.halves().unwrap()[0].halves().is_none());
    }
}
