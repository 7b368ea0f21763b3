//! One suite per port; every backend of the port answers to it.

mod hot;
mod log;
mod store;
