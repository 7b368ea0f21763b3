//! The hot view in Redis: shared by every process, one hash per (namespace, kind, series).
//!
//! [`names`] says how things are called, [`entry`] reads what an entry says (pure), [`marks`] is what holds for all of them;
//! `adding`, `reading`, `loading` and `publishing` are the port's operations; [`servers`] sends commands where they belong,
//! [`node`] is one server and its connections, [`scripts`] what is decided in the server, [`fault`] what can go wrong.
//!
//! What the port promises (H2), against what a server may do:
//! - An entry, or everything, is gone: then `full` is gone with it, and the marks' generation when those are.
//! - An entry comes back as it was, from a snapshot or on a replica: `full` names the server's run, which is another one.
//! - A delta did not arrive, or nobody knows: its lane is marked, and entries are stale until its publishes have passed it.
//! - The server is full and refuses a delta: the entry is deleted, which it does not refuse.
//! - The server takes no writes and is still read: a value is called fresh only when a write was taken just now.
//! - Publishes were lost with a worker: the generation is raised, and no entry is full.
//!
//! Two programs on one server need a prefix each (`hot.prefix`), and so does a log or a store that is made anew beside a
//! server that was kept: totals of the former one would be added.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use async_trait::async_trait;
use redis::RedisConnectionInfo;

use self::{
    fault::Failure,
    marks::Marks,
    names::{Command, Names, lane_name},
    node::{How, PATIENCE},
    servers::{Answer, Servers},
};
use super::{Base, Delta, Error, HotKey, HotView, LoadedBase, Options, Published, Token, View};
use crate::{
    item::{Lane, Seq},
    metrics,
    retry::Kind,
    url::{Secret, Servers as Hosts},
};

mod adding;
mod entry;
mod fault;
mod loading;
mod marks;
mod names;
mod node;
mod publishing;
mod reading;
mod scripts;
mod servers;

/// The marks and the lanes' keys live this long after their last use, and at least four times as long as entries.
const MARKS_TTL: Duration = Duration::from_secs(7 * 24 * 3600);

/// The hot view in Redis.
pub struct Redis {
    servers: Servers,
    names: Names,
    marks: Marks,
    /// Entries that hold as many deltas as they may: how many adds pass before they are looked at again, by the key's hash.
    over: Mutex<HashMap<u64, u32>>,
    /// By lane: entries that claim to know packs far above what was published.
    doubtful: Mutex<HashMap<String, Vec<(HotKey, Seq)>>>,
    timeout: Duration,
    ttl: Duration,
    max_pending: usize,
    meters: Meters,
}

struct Meters {
    unsure: metrics::Counter,
    left_out: metrics::Counter,
    dropped: metrics::Counter,
    generations: metrics::Counter,
}

impl Redis {
    /// A view on these servers, which need not be there yet.
    ///
    /// # Errors
    /// `hot.ca_file` cannot be read, or `hot.prefix` cannot begin a key.
    pub fn open(tls: bool, cluster: bool, servers: &Hosts, options: &Options) -> Result<Self, Error> {
        let ca = Some(&options.ca_file[..]).filter(|path| !path.is_empty()).map(read_ca).transpose()?;
        if options.prefix.is_empty() || options.prefix.contains(['{', '}']) {
            let message = "hot.prefix: it must not be empty, nor contain `{` or `}`".to_owned();
            return Err(Error { kind: Kind::Fatal, message, source: None });
        }
        if tls {
            // Refused when the program has chosen one already, which is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let mut login = RedisConnectionInfo::default().set_lib_name("tallymark", env!("CARGO_PKG_VERSION"));
        if let Some(user) = &servers.user {
            login = login.set_username(user);
        }
        if let Some(password) = servers.password.as_ref().map(Secret::reveal) {
            login = login.set_password(password);
        }
        if let Ok(db) = servers.path.parse() {
            login = login.set_db(db);
        }
        let silence = options.timeout.0 * 5;
        let how = How { tls, cluster, ca, login, silence };
        Ok(Self {
            servers: Servers::new(&servers.hosts, cluster, how),
            names: Names::new(&options.prefix),
            marks: Marks::default(),
            over: Mutex::default(),
            doubtful: Mutex::default(),
            timeout: options.timeout.0,
            ttl: options.ttl.0,
            max_pending: options.max_pending,
            meters: Meters {
                unsure: metrics::HOT_UNSURE.counter(&[]),
                left_out: metrics::HOT_LEFT_OUT.counter(&[]),
                dropped: metrics::HOT_DROPPED.counter(&[]),
                generations: metrics::HOT_GENERATIONS.counter(&[]),
            },
        })
    }

    /// The key of an entry in Redis, for whoever looks at it with other tools.
    pub fn key_of(&self, key: &HotKey) -> Vec<u8> {
        self.names.entry(key)
    }

    /// Milliseconds that an entry lives: `hot.ttl`, give or take a tenth, so that not all are loaded again at once.
    fn ttl_ms(&self) -> u64 {
        let ttl = u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX / 4).max(10);
        ttl - ttl / 10 + rand::random_range(0..=ttl / 5)
    }

