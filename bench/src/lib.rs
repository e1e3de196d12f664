//! What the benchmarks share.

pub mod cluster;
pub mod counting;
pub mod index;
pub mod log;
pub mod publisher;
pub mod trace;

/// Why a measurement could not be made.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
