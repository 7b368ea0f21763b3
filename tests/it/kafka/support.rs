//! Topics of a test's own on the real broker, and what the tests ask it beside the log.

use std::{sync::Mutex, time::Duration};

use rdkafka::{
    ClientConfig, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
};
use tallymark::{
    log::{
        Error, Options,
        kafka::{Kafka, Needs, topic},
    },
    url::{LogUrl, Servers},
};

use crate::stack;

pub const TIMEOUT: Duration = Duration::from_secs(20);

/// A topic with a name of its own, which is removed at the end.
pub struct Topic {
    pub brokers: String,
    pub name: String,
    /// Whether there may be something to remove.
    made: Mutex<bool>,
}

impl Topic {
    pub fn new() -> Self {
        Self::at(&stack::kafka())
    }

    pub fn at(brokers: &str) -> Self {
        Self::named(brokers, &format!("test.{:016x}", rand::random::<u64>()))
    }

    pub fn named(brokers: &str, name: &str) -> Self {
        Self { brokers: brokers.to_owned(), name: name.to_owned(), made: Mutex::new(false) }
    }

    pub fn servers(&self) -> Servers {
        servers(&format!("kafka://{}/{}", self.brokers, self.name))
    }

    /// Somebody else makes it, and this removes it.
    pub fn will_be_made(&self) {
        *self.made.lock().unwrap() = true;
    }

    /// Its broker goes, and it with it.
    pub fn forget(&self) {
        *self.made.lock().unwrap() = false;
    }

    /// Makes the topic as `tallymark topic create` does.
    pub async fn create(&self, options: &Options) -> Result<topic::Created, Error> {
        *self.made.lock().unwrap() = true;
        topic::create(&self.servers(), &with(options), &needs()).await
    }

    /// Makes the topic with settings of the test's own.
    pub async fn create_with(&self, partitions: i32, settings: &[(&str, &str)]) {
        *self.made.lock().unwrap() = true;
        let mut new = NewTopic::new(&self.name, partitions, TopicReplication::Fixed(1));
        for (setting, value) in settings {
            new = new.set(setting, value);
        }
        let made = self.admin().create_topics([&new], &waiting()).await.unwrap();
        made[0].as_ref().unwrap();
        // It is the controller that has answered: a broker knows of it a moment later.
        let known = async || topic::check(&self.servers(), &Options::default(), &needs()).await.ok();
        until("the broker knows the topic", known).await;
        // Its dead-letter topic is made as it has to be.
        topic::create(&self.servers(), &with(&Options::default()), &needs()).await.unwrap();
    }

    /// Its dead-letter topic.
    pub fn dead(&self) -> String {
        format!("{}.dead", self.name)
    }

    pub async fn delete_dead(&self) {
        let deleted = self.admin().delete_topics(&[&self.dead()], &waiting()).await.unwrap();
        deleted[0].as_ref().unwrap();
    }

    pub async fn delete(&self) {
        let deleted = self.admin().delete_topics(&[&self.name], &waiting()).await.unwrap();
        deleted[0].as_ref().unwrap();
    }

    pub async fn add_partitions(&self, count: usize) {
        let more = NewPartitions::new(&self.name, count);
        let made = self.admin().create_partitions([&more], &waiting()).await.unwrap();
        made[0].as_ref().unwrap();
    }

    /// Removes the records of a partition below an offset.
    pub async fn remove_before(&self, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.name, partition, rdkafka::Offset::Offset(offset)).unwrap();
        let removed = self.admin().delete_records(&list, &waiting()).await.unwrap();
        removed.elements()[0].error().unwrap();
    }

    pub async fn open(&self, options: &Options) -> Result<Kafka, Error> {
        self.open_as(options, &needs()).await
    }

    /// Opens the topic for somebody with these needs.
    pub async fn open_as(&self, options: &Options, needs: &Needs) -> Result<Kafka, Error> {
        Kafka::open(&self.servers(), &with(options), needs).await
    }

    /// Makes the topic if it is not there, and opens it.
    pub async fn made(&self, options: &Options) -> Kafka {
        self.create(options).await.unwrap();
        self.open(options).await.unwrap()
    }

    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().unwrap()
    }

    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    /// What the group has committed, as any other tool reads it.
    pub fn committed(&self, partition: i32) -> Option<i64> {
        let consumer: BaseConsumer = self.config().set("group.id", &self.name).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.name, partition);
        let list = consumer.committed_offsets(list, TIMEOUT).unwrap();
        match list.elements()[0].offset() {
            rdkafka::Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        if !*self.made.lock().unwrap() {
            return;
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                // A broker that the test has ended keeps nothing.
                let _ = runtime.block_on(self.admin().delete_topics(&[&self.name, &self.dead()], &waiting()));
            });
        });
    }
}

fn waiting() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT))
}

pub fn servers(url: &str) -> Servers {
    match url.parse() {
        Ok(LogUrl::Kafka { servers }) => servers,
        other => panic!("{url}: {other:?}"),
    }
}

/// One broker has one copy.
fn with(options: &Options) -> Options {
    Options { replication: 1, ..options.clone() }
}

pub fn needs() -> Needs {
    Needs {
        session_timeout: Duration::from_secs(6),
        dedup_window: Duration::from_secs(600),
        pack_bytes: 256 << 10,
        read_ahead: 1 << 20,
        appends: true,
    }
}

/// Waits until it holds.
pub async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "not within {TIMEOUT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
