//! One line of an access log in the combined format, read by hand.
//!
//! `client ident user [17/May/2015:10:05:03 +0000] "GET /path?query HTTP/1.1" 200 1234 "referer" "agent"`
//!
//! Values stand as the log wrote them, its own `\"` and `\xNN` escapes included, so that they equal what `awk` prints;
//! raw control characters and bytes that are not UTF-8 become `\xNN`, as Apache writes them. A request that is not
//! `METHOD target [HTTP/x]` (an empty one, `-`, the bytes of a TLS handshake) has the method and the path `-`. A last
//! field that lost its closing quote is taken as it is: log writers cut long agents off. Everything else that is not of
//! this form is refused with a reason. No input panics.

use std::{borrow::Cow, fmt, fmt::Write as _};

use jiff::{civil, tz::Offset};

/// The longest text that a tag or a subject may have.
pub const MAX_TEXT_BYTES: usize = 256;
/// How much of a longer one is kept, before `~` and 16 hex digits of its hash: together the limit.
const HASH_TAIL_BYTES: usize = 17;
/// No method that anybody uses is longer.
const MAX_METHOD_BYTES: usize = 32;
/// Stands for a value that the log does not have.
const NONE: &str = "-";

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The client's address, or its host name.
    pub client: Cow<'a, str>,
    /// When, in milliseconds since 1970.
    pub time_ms: i64,
    /// The request's method; `-` when there is none.
    pub method: &'a str,
    /// The request's target up to its query; `-` when there is none.
    pub path: Cow<'a, str>,
    /// What follows the first `?` of the target.
    pub query: Option<Cow<'a, str>>,
    /// The three digits of the answer's status.
    pub status: &'a str,
    /// The answer's size; 0 when the log says `-`.
    pub bytes: i64,
    /// The referring page, if the client named one.
    pub referer: Option<Cow<'a, str>>,
    /// The client's program, if it named one.
    pub agent: Option<Cow<'a, str>>,
}

/// Why a line is not in the combined format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not in the combined format: {}", self.0)
    }
}

/// Reads a line, without its line break.
///
/// # Errors
/// The first thing that is missing or wrong.
pub fn parse(line: &[u8]) -> Result<Entry<'_>, Malformed> {
    let mut rest = Rest(line);
    let client = rest.word().ok_or(Malformed("no client address"))?;
    let ident = rest.word().ok_or(Malformed("no identity after the client address"))?;
    let time_ms = rest.user_and_time(ident)?;
    let request = rest.quoted().ok_or(Malformed("no quoted request after the time"))?;
    let request = request.closed.ok_or(Malformed("the request has no closing quote"))?;
    let status = rest.word().and_then(digits).filter(|status| status.len() == 3);
    let status = status.ok_or(Malformed("no status of three digits after the request"))?;
    let bytes = rest.word().ok_or(Malformed("no size after the status"))?;
    let bytes = match bytes {
        b"-" => 0,
        number => digits(number).and_then(|digits| digits.parse().ok()).ok_or(Malformed("the size is not a number"))?,
    };
    let referer = rest.quoted().ok_or(Malformed("no quoted referer after the size"))?;
    let referer = referer.closed.ok_or(Malformed("the referer has no closing quote"))?;
    let agent = rest.quoted().ok_or(Malformed("no quoted agent after the referer"))?;
    let agent = agent.closed.unwrap_or(agent.text);
    if !rest.0.trim_ascii().is_empty() {
        return Err(Malformed("something follows the agent"));
    }
    let (method, target) = method_and_target(request);
    let (path, query) = match target.iter().position(|byte| *byte == b'?') {
        Some(at) => (&target[..at], Some(text(&target[at + 1..]))),
        None => (target, None),
    };
    Ok(Entry {
        client: text(client),
        time_ms,
        method,
        path: text(path),
        query,
        status,
        bytes,
        referer: named(referer),
        agent: named(agent),
    })
}

/// What is left of a line.
struct Rest<'a>(&'a [u8]);

/// A field that begins with a quote.
struct Quoted<'a> {
    /// Up to the closing quote, if there is one.
    closed: Option<&'a [u8]>,
    /// Up to the closing quote or the end of the line.
    text: &'a [u8],
}

impl<'a> Rest<'a> {
    fn skip_blanks(&mut self) {
        self.0 = &self.0[self.0.iter().take_while(|byte| **byte == b' ').count()..];
    }

