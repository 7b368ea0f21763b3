//! One increment: `{"counter", "tags", "amount", "time", "id"}`.

use std::{borrow::Cow, cmp::Ordering};

use smallvec::SmallVec;

use super::{
    batch::Increment,
    json::{Read, Reader, Trouble, Type},
    parser::{Sink, write_derived_id},
    text::{Fault, echo, integer, set, text, time, wrong_type},
};
use crate::item::{self, Invalid, MAX_TAGS};

const FIELDS: &str = "`counter`, `tags`, `amount`, `time` and `id`";

/// A tag's key and value.
type Tag<'a> = (Cow<'a, str>, Cow<'a, str>);
/// Most increments have few tags: these stand on the stack.
type Tags<'a> = SmallVec<[Tag<'a>; 8]>;

/// Reads an increment, whose object has been entered, into the batch. Of several faults the first that is met counts.
pub(super) fn read<'a>(sink: &mut Sink<'_>, reader: &mut Reader<'a>) -> Read<()> {
    let mut counter: Option<Cow<'a, str>> = None;
    let mut tags: Option<Tags<'a>> = None;
    let mut amount = None;
    let mut time_ms = None;
    let mut id: Option<Cow<'a, str>> = None;

    let mut first = true;
    while let Some(field) = reader.next_field(&mut first)? {
        let decoded;
        let field = if field.escaped {
            decoded = field.decode().unwrap_or_default();
            &*decoded
        } else {
            field.raw
        };
        match field {
            "counter" => set(&mut counter, "counter", text(reader, "counter", item::check_counter)?)?,
            "tags" => set(&mut tags, "tags", read_tags(reader)?)?,
            "amount" => set(&mut amount, "amount", integer(reader, "amount")?)?,
            "time" => set(&mut time_ms, "time", time(reader, sink.times)?)?,
            "id" => set(&mut id, "id", text(reader, "id", item::check_id)?)?,
            unknown => return Err(Fault::unknown(unknown, FIELDS).into()),
        }
    }

    let Some(counter) = counter else { return Err(Fault::missing("counter").into()) };
    let parser = sink.parser;
    let arena = &mut sink.batch.arena;
    let start = arena.len();
    item::write_series_key(arena, parser.namespace, &counter, &tags.unwrap_or_default());
    let key_end = arena.len();
    match (&id, parser.idempotency_key) {
        (Some(id), _) => arena.extend_from_slice(id.as_bytes()),
        (None, Some(key)) => write_derived_id(arena, key, sink.index),
        (None, None) => {}
    }
    let increment = Increment {
        start,
        key_end,
        prefix: parser.namespace.len() + counter.len() + 2,
        amount: amount.unwrap_or(1),
        time_ms: time_ms.unwrap_or(parser.now_ms),
    };
    sink.batch.push_increment(&increment, parser.shards, parser.partitions);
    Ok(())
}

/// Reads tags, sorted by key.
#[inline]
fn read_tags<'a>(reader: &mut Reader<'a>) -> Read<Tags<'a>> {
    let met = reader.peek()?;
    if met != Type::Object {
        return Err(Fault::new("tags", wrong_type("tags", "an object of strings", met)).into());
    }
    reader.enter();
    let mut tags = Tags::new();
    let mut first = true;
    while let Some(key) = reader.next_field(&mut first)? {
        let key = key.decode().unwrap_or(Cow::Borrowed(key.raw));
        let value = match text(reader, "a tag's value", item::check_tag_value) {
            Ok(value) => value,
            Err(trouble) => return Err(of_tag(&key, trouble)),
        };
        item::check_tag_key(&key).map_err(|invalid| Fault::new(&field_of(&key), invalid))?;
        if tags.len() == MAX_TAGS {
            let invalid = Invalid::new("too_many", format!("a series has at most {MAX_TAGS} tags"));
            return Err(Fault::new("tags", invalid).into());
        }
        // Few, and often sorted already: from the end.
        let mut place = tags.len();
        while place > 0 {
            match tags[place - 1].0.cmp(&key) {
                Ordering::Less => break,
                Ordering::Equal => return Err(Fault::repeated(&field_of(&key)).into()),
                Ordering::Greater => place -= 1,
            }
        }
        if place == tags.len() {
            tags.push((key, value));
        } else {
            tags.insert(place, (key, value));
        }
    }
    Ok(tags)
}

fn field_of(key: &str) -> String {
    format!("tags.{}", echo(key))
}

/// The same trouble, told of this tag.
#[cold]
fn of_tag(key: &str, mut trouble: Box<Trouble>) -> Box<Trouble> {
    if let Trouble::Fault(fault) = &mut *trouble {
        fault.field = field_of(key);
    }
    trouble
}
