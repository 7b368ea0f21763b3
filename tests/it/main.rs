//! The integration tests: one binary, a module per subject.

mod contract;
mod query;
mod support_query;
