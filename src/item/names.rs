//! What names may look like: one check per kind of name, each with the sentence that a client is told.

use std::fmt;

/// Most tags of one series.
pub const MAX_TAGS: usize = 16;
/// Longest client id, in bytes.
pub const MAX_ID_BYTES: usize = 128;
const MAX_COUNTER_BYTES: usize = 128;
const MAX_TAG_KEY_BYTES: usize = 64;
const MAX_TEXT_BYTES: usize = 256;

/// Why a value was refused: a stable `code` for programs, a message for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// One of `empty`, `too_long`, `malformed`; other rooms add their own codes.
    pub code: &'static str,
    /// What is wrong and what is expected.
    pub message: String,
}

impl Invalid {
    /// A refusal with this code and message.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Invalid {}

fn length(what: &str, value: &str, most: usize) -> Result<(), Invalid> {
    if value.is_empty() {
        return Err(Invalid::new("empty", format!("{what} is empty")));
    }
    if value.len() > most {
        return Err(Invalid::new("too_long", format!("{what} has {} bytes; at most {most} are allowed", value.len())));
    }
    Ok(())
}

/// A byte may begin an identifier.
const FIRST: u8 = 1;
/// A byte may stand in a counter's name after the first.
const COUNTER: u8 = 2;
/// A byte may stand in a tag's key after the first.
const TAG_KEY: u8 = 4;

/// Where each byte may stand: names are checked for every item, so it is one look per byte.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte: u8 = 0;
    while byte < 128 {
        let mut class = 0;
        if byte.is_ascii_alphabetic() || byte == b'_' {
            class |= FIRST;
        }
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-') {
            class |= COUNTER | TAG_KEY;
        }
        if matches!(byte, b':' | b'/') {
            class |= COUNTER;
        }
        classes[byte as usize] = class;
        byte += 1;
    }
    classes
};

/// `[A-Za-z_]` first, then bytes of this class.
fn is_identifier(value: &str, class: u8) -> bool {
    let Some((first, rest)) = value.as_bytes().split_first() else { return false };
    // Without a branch per byte: names are short.
    let all = rest.iter().fold(class, |all, byte| all & CLASSES[usize::from(*byte)]);
    CLASSES[usize::from(*first)] & FIRST != 0 && all != 0
}

fn has_control(value: &str) -> bool {
    // C0 and DEL are single bytes; C1 (U+0080 to U+009F) is two, the first of which is 0xC2. Eight bytes at a time: most
    // values have none of these, and are short.
    let mut chunks = value.as_bytes().chunks_exact(8);
    let mut suspect = false;
    for chunk in &mut chunks {
        suspect |= has_suspect(u64::from_le_bytes(chunk.try_into().expect("a chunk has eight bytes")));
    }
    let mut last = [b' '; 8];
    let rest = chunks.remainder();
    last[..rest.len()].copy_from_slice(rest);
    suspect |= has_suspect(u64::from_le_bytes(last));
    suspect && value.chars().any(char::is_control)
}

/// Whether one of eight bytes is below 0x20, or 0x7F, or 0xC2; perhaps also when none is.
fn has_suspect(word: u64) -> bool {
    const ONES: u64 = u64::MAX / 0xff;
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word;
    let below = word.wrapping_sub(ONES * 0x20) & !word;
    (below | zeros(word ^ (ONES * 0x7f)) | zeros(word ^ (ONES * 0xc2))) & (ONES << 7) != 0
}

/// A counter's name: `[A-Za-z_][A-Za-z0-9_.:/-]{0,127}`.
pub fn check_counter(name: &str) -> Result<(), Invalid> {
    length("counter", name, MAX_COUNTER_BYTES)?;
    if is_identifier(name, COUNTER) {
        Ok(())
    } else {
        Err(Invalid::new("malformed", "counter must match [A-Za-z_][A-Za-z0-9_.:/-]{0,127}"))
    }
}

/// A tag's key: `[A-Za-z_][A-Za-z0-9_.-]{0,63}`.
pub fn check_tag_key(key: &str) -> Result<(), Invalid> {
    length("tag key", key, MAX_TAG_KEY_BYTES)?;
    if is_identifier(key, TAG_KEY) {
        Ok(())
    } else {
        Err(Invalid::new("malformed", "a tag key must match [A-Za-z_][A-Za-z0-9_.-]{0,63}"))
    }
}

/// A tag's value: at most 256 bytes of UTF-8 without control characters; it may be empty.
pub fn check_tag_value(value: &str) -> Result<(), Invalid> {
    if value.len() > MAX_TEXT_BYTES {
        return Err(Invalid::new(
            "too_long",
            format!("tag value has {} bytes; at most {MAX_TEXT_BYTES} are allowed", value.len()),
        ));
    }
    if has_control(value) {
        return Err(Invalid::new("malformed", "a tag value must not contain control characters"));
    }
    Ok(())
}

/// An event's name or subject: 1 to 256 bytes of UTF-8 without control characters.
pub fn check_event_text(what: &str, value: &str) -> Result<(), Invalid> {
    length(what, value, MAX_TEXT_BYTES)?;
    if has_control(value) {
        return Err(Invalid::new("malformed", format!("{what} must not contain control characters")));
    }
    Ok(())
}

/// A client's id: 1 to 128 bytes.
pub fn check_id(id: &str) -> Result<(), Invalid> {
    length("id", id, MAX_ID_BYTES)
}

/// A namespace: `[a-z0-9][a-z0-9_-]{0,62}`.
pub fn check_namespace(name: &str) -> Result<(), Invalid> {
    let bytes = name.as_bytes();
    let lower = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let well_formed = bytes.len() <= 63
        && bytes.first().is_some_and(lower)
        && bytes.iter().all(|byte| lower(byte) || matches!(byte, b'_' | b'-'));
    if well_formed { Ok(()) } else { Err(Invalid::new("malformed", "a namespace must match [a-z0-9][a-z0-9_-]{0,62}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_at_their_limits_pass_and_one_byte_more_is_refused() {
        assert!(check_counter(&"a".repeat(128)).is_ok());
        assert_eq!(check_counter(&"a".repeat(129)).unwrap_err().code, "too_long");
        assert!(check_tag_key(&"a".repeat(64)).is_ok());
        assert!(check_tag_key(&"a".repeat(65)).is_err());
        assert!(check_tag_value(&"é".repeat(128)).is_ok());
        assert!(check_tag_value(&"é".repeat(129)).is_err());
        assert!(check_tag_value("").is_ok());
        assert!(check_event_text("name", "").is_err());
        assert!(check_id(&"i".repeat(128)).is_ok());
        assert!(check_id(&"i".repeat(129)).is_err());
        assert!(check_namespace(&"n".repeat(63)).is_ok());
        assert!(check_namespace(&"n".repeat(64)).is_err());
    }

    #[test]
    fn characters_outside_the_grammar_are_refused() {
        for bad in ["1a", "-a", "a b", "a=b", "ä", ".a"] {
            assert_eq!(check_counter(bad).unwrap_err().code, "malformed", "{bad}");
        }
        assert!(check_counter("a.b:c/d-e_f").is_ok());
        for bad in ["a/b", "a:b", "1"] {
            assert!(check_tag_key(bad).is_err(), "{bad}");
        }
        for bad in ["a\u{7f}", "a\nb", "\u{85}"] {
            assert!(check_tag_value(bad).is_err());
            assert!(check_event_text("subject", bad).is_err());
        }
        for bad in ["", "Upper", "_a", "-a", "a.b"] {
            assert!(check_namespace(bad).is_err(), "{bad}");
        }
    }
}
