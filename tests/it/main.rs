//! The integration tests: one binary, a module per subject.

mod cli;
mod config;
mod contract;
mod query;
mod support_query;
