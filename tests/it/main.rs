//! The integration tests: one binary, a module per subject.

mod admin;
mod contract;
mod lag;
mod support_lag;
