//! The one model of the network between hosts: for the simulator, and for a [`router`] of real packets.
//!
//! Each direction of each pair of hosts is on its own: delay from a [`Table`] of measured round trips, jitter, loss,
//! duplication, reordering, rate and queue ([`LinkSettings`]), and whatever faults do to it ([`Disturbance`]). A
//! [`Network`] says when something sent now arrives, if it does.
//!
//! Invariant: the same seed, hosts, settings and calls give the same arrivals on every machine. All arithmetic is on
//! integers, and each direction draws from a stream of its own, so that traffic elsewhere changes nothing here.

mod disturbance;
mod link;
mod placement;
pub mod router;
mod table;

pub use disturbance::{Disturbance, Disturbances, Hosts};
pub use link::{Arrivals, Burst, LinkSettings, PPM, Part, Queue, SEGMENT_LEN_MAX};
pub use placement::{Placement, storage_point_regions};
pub use table::{Region, Table, TableError};

use crate::{trace::Text, workload::Random};
use link::{Direction, Harm};
use std::collections::BTreeMap;

/// A host of a network: its place in the list that the network was made with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostId(pub u32);

/// Who is on the network, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    /// Its name: `sp1`, `receiver17`. What a direction draws follows from the two names.
    pub name: Text,
    /// Where it stands.
    pub region: Region,
}

/// All directions between all hosts.
#[derive(Clone, Debug)]
pub struct Network {
    seed: u64,
    hosts: Vec<Host>,
    table: Table,
    settings: LinkSettings,
    /// When the line of each host is free: what it sends, what it receives.
    free_at_ns: BTreeMap<(HostId, Line), u64>,
    /// Those that something was sent over. A fleet's receivers talk to a few hosts each.
    directions: BTreeMap<(HostId, HostId), Direction>,
    disturbances: Disturbances,
}

/// A host's line: each way has the rate of [`LinkSettings::rate`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Line {
    Up,
    Down,
}

/// A sender hands over what the narrowest line on the way carries in this time, and whole segments.
const PIECES_PER_S: u64 = 50;
const SECOND_NS: u128 = 1_000_000_000;

impl Network {
    /// The network between `hosts`, all of whose links have `settings`.
    pub fn new(seed: u64, table: Table, hosts: Vec<Host>, settings: LinkSettings) -> Network {
        let (free_at_ns, directions, disturbances) = (BTreeMap::new(), BTreeMap::new(), Disturbances::default());
        Network { seed, hosts, table, settings, free_at_ns, directions, disturbances }
    }

    /// The hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Adds a host that stands where `beside` does.
    pub fn add_host(&mut self, name: Text, beside: HostId) -> HostId {
        let region = self.host(beside).region;
        self.hosts.push(Host { name, region });
        HostId(u32::try_from(self.hosts.len() - 1).expect("fewer hosts than numbers"))
    }

    /// What happens to packets beyond a rate.
    pub fn queue(&self) -> Queue {
        self.settings.queue
    }

    /// Delay of one direction, undisturbed and without jitter, in nanoseconds.
    pub fn one_way_ns(&self, from: HostId, to: HostId) -> u64 {
        self.table.one_way_ns(self.host(from).region, self.host(to).region)
    }

    /// Delay there and back, undisturbed and without jitter, in nanoseconds: what a handshake costs.
    pub fn round_trip_ns(&self, from: HostId, to: HostId) -> u64 {
        self.one_way_ns(from, to) + self.one_way_ns(to, from)
    }

    /// The disturbances of now: faults begin and end them.
    pub fn disturbances(&mut self) -> &mut Disturbances {
        &mut self.disturbances
    }

    /// Bytes that a sender hands over at once: it keeps the rest until those have left. So what a connection has still
    /// to send goes at the rate of then, goes with the connection, and shares the lines evenly with other connections.
    pub fn piece_len_max(&self, from: HostId, to: HostId) -> u64 {
        let rates = [self.settings.rate, self.disturbances.of(from, to).rate];
        let Some(rate) = rates.into_iter().flatten().min().filter(|_| from != to) else { return u64::MAX };
        (rate / PIECES_PER_S / SEGMENT_LEN_MAX).max(1) * SEGMENT_LEN_MAX
    }

    /// When the last of `len` bytes that are handed over now has left for `to`: behind all that was handed over before on
    /// the lines that it passes. None while the direction is cut: it waits or is lost, as the caller decides.
    pub fn hand_over(&mut self, now_ns: u64, from: HostId, to: HostId, len: u64) -> Option<u64> {
        let (direction, disturbance) = self.direction(from, to);
        let mut sent_ns = now_ns;
        if let Some(rate) = disturbance.rate.filter(|_| !disturbance.cut) {
            sent_ns = take_line(&mut direction.free_at_ns, now_ns, len, rate);
        }
        if disturbance != Disturbance::NONE {
            let slows = |it: &Disturbance| it.delay_ns > 0 || it.rate.is_some();
            self.disturbances.bite(from, to, |it| it.cut || (!disturbance.cut && slows(it)));
        }
        if disturbance.cut {
            return None;
        }
        if let Some(rate) = self.settings.rate.filter(|_| from != to) {
            for line in [(from, Line::Up), (to, Line::Down)] {
                let free_at_ns = self.free_at_ns.entry(line).or_default();
                sent_ns = sent_ns.max(take_line(free_at_ns, now_ns, len, rate));
            }
        }
        Some(sent_ns)
    }

