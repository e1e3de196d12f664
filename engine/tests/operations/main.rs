//! What those see who run a cluster: real processes on loopback, and the commands that look at them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "real processes and sockets are the point")]

mod cluster;
mod config;
mod dev;
mod log;
mod looking;
mod metrics;
mod service;
mod upgrade;
