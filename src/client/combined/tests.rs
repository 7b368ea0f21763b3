use super::*;
use proptest::prelude::*;

const TIME: &str = "[17/May/2015:10:05:03 +0000]";
const TIME_MS: i64 = 1_431_857_103_000;

fn line(request: &str) -> String {
    format!("1.2.3.4 - - {TIME} \"{request}\" 200 12 \"-\" \"-\"")
}

fn reason(line: &str) -> &'static str {
    parse(line.as_bytes()).unwrap_err().0
}

#[test]
fn a_line_gives_every_field() {
    let line =
        format!("83.149.9.216 - frank {TIME} \"GET /a/b?x=1&y=2 HTTP/1.1\" 404 203023 \"http://r/?q\" \"Agent (1)\"");
    let entry = parse(line.as_bytes()).unwrap();
    let expected = Entry {
        client: "83.149.9.216".into(),
        time_ms: TIME_MS,
        method: "GET",
        path: "/a/b".into(),
        query: Some("x=1&y=2".into()),
        status: "404",
        bytes: 203_023,
        referer: Some("http://r/?q".into()),
        agent: Some("Agent (1)".into()),
    };
    assert_eq!(entry, expected);
}

#[test]
fn requests_of_every_kind_give_method_and_path() {
    for (request, method, path) in [
        ("GET / HTTP/1.0", "GET", "/"),
        ("GET /with blanks in it HTTP/1.1", "GET", "/with blanks in it"),
        ("GET /no-version", "GET", "/no-version"),
        ("GET /two words", "GET", "/two words"),
        ("GET /? HTTP/1.1", "GET", "/"),
        ("GET ?q HTTP/1.1", "GET", ""),
        ("GET /a?b?c HTTP/1.1", "GET", "/a"),
        ("OPTIONS * HTTP/1.0", "OPTIONS", "*"),
        ("CONNECT host:443 HTTP/1.1", "CONNECT", "host:443"),
        ("M-SEARCH http://h/p?q HTTP/1.1", "M-SEARCH", "http://h/p"),
        (r#"GET /say/\"hi\" HTTP/1.1"#, "GET", r#"/say/\"hi\""#),
        (r"GET /back\\ HTTP/1.1", "GET", r"/back\\"),
        ("GET /é HTTP/1.1", "GET", "/é"),
        ("GET /tab\there HTTP/1.1", "GET", r"/tab\x09here"),
        ("GET /c1\u{85} HTTP/1.1", "GET", r"/c1\xc2\x85"),
        ("-", "-", "-"),
        ("", "-", "-"),
        ("GET", "-", "-"),
        ("GET ", "-", "-"),
        (" / HTTP/1.1", "-", "-"),
        (r"\x16\x03\x01 \x00 x", "-", "-"),
        ("G(T / HTTP/1.1", "-", "-"),
    ] {
        let line = line(request);
        let entry = parse(line.as_bytes()).unwrap_or_else(|reason| panic!("{request}: {reason}"));
        assert_eq!((entry.method, &*entry.path), (method, path), "{request}");
    }
}

#[test]
fn clients_users_and_sizes_of_every_kind_are_read() {
    for (head, client) in [
        ("::1 - -", "::1"),
        ("2001:db8::7 - -", "2001:db8::7"),
        ("host.example.org - -", "host.example.org"),
        ("1.2.3.4 - john doe", "1.2.3.4"),
        ("1.2.3.4 - [odd] name", "1.2.3.4"),
        ("1.2.3.4 ident user", "1.2.3.4"),
    ] {
        let line = format!("{head} {TIME} \"GET / HTTP/1.1\" 304 - \"-\" \"\"");
        let entry = parse(line.as_bytes()).unwrap_or_else(|reason| panic!("{head}: {reason}"));
        assert_eq!((&*entry.client, entry.bytes, entry.referer, entry.agent), (client, 0, None, None), "{head}");
    }
}

#[test]
fn quotes_escaped_in_referer_and_agent_belong_to_them() {
    let line = format!(r#"h - - {TIME} "GET / HTTP/1.1" 200 0 "http://r/\"x\"" "an \"agent\" \\""#);
    let entry = parse(line.as_bytes()).unwrap();
    assert_eq!(entry.referer.unwrap(), r#"http://r/\"x\""#);
    assert_eq!(entry.agent.unwrap(), r#"an \"agent\" \\"#);
}

#[test]
fn bytes_that_are_not_utf8_are_escaped() {
    let mut line = line("GET /x HTTP/1.1").into_bytes();
    let at = line.iter().position(|byte| *byte == b'x').unwrap();
    line[at] = 0xe4;
    assert_eq!(parse(&line).unwrap().path, r"/\xe4");
}

#[test]
fn an_agent_that_was_cut_off_is_taken_as_it_is() {
    let line = format!("h - - {TIME} \"GET / HTTP/1.1\" 200 0 \"-\" \"Mozilla/5.0 (compatible");
    assert_eq!(parse(line.as_bytes()).unwrap().agent.unwrap(), "Mozilla/5.0 (compatible");
}

#[test]
fn zones_and_leap_seconds_count() {
    for (time, ms) in [
        ("17/May/2015:12:05:03 +0200", TIME_MS),
        ("17/May/2015:04:35:03 -0530", TIME_MS),
        ("01/Jan/1970:00:00:00 +0000", 0),
        ("30/Jun/2015:23:59:60 +0000", 1_435_708_799_000),
        ("29/Feb/2016:00:00:00 +0000", 1_456_704_000_000),
    ] {
        assert_eq!(time_ms(time.as_bytes()), Some(ms), "{time}");
    }
}

#[test]
fn what_is_not_the_combined_format_is_refused_with_a_reason() {
    let with_time = |time: &str| line("GET / HTTP/1.1").replace(&TIME[1..27], time);
    for (line, expected) in [
        ("", "no client"),
        (" ", "no client"),
        ("garbage", "no identity"),
        ("GET / HTTP/1.1", "no time in brackets"),
        ("{\"json\": true}", "no time in brackets"),
        (&format!("vhost:80 1.2.3.4 - - {TIME} \"GET / HTTP/1.1\" 200 1 \"-\" \"-\""), "no time in brackets"),
        (&with_time("17/May/2015:10:05:03 0000 "), "the time is not"),
        (&with_time("17/Mai/2015:10:05:03 +0000"), "the time is not"),
        (&with_time("31/Apr/2015:10:05:03 +0000"), "the time is not"),
        (&with_time("17/May/2015:24:05:03 +0000"), "the time is not"),
        (&with_time("17/May/2015:10:05:61 +0000"), "the time is not"),
        (&with_time("17/May/2015:10:05:03 +2400"), "the time is not"),
        (&with_time("17/May/+015:10:05:03 +0000"), "the time is not"),
        (&with_time("2015-05-17T10:05:03Z"), "no time in brackets"),
        (&format!("h - - {TIME}"), "no quoted request"),
        (&format!("h - - {TIME} GET / 200 1"), "no quoted request"),
        (&format!("h - - {TIME} \"GET / HTTP/1.1 200 1 - -"), "the request has no closing quote"),
        (&format!("h - - {TIME} \"GET / HTTP/1.1\""), "no status"),
        (&format!("h - - {TIME} \"GET / HTTP/1.1\" OK 1 \"-\" \"-\""), "no status"),
        (&format!("h - - {TIME} \"GET / HTTP/1.1\" 2000 1 \"-\" \"-\""), "no status"),
        (&format!("h - - {TIME} \"GET / HTTP/1.1\" 200"), "no size"),
        (&format!("h - - {TIME} \"GET / HTTP/1.1\" 200 +1 \"-\" \"-\""), "the size is not"),
        (&format!("h - - {TIME} \"GET / HTTP/1.1\" 200 9223372036854775808 \"-\" \"-\""), "the size is not"),
        (&format!("h - - {TIME} \"GET / HTTP/1.1\" 200 1"), "no quoted referer"),
        (&format!("h - - {TIME} \"GET / HTTP/1.1\" 200 1 \"http://r"), "the referer has no closing quote"),
        (&format!("h - - {TIME} \"GET / HTTP/1.1\" 200 1 \"-\""), "no quoted agent"),
        (&format!("h - - {TIME} \"GET / HTTP/1.1\" 200 1 \"-\" \"-\" 0.5"), "something follows"),
        (&format!("h - - {TIME} \"GET / HTTP/1.1\"200 1 \"-\" \"-\""), "no quoted request"),
    ] {
        let reason = reason(line);
        assert!(reason.starts_with(expected), "{line}: {reason}");
    }
}

#[test]
fn a_long_text_is_cut_at_a_character_boundary_and_named_by_its_hash() {
    let at_limit = "x".repeat(256);
    assert_eq!(shorten(&at_limit, 256), at_limit);
    let long = "x".repeat(257);
    let hash = blake3::hash(long.as_bytes()).to_hex();
    assert_eq!(shorten(&long, 256), format!("{}~{}", "x".repeat(239), &hash[..16]));
    let wide = "é".repeat(200);
    let short = shorten(&wide, 256);
    assert_eq!(short.len(), 255);
    assert!(short.starts_with(&"é".repeat(119)) && short.as_bytes()[238] == b'~');
}

proptest! {
    #[test]
    fn no_bytes_panic_and_what_parses_has_no_control_characters(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut line = line("GET /x HTTP/1.1").into_bytes();
        let at = line.iter().position(|byte| *byte == b'x').unwrap();
        line.splice(at..at, bytes.iter().copied().filter(|byte| *byte != b'\n'));
        for input in [&bytes, &line] {
            if let Ok(entry) = parse(input) {
                let texts = [Some(entry.client), Some(entry.path), entry.query, entry.referer, entry.agent];
                prop_assert!(!texts.iter().flatten().any(|text| text.chars().any(char::is_control)));
            }
        }
    }

    #[test]
    fn a_line_cut_anywhere_or_with_a_byte_changed_never_panics(cut in 0_usize..120, at in 0_usize..120, byte: u8) {
        let mut line = line(r#"GET /a\"b HTTP/1.1"#).into_bytes();
        let at = at % line.len();
        line[at] = byte;
        line.truncate(cut);
        let _ = parse(&line);
    }

    #[test]
    fn what_is_written_is_read_back(
        client in "[0-9a-f.:]{1,40}",
        method in "[A-Z]{1,10}",
        path in "/[!-!#->@-\\[\\]-~]{0,40}",
        query in proptest::option::of("[!#-\\[\\]-~]{0,20}"),
        status in 100_u16..600,
        bytes in 0_i64..,
        agent in "[a-zA-Z0-9/;() ]{0,40}[a-z]",
    ) {
        let target = query.as_ref().map_or(path.clone(), |query| format!("{path}?{query}"));
        let line = format!("{client} - - {TIME} \"{method} {target} HTTP/1.1\" {status} {bytes} \"-\" \"{agent}\"");
        let entry = parse(line.as_bytes()).unwrap();
        prop_assert_eq!(&*entry.client, &client);
        prop_assert_eq!(entry.method, &method);
        prop_assert_eq!(&*entry.path, &path);
        prop_assert_eq!(entry.query.as_deref(), query.as_deref());
        prop_assert_eq!(entry.status, status.to_string());
        prop_assert_eq!(entry.bytes, bytes);
        prop_assert_eq!(entry.agent.as_deref(), Some(&*agent));
    }

    #[test]
    fn a_shortened_text_fits_and_two_texts_stay_two(text in "\\PC{0,400}", other in "\\PC{0,400}") {
        let short = shorten(&text, MAX_TEXT_BYTES);
        prop_assert!(short.len() <= MAX_TEXT_BYTES);
        prop_assert_eq!(short == shorten(&other, MAX_TEXT_BYTES), text == other);
    }
}
