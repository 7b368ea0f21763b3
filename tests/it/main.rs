//! The integration tests: one binary, a module per subject.

mod contract;
mod ingest;
mod support;
