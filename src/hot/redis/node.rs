//! One server: its connections, made when they are wanted, dropped when they are broken or silent, and made again.
//!
//! A server has several connections, so that one task's parsing is not the bound of all. With them comes what the server
//! calls its run: another one means that it was started anew, and may hold anything. Nobody waits for a server that was
//! away when last tried: the first who asks after the backoff starts the next try, and everybody is told at once.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, Pipeline,
    RedisConnectionInfo, RedisError, TlsCertificates, Value, aio::MultiplexedConnection,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use super::{
    fault::{Failure, Fault},
    scripts,
};
use crate::{
    metrics,
    retry::{self, Backoff},
    units::Span,
    url::Address,
};

/// Connections to one server.
const CONNECTIONS: usize = 4;
/// How long a connection may take to be made, and any answer to come.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// A write within this time says that the server takes writes.
const WRITE_LASTS_MS: u64 = 1000;

/// Of a run, 48 random bits: so a token with its life is 64 bytes at most, and an entry stays a listpack.
const RUN_CHARS: usize = 12;

/// How servers are reached.
pub(super) struct How {
    pub(super) tls: bool,
    /// A server of a cluster says by itself what it does not serve; one alone must be the primary.
    pub(super) cluster: bool,
    /// The certificates to trust, in PEM; those of the system when there is none.
    pub(super) ca: Option<Vec<u8>>,
    pub(super) login: RedisConnectionInfo,
    /// A server is silent when this long nothing has come back.
    pub(super) silence: Duration,
}

/// The connections to a server while they work.
pub(super) struct Link {
    server: String,
    /// The server's run.
    pub(super) run: Arc<str>,
    connections: Vec<MultiplexedConnection>,
    next: AtomicUsize,
    epoch: Instant,
    /// When a write was last taken, in milliseconds since `epoch`, and one; 0: never.
    wrote: AtomicU64,
    /// Since when requests fail and nothing comes back, likewise; 0: it answers.
    silent: AtomicU64,
}

impl Link {
    fn now(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64 + 1
    }

    /// Notes that the server has taken a write.
    pub(super) fn wrote(&self) {
        self.wrote.store(self.now(), Ordering::Relaxed);
    }

    /// Whether the server has taken a write just now.
    pub(super) fn writes(&self) -> bool {
        let wrote = self.wrote.load(Ordering::Relaxed);
        wrote > 0 && self.now().saturating_sub(wrote) < WRITE_LASTS_MS
    }
}

enum State {
    /// Nobody tries; not before this time, when it was away.
    Idle { not_before: Option<Instant>, why: Option<Failure> },
    /// A try is under way.
    Trying { done: watch::Receiver<bool>, why: Option<Failure>, _task: AbortOnDropHandle<()> },
    /// It works.
    Up(Arc<Link>),
}

struct Inner {
    state: State,
    backoff: Backoff,
}

/// One server.
pub(super) struct Node {
    pub(super) address: Address,
    name: String,
    how: Arc<How>,
    inner: Mutex<Inner>,
    connected: metrics::Gauge,
}

