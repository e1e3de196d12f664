//! What the benchmarks share.

pub mod counting;
pub mod log;
