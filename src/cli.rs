//! The commands' flags.

pub mod get;
pub mod lag;
pub mod send;