    fn marks_ttl_ms(&self) -> u64 {
        u64::try_from(MARKS_TTL.max(self.ttl * 4).as_millis()).unwrap_or(u64::MAX / 4)
    }

    /// `HMGET marks g v l`
    fn ask_marks(&self) -> Command {
        let mut command = Command::on("HMGET", &self.names.marks, 3);
        command.cmd.arg("g").arg("v").arg("l");
        command
    }

    /// Sends one command.
    async fn one(&self, command: Command) -> Answer {
        let none = || Err(Failure::new(fault::Fault::Away, "Redis answers nothing"));
        self.servers.run(vec![command]).await.pop().unwrap_or_else(none)
    }
}

fn read_ca(path: &str) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| Error {
        kind: Kind::Fatal,
        message: format!("hot.ca_file: `{path}` cannot be read; name a file of certificates in PEM"),
        source: Some(Box::new(error)),
    })
}

/// Waits for an answer as long as anybody waits for this server.
async fn patiently<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    within(PATIENCE, answer).await
}

async fn within<T>(timeout: Duration, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(timeout, answer).await.unwrap_or_else(|_| {
        let message = format!("Redis has not answered within {timeout:?}");
        Err(Error { kind: Kind::Transient, message, source: None })
    })
}

#[async_trait]
impl HotView for Redis {
    async fn add(&self, lane: Lane, seq: Seq, deltas: Vec<Delta>) -> Result<(), Error> {
        within(self.timeout, self.add_pack(lane, seq, &deltas)).await
    }

    async fn publish(&self, lane: Lane, seq: Seq, bases: &[Base]) -> Result<Published, Error> {
        patiently(self.publish_bases(&lane_name(lane), seq, bases)).await
    }

    async fn known(&self, keys: &[HotKey]) -> Result<Vec<bool>, Error> {
        patiently(self.which_are_known(keys)).await
    }

    async fn read(&self, keys: &[HotKey]) -> Result<Vec<View>, Error> {
        patiently(self.views(keys)).await
    }

    async fn bases(&self, lane: Lane, keys: &[HotKey]) -> Result<Vec<Option<(i128, Seq)>>, Error> {
        patiently(self.bases_of(&lane_name(lane), keys)).await
    }

    fn doubtful(&self, lane: Lane) -> Vec<(HotKey, Seq)> {
        self.take_doubtful(&lane_name(lane))
    }

    async fn forget(&self, keys: &[HotKey]) -> Result<(), Error> {
        patiently(self.delete(keys)).await
    }

    async fn begin_load(&self, key: &HotKey) -> Result<Token, Error> {
        patiently(self.put_token(key)).await
    }

    async fn finish_load(
        &self,
        key: &HotKey,
        token: Token,
        bases: &[LoadedBase],
        ends: &[(Lane, Seq)],
    ) -> Result<bool, Error> {
        patiently(self.set_full(key, token, bases, ends)).await
    }

    async fn published(&self, lane: Lane, seq: Seq) -> Result<(), Error> {
        patiently(self.note_published(&lane_name(lane), seq)).await
    }

    fn publishes_from(&self, lane: Lane, from: Seq) {
        self.marks.begin(lane_name(lane), from.0);
    }

    fn describe(&self) -> (&'static str, bool) {
        ("redis", true)
    }
}
