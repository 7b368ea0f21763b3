//! One value: from a layer's text or TOML into the type of its setting, within its bound, and back for people.

use toml::Value;

use super::{
    keys::{Key, Kind},
    notes::Bound,
};
use crate::units::{Size, Span};
use crate::url::redact;

/// A value as a layer has it.
pub enum Raw<'a> {
    /// Text of a variable or a flag.
    Text(&'a str),
    /// A value of the file.
    Value(Value),
}

/// A value for people: TOML, without a URL's password.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => Value::String(redact(text)).to_string(),
        value => value.to_string(),
    }
}

/// The value in the setting's type and within its bound; the error says what is expected.
pub fn coerce(key: &Key, raw: Raw<'_>) -> Result<Value, String> {
    let value = typed(key, raw)?;
    bounded(key, &value)?;
    Ok(value)
}

fn typed(key: &Key, raw: Raw<'_>) -> Result<Value, String> {
    let value = match raw {
        Raw::Value(value) => value,
        Raw::Text(text) => match key.kind {
            Kind::Bool => text.trim().parse().map_or_else(|_| Value::String(text.to_owned()), Value::Boolean),
            Kind::Integer => {
                text.trim().replace('_', "").parse().map_or_else(|_| Value::String(text.to_owned()), Value::Integer)
            }
            Kind::Float => text.trim().parse().map_or_else(|_| Value::String(text.to_owned()), Value::Float),
            Kind::List => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
            }
            _ => Value::String(text.trim().to_owned()),
        },
    };
    match (key.kind, value) {
        (Kind::Text | Kind::Url | Kind::Address, Value::String(text))
            if text.is_empty() && key.default.as_str() != Some("") =>
        {
            Err("it is empty; leave it out for the default".to_owned())
        }
        (Kind::Text | Kind::Url | Kind::Address, value @ Value::String(_))
        | (Kind::Bool, value @ Value::Boolean(_))
        | (Kind::Integer, value @ Value::Integer(_))
        | (Kind::Float, value @ Value::Float(_))
        | (Kind::List, value @ Value::Array(_)) => Ok(value),
        (Kind::Float, Value::Integer(number)) => {
            number.to_string().parse().map(Value::Float).map_err(|_| String::new())
        }
        (Kind::Duration, Value::String(text)) => text.parse().map(|span: Span| Value::String(span.to_string())),
        (Kind::Duration, Value::Integer(0)) => Ok(Value::String(Span::default().to_string())),
        (Kind::Size, Value::String(text)) => text.parse().map(|size: Size| Value::String(size.to_string())),
        (Kind::Size, Value::Integer(bytes)) if bytes >= 0 => Ok(Value::String(Size(bytes.unsigned_abs()).to_string())),
        (Kind::Duration, _) => Err("write a duration like \"250ms\", \"30s\" or \"7d\"".to_owned()),
        (Kind::Size, _) => Err("write a size like \"256KiB\", or a number of bytes".to_owned()),
        (Kind::Bool, _) => Err("write true or false".to_owned()),
        (Kind::Integer, _) => Err(format!("write a whole number{}", range(key))),
        (Kind::Float, _) => Err("write a number".to_owned()),
        (Kind::List, _) => Err("write a list like [\"hour\", \"day\"]; with commas in variables and flags".to_owned()),
        (Kind::Text | Kind::Url | Kind::Address, _) => Err("write text in quotes".to_owned()),
    }
}

fn range(key: &Key) -> String {
    match key.note.bound {
        Bound::Between(least, most) => format!(" from {least} to {most}"),
        _ => String::new(),
    }
}

/// No duration is longer: an instant this far ahead is still an instant.
const LONGEST: Span = Span::from_secs(36_500 * 86_400);

/// Checks the value against its setting's bound.
fn bounded(key: &Key, value: &Value) -> Result<(), String> {
    let span = |value: &Value| value.as_str().and_then(|text| text.parse::<Span>().ok()).unwrap_or_default();
    let size = |value: &Value| value.as_str().and_then(|text| text.parse::<Size>().ok()).unwrap_or_default();
    if key.kind == Kind::Duration && span(value) > LONGEST {
        return Err("it must be at most 100 years".to_owned());
    }
    match key.note.bound {
        Bound::Between(least, most) if !value.as_integer().is_some_and(|n| (least..=most).contains(&n)) => {
            Err(format!("write a whole number{}", range(key)))
        }
        Bound::Positive if key.kind == Kind::Duration && span(value) == Span::default() => {
            Err("it must be longer than nothing".to_owned())
        }
        Bound::Positive if key.kind == Kind::Size && size(value) == Size::default() => {
            Err("it must be more than nothing".to_owned())
        }
        Bound::Sized(least, most) if !(Size(least)..=Size(most)).contains(&size(value)) => {
            Err(format!("it must be from {} to {}", Size(least), Size(most)))
        }
        Bound::OneOf(words) => {
            let listed = match value {
                Value::Array(items) => items.as_slice(),
                one => std::slice::from_ref(one),
            };
            let known = listed.iter().all(|item| item.as_str().is_some_and(|text| words.contains(&text)));
            let repeated = listed.iter().enumerate().any(|(index, item)| listed[..index].contains(item));
            match (known, repeated, key.kind) {
                (true, false, _) => Ok(()),
                (true, true, _) => Err("the same word twice".to_owned()),
                (false, _, Kind::List) => Err(format!("write some of {}", words.join(", "))),
                (false, ..) => Err(format!("write one of {}", words.join(", "))),
            }
        }
        _ => Ok(()),
    }
}
