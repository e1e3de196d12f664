//! Links to the other storage points: one TCP connection for each pair, dialled by the one with the smaller id.
//!
//! Invariant: nothing but a hello is sent before the other end's hello with equal cluster, epoch and configuration has
//! come, so that a paused peer gets no publications into its socket buffers by a fresh connection.

use crate::{
    protocol::{Duration, Instant, Message, SpId, message::Header},
    runtime::net,
    wire::{self, Decoder, Frame, Hello},
};
use bytes::Bytes;
use mio::{Interest, Registry, Token, net::TcpStream};
use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Read as _, Write as _},
    net::SocketAddr,
};

const PING_AFTER: Duration = Duration::from_secs(1);
const DEAD_AFTER: Duration = Duration::from_secs(4);
const REDIAL_MIN: Duration = Duration::from_millis(50);
const REDIAL_MAX: Duration = Duration::from_secs(1);
/// More than this unsent closes the link; what it would have carried is sent again later.
const QUEUED_LEN_MAX: usize = 64 << 20;
/// Bytes taken from one link before others have their turn.
const READ_BUDGET: usize = 1 << 20;
/// Connections that have not said hello yet.
const STRANGERS_MAX: usize = 64;
/// A link that is down for less is nothing to speak of: a cluster's processes start one after the other.
const COMPLAIN_AFTER: Duration = Duration::from_secs(2);
/// A problem with a peer is said this often at most.
const COMPLAIN_EVERY: Duration = Duration::from_secs(30);

/// First token of links; the id of the SP is added.
const LINK_TOKENS: usize = 64;
/// First token of strangers.
const STRANGER_TOKENS: usize = 128;
/// Tokens from here on are not of peers.
pub(super) const TOKENS_END: usize = STRANGER_TOKENS + STRANGERS_MAX;

/// What a link has to say.
#[derive(Debug)]
pub(super) enum LinkEvent {
    /// The peer has said hello; everything of its header holds from now on.
    Up(SpId, Header),
    /// The link is gone.
    Down(SpId),
    /// Messages came.
    Messages(SpId, Header, Vec<Message>),
}

#[derive(Debug)]
struct Channel {
    stream: TcpStream,
    decoder: Decoder,
    /// Frames of the protocol, before those that carry contents.
    control: VecDeque<Bytes>,
    bulk: VecDeque<Bytes>,
    /// What is being written, and how much of it is.
    current: Option<(Bytes, usize)>,
    queued_len: usize,
    greeted: bool,
    readable: bool,
    writable: bool,
    /// The peer has ended its side, or the kernel says so.
    ended: bool,
    heard_at: Instant,
    sent_at: Instant,
}

#[derive(Debug)]
struct Link {
    addr: SocketAddr,
    channel: Option<Channel>,
    redial_at: Instant,
    back_off: Duration,
    down_since: Instant,
    complained_at: Option<Instant>,
}

/// All links of this storage point.
#[derive(Debug)]
pub(super) struct Peers {
    me: SpId,
    hello: Hello,
    links: BTreeMap<SpId, Link>,
    strangers: BTreeMap<usize, Channel>,
    random: u64,
    buffer: Box<[u8]>,
    events: VecDeque<LinkEvent>,
}

impl Peers {
    pub(super) fn new(me: SpId, hello: Hello, members: &[(SpId, SocketAddr)], seed: u64, now: Instant) -> Peers {
        let link = |addr| Link {
            addr,
            channel: None,
            redial_at: now,
            back_off: REDIAL_MIN,
            down_since: now,
            complained_at: None,
        };
        let others = members.iter().filter(|(sp, _)| *sp != me);
        Peers {
            me,
            hello,
            links: others.map(|(sp, addr)| (*sp, link(*addr))).collect(),
            strangers: BTreeMap::new(),
            random: seed | 1,
            buffer: vec![0; 256 << 10].into(),
            events: VecDeque::new(),
        }
    }

    /// The next thing that a link has to say.
    pub(super) fn poll_event(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    /// Links that are up: (peer, bytes not yet sent).
    pub(super) fn up(&self) -> impl Iterator<Item = (SpId, usize)> + '_ {
        let greeted = |link: &'_ Link| link.channel.as_ref().filter(|c| c.greeted).map(|c| c.queued_len);
        self.links.iter().filter_map(move |(sp, link)| Some((*sp, greeted(link)?)))
    }

