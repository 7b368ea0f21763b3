//! One suite per port; every backend of the port answers to it.

mod dead_letters;
mod hot;
mod log;
mod store;
