//! The HTTP client of the commands: requests with a deadline, answers with a bound, failures with a cause.
//!
//! It does not retry and it does not judge a status: `send` does both, `get` and `lag` only the latter (with
//! [`refusal`]). Redirects are not followed, because a POST that became a GET would look like a success. For `http://`
//! the system's root certificates are not read; an instance on this machine is reached without a proxy.

use std::{io, net::IpAddr, time::Duration};

use bytes::Bytes;
use reqwest::{Method, Url, header, redirect};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use serde::Deserialize;

use super::{Error, one_line};

/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 << 20;
const NAMESPACE: &str = "tallymark-namespace";

/// An instance's address and the connections to it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Http {
    client: reqwest::Client,
    base: Url,
}

/// What an instance answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// After how long to try again, if it said so.
    pub retry_after: Option<Duration>,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer. Whether the request was carried out is not known, except when nobody listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be made.
    Connect(String),
    /// The deadline passed first.
    Timeout,
    /// The connection broke, or what came over it was no answer.
    Broken(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect(reason) => write!(f, "cannot connect: {reason}"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Broken(reason) => write!(f, "the connection broke: {reason}"),
        }
    }
}

/// The body of a POST.
#[derive(Clone, Debug)]
pub struct Body {
    /// Its bytes, as they are sent.
    pub bytes: Bytes,
    /// Its media type.
    pub content_type: &'static str,
    /// Whether `bytes` are compressed with gzip.
    pub gzip: bool,
}

impl Http {
    /// A client of the instance at `url`, on behalf of this namespace if one is named.
    ///
    /// # Errors
    /// When `url` or the namespace is not one, or the system's certificates cannot be read for an `https://` one.
    pub fn new(url: &str, namespace: Option<&str>) -> Result<Self, Error> {
        let usage =
            |why: &str| Error::Usage(format!("`{url}` is not an address: {why}; write one like http://127.0.0.1:8080"));
        let base = Url::parse(url).map_err(|error| usage(&error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(usage("it does not begin with http:// or https://"));
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err(usage("it has a query or a fragment"));
        }
        let mut headers = header::HeaderMap::new();
        if let Some(namespace) = namespace {
            crate::item::Namespace::parse(namespace).map_err(|invalid| Error::Usage(invalid.message))?;
            let value = namespace.parse().expect("a namespace is made of letters, digits, `_` and `-`");
            headers.insert(NAMESPACE, value);
        }
        // An error means that somebody else has installed one: as good.
        let _ = ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("tallymark/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30))
            .redirect(redirect::Policy::none());
        if base.scheme() == "http" {
            let no_roots = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
            builder = builder.tls_backend_preconfigured(no_roots);
        }
        if is_this_machine(&base) {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| Error::Client { url: url.to_owned(), reason: cause(&error) })?;
        Ok(Self { client, base })
    }

    /// The address, as it is named to people.
    pub fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Asks for a path, given in segments, and a query.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn get(&self, path: &[&str], query: &[(String, String)], limit: Duration) -> Result<Answer, Failure> {
        self.request(Method::GET, path, query, None, limit).await
    }

    /// Posts a body to a path, given in segments, with a query.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn post(
        &self,
        path: &[&str],
        query: &[(String, String)],
        body: Body,
        limit: Duration,
    ) -> Result<Answer, Failure> {
        self.request(Method::POST, path, query, Some(body), limit).await
    }

    /// Posts a body to a path and hands out the answer's lines as they come; `patience` is how long the next one may take. An
    /// answer that is no success comes back whole.
    ///
    /// # Errors
    /// When there is no answer, or it breaks off.
    pub async fn post_lines(
        &self,
        path: &[&str],
        body: Body,
        patience: Duration,
        mut line: impl FnMut(&[u8]),
    ) -> Result<Answer, Failure> {
        let mut url = self.base.clone();
        url.path_segments_mut().expect("an http address has a path").pop_if_empty().extend(path);
        let request = self.client.post(url).header(header::CONTENT_TYPE, body.content_type).body(body.bytes);
        let answer = tokio::time::timeout(patience, request.send()).await.map_err(|_| Failure::Timeout)?;
        let mut response = answer.map_err(|error| failure(&error))?;
        let status = response.status().as_u16();
        let mut waiting = Vec::new();
        loop {
            let chunk = tokio::time::timeout(patience, response.chunk()).await.map_err(|_| Failure::Timeout)?;
            let Some(chunk) = chunk.map_err(|error| failure(&error))? else { break };
            waiting.extend_from_slice(&chunk);
            while let Some(end) = waiting.iter().position(|byte| *byte == b'\n').filter(|_| status == 200) {
                line(&waiting[..end]);
                waiting.drain(..=end);
            }
            if waiting.len() > MAX_ANSWER_BYTES {
                return Err(Failure::Broken(format!("a line is longer than {} MiB", MAX_ANSWER_BYTES >> 20)));
            }
        }
        Ok(Answer { status, retry_after: None, body: waiting.into() })
    }

    async fn request(
        &self,
        method: Method,
        path: &[&str],
        query: &[(String, String)],
        body: Option<Body>,
        limit: Duration,
    ) -> Result<Answer, Failure> {
        let mut url = self.base.clone();
        // Each segment is percent-encoded by itself, so that a `/` in a counter's name stays inside it.
        url.path_segments_mut().expect("an http address has a path").pop_if_empty().extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.client.request(method, url).timeout(limit);
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, body.content_type);
            if body.gzip {
                request = request.header(header::CONTENT_ENCODING, "gzip");
            }
            request = request.body(body.bytes);
        }
        let mut response = request.send().await.map_err(|error| failure(&error))?;
        let status = response.status().as_u16();
        let retry_after =
            response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| failure(&error))? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(Failure::Broken(format!("the answer is longer than {} MiB", MAX_ANSWER_BYTES >> 20)));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, retry_after: retry_after.map(Duration::from_secs), body: body.into() })
    }
}

