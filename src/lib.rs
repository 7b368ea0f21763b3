//! Tallymark: a write-behind pipeline for counters and events.
//!
//! The data path, and the rooms in its order:
//!
//! 1. A client's items come in over HTTP: [`server`] accepts the connection, [`ingest`] reads, checks and routes them
//!    ([`item`]: names, limits, placement) and gathers them into packs ([`pack`]), one open pack per partition.
//! 2. The [`log`] makes a pack durable; only then is the client answered 2xx, with a [`receipt`] of where its items are.
//!    The [`hot`] view gets the pack's sums at once.
//! 3. A [`worker`] runs one lane per partition: it drops what it has seen, folds the rest into absolute totals, flushes
//!    them to the [`store`] and moves the checkpoint behind them. [`retry`] says what an error means and how long to wait.
//!    What no lane can apply is kept, and replayed when it can be read: [`dead_letter`].
//! 4. [`query`] answers from the hot view and reads through to the store; [`progress`] waits until a receipt is stored.
//! 5. [`lag`] measures what is in the log and not in the store; [`admin`] shows it, with health and [`metrics`].
//!
//! [`app`] puts the backends behind the ports and runs it all; [`cli`] and [`config`] say what to run, [`url`] where;
//! [`client`] is the other side of the wire, [`telemetry`] and [`shutdown`] are the process's beginning and end,
//! [`priority`] says which of its threads give way.
//!
//! The laws that all of this keeps are in `docs/architecture.md`.

#![warn(missing_docs)]
#![deny(unsafe_code)]

pub mod admin;
pub mod app;
pub mod audit;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod data_dir;
pub mod dead_letter;
pub mod exit;
pub mod hot;
pub mod ingest;
pub mod item;
pub mod lag;
pub mod log;
pub mod metrics;
pub mod pack;
pub mod priority;
pub mod problem;
pub mod progress;
pub mod query;
pub mod receipt;
pub mod retry;
pub mod server;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod units;
pub mod url;
pub mod worker;
