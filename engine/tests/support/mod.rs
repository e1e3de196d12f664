//! What the tests of the protocol share.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test binary uses its own part of it")]

pub mod cluster;
pub mod datadriven;
pub mod power;
