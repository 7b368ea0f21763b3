//! The topic's settings: what the laws need, made by `tallymark topic create`, and explained where it is otherwise.
//!
//! What breaks a law is refused: times that are not the log's, compaction, a leader that lacks acknowledged records,
//! records that go before a retry could meet them, packs that do not fit. Fewer copies than three, or acknowledgements by
//! one, are weaker than they should be: a warning.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    types::RDKafkaErrorCode,
};
use serde::Serialize;
use tokio::time::Instant;

use super::{
    super::{Error, Options},
    Needs,
    chatter::Context,
    closing::Closing,
    connection::Connection,
    dead_topic, errors,
    ffi::Described,
    side::{Layout, Side},
};
use crate::{item::TopicId, retry::Kind, units::Span, url::Servers};

/// Partitions of a new topic, where the settings leave it open.
const DEFAULT_PARTITIONS: u32 = 8;
/// What a pack may exceed `ingest.pack_bytes` by: its last item, its claims, its head.
const PACK_MARGIN: u64 = 256 << 10;
/// The largest record of a new topic, unless packs need more.
const MAX_MESSAGE: u64 = 4 << 20;
/// How long a new topic may take to be there for every broker.
pub(super) const VISIBLE: Duration = Duration::from_secs(10);

/// A setting that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The setting's name.
    pub setting: String,
    /// Its value.
    pub is: String,
    /// What it must be.
    pub must: String,
    /// Why.
    pub why: String,
    /// How to change it.
    pub remedy: String,
    /// Whether the log is refused for it; otherwise it is a warning.
    pub refused: bool,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { setting, is, must, why, remedy, .. } = self;
        write!(f, "{setting} is {is}, must be {must}: {why}; {remedy}")
    }
}

/// What was found of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The topic's name.
    pub topic: String,
    /// Which life of it.
    pub topic_id: String,
    /// Its partitions.
    pub partitions: u32,
    /// Copies of each.
    pub replication: usize,
    /// What is not as it should be; what is refused comes first.
    pub findings: Vec<Finding>,
    /// The largest record that it takes, in bytes.
    pub max_message_bytes: u64,
    /// Copies that must have a record before it is acknowledged.
    pub min_insync_replicas: usize,
}

impl Report {
    /// What the log is refused for.
    pub fn refused(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.refused)
    }

    /// What is weaker than it should be.
    pub fn warnings(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| !finding.refused)
    }

    /// An error that names everything the log is refused for, if there is anything.
    pub(super) fn fit(&self) -> Result<(), Error> {
        let refused: Vec<String> = self.refused().map(ToString::to_string).collect();
        match refused.as_slice() {
            [] => Ok(()),
            [only] => Err(Error::new(Kind::Fatal, format!("the topic `{}` does not fit: {only}", self.topic))),
            [first, more @ ..] => Err(Error::new(
                Kind::Fatal,
                format!(
                    "the topic `{}` does not fit: {first} ({} more; `tallymark topic check` explains every one)",
                    self.topic,
                    more.len()
                ),
            )),
        }
    }
}

/// What `create` has found or made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// There was none, and now there is.
    Made(Report),
    /// It was there already.
    Existing(Report),
}

/// Looks at the topic that the URL names.
///
/// # Errors
/// The cluster cannot be reached ([`Kind::Transient`]), does not let us in, or has no such topic.
pub async fn check(servers: &Servers, options: &Options, needs: &Needs) -> Result<Report, Error> {
    let (connection, closing) = (Connection::new(servers, options)?, Closing::default());
    let side = Arc::new(Side::new(connection, closing.clone())?);
    let checked = look(&side, options, needs, &closing).await;
    drop(side);
    closing.wait();
    checked.map(|(report, _)| report)
}

/// Makes the topic that the URL names, with the settings that the laws need; leaves one alone that is there.
///
/// # Errors
/// As of [`check`]; or the cluster refuses to make it, or has fewer brokers than `log.replication`.
pub async fn create(servers: &Servers, options: &Options, needs: &Needs) -> Result<Created, Error> {
    let (connection, closing) = (Connection::new(servers, options)?, Closing::default());
    let side = Arc::new(Side::new(connection, closing.clone())?);
    let created = make(&side, options, needs, &closing).await;
    drop(side);
    closing.wait();
    created
}

