//! The real binary, end to end: started, used, killed and stopped as its users would.

mod access_log;
mod audit;
mod counters;
pub mod dead_letters;
mod faults;
mod http;
mod lanes;
mod leaving;
mod load;
mod offline;
pub mod place;
pub mod process;
mod servers;
mod streams;
mod trouble;
