//! Hosts: what all of them have, what reaches their processes, and which kinds there are.

use super::{
    cache::CacheHost,
    connection::{ConnectionId, Segment, Service},
    publisher::Publisher,
    receiver::ReceiverHost,
    storage_point::{Done, StoragePointHost},
};
pub(super) use crate::network::HostId;
use crate::{backend::clock::Clock, trace::Text};
use std::collections::{BTreeSet, VecDeque};

/// Whether a host's process runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Process {
    /// It does not.
    Ended,
    /// It does.
    Runs,
    /// It stands still; what comes waits.
    Paused,
}

/// What every host has.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: Text,
    pub(super) clock: Clock,
    /// Whether its machine is on; the process may be gone all the same.
    pub(super) is_powered: bool,
    pub(super) process: Process,
    /// Another process has taken its place.
    pub(super) is_displaced: bool,
    /// Whether the process takes connections of its peers.
    pub(super) listens_peer: bool,
    /// Whether the process takes HTTP connections.
    pub(super) listens_http: bool,
    /// How often the process was started.
    pub(super) starts: u32,
    /// Ends of connections that the process has.
    pub(super) connections: BTreeSet<ConnectionId>,
    /// What has come while the process stood still.
    pub(super) waiting: VecDeque<Input>,
    /// When the process wants to be called.
    pub(super) timer_ns: Option<u64>,
    /// Faults that count as undone once the process is ready.
    pub(super) undone_when_ready: Vec<usize>,
}

impl Host {
    pub(super) fn new(name: &str, clock: Clock) -> Host {
        Host {
            name: name.into(),
            clock,
            is_powered: true,
            process: Process::Ended,
            is_displaced: false,
            listens_peer: false,
            listens_http: false,
            starts: 0,
            connections: BTreeSet::new(),
            waiting: VecDeque::new(),
            timer_ns: None,
            undone_when_ready: Vec::new(),
        }
    }

    /// Whether the process takes connections for `service`.
    pub(super) fn listens(&self, service: Service) -> bool {
        match service {
            Service::Peer => self.listens_peer,
            Service::Http => self.listens_http,
        }
    }

    /// Which life of the process this is: 0 for the first.
    pub(super) fn incarnation(&self) -> u32 {
        self.starts.saturating_sub(1)
    }
}

/// What reaches a process.
#[derive(Debug)]
pub(super) enum Input {
    /// It begins to run.
    Boot,
    /// The time that it asked for has come.
    Timer,
    /// It is asked to end (SIGTERM).
    Stop,
    /// Someone has connected.
    Accepted { connection: ConnectionId, service: Service },
    /// A connection that it wanted is there.
    Connected { connection: ConnectionId },
    /// A connection that had no room has some again.
    Writable,
    /// Something came over a connection.
    Segment { connection: ConnectionId, segment: Segment },
    /// A connection is gone.
    Closed { connection: ConnectionId },
    /// A storage point's disk has done something.
    Done(Done),
    /// The time that a receiver's batch takes is over.
    Applied,
}

/// What a host is.
#[derive(Debug)]
pub(super) enum Role {
    /// A storage point.
    StoragePoint(Box<StoragePointHost>),
    /// The process of a storage point whose store was replaced elsewhere, on a machine of its own.
    Displaced(Box<StoragePointHost>),
    /// Those who publish at one storage point.
    Publisher(Box<Publisher>),
    /// A cache.
    Cache(Box<CacheHost>),
    /// A receiver.
    Receiver(Box<ReceiverHost>),
}
