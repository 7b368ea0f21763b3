//! One increment: `{"counter", "tags", "amount", "time", "id"}`.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use smallvec::SmallVec;

use super::{
    batch::Increment,
    json::{Sink, refuse, write_derived_id},
    text::{Fault, Name, Text, echo, integer, skip_map, skip_seq, time, visit_other_scalars, wrong_type},
};
use crate::item::{self, Invalid, MAX_TAGS};

const FIELDS: &str = "`counter`, `tags`, `amount`, `time` and `id`";

/// A tag's key and value.
type Tag<'de> = (Cow<'de, str>, Cow<'de, str>);
/// Most increments have few tags: these stand on the stack.
type Tags<'de> = SmallVec<[Tag<'de>; 8]>;

/// Reads an increment into the batch. The outer error breaks the document, the inner one refuses the item: the first
/// that is met counts.
pub(super) fn read<'de, A: MapAccess<'de>>(sink: &mut Sink<'_>, mut map: A) -> Result<Result<(), Fault>, A::Error> {
    let mut counter: Option<Cow<'de, str>> = None;
    let mut tags: Option<Tags<'de>> = None;
    let mut amount = None;
    let mut time_ms = None;
    let mut id: Option<Cow<'de, str>> = None;

    while let Some(Name(field)) = map.next_key()? {
        let refused = match &*field {
            "counter" if counter.is_none() => match checked("counter", map.next_value()?, item::check_counter) {
                Ok(value) => {
                    counter = Some(value);
                    continue;
                }
                Err(invalid) => Fault::new("counter", invalid),
            },
            "tags" if tags.is_none() => match map.next_value_seed(TagsSeed)? {
                Ok(value) => {
                    tags = Some(value);
                    continue;
                }
                Err(fault) => fault,
            },
            "amount" if amount.is_none() => match integer("amount", map.next_value()?) {
                Ok(value) => {
                    amount = Some(value);
                    continue;
                }
                Err(invalid) => Fault::new("amount", invalid),
            },
            "time" if time_ms.is_none() => match time(map.next_value()?, sink.times) {
                Ok(value) => {
                    time_ms = Some(value);
                    continue;
                }
                Err(invalid) => Fault::new("time", invalid),
            },
            "id" if id.is_none() => match checked("id", map.next_value()?, item::check_id) {
                Ok(value) => {
                    id = Some(value);
                    continue;
                }
                Err(invalid) => Fault::new("id", invalid),
            },
            known @ ("counter" | "tags" | "amount" | "time" | "id") => {
                let fault = Fault::repeated(known);
                map.next_value::<serde::de::IgnoredAny>()?;
                fault
            }
            unknown => {
                let fault = Fault::unknown(unknown, FIELDS);
                map.next_value::<serde::de::IgnoredAny>()?;
                fault
            }
        };
        return refuse(map, refused);
    }

    let Some(counter) = counter else { return Ok(Err(Fault::missing("counter"))) };
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
    Ok(Ok(()))
}

fn checked<'de>(
    what: &str,
    text: Text<'de>,
    check: impl Fn(&str) -> Result<(), Invalid>,
) -> Result<Cow<'de, str>, Invalid> {
    let text = text.required(what)?;
    check(&text).map(|()| text)
}

/// Reads tags, sorted by key.
struct TagsSeed;

impl<'de> DeserializeSeed<'de> for TagsSeed {
    type Value = Result<Tags<'de>, Fault>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

fn not_tags<'de, E>(met: &str) -> Result<Result<Tags<'de>, Fault>, E> {
    Ok(Err(Fault::new("tags", wrong_type("tags", "an object of strings", met))))
}

impl<'de> Visitor<'de> for TagsSeed {
    type Value = Result<Tags<'de>, Fault>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    visit_other_scalars!(|_, met| not_tags(met));

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        not_tags("a string")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        skip_seq(seq)?;
        not_tags("an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut tags = Tags::new();
        while let Some(Name(key)) = map.next_key()? {
            let value = map.next_value::<Text<'de>>()?;
            let tag = item::check_tag_key(&key)
                .and_then(|()| checked("a tag's value", value, item::check_tag_value))
                .map_err(|invalid| Fault::new(&format!("tags.{}", echo(&key)), invalid));
            let fault = match tag {
                Err(fault) => fault,
                Ok(_) if tags.len() == MAX_TAGS => {
                    Fault::new("tags", Invalid::new("too_many", format!("a series has at most {MAX_TAGS} tags")))
                }
                Ok(value) => match tags.binary_search_by(|(other, _)| other.as_ref().cmp(&key)) {
                    Ok(_) => Fault::repeated(&format!("tags.{key}")),
                    Err(place) => {
                        tags.insert(place, (key, value));
                        continue;
                    }
                },
            };
            skip_map(map)?;
            return Ok(Err(fault));
        }
        Ok(Ok(tags))
    }
}
