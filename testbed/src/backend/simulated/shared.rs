//! What all hosts of a world share: time, network, connections, trace.

use super::{
    Observer,
    connection::{Connection, ConnectionId},
    host::{Host, HostId, Input, Process},
    queue::{Happening, Queue},
    record::Record,
};
use crate::{
    faults::FaultKind,
    network::Network,
    workload::{Attempt, Random},
};
use acms_engine::protocol::{Instant, Micros, Now, StoreId, Uid};
use std::collections::{BTreeMap, BTreeSet};

/// Monotonic clocks of hosts begin here, so that no interval reaches back to before them.
const INSTANT_START_NS: u64 = 1_000_000_000;

/// True wall clock at the beginning of a run: microseconds since 1970.
pub(super) const WALL_START_US: u64 = 1_700_000_000_000_000;

/// What all hosts share.
pub(super) struct Shared<'s> {
    pub(super) seed: u64,
    /// Virtual time.
    pub(super) now_ns: u64,
    pub(super) queue: Queue,
    pub(super) network: Network,
    pub(super) frames_are_datagrams: bool,
    pub(super) hosts: Vec<Host>,
    pub(super) connections: BTreeMap<ConnectionId, Connection>,
    pub(super) next_connection: u64,
    pub(super) record: Record<'s>,
    pub(super) observer: Option<&'s mut dyn Observer>,
    /// The greatest UID that any publisher was told.
    pub(super) told: Uid,
    /// Attempts at publishing that have no outcome yet.
    pub(super) attempts_open: usize,
    /// Attempts that were not accepted, with the reason.
    pub(super) refused: Vec<(Attempt, String)>,
    /// Faults whose process has become ready again, to be noted as undone.
    pub(super) undone: Vec<usize>,
    /// Faults that have just been seen to do harm.
    pub(super) bitten: Vec<usize>,
    /// Kinds of faults that have just done harm to a host.
    pub(super) bites: Vec<(HostId, FaultKind)>,
    /// Processes that end by themselves, with the reason.
    pub(super) ended: Vec<(HostId, Ending)>,
    /// Where lives of processes go on whose host another process has taken.
    pub(super) displaced: BTreeMap<(HostId, u32), HostId>,
    /// Stores of those: nobody watches their steps.
    pub(super) unwatched: BTreeSet<StoreId>,
}

/// How a process ends by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// It was asked to, and has finished.
    Stopped,
    /// Its disk failed, as a fault wants it.
    DiskFailed(String),
    /// Nobody wanted that.
    Unexpected(String),
}

impl Shared<'_> {
    pub(super) fn host(&self, id: HostId) -> &Host {
        &self.hosts[id.0 as usize]
    }

    pub(super) fn host_mut(&mut self, id: HostId) -> &mut Host {
        &mut self.hosts[id.0 as usize]
    }

    /// Both clocks of a host.
    pub(super) fn now_at(&self, id: HostId) -> Now {
        let true_us = (WALL_START_US + self.now_ns / 1_000).cast_signed();
        let shown_us = (true_us + self.host(id).clock.ahead_us(self.now_ns)).max(0);
        Now { instant: self.instant(), wall: Micros(shown_us.cast_unsigned()) }
    }

    pub(super) fn instant(&self) -> Instant {
        Instant(self.now_ns + INSTANT_START_NS)
    }

    /// A source of random numbers of its own for each host and purpose.
    pub(super) fn random(&self, id: HostId, purpose: &str) -> Random {
        Random::new(self.seed, &format!("{} {purpose}", self.host(id).name))
    }

    /// Faults of this kind have done harm to the host.
    pub(super) fn bite(&mut self, host: HostId, kind: FaultKind) {
        self.bites.push((host, kind));
    }

    /// The host where the process is that had this life at `host`.
    pub(super) fn whereabouts(&self, host: HostId, life: u32) -> HostId {
        self.displaced.get(&(host, life)).copied().unwrap_or(host)
    }

    /// Has the process get `input` after `delay_ns`, if it still lives then.
    pub(super) fn later(&mut self, host: HostId, delay_ns: u64, input: Input) {
        let life = self.host(host).starts;
        self.queue.push(self.now_ns + delay_ns, Happening::Input { host, life, input });
    }

    /// Has the process called at `at`, and not at the time that it asked for before.
    pub(super) fn set_timer(&mut self, host: HostId, at: Option<Instant>) {
        let at_ns = at.map(|at| at.0.saturating_sub(INSTANT_START_NS).max(self.now_ns));
        let life = self.host(host).starts;
        let before = std::mem::replace(&mut self.host_mut(host).timer_ns, at_ns);
        if let Some(at_ns) = at_ns.filter(|_| before != at_ns) {
            self.queue.push(at_ns, Happening::Timer { host, life });
        }
    }

    /// Whether a timer that comes now is the one that was asked for last.
    pub(super) fn is_due(&self, host: HostId, life: u32) -> bool {
        let host = self.host(host);
        host.starts == life && host.process != Process::Ended && host.timer_ns == Some(self.now_ns)
    }
}
