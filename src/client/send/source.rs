//! Reads the input on a thread of its own and hands it over in bounded chunks.
//!
//! A thread and not a task, because reading a pipe or a terminal blocks for as long as its writer likes. When whoever
//! sends has given up, the thread ends at its next hand-over; one that is blocked in a read is left behind and ends with
//! the process.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{
    Format, Input,
    batch::Chunk,
    items::{self, Ids},
};
use crate::client::Error;

/// A longer line is no item: properties and tags together have far less.
const MAX_LINE_BYTES: usize = 1 << 20;
/// A chunk is handed over at this many lines,
const CHUNK_LINES: u64 = 256;
/// or at this many bytes of items,
const CHUNK_BYTES: usize = 256 << 10;
/// or when the next line has to be waited for. So many chunks may wait.
const CHUNKS: usize = 2;
const BUFFER_BYTES: usize = 128 << 10;
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// What to read, and how.
pub(super) struct Source {
    pub(super) input: Input,
    pub(super) format: Format,
    pub(super) ids: Ids,
    /// Again and again, with ids of this run; once, when there is none.
    pub(super) run: Option<u64>,
    /// Lines per second.
    pub(super) rate: Option<f64>,
}

/// What the reader hands over: chunks, and at last its failure if it has met one.
pub(super) type Chunks = mpsc::Receiver<Result<Chunk, Error>>;

impl Source {
    /// Opens the input and begins to read. Also says how long the input is, if that is known.
    pub(super) fn start(self) -> Result<(Chunks, Option<u64>), Error> {
        // Opened here so that a missing file is an error before anything is sent.
        let (first, length) = self.open()?;
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let path = self.path();
        let reader = thread::Builder::new().name("send-reader".to_owned()).spawn(move || {
            let path = self.path();
            let mut to = Handover { sender, rate: self.rate, started: Instant::now(), lines: 0 };
            if let Err(source) = self.read(first, &mut to) {
                to.fail(Error::Input { path, source });
            }
        });
        reader.map_err(|source| Error::Input { path, source })?;
        Ok((receiver, length))
    }

    fn path(&self) -> PathBuf {
        match &self.input {
            Input::Stdin => PathBuf::from("-"),
            Input::File(path) => path.clone(),
        }
    }

    fn open(&self) -> Result<(Box<dyn Read + Send>, Option<u64>), Error> {
        match &self.input {
            Input::Stdin => Ok((Box::new(io::stdin()), None)),
            Input::File(path) => {
                let opened = File::open(path).and_then(|file| {
                    let metadata = file.metadata()?;
                    if metadata.is_dir() {
                        return Err(io::ErrorKind::IsADirectory.into());
                    }
                    Ok((Box::new(file) as Box<dyn Read + Send>, metadata.is_file().then_some(metadata.len())))
                });
                opened.map_err(|source| Error::Input { path: path.clone(), source })
            }
        }
    }

    fn read(&self, first: Box<dyn Read + Send>, to: &mut Handover) -> io::Result<()> {
        let Some(run) = self.run else {
            return self.read_once(first, &self.ids, to).map(drop);
        };
        let mut reader = first;
        for round in 0.. {
            let before = to.lines;
            let open = self.read_once(reader, &self.ids.round(run, round), to)?;
            // Nothing in it: to read it again would only warm the machine.
            if !open || to.lines == before {
                break;
            }
            reader = match self.open() {
                Ok((reader, _)) => reader,
                Err(error) => {
                    to.fail(error);
                    break;
                }
            };
        }
        Ok(())
    }

