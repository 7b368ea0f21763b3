//! Queries over HTTP, against real parts in memory.

mod events;
mod lists;
mod params;
mod read_through;
mod totals;
