//! The baseline: counters through Kafka into Cassandra as most people write them, for `bench/run --stack` to stand beside.
//!
//! One record of Kafka for each item, by rdkafka's `FutureProducer` with acks from all and without losing or doubling by
//! retries, each acknowledgement awaited; one `UPDATE … SET total = total + ?` on a counter table for each record, 64 of
//! them at once, the offset stored after it. The libraries' defaults else, and what they recommend: idempotent producer,
//! prepared statements, routing by token, a partition for each series. It keeps fewer promises than the program: no
//! deduplication (a retry counts twice, at both ends), no buckets of time, nothing that checks the log.
//!
//! By hand: `cargo bench --bench plain -- --help`.

mod plain {
    pub mod ingest;
    pub mod item;
    pub mod places;
    pub mod worker;
}

use clap::{Parser, Subcommand};
use plain::{ingest, places, worker};

/// The plain pattern
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    what: Option<What>,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum What {
    /// Make the topic, the keyspace and its table
    Create(places::Create),
    /// Delete a topic and a keyspace, whoever's
    Delete(places::Delete),
    /// Take increments by HTTP into Kafka
    Ingest(ingest::Options),
    /// Count what is in Kafka into Cassandra
    Worker(worker::Options),
    /// The sum over all counters
    Total(places::Store),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Options::parse().what {
        Some(What::Create(options)) => places::create(&options).await,
        Some(What::Delete(options)) => places::delete(&options).await,
        Some(What::Ingest(options)) => ingest::run(&options).await,
        Some(What::Worker(options)) => worker::run(&options).await,
        Some(What::Total(options)) => places::total(&options).await,
        None => {
            println!("plain: needs a command, see --help and bench/README.md");
            Ok(())
        }
    }
}
