//! The one model of the network between hosts: for the simulator now, for a router of real packets later.
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
mod table;

pub use disturbance::{Disturbance, Disturbances, Hosts};
pub use link::{Arrivals, LinkCounters, LinkSettings, PPM, Queue, SEGMENT_LEN_MAX, StreamArrival};
pub use placement::{Placement, storage_point_regions};
pub use table::{Region, Table, TableError};

use crate::{trace::Text, workload::Random};
use link::Direction;
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

/// How what is sent comes out at the other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Delivery {
    /// As TCP shows it: whole and in order; loss shows as delay. See [`Network::stream`].
    #[default]
    Stream,
    /// As the link shows it: lost, duplicated and reordered one by one. See [`Network::datagram`].
    Datagram,
}

/// All directions between all hosts.
#[derive(Clone, Debug)]
pub struct Network {
    seed: u64,
    hosts: Vec<Host>,
    table: Table,
    settings: LinkSettings,
    delivery: Delivery,
    /// Those that something was sent over. A fleet's receivers talk to a few hosts each.
    directions: BTreeMap<(HostId, HostId), Direction>,
    disturbances: Disturbances,
}

impl Network {
    /// The network between `hosts`, all of whose links have `settings`.
    pub fn new(seed: u64, table: Table, hosts: Vec<Host>, settings: LinkSettings, delivery: Delivery) -> Network {
        let disturbances = Disturbances::default();
        Network { seed, hosts, table, settings, delivery, directions: BTreeMap::new(), disturbances }
    }

    /// The hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Delay of one direction, undisturbed and without jitter, in nanoseconds.
    pub fn one_way_ns(&self, from: HostId, to: HostId) -> u64 {
        self.table.one_way_ns(self.host(from).region, self.host(to).region)
    }

    /// Delay there and back, undisturbed and without jitter, in nanoseconds: what a handshake costs.
    pub fn round_trip_ns(&self, from: HostId, to: HostId) -> u64 {
        self.one_way_ns(from, to) + self.one_way_ns(to, from)
    }

    /// Whether nothing passes from `from` to `to` now.
    pub fn is_cut(&self, from: HostId, to: HostId) -> bool {
        self.disturbances.of(from, to).cut
    }

    /// The disturbances of now: faults begin and end them.
    pub fn disturbances(&mut self) -> &mut Disturbances {
        &mut self.disturbances
    }

    /// What happened on all links so far.
    pub fn counters(&self) -> LinkCounters {
        self.directions.values().fold(LinkCounters::default(), |sum, direction| sum.plus(direction.counters()))
    }

    /// Sends `len` bytes in the way that the network was made for.
    pub fn transmit(&mut self, now_ns: u64, from: HostId, to: HostId, len: u64) -> Arrivals {
        match self.delivery {
            Delivery::Stream => self.stream(now_ns, from, to, len).map(|arrival| arrival.at_ns).into(),
            Delivery::Datagram => self.datagram(now_ns, from, to, len),
        }
    }

    /// When the last of `len` bytes, written now to a TCP-like stream, can be read at the other end.
    ///
    /// Segments of [`SEGMENT_LEN_MAX`] bytes; a lost one costs a retransmission: a round trip where at least three
    /// segments of the same message follow it (fast retransmit), else a time-out of a round trip and 200 ms, doubled
    /// each time. Nothing overtakes what was written to the same direction earlier. None while the direction is cut:
    /// what was written then waits or dies with the connection, as the caller decides. Left out: slow start and
    /// congestion windows, the handshake ([`round_trip_ns`](Network::round_trip_ns)), and the loss of acknowledgements.
    pub fn stream(&mut self, now_ns: u64, from: HostId, to: HostId, len: u64) -> Option<StreamArrival> {
        let back_ns = self.one_way_ns(to, from);
        let (direction, disturbance) = self.direction(from, to);
        direction.stream(now_ns, len, back_ns, &disturbance)
    }

    /// When `len` bytes sent as one packet arrive: never, once or twice. One that is reordered may be overtaken by
    /// what is sent later.
    pub fn datagram(&mut self, now_ns: u64, from: HostId, to: HostId, len: u64) -> Arrivals {
        let (direction, disturbance) = self.direction(from, to);
        direction.datagram(now_ns, len, &disturbance)
    }

    /// The two have a new connection: what an earlier one still had to deliver no longer holds it up.
    pub fn reconnect(&mut self, a: HostId, b: HostId) {
        for pair in [(a, b), (b, a)] {
            if let Some(direction) = self.directions.get_mut(&pair) {
                direction.forget_order();
            }
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

#[cfg(test)]
mod tests;
