//! Backend URLs and addresses: parsed and checked in form, never shown with their passwords.
//!
//! This room knows every form that the reference names; which of them a role can run on is said in `check.rs`.

use std::{fmt, path::PathBuf, str::FromStr};

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one who has to send it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

const HIDDEN: &str = "***";

/// The URL with its password left out; also for text that is no URL at all.
pub fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    // The last `@`, even past a slash: a password that should have been escaped must not be shown for that.
    let Some((user, hosts)) = rest.rsplit_once('@') else { return url.to_owned() };
    match user.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:{HIDDEN}@{hosts}"),
        None => format!("{scheme}://{HIDDEN}@{hosts}"),
    }
}

/// `host:port`; the host is a name or an IP address, an IPv6 one in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The host, without brackets.
    pub host: String,
    /// The port; 0: any free one, where it is to be bound.
    pub port: u16,
}

impl Address {
    /// The URL by which a client on this machine reaches a server that listens here.
    pub fn client_url(&self) -> String {
        let host = match self.host.as_str() {
            "0.0.0.0" => "127.0.0.1",
            "::" => "::1",
            host => host,
        };
        format!("http://{}", Self { host: host.to_owned(), port: self.port })
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` is not an address; write host:port, e.g. `127.0.0.1:8080` or `[::1]:8080`");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let host = match host.strip_prefix('[') {
            Some(v6) => {
                let v6 = v6.strip_suffix(']').ok_or_else(wrong)?;
                v6.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
                v6
            }
            None => host,
        };
        let bare = !text.starts_with('[');
        let odd = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
        if host.is_empty() || (bare && host.contains(odd)) {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The servers that a URL names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers {
    /// Whom to log in as.
    pub user: Option<String>,
    /// With which password.
    pub password: Option<Secret>,
    /// Where they are; at least one.
    pub hosts: Vec<Address>,
    /// What follows the first `/`: a topic, a keyspace, a database.
    pub path: String,
}

/// `%40` and the like.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

impl Servers {
    /// Reads what follows `scheme://`. A host without a port gets `port`; without that it is refused.
    fn parse(rest: &str, port: Option<u16>) -> Result<Self, String> {
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (Some(login), rest),
            None => (None, rest),
        };
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
            Some((user, password)) => {
                let escaped = || "user and password must be percent-encoded UTF-8".to_owned();
                let user = unescape(user).ok_or_else(escaped)?;
                let password = unescape(password).ok_or_else(escaped)?;
                ((!user.is_empty()).then_some(user), (!password.is_empty()).then_some(Secret(password)))
            }
            None => (None, None),
        };
        let hosts = hosts
            .split(',')
            .map(|host| {
                let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
                match port {
                    Some(port) if !has_port => format!("{host}:{port}").parse::<Address>(),
                    _ => host.parse(),
                }
                .ok()
                .filter(|address| address.port != 0)
                .ok_or_else(|| format!("`{host}` is not a host and port"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { user, password, hosts, path: path.to_owned() })
    }
}

/// `[A-Za-z0-9._-]`, of at most so many bytes, and not empty.
fn is_name(name: &str, most: usize) -> bool {
    (1..=most).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// `DIR` of `embedded:DIR`.
fn folder(rest: &str) -> Result<PathBuf, String> {
    if rest.is_empty() {
        return Err("it names no folder; write `embedded:./tallymark-data`".to_owned());
    }
    if rest.starts_with("//") {
        return Err("write the folder right after the colon: `embedded:./data` or `embedded:/var/lib/tallymark`".into());
    }
    Ok(PathBuf::from(rest))
}

fn expected(forms: &str) -> String {
    format!("write {forms}")
}

/// Where the log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogUrl {
    /// `embedded:DIR`: on local disk, in `DIR/log`.
    Embedded {
        /// The data folder.
        dir: PathBuf,
    },
    /// `kafka://[user:password@]host:port[,host:port]/topic`.
    Kafka {
        /// The brokers; the path is the topic.
        servers: Servers,
    },
}

impl FromStr for LogUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORMS: &str = "`embedded:DIR` or `kafka://[user:password@]host:port[,host:port]/topic`";
        if let Some(rest) = text.strip_prefix("kafka://") {
            let servers = Servers::parse(rest, None).map_err(|why| format!("{why}; {}", expected(FORMS)))?;
            if !is_name(&servers.path, 249) {
                return Err(format!("`{}` is not a topic's name; {}", servers.path, expected(FORMS)));
            }
            return Ok(Self::Kafka { servers });
        }
        match text.strip_prefix("embedded:") {
            Some(rest) => Ok(Self::Embedded { dir: folder(rest)? }),
            None => Err(expected(FORMS)),
        }
    }
}

/// Where the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// `embedded:DIR`: on local disk, in `DIR/store`.
    Embedded {
        /// The data folder.
        dir: PathBuf,
    },
    /// `scylla://[user:password@]host:port[,…]/keyspace`.
    Scylla {
        /// The nodes to begin with; the path is the keyspace.
        servers: Servers,
    },
}

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORMS: &str = "`embedded:DIR` or `scylla://[user:password@]host:port[,…]/keyspace`";
        if let Some(rest) = text.strip_prefix("scylla://") {
            let servers = Servers::parse(rest, None).map_err(|why| format!("{why}; {}", expected(FORMS)))?;
            let keyspace = &servers.path;
            if !is_name(keyspace, 48) || keyspace.contains(['.', '-']) {
                return Err(format!("`{keyspace}` is not a keyspace's name; {}", expected(FORMS)));
            }
            return Ok(Self::Scylla { servers });
        }
        match text.strip_prefix("embedded:") {
            Some(rest) => Ok(Self::Embedded { dir: folder(rest)? }),
            None => Err(expected(FORMS)),
        }
    }
}

