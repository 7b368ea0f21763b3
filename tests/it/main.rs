//! The integration tests: one binary, a module per subject.

mod admin;
mod chaos;
mod cli;
mod client;
mod compose;
mod config;
mod contract;
mod e2e;
mod embedded_log;
mod embedded_store;
mod house;
mod ingest;
mod kafka;
mod lag;
mod query;
mod redis;
mod scylla;
mod stack;
mod support;
mod support_lag;
mod support_letters;
mod support_query;
mod support_remedies;
mod support_scylla;
mod support_wire;
mod worker;