impl Node {
    pub(super) fn new(address: Address, how: Arc<How>) -> Arc<Self> {
        let backoff = Backoff::new(&retry::Options { initial: Span::from_millis(50), max: Span::from_secs(1) });
        let inner = Mutex::new(Inner { state: State::Idle { not_before: None, why: None }, backoff });
        let connected = metrics::HOT_CONNECTED.gauge(&[]);
        Arc::new(Self { name: address.to_string(), address, how, inner, connected })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connections, if they work now.
    pub(super) fn up(&self) -> Option<Arc<Link>> {
        match &self.inner().state {
            State::Up(link) => Some(link.clone()),
            _ => None,
        }
    }

    /// The connections, made now if there are none. Whoever finds a server that was away does not wait for it.
    pub(super) async fn link(self: &Arc<Self>) -> Result<Arc<Link>, Failure> {
        loop {
            let mut done = {
                let mut inner = self.inner();
                match &inner.state {
                    State::Up(link) => return Ok(link.clone()),
                    State::Trying { why: Some(why), .. } => return Err(why.clone()),
                    State::Trying { done, why: None, .. } => done.clone(),
                    State::Idle { not_before, why } => {
                        let why = why.clone();
                        if not_before.is_none_or(|not_before| not_before <= Instant::now()) {
                            let (finished, done) = watch::channel(false);
                            let node = self.clone();
                            let task = tokio::spawn(async move { node.connect(finished).await });
                            inner.state = State::Trying { done, why: why.clone(), _task: AbortOnDropHandle::new(task) };
                        }
                        match why {
                            Some(why) => return Err(why),
                            None => continue,
                        }
                    }
                }
            };
            // An error: the task is gone, and with it the state that it was in.
            let _ = done.wait_for(|done| *done).await;
        }
    }

    async fn connect(self: Arc<Self>, finished: watch::Sender<bool>) {
        let made = match tokio::time::timeout(PATIENCE, self.open()).await {
            Ok(made) => made,
            Err(_) => Err(Failure::new(Fault::Away, format!("Redis at {} does not answer", self.name))),
        };
        {
            let mut inner = self.inner();
            inner.state = match made {
                Ok(link) => {
                    inner.backoff.reset();
                    self.connected.increment(1.0);
                    tracing::info!(server = %self.name, run = %link.run, "redis connected");
                    State::Up(Arc::new(link))
                }
                Err(why) => {
                    if !matches!(&inner.state, State::Trying { why: Some(before), .. } if before.fault == why.fault) {
                        tracing::warn!(server = %self.name, error = %why, "redis does not work, tried again");
                    }
                    let not_before = Some(Instant::now() + inner.backoff.next_delay());
                    State::Idle { not_before, why: Some(why) }
                }
            };
        }
        finished.send_replace(true);
    }

    fn client(&self) -> Result<Client, RedisError> {
        let Address { host, port } = self.address.clone();
        let info = |addr: ConnectionAddr| -> Result<ConnectionInfo, RedisError> {
            Ok(addr.into_connection_info()?.set_redis_settings(self.how.login.clone()))
        };
        if !self.how.tls {
            return Client::open(info(ConnectionAddr::Tcp(host, port))?);
        }
        let addr = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
        match &self.how.ca {
            None => Client::open(info(addr)?),
            Some(ca) => {
                Client::build_with_tls(info(addr)?, TlsCertificates { client_tls: None, root_cert: Some(ca.clone()) })
            }
        }
    }

    async fn open(&self) -> Result<Link, Failure> {
        let failed = |error: RedisError| Failure::of(&self.name, &error);
        let client = self.client().map_err(failed)?;
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE));
        let mut connections = Vec::with_capacity(CONNECTIONS);
        let mut run: Option<Arc<str>> = None;
        for _ in 0..CONNECTIONS {
            let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.map_err(failed)?;
            let mut hello = Pipeline::new();
            hello.cmd("INFO").arg("server").cmd("ROLE");
            if connections.is_empty() {
                for load in scripts::loads() {
                    hello.add_command(load);
                }
            }
            let answers = connection.send_packed_commands(&hello, 0, hello.len()).await.map_err(failed)?;
            let its_run = self.hello(&answers)?;
            if run.get_or_insert_with(|| its_run.clone()) != &its_run {
                let why = "more than one server answers there: name one primary in hot.url, not a balancer";
                return Err(Failure::new(Fault::Refused, format!("hot.url: Redis at {}: {why}", self.name)));
            }
            connections.push(connection);
        }
        Ok(Link {
            server: self.name.clone(),
            run: run.unwrap_or_default(),
            connections,
            next: AtomicUsize::new(0),
            epoch: Instant::now(),
            wrote: AtomicU64::new(0),
            silent: AtomicU64::new(0),
        })
    }

    /// The server's run, when it is one that can be used.
    fn hello(&self, answers: &[Value]) -> Result<Arc<str>, Failure> {
        if let Some(error) = answers.iter().find_map(error_of) {
            return Err(Failure::said(&self.name, error));
        }
        let refused = |why: &str| Failure::new(Fault::Refused, format!("hot.url: Redis at {}: {why}", self.name));
        let info = answers.first().map(text_of).unwrap_or_default();
        let line = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        let major = line("redis_version").and_then(|version| version.split('.').next()?.parse::<u32>().ok());
        if major.is_none_or(|major| major < 7) {
            return Err(refused("it is older than 7.0; use Redis 7 or later, or Valkey"));
        }
        let role = match answers.get(1) {
            Some(Value::Array(role)) => role.first().map(text_of).unwrap_or_default(),
            _ => String::new(),
        };
        if role != "master" && !self.how.cluster {
            let why = format!("Redis at {} is a {role}; hot.url must name its primary", self.name);
            return Err(Failure::new(Fault::Closed, why));
        }
        line("run_id")
            .and_then(|run| run.get(..RUN_CHARS))
            .map(Arc::from)
            .ok_or_else(|| refused("it does not say its run_id"))
    }

    /// Sends a pipeline over one of the connections and answers what came back, one value a command.
    pub(super) async fn send(&self, link: &Arc<Link>, pipeline: &Pipeline) -> Result<Vec<Value>, Failure> {
        let watch = Watch { node: self, link, done: false };
        let at = link.next.fetch_add(1, Ordering::Relaxed) % link.connections.len();
        let mut connection = link.connections[at].clone();
        match connection.send_packed_commands(pipeline, 0, pipeline.len()).await {
            Ok(values) => {
                watch.answered();
                if values.iter().filter_map(error_of).any(|error| error.code() == "READONLY") {
                    // It was the primary when it was asked. Whoever is it now is found by connecting again.
                    self.lose(link, "is a replica now");
                }
                Ok(values)
            }
            Err(error) if error.is_timeout() => Err(Failure::of(&link.server, &error)),
            Err(error) => {
                watch.answered();
                self.lose(link, "connection lost");
                Err(Failure::of(&link.server, &error))
            }
        }
    }

    /// Drops these connections, if they are still in use. The next who asks makes new ones.
    fn lose(&self, link: &Arc<Link>, why: &str) {
        let mut inner = self.inner();
        if matches!(&inner.state, State::Up(up) if Arc::ptr_eq(up, link)) {
            tracing::warn!(server = %self.name, reason = why, "redis lost");
            self.connected.decrement(1.0);
            inner.state = State::Idle { not_before: None, why: None };
        }
    }
}

/// Watches one request: one that is given up says that the server may be silent.
struct Watch<'a> {
    node: &'a Node,
    link: &'a Arc<Link>,
    done: bool,
}

impl Watch<'_> {
    fn answered(mut self) {
        self.done = true;
        self.link.silent.store(0, Ordering::Relaxed);
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let now = self.link.now();
        match self.link.silent.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed) {
            Err(since) if Duration::from_millis(now.saturating_sub(since)) >= self.node.how.silence => {
                self.node.lose(self.link, "does not answer");
            }
            _ => {}
        }
    }
}

/// The error that a value is.
pub(super) fn error_of(value: &Value) -> Option<&redis::ServerError> {
    match value {
        Value::ServerError(error) => Some(error),
        _ => None,
    }
}

/// The bytes of a value that is text.
pub(super) fn bytes_of(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

fn text_of(value: &Value) -> String {
    bytes_of(value).map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
}
