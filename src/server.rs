//! The HTTP server: accepts connections up to a bound, serves a router on each, and ends them gracefully.
//!
//! Past `http.max_connections` a connection is answered 503 at once; a client that does not send its request's head within
//! `http.header_timeout` is cut off. After the shutdown signal no connection is accepted, the ones that are open finish the
//! request that they are in, and idle ones are closed. What routes there are is `ingest`'s, `query`'s and `admin`'s matter.

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use crate::units::Span;

/// Settings under `http.`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Most open connections; further ones are answered 503.
    pub max_connections: usize,
    /// How long a client may take to send a request's head.
    pub header_timeout: Span,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_connections: 10_000, header_timeout: Span::from_secs(30) }
    }
}

/// Most refusals being sent at a time.
const REFUSALS: usize = 256;

const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
    content-type: application/problem+json\r\ncontent-length: 160\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\"detail\":\"too many connections\",\
    \"code\":\"too_many_connections\",\"message\":\"too many connections\"}";

/// Binds `host:port`; the error says which setting named it, and what to do.
pub async fn bind(setting: &str, address: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("{setting}: {address} is in use by another process; stop it, or choose another port (0: any)")
        }
        _ => format!("{setting}: cannot listen on {address}: {error}"),
    })
}

/// Serves `router` until `shutdown`, then lets every connection finish the request that it is in.
pub async fn serve(listener: TcpListener, router: Router, options: &Options, shutdown: CancellationToken) {
    let slots = Arc::new(Semaphore::new(options.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    let graceful = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    // Without `pipeline_flush`: it holds answers back while anything is left to read, be it half a request or garbage whose
    // 400 would never leave.
    http.timer(TokioTimer::new()).header_read_timeout(options.header_timeout.0);
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors or a client that is gone already: neither is a reason to end, or to spin.
                tracing::warn!(error = %error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            // A flood is not even told: its connections are closed.
            if let Ok(refusal) = refusals.clone().try_acquire_owned() {
                tokio::spawn(async move {
                    refuse(stream).await;
                    drop(refusal);
                });
            }
            continue;
        };
        // Answers are small and whole: waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "connection ended");
            }
            drop(slot);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

async fn refuse(mut stream: TcpStream) {
    let answer = async {
        stream.write_all(FULL).await?;
        stream.shutdown().await
    };
    // A client that does not take its refusal is let go.
    let _ = tokio::time::timeout(Duration::from_secs(1), answer).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_of_a_connection_is_a_whole_answer() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
