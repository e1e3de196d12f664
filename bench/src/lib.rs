//! What the benchmarks share.

pub mod cluster;
pub mod counting;
pub mod index;
pub mod log;
pub mod trace;
