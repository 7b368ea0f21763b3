//! `tallymark lanes`: its flags.

use clap::{Args, Subcommand};

use super::{Configured, Settings};
use crate::{
    client::lanes::{Options, Remedy},
    lanes::Wish,
    process,
};

const LIST: &str = "Exit codes: 0 no lane has halted, 4 a lane has halted, 3 nobody answers.

Examples:
  tallymark lanes
  tallymark lanes --json | jq '.lanes[] | select(.halt)'
  tallymark lanes --records
  tallymark lanes accept-gap 3 10..20 --dry-run";

/// The flags of `tallymark lanes`; what it does is said where the commands are listed.
#[derive(Args, Debug)]
#[command(after_help = LIST, subcommand_help_heading = "Remedies", subcommand_value_name = "REMEDY")]
pub struct Lanes {
    #[command(flatten)]
    show: Show,
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    remedy: Option<Command>,
}

#[derive(Args, Clone, Debug)]
struct Show {
    /// Write the answer as JSON, as the instance gave it
    #[arg(long)]
    json: bool,
    /// What was decided about lanes: who, when, what and why
    #[arg(long)]
    records: bool,
    /// The instance's admin address [default: the configuration's `admin_listen`]
    #[arg(long)]
    admin_url: Option<String>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Let a lane go on without packs that are gone from the log
    ///
    /// Says which packs are lost and what is kept, and asks. What is stored stays; what the packs carried that the store does
    /// not have is not counted. Refused when more is gone than the range says, when the lane has not halted for this, and when
    /// the log was cut at its end: what is appended next would count as stored already.
    #[command(after_help = "Examples:
  tallymark lanes accept-gap 3 10..20 --dry-run
  tallymark lanes accept-gap 3 10..20 --why 'retention was too short for the outage'
  tallymark lanes accept-gap 3 10..20 --yes")]
    AcceptGap(Configured<AcceptGap>),
    /// Let a lane go on though the log lacks packs that were acknowledged
    ///
    /// For the claims of one pack, and for nothing else. Says what is lost, and asks.
    #[command(after_help = "Examples:
  tallymark lanes accept-claim 3 1204 --dry-run
  tallymark lanes accept-claim 3 1204 --yes --why 'the broker lost its disk'")]
    AcceptClaim(Configured<AcceptClaim>),
    /// Begin the log epoch of a topic that was made anew, or of a changed number of partitions
    ///
    /// The rows of older epochs stay, and still count. Says what begins, what is kept and what is lost, and asks. Nothing to
    /// do is no error.
    #[command(after_help = "Examples:
  tallymark lanes begin-epoch --dry-run
  tallymark lanes begin-epoch --yes --why 'two partitions more'")]
    BeginEpoch(Configured<BeginEpoch>),
}

#[derive(Args, Debug)]
struct AcceptGap {
    /// The lane, by its partition
    partition: u32,
    /// The packs that may be given up: the first, and one past the last [default: those that are found to be gone]
    #[arg(value_name = "FROM..TO", value_parser = range)]
    range: Option<(u64, u64)>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
struct AcceptClaim {
    /// The lane, by its partition
    partition: u32,
    /// The pack whose claims they are [default: the one that the lane has halted at]
    seq: Option<u64>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
struct BeginEpoch {
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
struct Common {
    /// Only say what it would do
    #[arg(long)]
    dry_run: bool,
    /// Do not ask; without a terminal nothing is done unless this is given
    #[arg(long)]
    yes: bool,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    why: String,
    /// Write the answer as JSON
    #[arg(long)]
    json: bool,
    /// The instance's admin address [default: the configuration's `admin_listen`]
    #[arg(long)]
    admin_url: Option<String>,
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let parsed = text.split_once("..").and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    match parsed {
        Some((from, to)) if from < to => Ok((from, to)),
        _ => Err("write the packs as FROM..TO, e.g. 10..20 for 10 to 19".to_owned()),
    }
}

/// What `tallymark lanes` does.
pub enum Deed {
    /// Shows the lanes.
    Show,
    /// Shows what was decided.
    Records,
    /// Carries out a remedy.
    Remedy(Remedy),
}

/// A deed, and where it is asked for.
pub struct Asked {
    /// What.
    pub deed: Deed,
    /// JSON.
    pub json: bool,
    /// The address that was named.
    pub admin_url: Option<String>,
}

impl Lanes {
    /// What is asked for, and the flags that set the configuration.
    pub(super) fn parts(self) -> (Asked, Settings) {
        let Self { show, settings, remedy } = self;
        let (wish, common, inner) = match remedy {
            None => {
                let deed = if show.records { Deed::Records } else { Deed::Show };
                return (Asked { deed, json: show.json, admin_url: show.admin_url }, settings);
            }
            Some(Command::AcceptGap(Configured { args: AcceptGap { partition, range, common }, settings })) => {
                (Wish::AcceptGap { partition, range }, common, settings)
            }
            Some(Command::AcceptClaim(Configured { args: AcceptClaim { partition, seq, common }, settings })) => {
                (Wish::AcceptClaim { partition, seq }, common, settings)
            }
            Some(Command::BeginEpoch(Configured { args: BeginEpoch { common }, settings })) => {
                (Wish::BeginEpoch {}, common, settings)
            }
        };
        let Common { dry_run, yes, why, json, admin_url } = common;
        let deed = Deed::Remedy(Remedy { wish, dry_run, yes, why, who: who() });
        let admin_url = admin_url.or(show.admin_url);
        (Asked { deed, json: json || show.json, admin_url }, settings.with(inner))
    }
}

impl Asked {
    /// Where to ask, and how to answer.
    pub fn options(&self, default_url: &str) -> Options {
        let admin_url = self.admin_url.clone().unwrap_or_else(|| default_url.to_owned());
        Options { admin_url, json: self.json }
    }
}

/// Who sits here, as the record says it.
fn who() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let host = process::name();
    let host = host.rsplit_once('-').map_or(host.as_str(), |(host, _)| host);
    format!("{}@{host}", user.as_deref().filter(|user| !user.is_empty()).unwrap_or("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Tallymark {
        #[command(flatten)]
        lanes: Lanes,
    }

    fn parse(args: &[&str]) -> Result<Asked, clap::Error> {
        Tallymark::try_parse_from(args).map(|parsed| parsed.lanes.parts().0)
    }

    #[test]
    fn flags_and_remedies_become_what_is_asked() {
        let shown = parse(&["lanes", "--json"]).ok().unwrap();
        assert!(matches!(shown.deed, Deed::Show) && shown.json);
        assert!(matches!(parse(&["lanes", "--records"]).ok().unwrap().deed, Deed::Records));
        let gap = parse(&["lanes", "accept-gap", "3", "10..20", "--yes", "--why", "w", "--admin-url", "http://h:1"]);
        let gap = gap.ok().unwrap();
        let Deed::Remedy(remedy) = &gap.deed else { panic!("a remedy") };
        assert_eq!(remedy.wish, Wish::AcceptGap { partition: 3, range: Some((10, 20)) });
        assert!(remedy.yes && !remedy.dry_run && remedy.why == "w" && remedy.who.contains('@'));
        assert_eq!(gap.options("http://default").admin_url, "http://h:1");
        for wrong in ["20..10", "10", "10..", "a..b", "10..10"] {
            assert!(parse(&["lanes", "accept-gap", "3", wrong]).is_err(), "{wrong}");
        }
    }
}
