//! Bad inputs, slow clients and everything that HTTP allows, at storage points that run as processes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "real processes and sockets are the point")]

mod client;
mod interface;
mod processes;
mod semantics;
mod table;
mod tables;
mod times;
mod uploads;