    /// Takes a connection that someone made to this SP.
    pub(super) fn accept(&mut self, registry: &Registry, stream: TcpStream, now: Instant) {
        let free = (STRANGER_TOKENS..TOKENS_END).find(|token| !self.strangers.contains_key(token));
        let Some(token) = free else { return };
        match Channel::new(registry, stream, Token(token), &self.hello, now) {
            Ok(mut channel) => {
                channel.writable = true;
                let _ = channel.write();
                self.strangers.insert(token, channel);
            }
            Err(error) => tracing::warn!("a peer's connection cannot be taken: {error}"),
        }
    }

    /// A descriptor of a link is ready.
    pub(super) fn handle_ready(&mut self, registry: &Registry, event: &mio::event::Event, now: Instant) {
        let token = event.token().0;
        let channel = match token {
            STRANGER_TOKENS.. => self.strangers.get_mut(&token),
            _ => self.links.get_mut(&link_sp(token)).and_then(|link| link.channel.as_mut()),
        };
        let Some(channel) = channel else { return };
        channel.ended |= event.is_error() || event.is_read_closed();
        channel.readable |= event.is_readable() || channel.ended;
        channel.writable |= event.is_writable();
        match token {
            STRANGER_TOKENS.. => self.greet(registry, token, now),
            _ => self.read_link(link_sp(token), now),
        }
    }

    /// Whether a budget ended a reading before the socket was empty.
    pub(super) fn has_more(&self) -> bool {
        self.links.values().any(|link| link.channel.as_ref().is_some_and(|channel| channel.readable))
    }

    /// Reads on where a budget ended a reading.
    pub(super) fn read_on(&mut self, now: Instant) {
        let readable = |link: &Link| link.channel.as_ref().is_some_and(|channel| channel.readable);
        let waiting: Vec<SpId> = self.links.iter().filter(|(_, link)| readable(link)).map(|(sp, _)| *sp).collect();
        waiting.into_iter().for_each(|sp| self.read_link(sp, now));
    }

    fn read_link(&mut self, sp: SpId, now: Instant) {
        let Some(link) = self.links.get_mut(&sp) else { return };
        let Some(channel) = &mut link.channel else { return };
        let mut budget = READ_BUDGET;
        let ended = loop {
            match channel.next_frame(&mut self.buffer, &mut budget, now) {
                Ok(Some(Frame::Hello(hello))) if !channel.greeted => {
                    match check_hello(&self.hello, &hello).and_then(|()| is_from(&hello, sp)) {
                        Ok(()) => {
                            channel.greeted = true;
                            link.back_off = REDIAL_MIN;
                            self.events.push_back(LinkEvent::Up(sp, hello.header));
                        }
                        Err(problem) => break Some(problem),
                    }
                }
                Ok(Some(Frame::Messages(header, messages))) if channel.greeted && header.from == sp => {
                    self.events.push_back(LinkEvent::Messages(sp, header, messages));
                }
                Ok(Some(Frame::Ping)) if channel.greeted => {}
                Ok(Some(_)) => break Some("it sends frames out of turn".to_owned()),
                Ok(None) => break None,
                Err(problem) => break Some(problem),
            }
        };
        if let Some(problem) = ended {
            self.close(sp, &problem, now);
        }
    }

    /// Reads the hello of a connection that a peer has made, which then takes the place of its link.
    fn greet(&mut self, registry: &Registry, token: usize, now: Instant) {
        let Some(mut channel) = self.strangers.remove(&token) else { return };
        let _ = channel.write();
        let hello = match channel.next_frame(&mut self.buffer, &mut READ_BUDGET.clone(), now) {
            Ok(None) => {
                self.strangers.insert(token, channel);
                return;
            }
            Ok(Some(Frame::Hello(hello))) => hello,
            Ok(Some(_)) | Err(_) => return,
        };
        let sp = hello.header.from;
        let Some(link) = self.links.get_mut(&sp).filter(|_| sp < self.me) else {
            tracing::warn!("a stranger says that it is storage point {sp} of {}; refused", hello.cluster);
            return;
        };
        if let Err(problem) = check_hello(&self.hello, &hello) {
            link.complain(sp, &problem, now);
            return;
        }
        if registry.reregister(&mut channel.stream, link_token(sp), Interest::READABLE | Interest::WRITABLE).is_err() {
            return;
        }
        self.close(sp, "it has connected again", now);
        channel.greeted = true;
        let Some(link) = self.links.get_mut(&sp) else { return };
        link.channel = Some(channel);
        self.events.push_back(LinkEvent::Up(sp, hello.header));
        self.read_link(sp, now);
    }

