//! One suite per port; every backend of the port answers to it.

mod log;
