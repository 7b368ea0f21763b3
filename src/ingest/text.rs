//! Values of single fields: what they must be, and what is said when they are not.
//!
//! A value of the wrong type is that item's error, not the document's: so every reader here takes any JSON value, and
//! says afterwards what it met.

use std::borrow::Cow;

use super::{
    json::{Read, Reader, Type},
    time::parse_rfc3339_ms,
};
use crate::item::Invalid;

/// Longest piece of a client's text that an error repeats.
const MAX_ECHO: usize = 64;

/// Why a field was refused.
#[derive(Debug)]
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
pub(super) fn wrong_type(what: &str, expected: &str, met: Type) -> Invalid {
    Invalid::new("wrong_type", format!("{what} must be {expected}, not {}", met.name()))
}

/// A value that passed its check, or why it did not.
pub(super) type Checked<T> = Result<T, Invalid>;

/// Puts a value into a field that may be given once.
#[inline]
pub(super) fn set<T>(field: &mut Option<T>, name: &str, value: T) -> Read<()> {
    if field.replace(value).is_some() {
        return Err(Fault::repeated(name).into());
    }
    Ok(())
}

/// Reads the field `name`, a string that must pass `check`.
#[inline]
pub(super) fn text<'a>(
    reader: &mut Reader<'a>,
    name: &str,
    check: impl FnOnce(&str) -> Checked<()>,
) -> Read<Cow<'a, str>> {
    let met = reader.peek()?;
    if met != Type::Text {
        return Err(Fault::new(name, wrong_type(name, "a string", met)).into());
    }
    let Some(value) = reader.text()?.decode() else {
        let message = format!("{name} has half of a surrogate pair, which is no character");
        return Err(Fault::new(name, Invalid::new("malformed", message)).into());
    };
    match check(&value) {
        Ok(()) => Ok(value),
        Err(invalid) => Err(Fault::new(name, invalid).into()),
    }
}

/// Reads the field `name`, an integer of 64 bits, as it is written: no fraction, exponent or quotes.
#[inline]
pub(super) fn integer(reader: &mut Reader<'_>, name: &str) -> Read<i64> {
    let met = reader.peek()?;
    if met != Type::Number {
        return Err(Fault::new(name, wrong_type(name, "an integer", met)).into());
    }
    let raw = reader.raw()?;
    // JSON's grammar has been checked: what does not parse has a fraction, an exponent, or is too large.
    raw.parse().map_err(|_| {
        let invalid = if raw.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
            Invalid::new("not_an_integer", format!("{name} must be an integer, written without fraction or exponent"))
        } else {
            Invalid::new("out_of_range", format!("{name} must be between {} and {}", i64::MIN, i64::MAX))
        };
        Fault::new(name, invalid).into()
    })
}

/// Reads a time: RFC 3339 or integer milliseconds since 1970, within `(earliest, latest)`.
#[inline]
pub(super) fn time(reader: &mut Reader<'_>, bounds: (i64, i64)) -> Read<i64> {
    const FORM: &str = "RFC 3339, such as \"2026-01-31T12:00:00Z\", or integer milliseconds since 1970";
    let at = match reader.peek()? {
        Type::Text => match reader.text()?.decode().and_then(|text| parse_rfc3339_ms(&text)) {
            Some(at) => at,
            None => {
                let invalid = Invalid::new("malformed", format!("time must be {FORM}"));
                return Err(Fault::new("time", invalid).into());
            }
        },
        Type::Number => integer(reader, "time")?,
        met => return Err(Fault::new("time", wrong_type("time", FORM, met)).into()),
    };
    within(at, bounds).map_err(|invalid| Fault::new("time", invalid).into())
}

fn within(at: i64, (earliest, latest): (i64, i64)) -> Checked<i64> {
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
    use super::{super::json::Trouble, *};

    fn checked(read: Read<i64>) -> Checked<i64> {
        read.map_err(|trouble| match *trouble {
            Trouble::Fault(fault) => fault.invalid,
            other => panic!("{other:?}"),
        })
    }

    fn integer(text: &str) -> Checked<i64> {
        checked(super::integer(&mut Reader::new(text), "amount"))
    }

    fn time(text: &str) -> Checked<i64> {
        checked(super::time(&mut Reader::new(text), (-5, 10)))
    }

    #[test]
    fn integers_are_read_as_they_are_written() {
        assert_eq!(integer("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(integer("9223372036854775807"), Ok(i64::MAX));
        assert_eq!(integer("-0"), Ok(0));
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
            assert_eq!(integer(text).unwrap_err().code, code, "{text}");
        }
    }

    #[test]
    fn times_are_text_or_milliseconds_within_their_bounds() {
        assert_eq!(time("\"1970-01-01T00:00:00.010Z\""), Ok(10));
        assert_eq!(time("\"1970\\u002d01-01T00:00:00Z\""), Ok(0));
        assert_eq!(time("-5"), Ok(-5));
        for (text, code) in [("11", "out_of_range"), ("-6", "out_of_range"), ("1.5", "not_an_integer")] {
            assert_eq!(time(text).unwrap_err().code, code, "{text}");
        }
        for (text, code) in [("\"5\"", "malformed"), ("\"\\ud800\"", "malformed"), ("null", "wrong_type")] {
            assert_eq!(time(text).unwrap_err().code, code, "{text}");
        }
    }

    #[test]
    fn an_error_repeats_only_the_beginning_of_a_long_text() {
        assert_eq!(echo("short"), "short");
        let long = "é".repeat(100);
        assert_eq!(echo(&long), format!("{}…", "é".repeat(32)));
    }
}
