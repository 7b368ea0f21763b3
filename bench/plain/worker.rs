//! Records in, an UPDATE for each out; its offset is stored after it, and committed by the library now and then.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use anyhow::Context as _;
use axum::{Router, routing::get};
use clap::Args;
use futures_util::TryStreamExt as _;
use rdkafka::{
    Message as _,
    consumer::{Consumer as _, StreamConsumer},
};
use scylla::{client::session::Session, statement::prepared::PreparedStatement, value::Counter};

use super::{
    item::Item,
    places::{Log, Store},
};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    log: Log,
    #[command(flatten)]
    store: Store,
    /// Updates at once
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// Where `/metrics` tells how many were counted
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

async fn count(session: &Session, update: &PreparedStatement, payload: Option<&[u8]>) -> anyhow::Result<()> {
    let item: Item = serde_json::from_slice(payload.unwrap_or_default()).context("a record that is no item")?;
    session.execute_unpaged(update, (Counter(item.amount), &item.counter, item.series())).await?;
    Ok(())
}

pub async fn run(options: &Options) -> anyhow::Result<()> {
    let counted = Arc::new(AtomicU64::new(0));
    let metrics = {
        let counted = counted.clone();
        move || async move { format!("plain_items_total {}\n", counted.load(Relaxed)) }
    };
    let listener = tokio::net::TcpListener::bind(options.listen).await?;
    // As the program says it, so that one script reads both.
    eprintln!(r#"{{"message":"listening","what":"admin","address":"{}"}}"#, listener.local_addr()?);
    let router = Router::new().route("/metrics", get(metrics));
    let served = tokio::spawn(async move { axum::serve(listener, router).await });

    let session = options.store.open().await?;
    let keyspace = &options.store.keyspace;
    let update = format!("UPDATE {keyspace}.counters SET total = total + ? WHERE counter = ? AND series = ?");
    let update = session.prepare(update).await?;
    let consumer: StreamConsumer = options
        .log
        .config()
        .set("group.id", &options.log.topic)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.offset.store", "false")
        .create()?;
    consumer.subscribe(&[&options.log.topic])?;
    let (session, update, counted) = (&session, &update, &counted);
    let updates = consumer.stream().map_err(anyhow::Error::from).map_ok(|message| async move {
        count(session, update, message.payload()).await?;
        counted.fetch_add(1, Relaxed);
        anyhow::Ok(message)
    });
    // In order, so that an offset is stored when everything before it is counted.
    let mut done = updates.try_buffered(options.in_flight);
    while let Some(message) = done.try_next().await? {
        consumer.store_offset_from_message(&message)?;
    }
    served.await??;
    Ok(())
}
