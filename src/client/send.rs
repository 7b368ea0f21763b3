//! `tallymark send`: posts a file's lines to a running ingest until all of it is acknowledged.
//!
//! The way of a line: [`source`] reads it on a thread, [`items`] makes it items with ids, here they are gathered into
//! batches per endpoint, [`delivery`] posts a batch and retries it, with the same ids, until the ingest has answered for
//! each of its items, and [`report`] counts and tells. At most `concurrency` batches are under way and one more is being
//! gathered, so memory does not depend on the input.
//!
//! Promises: every line is accounted for (accepted, refused by the ingest, not understood); with ids a retry, and the
//! same file sent again, counts once within the ingest's dedup window; a bad line never holds up its neighbours.

use std::{collections::VecDeque, path::PathBuf, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};

use self::{
    batch::{Batch, Chunk, Kind},
    delivery::Delivery,
    items::Ids,
    report::Report,
    source::Source,
};
use super::{Console, Error, http::Http};
use crate::retry;

mod batch;
mod delivery;
mod item_error;
mod items;
mod report;
mod source;

pub use report::Summary;

/// A batch is sent at this size even when it has room for more items: far below what an ingest takes.
const BATCH_BYTES: usize = 1 << 20;
/// How long a batch that is not full waits for more lines.
const LINGER: Duration = Duration::from_millis(200);
/// The most items of one request by default of the ingest.
const MAX_BATCH: usize = 10_000;
const MAX_CONCURRENCY: usize = 1024;

/// Where lines come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

impl Input {
    /// The name that ids are made from: the file's without its folder, `-` for standard input.
    fn name(&self) -> String {
        match self {
            Self::Stdin => "-".to_owned(),
            Self::File(path) => path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
        }
    }
}

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// A JSON object: an increment when it has `counter`, an event when it has `name`.
    #[default]
    Ndjson,
    /// A request in an access log, in the combined format.
    Combined,
}

/// What to send, where, and how hard to try.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where lines come from.
    pub input: Input,
    /// What a line is.
    pub format: Format,
    /// The ingest's address.
    pub url: String,
    /// The tenant; none: the ingest's default.
    pub namespace: Option<String>,
    /// Items per request.
    pub batch: usize,
    /// Requests under way.
    pub concurrency: usize,
    /// Begin again at the end of the file, for ever.
    pub repeat: bool,
    /// Lines per second; none: as fast as the ingest takes them.
    pub rate: Option<f64>,
    /// Give items without an id one, made from the file's name, the line's number and its text.
    pub make_ids: bool,
    /// Compress the requests' bodies.
    pub gzip: bool,
    /// Write the summary as JSON.
    pub json: bool,
    /// Give up when nothing was accepted for so long,
    pub timeout: Duration,
    /// or for so long when the ingest has never answered.
    pub first_contact: Duration,
    /// How long one request may take.
    pub request_timeout: Duration,
    /// The delays between tries.
    pub retry: retry::Options,
}

impl Options {
    /// The defaults: this input to this address.
    pub fn new(input: Input, url: impl Into<String>) -> Self {
        Self {
            input,
            format: Format::default(),
            url: url.into(),
            namespace: None,
            batch: 500,
            concurrency: 4,
            repeat: false,
            rate: None,
            make_ids: true,
            gzip: false,
            json: false,
            timeout: Duration::from_secs(60),
            first_contact: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            retry: retry::Options::default(),
        }
    }

    fn check(&self) -> Result<(), Error> {
        let usage = |text: String| Err(Error::Usage(text));
        if !(1..=MAX_BATCH).contains(&self.batch) {
            return usage(format!("`--batch` is {}; it must be 1 to {MAX_BATCH}", self.batch));
        }
        if !(1..=MAX_CONCURRENCY).contains(&self.concurrency) {
            return usage(format!("`--concurrency` is {}; it must be 1 to {MAX_CONCURRENCY}", self.concurrency));
        }
        if self.repeat && self.input == Input::Stdin {
            return usage("`--loop` needs a file: standard input cannot be read again".to_owned());
        }
        match self.rate {
            Some(rate) if !(rate.is_finite() && rate >= 0.001) => {
                usage(format!("`--rate` is {rate}; it must be a number of lines per second above 0"))
            }
            _ => Ok(()),
        }
    }
}

