//! The real binary, end to end: started, used, killed and stopped as its users would.

mod access_log;
mod counters;
mod faults;
mod http;
mod load;
mod offline;
mod place;
pub mod process;
mod servers;
mod streams;
mod trouble;
