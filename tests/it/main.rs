//! The integration tests: one binary, a module per subject.

mod client;
mod contract;
