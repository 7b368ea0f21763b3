//! The wire itself, byte by byte, against the real binary: what clients send that a well-behaved library would not.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::TcpStream,
};

use super::process::{PATIENCE, Server, wait_until};

/// An open connection.
struct Wire(BufReader<TcpStream>);

/// An answer, read to its end.
#[derive(Debug)]
struct Answer {
    line: String,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Answer {
    fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{self:?}"))
    }

    #[track_caller]
    fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status(), status, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let problem: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!((&problem["code"], &problem["status"]), (&code.into(), &status.into()), "{self:?}");
    }
}

impl Wire {
    fn to(server: &Server) -> Self {
        let stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).expect("the server reads what a client sends");
    }

    fn answer(&mut self) -> Answer {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("the server answers");
        let mut headers = BTreeMap::new();
        loop {
            let mut header = String::new();
            self.0.read_line(&mut header).unwrap();
            let Some((name, value)) = header.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        Answer { line: line.trim_end().to_owned(), headers, body: String::from_utf8(body).unwrap() }
    }

    /// Whether the server closes it, and sends nothing before.
    fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => rest.is_empty(),
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

fn head(target: &str, headers: &[&str]) -> String {
    let lines: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    format!("POST {target} HTTP/1.1\r\nhost: tallymark\r\ncontent-type: application/json\r\n{lines}\r\n")
}

/// One valid increment in a body of so many bytes.
fn body_of(length: usize) -> String {
    let item = r#"{"counter": "c"}"#;
    format!("{item}{}", " ".repeat(length - item.len()))
}

const SMALL: &[&str] = &["--set", "ingest.max_body=64KiB"];
const ITEM: &str = r#"{"counter": "c"}"#;

#[test]
fn a_body_over_the_limit_gets_its_413_however_it_is_framed() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), SMALL);
    let body = body_of(8 << 20);
    let mut wire = Wire::to(&server);
    wire.send(head("/v1/increments", &[&format!("content-length: {}", body.len())]));
    wire.send(&body);
    wire.answer().is_problem(413, "body_too_large");

    let mut wire = Wire::to(&server);
    wire.send(head("/v1/increments", &["transfer-encoding: chunked"]));
    for chunk in body.as_bytes().chunks(10_000) {
        wire.send(format!("{:x}\r\n", chunk.len()));
        wire.send(chunk);
        wire.send("\r\n");
    }
    wire.send("0\r\n\r\n");
    wire.answer().is_problem(413, "body_too_large");
    // What was refused is read to its end: the connection is as good as new.
    wire.send(head("/v1/increments", &["content-length: 16"]));
    wire.send(ITEM);
    assert_eq!(wire.answer().status(), 202);

    let body = body_of(64 << 10);
    wire.send(head("/v1/increments", &[&format!("content-length: {}", body.len())]));
    wire.send(&body);
    assert_eq!(wire.answer().status(), 202, "at the limit it is taken");
}

#[test]
fn a_client_that_expects_100_continue_is_told_to_go_on_or_why_not() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), SMALL);
    let mut wire = Wire::to(&server);
    let expecting = |length: usize| {
        let length = format!("content-length: {length}");
        head("/v1/increments", &[&length, "user-agent: curl/8.5.0", "accept: */*", "expect: 100-continue"])
    };
    wire.send(expecting(ITEM.len()));
    let go_on = wire.answer();
    assert_eq!(go_on.line, "HTTP/1.1 100 Continue");
    wire.send(ITEM);
    assert_eq!(wire.answer().status(), 202);

    let mut wire = Wire::to(&server);
    wire.send(expecting(5 << 20));
    wire.answer().is_problem(413, "body_too_large");
}

#[test]
fn a_compressed_body_is_read() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(br#"[{"counter": "zipped", "amount": 40}, {"counter": "zipped", "amount": 2}]"#).unwrap();
    let body = encoder.finish().unwrap();
    let mut wire = Wire::to(&server);
    let length = format!("content-length: {}", body.len());
    wire.send(head("/v1/increments?ack=stored&timeout=20s", &["content-encoding: gzip", &length]));
    wire.send(&body);
    assert_eq!(wire.answer().status(), 200);
    assert_eq!(server.stored("zipped"), Some(42));
}

