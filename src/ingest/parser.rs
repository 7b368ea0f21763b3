//! A body's JSON, read in one pass: one object, an array of objects, or one object a line.
//!
//! What is wrong with one item is noted and the pass goes on, so that every bad item is reported and, with
//! `partial=true`, the good ones are kept. What breaks the document itself ends it. Nothing is built in between: fields
//! are borrowed from the body and written into the batch's arena when their item has passed every check.

use super::{
    batch::{Batch, Kind},
    event, increment,
    json::{Read, Reader, Trouble, Type},
    limits::Limits,
    text::{Fault, wrong_type},
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
        let mut sink = Sink { parser: self, batch, times, index: 0 };
        match framing {
            Framing::Json => sink.document(body).map_err(|trouble| match *trouble {
                Trouble::TooMany => Unreadable::TooMany,
                trouble => Unreadable::Malformed(why(body, trouble)),
            })?,
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
}

impl Sink<'_> {
    fn document(&mut self, body: &str) -> Read<()> {
        let mut reader = Reader::new(body);
        match reader.peek()? {
            Type::Object => self.item(&mut reader)?,
            Type::Array => {
                reader.enter();
                let mut first = true;
                while reader.next_element(&mut first)? {
                    self.item(&mut reader)?;
                }
            }
            other => return Err(Fault::new("", wrong_type("a body", "an object or an array of objects", other)).into()),
        }
        reader.end()
    }

    /// Reads one line; `false` when it is one too many.
    fn line(&mut self, line: &str) -> bool {
        let index = self.index;
        let before = (self.batch.arena.len(), self.batch.items.len(), self.batch.rejected());
        let mut reader = Reader::new(line);
        if let Err(trouble) = self.item(&mut reader).and_then(|()| reader.end()) {
            if matches!(*trouble, Trouble::TooMany) {
                return false;
            }
            self.batch.arena.truncate(before.0);
            self.batch.items.truncate(before.1);
            if self.batch.rejected() == before.2 {
                let message = format!("the line is not one JSON object: {}", why(line, *trouble));
                self.batch.reject(ItemError { index, field: String::new(), code: "malformed_json", message });
            }
        }
        self.index = index + 1;
        true
    }

    #[inline]
    fn item(&mut self, reader: &mut Reader<'_>) -> Read<()> {
        if self.index >= self.parser.limits.max_items {
            return Err(Box::new(Trouble::TooMany));
        }
        let met = reader.peek()?;
        let (position, start) = (reader.position(), self.batch.arena.len());
        let read = if met == Type::Object {
            reader.enter();
            match self.batch.kind {
                Kind::Increment => increment::read(self, reader),
                Kind::Event => event::read(self, reader),
            }
        } else {
            Err(Fault::new("", wrong_type("an item", "an object", met)).into())
        };
        if let Err(trouble) = read {
            let Trouble::Fault(Fault { field, invalid: Invalid { code, message } }) = *trouble else {
                return Err(trouble);
            };
            // The rest of the item still has to be JSON, or the document is not.
            reader.skip_from(position)?;
            self.batch.arena.truncate(start);
            self.batch.reject(ItemError { index: self.index, field, code, message });
        }
        self.index += 1;
        Ok(())
    }
}

/// Why a text cannot be read, and where, for people.
#[cold]
fn why(text: &str, trouble: Trouble) -> String {
    match trouble {
        Trouble::Broken { at, why } => {
            let before = &text.as_bytes()[..at];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
            format!("{why}, at line {line}, column {column}")
        }
        Trouble::Fault(fault) => fault.invalid.message,
        Trouble::TooMany => "too many items".to_owned(),
    }
}

/// Appends the id that an item without one gets from the request's `Idempotency-Key`.
pub(super) fn write_derived_id(out: &mut Vec<u8>, key: &str, index: usize) {
    use std::io::Write as _;
    write!(out, "{key}#{index}").expect("a Vec takes what is written");
}
