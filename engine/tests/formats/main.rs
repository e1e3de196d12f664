//! The formats of engine/docs/FORMATS.md.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "the document is a file")]

mod encoding;
mod generated;
mod vectors;
mod wire;
