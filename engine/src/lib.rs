//! The engine of ACMS, the asynchronous configuration management system of Sherman, Lisiecki, Berkheimer and Wein
//! (NSDI 2005): storage points that replicate configuration files and agree on them by Vector Exchange, and receivers
//! that pull what they subscribe to.
//!
//! Arrows point one way: `cli` -> `runtime` -> {`protocol`, `wire`, `store`, `tls`}. [`protocol`] does no input or output.

#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "it reads and writes a directory of files")]
pub mod backup;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "it is how people start the runtime")]
pub mod cli;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "it waits for answers, with time limits")]
pub mod client;
#[allow(clippy::disallowed_methods, reason = "a variable names the mutant")]
pub mod mutant;
pub mod protocol;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "it has the clock, the sockets and the threads")]
pub mod runtime;
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "it has the disk, and a clock to pace it")]
pub mod store;
#[allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it has certificates as files, and dates in them"
)]
pub mod tls;
pub mod wire;
