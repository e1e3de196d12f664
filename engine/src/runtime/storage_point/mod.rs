//! A storage point as a process: its store, its listeners, its threads and its loop.

mod access;
mod broken;
mod commit;
pub mod committer;
mod completion;
mod content;
mod core;
mod environment;
mod files;
mod held;
mod maintenance;
mod metrics;
pub mod object;
pub mod parts;
mod peer;
mod publish;
mod read;
mod requests;
mod server;
mod status;
pub mod upkeep;

use crate::{
    protocol::{SpId, StoragePoint},
    runtime::{
        clock, config::StoragePointConfig, events::EventStream, http::connection::Role, net, process,
        signal::StopSignals,
    },
    store::{DirStorage, Opened, Store, StoreError},
    wire::{Hello, Versions},
};
use access::Access;
pub use access::AccessError;
use commit::CommitThread;
use completion::Completions;
use content::ContentThread;
use maintenance::MaintenanceThread;
use mio::{Poll, Waker, net::TcpListener};
use peer::Peers;
use server::{End, Server};
use std::{io, net::SocketAddr, path::PathBuf};

/// Descriptors kept for the store, the links, large contents that come in or go out, and the rest.
const DESCRIPTORS_KEPT: u64 = 1024;
const CONNECTIONS_MAX: u64 = 100_000;

/// Why a storage point does not run, or has ended early. Each message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The store cannot be used.
    #[error("the store {path} cannot be opened: {source}")]
    Store {
        /// Its directory.
        path: PathBuf,
        /// Why.
        source: StoreError,
    },
    /// The directory is another one's store.
    #[error(
        "the store {path} belongs to storage point {found}, and the configuration is that of {wanted}: set \
         storage_point.store to the right directory"
    )]
    OtherStore {
        /// Its directory.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who wants it.
        wanted: String,
    },
    /// An address cannot be listened at.
    #[error(
        "cannot listen at {addr} ({key}): {source}; stop the process that has the address, or configure another one"
    )]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The key that names it.
        key: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Certificates or tokens cannot be used.
    #[error("who may connect and publish cannot be told: {0}")]
    Access(#[from] AccessError),
    /// The configuration does not fit together.
    #[error("the configuration cannot be used: {0}")]
    Config(#[from] crate::protocol::config::ConfigError),
    /// The store failed while the storage point ran. What was acknowledged before is safe.
    #[error("{0}")]
    StoreFailed(String),
    /// The system refused something else.
    #[error("the system refused: {0}")]
    System(#[from] io::Error),
}

/// Runs a storage point until SIGTERM or SIGINT comes, or its events are not read any more.
pub fn run(config: StoragePointConfig, events: EventStream) -> Result<(), RunError> {
    let signals = StopSignals::with_reload()?;
    let access = Access::load(&config, clock::monotonic())?;
    let opened = open_store(&config)?;
    let peer_listener = listen(config.peer, "listen.peer")?;
    let listeners = http_listeners(&config)?;
    let descriptors = process::raise_open_files();
    let connections_max = (descriptors - DESCRIPTORS_KEPT.min(descriptors / 2)).min(CONNECTIONS_MAX) as usize;
    let seed = process::random_seed()?;

    let now = clock::now();
    let mut sp = StoragePoint::new(config.protocol(opened.identity.store), seed, opened.records, now)?;
    opened.lost.into_iter().for_each(|(hash, size)| sp.handle_damaged(now, hash, size));
    let poll = Poll::new()?;
    let (completions, received) = Completions::new(Waker::new(poll.registry(), server::WAKER)?);
    let commit = CommitThread::start(opened.log, completions.clone())?;
    let maintenance = MaintenanceThread::start(opened.maintenance, commit.copier(), completions.clone())?;
    let content = ContentThread::start(opened.contents.clone(), completions)?;
    let members: Vec<_> = config.members.iter().map(|member| (SpId(member.id), member.peer)).collect();
    let hello = Hello { cluster: config.cluster.clone(), header: sp.header(), versions: spoken_versions() };
    let registry = poll.registry().try_clone()?;
    let peers = Peers::new(config.me, hello, &members, access.peer_tls(), seed, registry, now.instant)
        .map_err(io::Error::other)?;
    let io = environment::Io::new(peers, commit, maintenance, content, opened.contents, events, sp.header());
    let core = core::Core::new(sp, io, config, access, now);
    let server = Server::new(poll, core, received, signals, peer_listener, listeners, connections_max)?;
    match server.run()? {
        End::Stopped => Ok(()),
        End::StoreFailed(problem) => Err(RunError::StoreFailed(problem)),
    }
}

/// What hellos say. Tests of upgrades have processes of several versions by the variable `ACMS_PROTOCOL_VERSION_MAX`:
/// versions that this program does not know are taken to be like its newest.
fn spoken_versions() -> Versions {
    let newest = std::env::var("ACMS_PROTOCOL_VERSION_MAX").ok().and_then(|text| text.parse().ok());
    newest.filter(|newest| *newest > 0).map_or_else(Versions::default, Versions::up_to)
}

/// Whether the certificates and tokens of a configuration can be used.
pub fn check_access(config: &StoragePointConfig) -> Result<(), AccessError> {
    Access::load(config, clock::monotonic()).map(drop)
}

fn open_store(config: &StoragePointConfig) -> Result<Opened<DirStorage>, RunError> {
    let failed = |source| RunError::Store { path: config.store.clone(), source };
    if !config.store.is_dir() {
        return Err(failed(StoreError::Absent));
    }
    let storage = DirStorage::new(&config.store)?;
    let opened = Store::open(storage).map_err(failed)?;
    if opened.was_cut {
        tracing::warn!("the last commit of the store was not whole, as after a power failure in it; it was cut off");
    }
    let name = |cluster: &str, sp: SpId| format!("{sp} of cluster {cluster}");
    let (found, wanted) = (name(&opened.identity.cluster, opened.identity.sp), name(&config.cluster, config.me));
    if found != wanted {
        return Err(RunError::OtherStore { path: config.store.clone(), found, wanted });
    }
    Ok(opened)
}

fn listen(addr: SocketAddr, key: &'static str) -> Result<TcpListener, RunError> {
    net::listen(addr).map_err(|source| RunError::Listen { addr, key, source })
}

fn http_listeners(config: &StoragePointConfig) -> Result<Vec<(TcpListener, Role)>, RunError> {
    let mut listeners = vec![(listen(config.publish, "listen.publish")?, Role::Publish)];
    if config.deliver != config.publish {
        listeners.push((listen(config.deliver, "listen.deliver")?, Role::Deliver));
    }
    Ok(listeners)
}
