//! Connections between processes, as TCP offers them: set up by a round trip, in order, closed by either end, and what
//! meets a cut waits and is tried again with growing pauses.
//!
//! With `delivery = "datagram"` frames of storage points go one by one instead: each may be lost, doubled or overtaken.

use super::{
    host::{HostId, Input},
    http::{Answer, PublishAnswer, PublishRequest, Request},
    queue::Happening,
    shared::Shared,
};
use crate::network::StreamArrival;
use bytes::Bytes;
use std::collections::VecDeque;

/// Names a connection for good.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct ConnectionId(pub(super) u64);

/// An end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    /// Who set it up.
    Dialler = 0,
    /// Who took it.
    Listener = 1,
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::Dialler => Side::Listener,
            Side::Listener => Side::Dialler,
        }
    }
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Service {
    /// Storage points among themselves.
    Peer,
    /// Publishing and reading.
    Http,
}

/// What goes over a connection at once.
#[derive(Clone, Debug)]
pub(super) enum Segment {
    /// Please connect.
    Open,
    /// Connected.
    Opened,
    /// Closed, or nobody there.
    Close,
    /// A storage point's first frame.
    Hello(Bytes),
    /// Any other frame of a storage point.
    Frame(Bytes),
    /// A request to publish.
    Publish(Box<PublishRequest>),
    /// The answer to it.
    Published(Box<PublishAnswer>),
    /// A request to read.
    #[allow(dead_code, reason = "receivers and caches ask")]
    Request(Request),
    /// The answer to it.
    #[allow(dead_code, reason = "receivers and caches ask")]
    Answer(Answer),
}

impl Segment {
    /// Bytes on the wire, about.
    fn len(&self) -> u64 {
        const CONTROL_LEN: usize = 60;
        const HEAD_LEN: usize = 300;
        let len = match self {
            Segment::Open | Segment::Opened | Segment::Close => CONTROL_LEN,
            Segment::Hello(bytes) | Segment::Frame(bytes) => CONTROL_LEN + bytes.len(),
            Segment::Publish(request) => HEAD_LEN + request.content.as_ref().map_or(0, Bytes::len),
            Segment::Published(_) => HEAD_LEN + 100,
            Segment::Request(request) => HEAD_LEN + request.target.len(),
            Segment::Answer(answer) => HEAD_LEN + answer.body.len(),
        };
        len as u64
    }
}

/// One direction.
#[derive(Default, Debug)]
struct Way {
    /// Not yet on the way, because the first of them met a cut.
    waiting: VecDeque<Segment>,
    /// How often the first of them was tried.
    tries: u32,
    /// When the last segment arrives: none overtakes another.
    last_arrival_ns: u64,
    /// How long its reader sees nothing of it meanwhile.
    silent_ns: u64,
}

/// A connection that at least one end has.
#[derive(Debug)]
pub(super) struct Connection {
    ends: [HostId; 2],
    service: Service,
    open: [bool; 2],
    ways: [Way; 2],
}

/// First pause before what met a cut is sent again, and the longest.
const RETRY_NS: u64 = 200_000_000;
const RETRY_NS_MAX: u64 = 6_400_000_000;

