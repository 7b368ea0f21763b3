//! The integration tests: one binary, a module per subject.

mod admin;
mod cli;
mod config;
mod contract;
mod lag;
mod query;
mod support_lag;
mod support_query;
