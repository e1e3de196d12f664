//! The formats of engine/docs/FORMATS.md.

mod encoding;
mod generated;
mod vectors;
mod wire;
