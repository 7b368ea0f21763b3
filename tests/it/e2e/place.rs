//! Where the binary runs on the real servers: a topic, a keyspace and a prefix that nobody else has, and its flags.

use super::process::{Server, output, tallymark};
use crate::stack;

/// Partitions of a place's topic.
pub const PARTITIONS: usize = 4;

/// See the module.
#[derive(Clone)]
pub struct Place {
    pub topic: String,
    pub keyspace: String,
    flags: Vec<(String, String)>,
}

impl Place {
    /// On the tests' servers, with names of its own; nothing is made yet.
    pub fn new() -> Self {
        let number = rand::random::<u64>();
        Self::at(&format!("e2e.{number:016x}"), &format!("e2e_{number:016x}"))
    }

    /// On the tests' servers, with these names.
    pub fn at(topic: &str, keyspace: &str) -> Self {
        let place = Self { topic: topic.to_owned(), keyspace: keyspace.to_owned(), flags: Vec::new() };
        let prefix = format!("hot.prefix={}", place.topic);
        place
            .log_at(&stack::kafka())
            .store_at(&stack::scylla())
            .hot_at(&stack::redis())
            .set(&prefix)
            .set("log.replication=1")
            .set(&format!("log.partitions={PARTITIONS}"))
            .set("store.replication=1")
            .set("worker.session_timeout=6s")
            .set("worker.checkpoint_delay=1s")
    }

    pub fn log_at(self, brokers: &str) -> Self {
        let url = format!("kafka://{brokers}/{}", self.topic);
        self.with("--log", &url)
    }

    pub fn store_at(self, nodes: &str) -> Self {
        let url = format!("scylla://{nodes}/{}", self.keyspace);
        self.with("--store", &url)
    }

    pub fn hot_at(self, server: &str) -> Self {
        self.with("--hot", &format!("redis://{server}"))
    }

    /// A setting, `section.key=value`, in the place of the one that was there.
    pub fn set(mut self, setting: &str) -> Self {
        let key = setting.split('=').next().unwrap_or_default();
        self.flags.retain(|(flag, value)| flag != "--set" || value.split('=').next() != Some(key));
        self.flags.push(("--set".to_owned(), setting.to_owned()));
        self
    }

    fn with(mut self, flag: &str, value: &str) -> Self {
        self.flags.retain(|(known, _)| known != flag);
        self.flags.push((flag.to_owned(), value.to_owned()));
        self
    }

    /// Makes the topic and the tables by the commands that an operator uses.
    pub fn made(self) -> Self {
        self.do_well(&["schema", "apply"]);
        self.do_well(&["topic", "create"]);
        self
    }

    pub fn flags(&self) -> Vec<&str> {
        self.flags.iter().flat_map(|(flag, value)| [flag.as_str(), value.as_str()]).collect()
    }

    pub fn command(&self, words: &[&str]) -> (i32, String, String) {
        output(&mut tallymark(&[words, &self.flags()].concat()))
    }

    /// A command that must succeed.
    pub fn do_well(&self, words: &[&str]) {
        let (code, stdout, stderr) = self.command(words);
        assert_eq!(code, 0, "{words:?}: {stdout}{stderr}");
    }

    /// Runs a role that ends by itself, because something is missing: exit code and stderr.
    pub fn refused(&self, role: &str) -> (i32, String) {
        let mut words = vec!["run", role, "--admin-listen", "127.0.0.1:0"];
        if role != "worker" {
            words.extend(["--listen", "127.0.0.1:0"]);
        }
        let (code, _, stderr) = self.command(&words);
        (code, stderr)
    }

    pub fn start(&self, role: &str) -> Server {
        Server::run(role, &self.flags())
    }

    /// The same with another build.
    pub fn start_program(&self, path: &str, role: &str) -> Server {
        Server::run_program(path, role, &self.flags())
    }
}
