//! `tallymark dead-letters`: its commands and flags.

use clap::{Args, Subcommand};

use super::Configured;
use crate::{
    client::dead_letters::{Action, Filter, Options},
    clock,
    units::Span,
};

#[derive(Debug, Subcommand)]
pub(super) enum DeadLettersCommand {
    /// List them, in the order of their log
    #[command(after_help = "Examples:
  tallymark dead-letters list
  tallymark dead-letters list --partition 3 --since 2h
  tallymark dead-letters list --reason malformed --limit 1000 --json | jq '.letters[].detail'")]
    List(Configured<List>),
    /// Show one whole: where it stood, what is wrong with it, its bytes
    ///
    /// Exit code 1: there is no such dead letter.
    #[command(after_help = "Examples:
  tallymark dead-letters show 3 1042
  tallymark dead-letters show 3 1042 --raw > record.bin")]
    Show(Configured<Show>),
    /// Append those that this program can read to their partitions again
    ///
    /// Each counts once, however often it is replayed, and its items are held against the dedup window like any others.
    /// What still cannot be read or applied is reported and left. Bytes that had changed at rest are replayed only when the
    /// log has them whole again. Exit code 1: some were left; 3: log or store did not answer, and asking again is safe.
    #[command(after_help = "Examples:
  tallymark dead-letters replay --dry-run
  tallymark dead-letters replay --partition 3 --seq 1042
  tallymark dead-letters replay --reason malformed --since 2026-01-31T12:00:00Z --json")]
    Replay(Configured<Replay>),
}

#[derive(Args, Clone, Debug)]
struct Found {
    /// Only of this partition
    #[arg(long)]
    partition: Option<u32>,
    /// Only for this reason
    #[arg(long, value_parser = ["damaged", "malformed", "misplaced", "replay", "before"])]
    reason: Option<String>,
    /// Only those that became dead letters then or later: a time (RFC 3339), or how long ago (2h)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only those that became dead letters before then
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

#[derive(Args, Clone, Debug)]
struct Asked {
    /// Write JSON
    #[arg(long)]
    json: bool,
    /// The instance's admin address [default: the configuration's `admin_listen`; Kafka is asked itself]
    #[arg(long)]
    admin_url: Option<String>,
}

#[derive(Args, Clone, Debug)]
pub(super) struct List {
    #[command(flatten)]
    found: Found,
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Args, Clone, Debug)]
pub(super) struct Show {
    /// Its partition
    partition: u32,
    /// Its offset
    seq: u64,
    /// Write the record's bytes, and nothing else
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Args, Clone, Debug)]
pub(super) struct Replay {
    #[command(flatten)]
    found: Found,
    /// Only the one that stood at this offset
    #[arg(long, requires = "partition")]
    seq: Option<u64>,
    /// At most so many [default: all]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Say what would become of each, and append nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    asked: Asked,
}

impl Found {
    fn filter(self, seq: Option<u64>) -> Filter {
        let Self { partition, reason, since, until } = self;
        Filter { partition, seq, reason, since: since.map(time), until: until.map(time) }
    }
}

/// A time that is told by how long ago it was, in milliseconds; another as it is.
fn time(text: String) -> String {
    match text.parse::<Span>() {
        Ok(ago) if text.ends_with(|last: char| last.is_ascii_alphabetic()) && !text.ends_with(['Z', 'z']) => {
            (clock::now_ms() - ago.as_millis()).to_string()
        }
        _ => text,
    }
}

/// What a command does, and the admin address that was named.
pub(super) struct Command {
    pub(super) options: Options,
    pub(super) named: bool,
}

impl Command {
    fn new(action: Action, filter: Filter, limit: Option<usize>, asked: Asked, default_url: &str) -> Self {
        let named = asked.admin_url.is_some();
        let admin_url = asked.admin_url.unwrap_or_else(|| default_url.to_owned());
        Self { options: Options { admin_url, action, filter, limit, json: asked.json }, named }
    }
}

impl List {
    pub(super) fn into_command(self, default_url: &str) -> Command {
        let limit = usize::try_from(self.limit).ok();
        Command::new(Action::List, self.found.filter(None), limit, self.asked, default_url)
    }
}

impl Show {
    pub(super) fn into_command(self, default_url: &str) -> Command {
        let filter = Filter { partition: Some(self.partition), seq: Some(self.seq), ..Filter::default() };
        Command::new(Action::Show { raw: self.raw }, filter, None, self.asked, default_url)
    }
}

impl Replay {
    pub(super) fn into_command(self, default_url: &str) -> Command {
        let limit = self.limit.and_then(|limit| usize::try_from(limit).ok());
        let action = Action::Replay { dry_run: self.dry_run };
        Command::new(action, self.found.filter(self.seq), limit, self.asked, default_url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_said_as_it_is_or_by_how_long_ago_it_was() {
        let ago: i64 = time("2h".to_owned()).parse().unwrap();
        assert!((clock::now_ms() - 7_200_000 - ago).abs() < 60_000);
        for text in ["2026-01-31T12:00:00Z", "1769860800000", "2026-01-31T12:00:00+01:00", "yesterday"] {
            assert_eq!(time(text.to_owned()), text);
        }
    }
}