    fn close(&mut self, sp: SpId, problem: &str, now: Instant) {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let jitter_percent = 50 + (self.random % 100) as u32;
        let Some(link) = self.links.get_mut(&sp) else { return };
        let Some(channel) = link.channel.take() else { return };
        link.redial_at = now.after(link.back_off * jitter_percent / 100);
        link.back_off = (link.back_off * 2).min(REDIAL_MAX);
        if channel.greeted {
            link.down_since = now;
            tracing::info!("the link to storage point {sp} is down: {problem}");
            self.events.push_back(LinkEvent::Down(sp));
        } else {
            link.complain(sp, problem, now);
        }
    }

    /// Queues messages as frames; those that carry contents go behind all others.
    pub(super) fn send(&mut self, sp: SpId, frames: Vec<Vec<u8>>, is_bulk: bool) {
        let Some(channel) = self.links.get_mut(&sp).and_then(|link| link.channel.as_mut()) else { return };
        if channel.greeted {
            let queue = if is_bulk { &mut channel.bulk } else { &mut channel.control };
            for frame in frames {
                channel.queued_len += frame.len();
                queue.push_back(frame.into());
            }
        }
    }

    /// Whether messages to `sp` can be sent.
    pub(super) fn is_up(&self, sp: SpId) -> bool {
        self.links.get(&sp).and_then(|link| link.channel.as_ref()).is_some_and(|channel| channel.greeted)
    }

    /// Writes what is queued, as far as sockets take it.
    pub(super) fn flush(&mut self, now: Instant) {
        let mut broken = Vec::new();
        for (sp, link) in &mut self.links {
            let Some(channel) = &mut link.channel else { continue };
            if channel.queued_len > 0 && channel.writable {
                match channel.write() {
                    Ok(true) => channel.sent_at = now,
                    Ok(false) => {}
                    Err(error) => broken.push((*sp, error.to_string())),
                }
            }
            // Of what the socket has not taken.
            if channel.queued_len > QUEUED_LEN_MAX {
                broken.push((*sp, "too much waits to be sent to it".to_owned()));
            }
        }
        broken.into_iter().for_each(|(sp, problem)| self.close(sp, &problem, now));
    }

    /// Dials, pings, and closes what is dead.
    pub(super) fn handle_timeout(&mut self, registry: &Registry, now: Instant) {
        self.strangers.retain(|_, channel| now.since(channel.heard_at) < DEAD_AFTER);
        let mut dead = Vec::new();
        for (sp, link) in &mut self.links {
            match &mut link.channel {
                None if self.me < *sp && link.redial_at <= now => {
                    if let Err(error) = link.dial(registry, *sp, &self.hello, now) {
                        link.redial_at = now.after(REDIAL_MAX);
                        link.complain(*sp, &error.to_string(), now);
                    }
                }
                Some(channel) if now.since(channel.heard_at) >= DEAD_AFTER => dead.push(*sp),
                Some(channel) if channel.greeted && now.since(channel.sent_at) >= PING_AFTER => {
                    channel.sent_at = now;
                    channel.queued_len += wire::HEAD_LEN;
                    channel.control.push_back(Bytes::copy_from_slice(&wire::encode_ping()));
                }
                _ => {}
            }
        }
        dead.into_iter().for_each(|sp| self.close(sp, "nothing was heard of it for 4 s", now));
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
        let strangers = self.strangers.values().map(|channel| channel.heard_at.after(DEAD_AFTER));
        self.links.iter().filter_map(of_link).chain(strangers).min()
    }
}

