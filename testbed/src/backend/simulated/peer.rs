//! Links of a storage point to the others: what the engine's [`Links`] wants, done with simulated connections.

use super::{
    connection::{ConnectionId, Segment, Service},
    host::HostId,
    shared::Shared,
};
use crate::workload::Random;
pub(super) use acms_engine::wire::link::LinkEvent;
use acms_engine::{
    protocol::{Instant, SpId, message::Header},
    wire::{
        Hello,
        link::{Action, Links},
    },
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// All links of a storage point.
#[derive(Debug)]
pub(super) struct Peers {
    at: HostId,
    hosts: BTreeMap<SpId, HostId>,
    links: Links<ConnectionId>,
    /// Dialled, and not yet there.
    dialled: BTreeSet<ConnectionId>,
}

impl Peers {
    /// Links to `others`, all down.
    pub(super) fn new(
        me: (SpId, HostId),
        hello: Hello,
        others: impl Iterator<Item = (SpId, HostId)>,
        mut random: Random,
        now: Instant,
    ) -> Peers {
        let hosts: BTreeMap<SpId, HostId> = others.collect();
        let links = Links::new(me.0, hello, hosts.keys().copied(), random.bits(), now);
        Peers { at: me.1, hosts, links: links.expect("a hello is short"), dialled: BTreeSet::new() }
    }

    /// The process is at another host now.
    pub(super) fn moved(&mut self, at: HostId) {
        self.at = at;
    }

    /// The next thing that a link has to say.
    pub(super) fn poll_event(&mut self) -> Option<LinkEvent> {
        self.links.poll_event()
    }

    /// Whether messages to `sp` can be sent.
    pub(super) fn is_up(&self, sp: SpId) -> bool {
        self.links.is_up(sp)
    }

    /// What hellos say from now on.
    pub(super) fn set_header(&mut self, header: Header) {
        self.links.set_header(header);
    }

    /// Queues frames to a peer whose link is up; those that carry contents go behind all others.
    pub(super) fn send(&mut self, sp: SpId, frames: Vec<Vec<u8>>, is_bulk: bool) {
        self.links.send(sp, frames, is_bulk);
    }

    /// Someone has connected.
    pub(super) fn accepted(&mut self, shared: &mut Shared<'_>, connection: ConnectionId) {
        if !self.links.accepted(connection, shared.instant()) {
            shared.close(connection, self.at);
        }
    }

    /// A connection that was dialled is there.
    pub(super) fn connected(&mut self, connection: ConnectionId) {
        self.dialled.remove(&connection);
    }

    /// A connection is gone.
    pub(super) fn closed(&mut self, shared: &Shared<'_>, connection: ConnectionId) {
        self.dialled.remove(&connection);
        self.links.closed(connection, "it closed the connection", shared.instant());
    }

    /// Bytes have come.
    pub(super) fn received(&mut self, shared: &Shared<'_>, connection: ConnectionId, segment: &Segment) {
        match segment {
            Segment::Hello(bytes) => self.links.received(connection, bytes, shared.instant()),
            // A datagram that was faster than the hello is lost.
            Segment::Frame(bytes) if self.links.is_greeted(connection) => {
                self.links.received(connection, bytes, shared.instant());
            }
            _ => {}
        }
    }

    /// Dials and closes as the links want it, and writes what is queued as far as connections take it.
    pub(super) fn flush(&mut self, shared: &mut Shared<'_>) {
        self.act(shared);
        let now = shared.instant();
        let connections: Vec<ConnectionId> = self.links.connections().collect();
        for connection in connections.into_iter().filter(|connection| !self.dialled.contains(connection)) {
            loop {
                let frame = self.links.unsent(connection);
                if frame.is_empty() || !shared.has_room(connection, self.at) {
                    break;
                }
                self.links.wrote(connection, frame.len(), now);
                shared.send(connection, self.at, segment_of(frame));
            }
        }
        self.links.close_overfull(now);
        self.act(shared);
    }

    fn act(&mut self, shared: &mut Shared<'_>) {
        let now = shared.instant();
        while let Some(action) = self.links.poll_action() {
            match action {
                Action::Close(connection) => {
                    self.dialled.remove(&connection);
                    shared.close(connection, self.at);
                }
                Action::Dial(sp) => {
                    let connection = shared.dial(self.at, self.hosts[&sp], Service::Peer);
                    self.dialled.insert(connection);
                    self.links.dialled(sp, connection, now);
                }
            }
        }
    }

    /// Dials, pings, and closes what is dead.
    pub(super) fn handle_timeout(&mut self, shared: &mut Shared<'_>) {
        let connections: Vec<ConnectionId> = self.links.connections().collect();
        for connection in connections {
            let heard_ns = shared.heard_ns(connection, self.at);
            self.links.heard(connection, shared.instant_of(heard_ns));
        }
        self.links.handle_timeout(shared.instant());
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.links.poll_timeout()
    }
}

/// Hellos come in order and for sure, whatever becomes of other frames.
fn segment_of(frame: Bytes) -> Segment {
    if acms_engine::wire::is_hello(&frame) { Segment::Hello(frame) } else { Segment::Frame(frame) }
}
