//! `tallymark audit`: its flags, the question before a repair, and where the audit is made.

use std::io::{self, IsTerminal as _, Write as _};

use clap::Args;

use super::{block_on, confirm::confirm, print};
use crate::{
    app::{self, audit::Place},
    audit::{From, Options, Progress, Report},
    client,
    config::Config,
    exit::{Exit, Failure},
};

/// The flags of `tallymark audit`; what it does is said where the commands are listed.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  tallymark audit
  tallymark audit --from 2026-01-31T12:00:00Z --json | jq .counts
  tallymark audit --naive || alert
  tallymark audit --repair --yes --log kafka://broker:9092/tallymark.packs --store scylla://node:9042/tallymark")]
pub struct Audit {
    /// Count from this seq of each lane, or from this time of the log, on [default: as far back as the log reaches]
    #[arg(long, value_name = "SEQ|TIME", value_parser = from)]
    pub from: Option<From>,
    /// Count once more without the lanes' code, and compare
    #[arg(long)]
    pub naive: bool,
    /// Append corrections to the log for the rows that differ; asks before it does
    #[arg(long)]
    pub repair: bool,
    /// Repair without asking
    #[arg(long, requires = "repair")]
    pub yes: bool,
    /// Do not look for each event in the store
    #[arg(long)]
    pub skip_events: bool,
    /// Write the answer as JSON
    #[arg(long)]
    pub json: bool,
    /// How many differences are listed, the largest first
    #[arg(long, value_name = "N", default_value_t = Options::default().worst)]
    pub worst: usize,
    /// Rows of one lane that may be kept in memory; each takes some 1.2 KB, with --naive 1.8
    #[arg(long, value_name = "N", default_value_t = Options::default().max_rows)]
    pub max_rows: usize,
    /// The admin address of the instance that makes the audit [default: the configuration's `admin_listen`, on embedded backends]
    #[arg(long)]
    pub admin_url: Option<String>,
}

fn from(text: &str) -> Result<From, String> {
    if let Ok(seq) = text.parse() {
        return Ok(From::Seq(seq));
    }
    let time = text.parse::<jiff::Timestamp>();
    time.map(|time| From::Time(time.as_millisecond()))
        .map_err(|_| "write a seq, or a time like 2026-01-31T12:00:00Z".to_owned())
}

/// Makes the audit, and answers with the exit code.
pub fn audit(args: Audit, config: &Config) -> Result<Exit, Failure> {
    block_on(async {
        let place = app::audit::open(config, args.admin_url.as_deref()).await?;
        if let Some(note) = place.note() {
            eprintln(note);
        }
        let done = run(&args, &place).await;
        place.close().await;
        done
    })?
}

async fn run(args: &Audit, place: &Place) -> Result<Exit, Failure> {
    let options = Options {
        from: args.from,
        naive: args.naive,
        repair: args.repair && args.yes,
        events: !args.skip_events,
        worst: args.worst,
        max_rows: args.max_rows,
    };
    let mut report = make(place, &options).await?;
    let differs = report.counts.drift() > report.counts.pending;
    if args.repair && !args.yes && differs {
        show(args, &report)?;
        if !asked(&report)? {
            return Ok(Exit::Failed);
        }
        // Counted anew: what is corrected is what differs now.
        report = make(place, &Options { repair: true, ..options }).await?;
    }
    show(args, &report)?;
    Ok(if report.clean { Exit::Done } else { Exit::Failed })
}

async fn make(place: &Place, options: &Options) -> Result<Report, Failure> {
    let shows = io::stderr().is_terminal();
    let report = place.audit(options, |progress| {
        if shows {
            eprint_progress(progress);
        }
    });
    let report = report.await;
    if shows {
        // The line of the progress goes.
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
    report
}

fn eprint_progress(Progress { partition, partitions, read, records }: Progress) {
    let _ = write!(io::stderr(), "\r\x1b[Klane {partition} of {partitions}: {read} of {records} records");
}

fn eprintln(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn show(args: &Audit, report: &Report) -> Result<(), Failure> {
    print(&match args.json {
        true => format!("{}\n", serde_json::to_string(report).expect("strings and numbers serialize")),
        false => client::audit::text(report),
    })
}

/// Asks whether to repair.
fn asked(report: &Report) -> Result<bool, Failure> {
    let rows = report.counts.drift() - report.counts.pending;
    confirm(&format!("append corrections of {rows} rows to the log, which the lanes will apply?")).ok_or_else(|| {
        Failure::usage("--repair asks before it appends to the log, and nobody is there to answer: add --yes")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_begin_is_a_seq_or_a_time() {
        assert_eq!(from("17"), Ok(From::Seq(17)));
        assert_eq!(from("2026-01-31T12:00:00Z"), Ok(From::Time(1_769_860_800_000)));
        assert!(from("yesterday").unwrap_err().contains("2026-01-31T12:00:00Z"));
    }
}
