//! What became of the lines: counted in full, told in part.
//!
//! The first [`TOLD`] lines of each kind of trouble are named, the rest is a number at the end. On a terminal a progress
//! bar shows how far the file is read; lines of text are written above it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::time::Instant;

use super::{
    Options,
    batch::{Batch, Chunk, Kind},
    item_error::ItemError,
};
use crate::{
    client::{Console, Error},
    receipt::{self, Receipt},
};

/// How many lines of each kind of trouble are named.
const TOLD: u64 = 20;
const REDRAW: Duration = Duration::from_millis(200);

/// What was sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Lines read, blank ones left out.
    pub lines: u64,
    /// Lines that were not understood, and gave no item.
    pub bad_lines: u64,
    /// Items that the lines gave.
    pub items: u64,
    /// Items that the ingest accepted: they are durable.
    pub accepted: u64,
    /// Items that the ingest refused.
    pub rejected: u64,
    /// Requests made, retries included.
    pub requests: u64,
    /// Requests made again.
    pub retries: u64,
    /// How long it took.
    pub seconds: f64,
    /// Names everything that was accepted; for `get --at-least`. None when nothing was, or the log changed meanwhile.
    pub receipt: Option<String>,
}

impl Summary {
    /// 0; or 1 when a line was not understood or an item refused.
    pub const fn exit_code(&self) -> u8 {
        if self.bad_lines > 0 || self.rejected > 0 { 1 } else { 0 }
    }

    fn sentence(&self) -> String {
        let Self { lines, bad_lines, accepted, rejected, requests, retries, seconds, .. } = self;
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let rate = *accepted as f64 / seconds.max(0.001);
        format!(
            "{lines} lines: {accepted} items accepted, {rejected} refused, {bad_lines} lines not understood; \
             {requests} requests, {retries} of them retries, in {seconds:.1} s ({rate:.0} items/s)\n"
        )
    }
}

/// Counts and tells.
pub(super) struct Report<'c>(Mutex<Inner<'c>>);

struct Inner<'c> {
    console: Console<'c>,
    bar: Option<ProgressBar>,
    began: Instant,
    summary: Summary,
    refusals_told: u64,
    receipts: Receipts,
}

/// The receipts of all requests as one.
#[derive(Default)]
enum Receipts {
    #[default]
    None,
    All(Receipt),
    /// One of them could not be read, or they are of different logs.
    Unknown,
}

impl Receipts {
    fn add(self, text: &str) -> Self {
        match (self, Receipt::parse(text)) {
            (Self::None, Some(receipt)) => Self::All(receipt),
            (Self::All(all), Some(more)) if all.topic_id == more.topic_id => {
                let mut packs: BTreeMap<_, _> = all.packs.into_iter().collect();
                for (partition, seq) in more.packs {
                    let highest = packs.entry(partition).or_insert(seq);
                    *highest = seq.max(*highest);
                }
                Self::All(Receipt { topic_id: all.topic_id, packs: packs.into_iter().collect() })
            }
            _ => Self::Unknown,
        }
    }

    fn text(&self) -> Option<String> {
        match self {
            Self::All(receipt) => Some(receipt.to_string()).filter(|text| text.len() <= receipt::MAX_BYTES),
            Self::None | Self::Unknown => None,
        }
    }
}

impl<'c> Report<'c> {
    /// Tells to this console. `length`: of the input in bytes, if it is known and has an end.
    pub(super) fn new(console: &'c mut Console<'_>, length: Option<u64>) -> Self {
        let console = Console { out: &mut *console.out, err: &mut *console.err, progress: console.progress };
        let bar = console.progress.then(|| {
            let (bar, template) = match length {
                Some(length) => (ProgressBar::new(length), "{wide_bar} {percent:>3}% {msg} {eta:>4}"),
                None => (ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}"),
            };
            bar.set_style(ProgressStyle::with_template(template).expect("the template is well formed"));
            bar.enable_steady_tick(REDRAW);
            bar
        });
        Self(Mutex::new(Inner {
            console,
            bar,
            began: Instant::now(),
            summary: Summary::default(),
            refusals_told: 0,
            receipts: Receipts::default(),
        }))
    }

