//! A body's JSON, read in one pass: one object, an array of objects, or one object a line.
//!
//! What is wrong with one item is noted and the pass goes on, so that every bad item is reported and, with
//! `partial=true`, the good ones are kept. What breaks the document itself ends it. Nothing is built in between: fields
//! are borrowed from the body and written into the batch's arena when their item has passed every check.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::Deserializer;

use super::{
    batch::{Batch, Kind},
    event, increment,
    limits::Limits,
    text::{Fault, skip_map, skip_seq, visit_other_scalars, wrong_type},
};
use crate::{item::Invalid, problem::ItemError};

/// How items stand in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// One object, or an array of objects.
    Json,
    /// One object a line; blank lines do not count.
    Lines,
}

/// Why a body as a whole cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It is not one JSON document of the right shape.
    Malformed(String),
    /// It has more items than `ingest.max_items`.
    TooMany,
}

/// What the items of a request have in common.
#[derive(Clone, Copy, Debug)]
pub struct Parser<'a> {
    /// The bounds.
    pub limits: &'a Limits,
    /// The tenant.
    pub namespace: &'a str,
    /// When the request came, in milliseconds since 1970: the time of items that give none.
    pub now_ms: i64,
    /// Items without an id get this and `#index`.
    pub idempotency_key: Option<&'a str>,
    /// Whether valid items count although others do not: then every error is kept, not only the first 100.
    pub partial: bool,
    /// The counts that route items.
    pub shards: u32,
    /// The counts that route items.
    pub partitions: u32,
}

impl Parser<'_> {
    /// Reads a body into `batch`, which is emptied first. Items that do not pass are in [`Batch::errors`].
    ///
    /// # Errors
    /// When the body as a whole cannot be read; the batch then holds nothing of use.
    pub fn parse(&self, kind: Kind, framing: Framing, body: &str, batch: &mut Batch) -> Result<(), Unreadable> {
        batch.begin(kind, self.partial);
        let times = self.limits.times(self.now_ms);
        let mut sink = Sink { parser: self, batch, times, index: 0, too_many: false };
        match framing {
            Framing::Json => {
                let mut document = Deserializer::from_str(body);
                document.deserialize_any(Document(&mut sink)).and_then(|()| document.end()).map_err(|error| {
                    if sink.too_many { Unreadable::TooMany } else { Unreadable::Malformed(error.to_string()) }
                })?;
            }
            Framing::Lines => {
                for line in body.split('\n') {
                    let line = line.trim_matches([' ', '\t', '\r']);
                    if !line.is_empty() && !sink.line(line) {
                        return Err(Unreadable::TooMany);
                    }
                }
            }
        }
        batch.link(self.partitions as usize);
        Ok(())
    }
}

/// Where items go as they are read.
pub(super) struct Sink<'a> {
    pub parser: &'a Parser<'a>,
    pub batch: &'a mut Batch,
    /// The earliest and the latest time that an item may have.
    pub times: (i64, i64),
    /// The position of the item that is being read.
    pub index: usize,
    too_many: bool,
}

impl Sink<'_> {
    /// Reads one line; `false` when it is one too many.
    fn line(&mut self, line: &str) -> bool {
        let index = self.index;
        let before = (self.batch.arena.len(), self.batch.items.len(), self.batch.rejected());
        let mut document = Deserializer::from_str(line);
        let read = Item(self).deserialize(&mut document).and_then(|()| document.end());
        if self.too_many {
            return false;
        }
        if let Err(error) = read {
            self.batch.arena.truncate(before.0);
            self.batch.items.truncate(before.1);
            if self.batch.rejected() == before.2 {
                let text = error.to_string();
                let what = text.split(" at line ").next().unwrap_or_default();
                let message = format!("the line is not one JSON object: {what}, at column {}", error.column());
                self.batch.reject(ItemError { index, field: String::new(), code: "malformed_json", message });
            }
        }
        self.index = index + 1;
        true
    }

    fn reject(&mut self, fault: Fault) {
        let Fault { field, invalid: Invalid { code, message } } = fault;
        self.batch.reject(ItemError { index: self.index, field, code, message });
    }

    fn admit<E: serde::de::Error>(&mut self) -> Result<(), E> {
        if self.index < self.parser.limits.max_items {
            return Ok(());
        }
        self.too_many = true;
        Err(E::custom("too many items"))
    }
}

/// A whole body.
struct Document<'s, 'a>(&'s mut Sink<'a>);

impl<'s> Document<'s, '_> {
    fn other<E: serde::de::Error>(self, met: &str) -> Result<(), E> {
        Err(E::custom(format_args!("a body is an object or an array of objects, not {met}")))
    }
}

impl<'de> Visitor<'de> for Document<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array of objects")
    }

    visit_other_scalars!(Self::other);

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.other("a string")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        Item(self.0).visit_map(map)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Item(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

/// One item.
struct Item<'s, 'a>(&'s mut Sink<'a>);

impl Item<'_, '_> {
    fn other<E: serde::de::Error>(self, met: &str) -> Result<(), E> {
        self.0.admit()?;
        self.0.reject(Fault::new("", wrong_type("an item", "an object", met)));
        self.0.index += 1;
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Item<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Item<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    visit_other_scalars!(Self::other);

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.other("a string")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        self.other::<A::Error>("an array")?;
        skip_seq(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let sink = self.0;
        sink.admit::<A::Error>()?;
        let start = sink.batch.arena.len();
        let read = match sink.batch.kind {
            Kind::Increment => increment::read(sink, map)?,
            Kind::Event => event::read(sink, map)?,
        };
        if let Err(fault) = read {
            sink.batch.arena.truncate(start);
            sink.reject(fault);
        }
        sink.index += 1;
        Ok(())
    }
}

/// Reads the rest of an object whose item is refused already, and keeps the refusal.
pub(super) fn refuse<'de, A: MapAccess<'de>>(map: A, fault: Fault) -> Result<Result<(), Fault>, A::Error> {
    skip_map(map).map(|()| Err(fault))
}

/// Appends the id that an item without one gets from the request's `Idempotency-Key`.
pub(super) fn write_derived_id(out: &mut Vec<u8>, key: &str, index: usize) {
    use std::io::Write as _;
    write!(out, "{key}#{index}").expect("a Vec takes what is written");
}
