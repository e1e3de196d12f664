//! Links to the other storage points over TCP: what [`Links`] wants, done with sockets.

use crate::{
    protocol::{Duration, Instant, SpId, message::Header},
    runtime::{
        net,
        refusals::Refusals,
        stream::{ReadResult, Stream},
    },
    tls::{Identity, ServerTls, Session},
    wire::{
        Hello, WireError,
        link::{Action, LinkEvent, Links},
    },
};
use mio::{Registry, Token, net::TcpStream};
use std::{collections::BTreeMap, io, mem, net::SocketAddr, sync::Arc};

/// Bytes taken from one link before others have their turn.
const READ_BUDGET: usize = 1 << 20;
/// A link that is down for less is nothing to speak of: a cluster's processes start one after the other.
const COMPLAIN_AFTER: Duration = Duration::from_secs(2);
/// A problem with a peer is said this often at most.
const COMPLAIN_EVERY: Duration = Duration::from_secs(30);

/// Tokens of peers' connections: one for each link, and as many for those who have not said who they are.
const FIRST_TOKEN: usize = 64;
/// Tokens from here on are not of peers.
pub(super) const TOKENS_END: usize = FIRST_TOKEN + 128;

#[derive(Debug)]
struct Socket {
    stream: Stream,
    /// By the other end.
    was_accepted: bool,
    /// The links know whose certificate it is.
    is_certified: bool,
}

/// What is said of a peer in the log.
#[derive(Debug)]
struct Peer {
    addr: SocketAddr,
    down_since: Instant,
    complained_at: Option<Instant>,
    /// Why there is no link, if somebody knows.
    problem: Option<String>,
}

/// All links of this storage point.
#[derive(Debug)]
pub(super) struct Peers {
    links: Links<usize>,
    peers: BTreeMap<SpId, Peer>,
    /// By token.
    sockets: BTreeMap<usize, Socket>,
    last_token: usize,
    /// Certificates; none: nothing is encrypted.
    tls: Option<Arc<ServerTls>>,
    /// What came to nothing because of TLS.
    pub(super) refusals: Refusals,
    registry: Registry,
    buffer: Box<[u8]>,
}

impl Peers {
    pub(super) fn new(
        me: SpId,
        hello: Hello,
        members: &[(SpId, SocketAddr)],
        tls: Option<Arc<ServerTls>>,
        seed: u64,
        registry: Registry,
        now: Instant,
    ) -> Result<Peers, WireError> {
        let others = members.iter().filter(|(sp, _)| *sp != me);
        let peer = |addr| Peer { addr, down_since: now, complained_at: None, problem: None };
        Ok(Peers {
            links: Links::new(me, hello, others.clone().map(|(sp, _)| *sp), seed, now)?,
            peers: others.map(|(sp, addr)| (*sp, peer(*addr))).collect(),
            sockets: BTreeMap::new(),
            last_token: TOKENS_END - 1,
            tls,
            refusals: Refusals::default(),
            registry,
            buffer: vec![0; 256 << 10].into(),
        })
    }

    /// The next thing that a link has to say.
    pub(super) fn poll_event(&mut self, now: Instant) -> Option<LinkEvent> {
        let event = self.links.poll_event()?;
        match &event {
            LinkEvent::Down(sp, problem) => {
                tracing::info!("the link to storage point {sp} is down: {problem}");
                if let Some(peer) = self.peers.get_mut(sp) {
                    peer.down_since = now;
                    peer.problem = Some(problem.clone());
                }
            }
            LinkEvent::Failed(sp, problem) => match self.peers.get_mut(sp) {
                Some(peer) => peer.complain(*sp, problem, now),
                None => tracing::warn!("{problem}; refused"),
            },
            _ => {}
        }
        Some(event)
    }

