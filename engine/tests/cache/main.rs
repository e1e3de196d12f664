//! Caches between storage points and receivers, all real processes: `acms cache` in one and several tiers, nginx and Varnish
//! with the configurations that the project ships, and caches that lie.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "real processes and sockets are the point")]

mod alone;
mod chains;
mod hostile;
mod http;
mod origin;
mod other_servers;
mod world;