#[test]
fn requests_that_come_before_the_answers_are_answered_in_order() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    let mut wire = Wire::to(&server);
    let post = format!("{}{ITEM}", head("/v1/increments?ack=stored&timeout=20s", &["content-length: 16"]));
    wire.send(format!("{post}GET /v1/counters/c HTTP/1.1\r\nhost: tallymark\r\n\r\n"));
    let (posted, read) = (wire.answer(), wire.answer());
    assert_eq!((posted.status(), read.status()), (200, 200), "{posted:?} {read:?}");
    assert!(posted.body.contains("accepted") && read.body.contains("\"total\":1"), "{posted:?} {read:?}");
    // A request of which only half has come holds up nobody's answer.
    let last = "GET /v1/counters/c HTTP/1.1\r\nhost: tallymark\r\nconnection: close\r\n\r\n";
    let (half, rest) = last.split_at(20);
    wire.send(format!("{post}{half}"));
    assert_eq!(wire.answer().status(), 200);
    wire.send(rest);
    assert_eq!(wire.answer().status(), 200);
    assert!(wire.is_closed());
}

#[test]
fn http_1_0_is_answered_and_closed() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    let mut wire = Wire::to(&server);
    wire.send(format!("POST /v1/increments HTTP/1.0\r\ncontent-length: 16\r\n\r\n{ITEM}"));
    let answer = wire.answer();
    assert_eq!(answer.status(), 202, "{answer:?}");
    assert!(answer.line.starts_with("HTTP/1.0"), "{answer:?}");
    assert!(wire.is_closed());
}

#[test]
fn bytes_that_are_no_request_are_answered_400_and_the_connection_is_closed() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    let tls_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice();
    let no_length = b"POST / HTTP/1.1\r\ncontent-length: abc\r\n\r\n";
    for garbage in
        [tls_hello, no_length, b"what is this\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n", &[0xff; 4096]]
    {
        let mut wire = Wire::to(&server);
        wire.send(garbage);
        assert_eq!(wire.answer().status(), 400);
        assert!(wire.is_closed());
    }
    assert_eq!(server.get("/v1/counters").0, 200, "nobody else notices");
}

#[test]
fn a_head_that_does_not_come_in_time_is_cut_off() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &["--set", "http.header_timeout=200ms"]);
    for sent in ["", "POST /v1/increments HTTP/1.1\r\nhost: tallym"] {
        let mut wire = Wire::to(&server);
        wire.send(sent);
        assert!(wire.is_closed(), "{sent}");
    }
}

#[test]
fn connections_past_the_bound_are_answered_503_until_one_is_free() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &["--set", "http.max_connections=2"]);
    let get = "GET /v1/counters HTTP/1.1\r\nhost: tallymark\r\n\r\n";
    let mut open: Vec<_> = (0..2).map(|_| Wire::to(&server)).collect();
    for wire in &mut open {
        wire.send(get);
        assert_eq!(wire.answer().status(), 200);
    }
    let mut refused = Wire::to(&server);
    let answer = refused.answer();
    answer.is_problem(503, "too_many_connections");
    assert_eq!(answer.headers["retry-after"], "1");
    assert!(refused.is_closed());
    // A client that has sent its request already must get to read the refusal, too.
    let mut refused = Wire::to(&server);
    refused.send(format!("{}{}", head("/v1/increments", &["content-length: 60000"]), body_of(60_000)));
    refused.answer().is_problem(503, "too_many_connections");

    drop(open.pop());
    wait_until("the freed place is taken", || {
        let mut wire = Wire::to(&server);
        // Refused, it may be closed before this is sent.
        let _ = wire.0.get_mut().write_all(get.as_bytes());
        wire.answer().status() == 200
    });
}
