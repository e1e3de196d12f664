//! What the benchmarks share.

pub mod log;