    /// How many connections were refused, by reason.
    pub(super) fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.links.refused()
    }

    /// Links that are up: (peer, bytes not yet sent).
    pub(super) fn up(&self) -> impl Iterator<Item = (SpId, usize)> + '_ {
        self.links.up()
    }

    /// Since when there is no link to `sp`, and why, if that is known.
    pub(super) fn down(&self, sp: SpId) -> Option<(Instant, Option<&str>)> {
        let peer = self.peers.get(&sp).filter(|_| !self.is_up(sp))?;
        Some((peer.down_since, peer.problem.as_deref()))
    }

    /// Certificates for connections that begin from now on.
    pub(super) fn set_tls(&mut self, tls: Option<Arc<ServerTls>>) {
        self.tls = tls;
    }

    /// Takes a connection that someone made to this SP.
    pub(super) fn accept(&mut self, tcp: TcpStream, now: Instant) {
        let session = self.tls.as_ref().map(|tls| Session::server(&tls.peer)).transpose();
        match session.and_then(|session| self.register(Stream::accepted(tcp, session), true)) {
            Ok(Some(token)) => {
                if !self.links.accepted(token, now) {
                    self.sockets.remove(&token);
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!("a peer's connection cannot be taken: {error}"),
        }
    }

    fn dial(&mut self, sp: SpId, addr: SocketAddr) -> io::Result<Option<usize>> {
        let session = match &self.tls {
            // The name is not looked at: whom the certificate must name is part of the configuration.
            Some(tls) => Some(Session::client(&tls.dial(sp)?, addr.ip().into())?),
            None => None,
        };
        self.register(Stream::connecting(TcpStream::connect(addr)?, session), false)
    }

    fn register(&mut self, mut stream: Stream, was_accepted: bool) -> io::Result<Option<usize>> {
        // The one used longest ago, so that what the kernel still has to say of an old one meets no new one.
        let tokens = (self.last_token + 1..TOKENS_END).chain(FIRST_TOKEN..=self.last_token);
        let Some(token) = tokens.into_iter().find(|token| !self.sockets.contains_key(token)) else { return Ok(None) };
        net::prepare(stream.tcp());
        stream.register(&self.registry, Token(token))?;
        self.last_token = token;
        self.sockets.insert(token, Socket { stream, was_accepted, is_certified: false });
        Ok(Some(token))
    }

    /// A descriptor of a link is ready.
    pub(super) fn handle_ready(&mut self, event: &mio::event::Event, now: Instant) {
        let token = event.token().0;
        let Some(socket) = self.sockets.get_mut(&token) else { return };
        socket.stream.note(event);
        match socket.stream.advance() {
            Ok(()) => self.read(token, now),
            Err(error) => self.broken(token, &error, now),
        }
    }

    /// Whether a budget ended a reading before the socket was empty.
    pub(super) fn has_more(&self) -> bool {
        self.sockets.values().any(|socket| socket.stream.is_readable())
    }

    /// Reads on where a budget ended a reading.
    pub(super) fn read_on(&mut self, now: Instant) {
        let readable = self.sockets.iter().filter(|(_, socket)| socket.stream.is_readable());
        let waiting: Vec<usize> = readable.map(|(token, _)| *token).collect();
        waiting.into_iter().for_each(|token| self.read(token, now));
    }

    fn read(&mut self, token: usize, now: Instant) {
        let mut budget = READ_BUDGET;
        while let Some(socket) = self.sockets.get_mut(&token).filter(|socket| socket.stream.is_readable() && budget > 0)
        {
            match socket.stream.read(&mut self.buffer) {
                Ok(ReadResult::Blocked) => {}
                Ok(ReadResult::End) => self.lost(token, "it closed the connection", now),
                Ok(ReadResult::Bytes(len)) => {
                    budget = budget.saturating_sub(len);
                    if !mem::replace(&mut socket.is_certified, true)
                        && let Some(Identity::StoragePoint { sp, .. }) = socket.stream.identity()
                    {
                        self.links.certified(token, sp);
                    }
                    self.links.received(token, &self.buffer[..len], now);
                    self.act(now);
                }
                Err(error) => self.broken(token, &error, now),
            }
        }
    }

    /// A connection has failed. Of those that were dialled the links tell.
    fn broken(&mut self, token: usize, error: &io::Error, now: Instant) {
        match self.sockets.get(&token) {
            Some(Socket { was_accepted: true, stream, .. }) => {
                self.refusals.note("a link", stream.peer_addr().ok(), error, now);
            }
            _ => self.refusals.count(error),
        }
        self.lost(token, &error.to_string(), now);
    }

    fn lost(&mut self, token: usize, problem: &str, now: Instant) {
        self.sockets.remove(&token);
        self.links.closed(token, problem, now);
    }

    /// Does what the links ask for.
    fn act(&mut self, now: Instant) {
        while let Some(action) = self.links.poll_action() {
            match action {
                Action::Close(token) => drop(self.sockets.remove(&token)),
                Action::Dial(sp) => {
                    let Some(addr) = self.peers.get(&sp).map(|peer| peer.addr) else { continue };
                    match self.dial(sp, addr) {
                        Ok(Some(token)) => self.links.dialled(sp, token, now),
                        Ok(None) => self.links.not_dialled(sp, "there are too many connections".to_owned(), now),
                        Err(error) => self.links.not_dialled(sp, error.to_string(), now),
                    }
                }
            }
        }
    }

    /// What hellos say from now on.
    pub(super) fn set_header(&mut self, header: Header) {
        self.links.set_header(header);
    }

    /// Queues messages as frames; those that carry contents go behind all others.
    pub(super) fn send(&mut self, sp: SpId, frames: Vec<Vec<u8>>, is_bulk: bool) {
        self.links.send(sp, frames, is_bulk);
    }

    /// The version of the protocol that the link to `sp` has.
    pub(super) fn version(&self, sp: SpId) -> Option<u8> {
        self.links.version(sp)
    }

    /// Whether messages to `sp` can be sent.
    pub(super) fn is_up(&self, sp: SpId) -> bool {
        self.links.is_up(sp)
    }

    /// Writes what is queued, as far as sockets take it.
    pub(super) fn flush(&mut self, now: Instant) {
        self.act(now);
        let mut broken = Vec::new();
        for (token, socket) in self.sockets.iter_mut().filter(|(_, socket)| socket.stream.is_writable()) {
            if let Err(error) = write(&mut socket.stream, &mut self.links, *token, now) {
                broken.push((*token, error));
            }
        }
        broken.into_iter().for_each(|(token, error)| self.broken(token, &error, now));
        self.links.close_overfull(now);
        self.act(now);
    }

    /// Dials, pings, and closes what is dead.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.links.handle_timeout(now);
        self.act(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.links.poll_timeout()
    }
}

/// Whether a token is of a peer's link.
pub(super) fn is_peer(token: Token) -> bool {
    (FIRST_TOKEN..TOKENS_END).contains(&token.0)
}

impl Peer {
    fn complain(&mut self, sp: SpId, problem: &str, now: Instant) {
        self.problem = Some(problem.to_owned());
        let is_news = now.since(self.down_since) >= COMPLAIN_AFTER;
        if is_news && self.complained_at.is_none_or(|at| now.since(at) >= COMPLAIN_EVERY) {
            self.complained_at = Some(now);
            tracing::warn!("no link to storage point {sp}: {problem}");
        }
    }
}

/// Writes until nothing is left or the socket is full.
fn write(stream: &mut Stream, links: &mut Links<usize>, token: usize, now: Instant) -> io::Result<()> {
    while stream.is_writable() {
        let unsent = links.unsent(token);
        if unsent.is_empty() {
            break;
        }
        match stream.write(&unsent)? {
            0 => {}
            len => links.wrote(token, len, now),
        }
    }
    Ok(())
}
