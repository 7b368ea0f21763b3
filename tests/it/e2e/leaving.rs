//! SIGTERM: not ready first, intake ends, what was accepted is answered, and nobody's slowness holds the end up.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use super::process::{PATIENCE, Server, get_json, post, wait_until};

/// A client of the public port that writes by hand.
fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What is answered until the connection ends.
fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset after the answer is no matter.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_client_that_sends_half_a_body_is_told_that_nothing_was_accepted_and_holds_nothing_up() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start(data.path(), &[]);
    let mut slow = connect(&server);
    slow.write_all(b"POST /v1/increments HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n[{\"counter\"").unwrap();
    // Another, which has sent no more than half a head.
    let mut silent = connect(&server);
    silent.write_all(b"POST /v1/incr").unwrap();
    assert_eq!(server.post("/v1/increments", r#"{"counter": "c", "amount": 3}"#).0, 202);
    let stopped = Instant::now();
    server.signal("TERM");
    let answer = rest(slow);
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("nothing was accepted"), "{answer}");
    assert!(answer.to_lowercase().contains("retry-after:"), "{answer}");
    assert_eq!(server.wait().code(), Some(0));
    assert!(stopped.elapsed() < Duration::from_secs(25), "{:?}", stopped.elapsed());
    drop(silent);
    let server = Server::start(data.path(), &[]);
    server.settle();
    assert_eq!(server.stored("c"), Some(3));
}

#[test]
fn a_process_that_leaves_is_not_ready_and_takes_nothing_while_it_finishes_what_it_has() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    // It reads no answer until the end: so there is time to look.
    let mut holds = connect(&server);
    holds.write_all(b"POST /v1/increments HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n[").unwrap();
    server.signal("TERM");
    let mut server = server;
    let readyz = format!("{}/health/readyz", server.admin);
    let (mut draining, mut refused, mut accepted, deadline) = (false, false, 0, Instant::now() + PATIENCE);
    while let Some((status, answer)) = get_json(&readyz)
        && Instant::now() < deadline
    {
        // Between the signal and its arrival it is ready still.
        if status == 503 {
            assert_eq!(answer["readiness"], "draining", "{answer}");
            draining = true;
            // Not ready comes first. Then a request is refused by a word, or nobody listens any more, and none is accepted again.
            let answer = post(&format!("{}/v1/increments", server.url), r#"{"counter": "late"}"#);
            let Some((status, answer)) = answer else { break };
            if status == 202 && !refused {
                accepted += 1;
                continue;
            }
            refused = true;
            assert!(status == 503 && answer["code"] == "draining", "{status}: {answer}");
        }
    }
    assert!(draining, "it was seen to drain");
    assert_eq!(server.wait().code(), Some(0));
    let server = Server::start(data.path(), &[]);
    server.settle_well();
    assert_eq!(server.stored("late").unwrap_or(0), accepted, "what was accepted is there, and nothing else");
}

#[test]
fn a_start_that_waits_for_a_server_is_given_up_at_once() {
    // Takes connections, and says nothing on them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let (log, store) = (format!("kafka://{address}/t"), format!("scylla://{address}/k"));
    let mut child = super::process::tallymark(&["run", "ingest", "--log", &log, "--store", &store])
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--set", "log.request_timeout=60s"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // It has taken over its signals before it asks anybody.
    let _asked = silent.accept().unwrap();
    let stopped = Instant::now();
    assert!(std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let mut code = None;
    wait_until("it ends", || {
        code = child.try_wait().unwrap();
        code.is_some()
    });
    assert_eq!(code.unwrap().code(), Some(0));
    assert!(stopped.elapsed() < Duration::from_secs(10), "{:?}", stopped.elapsed());
}
