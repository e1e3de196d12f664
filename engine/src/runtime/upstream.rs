//! HTTP connections to sources, which are storage points or caches: one request at a time on each, kept for the next one.
//! Caches and receivers ask by it. What comes is handed on as it comes to a [`Sink`], which knows where it goes; nothing of a
//! body is gathered here.
//!
//! Bounded: a connection for each request under way, idle ones up to the bound that its owner sets, and one buffer for all
//! that share an [`Io`].

use super::{
    addresses::AddressBook,
    net,
    stream::{ReadResult, Stream},
};
use crate::{
    client::{
        Url,
        response::{Head, Progress, ResponseParser, encode_request},
    },
    protocol::{Duration, Instant},
    tls::ClientTls,
};
use mio::{Registry, Token, Waker, event::Event, net::TcpStream};
use slab::Slab;
use std::{
    io::{self, ErrorKind},
    sync::Arc,
};

/// Idle connections are closed after this, long before a source does so.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
const READ_LEN: usize = 64 << 10;
/// So many reads of one socket before the others have their turn.
const READS_MAX: usize = 8;

/// A `GET`.
#[derive(Debug)]
pub(super) struct UpstreamRequest<'a> {
    /// Which of the sources.
    pub(super) source: usize,
    /// Path and query.
    pub(super) target: &'a str,
    /// Headers beside Host.
    pub(super) headers: &'a [(&'a str, &'a str)],
    /// An answer with more bytes of body is a failure.
    pub(super) body_len_max: u64,
    /// Time without any byte of the answer after which the request has failed.
    pub(super) timeout: Duration,
    /// Time after which it has failed if the answer is not complete, however it dribbles.
    pub(super) timeout_in_all: Duration,
}

/// Why an answer is not complete.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    /// No connection.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// Nothing came in time.
    #[error("it does not answer in time")]
    TimedOut,
    /// The connection broke, or what came is no sound HTTP, or not what was asked for.
    #[error("{0}")]
    Broken(String),
    /// The disk here does not take it: not the source's fault.
    #[error("its answer cannot be stored here: {0}")]
    Disk(String),
}

/// Where answers go. Each begun request ends with one call of [`complete`](Sink::complete) or [`fail`](Sink::fail), unless it
/// is cancelled.
pub(super) trait Sink {
    /// Time after which another address is tried.
    const CONNECT_TIMEOUT: Duration;
    /// What the sink knows of an answer that is coming.
    type Incoming;

    /// The next part of the body, which may be empty; the first time when the head is here. An error ends the exchange.
    fn take(&mut self, incoming: &mut Self::Incoming, head: &Head, part: Vec<u8>) -> Result<(), UpstreamError>;

    /// All of it has been taken.
    fn complete(&mut self, incoming: Self::Incoming, status: u16);

    /// There will be no more.
    fn fail(&mut self, now: Instant, incoming: Self::Incoming, error: UpstreamError);
}

/// What all connections to the sources of a process share.
#[derive(Debug)]
pub(super) struct Io {
    registry: Registry,
    /// Where the sources are.
    pub(super) addresses: AddressBook,
    /// What a socket has is read into this first.
    buffer: Vec<u8>,
}

impl Io {
    /// Looks up the sources' addresses; `waker` is woken when a later look-up is done.
    pub(super) fn new(urls: Vec<Url>, tls: Option<ClientTls>, registry: Registry, waker: Arc<Waker>) -> Io {
        Io { registry, addresses: AddressBook::new(urls, tls, waker), buffer: vec![0; READ_LEN] }
    }

    /// Begins to connect to a source, at the address that is its turn.
    fn dial(&self, source: usize, token: Token) -> io::Result<Stream> {
        let address = self.addresses.current(source).ok_or(ErrorKind::AddrNotAvailable)?;
        let mut stream = Stream::connecting(TcpStream::connect(address)?, self.addresses.session(source)?);
        stream.register(&self.registry, token)?;
        net::prepare(stream.tcp());
        Ok(stream)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Sending,
    Receiving,
    Idle,
}

#[derive(Debug)]
struct Connection<I> {
    stream: Stream,
    source: usize,
    phase: Phase,
    /// In a box, so that idle connections and empty places stay small.
    exchange: Option<Box<Exchange<I>>>,
    /// When the current phase has taken too long.
    deadline: Instant,
    used: bool,
}

/// A request and its answer so far.
#[derive(Debug)]
struct Exchange<I> {
    head: Vec<u8>,
    sent: usize,
    timeout: Duration,
    parser: ResponseParser,
    incoming: I,
    /// When all of it has taken too long.
    deadline: Instant,
    addresses_tried: usize,
}

/// The connections of a cache, or of a receiver.
#[derive(Debug)]
pub(super) struct Upstream<S: Sink> {
    connections: Slab<Connection<S::Incoming>>,
    first_token: usize,
    sockets_max: usize,
    /// Where answers go.
    pub(super) sink: S,
}

impl<S: Sink> Upstream<S> {
    /// No connection yet. `sockets_max` tokens from `first_token` on are its own: so many requests may be under way, and
    /// idle connections make room for them.
    pub(super) fn new(first_token: usize, sockets_max: usize, sink: S) -> Upstream<S> {
        Upstream { connections: Slab::new(), first_token, sockets_max, sink }
    }

