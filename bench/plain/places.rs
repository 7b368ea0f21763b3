//! Where the items are: a topic and a table.

use anyhow::{Context as _, bail};
use clap::Args;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use scylla::{
    client::{session::Session, session_builder::SessionBuilder},
    value::Counter,
};

#[derive(Args)]
pub struct Log {
    /// Brokers, HOST:PORT[,…]
    #[arg(long)]
    pub brokers: String,
    #[arg(long)]
    pub topic: String,
}

#[derive(Args)]
pub struct Store {
    /// Nodes, HOST:PORT[,…]
    #[arg(long)]
    nodes: String,
    #[arg(long)]
    pub keyspace: String,
}

#[derive(Args)]
pub struct Create {
    #[command(flatten)]
    log: Log,
    #[command(flatten)]
    store: Store,
    #[arg(long, default_value_t = 8)]
    partitions: i32,
}

#[derive(Args)]
pub struct Delete {
    #[command(flatten)]
    log: Log,
    #[command(flatten)]
    store: Store,
}

impl Log {
    /// What every client of it starts from.
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    fn admin(&self) -> anyhow::Result<AdminClient<DefaultClientContext>> {
        Ok(self.config().create()?)
    }
}

impl Store {
    pub async fn open(&self) -> anyhow::Result<Session> {
        let nodes = self.nodes.split(',');
        SessionBuilder::new().known_nodes(nodes).build().await.with_context(|| format!("connecting to {}", self.nodes))
    }
}

pub async fn create(options: &Create) -> anyhow::Result<()> {
    let topic = NewTopic::new(&options.log.topic, options.partitions, TopicReplication::Fixed(1));
    for made in options.log.admin()?.create_topics([&topic], &AdminOptions::new()).await? {
        if let Err((topic, error)) = made {
            bail!("the topic {topic} was not made: {error}");
        }
    }
    let (session, keyspace) = (options.store.open().await?, &options.store.keyspace);
    for statement in [
        format!(
            "CREATE KEYSPACE {keyspace} WITH replication = {{'class': 'NetworkTopologyStrategy', 'replication_factor': 1}}"
        ),
        format!(
            "CREATE TABLE {keyspace}.counters (counter text, series text, total counter, PRIMARY KEY ((counter, series)))"
        ),
    ] {
        session.query_unpaged(statement, ()).await?;
    }
    Ok(())
}

pub async fn delete(options: &Delete) -> anyhow::Result<()> {
    for gone in options.log.admin()?.delete_topics(&[&options.log.topic], &AdminOptions::new()).await? {
        if let Err((topic, error)) = gone {
            bail!("the topic {topic} was not deleted: {error}");
        }
    }
    let statement = format!("DROP KEYSPACE IF EXISTS {}", options.store.keyspace);
    options.store.open().await?.query_unpaged(statement, ()).await?;
    Ok(())
}

pub async fn total(options: &Store) -> anyhow::Result<()> {
    let session = options.open().await?;
    let statement = format!("SELECT total FROM {}.counters", options.keyspace);
    let mut rows = session.query_iter(statement, ()).await?.rows_stream::<(Counter,)>()?;
    let mut sum = 0;
    while let Some(row) = futures_util::StreamExt::next(&mut rows).await {
        sum += row?.0.0;
    }
    println!("{sum}");
    Ok(())
}
