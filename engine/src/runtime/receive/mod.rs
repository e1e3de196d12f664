//! `acms receive` as a process: one event loop for the sources and the protocol of one receiver or of thousands, and a few
//! threads that put entries in place, so that the disk keeps no delivery waiting.

mod alarm;
mod appliers;
mod apply;
mod child;
mod connections;
mod disk;
mod files;
mod fleet;
mod hook;
mod member;
mod staging;
mod state;
mod status;
mod tree;
mod watch;

pub use apply::{Applier, OpenError};
pub use disk::{Disk, DiskError, Line};
pub use state::{StateError, format_line, line as state_line, reached_line};

use crate::{
    client::{ClientError, Url},
    protocol::{Prefix, receiver::ReceiverConfigError},
    runtime::{events::EventStream, notify::Notify, signal::StopSignals},
    tls::ClientTls,
};
use fleet::Fleet;
use std::{io, path::PathBuf, time::Duration};

/// What to keep, and where.
#[derive(Debug)]
pub struct Options {
    /// Storage points or caches.
    pub sources: Vec<Url>,
    /// How https:// sources are spoken to.
    pub tls: Option<ClientTls>,
    /// What is subscribed to.
    pub prefixes: Vec<Prefix>,
    /// The directory to keep; none: contents are checked and thrown away.
    pub into: Option<PathBuf>,
    /// So many receivers, each with a directory of its own: the first keeps `into/1`.
    pub count: Option<u32>,
    /// The receiver's name; none: made from host and directory.
    pub id: Option<String>,
    /// Read the snapshot this often instead of following changes.
    pub poll: Option<Duration>,
    /// End once everything of the first snapshot is applied and the commands for it have ended. One that fails is not tried
    /// again: it is told of everything at the next start.
    pub once: bool,
    /// Compare all files with their hashes at the start.
    pub verify: bool,
    /// A command that is run when paths have changed; for a single receiver.
    pub on_change: Option<String>,
    /// Tell when as-of is older than this.
    pub stale_after: Option<Duration>,
    /// A command that is run when that begins and when it ends; for a single receiver.
    pub on_stale: Option<String>,
    /// How long a command may take.
    pub command_limit: Duration,
}

/// Why a receiver cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The directory cannot be kept.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Sources cannot be spoken to.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The options make no receiver.
    #[error(transparent)]
    Config(#[from] ReceiverConfigError),
    /// The directory holds what another cluster published.
    #[error("{directory} is of the cluster {held:?}, and all sources are of {found:?}; choose another directory")]
    OtherCluster {
        /// Which directory.
        directory: String,
        /// The cluster of what it holds.
        held: String,
        /// The cluster of the sources.
        found: String,
    },
    /// More receivers than the process may have connections.
    #[error(
        "{count} receivers need at least {needed} open files, and the limit here is {limit}; raise it (ulimit -Hn), \
         subscribe to fewer prefixes, or spread the receivers over several processes"
    )]
    OpenFiles {
        /// How many receivers.
        count: usize,
        /// How many files they need.
        needed: u64,
        /// How many there may be.
        limit: u64,
    },
    /// The system refused something that an event loop needs.
    #[error("the event loop cannot go on: {0}")]
    System(#[from] io::Error),
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// Everything of the first snapshot is applied.
    Current,
    /// The same, but for some paths that cannot be put in place.
    Blocked,
    /// Everything is applied, but the command for changes has failed.
    Untold,
}

/// Runs until `stop` says so, the reader of the events is gone, or, with `once`, everything is applied.
pub fn run(options: Options, events: EventStream, stop: &StopSignals) -> Result<Ended, ReceiveError> {
    let mut fleet = Fleet::open(options, events, stop)?;
    let notify = Notify::from_environment();
    notify.ready();
    let ended = fleet.run(stop);
    notify.stopping();
    fleet.finish();
    ended
}
