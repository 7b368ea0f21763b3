//! Tallymark: a write-behind event-ingestion pipeline.
#![warn(missing_docs)]

pub mod clock;
pub mod data_dir;
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
pub mod store;
pub mod units;
pub mod worker;
