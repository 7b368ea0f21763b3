//! Durations and sizes as people write them in configuration.
//!
//! [`Span`] reads `250ms`, `30s`, `7d`; [`Size`] reads `256KiB`, `5MiB`, `1048576`. Both print in the form they
//! read, so that `config show` can be pasted back into a file.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration in configuration, e.g. `250ms`, `30s`, `1h 30m`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span(pub Duration);

impl Span {
    /// A span of whole milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// A span of whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// Whole milliseconds, saturating at `i64::MAX`.
    pub fn as_millis(self) -> i64 {
        i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX)
    }

    /// Whole microseconds, saturating at `i64::MAX`.
    pub fn as_micros(self) -> i64 {
        i64::try_from(self.0.as_micros()).unwrap_or(i64::MAX)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_duration(text.trim())
            .map(Span)
            .map_err(|_| format!("`{text}` is not a duration; write one like `250ms`, `30s` or `7d`"))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// A number of bytes in configuration, e.g. `256KiB`, `5MiB`, `10GiB`, `4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Size(pub u64);

/// Suffixes, largest first; binary and decimal ones keep their own meaning.
const SUFFIXES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl Size {
    /// `n` × 1,024 bytes.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// `n` × 1,048,576 bytes.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// `n` × 2^30 bytes.
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// The size in bytes, saturating at what this machine can address.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` is not a size; write one like `256KiB`, `5MiB` or a number of bytes");
        let trimmed = text.trim();
        let (digits, unit) = SUFFIXES
            .iter()
            .find_map(|(suffix, unit)| Some((trimmed.strip_suffix(suffix)?, *unit)))
            .unwrap_or((trimmed, 1));
        let number: u64 = digits.trim().parse().map_err(|_| wrong())?;
        number.checked_mul(unit).map(Size).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (suffix, unit) in SUFFIXES.iter().filter(|(suffix, _)| suffix.ends_with("iB")) {
            if self.0 != 0 && self.0.is_multiple_of(*unit) {
                return write!(f, "{}{suffix}", self.0 / unit);
            }
        }
        write!(f, "{}", self.0)
    }
}

macro_rules! serde_as_text {
    ($type:ty, $expecting:literal, $from_number:expr) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                        text.parse().map_err(E::custom)
                    }

                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                        $from_number(number).ok_or_else(|| E::invalid_type(de::Unexpected::Unsigned(number), &self))
                    }

                    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
                        u64::try_from(number)
                            .ok()
                            .and_then($from_number)
                            .ok_or_else(|| E::invalid_type(de::Unexpected::Signed(number), &self))
                    }
                }
                deserializer.deserialize_any(Visitor)
            }
        }
    };
}

serde_as_text!(Span, "a duration such as \"250ms\", \"30s\" or \"7d\"", |n: u64| (n == 0).then_some(Span::default()));
serde_as_text!(Size, "a size such as \"256KiB\" or a number of bytes", |n: u64| Some(Size(n)));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_read_back_what_they_print() {
        for text in ["256KiB", "5MiB", "10GiB", "4097"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        for text in ["250ms", "30s", "7days", "1h 30m"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert_eq!("7d".parse::<Span>().unwrap(), Span::from_secs(7 * 86_400));
        assert_eq!("1kB".parse::<Size>().unwrap(), Size(1_000));
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for text in ["", "5 parsecs", "-1s", "12"] {
            assert!(text.parse::<Span>().unwrap_err().contains("30s"), "{text}");
        }
        for text in ["", "KiB", "-1", "1.5MiB", "99999999999TiB"] {
            assert!(text.parse::<Size>().unwrap_err().contains("256KiB"), "{text}");
        }
    }
}
