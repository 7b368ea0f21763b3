//! HTTP in, a record for each item out; 202 when every one of the request's is acknowledged.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use clap::Args;
use rdkafka::producer::{FutureProducer, FutureRecord};

use super::{item::Item, places::Log};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    log: Log,
    /// Send a request's next record when the one before it is acknowledged; otherwise all at once
    #[arg(long)]
    in_turn: bool,
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

struct Ingest {
    producer: FutureProducer,
    topic: String,
    in_turn: bool,
}

impl Ingest {
    async fn accept(&self, items: &[Item]) -> Result<(), String> {
        let mut waiting = Vec::new();
        for item in items {
            let payload = serde_json::to_vec(item).map_err(|error| error.to_string())?;
            let key = format!("{}/{}", item.counter, item.series());
            let record = FutureRecord::to(&self.topic).key(&key).payload(&payload);
            let delivery = self.producer.send_result(record).map_err(|(error, _)| error.to_string())?;
            if self.in_turn {
                acknowledged(delivery.await)?;
            } else {
                waiting.push(delivery);
            }
        }
        for delivery in waiting {
            acknowledged(delivery.await)?;
        }
        Ok(())
    }
}

fn acknowledged<T, M, E: ToString, C: ToString>(delivery: Result<Result<T, (E, M)>, C>) -> Result<(), String> {
    match delivery {
        Ok(Ok(_)) => Ok(()),
        Ok(Err((error, _))) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

async fn increments(State(ingest): State<Arc<Ingest>>, body: Bytes) -> Response {
    let items = match Item::read(&body) {
        Ok(items) => items,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    match ingest.accept(&items).await {
        Ok(()) => {
            let body = format!(r#"{{"accepted":{}}}"#, items.len());
            (StatusCode::ACCEPTED, [(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error).into_response(),
    }
}

pub async fn run(options: &Options) -> anyhow::Result<()> {
    let producer = options.log.config().set("acks", "all").set("enable.idempotence", "true").create()?;
    let ingest = Ingest { producer, topic: options.log.topic.clone(), in_turn: options.in_turn };
    let router = Router::new()
        .route("/v1/increments", post(increments))
        .layer(DefaultBodyLimit::max(5 << 20))
        .with_state(Arc::new(ingest));
    let listener = tokio::net::TcpListener::bind(options.listen).await?;
    // As the program says it, so that one script reads both.
    eprintln!(r#"{{"message":"listening","what":"http","address":"{}"}}"#, listener.local_addr()?);
    Ok(axum::serve(listener, router).await?)
}
