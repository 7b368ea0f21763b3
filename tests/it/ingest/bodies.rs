//! Everything about a request but its items: methods, headers, encodings, sizes, parameters.

use std::io::Write as _;

use axum::{
    body::{Body, Bytes},
    http::{Method, Request},
};
use flate2::{
    Compression,
    write::{DeflateEncoder, GzEncoder, ZlibEncoder},
};
use futures_util::stream;
use serde_json::json;
use tallymark::{ingest::Options, units::Size};

use super::{Rig, post};

const PATH: &str = "/v1/increments";
const ITEM: &str = "{\"counter\":\"c\"}";

#[tokio::test]
async fn an_object_an_array_and_lines_are_read() {
    let rig = Rig::new();
    let ndjson = [("content-type", "application/x-ndjson")];
    rig.post(PATH, &[], ITEM).await.is_accepted(1);
    rig.post(PATH, &[], format!(" [ {ITEM} , {ITEM} ] ")).await.is_accepted(2);
    rig.post(PATH, &ndjson, format!("{ITEM}\n{ITEM}\r\n\n{ITEM}")).await.is_accepted(3);
    for (headers, body) in [(&[][..], "[]"), (&ndjson[..], ""), (&ndjson[..], "\n\r\n")] {
        let answer = rig.post(PATH, headers, body).await;
        answer.is_accepted(0);
        assert!(answer.receipt().packs.is_empty());
    }
    rig.post("/v1/increments?partial=true", &[], "[]").await.is_accepted(0);
}

#[tokio::test]
async fn what_is_not_one_json_document_is_refused_whole() {
    let rig = Rig::new();
    for body in [
        "",
        " ",
        "{",
        "[",
        "nul",
        "1",
        "\"a\"",
        "null",
        "true",
        "[1",
        "{\"counter\":\"c\"}x",
        "{\"counter\":\"c\"}{}",
        "[{\"counter\":\"c\"}],",
        "[{\"counter\":\"c\"},]",
        "{'counter':'c'}",
        "{\"counter\":\"a\nb\"}",
        "\u{feff}[]",
        "[{\"counter\":1,}]",
        "{\"counter\":\"c\"}\n{\"counter\":\"c\"}",
    ] {
        rig.post(PATH, &[], body).await.is_problem(400, "malformed_json");
    }
    for body in [&b"{\"counter\":\"\xff\"}"[..], b"\x80", b"[{\"counter\":\"\xed\xa0\x80\"}]"] {
        rig.post(PATH, &[], Bytes::copy_from_slice(body)).await.is_problem(400, "not_utf8");
    }
    assert!(rig.stop().await.packs().is_empty());
}

#[tokio::test]
async fn other_methods_and_paths_are_refused_as_http_says() {
    let rig = Rig::new();
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
        for path in [PATH, "/v1/events"] {
            let request = Request::builder().method(method.clone()).uri(path).body(Body::from(ITEM)).unwrap();
            let answer = rig.send(request).await;
            answer.is_problem(405, "method_not_allowed");
            assert_eq!(answer.headers["allow"], "POST");
        }
    }
    rig.post("/v1/nothing", &[], ITEM).await.is_problem(404, "not_found");
    rig.post("/v1/increments/", &[], ITEM).await.is_problem(404, "not_found");
}

