//! Values of single fields: strings that may turn out to be something else, and numbers as they are written.
//!
//! A value of the wrong type is that item's error, not the document's: so a visitor here accepts every JSON type, and
//! says afterwards what it met.

use std::{borrow::Cow, fmt};

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::time::parse_rfc3339_ms;
use crate::item::Invalid;

/// Longest piece of a client's text that an error repeats.
const MAX_ECHO: usize = 64;

/// Why a field was refused.
pub(super) struct Fault {
    pub field: String,
    pub invalid: Invalid,
}

impl Fault {
    pub(super) fn new(field: &str, invalid: Invalid) -> Self {
        Self { field: field.to_owned(), invalid }
    }

    pub(super) fn unknown(field: &str, known: &str) -> Self {
        let field = echo(field);
        let message = format!("there is no field `{field}`; the fields are {known}");
        Self { field: field.into_owned(), invalid: Invalid::new("unknown_field", message) }
    }

    pub(super) fn repeated(field: &str) -> Self {
        let field = echo(field);
        let message = format!("`{field}` is given more than once");
        Self { field: field.into_owned(), invalid: Invalid::new("repeated_field", message) }
    }

    pub(super) fn missing(field: &str) -> Self {
        Self::new(field, Invalid::new("missing", format!("{field} is missing")))
    }
}

/// At most the first 64 bytes of a client's text.
pub(super) fn echo(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_ECHO {
        return text.into();
    }
    let end = (0..=MAX_ECHO).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &text[..end]).into()
}

/// Refuses a value for being of another JSON type.
pub(super) fn wrong_type(what: &str, expected: &str, met: &str) -> Invalid {
    Invalid::new("wrong_type", format!("{what} must be {expected}, not {met}"))
}

/// The visits of a JSON value that is neither text, array nor object: each is `$other(what it is)`.
macro_rules! visit_other_scalars {
    ($other:expr) => {
        fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Self::Value, E> {
            $other(self, "a boolean")
        }

        fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Self::Value, E> {
            $other(self, "a number")
        }

        fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Self::Value, E> {
            $other(self, "a number")
        }

        fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Self::Value, E> {
            $other(self, "a number")
        }

        fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
            $other(self, "null")
        }
    };
}
pub(super) use visit_other_scalars;

/// Reads the rest of an array, for its form only.
pub(super) fn skip_seq<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<(), A::Error> {
    while seq.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

/// Reads the rest of an object, for its form only.
pub(super) fn skip_map<'de, A: MapAccess<'de>>(mut map: A) -> Result<(), A::Error> {
    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}

/// A string, borrowed from the body unless it has escapes; or what stands in its place.
pub(super) enum Text<'de> {
    Is(Cow<'de, str>),
    Not(&'static str),
}

impl<'de> Text<'de> {
    /// The string; `what` names it in the refusal of anything else.
    pub(super) fn required(self, what: &str) -> Result<Cow<'de, str>, Invalid> {
        match self {
            Self::Is(text) => Ok(text),
            Self::Not(met) => Err(wrong_type(what, "a string", met)),
        }
    }
}

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text::Is(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text::Is(Cow::Owned(text.to_owned())))
            }

            visit_other_scalars!(|_, met| Ok(Text::Not(met)));

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                skip_seq(seq).map(|()| Text::Not("an array"))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                skip_map(map).map(|()| Text::Not("an object"))
            }
        }

        deserializer.deserialize_any(TextVisitor)
    }
}

/// The name of a field.
pub(super) struct Name<'de>(pub Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Text::deserialize(deserializer)? {
            Text::Is(name) => Ok(Self(name)),
            Text::Not(met) => Err(D::Error::custom(format_args!("a field's name is {met}"))),
        }
    }
}

/// The JSON type that a raw value has, by its first byte.
pub(super) fn type_of(raw: &str) -> &'static str {
    match raw.as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// An integer of 64 bits, as it is written: no fraction, exponent or quotes.
