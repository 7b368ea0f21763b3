//! What a request asks for besides its items: query parameters and headers.

use std::{borrow::Cow, time::Duration};

use axum::http::{HeaderMap, HeaderName, StatusCode, header, request::Parts};

use super::{encoding::Encoding, limits::Limits, parser::Framing, text::echo, trace::Traceparent};
use crate::{item::Namespace, problem::Problem, units::Span};

/// How long `ack=stored` waits when the request does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it waits at most.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);

const NAMESPACE: HeaderName = HeaderName::from_static("tallymark-namespace");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A request's wishes, checked.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub framing: Framing,
    pub encoding: Encoding,
    pub namespace: Option<Namespace>,
    pub idempotency_key: Option<String>,
    /// Accept the valid items although others are not.
    pub partial: bool,
    /// Show the items in the hot view at once.
    pub hot: bool,
    /// Wait so long until the items are in the store.
    pub stored_within: Option<Duration>,
    /// The trace that the request is part of.
    pub traceparent: Option<Traceparent>,
}

impl Asked {
    /// Reads them from a request's head.
    pub(super) fn read(head: &Parts, limits: &Limits) -> Result<Self, Problem> {
        let Query { ack, timeout, partial, hot } = Query::read(head.uri.query().unwrap_or_default())?;
        let namespace = match single(&head.headers, &NAMESPACE)? {
            Some(name) => Some(
                Namespace::parse(name)
                    .map_err(|invalid| Problem::bad_request("malformed_namespace", invalid.message))?,
            ),
            None => None,
        };
        let idempotency_key = single(&head.headers, &IDEMPOTENCY_KEY)?.map(|key| check_key(key, limits)).transpose()?;
        Ok(Self {
            framing: framing(&head.headers)?,
            encoding: Encoding::of(&head.headers)?,
            namespace,
            idempotency_key,
            partial,
            hot,
            stored_within: ack.then(|| timeout.unwrap_or(DEFAULT_TIMEOUT).min(MAX_TIMEOUT)),
            traceparent: Traceparent::of(&head.headers),
        })
    }

    pub(super) fn namespace(&self) -> &str {
        self.namespace.as_ref().map_or("default", Namespace::as_str)
    }
}

struct Query {
    ack: bool,
    timeout: Option<Duration>,
    partial: bool,
    hot: bool,
}

impl Query {
    fn read(query: &str) -> Result<Self, Problem> {
        let (mut ack, mut timeout, mut partial, mut hot) = (None, None, None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (percent_decoded(name), percent_decoded(value)) else {
                return Err(Problem::bad_request("malformed_query", "the query is not percent-encoded UTF-8"));
            };
            let wrong = |expected: &str| {
                let detail = format!("{name} must be {expected}, not `{}`", echo(&value));
                Problem::bad_request("invalid_parameter", detail)
            };
            let repeated = match &*name {
                "ack" if value == "stored" => ack.replace(true).is_some(),
                "ack" => return Err(wrong("`stored`")),
                "timeout" => {
                    let span: Span = value.parse().map_err(|_| wrong("a duration such as `5s`"))?;
                    timeout.replace(span.0).is_some()
                }
                "partial" => match &*value {
                    "true" => partial.replace(true).is_some(),
                    "false" => partial.replace(false).is_some(),
                    _ => return Err(wrong("`true` or `false`")),
                },
                "hot" if value == "skip" => hot.replace(false).is_some(),
                "hot" => return Err(wrong("`skip`")),
                _ => {
                    let detail =
                        format!("there is no parameter `{}`; there are ack, timeout, partial and hot", echo(&name));
                    return Err(Problem::bad_request("unknown_parameter", detail));
                }
            };
            if repeated {
                let detail = format!("the parameter {name} is given more than once");
                return Err(Problem::bad_request("repeated_parameter", detail));
            }
        }
        Ok(Self { ack: ack.is_some(), timeout, partial: partial.unwrap_or(false), hot: hot.unwrap_or(true) })
    }
}

/// The one value of a header that must not be repeated.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::bad_request("repeated_header", format!("the header {name} is given more than once")));
    }
    match value.to_str() {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(Problem::bad_request("malformed_header", format!("the header {name} is not printable ASCII"))),
    }
}

fn check_key(key: &str, limits: &Limits) -> Result<String, Problem> {
    let most = limits.max_key_bytes();
    if (1..=most).contains(&key.len()) && !key.contains('\t') {
        return Ok(key.to_owned());
    }
    let detail = format!("an Idempotency-Key has 1 to {most} printable ASCII characters, so that KEY#index is an id");
    Err(Problem::bad_request("malformed_idempotency_key", detail))
}

fn framing(headers: &HeaderMap) -> Result<Framing, Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(Framing::Json) };
    let unsupported = || {
        let detail = "send application/json or application/x-ndjson, in UTF-8";
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    };
    let text = value.to_str().map_err(|_| unsupported())?;
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let framing = match essence {
        "" => Framing::Json,
        // What curl says by itself of whatever it is given.
        _ if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") => Framing::Json,
        _ if essence.eq_ignore_ascii_case("application/json") => Framing::Json,
        _ if essence.eq_ignore_ascii_case("application/x-ndjson") => Framing::Lines,
        _ => return Err(unsupported()),
    };
    for parameter in parts {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim().trim_matches('"');
        let utf8 = ["utf-8", "utf8", "us-ascii"].iter().any(|known| value.eq_ignore_ascii_case(known));
        if name.trim().eq_ignore_ascii_case("charset") && !utf8 {
            return Err(unsupported());
        }
    }
    Ok(framing)
}

/// `%41` is `A` and `+` a space; `None` when it is not that, or not UTF-8.
fn percent_decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains(['%', '+']) {
        return Some(text.into());
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let (high, low) = (char::from(bytes.next()?).to_digit(16)?, char::from(bytes.next()?).to_digit(16)?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_and_every_parameter_is_known_and_given_once() {
        let query = Query::read("ack=stored&timeout=250ms&p%61rtial=true&hot=skip&").unwrap();
        assert!(query.ack && query.partial && !query.hot);
        assert_eq!(query.timeout, Some(Duration::from_millis(250)));
        let cases = [
            ("ack=log", "invalid_parameter"),
            ("ack", "invalid_parameter"),
            ("timeout=5", "invalid_parameter"),
            ("partial=1", "invalid_parameter"),
            ("hot=true", "invalid_parameter"),
            ("a=b", "unknown_parameter"),
            ("=", "unknown_parameter"),
            ("hot=skip&hot=skip", "repeated_parameter"),
            ("partial=true&partial=false", "repeated_parameter"),
            ("ack=%zz", "malformed_query"),
            ("ack=%ff", "malformed_query"),
            ("ack=%4", "malformed_query"),
        ];
        for (query, code) in cases {
            assert_eq!(Query::read(query).err().map(|problem| problem.code), Some(code), "{query}");
        }
    }
}
