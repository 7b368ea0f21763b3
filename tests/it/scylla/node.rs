//! A node of a test's own, which it may kill and start again: a stack with nothing else in it.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;

const NAME: &str = "store-1";

/// The only node of its cluster.
pub struct Node {
    dir: TempDir,
    address: String,
}

fn stack(dir: &Path, words: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(root.join("tests/stack"));
    command.args(words).arg("--dir").arg(dir.join("stack")).stdin(Stdio::null()).stderr(Stdio::piped());
    // What is said there of the developer's own stack is not meant for this one.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STACK_")) {
        command.env_remove(name);
    }
    let done = command.output().unwrap();
    assert!(done.status.success(), "tests/stack {words:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

impl Node {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut node = Self { dir, address: String::new() };
        let up = ["up", "--brokers", "0", "--redis", "0", "--store-heap", "512m"];
        let said = stack(node.dir.path(), &up);
        let address = said.lines().find_map(|line| line.strip_prefix("TALLYMARK_TEST_SCYLLA="));
        node.address = address.expect("it says where the node is").to_owned();
        node
    }

    /// `host:port`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// As in a crash.
    pub fn kill(&self) {
        stack(self.dir.path(), &["kill", NAME]);
    }

    /// With its address and its data; answers when it does.
    pub fn start_again(&self) {
        stack(self.dir.path(), &["start", NAME]);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        stack(self.dir.path(), &["down"]);
    }
}
