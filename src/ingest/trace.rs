//! `traceparent`, the W3C trace context of a request: checked by its shape, and ignored when it has another.
//!
//! It travels in the pack that the request's items are in, so that whoever applies the pack can be found in the same trace.
//! A trace must never make a request fail: nothing here is an error.

use axum::http::HeaderMap;

/// `version-trace_id-parent_id-flags`: 2, 32, 16 and 2 lower-case hex digits.
const LENGTH: usize = 55;

/// A well-formed trace context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Traceparent([u8; LENGTH]);

impl Traceparent {
    /// The request's, if it has a single well-formed one.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all("traceparent").iter();
        let value = values.next()?;
        if values.next().is_some() {
            return None;
        }
        Self::parse(value.as_bytes())
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (head, more) = text.split_first_chunk::<LENGTH>()?;
        let hex = |range: std::ops::Range<usize>| {
            let part = &head[range];
            part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).then_some(part)
        };
        let (version, trace, parent, _flags) = (hex(0..2)?, hex(3..35)?, hex(36..52)?, hex(53..55)?);
        let dashes = [2, 35, 52].iter().all(|at| head[*at] == b'-');
        let zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
        // Later versions may say more behind a dash; what this one knows is the part in front.
        let ends = more.is_empty() || (version != b"00" && more[0] == b'-');
        (dashes && ends && version != b"ff" && !zero(trace) && !zero(parent)).then_some(Self(*head))
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hex digits and dashes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parsed(text: &str) -> Option<String> {
        Traceparent::parse(text.as_bytes()).map(|trace| trace.as_str().to_owned())
    }

    #[test]
    fn a_trace_context_has_a_shape_or_is_none() {
        assert_eq!(parsed(GOOD).as_deref(), Some(GOOD));
        let later = GOOD.replacen("00", "cc", 1);
        assert_eq!(parsed(&later).as_deref(), Some(&*later));
        assert_eq!(parsed(&format!("{later}-what-comes-later")).as_deref(), Some(&*later));
        for bad in [
            String::new(),
            GOOD[..54].to_owned(),
            format!("{GOOD}-01"),
            format!("{later}0"),
            GOOD.replacen("00", "ff", 1),
            GOOD.to_uppercase(),
            GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            GOOD.replace('-', "_"),
            GOOD.replace("b7", "é"),
            GOOD.replace('f', "g"),
        ] {
            assert_eq!(parsed(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_request_has_one_or_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(Traceparent::of(&headers), None);
        headers.append("traceparent", GOOD.parse().unwrap());
        assert!(Traceparent::of(&headers).is_some());
        headers.append("traceparent", GOOD.parse().unwrap());
        assert_eq!(Traceparent::of(&headers), None);
    }
}
