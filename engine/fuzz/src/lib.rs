//! What each fuzz target does with its input. The engine's tests do the same with the saved corpora
//! (`engine/tests/corpora.rs`), so every input that ever mattered is tried with each change.

pub mod config;
pub mod frames;
pub mod http;
pub mod log;
pub mod nodes;
pub mod response;
pub mod split;
