//! The runtime: event loops over sockets and files that drive the protocol. One loop owns HTTP, the links to peers and
//! the protocol; a commit thread and a content thread keep the disk away from it.

mod addresses;
pub mod cache;
pub mod check;
pub mod clock;
pub mod config;
pub mod delivery;
mod event_readers;
pub mod events;
pub mod exposition;
pub mod http;
pub mod net;
pub mod notify;
pub mod process;
pub mod receive;
pub mod refusals;
pub mod renewal;
pub mod signal;
pub mod spelling;
pub mod storage_point;
pub mod stream;
pub mod tokens;
pub mod units;
mod upstream;
mod wait;