/// Where the hot view is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HotUrl {
    /// `memory:`: in this process.
    Memory,
    /// `none:`: nowhere; every read goes to the store.
    None,
    /// `redis://…`, `rediss://…` or `redis-cluster://…`.
    Redis {
        /// Whether the connection is encrypted.
        tls: bool,
        /// Whether the servers are a cluster.
        cluster: bool,
        /// The servers; the path is the database's number.
        servers: Servers,
    },
}

impl FromStr for HotUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORMS: &str = "`memory:`, `none:`, `redis://host:port[/db]`, `rediss://…` or `redis-cluster://…`";
        match text {
            "memory:" => return Ok(Self::Memory),
            "none:" => return Ok(Self::None),
            _ => {}
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| expected(FORMS))?;
        let (tls, cluster) = match scheme {
            "redis" => (false, false),
            "rediss" => (true, false),
            "redis-cluster" => (false, true),
            _ => return Err(expected(FORMS)),
        };
        let servers = Servers::parse(rest, Some(6379)).map_err(|why| format!("{why}; {}", expected(FORMS)))?;
        if !servers.path.is_empty() && servers.path.parse::<u32>().is_err() {
            return Err(format!("`{}` is not a database's number; {}", servers.path, expected(FORMS)));
        }
        if !cluster && servers.hosts.len() > 1 {
            return Err("one server only; write `redis-cluster://…` for a cluster".to_owned());
        }
        Ok(Self::Redis { tls, cluster, servers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_reference_is_read() {
        assert_eq!("embedded:./d".parse(), Ok(LogUrl::Embedded { dir: "./d".into() }));
        assert_eq!("embedded:/var/lib/t".parse(), Ok(StoreUrl::Embedded { dir: "/var/lib/t".into() }));
        let Ok(LogUrl::Kafka { servers }) = "kafka://a:9092,[::1]:9093/tallymark.packs".parse() else { panic!() };
        assert_eq!(servers.hosts[1], Address { host: "::1".into(), port: 9093 });
        assert_eq!(servers.path, "tallymark.packs");
        let Ok(StoreUrl::Scylla { servers }) = "scylla://app:p%40ss%3A@n1:9042,n2:9042/tally".parse() else { panic!() };
        assert_eq!(servers.user.as_deref(), Some("app"));
        assert_eq!(servers.password.as_ref().map(Secret::reveal), Some("p@ss:"));
        assert!(!format!("{servers:?}").contains("p@ss"));
        assert_eq!("memory:".parse(), Ok(HotUrl::Memory));
        assert_eq!("none:".parse(), Ok(HotUrl::None));
        let Ok(HotUrl::Redis { tls: true, cluster: false, servers }) = "rediss://:pw@cache/2".parse() else { panic!() };
        assert_eq!((servers.hosts[0].port, servers.path.as_str(), servers.user), (6379, "2", None));
        assert!(matches!("redis-cluster://a:1,b:2".parse(), Ok(HotUrl::Redis { cluster: true, .. })));
    }

    #[test]
    fn a_url_out_of_form_is_refused_with_the_form() {
        let logs = [
            "",
            "embedded",
            "embedded:",
            "embedded://x",
            "kafka:h:1/t",
            "kafka://h/t",
            "kafka://h:1",
            "kafka://h:1/a b",
        ];
        for text in logs {
            let error = text.parse::<LogUrl>().unwrap_err();
            assert!(error.contains("write ") && error.contains("embedded:"), "{text}: {error}");
        }
        for text in ["scylla://h:9042", "scylla://h:0/k", "scylla://u:%zz@h:1/k", "cassandra://h:1/k", "memory:"] {
            assert!(text.parse::<StoreUrl>().unwrap_err().contains("scylla://"), "{text}");
        }
        for text in ["", "memory", "memory:x", "redis:", "redis://", "redis://a,b", "redis://a/x", "http://a"] {
            assert!(text.parse::<HotUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn passwords_are_left_out_even_of_what_is_no_url() {
        for (text, shown) in [
            ("scylla://app:secret@n1:9042/k", "scylla://app:***@n1:9042/k"),
            ("redis://:secret@cache", "redis://:***@cache"),
            ("redis://secret@cache", "redis://***@cache"),
            ("scylla://app:se/cr@et@n1", "scylla://app:***@n1"),
            ("embedded:./a@b", "embedded:./a@b"),
            ("kafka://h:1/t", "kafka://h:1/t"),
        ] {
            assert_eq!(redact(text), shown);
        }
    }

    #[test]
    fn addresses_read_back_what_they_print() {
        for text in ["127.0.0.1:8080", "localhost:0", "[::1]:8081", "0.0.0.0:80"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "8080", ":8080", "a:b", "a:70000", "::1:80", "[::1]", "[x]:1", "a b:1", "http://a:1"] {
            assert!(text.parse::<Address>().unwrap_err().contains("host:port"), "{text}");
        }
        assert_eq!("0.0.0.0:80".parse::<Address>().unwrap().client_url(), "http://127.0.0.1:80");
        assert_eq!("[::]:80".parse::<Address>().unwrap().client_url(), "http://[::1]:80");
    }
}