    fn with<T>(&self, with: impl FnOnce(&mut Inner<'c>) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn note(&self, text: &str) {
        self.with(|inner| inner.note(text));
    }

    /// A chunk was read.
    pub(super) fn read(&self, chunk: &Chunk) {
        self.with(|inner| {
            inner.summary.lines += chunk.lines;
            inner.summary.items += (chunk.increments.len() + chunk.events.len()) as u64;
            for (line, reason) in &chunk.bad {
                inner.summary.bad_lines += 1;
                if inner.summary.bad_lines <= TOLD {
                    inner.note(&format!("line {line}: {reason}"));
                }
            }
            if let Some(bar) = &inner.bar {
                bar.inc(chunk.bytes);
            }
        });
    }

    pub(super) fn requested(&self) {
        self.with(|inner| inner.summary.requests += 1);
    }

    pub(super) fn retried(&self) {
        self.with(|inner| inner.summary.retries += 1);
    }

    /// A request was answered: so many of its items are durable.
    pub(super) fn accepted(&self, items: u64, receipt: Option<&str>) {
        self.with(|inner| {
            inner.summary.accepted += items;
            if let Some(receipt) = receipt
                && items > 0
            {
                inner.receipts = std::mem::take(&mut inner.receipts).add(receipt);
            }
            if let Some(bar) = &inner.bar {
                bar.set_message(format!("{} items accepted", inner.summary.accepted));
            }
        });
    }

    /// So many items of a batch were refused; the ingest names the first of them.
    pub(super) fn refused(&self, batch: &Batch, errors: &[ItemError], items: u64) {
        if items == 0 {
            return;
        }
        self.with(|inner| {
            inner.summary.rejected += items;
            let what = match batch.kind {
                Kind::Increments => "increment",
                Kind::Events => "event",
            };
            for error in errors {
                if inner.refusals_told == TOLD {
                    break;
                }
                inner.refusals_told += 1;
                let place = match (batch.line(error.index), batch.span()) {
                    (Some(line), _) => format!("line {line}"),
                    (None, Some((first, last))) => format!("lines {first} to {last}"),
                    (None, None) => String::new(),
                };
                inner.note(&format!("{place}: {what} refused: {}", error.describe()));
            }
        });
    }

    /// Says what was not said line by line, and writes the summary.
    pub(super) fn finish(self, options: &Options, sent: Result<(), Error>) -> Result<Summary, Error> {
        let mut inner = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = inner.bar.take() {
            bar.finish_and_clear();
        }
        inner.summary.seconds = (inner.began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        inner.summary.receipt = inner.receipts.text();
        let Summary { bad_lines, rejected, retries, .. } = inner.summary;
        if bad_lines > TOLD {
            inner.note(&format!("and {} more lines not understood", bad_lines - TOLD));
        }
        if rejected > inner.refusals_told {
            inner.note(&format!("and {} more items refused", rejected - inner.refusals_told));
        }
        if retries > 0 && !options.make_ids {
            inner.note("some requests were made again: items without an id may have counted twice");
        }
        if let Err(error) = sent {
            inner.note(inner.summary.sentence().trim_end());
            return Err(error);
        }
        let text = match options.json {
            true => serde_json::to_string(&inner.summary).expect("numbers and a string serialize") + "\n",
            false => inner.summary.sentence(),
        };
        inner.console.print(&text)?;
        Ok(inner.summary)
    }
}

impl Inner<'_> {
    fn note(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.console.note(text)),
            None => self.console.note(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::{Seq, TopicId};

    fn receipt(topic: u8, packs: &[(u32, u64)]) -> Receipt {
        let packs = packs.iter().map(|(partition, seq)| (*partition, Seq(*seq))).collect();
        Receipt { topic_id: TopicId([topic; 16]), packs }
    }

    fn added(receipts: &[Receipt]) -> Option<Receipt> {
        let all = receipts.iter().fold(Receipts::None, |all, one| all.add(&one.to_string()));
        all.text().and_then(|text| Receipt::parse(&text))
    }

    #[test]
    fn receipts_add_up_to_one_that_covers_each() {
        let all = added(&[receipt(1, &[(0, 5), (2, 1)]), receipt(1, &[(0, 3), (1, 9)]), receipt(1, &[(2, 4)])]);
        assert_eq!(all, Some(receipt(1, &[(0, 5), (1, 9), (2, 4)])));
        assert_eq!(added(&[receipt(1, &[(0, 5)]), receipt(2, &[(0, 5)])]), None);
        assert_eq!(added(&[]), None);
        assert!(Receipts::None.add("not one").text().is_none());
    }
}
