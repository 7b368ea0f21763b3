//! One event: `{"name", "subject", "time", "id", "properties"}`.

use std::borrow::Cow;

use super::{
    batch::Event,
    json::{Read, Reader, Type},
    parser::Sink,
    text::{Checked, Fault, set, text, time, wrong_type},
};
use crate::item::{self, Invalid};

const FIELDS: &str = "`name`, `subject`, `time`, `id` and `properties`";
/// Longest properties, in bytes as received.
const MAX_PROPERTIES_BYTES: usize = 32 << 10;
/// Deepest properties: `{}` is one deep.
const MAX_PROPERTIES_DEPTH: usize = 32;

/// Reads an event, whose object has been entered, into the batch. Of several faults the first that is met counts.
pub(super) fn read<'a>(sink: &mut Sink<'_>, reader: &mut Reader<'a>) -> Read<()> {
    let mut name: Option<Cow<'a, str>> = None;
    let mut subject: Option<Cow<'a, str>> = None;
    let mut time_ms = None;
    let mut id: Option<Cow<'a, str>> = None;
    let mut properties: Option<&'a str> = None;

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
            "name" => set(&mut name, "name", text(reader, "name", |text| item::check_event_text("name", text))?)?,
            "subject" => {
                let value = text(reader, "subject", |text| item::check_event_text("subject", text))?;
                set(&mut subject, "subject", value)?;
            }
            "time" => set(&mut time_ms, "time", time(reader, sink.times)?)?,
            "id" => set(&mut id, "id", text(reader, "id", item::check_id)?)?,
            "properties" => set(&mut properties, "properties", object(reader)?)?,
            unknown => return Err(Fault::unknown(unknown, FIELDS).into()),
        }
    }

    let Some(name) = name else { return Err(Fault::missing("name").into()) };
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
    Ok(())
}

/// Reads properties, byte for byte: an object that is neither too long nor too deep.
fn object<'a>(reader: &mut Reader<'a>) -> Read<&'a str> {
    let met = reader.peek()?;
    if met != Type::Object {
        return Err(Fault::new("properties", wrong_type("properties", "an object", met)).into());
    }
    let text = reader.raw()?;
    check_properties(text).map_err(|invalid| Fault::new("properties", invalid))?;
    Ok(text)
}

fn check_properties(text: &str) -> Checked<()> {
    if text.len() > MAX_PROPERTIES_BYTES {
        let message = format!("properties have {} bytes; at most {MAX_PROPERTIES_BYTES} are allowed", text.len());
        return Err(Invalid::new("too_long", message));
    }
    if depth(text.as_bytes()) > MAX_PROPERTIES_DEPTH {
        let message = format!("properties are more than {MAX_PROPERTIES_DEPTH} deep");
        return Err(Invalid::new("too_deep", message));
    }
    Ok(())
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
