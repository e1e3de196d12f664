//! HTTP as a client of storage points and caches speaks it.

pub mod response;
