//! Connections between processes, as TCP offers them: set up by a round trip, in order, closed by either end, and what
//! meets a cut waits and is tried again with growing pauses.
//!
//! Each end hands the network a piece at a time and keeps the rest: that goes at the rate of then, and is gone with the
//! connection. A process that is told that there is no room waits for [`Input::Writable`].
//!
//! With `delivery = "datagram"` frames of storage points go one by one instead: each may be lost, doubled or overtaken.

use super::{
    host::{HostId, Input},
    http::{Answer, PublishAnswer, PublishRequest, Request},
    queue::Happening,
    shared::Shared,
};
use crate::network::Part;
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
    Request(Request),
    /// The answer to it.
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

/// A segment on its way out.
#[derive(Debug)]
struct Outgoing {
    segment: Segment,
    /// It may be lost, doubled and overtaken.
    is_datagram: bool,
    /// Bytes that have not been handed to the network.
    left: u64,
}

/// One direction.
#[derive(Default, Debug)]
struct Way {
    queue: VecDeque<Outgoing>,
    /// Bytes of the queue.
    queued_len: u64,
    /// A piece is on the line, or the first segment met a cut: the way is called again.
    is_busy: bool,
    /// How often the first of them met a cut.
    tries: u32,
    /// When the last segment arrives: none overtakes another.
    last_arrival_ns: u64,
    /// When parts arrive that have not yet, and when the last one that has did.
    coming: VecDeque<u64>,
    heard_ns: u64,
    /// The sender waits for room.
    wants_room: bool,
}

impl Way {
    /// What has arrived by `now_ns` has been heard.
    fn hear(&mut self, now_ns: u64) {
        while let Some(at_ns) = self.coming.pop_front_if(|at_ns| *at_ns <= now_ns) {
            self.heard_ns = self.heard_ns.max(at_ns);
        }
    }

    fn is_coming(&mut self, now_ns: u64, at_ns: u64) {
        self.hear(now_ns);
        self.coming.push_back(at_ns);
    }
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
/// Bytes that an end takes before it says that there is no room, as Linux begins with.
const SEND_BUFFER_LEN: u64 = 16 << 10;

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

    /// Whether the connection takes more from `host` now; if not, it is told when there is room.
    pub(super) fn has_room(&mut self, id: ConnectionId, host: HostId) -> bool {
        let Some(side) = self.side(id, host) else { return false };
        let are_datagrams = self.frames_are_datagrams;
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        let way = &mut connection.ways[side as usize];
        // Who sends datagrams is never told.
        let has_room = way.queued_len < SEND_BUFFER_LEN || (are_datagrams && connection.service == Service::Peer);
        way.wants_room = !has_room;
        has_room
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
                connection.ways[side as usize].queue.clear();
            }
            self.forget_end(id, side);
        }
    }

    /// The open end that `host` has is at `new` now.
    pub(super) fn move_end(&mut self, id: ConnectionId, host: HostId, new: HostId) {
        if let Some(side) = self.side(id, host)
            && let Some(connection) = self.connections.get_mut(&id)
        {
            connection.ends[side as usize] = new;
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
        let (way, len) = (&mut connection.ways[from as usize], segment.len());
        if is_datagram && !self.network.queue().takes(way.queued_len, len) {
            return;
        }
        way.queue.push_back(Outgoing { segment, is_datagram, left: len });
        way.queued_len += len;
        if !way.is_busy {
            self.pump(id, from);
        }
    }

    /// What has left the line, or met a cut, is followed by the next.
    pub(super) fn go_on(&mut self, id: ConnectionId, from: Side) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.ways[from as usize].is_busy = false;
            self.pump(id, from);
        }
    }

    /// Hands over pieces until one takes time or meets a cut.
    fn pump(&mut self, id: ConnectionId, from: Side) {
        while let Some(again_ns) = self.hand_over(id, from) {
            if again_ns > self.now_ns {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.ways[from as usize].is_busy = true;
                }
                return self.queue.push(again_ns, Happening::GoOn { connection: id, from });
            }
        }
    }

    /// Hands over the next piece, if there is one: when the one after it has its turn.
    fn hand_over(&mut self, id: ConnectionId, from: Side) -> Option<u64> {
        let connection = self.connections.get_mut(&id)?;
        let (me, to) = (connection.ends[from as usize], connection.ends[from.other() as usize]);
        let way = &mut connection.ways[from as usize];
        let first = way.queue.front_mut()?;
        let len = first.left.min(self.network.piece_len_max(me, to));
        let Some(sent_ns) = self.network.hand_over(self.now_ns, me, to, len) else {
            if first.is_datagram {
                way.queued_len -= first.left;
                way.queue.pop_front();
                return Some(self.now_ns);
            }
            let pause_ns = (RETRY_NS << way.tries.min(8)).min(RETRY_NS_MAX);
            way.tries += 1;
            return Some(self.now_ns + pause_ns);
        };
        way.tries = 0;
        way.queued_len -= len;
        first.left -= len;
        let following = first.left;
        let arrivals = if !first.is_datagram {
            let part = Part { len, begun_ns: self.now_ns, sent_ns, following };
            way.last_arrival_ns = way.last_arrival_ns.max(self.network.stream(me, to, part));
            [Some(way.last_arrival_ns), None]
        } else if following > 0 {
            [Some(sent_ns + self.network.one_way_ns(me, to)), None]
        } else {
            let mut arrivals = self.network.datagram(me, to, sent_ns).into_iter();
            [arrivals.next(), arrivals.next()]
        };
        let segment = (following == 0).then(|| way.queue.pop_front()).flatten().map(|outgoing| outgoing.segment);
        for at_ns in arrivals.into_iter().flatten() {
            way.is_coming(self.now_ns, at_ns);
            if let Some(segment) = segment.clone() {
                self.queue.push(at_ns, Happening::Arrival { connection: id, at: from.other(), segment });
            }
        }
        if way.wants_room && way.queued_len < SEND_BUFFER_LEN {
            way.wants_room = false;
            self.later(me, 0, Input::Writable);
        }
        Some(sent_ns)
    }

    /// When the last byte for `host` came over the connection.
    pub(super) fn heard_ns(&mut self, id: ConnectionId, host: HostId) -> u64 {
        let Some(side) = self.side(id, host) else { return 0 };
        let now_ns = self.now_ns;
        let Some(connection) = self.connections.get_mut(&id) else { return 0 };
        let way = &mut connection.ways[side.other() as usize];
        way.hear(now_ns);
        way.heard_ns
    }

    /// A segment has come to where a process may be.
    pub(super) fn arrive(&mut self, id: ConnectionId, at: Side, segment: Segment) -> Option<(HostId, Input)> {
        let connection = self.connections.get(&id)?;
        let (host, service) = (connection.ends[at as usize], connection.service);
        if !self.host(host).is_powered {
            // Nobody answers; who sent it finds out by the silence.
            return None;
        }
        match segment {
            Segment::Open if self.host(host).listens(service) => {
                self.connections.get_mut(&id)?.open[at as usize] = true;
                self.host_mut(host).connections.insert(id);
                self.transmit(id, at, Segment::Opened);
                Some((host, Input::Accepted { connection: id, service }))
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
