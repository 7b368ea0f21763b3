//! The commands' standard streams: pipes in, and readers that go away.

use std::{
    io::{Read as _, Write as _},
    process::{Command, Stdio},
};

use super::process::{Server, tallymark};

/// Its exit code and standard error, after what it reads was written and everything else closed.
fn fed(command: &mut Command, input: &[u8]) -> (Option<i32>, String, String) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // One that refuses to start does not read.
    let _ = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Runs it with a reader that takes `most` bytes of its output and goes; answers what it said on standard error.
fn cut_off(command: &mut Command, most: usize) -> (Option<i32>, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut vec![0; most]).unwrap();
    drop(stdout);
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

#[test]
fn items_are_sent_from_a_pipe() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    let send = |input: &[u8]| fed(&mut tallymark(&["send", "-", "--json", "--url", &server.url]), input);
    // The last line has no end.
    let (code, out, err) = send(b"{\"counter\": \"piped\", \"amount\": 2}\n\n{\"counter\": \"piped\", \"amount\": 3}");
    assert_eq!(code, Some(0), "{err}");
    let summary: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&summary["lines"], &summary["accepted"]), (&2.into(), &2.into()), "{summary}");
    server.settle();
    assert_eq!(server.stored("piped"), Some(5));

    let (code, _, err) = send(b"{\"counter\": \"piped\"}\nnot json\n");
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("line 2"), "{err}");
    let (code, out, err) = send(b"");
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("\"lines\":0"), "{out}");
    // Bytes that are no text at all are lines like others.
    let (code, _, err) = send(&[0xff, 0x00, b'\n', 0xfe]);
    assert_eq!(code, Some(1), "{err}");
    assert!(!err.contains("panicked"), "{err}");
}

#[test]
fn a_reader_that_goes_away_ends_a_command_without_a_word() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]);
    server.post("/v1/increments", r#"{"counter": "c"}"#);
    server.settle();
    let get: &[&str] = &["get", "c", "--json", "--url", &server.url];
    let lag: &[&str] = &["lag", "--admin-url", &server.admin];
    for (args, most) in [(get, 1), (get, 0), (lag, 1), (lag, 0)] {
        let (code, said) = cut_off(&mut tallymark(args), most);
        assert_eq!((code, said.as_str()), (Some(0), ""), "{args:?}");
    }
    let mut send = tallymark(&["send", "-", "--json", "--url", &server.url]);
    let (code, said) = cut_off(&mut send, 0);
    assert_eq!(code, Some(0), "{said}");
}
