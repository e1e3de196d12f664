//! What the benchmarks share.

pub mod counting;
pub mod index;
pub mod log;
pub mod trace;