#[tokio::test]
async fn content_types_are_json_lines_or_what_curl_says() {
    let rig = Rig::new();
    for value in [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=\"UTF-8\"",
        "application/x-www-form-urlencoded",
        "application/x-ndjson",
        "application/x-ndjson; charset=utf-8",
        "",
    ] {
        rig.post(PATH, &[("content-type", value)], ITEM).await.is_accepted(1);
    }
    for value in [
        "text/plain",
        "application/xml",
        "application/jsonx",
        "multipart/form-data",
        "json",
        "application/json; charset=latin1",
    ] {
        rig.post(PATH, &[("content-type", value)], ITEM).await.is_problem(415, "unsupported_media_type");
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn zlib(body: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn deflate(body: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn zstd(body: &[u8]) -> Vec<u8> {
    zstd::encode_all(body, 1).unwrap()
}

/// Stored, not compressed: a window of 64 KiB, uncompressed meta-blocks, an empty last one (RFC 7932, section 9).
fn brotli(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut first = true;
    for block in body.chunks(1 << 16) {
        // WBITS (only in front of the first), ISLAST 0, MNIBBLES 4, MLEN - 1, ISUNCOMPRESSED 1.
        let head = (u32::try_from(block.len() - 1).unwrap() << 3) | (1 << 19);
        let head = if first { head << 1 } else { head };
        out.extend_from_slice(&head.to_le_bytes()[..3]);
        out.extend_from_slice(block);
        first = false;
    }
    out.push(3);
    out
}

type Encode = fn(&[u8]) -> Vec<u8>;
const ENCODINGS: [(&str, Encode); 6] =
    [("gzip", gzip), ("x-gzip", gzip), ("deflate", zlib), ("deflate", deflate), ("zstd", zstd), ("br", brotli)];

#[tokio::test]
async fn every_encoding_decodes_and_a_part_of_a_body_is_never_taken_for_the_whole() {
    let rig = Rig::new();
    let lines = [("content-type", "application/x-ndjson")];
    for (name, encode) in ENCODINGS {
        for items in [1, 3000] {
            let whole = encode(format!("{ITEM}\n").repeat(items).as_bytes());
            let headers = [lines[0], ("content-encoding", name)];
            rig.post(PATH, &headers, whole.clone()).await.is_accepted(items);
            for cut in [1, whole.len() / 2, whole.len() - 1] {
                let answer = rig.post(PATH, &headers, whole[..cut].to_vec()).await;
                assert_eq!(answer.code(), "undecodable_body", "{name} cut to {cut} of {}", whole.len());
                answer.is_problem(400, "undecodable_body");
            }
            let longer = [&whole[..], b"trailing"].concat();
            let answer = rig.post(PATH, &headers, longer).await;
            assert_eq!(answer.code(), "undecodable_body", "{name} with a tail");
        }
        rig.post(PATH, &[("content-encoding", name)], ITEM).await.is_problem(400, "undecodable_body");
    }
    rig.post(PATH, &[("content-encoding", "GZIP")], gzip(ITEM.as_bytes())).await.is_accepted(1);
    rig.post(PATH, &[("content-encoding", "identity")], ITEM).await.is_accepted(1);
    rig.post(PATH, &[("content-encoding", "identity, gzip")], gzip(ITEM.as_bytes())).await.is_accepted(1);
    for value in ["compress", "gzip, zstd", "gzip, gzip", "x"] {
        let answer = rig.post(PATH, &[("content-encoding", value)], ITEM).await;
        answer.is_problem(415, "unsupported_encoding");
    }
    // A "large window" stream, which asks for a gigabyte.
    rig.post(PATH, &[("content-encoding", "br")], vec![0x11, 0x1e, 3]).await.is_problem(400, "undecodable_body");
}

#[tokio::test]
async fn a_body_is_bounded_as_sent_and_as_decoded() {
    let rig = Rig::with(Options { max_body: Size(1000), max_decoded: Size(4000), ..Options::default() });
    let padded = |bytes: usize| format!("{ITEM}{}", " ".repeat(bytes - ITEM.len()));
    rig.post(PATH, &[], padded(1000)).await.is_accepted(1);
    rig.post(PATH, &[], padded(1001)).await.is_problem(413, "body_too_large");
    let frames = |count: usize| {
        let frames = padded(count * 100).into_bytes();
        let frames: Vec<_> = frames.chunks(100).map(|frame| Ok::<_, std::io::Error>(frame.to_vec())).collect();
        Body::from_stream(stream::iter(frames))
    };
    rig.post(PATH, &[], frames(10)).await.is_accepted(1);
    rig.post(PATH, &[], frames(11)).await.is_problem(413, "body_too_large");
    for (name, encode) in ENCODINGS.into_iter().filter(|(name, _)| *name != "br") {
        let headers = [("content-encoding", name)];
        rig.post(PATH, &headers, encode(padded(4000).as_bytes())).await.is_accepted(1);
        rig.post(PATH, &headers, encode(padded(4001).as_bytes())).await.is_problem(413, "body_too_large");
    }
    let small = Rig::with(Options { max_body: Size(1 << 20), max_decoded: Size(1 << 20), ..Options::default() });
    let headers = [("content-encoding", "br")];
    small.post(PATH, &headers, brotli(padded((1 << 20) - 100).as_bytes())).await.is_accepted(1);
    let bomb = gzip(&vec![b' '; 64 << 20]);
    small.post(PATH, &[("content-encoding", "gzip")], bomb).await.is_problem(413, "body_too_large");
    assert_eq!(small.handle.buffered_bytes(), 0);
}

#[tokio::test]
async fn a_refused_body_is_read_so_that_the_client_gets_its_answer() {
    let rig = Rig::with(Options { max_body: Size(1000), max_decoded: Size(100_000), ..Options::default() });
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = |frames: usize| {
        let sent = sent.clone();
        sent.store(0, std::sync::atomic::Ordering::SeqCst);
        Body::from_stream(stream::iter((0..frames).map(move |_| {
            sent.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Ok::<_, std::io::Error>(vec![b' '; 100])
        })))
    };
    rig.post(PATH, &[], counted(50)).await.is_problem(413, "body_too_large");
    assert_eq!(sent.load(std::sync::atomic::Ordering::SeqCst), 50, "read to its end");
    rig.post(PATH, &[("content-type", "text/plain")], counted(5)).await.is_problem(415, "unsupported_media_type");
    assert_eq!(sent.load(std::sync::atomic::Ordering::SeqCst), 5);
    rig.post("/v1/nothing", &[], counted(5)).await.is_problem(404, "not_found");
    assert_eq!(sent.load(std::sync::atomic::Ordering::SeqCst), 5);
    rig.post(PATH, &[], counted(100_000)).await.is_problem(413, "body_too_large");
    assert!(sent.load(std::sync::atomic::Ordering::SeqCst) < 2000, "but not for ever");
    let broken = stream::iter([Ok(b"[".to_vec()), Err(std::io::Error::other("gone"))]);
    rig.post(PATH, &[], Body::from_stream(broken)).await.is_problem(400, "incomplete_body");
}

#[tokio::test]
async fn a_request_has_at_most_max_items() {
    let rig = Rig::with(Options { max_items: 3, ..Options::default() });
    let lines = [("content-type", "application/x-ndjson")];
    let array = |count: usize| format!("[{}]", vec![ITEM; count].join(","));
    rig.post(PATH, &[], array(3)).await.is_accepted(3);
    rig.post(PATH, &[], array(4)).await.is_problem(413, "too_many_items");
    rig.post(PATH, &lines, format!("{ITEM}\n").repeat(3)).await.is_accepted(3);
    rig.post(PATH, &lines, format!("{ITEM}\n").repeat(4)).await.is_problem(413, "too_many_items");
    rig.post("/v1/increments?partial=true", &[], "[1,2,3,4]").await.is_problem(413, "too_many_items");
    let rig = Rig::new();
    rig.post(PATH, &[], array(10_000)).await.is_accepted(10_000);
    rig.post(PATH, &[], array(10_001)).await.is_problem(413, "too_many_items");
}

#[tokio::test]
async fn headers_and_parameters_are_checked() {
    let rig = Rig::new();
    for name in ["a", "0_-", &"n".repeat(63)] {
        rig.post(PATH, &[("tallymark-namespace", name)], ITEM).await.is_accepted(1);
    }
    for name in ["", "A", "-a", "a.b", &"n".repeat(64)] {
        rig.post(PATH, &[("tallymark-namespace", name)], ITEM).await.is_problem(400, "malformed_namespace");
    }
    let twice = post(PATH, &[("tallymark-namespace", "a"), ("tallymark-namespace", "a")], ITEM);
    rig.send(twice).await.is_problem(400, "repeated_header");
    rig.post(PATH, &[("idempotency-key", &"k".repeat(123))], ITEM).await.is_accepted(1);
    for key in ["", &"k".repeat(124)] {
        rig.post(PATH, &[("idempotency-key", key)], ITEM).await.is_problem(400, "malformed_idempotency_key");
    }
    for (query, code) in [
        ("a=b", "unknown_parameter"),
        ("ack=log", "invalid_parameter"),
        ("timeout=soon", "invalid_parameter"),
        ("partial=yes", "invalid_parameter"),
        ("hot=only", "invalid_parameter"),
        ("hot=skip&hot=skip", "repeated_parameter"),
    ] {
        rig.post(&format!("{PATH}?{query}"), &[], ITEM).await.is_problem(400, code);
    }
    let answer = rig.post("/v1/increments?hot=skip&partial=true&timeout=1s", &[], ITEM).await;
    answer.is_accepted(1);
    assert_eq!(answer.json["rejected"], json!([]));
}
