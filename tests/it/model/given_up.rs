//! What a lane must be whose log lost its front before it was read, once an operator has accepted that. What was stored of
//! the packs that are gone nobody can know who reads the log alone: so a row may be as of any seq from what the store surely
//! had on, and from there on it is what the rest of the log adds.

use std::collections::BTreeSet;

use tallymark::{
    item::{Coordinates, Lane, Seq},
    log::Record,
    store::{EpochRow, EventRow, TotalRow},
    worker::accepted::Gap,
};

use super::{
    oracle::{Recount, RowKey, Version},
    replicas::{Key, Value},
    store::Servers,
};

/// See the module.
pub struct GivenUp {
    pub lane: Lane,
    pub gap: Gap,
    /// Below it everything was stored, unless the store has forgotten some of it since.
    stored: Seq,
    /// The lane over the whole history, as those compute it who have read what is gone.
    whole: Recount,
    /// What the rest of the log adds.
    rest: Recount,
}

impl GivenUp {
    /// The log begins at `start`, and the store has said to have everything below `stored`.
    pub fn new(lane: Lane, epochs: Vec<EpochRow>, start: Seq, stored: Seq, gap: Gap) -> Self {
        let whole = Recount::new(lane, epochs.clone());
        Self { lane, gap, stored, whole, rest: Recount::behind(lane, epochs, start, gap) }
    }

    pub fn advance(&mut self, history: &[Record]) {
        self.whole.advance(history);
        self.rest.advance(history);
    }

    /// What is wrong with what the servers hold, if anything. `forgot`: some of them have forgotten something.
    pub fn wrong(&self, servers: &Servers, forgot: bool) -> Option<String> {
        let sure = if forgot { self.gap.from } else { self.stored };
        let keys: BTreeSet<&RowKey> = self.whole.rows.keys().chain(self.rest.rows.keys()).collect();
        for pair in servers.quorums() {
            for key in &keys {
                let (shard, name) = (key.0.clone(), key.1.clone());
                let found = match servers.newest(pair, &Key::Total(shard, name)) {
                    Some(Value::Total(row)) => Some(row),
                    _ => None,
                };
                if !self.may_be(key, sure, found.as_ref()) {
                    let (whole, rest) = (self.whole.rows.get(*key), self.rest.rows.get(*key));
                    return Some(format!(
                        "{key:?} is {found:?} on {pair:?}; the log said {whole:?}, the rest {rest:?}"
                    ));
                }
            }
            let lacks = |event: &EventRow| {
                let key = Key::Event(event.namespace.clone(), event.name.clone(), event.time_ms, event.id.clone());
                servers.newest(pair, &key).is_none()
            };
            let mut events = self.whole.events.iter().filter(|(seq, _)| *seq < sure).chain(&self.rest.events);
            if let Some((seq, event)) = events.find(|(_, event)| lacks(event)) {
                return Some(format!("{pair:?} lacks event {} of {seq}", event.id));
            }
            let lacks = |seq: &&Seq| servers.newest(pair, &Key::Letter(self.at(**seq))).is_none();
            if let Some(seq) = self.rest.letters.range(self.gap.to..).find(lacks) {
                return Some(format!("{pair:?} does not know that {seq} is a dead letter"));
            }
        }
        None
    }

    fn at(&self, seq: Seq) -> Coordinates {
        Coordinates { lane: self.lane, seq }
    }

    /// Whether a row may be this, the store having surely had what is below `sure`.
    fn may_be(&self, key: &RowKey, sure: Seq, found: Option<&TotalRow>) -> bool {
        let versions = |recount: &Recount| recount.rows.get(key).cloned().unwrap_or_default();
        let (whole, rest) = (versions(&self.whole), versions(&self.rest));
        let least = whole.iter().rev().find(|version| version.seq < sure);
        let later = whole.iter().filter(|version| version.seq >= sure);
        std::iter::once(least).chain(later.map(Some)).any(|base| {
            let covered = base.map_or(self.gap.to.0, |base| self.gap.to.0.max(base.seq.0 + 1));
            let before = rest.iter().rev().find(|version| version.seq.0 < covered).map_or(0, |version| version.total);
            let Some(last) = rest.last().filter(|last| last.seq.0 >= covered) else {
                return found.map(|row| (row.total, row.seq)) == base.map(|base| (base.total, base.seq));
            };
            let total = base.map_or(0, |base| base.total) + last.total - before;
            let expected = Version { total, ..*last };
            found.is_some_and(|row| (row.total, row.seq, row.stamp) == (expected.total, expected.seq, expected.stamp))
        })
    }
}
