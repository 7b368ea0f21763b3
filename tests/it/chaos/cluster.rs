//! The servers that faults are made on: a stack of three brokers, three store nodes and Redis, which `tests/chaos` brings up.
//!
//! It is another stack than the one of the other tests: `TALLYMARK_TEST_STACK` names its folder, and what is killed there is
//! nobody else's.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer as _},
};

use crate::{e2e::place::Place, stack};

/// What every fault's topic has.
pub const PARTITIONS: usize = 6;

/// See the module.
pub struct Cluster {
    folder: String,
    /// What all faults share: making tables takes three nodes a while.
    pub keyspace: String,
}

/// Waits for a condition; what it says last is why it was waited for in vain.
pub fn until(what: &str, within: Duration, mut condition: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let deadline = Instant::now() + within;
    loop {
        match condition() {
            Ok(()) => return Ok(()),
            Err(why) if Instant::now() > deadline => return Err(format!("not within {within:?}: {what}: {why}")),
            Err(_) => std::thread::park_timeout(Duration::from_millis(50)),
        }
    }
}

/// For [`until`]: what is so, or what is there instead.
pub fn holds(so: bool, instead: impl FnOnce() -> String) -> Result<(), String> {
    if so { Ok(()) } else { Err(instead()) }
}

impl Cluster {
    /// The one that the environment names; its keyspace is made.
    pub fn found() -> Self {
        let folder =
            std::env::var("TALLYMARK_TEST_STACK").expect("tests/chaos names the stack in TALLYMARK_TEST_STACK");
        let keyspace = format!("chaos_{:016x}", rand::random::<u64>());
        let cluster = Self { folder, keyspace };
        let counts = [("brokers", stack::kafka()), ("store nodes", stack::scylla())];
        for (what, servers) in counts {
            assert_eq!(
                servers.split(',').count(),
                3,
                "three {what} are wanted: tests/chaos brings them up ({servers})"
            );
        }
        cluster.place("schema").do_well(&["schema", "apply"]);
        cluster
    }

    /// A place for one fault: a topic of its own, copied three times, and the shared tables.
    pub fn place(&self, name: &str) -> Place {
        let topic = format!("chaos.{name}.{:08x}", rand::random::<u32>());
        Place::at(&topic, &self.keyspace)
            .set("log.replication=3")
            .set("store.replication=3")
            .set(&format!("log.partitions={PARTITIONS}"))
    }

    /// Where the servers keep their files.
    pub fn folder(&self) -> &Path {
        Path::new(&self.folder)
    }

    /// `tests/stack WORD SERVER…`.
    fn tell(&self, word: &str, servers: &[&str]) -> Result<(), String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(root.join("tests/stack"));
        command.arg(word).args(servers).args(["--dir", &self.folder]).stdin(Stdio::null());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STACK_")) {
            command.env_remove(name);
        }
        let done = command.output().map_err(|error| format!("tests/stack: {error}"))?;
        holds(done.status.success(), || {
            format!("tests/stack {word} {}: {}", servers.join(" "), String::from_utf8_lossy(&done.stderr))
        })
    }

    /// kill −9 of some servers, at once.
    pub fn kill(&self, servers: &[&str]) -> Result<(), String> {
        self.tell("kill", servers)
    }

    /// Starts servers again, all at once: some do not answer before others are there.
    pub fn start(&self, servers: &[&str]) -> Result<(), String> {
        self.tell("start", servers)
    }

    /// The broker that leads a partition, by its name.
    pub fn leader(&self, place: &Place, partition: i32) -> Result<String, String> {
        let client: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", stack::kafka()).create().map_err(|error| error.to_string())?;
        let metadata = client.fetch_metadata(Some(&place.topic), Duration::from_secs(10)).map_err(|e| e.to_string())?;
        let leads = metadata.topics().iter().flat_map(|topic| topic.partitions());
        let leader = leads.filter(|known| known.id() == partition).map(|known| known.leader()).next();
        leader.filter(|id| *id > 0).map(|id| format!("kafka-{id}")).ok_or_else(|| "nobody leads it".to_owned())
    }
}
