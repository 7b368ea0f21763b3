//! `tallymark topic create|check`: the log's topic, and every setting of it that is not as the laws need it.

use std::fmt::Write as _;

use clap::{Args, Subcommand};

use super::Configured;
use crate::{
    app::topic::{self, Topic},
    config::Config,
    exit::{Exit, Failure},
    log::kafka::topic::{Created, Finding, Report},
};

#[derive(Debug, Subcommand)]
pub(super) enum TopicCommand {
    /// Make the topic that log.url names, with the settings that the laws need
    ///
    /// The settings log.partitions, log.replication and log.retention say how. A topic that is there already is left as it is
    /// and looked at. Exit code 1: it is there and does not fit, or could not be made; 3: no broker answered.
    #[command(after_help = "Examples:
  tallymark topic create --log kafka://localhost:9092/tallymark.packs
  tallymark topic create --log kafka://localhost:9092/try --set log.replication=1 --set log.partitions=4")]
    Create(Configured<NoArgs>),
    /// Look at the topic that log.url names, and explain every setting that is wrong
    ///
    /// Exit code 0: it fits, perhaps with warnings; 1: a setting breaks a law, or there is no such topic; 3: no broker answered.
    #[command(after_help = "Examples:
  tallymark topic check --log kafka://localhost:9092/tallymark.packs
  tallymark topic check --json | jq '.findings[] | select(.refused)'")]
    Check(Configured<CheckArgs>),
}

#[derive(Debug, Args)]
pub(super) struct NoArgs {}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn create(config: &Config) -> Result<Exit, Failure> {
    let (report, made) = match super::block_on(topic::create(config))?? {
        Topic::Embedded => return embedded(),
        Topic::Kafka(Created::Made(report)) => (report, true),
        Topic::Kafka(Created::Existing(report)) => (report, false),
    };
    let what = if made { "made" } else { "is there already" };
    super::print(&text(&report, what))?;
    verdict(&report)?;
    // A store that is not ready yet is no reason to fail: every start begins the first epoch too.
    super::print(&match super::block_on(topic::begin_epoch(config))? {
        Ok(true) => "its epoch has begun\n".to_owned(),
        Ok(false) => {
            "the store knows this topic with another id or fewer partitions: begin its epoch with `tallymark lanes \
                      begin-epoch`\n"
                .to_owned()
        }
        Err(Failure { message, .. }) => format!("its first epoch begins with the first start ({message})\n"),
    })?;
    Ok(Exit::Done)
}

pub(super) fn check(config: &Config, args: &CheckArgs) -> Result<Exit, Failure> {
    let report = match super::block_on(topic::check(config))?? {
        Topic::Embedded => return embedded(),
        Topic::Kafka(report) => report,
    };
    if args.json {
        let json = serde_json::to_string_pretty(&report)
            .map_err(|error| Failure::failed(format!("the report cannot be written: {error}")))?;
        super::print(&format!("{json}\n"))?;
    } else {
        super::print(&text(&report, "is there"))?;
    }
    verdict(&report)
}

fn embedded() -> Result<Exit, Failure> {
    super::print("log.url is embedded: the first start makes the log, and it has no settings to look at\n")?;
    Ok(Exit::Done)
}

/// What a topic that does not fit ends a command with.
fn verdict(report: &Report) -> Result<Exit, Failure> {
    match report.refused().count() {
        0 => Ok(Exit::Done),
        count => Err(Failure::failed(format!(
            "the topic `{}` does not fit: {count} setting{} to change",
            report.topic,
            if count == 1 { "" } else { "s" }
        ))),
    }
}

fn text(report: &Report, what: &str) -> String {
    let Report { topic, topic_id, partitions, replication, findings, .. } = report;
    let mut text =
        format!("topic {topic} {what}: id {topic_id}, {partitions} partitions, {replication} copies of each\n");
    for Finding { setting, is, must, why, remedy, refused } in findings {
        let weight = if *refused { "wrong" } else { "warning" };
        let _ = write!(text, "{weight}: {setting} is {is}, must be {must}\n  {why}\n  {remedy}\n");
    }
    if findings.is_empty() {
        text.push_str("every setting is as it must be\n");
    }
    text
}
