//! The settings of the dead-letter topic: it must keep what is buried until somebody has looked at it, and take every record
//! that the log takes. Made and checked with the topic of the packs, and told among its findings.

use std::sync::Arc;

use rdkafka::admin::NewTopic;

use super::{
    super::{Error, dead::ENVELOPE_BYTES},
    closing::Closing,
    side::Side,
    topic::{self, Finding, Report},
};
use crate::units::Span;

/// Records that go sooner were hardly seen by anybody.
const SHORTEST_MS: i64 = 30 * 86_400_000;

/// The dead-letter topic of a topic.
pub(super) fn name(topic: &str) -> String {
    format!("{topic}.dead")
}

/// Looks at the dead-letter topic, and adds what is wrong with it to the report of the packs' own.
pub(super) async fn look(packs: &Side, closing: &Closing, report: &mut Report) -> Result<(), Error> {
    let side = Arc::new(packs.about(name(&report.topic)));
    let (topic, brokers) = (&side.connection().topic, &side.connection().brokers);
    let finding = |setting: &str, is: String, must: &str, why: &str, remedy: String| {
        let (setting, must, why) = (format!("{topic}: {setting}"), must.to_owned(), why.to_owned());
        Finding { setting, is, must, why, remedy, refused: true }
    };
    if topic::describe(&side).await?.is_none() {
        let why = "what a lane cannot apply goes there before the lane goes on";
        let remedy = "make it with `tallymark topic create`".to_owned();
        report.findings.insert(0, finding("topic", "missing".to_owned(), "there", why, remedy));
        return Ok(());
    }
    let settings = topic::settings(&side, closing).await?;
    let get = |name: &str| settings.get(name).map_or("unknown", String::as_str);
    let mut found = Vec::new();
    let mut wrong = |setting: &str, must: &str, why: &str, value: &str| {
        let remedy = format!(
            "kafka-configs.sh --bootstrap-server {brokers} --alter --entity-type topics --entity-name {topic} \
             --add-config {setting}={value}"
        );
        found.push(finding(setting, get(setting).to_owned(), must, why, remedy));
    };
    if get("cleanup.policy") != "delete" {
        wrong("cleanup.policy", "delete", "compaction removes the first of a letter that was buried twice", "delete");
    }
    if get("unclean.leader.election.enable") != "false" {
        let why = "a leader that was not in sync lacks letters that were acknowledged";
        wrong("unclean.leader.election.enable", "false", why, "false");
    }
    if get("message.timestamp.type") != "LogAppendTime" {
        let why = "when a letter was buried is told by the log's own clock";
        wrong("message.timestamp.type", "LogAppendTime", why, "LogAppendTime");
    }
    let retention: i64 = get("retention.ms").parse().unwrap_or(0);
    if (0..SHORTEST_MS).contains(&retention) {
        let must = format!("-1, or at least {SHORTEST_MS}");
        wrong("retention.ms", &must, "a letter that is gone before somebody has looked at it is lost", "-1");
    }
    let needed = report.max_message_bytes + ENVELOPE_BYTES;
    if get("max.message.bytes").parse::<u64>().unwrap_or(0) < needed {
        let must = format!("at least {needed}, the log's own and an envelope");
        wrong("max.message.bytes", &must, "a record that does not fit holds its lane up", &needed.to_string());
    }
    found.append(&mut report.findings);
    report.findings = found;
    let copies = side.layout(side.connection().timeout).await?.replication;
    if copies < report.replication {
        report.findings.push(Finding {
            setting: format!("{topic}: replication factor"),
            is: copies.to_string(),
            must: format!("{}, as the log's own", report.replication),
            why: "a letter is the only copy of its record once the log's retention has passed".to_owned(),
            remedy: "give its partition more replicas with kafka-reassign-partitions.sh".to_owned(),
            refused: false,
        });
    }
    Ok(())
}

/// Makes the dead-letter topic, unless it is there. Answers whether it was made.
pub(super) async fn make(packs: &Side, replication: u32, max_message: u64, closing: &Closing) -> Result<bool, Error> {
    let side = Arc::new(packs.about(name(&packs.connection().topic)));
    if topic::describe(&side).await?.is_some() {
        return Ok(false);
    }
    let max_message = (max_message + ENVELOPE_BYTES).to_string();
    let new = NewTopic::new(&side.connection().topic, 1, topic::copies(replication))
        .set("message.timestamp.type", "LogAppendTime")
        .set("cleanup.policy", "delete")
        .set("retention.ms", "-1")
        .set("retention.bytes", "-1")
        .set("min.insync.replicas", topic::min_in_sync(replication))
        .set("unclean.leader.election.enable", "false")
        .set("max.message.bytes", &max_message);
    topic::make_new(side.connection(), &new, closing).await?;
    let within = topic::VISIBLE;
    let made = async {
        while !matches!(topic::describe(&side).await, Ok(Some(_))) {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(within, made).await.map(|()| true).map_err(|_| {
        let topic = &side.connection().topic;
        let message = format!("the topic `{topic}` was made, and no broker knows it within {}", Span(within));
        Error::new(crate::retry::Kind::Transient, message)
    })
}