    /// Reads to the end. `false` when nobody takes the chunks any more.
    fn read_once(&self, reader: Box<dyn Read + Send>, ids: &Ids, to: &mut Handover) -> io::Result<bool> {
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, reader);
        let mut line = Vec::new();
        let mut chunk = Chunk::new();
        for number in 1.. {
            line.clear();
            let Some(Line { bytes, too_long }) = read_line(&mut reader, &mut line)? else { break };
            chunk.bytes += bytes;
            let mut text = &line[..];
            if number == 1 {
                text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
            }
            if too_long {
                chunk.lines += 1;
                chunk.bad.push((number, format!("longer than {} MiB", MAX_LINE_BYTES >> 20)));
            } else if !text.trim_ascii().is_empty() {
                chunk.lines += 1;
                items::read(self.format, ids, number, text, &mut chunk);
            }
            let full = chunk.lines >= to.chunk_lines() || chunk.item_bytes() >= CHUNK_BYTES;
            if (full || !reader.buffer().contains(&b'\n')) && !to.hand_over(&mut chunk) {
                return Ok(false);
            }
        }
        Ok(to.hand_over(&mut chunk))
    }
}

struct Handover {
    sender: mpsc::Sender<Result<Chunk, Error>>,
    rate: Option<f64>,
    started: Instant,
    lines: u64,
}

impl Handover {
    /// At a given rate a chunk holds a tenth of a second.
    fn chunk_lines(&self) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 1..=CHUNK_LINES")]
        self.rate.map_or(CHUNK_LINES, |rate| (rate / 10.0).clamp(1.0, 256.0) as u64)
    }

    /// Waits until there is room, and at a given rate until it is time. `false` when nobody takes chunks any more.
    fn hand_over(&mut self, chunk: &mut Chunk) -> bool {
        let chunk = std::mem::replace(chunk, Chunk::new());
        if chunk.lines == 0 && chunk.bytes == 0 {
            return !self.sender.is_closed();
        }
        self.lines += chunk.lines;
        if let Some(rate) = self.rate {
            #[expect(clippy::cast_precision_loss, reason = "a line more or less in 2^53")]
            let due = Duration::try_from_secs_f64(self.lines as f64 / rate).unwrap_or(Duration::MAX);
            thread::sleep(due.saturating_sub(self.started.elapsed()));
        }
        self.sender.blocking_send(Ok(chunk)).is_ok()
    }

    fn fail(&self, error: Error) {
        // Nobody there: then the sending has ended with an error of its own.
        let _ = self.sender.blocking_send(Err(error));
    }
}

struct Line {
    /// How many bytes of the input it took.
    bytes: u64,
    /// It was too long, and its text is not complete.
    too_long: bool,
}

/// Reads a line into `line`, without its line break; `None` at the end.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<Line>> {
    let mut read = Line { bytes: 0, too_long: false };
    loop {
        let buffer = match reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            buffer => buffer?,
        };
        if buffer.is_empty() {
            return Ok((read.bytes > 0).then_some(read));
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        if line.len() + part.len() > MAX_LINE_BYTES {
            read.too_long = true;
            line.clear();
        } else if !read.too_long {
            line.extend_from_slice(part);
        }
        let taken = part.len() + usize::from(end.is_some());
        reader.consume(taken);
        read.bytes += taken as u64;
        if end.is_some() {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Ok(Some(read));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8]) -> Vec<(Vec<u8>, bool)> {
        // A buffer smaller than the lines, so that they come in parts.
        let mut reader = BufReader::with_capacity(7, input);
        let (mut line, mut all) = (Vec::new(), Vec::new());
        while let Some(read) = read_line(&mut reader, &mut line).unwrap() {
            all.push((std::mem::take(&mut line), read.too_long));
        }
        all
    }

    #[test]
    fn lines_end_with_either_line_break_or_the_input() {
        let read: Vec<_> = lines(b"one\ntwo is longer\r\n\nlast").into_iter().map(|(line, _)| line).collect();
        assert_eq!(read, [&b"one"[..], b"two is longer", b"", b"last"]);
        assert!(lines(b"").is_empty());
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over_and_the_next_one_read() {
        let mut input = vec![b'x'; 3 * MAX_LINE_BYTES + 5];
        input.extend_from_slice(b"\nnext\n");
        let read = lines(&input);
        assert_eq!(read.len(), 2);
        assert!(read[0].1 && read[0].0.len() <= MAX_LINE_BYTES);
        assert_eq!(read[1], (b"next".to_vec(), false));
    }
}