pub(super) fn integer(what: &str, raw: &RawValue) -> Result<i64, Invalid> {
    let raw = raw.get();
    if type_of(raw) != "a number" {
        return Err(wrong_type(what, "an integer", type_of(raw)));
    }
    // JSON's grammar has been checked: what does not parse has a fraction, an exponent, or is too large.
    raw.parse().map_err(|_| {
        if raw.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
            Invalid::new("not_an_integer", format!("{what} must be an integer, written without fraction or exponent"))
        } else {
            Invalid::new("out_of_range", format!("{what} must be between {} and {}", i64::MIN, i64::MAX))
        }
    })
}

/// A time: RFC 3339 or integer milliseconds since 1970, within `(earliest, latest)`.
pub(super) fn time(raw: &RawValue, (earliest, latest): (i64, i64)) -> Result<i64, Invalid> {
    const FORM: &str = "time must be RFC 3339, such as \"2026-01-31T12:00:00Z\", or integer milliseconds since 1970";
    let at = match type_of(raw.get()) {
        "a string" => {
            let quoted = raw.get();
            let plain = &quoted[1..quoted.len() - 1];
            let text = if plain.contains('\\') {
                Cow::Owned(serde_json::from_str::<String>(quoted).unwrap_or_default())
            } else {
                Cow::Borrowed(plain)
            };
            parse_rfc3339_ms(&text).ok_or_else(|| Invalid::new("malformed", FORM))?
        }
        "a number" => integer("time", raw)?,
        met => return Err(Invalid::new("wrong_type", format!("{FORM}, not {met}"))),
    };
    if at > latest {
        return Err(Invalid::new("out_of_range", "time lies further in the future than ingest.max_future allows"));
    }
    if at < earliest {
        return Err(Invalid::new(
            "out_of_range",
            "time lies further in the past than ingest.max_age, or the year 0, allows",
        ));
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn integers_are_read_as_they_are_written() {
        assert_eq!(integer("amount", raw("-9223372036854775808")), Ok(i64::MIN));
        assert_eq!(integer("amount", raw("9223372036854775807")), Ok(i64::MAX));
        assert_eq!(integer("amount", raw("-0")), Ok(0));
        let cases = [
            ("9223372036854775808", "out_of_range"),
            ("-9223372036854775809", "out_of_range"),
            ("1.0", "not_an_integer"),
            ("1e3", "not_an_integer"),
            ("1e999", "not_an_integer"),
            ("-0.0", "not_an_integer"),
            ("\"1\"", "wrong_type"),
            ("null", "wrong_type"),
            ("true", "wrong_type"),
            ("[1]", "wrong_type"),
        ];
        for (text, code) in cases {
            assert_eq!(integer("amount", raw(text)).unwrap_err().code, code, "{text}");
        }
    }

    #[test]
    fn times_are_text_or_milliseconds_within_their_bounds() {
        let bounds = (-5, 10);
        assert_eq!(time(raw("\"1970-01-01T00:00:00.010Z\""), bounds), Ok(10));
        assert_eq!(time(raw("\"1970\\u002d01-01T00:00:00Z\""), bounds), Ok(0));
        assert_eq!(time(raw("-5"), bounds), Ok(-5));
        for (text, code) in [("11", "out_of_range"), ("-6", "out_of_range"), ("1.5", "not_an_integer")] {
            assert_eq!(time(raw(text), bounds).unwrap_err().code, code, "{text}");
        }
        for (text, code) in [("\"5\"", "malformed"), ("\"\\ud800\"", "malformed"), ("null", "wrong_type")] {
            assert_eq!(time(raw(text), bounds).unwrap_err().code, code, "{text}");
        }
    }

    #[test]
    fn an_error_repeats_only_the_beginning_of_a_long_text() {
        assert_eq!(echo("short"), "short");
        let long = "é".repeat(100);
        assert_eq!(echo(&long), format!("{}…", "é".repeat(32)));
    }
}
