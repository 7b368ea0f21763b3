//! `Content-Encoding`: gzip, zstd, br, deflate; how much a body may decode to is bounded while it decodes.
//!
//! A body must decode wholly: one that is cut short, or has something after its end, is refused, for a part of a
//! request must never be taken for the whole.

use std::io::{self, Read};

use axum::http::{HeaderMap, StatusCode, header};
use flate2::{Decompress, FlushDecompress, Status, bufread::MultiGzDecoder};

use super::budget::Reserved;
use crate::problem::Problem;

/// Bytes decoded at a time.
const CHUNK: usize = 16 << 10;
/// Largest zstd window, as a power of two: 8 MiB, the most that HTTP clients may use (RFC 9659).
const ZSTD_WINDOW_LOG: u32 = 23;

/// How a body was encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Deflate,
    Zstd,
    Brotli,
}

impl Encoding {
    /// What the headers say. One encoding besides `identity`; several after one another are not taken.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut found = Self::Identity;
        for value in headers.get_all(header::CONTENT_ENCODING) {
            for name in value.to_str().unwrap_or("?").split(',').map(str::trim).filter(|name| !name.is_empty()) {
                let encoding = match name.to_ascii_lowercase().as_str() {
                    "identity" => continue,
                    "gzip" | "x-gzip" => Self::Gzip,
                    "deflate" => Self::Deflate,
                    "zstd" => Self::Zstd,
                    "br" => Self::Brotli,
                    _ => return Err(unsupported("this content encoding is not taken; use gzip, zstd, br or deflate")),
                };
                if found != Self::Identity {
                    return Err(unsupported("a body is encoded once; send it with one content encoding"));
                }
                found = encoding;
            }
        }
        Ok(found)
    }

    /// Decodes a body of at most `limit` bytes, which are reserved as they appear.
    pub(super) fn decode(self, body: &[u8], limit: usize, reserved: &mut Reserved) -> Result<Vec<u8>, Problem> {
        let mut out = Output { bytes: Vec::new(), limit, reserved };
        match self {
            Self::Identity => out.push(body)?,
            Self::Gzip => out.pull(MultiGzDecoder::new(body))?,
            Self::Deflate => out.inflate(body)?,
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(broken)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(broken)?;
                out.pull(decoder)?;
            }
            Self::Brotli => {
                // The decoder would take "large window" streams, which RFC 7932 has not and which may ask for a gigabyte.
                if body.first().is_some_and(|first| first & 0x7f == 0x11) {
                    return Err(undecodable("its window is larger than br allows"));
                }
                let mut decoder = brotli_decompressor::Decompressor::new(body, CHUNK);
                out.pull(&mut decoder)?;
                // Read once more past its end, the decoder says whether something was left in its buffer.
                let left = decoder.read(&mut [0]).is_err();
                if left || !decoder.get_ref().is_empty() {
                    return Err(undecodable("something follows its end"));
                }
            }
        }
        Ok(out.bytes)
    }
}

struct Output<'a> {
    bytes: Vec<u8>,
    limit: usize,
    reserved: &'a mut Reserved,
}

impl Output<'_> {
    fn push(&mut self, chunk: &[u8]) -> Result<(), Problem> {
        if chunk.len() > self.limit - self.bytes.len() {
            let detail = format!("the body decodes to more than {} bytes (ingest.max_decoded)", self.limit);
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail));
        }
        if !self.reserved.grow(chunk.len()) {
            return Err(super::shared::overloaded());
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    fn pull(&mut self, mut decoder: impl Read) -> Result<(), Problem> {
        let mut chunk = vec![0; CHUNK];
        loop {
            match decoder.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(count) => self.push(&chunk[..count])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(error)),
            }
        }
    }

    /// What HTTP calls `deflate` is a zlib stream; some clients send the bare stream without its header, so both are read.
    fn inflate(&mut self, body: &[u8]) -> Result<(), Problem> {
        let is_zlib = match body {
            [cmf, flags, ..] => cmf & 0x0f == 8 && u16::from_be_bytes([*cmf, *flags]).is_multiple_of(31),
            _ => false,
        };
        let mut decoder = Decompress::new(is_zlib);
        let mut chunk = vec![0; CHUNK];
        let mut at = 0;
        loop {
            let (before_in, before_out) = (decoder.total_in(), decoder.total_out());
            let status = decoder
                .decompress(&body[at..], &mut chunk, FlushDecompress::None)
                .map_err(|error| undecodable(&error.to_string()))?;
            let taken = usize::try_from(decoder.total_in() - before_in).expect("a part of the body");
            let made = usize::try_from(decoder.total_out() - before_out).expect("at most a chunk");
            at += taken;
            self.push(&chunk[..made])?;
            match status {
                Status::StreamEnd if at == body.len() => return Ok(()),
                Status::StreamEnd => return Err(undecodable("something follows its end")),
                Status::Ok | Status::BufError if taken == 0 && made == 0 => {
                    return Err(undecodable("it is cut short"));
                }
                Status::Ok | Status::BufError => {}
            }
        }
    }
}

fn unsupported(detail: &str) -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", detail)
}

fn undecodable(why: &str) -> Problem {
    Problem::bad_request("undecodable_body", format!("the body does not decode as its Content-Encoding says: {why}"))
}

#[expect(clippy::needless_pass_by_value, reason = "used with map_err")]
fn broken(error: io::Error) -> Problem {
    undecodable(&error.to_string())
}
