//! What the benchmarks share.

pub mod counting;
pub mod log;
pub mod trace;
