//! The CQL store beyond the port's laws: its schema, what a user sees with plain CQL, and servers in trouble.

mod node;
mod restarts;
mod rows;
mod schema;
mod trouble;