impl Shared<'_> {
    /// Sets up a connection; `Connected` or `Closed` comes.
    pub(super) fn dial(&mut self, from: HostId, to: HostId, service: Service) -> ConnectionId {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let connection =
            Connection { ends: [from, to], service, open: [true, false], ways: [Way::default(), Way::default()] };
        self.connections.insert(id, connection);
        self.host_mut(from).connections.insert(id);
        self.transmit(id, Side::Dialler, Segment::Open);
        id
    }

    /// Sends over a connection of `from`; nothing if it is closed.
    pub(super) fn send(&mut self, id: ConnectionId, from: HostId, segment: Segment) {
        if let Some(side) = self.side(id, from) {
            self.transmit(id, side, segment);
        }
    }

    /// Closes `host`'s end and tells the other.
    pub(super) fn close(&mut self, id: ConnectionId, host: HostId) {
        if let Some(side) = self.side(id, host) {
            self.transmit(id, side, Segment::Close);
            self.forget_end(id, side);
        }
    }

    /// All of `host`'s ends are gone; without power nobody tells the others.
    pub(super) fn close_all(&mut self, host: HostId, tells: bool) {
        for id in std::mem::take(&mut self.host_mut(host).connections) {
            let Some(side) = self.side(id, host) else { continue };
            if tells {
                self.transmit(id, side, Segment::Close);
            } else if let Some(connection) = self.connections.get_mut(&id) {
                connection.ways[side as usize].waiting.clear();
            }
            self.forget_end(id, side);
        }
    }

    /// Which open end of the connection `host` has.
    fn side(&self, id: ConnectionId, host: HostId) -> Option<Side> {
        let connection = self.connections.get(&id)?;
        let sides = [Side::Dialler, Side::Listener].into_iter();
        sides.into_iter().find(|side| connection.ends[*side as usize] == host && connection.open[*side as usize])
    }

    fn forget_end(&mut self, id: ConnectionId, side: Side) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.open[side as usize] = false;
        let (host, is_over) = (connection.ends[side as usize], !connection.open[side.other() as usize]);
        if is_over {
            self.connections.remove(&id);
        }
        self.host_mut(host).connections.remove(&id);
    }

    fn transmit(&mut self, id: ConnectionId, from: Side, segment: Segment) {
        let is_datagram = self.frames_are_datagrams && matches!(segment, Segment::Frame(_));
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let ends = (connection.ends[from as usize], connection.ends[from.other() as usize]);
        let way = &mut connection.ways[from as usize];
        if is_datagram {
            for at_ns in self.network.datagram(self.now_ns, ends.0, ends.1, segment.len()) {
                let arrival = Happening::Arrival { connection: id, at: from.other(), segment: segment.clone() };
                self.queue.push(at_ns, arrival);
            }
        } else if way.waiting.is_empty() {
            self.try_to_send(id, from, segment);
        } else {
            way.waiting.push_back(segment);
        }
    }

    /// Puts a segment on the way, or in front of those that wait. Whether it is on the way.
    fn try_to_send(&mut self, id: ConnectionId, from: Side, segment: Segment) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        let ends = (connection.ends[from as usize], connection.ends[from.other() as usize]);
        // Of all that goes between two hosts; here each connection keeps its own.
        self.network.reconnect(ends.0, ends.1);
        let arrival = self.network.stream(self.now_ns, ends.0, ends.1, segment.len());
        let way = &mut connection.ways[from as usize];
        match arrival {
            Some(StreamArrival { at_ns, silent_ns }) => {
                way.tries = 0;
                if way.last_arrival_ns <= self.now_ns {
                    way.silent_ns = 0;
                }
                way.silent_ns = way.silent_ns.max(silent_ns);
                way.last_arrival_ns = way.last_arrival_ns.max(at_ns);
                let arrival = Happening::Arrival { connection: id, at: from.other(), segment };
                self.queue.push(way.last_arrival_ns, arrival);
                true
            }
            None => {
                let pause_ns = (RETRY_NS << way.tries.min(8)).min(RETRY_NS_MAX);
                way.tries += 1;
                way.waiting.push_front(segment);
                self.queue.push(self.now_ns + pause_ns, Happening::Retry { connection: id, from });
                false
            }
        }
    }

    /// Whether something for `host` is on its way over the connection, with no pause of `patience_ns` or more.
    pub(super) fn is_receiving(&self, id: ConnectionId, host: HostId, patience_ns: u64) -> bool {
        let Some(side) = self.side(id, host) else { return false };
        let way = &self.connections[&id].ways[side.other() as usize];
        way.last_arrival_ns > self.now_ns && way.silent_ns < patience_ns
    }

    /// Sends again what met a cut, and then what waited behind it.
    pub(super) fn retry(&mut self, id: ConnectionId, from: Side) {
        loop {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            let Some(segment) = connection.ways[from as usize].waiting.pop_front() else { return };
            if !self.try_to_send(id, from, segment) {
                return;
            }
        }
    }

    /// A segment has come to where a process may be.
    pub(super) fn arrive(&mut self, id: ConnectionId, at: Side, segment: Segment) -> Option<(HostId, Input)> {
        let connection = self.connections.get(&id)?;
        let (host, other) = (connection.ends[at as usize], connection.ends[at.other() as usize]);
        let service = connection.service;
        if !self.host(host).is_powered {
            // Nobody answers; who sent it finds out by the silence.
            return None;
        }
        match segment {
            Segment::Open if self.host(host).listens(service) => {
                self.connections.get_mut(&id)?.open[at as usize] = true;
                self.host_mut(host).connections.insert(id);
                self.transmit(id, at, Segment::Opened);
                Some((host, Input::Accepted { connection: id, service, from: other }))
            }
            _ if !connection.open[at as usize] => {
                // Nobody has this end: the other is told, if it still has its own.
                if matches!(segment, Segment::Close) || !connection.open[at.other() as usize] {
                    self.connections.remove(&id);
                } else {
                    self.transmit(id, at, Segment::Close);
                }
                None
            }
            Segment::Open => None,
            Segment::Opened => Some((host, Input::Connected { connection: id })),
            Segment::Close => {
                self.forget_end(id, at);
                Some((host, Input::Closed { connection: id }))
            }
            segment => Some((host, Input::Segment { connection: id, segment })),
        }
    }
}
