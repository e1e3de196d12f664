//! Links of a storage point to the others, as `runtime/storage_point/peer.rs` of the engine keeps them: one connection
//! for each pair, dialled by the one with the smaller id; nothing but a hello before the other's hello has come; pings
//! in silence, an end after 4 s of it, and dialling again with growing pauses.

use super::{
    connection::{ConnectionId, Segment, Service},
    host::HostId,
    shared::Shared,
};
use crate::workload::Random;
use acms_engine::{
    protocol::{Duration, Instant, Message, SpId, message::Header},
    wire::{self, Decoder, Frame, Hello},
};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

const PING_AFTER: Duration = Duration::from_secs(1);
const DEAD_AFTER: Duration = Duration::from_secs(4);
const REDIAL_MIN: Duration = Duration::from_millis(50);
const REDIAL_MAX: Duration = Duration::from_secs(1);

/// What a link has to say.
#[derive(Debug)]
pub(super) enum LinkEvent {
    /// The peer has said hello.
    Up(SpId, Header),
    /// The link is gone.
    Down(SpId),
    /// Messages came.
    Messages(SpId, Header, Vec<Message>),
}

#[derive(Clone, Copy, Debug)]
struct Channel {
    connection: ConnectionId,
    greeted: bool,
    heard_at: Instant,
    sent_at: Instant,
}

#[derive(Debug)]
struct Link {
    host: HostId,
    channel: Option<Channel>,
    redial_at: Instant,
    back_off: Duration,
}

/// All links of a storage point.
#[derive(Debug)]
pub(super) struct Peers {
    me: SpId,
    at: HostId,
    hello: Hello,
    hello_frame: Bytes,
    links: BTreeMap<SpId, Link>,
    /// Connections that have not said hello yet, and since when.
    strangers: BTreeMap<ConnectionId, Instant>,
    random: Random,
    events: VecDeque<LinkEvent>,
}

impl Peers {
    /// Links to `others`, all down.
    pub(super) fn new(
        me: (SpId, HostId),
        hello: Hello,
        others: impl Iterator<Item = (SpId, HostId)>,
        random: Random,
        now: Instant,
    ) -> Peers {
        let link = |host| Link { host, channel: None, redial_at: now, back_off: REDIAL_MIN };
        let hello_frame = wire::encode_hello(&hello).expect("a hello is short").into();
        Peers {
            me: me.0,
            at: me.1,
            hello,
            hello_frame,
            links: others.map(|(sp, host)| (sp, link(host))).collect(),
            strangers: BTreeMap::new(),
            random,
            events: VecDeque::new(),
        }
    }

