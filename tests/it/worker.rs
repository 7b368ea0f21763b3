//! The worker whole: the real service and its lanes, over the embedded log or one in memory, a store that is told how to
//! fail, and the in-process hot view. The pure rooms have their own tests; here is what happens between them.

mod audit;
mod bounds;
mod checkpoint;
mod dead_letters;
mod fixture;
mod flush;
mod halts;
mod hot;
mod log;
mod packs;
mod restarts;
mod resume;
mod store;
mod trouble;