/// Sends the input and writes the summary to `console.out`; what went wrong with single lines, and trouble on the way,
/// to `console.err`.
///
/// # Errors
/// When the input cannot be read, the ingest refuses whole requests, or it accepts nothing until the time to give up.
/// Refused items and lines that are not understood are no errors: see [`Summary::exit_code`].
pub async fn run(options: &Options, console: &mut Console<'_>) -> Result<Summary, Error> {
    options.check()?;
    let http = Http::new(&options.url, options.namespace.as_deref())?;
    let source = Source {
        input: options.input.clone(),
        format: options.format,
        ids: Ids::new(&options.input.name(), options.make_ids),
        run: options.repeat.then(rand::random),
        rate: options.rate,
    };
    let (chunks, length) = source.start()?;
    let report = Report::new(console, length.filter(|_| !options.repeat));
    let sent = pump(options, &http, chunks, &report).await;
    report.finish(options, sent)
}

/// Moves chunks into batches and batches to the ingest, until there are no more.
async fn pump(options: &Options, http: &Http, mut chunks: source::Chunks, report: &Report<'_>) -> Result<(), Error> {
    let delivery = Delivery::new(options, http, report);
    let mut gathering = Gathering::new(options.batch);
    let mut under_way = FuturesUnordered::new();
    let mut failure = None;
    let mut ended = false;
    loop {
        while under_way.len() < options.concurrency
            && let Some(batch) = gathering.ready.pop_front()
        {
            under_way.push(delivery.deliver(batch));
        }
        if ended && under_way.is_empty() {
            return failure.map_or(Ok(()), Err);
        }
        // More is read only when what has been read is under way.
        let room = under_way.len() < options.concurrency && gathering.ready.is_empty();
        tokio::select! {
            Some(delivered) = under_way.next() => delivered?,
            chunk = chunks.recv(), if room && !ended => match chunk {
                Some(Ok(chunk)) => {
                    report.read(&chunk);
                    gathering.add(&chunk);
                }
                end => {
                    // What was read before the input failed is sent all the same.
                    failure = end.and_then(Result::err);
                    ended = true;
                    gathering.flush();
                }
            },
            () = sleep_until(gathering.due), if room && gathering.waits() => gathering.flush(),
        }
    }
}

/// Items that wait to be full batches.
struct Gathering {
    most: usize,
    increments: Batch,
    events: Batch,
    ready: VecDeque<Batch>,
    /// When what waits is sent as it is.
    due: Instant,
}

impl Gathering {
    fn new(most: usize) -> Self {
        let (increments, events) = (Batch::new(Kind::Increments), Batch::new(Kind::Events));
        Self { most, increments, events, ready: VecDeque::new(), due: Instant::now() }
    }

    fn waits(&self) -> bool {
        !(self.increments.is_empty() && self.events.is_empty())
    }

    fn add(&mut self, chunk: &Chunk) {
        if !self.waits() {
            self.due = Instant::now() + LINGER;
        }
        for (batch, from) in [(&mut self.increments, &chunk.increments), (&mut self.events, &chunk.events)] {
            for (line, item) in from.items() {
                if !batch.is_empty() && batch.bytes() + item.len() > BATCH_BYTES {
                    self.ready.push_back(std::mem::replace(batch, Batch::new(from.kind)));
                }
                batch.push_with(line, |body| body.extend_from_slice(item));
                if batch.len() >= self.most {
                    self.ready.push_back(std::mem::replace(batch, Batch::new(from.kind)));
                }
            }
        }
    }

    fn flush(&mut self) {
        for batch in [&mut self.increments, &mut self.events] {
            if !batch.is_empty() {
                self.ready.push_back(std::mem::replace(batch, Batch::new(batch.kind)));
            }
        }
    }
}
