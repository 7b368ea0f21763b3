//! The model: the production lanes, whole, over worlds that misbehave by a seed, on a virtual clock. One seed is one world,
//! and replays exactly. `tests/model --help` says how to run more seeds, and how to see what one does.

#[cfg(feature = "bugs")]
mod bugs;
mod damage;
mod explore;
mod gate;
mod given_up;
mod group;
mod halts;
mod hot;
mod ingest;
mod ledgers;
mod letters;
mod log;
mod named;
mod operator;
mod oracle;
mod query;
mod remedied;
mod replicas;
mod schedule;
mod sim;
mod store;
mod watcher;
mod worker;
mod world;
