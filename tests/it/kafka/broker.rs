//! A broker of a test's own, which it may stop, freeze and kill; started from the jars that `tests/stack` has fetched.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rdkafka::{ClientConfig, consumer::Consumer as _};
use tempfile::TempDir;

use crate::stack;

const CLUSTER: &str = "dGFsbHltYXJrLXRlc3RzMQ";

/// One broker, which is its own controller.
pub struct Broker {
    dir: TempDir,
    port: u16,
    secure_port: u16,
    child: Option<Child>,
}

/// How clients get in on the second listener.
pub struct Secure<'a> {
    /// PEM file with the broker's private key and certificate.
    pub keystore: &'a Path,
    /// Users of SCRAM-SHA-256 and -512 and of PLAIN, all with this name and password.
    pub user: &'a str,
    pub password: &'a str,
}

fn free_ports() -> [u16; 3] {
    let listeners = [0; 3].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

impl Broker {
    pub fn start(secure: Option<&Secure<'_>>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [port, controller, secure_port] = free_ports();
        let data = dir.path().join("data");
        let mut settings = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             controller.listener.names=CONTROLLER\nlog.dirs={}\noffsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=4\ntransaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\nauto.create.topics.enable=false\nbroker.session.timeout.ms=2000\n\
             broker.heartbeat.interval.ms=500\n",
            data.display()
        );
        let (mut listeners, mut advertised, mut protocols) = (
            format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}"),
            format!("PLAINTEXT://127.0.0.1:{port}"),
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned(),
        );
        let mut format = vec!["-t".to_owned(), CLUSTER.to_owned()];
        if let Some(Secure { keystore, user, password }) = secure {
            listeners += &format!(",SAFE://127.0.0.1:{secure_port}");
            advertised += &format!(",SAFE://127.0.0.1:{secure_port}");
            protocols += ",SAFE:SASL_SSL";
            settings += &format!(
                "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\nssl.keystore.type=PEM\n\
                 ssl.keystore.location={}\n\
                 listener.name.safe.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
                 user_{user}=\"{password}\";\n",
                keystore.display()
            );
            for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
                settings += &format!(
                    "listener.name.safe.{}.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule \
                     required;\n",
                    mechanism.to_lowercase()
                );
                format.extend(["--add-scram".to_owned(), format!("{mechanism}=[name={user},password={password}]")]);
            }
        }
        settings += &format!(
            "listeners={listeners}\nadvertised.listeners={advertised}\nlistener.security.protocol.map={protocols}\n"
        );
        let file = dir.path().join("broker.properties");
        fs::write(&file, settings).unwrap();
        let formatted = java(dir.path())
            .arg("kafka.tools.StorageTool")
            .arg("format")
            .args(format)
            .arg("-c")
            .arg(&file)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&formatted.stderr);
        assert!(formatted.status.success(), "{said}\n{}", String::from_utf8_lossy(&formatted.stdout));
        let mut broker = Self { dir, port, secure_port, child: None };
        broker.restart();
        broker
    }

    /// Starts it again, with its address and its data, and waits until it answers.
    pub fn restart(&mut self) {
        self.launch();
        let client: rdkafka::consumer::BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", self.address()).create().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let asked = client.fetch_metadata(None, std::time::Duration::from_secs(1));
            if asked.is_ok_and(|metadata| !metadata.brokers().is_empty()) {
                return;
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none() && std::time::Instant::now() < deadline, "the broker: {}", self.last_lines());
        }
    }

    /// Starts it again, and does not wait.
    pub fn launch(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let child = java(self.dir.path())
            .arg("kafka.Kafka")
            .arg(self.dir.path().join("broker.properties"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap());
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn last_lines(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn secure_address(&self) -> String {
        format!("127.0.0.1:{}", self.secure_port)
    }

    /// The files of a partition.
    pub fn partition_dir(&self, topic: &str, partition: u32) -> PathBuf {
        self.dir.path().join("data").join(format!("{topic}-{partition}"))
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// As in a crash.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// In good order.
    pub fn shut_down(&mut self) {
        self.signal("-TERM");
        self.child.take().unwrap().wait().unwrap();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn java(dir: &Path) -> Command {
    let mut java = Command::new(stack::java());
    java.current_dir(dir).args(["-Xms256m", "-Xmx256m", "-cp"]).arg(stack::kafka_classpath());
    java
}
