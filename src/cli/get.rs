//! `tallymark get`: its flags.

use clap::{Args, ValueEnum};

use crate::{
    client::get::{Options, Output},
    units::Span,
};

/// The flags of `tallymark get`; what it does is said where the commands are listed.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  tallymark get page_views
  tallymark get page_views --tag path=/docs --tag country=fr
  tallymark get requests --by path --top 20
  tallymark get requests --by status --csv
  tallymark get requests --at-least \"$(tallymark send items.ndjson --json | jq -r .receipt)\"")]
pub struct Get {
    /// The counter's name
    pub counter: String,
    /// Only series with this tag; a value may end in `*`; may be given again for another tag
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    pub tags: Vec<(String, String)>,
    /// Group by this tag, or by several with commas between
    #[arg(long, value_name = "KEY")]
    pub by: Option<String>,
    /// How many groups, the largest first [default: the instance's]
    #[arg(long, value_name = "N", requires = "by")]
    pub top: Option<u32>,
    /// From the store alone, or from the hot view alone [default: whichever answers best]
    #[arg(long, value_enum)]
    pub consistency: Option<Consistency>,
    /// Not before everything that this receipt names counts
    #[arg(long, value_name = "RECEIPT")]
    pub at_least: Option<String>,
    /// How long to wait for that [default: the instance's]
    #[arg(long, value_name = "DURATION", requires = "at_least")]
    pub timeout: Option<Span>,
    /// Write the answer as JSON, as the instance gave it
    #[arg(long, conflicts_with = "csv")]
    pub json: bool,
    /// Write the answer as comma-separated values, with a heading; with `--by`, the groups only
    #[arg(long)]
    pub csv: bool,
    /// The namespace that the counter belongs to [default: the instance's]
    #[arg(long)]
    pub namespace: Option<String>,
    /// The instance's address [default: the configuration's `listen`]
    #[arg(long)]
    pub url: Option<String>,
}

/// Which view answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Consistency {
    /// The store alone
    Stored,
    /// The hot view alone
    Hot,
}

fn tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write a tag as key=value, e.g. --tag path=/docs".to_owned()),
    }
}

impl Get {
    /// What the command does; `default_url` is the instance's address as the configuration has it.
    pub fn into_options(self, default_url: &str) -> Options {
        let mut options = Options::new(self.url.unwrap_or_else(|| default_url.to_owned()), self.counter);
        options.output = match (self.json, self.csv) {
            (true, _) => Output::Json,
            (_, true) => Output::Csv,
            _ => Output::Table,
        };
        options.consistency = self.consistency.map(|consistency| match consistency {
            Consistency::Stored => "stored".to_owned(),
            Consistency::Hot => "hot".to_owned(),
        });
        options.namespace = self.namespace;
        options.tags = self.tags;
        options.by = self.by;
        options.top = self.top;
        options.at_least = self.at_least;
        options.timeout = self.timeout.map(|Span(timeout)| timeout);
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        get: Get,
    }

    #[test]
    fn flags_become_options() {
        let parse = |args: &[&str]| Command::try_parse_from(std::iter::once("get").chain(args.iter().copied()));
        let options = parse(&["c", "--tag", "path=/a=b", "--tag", "x=", "--by", "status", "--top", "3", "--csv"]);
        let options = options.ok().unwrap().get.into_options("http://default");
        let tags = [("path", "/a=b"), ("x", "")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!((options.url.as_str(), options.tags.as_slice()), ("http://default", &tags[..]));
        assert_eq!((options.by.as_deref(), options.top, options.output), (Some("status"), Some(3), Output::Csv));
        for wrong in
            [&[][..], &["c", "--tag", "x"], &["c", "--top", "3"], &["c", "--json", "--csv"], &["c", "--tag", "=x"]]
        {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
