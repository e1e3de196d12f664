//! The engine of ACMS, the asynchronous configuration management system of Sherman, Lisiecki, Berkheimer and Wein
//! (NSDI 2005): storage points that replicate configuration files and agree on them by Vector Exchange, and receivers
//! that pull what they subscribe to.
//!
//! Arrows point one way: `cli` -> `runtime` -> {`protocol`, `wire`, `store`}. [`protocol`] does no input or output.

pub mod cli;
pub mod client;
pub mod mutant;
pub mod protocol;
pub mod runtime;
pub mod store;
pub mod wire;