    /// The next thing that a link has to say.
    pub(super) fn poll_event(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    /// Whether messages to `sp` can be sent.
    pub(super) fn is_up(&self, sp: SpId) -> bool {
        self.links.get(&sp).and_then(|link| link.channel).is_some_and(|channel| channel.greeted)
    }

    /// Sends frames to a peer whose link is up.
    pub(super) fn send(&mut self, shared: &mut Shared<'_>, sp: SpId, frames: Vec<Vec<u8>>) {
        let now = shared.instant();
        let Some(channel) = self.links.get_mut(&sp).and_then(|link| link.channel.as_mut()) else { return };
        if channel.greeted {
            channel.sent_at = now;
            for frame in frames {
                shared.send(channel.connection, self.at, Segment::Frame(frame.into()));
            }
        }
    }

    /// Someone has connected.
    pub(super) fn accepted(&mut self, shared: &mut Shared<'_>, connection: ConnectionId) {
        shared.send(connection, self.at, Segment::Hello(self.hello_frame.clone()));
        self.strangers.insert(connection, shared.instant());
    }

    /// A connection that was dialled is there; whether it is one of these.
    pub(super) fn connected(&mut self, shared: &mut Shared<'_>, connection: ConnectionId) -> bool {
        let is_ours = self.link_of(connection).is_some();
        if is_ours {
            shared.send(connection, self.at, Segment::Hello(self.hello_frame.clone()));
        }
        is_ours
    }

    /// A connection is gone; whether it was one of these.
    pub(super) fn closed(&mut self, shared: &mut Shared<'_>, connection: ConnectionId) -> bool {
        if self.strangers.remove(&connection).is_some() {
            return true;
        }
        let found = self.link_of(connection);
        if let Some(sp) = found {
            self.close(shared, sp);
        }
        found.is_some()
    }

    /// A frame has come.
    pub(super) fn frame(&mut self, shared: &mut Shared<'_>, connection: ConnectionId, bytes: &Bytes) {
        let mut decoder = Decoder::new();
        decoder.push(bytes);
        let Ok(Some(frame)) = decoder.next() else {
            panic!("a frame that this program encoded must decode");
        };
        if self.strangers.contains_key(&connection) {
            return self.greet(shared, connection, frame);
        }
        let Some(sp) = self.link_of(connection) else { return };
        let Some(channel) = self.links.get_mut(&sp).and_then(|link| link.channel.as_mut()) else { return };
        channel.heard_at = shared.instant();
        match frame {
            Frame::Hello(hello) if !channel.greeted => {
                if self.hello.cluster != hello.cluster || hello.header.config != self.hello.header.config {
                    return self.close(shared, sp);
                }
                channel.greeted = true;
                if let Some(link) = self.links.get_mut(&sp) {
                    link.back_off = REDIAL_MIN;
                }
                self.events.push_back(LinkEvent::Up(sp, hello.header));
            }
            Frame::Messages(header, messages) if channel.greeted => {
                self.events.push_back(LinkEvent::Messages(sp, header, messages));
            }
            // A datagram that was faster than the hello is lost.
            _ => {}
        }
    }

    /// A connection that a peer has made takes the place of its link.
    fn greet(&mut self, shared: &mut Shared<'_>, connection: ConnectionId, frame: Frame) {
        let Frame::Hello(hello) = frame else { return };
        self.strangers.remove(&connection);
        let sp = hello.header.from;
        let is_good = self.hello.cluster == hello.cluster && hello.header.config == self.hello.header.config;
        if !is_good || !self.links.contains_key(&sp) || sp > self.me {
            return shared.close(connection, self.at);
        }
        self.close(shared, sp);
        let now = shared.instant();
        let channel = Channel { connection, greeted: true, heard_at: now, sent_at: now };
        if let Some(link) = self.links.get_mut(&sp) {
            link.channel = Some(channel);
        }
        self.events.push_back(LinkEvent::Up(sp, hello.header));
    }

    fn link_of(&self, connection: ConnectionId) -> Option<SpId> {
        let is_it = |link: &Link| link.channel.is_some_and(|channel| channel.connection == connection);
        self.links.iter().find(|(_, link)| is_it(link)).map(|(sp, _)| *sp)
    }

    fn close(&mut self, shared: &mut Shared<'_>, sp: SpId) {
        let Some(link) = self.links.get_mut(&sp) else { return };
        let Some(channel) = link.channel.take() else { return };
        let jitter_percent = 50 + self.random.below(100) as u32;
        link.redial_at = shared.instant().after(link.back_off * jitter_percent / 100);
        link.back_off = (link.back_off * 2).min(REDIAL_MAX);
        shared.close(channel.connection, self.at);
        if channel.greeted {
            self.events.push_back(LinkEvent::Down(sp));
        }
    }

    /// Dials, pings, and closes what is dead.
    pub(super) fn handle_timeout(&mut self, shared: &mut Shared<'_>) {
        let now = shared.instant();
        let late: Vec<ConnectionId> =
            self.strangers.iter().filter(|(_, since)| now.since(**since) >= DEAD_AFTER).map(|(id, _)| *id).collect();
        for connection in late {
            self.strangers.remove(&connection);
            shared.close(connection, self.at);
        }
        let mut dead = Vec::new();
        for (sp, link) in &mut self.links {
            match &mut link.channel {
                None if self.me < *sp && link.redial_at <= now => {
                    let connection = shared.dial(self.at, link.host, Service::Peer);
                    link.channel = Some(Channel { connection, greeted: false, heard_at: now, sent_at: now });
                }
                Some(channel) if now.since(channel.heard_at) >= DEAD_AFTER => dead.push(*sp),
                Some(channel) if channel.greeted && now.since(channel.sent_at) >= PING_AFTER => {
                    channel.sent_at = now;
                    let ping = Bytes::copy_from_slice(&wire::encode_ping());
                    shared.send(channel.connection, self.at, Segment::Frame(ping));
                }
                _ => {}
            }
        }
        dead.into_iter().for_each(|sp| self.close(shared, sp));
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let of_link = |(sp, link): (&SpId, &Link)| match &link.channel {
            None => (self.me < *sp).then_some(link.redial_at),
            Some(channel) if channel.greeted => {
                Some(channel.heard_at.after(DEAD_AFTER).min(channel.sent_at.after(PING_AFTER)))
            }
            Some(channel) => Some(channel.heard_at.after(DEAD_AFTER)),
        };
        let strangers = self.strangers.values().map(|since| since.after(DEAD_AFTER));
        self.links.iter().filter_map(of_link).chain(strangers).min()
    }
}
