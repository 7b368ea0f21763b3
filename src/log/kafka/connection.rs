//! How a client reaches the cluster: brokers, encryption, log-in, and what every client of the process has in common.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    ClientConfig,
    client::ClientContext,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
};

use super::{
    super::{Error, Options},
    chatter::{Chatter, Context},
};
use crate::{retry::Kind, url::Servers};

/// The ways to log in that this program knows.
pub const SASL_MECHANISMS: &[&str] = &["none", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

/// The brokers, the topic, and how to get in.
#[derive(Clone)]
pub(super) struct Connection {
    config: ClientConfig,
    /// Host and port of the brokers that the URL names, for messages.
    pub brokers: String,
    /// The topic's name.
    pub topic: String,
    /// The group's name.
    pub group: String,
    /// How long a question to the brokers may take.
    pub timeout: Duration,
    /// What the clients say.
    pub chatter: Arc<Chatter>,
}

impl Connection {
    /// Reads the settings; nothing is connected yet.
    pub(super) fn new(servers: &Servers, options: &Options) -> Result<Self, Error> {
        let brokers = servers.hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let mut config = ClientConfig::new();
        config
            .set_log_level(RDKafkaLogLevel::Info)
            .set("bootstrap.servers", &brokers)
            .set("client.id", "tallymark")
            // A broker that is back is used again within half a second.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "500")
            .set("retry.backoff.max.ms", "500")
            .set("socket.keepalive.enable", "true")
            .set("socket.nagle.disable", "true")
            .set("socket.timeout.ms", "10000")
            .set("socket.connection.setup.timeout.ms", "5000")
            .set("topic.metadata.refresh.interval.ms", "30000");
        secure(&mut config, servers, options)?;
        let topic = servers.path.clone();
        let group = if options.group.is_empty() { topic.clone() } else { options.group.clone() };
        Ok(Self { config, brokers, topic, group, timeout: options.request_timeout.0, chatter: Arc::default() })
    }

    /// The same cluster, and another topic.
    pub(super) fn about(&self, topic: String) -> Self {
        Self { topic, ..self.clone() }
    }

    /// A client's context without other duties.
    pub(super) fn context(&self) -> Context {
        Context(self.chatter.clone())
    }

    /// Makes a client with these settings on top of the common ones.
    pub(super) fn client<C, T>(&self, settings: &[(&str, &str)], context: C) -> Result<T, Error>
    where
        C: ClientContext,
        T: FromClientConfigAndContext<C>,
    {
        let mut config = self.config.clone();
        for (key, value) in settings {
            config.set(*key, *value);
        }
        config.create_with_context(context).map_err(|error| {
            Error::new(Kind::Fatal, format!("the Kafka client refuses its settings: {error}")).with(error)
        })
    }
}

/// Encryption and log-in.
fn secure(config: &mut ClientConfig, servers: &Servers, options: &Options) -> Result<(), Error> {
    let fatal = |message: String| Err(Error::new(Kind::Fatal, message));
    let mechanism = Some(options.sasl_mechanism.as_str()).filter(|mechanism| *mechanism != "none");
    let protocol = match (options.tls, mechanism.is_some()) {
        (false, false) => "plaintext",
        (true, false) => "ssl",
        (false, true) => "sasl_plaintext",
        (true, true) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    for (setting, key, file) in [
        ("log.ca_file", "ssl.ca.location", &options.ca_file),
        ("log.cert_file", "ssl.certificate.location", &options.cert_file),
        ("log.key_file", "ssl.key.location", &options.key_file),
    ] {
        if file.is_empty() {
            continue;
        }
        if !options.tls {
            return fatal(format!("{setting} is set, but the connection is not encrypted; set log.tls=true"));
        }
        if let Err(error) = std::fs::metadata(file) {
            return fatal(format!("{setting} `{file}` cannot be read: {error}"));
        }
        config.set(key, file);
    }
    if options.cert_file.is_empty() != options.key_file.is_empty() {
        return fatal("log.cert_file and log.key_file go together: set both or neither".to_owned());
    }
    match (mechanism, &servers.user, &servers.password) {
        (None, None, None) => {}
        (None, ..) => {
            return fatal(
                "log.url has a user or a password, but log.sasl_mechanism is `none`; set it to PLAIN, SCRAM-SHA-256 or \
                 SCRAM-SHA-512"
                    .to_owned(),
            );
        }
        (Some(mechanism), Some(user), Some(password)) => {
            config.set("sasl.mechanism", mechanism).set("sasl.username", user).set("sasl.password", password.reveal());
        }
        (Some(mechanism), ..) => {
            return fatal(format!(
                "log.sasl_mechanism is {mechanism}: write user and password into log.url, kafka://user:password@host:port/topic"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::url::LogUrl;

    fn connection(url: &str, options: Options) -> Result<Connection, String> {
        let Ok(LogUrl::Kafka { servers }) = url.parse() else { panic!("{url}") };
        Connection::new(&servers, &options).map_err(|error| error.to_string())
    }

    #[test]
    fn encryption_and_log_in_come_from_the_settings_and_the_url() {
        let protocol = |url: &str, options: Options| {
            let connection = connection(url, options).unwrap();
            let get = |key: &str| connection.config.get(key).map(str::to_owned);
            (get("security.protocol").unwrap(), get("sasl.mechanism"), get("sasl.password"))
        };
        let with = |tls: bool, mechanism: &str| Options { tls, sasl_mechanism: mechanism.into(), ..Options::default() };
        assert_eq!(protocol("kafka://h:1/t", Options::default()), ("plaintext".into(), None, None));
        assert_eq!(protocol("kafka://h:1/t", with(true, "none")), ("ssl".into(), None, None));
        let scram = Some("SCRAM-SHA-512".to_owned());
        let url = "kafka://me:p%40ss@h:1/t";
        assert_eq!(protocol(url, with(false, "SCRAM-SHA-512")), ("sasl_plaintext".into(), scram, Some("p@ss".into())));
        assert_eq!(protocol(url, with(true, "PLAIN")).0, "sasl_ssl");
    }

    #[test]
    fn settings_that_do_not_fit_together_are_named_with_the_remedy_and_without_the_password() {
        let refused = |url: &str, options: Options| connection(url, options).err().unwrap();
        let text = refused("kafka://me:s3cret@h:1/t", Options::default());
        assert!(text.contains("log.sasl_mechanism") && !text.contains("s3cret"), "{text}");
        let text = refused("kafka://me@h:1/t", Options { sasl_mechanism: "PLAIN".into(), ..Options::default() });
        assert!(text.contains("user:password@"), "{text}");
        let text = refused("kafka://h:1/t", Options { ca_file: "ca.pem".into(), ..Options::default() });
        assert!(text.contains("log.tls=true"), "{text}");
        let text =
            refused("kafka://h:1/t", Options { tls: true, ca_file: "/not/there.pem".into(), ..Options::default() });
        assert!(text.contains("log.ca_file `/not/there.pem`"), "{text}");
    }

    #[test]
    fn the_group_is_called_as_the_topic_unless_it_has_a_name_of_its_own() {
        assert_eq!(connection("kafka://h:1/packs", Options::default()).unwrap().group, "packs");
        let options = Options { group: "workers".into(), ..Options::default() };
        assert_eq!(connection("kafka://h:1/packs", options).unwrap().group, "workers");
    }
}