/// The topic as it is, and its judgement.
pub(super) async fn look(
    side: &Arc<Side>,
    options: &Options,
    needs: &Needs,
    closing: &Closing,
) -> Result<(Report, Described), Error> {
    let Some(described) = describe(side).await? else {
        let topic = &side.connection().topic;
        return Err(Error::new(
            Kind::Fatal,
            format!("the topic `{topic}` does not exist; make it with `tallymark topic create`"),
        ));
    };
    let settings = settings(side, closing).await?;
    let layout = side.layout(side.connection().timeout).await?;
    let mut report = judge(side.connection(), described, &settings, &layout, options, needs);
    dead_topic::look(side, closing, &mut report).await?;
    Ok((report, described))
}

/// The topic's id and partitions; `None` when there is none.
pub(super) async fn describe(side: &Arc<Side>) -> Result<Option<Described>, Error> {
    let connection = side.connection();
    match side.describe().await {
        Ok(described) => Ok(Some(described)),
        Err(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(None),
        Err(code) if errors::kind(code) == Kind::Fatal => {
            Err(errors::of_code(&format!("Kafka at {} refuses us", connection.brokers), code))
        }
        Err(code) => {
            let reason = connection.chatter.reason();
            let why = reason.unwrap_or_else(|| code.to_string());
            let brokers = &connection.brokers;
            if connection.chatter.is_refused() {
                return Err(Error::new(
                    Kind::Fatal,
                    format!(
                        "Kafka at {brokers} does not let us in: {why}; check log.tls, log.sasl_mechanism, and user and \
                         password in log.url"
                    ),
                ));
            }
            let within = Span(connection.timeout);
            Err(Error::new(
                Kind::Transient,
                format!(
                    "no answer from Kafka at {brokers} within {within}: {why}; is it running, and is the address right?"
                ),
            ))
        }
    }
}

/// The topic's settings by name.
pub(super) async fn settings(side: &Arc<Side>, closing: &Closing) -> Result<BTreeMap<String, String>, Error> {
    let connection = side.connection();
    let what = format!("the settings of the topic `{}` cannot be read", connection.topic);
    let admin: AdminClient<Context> = connection.client(&[], connection.context())?;
    let topic = ResourceSpecifier::Topic(&connection.topic);
    let timeout = AdminOptions::new().request_timeout(Some(connection.timeout));
    let described = admin.describe_configs([&topic], &timeout).await;
    closing.run(move || drop(admin));
    let resource = described.map_err(|error| errors::of(&what, error))?.pop();
    let resource = match resource {
        Some(resource) => resource.map_err(|code| errors::of_code(&what, code))?,
        None => return Err(Error::new(Kind::Transient, format!("{what}: the answer is empty"))),
    };
    let settings: BTreeMap<String, String> =
        resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect();
    // So a broker answers when the topic is missing: success, and nothing in it.
    if settings.is_empty() {
        return Err(Error::new(
            Kind::Fatal,
            format!("the topic `{}` does not exist; make it with `tallymark topic create`", connection.topic),
        ));
    }
    Ok(settings)
}

/// The largest record that a topic must take.
fn needed_message_bytes(needs: &Needs) -> u64 {
    needs.pack_bytes as u64 + PACK_MARGIN
}

fn judge(
    connection: &Connection,
    described: Described,
    settings: &BTreeMap<String, String>,
    layout: &Layout,
    options: &Options,
    needs: &Needs,
) -> Report {
    let Connection { topic, brokers, .. } = connection;
    let get = |name: &str| settings.get(name).map_or("unknown", String::as_str);
    let mut findings = Vec::new();
    let mut found = |refused: bool, setting: &str, must: String, why: &str, value: &str| {
        let remedy = format!(
            "kafka-configs.sh --bootstrap-server {brokers} --alter --entity-type topics --entity-name {topic} \
             --add-config {setting}={value}"
        );
        let (setting, is, why) = (setting.to_owned(), get(setting).to_owned(), why.to_owned());
        findings.push(Finding { setting, is, must, why, remedy, refused });
    };
    for (setting, must, why) in [
        (
            "message.timestamp.type",
            "LogAppendTime",
            "stamps are computed from the log's own clock, and a producer's clock is not that",
        ),
        ("cleanup.policy", "delete", "compaction removes records from the middle, and totals are sums of all of them"),
        (
            "unclean.leader.election.enable",
            "false",
            "a leader that was not in sync lacks records that were acknowledged",
        ),
    ] {
        if get(setting) != must {
            found(true, setting, must.to_owned(), why, must);
        }
    }
    let window = Span(needs.dedup_window);
    let shortest = 2 * window.as_millis();
    let retention: i64 = get("retention.ms").parse().unwrap_or(0);
    if retention >= 0 && retention < shortest {
        let must = format!("at least {shortest}, twice dedup.window ({window})");
        let why = "a retry is recognised only while what it repeats is in the log";
        found(true, "retention.ms", must, why, &options.retention.as_millis().max(shortest).to_string());
    }
    let max_message_bytes: u64 = get("max.message.bytes").parse().unwrap_or(0);
    let needed = needed_message_bytes(needs);
    if max_message_bytes < needed {
        let must = format!("at least {needed}, ingest.pack_bytes and a last item");
        found(
            true,
            "max.message.bytes",
            must,
            "a pack that is larger is refused",
            &needed.max(MAX_MESSAGE).to_string(),
        );
    }
    let min_insync_replicas: usize = get("min.insync.replicas").parse().unwrap_or(1);
    if min_insync_replicas < 2 {
        let why = "with 1 a record counts as durable that one broker has, and its disk may be lost";
        found(false, "min.insync.replicas", "at least 2".to_owned(), why, "2");
    }
    if get("retention.bytes").parse::<i64>().is_ok_and(|bytes| bytes >= 0) {
        let why = "a bound of bytes may remove what a lane that is behind still needs";
        found(false, "retention.bytes", "-1".to_owned(), why, "-1");
    }
    if layout.replication < 3 {
        findings.push(Finding {
            setting: "replication factor".to_owned(),
            is: layout.replication.to_string(),
            must: "at least 3".to_owned(),
            why: "with fewer copies the loss of a broker ends appends, or loses records".to_owned(),
            remedy: "give each partition three replicas with kafka-reassign-partitions.sh".to_owned(),
            refused: false,
        });
    }
    if options.partitions != 0 && options.partitions != described.partitions {
        findings.push(Finding {
            setting: "partitions".to_owned(),
            is: described.partitions.to_string(),
            must: format!("{}, as log.partitions says", options.partitions),
            why: "the partition count is part of the layout that an epoch pins".to_owned(),
            remedy: format!("set log.partitions={} or leave it out", described.partitions),
            refused: true,
        });
    }
    findings.sort_by_key(|finding| !finding.refused);
    Report {
        topic: topic.clone(),
        topic_id: TopicId(described.topic_id).to_string(),
        partitions: described.partitions,
        replication: layout.replication,
        findings,
        max_message_bytes,
        min_insync_replicas,
    }
}

async fn make(side: &Arc<Side>, options: &Options, needs: &Needs, closing: &Closing) -> Result<Created, Error> {
    let fatal = |message: String| Err(Error::new(Kind::Fatal, message));
    let connection = side.connection();
    let topic = &connection.topic;
    if describe(side).await?.is_some() {
        let (report, _) = look(side, options, needs, closing).await?;
        let copies = u32::try_from(report.replication).unwrap_or(1).max(1);
        if !dead_topic::make(side, copies, report.max_message_bytes, closing).await? {
            return Ok(Created::Existing(report));
        }
        return look(side, options, needs, closing).await.map(|(report, _)| Created::Existing(report));
    }
    let window = Span(needs.dedup_window);
    if options.retention.as_millis() < 2 * window.as_millis() {
        return fatal(format!(
            "log.retention is {}, less than twice dedup.window ({window}): a retry is recognised only while what it \
             repeats is in the log; raise log.retention",
            options.retention
        ));
    }
    let brokers = side.layout(connection.timeout).await?.brokers;
    let replication = options.replication;
    if brokers < replication as usize {
        return fatal(format!(
            "log.replication is {replication}, and the cluster at {} has {brokers} broker{}: start more, or set \
             log.replication={brokers} and accept that records are lost with {}",
            connection.brokers,
            if brokers == 1 { "" } else { "s" },
            if brokers == 1 { "its disk" } else { "their disks" },
        ));
    }
    let partitions = if options.partitions == 0 { DEFAULT_PARTITIONS } else { options.partitions };
    let retention = options.retention.as_millis().to_string();
    let max_message_bytes = (2 * needed_message_bytes(needs)).max(MAX_MESSAGE);
    let max_message = max_message_bytes.to_string();
    // First, so that the packs' topic is never there without it.
    dead_topic::make(side, replication, max_message_bytes, closing).await?;
    let new = NewTopic::new(topic, to_i32(partitions), copies(replication))
        .set("message.timestamp.type", "LogAppendTime")
        .set("cleanup.policy", "delete")
        .set("retention.ms", &retention)
        .set("retention.bytes", "-1")
        .set("min.insync.replicas", min_in_sync(replication))
        .set("unclean.leader.election.enable", "false")
        .set("max.message.bytes", &max_message);
    make_new(connection, &new, closing).await?;
    let until = Instant::now() + VISIBLE;
    loop {
        match look(side, options, needs, closing).await {
            Ok((report, _)) if report.replication > 0 => return Ok(Created::Made(report)),
            Err(error) if Instant::now() >= until => return Err(error),
            Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

fn to_i32(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// So many copies of each partition.
pub(super) fn copies(replication: u32) -> TopicReplication<'static> {
    TopicReplication::Fixed(to_i32(replication))
}

/// Copies that must have a record before it is acknowledged.
pub(super) fn min_in_sync(replication: u32) -> &'static str {
    if replication >= 3 { "2" } else { "1" }
}

/// Asks the controller for a topic; somebody else may be faster.
pub(super) async fn make_new(connection: &Connection, new: &NewTopic<'_>, closing: &Closing) -> Result<(), Error> {
    let what = format!("the topic `{}` cannot be made", new.name);
    let admin: AdminClient<Context> = connection.client(&[], connection.context())?;
    let timeout =
        AdminOptions::new().request_timeout(Some(connection.timeout)).operation_timeout(Some(connection.timeout));
    let made = admin.create_topics([new], &timeout).await;
    closing.run(move || drop(admin));
    for result in made.map_err(|error| errors::of(&what, error))? {
        match result {
            // Somebody was faster.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(Error::new(Kind::Fatal, errors::of_code(&what, code).message)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::url::LogUrl;

    fn needs() -> Needs {
        Needs {
            session_timeout: Duration::from_secs(10),
            dedup_window: Duration::from_secs(600),
            pack_bytes: 256 << 10,
            read_ahead: 1 << 20,
            appends: true,
        }
    }

    fn good() -> BTreeMap<String, String> {
        [
            ("message.timestamp.type", "LogAppendTime"),
            ("cleanup.policy", "delete"),
            ("unclean.leader.election.enable", "false"),
            ("retention.ms", "604800000"),
            ("retention.bytes", "-1"),
            ("max.message.bytes", "4194304"),
            ("min.insync.replicas", "2"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    fn judged(settings: &BTreeMap<String, String>, replication: usize, options: &Options) -> Report {
        let Ok(LogUrl::Kafka { servers }) = "kafka://h:1/packs".parse() else { panic!() };
        let connection = Connection::new(&servers, options).unwrap();
        let layout = Layout { brokers: 3, replication, ..Layout::default() };
        judge(&connection, Described { topic_id: [1; 16], partitions: 8 }, settings, &layout, options, &needs())
    }

    #[test]
    fn a_topic_with_the_settings_that_are_made_fits() {
        let report = judged(&good(), 3, &Options::default());
        assert_eq!(report.findings, []);
        report.fit().unwrap();
        let mut unlimited = good();
        unlimited.insert("retention.ms".into(), "-1".into());
        assert_eq!(judged(&unlimited, 3, &Options::default()).findings, []);
    }

    #[test]
    fn each_setting_that_breaks_a_law_is_refused_with_the_remedy() {
        for (setting, wrong) in [
            ("message.timestamp.type", "CreateTime"),
            ("cleanup.policy", "compact,delete"),
            ("unclean.leader.election.enable", "true"),
            ("retention.ms", "1199999"),
            ("max.message.bytes", "262144"),
        ] {
            let mut settings = good();
            settings.insert(setting.into(), wrong.into());
            let report = judged(&settings, 3, &Options::default());
            let [finding] = report.findings.as_slice() else { panic!("{setting}: {:?}", report.findings) };
            assert!(finding.refused && finding.setting == setting && finding.is == wrong);
            let text = report.fit().unwrap_err().to_string();
            assert!(text.contains(setting) && text.contains(wrong) && text.contains("--add-config"), "{text}");
        }
    }

    #[test]
    fn what_is_weaker_than_it_should_be_is_a_warning() {
        let mut settings = good();
        settings.insert("min.insync.replicas".into(), "1".into());
        settings.insert("retention.bytes".into(), "1000".into());
        let report = judged(&settings, 1, &Options::default());
        assert_eq!(report.warnings().count(), 3);
        report.fit().unwrap();
    }

    #[test]
    fn a_partition_count_that_was_asked_for_must_be_the_topics() {
        let options = Options { partitions: 4, ..Options::default() };
        let text = judged(&good(), 3, &options).fit().unwrap_err().to_string();
        assert!(text.contains("log.partitions=8"), "{text}");
        judged(&good(), 3, &Options { partitions: 8, ..Options::default() }).fit().unwrap();
    }
}
