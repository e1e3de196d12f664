//! TLS: who stands at the other end of a connection, and bytes that nobody else reads.
//!
//! A cluster has a small authority of its own ([`Authority`]); what a certificate of it says of its holder is one address
//! of the form `acms://<cluster>/storage-point/3` ([`Identity`]). Everything here works over whatever carries bytes and
//! does not block; sockets are of the runtime and the client.
//!
//! Invariant: no session is resumed, so that each connection has proved anew who it is, by certificates valid then.

mod authority;
mod client;
mod fault;
mod files;
mod identity;
mod listener;
mod pair;
mod server;
mod session;
mod verify;

pub use authority::{Authority, AuthorityError, Issued};
pub use client::{ClientTls, ClientTlsError};
pub use fault::{Cause, Fault};
pub use files::{FileError, PairFiles, TlsFiles, write_secret};
pub use identity::{BadIdentity, Grant, Identity};
pub use listener::ListenerTls;
pub use server::{LoadError, ServerTls};
pub use session::Session;

use rustls::{crypto::CryptoProvider, pki_types::UnixTime, time_provider::TimeProvider};
use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

/// The cryptography of all connections.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    PROVIDER.clone()
}

/// What `clock` will say in this time.
fn later(clock: &dyn TimeProvider, time: Duration) -> Option<UnixTime> {
    Some(UnixTime::since_unix_epoch(Duration::from_secs(clock.current_time()?.as_secs()) + time))
}