    /// When [`expire`](Upstream::expire) is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.connections.iter().map(|(_, connection)| connection.due()).min()
    }

    /// The answers that are awaited.
    pub(super) fn incoming(&self) -> impl Iterator<Item = &S::Incoming> {
        self.connections.iter().filter_map(|(_, connection)| Some(&connection.exchange.as_ref()?.incoming))
    }

    /// Begins a request, on an idle connection if there is one.
    pub(super) fn begin(&mut self, io: &mut Io, now: Instant, request: &UpstreamRequest<'_>, incoming: S::Incoming) {
        let source = request.source;
        let host = io.addresses.url(source).authority();
        let exchange = Box::new(Exchange {
            head: encode_request("GET", &host, request.target, request.headers),
            sent: 0,
            timeout: request.timeout,
            parser: ResponseParser::new(false, request.body_len_max.max(4 << 10)),
            incoming,
            deadline: now.after(request.timeout_in_all),
            addresses_tried: 0,
        });
        let mut idle = self.connections.iter_mut().filter(|(_, connection)| connection.phase == Phase::Idle);
        if let Some((key, connection)) = idle.find(|(_, connection)| connection.source == source) {
            connection.phase = Phase::Sending;
            connection.deadline = now.after(exchange.timeout);
            connection.exchange = Some(exchange);
            return self.drive(io, now, key);
        }
        if self.connections.len() >= self.sockets_max {
            let idle = self.connections.iter().find(|(_, connection)| connection.phase == Phase::Idle);
            let key = idle.map(|(key, _)| key).expect("no more requests than sockets_max");
            self.connections.remove(key);
        }
        let none = UpstreamError::Unreachable("its name has no address".into());
        self.connect(io, now, source, exchange, none);
    }

    /// Nobody wants the answer of which this holds any more.
    pub(super) fn cancel(&mut self, is_it: impl Fn(&S::Incoming) -> bool) {
        self.connections
            .retain(|_, connection| connection.exchange.as_ref().is_none_or(|exchange| !is_it(&exchange.incoming)));
    }

    /// Closes all connections. What was awaited is given back.
    pub(super) fn cancel_all(&mut self) -> impl Iterator<Item = S::Incoming> + use<S> {
        let connections = std::mem::take(&mut self.connections);
        connections.into_iter().filter_map(|(_, connection)| Some(connection.exchange?.incoming))
    }

    /// Connects to the next address; `last` is why there is no other.
    fn connect(
        &mut self,
        io: &mut Io,
        now: Instant,
        source: usize,
        mut exchange: Box<Exchange<S::Incoming>>,
        mut last: UpstreamError,
    ) {
        while exchange.addresses_tried < io.addresses.count(source) {
            exchange.addresses_tried += 1;
            match io.dial(source, self.token(self.connections.vacant_key())) {
                Ok(stream) => {
                    self.connections.insert(Connection {
                        stream,
                        source,
                        phase: Phase::Connecting,
                        exchange: Some(exchange),
                        deadline: now.after(S::CONNECT_TIMEOUT),
                        used: false,
                    });
                    return;
                }
                Err(error) => {
                    last = UpstreamError::Unreachable(error.to_string());
                    io.addresses.turn_to_next(source);
                }
            }
        }
        io.addresses.none_would_do(source, now);
        self.sink.fail(now, exchange.incoming, last);
    }

    fn token(&self, key: usize) -> Token {
        Token(self.first_token + key)
    }

    /// A connection is ready for something.
    pub(super) fn handle_event(&mut self, io: &mut Io, now: Instant, event: &Event) {
        let Some(key) = event.token().0.checked_sub(self.first_token) else { return };
        if let Some(connection) = self.connections.get_mut(key) {
            connection.stream.note(event);
            self.drive(io, now, key);
        }
    }

    /// Ends what has taken too long.
    pub(super) fn expire(&mut self, io: &mut Io, now: Instant) {
        let due = |(_, connection): &(usize, &Connection<_>)| connection.due() <= now;
        let keys: Vec<usize> = self.connections.iter().filter(due).map(|(key, _)| key).collect();
        for key in keys {
            let is_connecting = self.connections[key].phase == Phase::Connecting;
            let error =
                if is_connecting { UpstreamError::Unreachable("no answer".into()) } else { UpstreamError::TimedOut };
            self.fail(io, now, key, error);
        }
        // After a receiver's first walk most of them are gone for good.
        if self.connections.capacity() > 4 * self.connections.len().max(1) {
            self.connections.shrink_to_fit();
        }
    }