/// What a command that asks once makes of a failure: nobody there, or nothing said in time.
pub(super) fn unanswered(failure: Failure, http: &Http, flag: &'static str) -> Error {
    let url = http.url().to_owned();
    match failure {
        Failure::Connect(reason) => Error::NotRunning { url, reason, flag },
        other => Error::NoAnswer { url, reason: one_line(&other.to_string()) },
    }
}

/// What an answer that is not a success says: the problem's code and detail, or else the head of its body.
pub(super) fn refusal(http: &Http, answer: &Answer) -> Error {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Problem {
        code: String,
        detail: String,
        message: String,
    }
    let mut problem: Problem = serde_json::from_slice(&answer.body).unwrap_or_default();
    if problem.detail.is_empty() {
        problem.detail = std::mem::take(&mut problem.message);
    }
    if problem.detail.is_empty() {
        let text = String::from_utf8_lossy(&answer.body[..answer.body.len().min(200)]);
        problem.detail = match text.trim() {
            "" => "without saying why; is this the address of a Tallymark instance?".to_owned(),
            text => text.to_owned(),
        };
    }
    Error::Refused {
        url: http.url().to_owned(),
        status: answer.status,
        code: one_line(&problem.code),
        detail: one_line(&problem.detail),
    }
}

fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

fn failure(error: &reqwest::Error) -> Failure {
    if error.is_timeout() {
        Failure::Timeout
    } else if error.is_connect() {
        Failure::Connect(cause(error))
    } else {
        Failure::Broken(cause(error))
    }
}

/// The innermost cause: the layers above it only say that a request failed.
fn cause(error: &reqwest::Error) -> String {
    let mut innermost: &(dyn std::error::Error + 'static) = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match innermost.downcast_ref::<io::Error>() {
        Some(io) if io.raw_os_error().is_some() => io.kind().to_string(),
        _ => one_line(&innermost.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_none_is_wrong_usage() {
        for url in ["", "localhost:8080", "ftp://h/", "http://", "http://h/?q", "http://h:99999"] {
            let error = Http::new(url, None).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{url}: {error}");
            assert!(error.to_string().contains("http://127.0.0.1:8080"), "{error}");
        }
        assert_eq!(Http::new("http://127.0.0.1:8080", Some("Not One")).unwrap_err().exit_code(), 2);
        assert_eq!(Http::new("http://h:80/prefix/", Some("one")).unwrap().url(), "http://h/prefix");
    }

    #[test]
    fn a_client_for_https_is_made_or_says_that_there_are_no_certificates() {
        if let Err(error) = Http::new("https://127.0.0.1:1", None) {
            assert_eq!(error.exit_code(), 1, "{error}");
        }
    }

    #[test]
    fn this_machine_is_known_by_its_names() {
        for (url, here) in [
            ("http://localhost:1", true),
            ("http://127.0.0.9", true),
            ("http://[::1]:1", true),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_this_machine(&Url::parse(url).unwrap()), here, "{url}");
        }
    }
}
