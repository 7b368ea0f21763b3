//! A pull reader for JSON text: strictly RFC 8259, borrowed, in one pass, without building anything.
//!
//! By hand, because an item is a dozen short strings, and through the general deserializer each cost as much as the rest of
//! the pipeline. A property test holds it to what `serde_json` accepts. Escapes are checked here and decoded there, for
//! they are rare.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::text::Fault;

/// What ends the reading of an item or of the whole text. Boxed, so that what is read travels in registers.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The text stops being JSON here.
    Broken { at: usize, why: &'static str },
    /// It is JSON, and not what an item may be.
    Fault(Fault),
    /// There are more items than a request may have.
    TooMany,
}

impl From<Fault> for Box<Trouble> {
    #[cold]
    fn from(fault: Fault) -> Self {
        Self::new(Trouble::Fault(fault))
    }
}

/// What reading gives.
pub(super) type Read<T> = Result<T, Box<Trouble>>;

/// What a value is, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Number,
    Object,
    Array,
    Boolean,
    Null,
}

impl Type {
    /// In a sentence.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Number => "a number",
            Self::Object => "an object",
            Self::Array => "an array",
            Self::Boolean => "a boolean",
            Self::Null => "null",
        }
    }
}

/// A string as it stands in the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quoted<'a> {
    /// What stands between the quotes.
    pub raw: &'a str,
    /// Whether there are escapes in it.
    pub escaped: bool,
}

impl<'a> Quoted<'a> {
    /// The string that is meant; `None` when an escape is half of a surrogate pair, which is no character.
    pub(super) fn decode(self) -> Option<Cow<'a, str>> {
        if self.escaped { decode_escapes(self.raw).map(Cow::Owned) } else { Some(Cow::Borrowed(self.raw)) }
    }
}

#[cold]
fn decode_escapes(raw: &str) -> Option<String> {
    serde_json::from_str(&format!("\"{raw}\"")).ok()
}