    /// Goes on with a connection as far as it goes.
    fn drive(&mut self, io: &mut Io, now: Instant, key: usize) {
        let token = self.token(key);
        let connection = &mut self.connections[key];
        match connection.step(now, &mut io.buffer, &mut self.sink) {
            Ok(Stepped::Waits) => {}
            Ok(Stepped::ReadsOn) => {
                // Readiness is told once only: asking for it anew brings the connection its next turn.
                if let Err(error) = connection.stream.announce_again(&io.registry, token) {
                    self.fail(io, now, key, broken(error));
                }
            }
            Ok(Stepped::Done { keeps }) => {
                let exchange = connection.exchange.take().expect("an answer has its request");
                if keeps {
                    connection.phase = Phase::Idle;
                    connection.deadline = now.after(IDLE_TIMEOUT);
                    connection.used = true;
                } else {
                    self.connections.remove(key);
                }
                let status = exchange.parser.head().map_or(0, |head| head.status);
                self.sink.complete(exchange.incoming, status);
            }
            Err(error) => self.fail(io, now, key, error),
        }
    }

    fn fail(&mut self, io: &mut Io, now: Instant, key: usize, error: UpstreamError) {
        let Connection { source, phase, exchange, used, .. } = self.connections.remove(key);
        let Some(mut exchange) = exchange else { return };
        // A connection that was kept may have been closed before the request reached the source.
        let silent = used && !exchange.parser.has_begun() && matches!(error, UpstreamError::Broken(_));
        if phase == Phase::Connecting {
            io.addresses.turn_to_next(source);
            self.connect(io, now, source, exchange, error);
        } else if silent {
            exchange.sent = 0;
            exchange.addresses_tried = 0;
            self.connect(io, now, source, exchange, error);
        } else {
            self.sink.fail(now, exchange.incoming, error);
        }
    }
}

enum Stepped {
    Waits,
    ReadsOn,
    Done { keeps: bool },
}

fn broken(error: impl ToString) -> UpstreamError {
    UpstreamError::Broken(error.to_string())
}

impl<I> Connection<I> {
    fn due(&self) -> Instant {
        self.exchange.as_ref().map_or(self.deadline, |exchange| self.deadline.min(exchange.deadline))
    }

    fn step<S>(&mut self, now: Instant, buffer: &mut [u8], sink: &mut S) -> Result<Stepped, UpstreamError>
    where
        S: Sink<Incoming = I>,
    {
        if self.phase == Phase::Connecting {
            if let Ok(Some(error)) | Err(error) = self.stream.tcp().take_error() {
                return Err(UpstreamError::Unreachable(error.to_string()));
            }
            match self.stream.peer_addr() {
                Ok(_) => self.phase = Phase::Sending,
                Err(error) if matches!(error.kind(), ErrorKind::NotConnected | ErrorKind::WouldBlock) => {
                    return Ok(Stepped::Waits);
                }
                Err(error) => return Err(UpstreamError::Unreachable(error.to_string())),
            }
            self.renew(now);
        }
        if self.phase == Phase::Sending && !self.send()? {
            return Ok(Stepped::Waits);
        }
        self.receive(now, buffer, sink)
    }

    fn renew(&mut self, now: Instant) {
        if let Some(exchange) = &self.exchange {
            self.deadline = now.after(exchange.timeout);
        }
    }

    /// Whether all of the request is sent.
    fn send(&mut self) -> Result<bool, UpstreamError> {
        let Some(exchange) = &mut self.exchange else { return Ok(true) };
        while exchange.sent < exchange.head.len() {
            match self.stream.write(&exchange.head[exchange.sent..]).map_err(broken)? {
                0 => return Ok(false),
                len => exchange.sent += len,
            }
        }
        self.phase = Phase::Receiving;
        Ok(true)
    }

    fn receive<S>(&mut self, now: Instant, buffer: &mut [u8], sink: &mut S) -> Result<Stepped, UpstreamError>
    where
        S: Sink<Incoming = I>,
    {
        for _ in 0..READS_MAX {
            let len = match self.stream.read(buffer).map_err(broken)? {
                ReadResult::Bytes(len) => len,
                ReadResult::Blocked => return Ok(Stepped::Waits),
                ReadResult::End => 0,
            };
            let Some(exchange) = &mut self.exchange else {
                // Nothing was asked: the end, or noise.
                return Err(broken("closed"));
            };
            let Exchange { parser, incoming, .. } = &mut **exchange;
            if len == 0 {
                parser.end().map_err(broken)?;
                return Ok(Stepped::Done { keeps: false });
            }
            let progress = parser.push(&buffer[..len]).map_err(broken)?;
            let part = parser.take_body();
            if let Some(head) = parser.head() {
                sink.take(incoming, head, part)?;
            }
            if let Progress::Done { unread } = progress {
                return Ok(Stepped::Done { keeps: unread == 0 && parser.keeps_alive() });
            }
            self.renew(now);
        }
        Ok(Stepped::ReadsOn)
    }
}

#[cfg(test)]
#[path = "upstream_tests.rs"]
mod tests;
