//! Tallymark: a write-behind event-ingestion pipeline.
#![warn(missing_docs)]

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod exit;
pub mod hot;
pub mod ingest;
pub mod item;
pub mod lag;
pub mod log;
pub mod metrics;
pub mod pack;
pub mod problem;
pub mod progress;
pub mod query;
pub mod receipt;
pub mod retry;
pub mod server;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod units;
pub mod worker;
