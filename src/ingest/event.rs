//! One event: `{"name", "subject", "time", "id", "properties"}`.

use std::borrow::Cow;

use serde::de::{IgnoredAny, MapAccess};
use serde_json::value::RawValue;

use super::{
    batch::Event,
    json::{Sink, refuse},
    text::{Fault, Name, Text, time, type_of, wrong_type},
};
use crate::item::{self, Invalid};

const FIELDS: &str = "`name`, `subject`, `time`, `id` and `properties`";
/// Longest properties, in bytes as received.
const MAX_PROPERTIES_BYTES: usize = 32 << 10;
/// Deepest properties: `{}` is one deep.
const MAX_PROPERTIES_DEPTH: usize = 32;

/// Reads an event into the batch. The outer error breaks the document, the inner one refuses the item: the first that is
/// met counts.
pub(super) fn read<'de, A: MapAccess<'de>>(sink: &mut Sink<'_>, mut map: A) -> Result<Result<(), Fault>, A::Error> {
    let mut name: Option<Cow<'de, str>> = None;
    let mut subject: Option<Cow<'de, str>> = None;
    let mut time_ms = None;
    let mut id: Option<Cow<'de, str>> = None;
    let mut properties: Option<&'de str> = None;

    while let Some(Name(field)) = map.next_key()? {
        let refused = match &*field {
            text @ ("name" | "subject" | "id")
                if match text {
                    "name" => name.is_none(),
                    "subject" => subject.is_none(),
                    _ => id.is_none(),
                } =>
            {
                let value = map.next_value::<Text<'de>>()?.required(text).and_then(|value| match text {
                    "id" => item::check_id(&value).map(|()| value),
                    what => item::check_event_text(what, &value).map(|()| value),
                });
                match value {
                    Err(invalid) => Fault::new(text, invalid),
                    Ok(value) => {
                        match text {
                            "name" => name = Some(value),
                            "subject" => subject = Some(value),
                            _ => id = Some(value),
                        }
                        continue;
                    }
                }
            }
            "time" if time_ms.is_none() => match time(map.next_value()?, sink.times) {
                Ok(value) => {
                    time_ms = Some(value);
                    continue;
                }
                Err(invalid) => Fault::new("time", invalid),
            },
            "properties" if properties.is_none() => match object(map.next_value()?) {
                Ok(value) => {
                    properties = Some(value);
                    continue;
                }
                Err(invalid) => Fault::new("properties", invalid),
            },
            known @ ("name" | "subject" | "time" | "id" | "properties") => {
                let fault = Fault::repeated(known);
                map.next_value::<IgnoredAny>()?;
                fault
            }
            unknown => {
                let fault = Fault::unknown(unknown, FIELDS);
                map.next_value::<IgnoredAny>()?;
                fault
            }
        };
        return refuse(map, refused);
    }

    let Some(name) = name else { return Ok(Err(Fault::missing("name"))) };
    let parser = sink.parser;
    let id = id.unwrap_or_else(|| match parser.idempotency_key {
        Some(key) => format!("{key}#{}", sink.index).into(),
        None => format!("{:032x}", rand::random::<u128>()).into(),
    });
    let event = Event {
        namespace: parser.namespace,
        name: &name,
        subject: subject.as_deref(),
        time_ms: time_ms.unwrap_or(parser.now_ms),
        id: &id,
        properties: properties.unwrap_or_default(),
    };
    sink.batch.push_event(&event, parser.partitions);
    Ok(Ok(()))
}

/// Properties, byte for byte: an object that is neither too long nor too deep.
fn object(raw: &RawValue) -> Result<&str, Invalid> {
    let text = raw.get();
    if !text.starts_with('{') {
        return Err(wrong_type("properties", "an object", type_of(text)));
    }
    if text.len() > MAX_PROPERTIES_BYTES {
        let message = format!("properties have {} bytes; at most {MAX_PROPERTIES_BYTES} are allowed", text.len());
        return Err(Invalid::new("too_long", message));
    }
    if depth(text.as_bytes()) > MAX_PROPERTIES_DEPTH {
        let message = format!("properties are more than {MAX_PROPERTIES_DEPTH} deep");
        return Err(Invalid::new("too_deep", message));
    }
    Ok(text)
}

/// How deep a JSON text is nested. Its grammar has been checked.
fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut quoted, mut escaped) = (false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_nesting_and_not_what_stands_in_strings() {
        assert_eq!(depth(b"{}"), 1);
        assert_eq!(depth(br#"{"a":[{"b":1},{}],"c":[]}"#), 3);
        assert_eq!(depth(br#"{"a":"[[[{{{","b\"":"\\","c":[]}"#), 2);
    }
}
