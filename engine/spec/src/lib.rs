//! The agreement protocol of ACMS as an executable specification.
//!
//! [`state`] is what a cluster may look like, [`protocol`] has one function for each thing that can happen,
//! [`promises`] has one check for each promise, [`search`] visits every reachable state, and [`cases`] lists the
//! configurations and the deliberate mistakes. [`refine`] checks runs against it, and [`engine`] makes those of the engine's
//! storage points.

pub mod cases;
pub mod engine;
pub mod promises;
pub mod protocol;
pub mod refine;
pub mod search;
pub mod state;
