//! Query strings: decoded strictly, every parameter taken by name, what nobody takes refused.
//!
//! A parameter that is unknown, repeated or malformed is a 400 that names it, before anything is looked up.

use axum::http::{HeaderMap, StatusCode};
use jiff::Timestamp;

use crate::{
    item::{Invalid, Namespace},
    problem::Problem,
};

/// The header that names the tenant.
const NAMESPACE: &str = "tallymark-namespace";

/// Most entries of one page.
const MAX_LIMIT: usize = 1000;
const DEFAULT_LIMIT: usize = 100;

/// The parameters of a request that nobody has taken yet.
#[derive(Debug)]
pub(crate) struct Params(Vec<(String, String)>);

/// 400 with the code of the refusal.
pub(crate) fn refuse(what: &str, invalid: &Invalid) -> Problem {
    Problem::bad_request(invalid.code, format!("{what}: {invalid}"))
}

impl Params {
    /// Reads a query string. Repeated names and broken encoding are refused.
    pub(crate) fn parse(query: Option<&str>) -> Result<Self, Problem> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in query.unwrap_or("").split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = decode(name, true).zip(decode(value, true));
            let (name, value) = decoded.ok_or_else(|| {
                Problem::bad_request("malformed", format!("`{pair}` in the query is not percent-encoded UTF-8"))
            })?;
            if pairs.iter().any(|(known, _)| *known == name) {
                return Err(Problem::bad_request("repeated_parameter", format!("`{name}` is given more than once")));
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter, if it is given.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Every parameter whose name begins with `prefix`, without it, sorted.
    pub(crate) fn take_all(&mut self, prefix: &str) -> Vec<(String, String)> {
        let (taken, left) = std::mem::take(&mut self.0).into_iter().partition(|(name, _)| name.starts_with(prefix));
        self.0 = left;
        let mut taken: Vec<(String, String)> = taken;
        for (name, _) in &mut taken {
            name.drain(..prefix.len());
        }
        taken.sort_unstable();
        taken
    }

    /// `limit`: 1 to 1000, 100 when it is not given.
    pub(crate) fn limit(&mut self) -> Result<usize, Problem> {
        Ok(self.count("limit", MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT))
    }

    /// A count of 1 to `most`.
    pub(crate) fn count(&mut self, name: &str, most: usize) -> Result<Option<usize>, Problem> {
        let Some(text) = self.take(name) else { return Ok(None) };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(count) if digits && (1..=most).contains(&count) => Ok(Some(count)),
            _ if digits => {
                Err(Problem::bad_request("out_of_range", format!("`{name}` is {text}; it must be 1 to {most}")))
            }
            _ => Err(Problem::bad_request("malformed", format!("`{name}` must be an integer from 1 to {most}"))),
        }
    }

    /// A point in time: RFC 3339, or integer milliseconds since 1970.
    pub(crate) fn time_ms(&mut self, name: &str) -> Result<Option<i64>, Problem> {
        let Some(text) = self.take(name) else { return Ok(None) };
        time_ms(&text).map(Some).ok_or_else(|| {
            let detail = format!("`{name}` must be RFC 3339 (2026-01-31T12:00:00Z) or integer milliseconds since 1970");
            Problem::bad_request("malformed", detail)
        })
    }

    /// Refuses what nobody has taken. `known` lists what there is, for people.
    pub(crate) fn finish(self, known: &str) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => {
                let detail = format!("there is no query parameter `{name}` here; there is {known}");
                Err(Problem::bad_request("unknown_parameter", detail))
            }
        }
    }
}

fn time_ms(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok();
    }
    // A zone of +01:00 whose plus was sent as it is arrives as a blank.
    let text = text.replacen(' ', "+", 1);
    let rfc3339 = text.as_bytes().get(10).is_some_and(|byte| matches!(byte, b'T' | b't'));
    let time: Timestamp = text.parse().ok().filter(|_| rfc3339)?;
    Some(time.as_millisecond())
}

/// Decodes percent-encoded UTF-8; with `plus`, a `+` stands for a blank. `None` when it is neither.
pub(crate) fn decode(text: &str, plus: bool) -> Option<String> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => u8::try_from(digit(bytes.next())? * 16 + digit(bytes.next())?).ok()?,
            b'+' if plus => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

/// What a path ends in after `prefix`, decoded.
pub(crate) fn path_end(path: &str, prefix: &str) -> Result<String, Problem> {
    path.strip_prefix(prefix)
        .and_then(|end| decode(end, false))
        .ok_or_else(|| Problem::bad_request("malformed", "the path is not percent-encoded UTF-8"))
}

/// The tenant that the request names, or the default one.
pub(crate) fn namespace(headers: &HeaderMap) -> Result<Namespace, Problem> {
    let mut named = headers.get_all(NAMESPACE).iter();
    let Some(name) = named.next() else { return Ok(Namespace::default()) };
    if named.next().is_some() {
        return Err(Problem::bad_request("malformed", "Tallymark-Namespace is given more than once"));
    }
    let parsed = Namespace::parse(name.to_str().unwrap_or(""));
    parsed.map_err(|invalid| refuse("Tallymark-Namespace", &invalid))
}

/// 422 with this code.
pub(crate) fn unprocessable(code: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_strings_decode_strictly() {
        let mut params = Params::parse(Some("a=1&&b=x+y%2Bz&tag.k=%C3%A9&c")).unwrap();
        assert_eq!(params.take("b").as_deref(), Some("x y+z"));
        assert_eq!(params.take_all("tag."), [("k".to_owned(), "é".to_owned())]);
        assert_eq!(params.take("c").as_deref(), Some(""));
        assert_eq!(params.take("zz"), None);
        assert_eq!(params.finish("b").unwrap_err().code, "unknown_parameter");
        for bad in ["a=%", "a=%g0", "a=%ff", "%c3=1"] {
            assert_eq!(Params::parse(Some(bad)).unwrap_err().code, "malformed", "{bad}");
        }
        assert_eq!(Params::parse(Some("a=1&%61=2")).unwrap_err().code, "repeated_parameter");
    }

    #[test]
    fn times_are_rfc_3339_or_milliseconds() {
        for text in ["2026-01-31T12:00:00Z", "2026-01-31T13:00:00+01:00", "2026-01-31T13:00:00 01:00", "1769860800000"]
        {
            assert_eq!(time_ms(text), Some(1_769_860_800_000), "{text}");
        }
        assert_eq!(time_ms("-1"), Some(-1));
        for bad in ["", "-", "yesterday", "2026-01-31", "1.5", "2026-13-31T12:00:00Z", "9999999999999999999999"] {
            assert_eq!(time_ms(bad), None, "{bad}");
        }
    }

    #[test]
    fn limits_are_one_to_a_thousand() {
        let limit = |text: &str| Params::parse(Some(text)).unwrap().limit().map_err(|problem| problem.code);
        assert_eq!(limit(""), Ok(100));
        assert_eq!(limit("limit=1"), Ok(1));
        assert_eq!(limit("limit=1000"), Ok(1000));
        for (bad, code) in [("0", "out_of_range"), ("1001", "out_of_range"), ("-1", "malformed"), ("x", "malformed")] {
            assert_eq!(limit(&format!("limit={bad}")), Err(code), "{bad}");
        }
        assert_eq!(limit(&format!("limit={}", "9".repeat(40))), Err("out_of_range"));
    }
}
