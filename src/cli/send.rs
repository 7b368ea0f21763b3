//! `tallymark send`: its flags.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::{
    client::send::{self, Input, Options},
    units::Span,
};

/// The flags of `tallymark send`; what it does is said where the commands are listed.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  echo '{\"counter\": \"page_views\", \"tags\": {\"path\": \"/docs\"}}' | tallymark send -
  tallymark send items.ndjson --batch 1000
  tallymark send --format combined /var/log/nginx/access.log
  tail -F access.log | tallymark send --format combined -
  tallymark send --format combined --loop --rate 200 access.log")]
pub struct Send {
    /// The file to send; `-` for standard input
    #[arg(default_value = "-", value_name = "FILE|-")]
    pub file: std::path::PathBuf,
    /// The ingest's address [default: the configuration's `listen`]
    #[arg(long)]
    pub url: Option<String>,
    /// What a line is
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The namespace that the items belong to [default: the ingest's]
    #[arg(long)]
    pub namespace: Option<String>,
    /// Items per request
    #[arg(long, default_value_t = 500)]
    pub batch: usize,
    /// Requests under way at a time
    #[arg(long, default_value_t = 4)]
    pub concurrency: usize,
    /// Begin again at the end of the file, for ever, with new ids each time: for demos
    #[arg(long = "loop")]
    pub repeat: bool,
    /// Send at most so many lines per second [default: as fast as the ingest takes them]
    #[arg(long, value_name = "LINES")]
    pub rate: Option<f64>,
    /// Leave NDJSON items without an id as they are: a retry of theirs may count twice
    #[arg(long)]
    pub no_ids: bool,
    /// Compress requests with gzip
    #[arg(long)]
    pub gzip: bool,
    /// Give up when nothing was accepted for so long [default: 60s; 10s when the ingest has never answered]
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<Span>,
    /// Write the summary as JSON
    #[arg(long)]
    pub json: bool,
}

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// A JSON object: an increment (has `counter`) or an event (has `name`)
    #[default]
    Ndjson,
    /// A request in an access log in the combined format
    Combined,
}

impl Send {
    /// What the command does; `default_url` is the ingest's address as the configuration has it.
    pub fn into_options(self, default_url: &str) -> Options {
        let input = if self.file.as_os_str() == "-" { Input::Stdin } else { Input::File(self.file) };
        let mut options = Options::new(input, self.url.unwrap_or_else(|| default_url.to_owned()));
        options.format = match self.format {
            Format::Ndjson => send::Format::Ndjson,
            Format::Combined => send::Format::Combined,
        };
        if let Some(Span(timeout)) = self.timeout {
            // Who names a time means it for an ingest that is not up yet, too.
            options.timeout = timeout.max(Duration::from_millis(1));
            options.first_contact = options.timeout;
        }
        options.namespace = self.namespace;
        options.batch = self.batch;
        options.concurrency = self.concurrency;
        options.repeat = self.repeat;
        options.rate = self.rate;
        options.make_ids = !self.no_ids;
        options.gzip = self.gzip;
        options.json = self.json;
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
        send: Send,
    }

    fn options(args: &[&str]) -> Options {
        let args = std::iter::once("send").chain(args.iter().copied());
        Command::try_parse_from(args).unwrap().send.into_options("http://default")
    }

    #[test]
    fn flags_become_options() {
        let plain = options(&[]);
        assert_eq!((plain.input, plain.url.as_str(), plain.make_ids), (Input::Stdin, "http://default", true));
        assert_eq!((plain.timeout, plain.first_contact), (Duration::from_secs(60), Duration::from_secs(10)));
        let all = options(&[
            "access.log",
            "--format",
            "combined",
            "--url",
            "http://h",
            "--namespace",
            "n",
            "--batch",
            "7",
            "--loop",
            "--concurrency",
            "2",
            "--rate",
            "2.5",
            "--no-ids",
            "--gzip",
            "--timeout",
            "5m",
            "--json",
        ]);
        assert_eq!((all.input, all.format), (Input::File("access.log".into()), send::Format::Combined));
        assert_eq!(
            (all.url.as_str(), all.namespace.as_deref(), all.batch, all.concurrency),
            ("http://h", Some("n"), 7, 2)
        );
        assert_eq!((all.repeat, all.rate, all.make_ids, all.gzip, all.json), (true, Some(2.5), false, true, true));
        assert_eq!((all.timeout, all.first_contact), (Duration::from_secs(300), Duration::from_secs(300)));
        assert_eq!(options(&["-"]).input, Input::Stdin);
        assert!(Command::try_parse_from(["send", "--format", "csv"]).is_err());
    }
}
