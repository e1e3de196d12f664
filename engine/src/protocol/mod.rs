//! The protocol: state machines that do no input or output, read no clock, and draw no random number of their own.
//!
//! The same code runs under the runtime, the simulator and the data-driven tests.

pub mod api;
mod attempts;
pub mod changes;
pub mod clock;
pub mod config;
mod contents;
pub mod cut;
pub mod durable;
pub mod encoding;
mod exchange;
mod freshness;
pub mod hash;
mod history;
pub mod index;
pub mod inspect;
pub mod io;
mod join;
mod keys;
pub mod manifest;
mod merge;
pub mod message;
pub mod node;
mod order;
pub mod outcome;
pub mod path;
pub mod place;
pub mod quorum;
pub mod random;
pub mod receiver;
mod remembered;
mod retention;
mod serve;
mod storage_point;
pub mod time;
mod transfer;
pub mod uid;

pub use config::{Config, Limits, Mode, Order};
pub use durable::Durable;
pub use hash::Hash;
pub use manifest::{Entry, Flags, Manifest};
pub use message::Message;
pub use node::{IndexEntry, Node};
pub use outcome::{Outcome, Reason};
pub use path::{Path, Prefix};
pub use place::NodePlace;
pub use quorum::QuorumSystem;
pub use receiver::Receiver;
pub use storage_point::StoragePoint;
pub use time::{Duration, Instant, Micros, Now};
pub use uid::{SpId, SpSet, StoreId, Uid};