/// Whether a token is of a peer's link.
pub(super) fn is_peer(token: Token) -> bool {
    (LINK_TOKENS..TOKENS_END).contains(&token.0)
}

fn link_token(sp: SpId) -> Token {
    Token(LINK_TOKENS + usize::from(sp.0))
}

fn link_sp(token: usize) -> SpId {
    SpId((token - LINK_TOKENS) as u8)
}

fn check_hello(mine: &Hello, theirs: &Hello) -> Result<(), String> {
    if mine.cluster != theirs.cluster {
        return Err(format!("it belongs to cluster {:?}, this one to {:?}", theirs.cluster, mine.cluster));
    }
    if (mine.header.epoch, mine.header.config) != (theirs.header.epoch, theirs.header.config) {
        let (theirs, mine) = (theirs.header.epoch, mine.header.epoch);
        return Err(format!("its configuration (epoch {theirs}) differs from this one's (epoch {mine})"));
    }
    Ok(())
}

fn is_from(hello: &Hello, sp: SpId) -> Result<(), String> {
    if hello.header.from == sp { Ok(()) } else { Err(format!("storage point {} answers there", hello.header.from)) }
}

impl Link {
    fn dial(&mut self, registry: &Registry, sp: SpId, hello: &Hello, now: Instant) -> io::Result<()> {
        let stream = TcpStream::connect(self.addr)?;
        self.channel = Some(Channel::new(registry, stream, link_token(sp), hello, now)?);
        Ok(())
    }

    fn complain(&mut self, sp: SpId, problem: &str, now: Instant) {
        let is_news = now.since(self.down_since) >= COMPLAIN_AFTER;
        if is_news && self.complained_at.is_none_or(|at| now.since(at) >= COMPLAIN_EVERY) {
            self.complained_at = Some(now);
            tracing::warn!("no link to storage point {sp}: {problem}");
        }
    }
}

impl Channel {
    fn new(
        registry: &Registry,
        mut stream: TcpStream,
        token: Token,
        hello: &Hello,
        now: Instant,
    ) -> io::Result<Channel> {
        net::prepare(&stream);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let hello = wire::encode_hello(hello).map_err(io::Error::other)?;
        Ok(Channel {
            stream,
            decoder: Decoder::expecting_hello(),
            queued_len: hello.len(),
            control: VecDeque::from([hello.into()]),
            bulk: VecDeque::new(),
            current: None,
            greeted: false,
            readable: false,
            writable: false,
            ended: false,
            heard_at: now,
            sent_at: now,
        })
    }

    /// The next frame, read from the socket as far as needed and as `budget` allows.
    fn next_frame(&mut self, buffer: &mut [u8], budget: &mut usize, now: Instant) -> Result<Option<Frame>, String> {
        loop {
            match self.decoder.next() {
                Ok(Some(frame)) => return Ok(Some(frame)),
                Ok(None) => {}
                Err(error) => return Err(error.to_string()),
            }
            if !self.readable || *budget == 0 {
                return Ok(None);
            }
            match self.stream.read(buffer) {
                Ok(0) => return Err("it closed the connection".to_owned()),
                Ok(len) => {
                    // A short read has emptied the socket: what comes later is announced anew, and so is its end.
                    self.readable = len == buffer.len() || self.ended;
                    *budget = budget.saturating_sub(len);
                    self.heard_at = now;
                    self.decoder.push(&buffer[..len]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Writes until nothing is left or the socket is full; whether anything was written.
    fn write(&mut self) -> io::Result<bool> {
        let mut any = false;
        while self.writable {
            let next = || self.control.pop_front().or_else(|| self.bulk.pop_front()).map(|frame| (frame, 0));
            let Some((frame, written)) = self.current.take().or_else(next) else { break };
            match self.stream.write(&frame[written..]) {
                Ok(len) => {
                    any = true;
                    self.queued_len -= len;
                    if written + len < frame.len() {
                        self.current = Some((frame, written + len));
                    }
                }
                Err(error) => {
                    self.current = Some((frame, written));
                    match error.kind() {
                        io::ErrorKind::WouldBlock => self.writable = false,
                        io::ErrorKind::Interrupted => {}
                        _ => return Err(error),
                    }
                }
            }
        }
        Ok(any)
    }
}