/// Reads a text from its beginning to its end.
pub(super) struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, bytes: text.as_bytes(), at: 0 }
    }

    #[cold]
    fn broken<T>(&self, why: &'static str) -> Read<T> {
        Err(Box::new(Trouble::Broken { at: self.at.min(self.bytes.len()), why }))
    }

    /// The next byte that is not white space; it is not taken.
    #[inline(always)]
    fn peek_byte(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            if byte > b' ' || !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// What the next value is.
    #[inline(always)]
    pub(super) fn peek(&mut self) -> Read<Type> {
        match self.peek_byte() {
            Some(b'"') => Ok(Type::Text),
            Some(b'-' | b'0'..=b'9') => Ok(Type::Number),
            Some(b'{') => Ok(Type::Object),
            Some(b'[') => Ok(Type::Array),
            Some(b't' | b'f') => Ok(Type::Boolean),
            Some(b'n') => Ok(Type::Null),
            Some(_) => self.broken("expected a value"),
            None => self.broken("expected a value, but the text ends"),
        }
    }

    /// Takes the bracket that [`Reader::peek`] saw.
    #[inline]
    pub(super) fn enter(&mut self) {
        self.at += 1;
    }

    /// Goes to the next field of an object: its name, or `None` past the object's end. `first` is true when it was entered.
    #[inline(always)]
    pub(super) fn next_field(&mut self, first: &mut bool) -> Read<Option<Quoted<'a>>> {
        match self.peek_byte() {
            Some(b'}') => {
                self.at += 1;
                return Ok(None);
            }
            Some(b',') if !*first => self.at += 1,
            _ if *first => *first = false,
            _ => return self.broken("expected `,` or `}`"),
        }
        if self.peek_byte() != Some(b'"') {
            return self.broken("expected a field's name in quotes");
        }
        let name = self.text()?;
        if self.peek_byte() != Some(b':') {
            return self.broken("expected `:`");
        }
        self.at += 1;
        Ok(Some(name))
    }

    /// Goes to the next element of an array, which must then be read; `false` past the array's end.
    #[inline]
    pub(super) fn next_element(&mut self, first: &mut bool) -> Read<bool> {
        match self.peek_byte() {
            Some(b']') => {
                self.at += 1;
                return Ok(false);
            }
            Some(b',') if !*first => self.at += 1,
            _ if *first => *first = false,
            _ => return self.broken("expected `,` or `]`"),
        }
        Ok(true)
    }

    /// Reads a string, after [`Reader::peek`] has seen one.
    #[inline(always)]
    pub(super) fn text(&mut self) -> Read<Quoted<'a>> {
        let start = self.at + 1;
        let end = plain_until(self.bytes, start);
        if self.bytes.get(end) == Some(&b'"') {
            self.at = end + 1;
            return Ok(Quoted { raw: &self.text[start..end], escaped: false });
        }
        self.at = end;
        self.text_with_escapes(start)
    }

    /// The same, from the first byte on that is not plain.
    #[cold]
    fn text_with_escapes(&mut self, start: usize) -> Read<Quoted<'a>> {
        let mut escaped = false;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    let raw = &self.text[start..self.at];
                    self.at += 1;
                    return Ok(Quoted { raw, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                    self.at = plain_until(self.bytes, self.at);
                }
                Some(_) => return self.broken("a control character must be escaped in a string"),
                None => return self.broken("a string is not closed"),
            }
        }
    }

    fn escape(&mut self) -> Read<()> {
        let length = match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') => {
                let digits = self.bytes.get(self.at + 2..self.at + 6);
                if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                    return self.broken("`\\u` wants four hexadecimal digits");
                }
                6
            }
            _ => return self.broken("there is no such escape"),
        };
        self.at += length;
        Ok(())
    }

    /// Reads any value: its text as it stands.
    #[inline]
    pub(super) fn raw(&mut self) -> Read<&'a str> {
        let kind = self.peek()?;
        let start = self.at;
        match kind {
            Type::Object | Type::Array => self.nested(kind)?,
            scalar => self.scalar(scalar)?,
        }
        Ok(&self.text[start..self.at])
    }

    #[inline]
    fn scalar(&mut self, kind: Type) -> Read<()> {
        match kind {
            Type::Text => self.text().map(drop),
            Type::Number => self.number(),
            _ => self.word(),
        }
    }

    fn word(&mut self) -> Read<()> {
        for word in ["true", "false", "null"] {
            if self.bytes[self.at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(());
            }
        }
        self.broken("expected a value")
    }

    #[inline]
    fn number(&mut self) -> Read<()> {
        self.at += usize::from(self.bytes.get(self.at) == Some(&b'-'));
        if self.bytes.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            self.at += usize::from(matches!(self.bytes.get(self.at), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(())
    }

    #[inline]
    fn digits(&mut self) -> Read<()> {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at == start { self.broken("expected a digit") } else { Ok(()) }
    }

    /// Without recursion: no nesting overflows the stack.
    fn nested(&mut self, kind: Type) -> Read<()> {
        let mut open: SmallVec<[Type; 32]> = SmallVec::new();
        open.push(kind);
        self.enter();
        let mut first = true;
        while let Some(innermost) = open.last() {
            let more = match innermost {
                Type::Object => self.next_field(&mut first)?.is_some(),
                _ => self.next_element(&mut first)?,
            };
            if !more {
                open.pop();
                first = false;
                continue;
            }
            match self.peek()? {
                inner @ (Type::Object | Type::Array) => {
                    open.push(inner);
                    self.enter();
                    first = true;
                }
                scalar => self.scalar(scalar)?,
            }
        }
        Ok(())
    }

    /// Where the reader stands.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Goes back to where it stood, and reads the value there for its form only.
    pub(super) fn skip_from(&mut self, position: usize) -> Read<()> {
        self.at = position;
        self.raw().map(drop)
    }

    /// Nothing but white space is left.
    pub(super) fn end(&mut self) -> Read<()> {
        if self.peek_byte().is_none() { Ok(()) } else { self.broken("something follows the document") }
    }
}

/// Where the first quote, backslash or control character is, from `at` on; or the end. Eight bytes at a time.
#[inline(always)]
fn plain_until(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGHS: u64 = ONES << 7;
    // Sets the high bit of every byte that is zero, and perhaps of bytes above the lowest such: only the lowest is used.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    while let Some(chunk) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let found = zeros(word ^ (ONES * b'"' as u64)) | zeros(word ^ (ONES * b'\\' as u64)) | control;
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|byte| !matches!(byte, b'"' | b'\\' | 0..=0x1f)) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    use super::*;

    fn is_json(text: &str) -> bool {
        let mut reader = Reader::new(text);
        reader.raw().and_then(|_| reader.end()).is_ok()
    }

    #[test]
    fn the_grammar_is_kept_to_the_letter() {
        for good in [
            "0",
            "-0",
            "-1.5e+10",
            "1E2",
            "1e999",
            "true",
            " null ",
            "\"\"",
            r#""\u00e9\ud800 \"\\\/\b""#,
            "[]",
            "[ ]",
            "{ }",
            "[1,[2,{\"a\":[]}],{}]",
            "{\"a\":1,\"a\":{\"b\":null}}",
            "\t[\n1\r]",
        ] {
            assert!(is_json(good), "{good}");
        }
        for bad in [
            "",
            " ",
            "01",
            "1.",
            ".5",
            "+1",
            "-",
            "1e",
            "1e+",
            "tru",
            "truee",
            "nulll",
            "\"",
            "\"\\x\"",
            r#""\u12g4""#,
            r#""\u12"#,
            "\"\n\"",
            "[",
            "]",
            "[1",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{",
            "}",
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\":1 \"b\":2}",
            "[}",
            "{]",
            "1 2",
            "\u{feff}1",
            "\"\\",
            "//",
            "[1]]",
        ] {
            assert!(!is_json(bad), "{bad}");
        }
    }

    #[test]
    fn nesting_of_any_depth_is_read_without_recursion() {
        let deep = 1_000_000;
        assert!(is_json(&("[".repeat(deep) + &"]".repeat(deep))));
        assert!(!is_json(&"{\"a\":".repeat(deep)));
    }

    #[test]
    fn escapes_are_decoded_and_half_a_surrogate_pair_is_no_character() {
        let decoded = |raw, escaped| Quoted { raw, escaped }.decode();
        assert_eq!(decoded("plain", false).as_deref(), Some("plain"));
        assert_eq!(decoded(r#"a\"\u00e9\ud83d\ude00"#, true).as_deref(), Some("a\"é😀"));
        assert_eq!(decoded(r"\ud83d", true), None);
    }

    proptest! {
        #[test]
        fn what_serde_json_takes_is_taken_and_nothing_else(text in "[\\[\\]{}:,\"\\\\a01.eEtrufalsn u\\-\u{1}é\u{80}]{0,12}") {
            prop_assert_eq!(is_json(&text), serde_json::from_str::<IgnoredAny>(&text).is_ok());
        }

        #[test]
        fn a_document_with_one_byte_changed_is_judged_as_serde_json_does(at in 0usize..64, byte in 0x1u8..0x7f) {
            let mut text = *br#"[{"counter":"a\u0041","tags":{"k":"v"},"amount":-10.5e1,"b":[]}  "#;
            text[at] = byte;
            let text = std::str::from_utf8(&text).unwrap();
            prop_assert_eq!(is_json(text), serde_json::from_str::<IgnoredAny>(text).is_ok());
            let whole = text.to_owned() + "]";
            prop_assert_eq!(is_json(&whole), serde_json::from_str::<IgnoredAny>(&whole).is_ok());
        }

        #[test]
        fn the_first_byte_that_ends_plain_text_is_found(text in proptest::collection::vec(prop_oneof![8 => 0x20u8..=0xff, 1 => any::<u8>()], 0..40)) {
            let ends = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
            let expected = text.iter().position(ends).unwrap_or(text.len());
            prop_assert_eq!(plain_until(&text, 0), expected);
        }
    }
}