    /// Up to the next blank; `None` when nothing is left.
    fn word(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| *byte == b' ').unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        self.skip_blanks();
        (!word.is_empty()).then_some(word)
    }

    /// The user's name and the time in brackets. A name may hold blanks, but only after an absent identity: what has
    /// something else there is a line of another format, with a virtual host in front.
    fn user_and_time(&mut self, ident: &[u8]) -> Result<i64, Malformed> {
        let mut wrong = Malformed("no time in brackets after the user");
        let opens = |from: usize| self.0[from..].windows(2).position(|pair| pair == b" [").map(|at| from + at);
        let mut next = opens(0);
        while let Some(at) = next {
            let (user, after) = (&self.0[..at], &self.0[at + 2..]);
            if ident != b"-" && user.contains(&b' ') {
                break;
            }
            if let Some((time, rest)) = after.split_at_checked(TIME_BYTES)
                && rest.first() == Some(&b']')
            {
                match time_ms(time) {
                    Some(time_ms) => {
                        self.0 = &rest[1..];
                        self.skip_blanks();
                        return Ok(time_ms);
                    }
                    None => wrong = Malformed("the time is not like 17/May/2015:10:05:03 +0000"),
                }
            }
            next = opens(at + 2);
        }
        Err(wrong)
    }

    /// A field in quotes, in which a backslash takes its meaning from the byte after it. A closing quote ends the field,
    /// so a blank or the end of the line has to follow.
    fn quoted(&mut self) -> Option<Quoted<'a>> {
        let inside = self.0.strip_prefix(b"\"")?;
        let mut at = 0;
        while let Some(byte) = inside.get(at) {
            match byte {
                b'\\' => at += 2,
                b'"' => {
                    let after = &inside[at + 1..];
                    if !matches!(after.first(), None | Some(b' ')) {
                        return None;
                    }
                    self.0 = after;
                    self.skip_blanks();
                    return Some(Quoted { closed: Some(&inside[..at]), text: &inside[..at] });
                }
                _ => at += 1,
            }
        }
        self.0 = &[];
        Some(Quoted { closed: None, text: inside })
    }
}

fn digits(word: &[u8]) -> Option<&str> {
    let all = !word.is_empty() && word.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(word).ok().filter(|_| all)
}

/// `METHOD target HTTP/1.1`, the version optional (HTTP/0.9 has none); the target may hold blanks.
fn method_and_target(request: &[u8]) -> (&str, &[u8]) {
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let split = request.iter().position(|byte| *byte == b' ').and_then(|at| {
        let method = std::str::from_utf8(&request[..at]).ok()?;
        let well_formed = (1..=MAX_METHOD_BYTES).contains(&at) && request[..at].iter().all(token);
        let target = &request[at + 1..];
        let version = target.iter().rposition(|byte| *byte == b' ');
        let target = match version {
            Some(at) if target[at + 1..].starts_with(b"HTTP/") => &target[..at],
            _ => target,
        };
        (well_formed && !target.is_empty()).then_some((method, target))
    });
    split.unwrap_or((NONE, NONE.as_bytes()))
}

/// The length of `17/May/2015:10:05:03 +0000`.
const TIME_BYTES: usize = 26;
const MONTHS: [&[u8]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

fn time_ms(time: &[u8]) -> Option<i64> {
    let number = |from: usize, to: usize| digits(time.get(from..to)?)?.parse::<i16>().ok();
    let small = |from: usize, to: usize| i8::try_from(number(from, to)?).ok();
    let at = |index: usize, byte: u8| time.get(index) == Some(&byte);
    if !(at(2, b'/') && at(6, b'/') && at(11, b':') && at(14, b':') && at(17, b':') && at(20, b' ')) {
        return None;
    }
    let month = MONTHS.iter().position(|month| time.get(3..6) == Some(month))?;
    let month = i8::try_from(month + 1).ok()?;
    // A leap second counts into the second before it, as in every clock that does not know them.
    let second = small(18, 20)?;
    let second = if second == 60 { 59 } else { second };
    let local =
        civil::DateTime::new(number(7, 11)?, month, small(0, 2)?, small(12, 14)?, small(15, 17)?, second, 0).ok()?;
    let sign = match time.get(21)? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = (number(22, 24)?, number(24, 26)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let offset = Offset::from_seconds(sign * (i32::from(hours) * 3600 + i32::from(minutes) * 60)).ok()?;
    Some(offset.to_timestamp(local).ok()?.as_millisecond())
}

/// The bytes as text without control characters: those, and what is not UTF-8, become `\xNN`.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes)
        && !text.chars().any(char::is_control)
    {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            if char.is_control() {
                escape(&mut escaped, char.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                escaped.push(char);
            }
        }
        escape(&mut escaped, chunk.invalid());
    }
    Cow::Owned(escaped)
}

fn escape(into: &mut String, bytes: &[u8]) {
    for byte in bytes {
        write!(into, "\\x{byte:02x}").expect("a String takes everything");
    }
}

fn named(bytes: &[u8]) -> Option<Cow<'_, str>> {
    (!bytes.is_empty() && bytes != NONE.as_bytes()).then(|| text(bytes))
}

/// `text`, or, when it has more than `most` bytes, its head up to a character boundary, `~` and 16 hex digits of the
/// BLAKE3 of all of it: at most `most` bytes, and another text gives another one.
pub fn shorten(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    let end = (0..=most - HASH_TAIL_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let head = &text[..end];
    let hash = blake3::hash(text.as_bytes()).to_hex();
    Cow::Owned(format!("{head}~{}", &hash[..16]))
}

#[cfg(test)]
mod tests;