    /// Whether a packet of `len` bytes finds room in the queues from `from` to `to`.
    pub fn has_room(&self, now_ns: u64, from: HostId, to: HostId, len: u64) -> bool {
        match self.settings.queue {
            Queue::Delay => true,
            queue @ Queue::DropTail(_) => queue.takes(self.waiting(now_ns, from, to), len),
        }
    }

    /// Bytes that wait on the lines from `from` to `to`, the one with most of them.
    fn waiting(&self, now_ns: u64, from: HostId, to: HostId) -> u64 {
        if from == to {
            return 0;
        }
        let bytes = |free_at_ns: Option<&u64>, rate: Option<u64>| {
            let behind_ns = free_at_ns.map_or(0, |at| at.saturating_sub(now_ns));
            (u128::from(behind_ns) * u128::from(rate.unwrap_or(0)) / SECOND_NS) as u64
        };
        let direction = self.directions.get(&(from, to)).map(|direction| &direction.free_at_ns);
        let disturbed = bytes(direction, self.disturbances.of(from, to).rate);
        let lines =
            [(from, Line::Up), (to, Line::Down)].map(|line| bytes(self.free_at_ns.get(&line), self.settings.rate));
        lines.into_iter().fold(disturbed, u64::max)
    }

    /// When the last byte of a part of a TCP-like stream can be read at the other end, if nothing before it is missing.
    ///
    /// Segments of [`SEGMENT_LEN_MAX`] bytes; a lost one costs a retransmission: a round trip where at least three
    /// segments of the same message follow it (fast retransmit), else a time-out of a round trip and 200 ms, doubled
    /// each time. Left out: slow start and congestion windows, the handshake
    /// ([`round_trip_ns`](Network::round_trip_ns)), and the loss of acknowledgements.
    pub fn stream(&mut self, from: HostId, to: HostId, part: Part) -> u64 {
        let back_ns = self.one_way_ns(to, from);
        let (direction, disturbance) = self.direction(from, to);
        let (arrived_ns, harm) = direction.stream(part, back_ns, &disturbance);
        self.note(from, to, harm);
        arrived_ns
    }

    /// When a packet that has left at `sent_ns` arrives: never, once or twice. One that is held back may be overtaken by
    /// what is sent later.
    pub fn datagram(&mut self, from: HostId, to: HostId, sent_ns: u64) -> Arrivals {
        self.burst(from, to, sent_ns, 1).arrivals
    }

    /// When `packets` (at most 64) arrive that have left together at `sent_ns`: each may be lost, those that are not arrive
    /// together.
    pub fn burst(&mut self, from: HostId, to: HostId, sent_ns: u64, packets: u32) -> Burst {
        let (direction, disturbance) = self.direction(from, to);
        let (burst, harm) = direction.burst(sent_ns, packets, &disturbance);
        self.note(from, to, harm);
        burst
    }

    fn note(&mut self, from: HostId, to: HostId, harm: Harm) {
        if let Some(drawn_ppm) = harm.lost_ppm {
            self.disturbances.bite(from, to, |disturbance| disturbance.loss_ppm > drawn_ppm);
        }
    }

    fn host(&self, id: HostId) -> &Host {
        &self.hosts[id.0 as usize]
    }

    fn direction(&mut self, from: HostId, to: HostId) -> (&mut Direction, Disturbance) {
        let disturbance = self.disturbances.of(from, to);
        let (hosts, table, settings, seed) = (&self.hosts, &self.table, self.settings, self.seed);
        let direction = self.directions.entry((from, to)).or_insert_with(|| {
            let (source, sink) = (&hosts[from.0 as usize], &hosts[to.0 as usize]);
            let random = Random::new(seed, &format!("link {} {}", source.name, sink.name));
            Direction::new(table.one_way_ns(source.region, sink.region), settings, random)
        });
        (direction, disturbance)
    }
}

/// When a line has sent `len` bytes more.
fn take_line(free_at_ns: &mut u64, now_ns: u64, len: u64, rate: u64) -> u64 {
    let took_ns = u64::try_from(u128::from(len) * SECOND_NS / u128::from(rate.max(1))).unwrap_or(u64::MAX);
    *free_at_ns = now_ns.max(*free_at_ns).saturating_add(took_ns);
    *free_at_ns
}

#[cfg(test)]
mod tests;
