//! HTTP connections to the sources, all on one event loop: one request at a time on each, kept for the next one.
//!
//! Bounded: a connection for each feed and so many more, each with one buffer of its answer; requests beyond wait here.

use super::staging::{Staging, StagingArea};
use crate::{
    client::response::{Progress, ResponseError, ResponseParser, encode_request},
    protocol::{
        Duration, Instant,
        receiver::{Body, Failure, Request, RequestId, RequestKind},
    },
    runtime::{
        addresses::AddressBook,
        net,
        stream::{ReadResult, Stream},
    },
};
use mio::{Registry, Token, event::Event, net::TcpStream};
use slab::Slab;
use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Idle connections are closed after this, long before a source does so.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// An answer in memory must be complete after so many time-outs, however it dribbles.
const TIMEOUTS_MAX: u32 = 4;
/// Slowest rate at which a large content may come.
const RATE_MIN_BYTES_PER_S: u64 = 16 << 10;
/// Bytes of the buffer that [`Io`] brings.
pub(super) const READ_LEN: usize = 64 << 10;
/// Tokens of one receiver's connections, and so the most that it can have.
pub(super) const TOKENS: usize = 64;
/// So many reads of one socket before the others have their turn.
const READS_MAX: usize = 8;

/// How a request ended.
pub(super) type Outcome = (RequestId, Result<(u16, Body), Failure>);

/// What the connections of all receivers of a process share.
pub(super) struct Io<'a> {
    /// Of the event loop.
    pub(super) registry: &'a Registry,
    /// Where the sources are.
    pub(super) addresses: &'a mut AddressBook,
    /// What a socket has is read into this first.
    pub(super) buffer: &'a mut [u8],
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Sending,
    Receiving,
    Idle,
}

#[derive(Debug)]
struct Connection {
    stream: Stream,
    source: usize,
    phase: Phase,
    exchange: Option<Box<Exchange>>,
    /// When the current phase has taken too long.
    deadline: Instant,
    used: bool,
}

/// A request and its answer so far.
#[derive(Debug)]
struct Exchange {
    request: Request,
    head: Vec<u8>,
    sent: usize,
    parser: ResponseParser,
    memory: Vec<u8>,
    staging: Option<Staging>,
    /// What is staged is as the head of the answer has it.
    has_begun: bool,
    /// When all of it has taken too long.
    deadline: Instant,
    addresses_tried: usize,
}

/// All connections.
#[derive(Debug)]
pub(super) struct Connections {
    connections: Slab<Connection>,
    first_token: usize,
    /// Most exchanges at once beside those that a source holds.
    unheld_max: usize,
    /// Most connections: idle ones make room for others.
    sockets_max: usize,
    waiting: VecDeque<Box<Exchange>>,
    pub(super) staging: StagingArea,
    outcomes: Vec<Outcome>,
}

impl Connections {
    /// None yet. Tokens are those from `first_token` on, [`TOKENS`] of them. Sources hold `feeds` requests at most.
    pub(super) fn new(first_token: usize, feeds: usize, unheld_max: usize, staging: StagingArea) -> Connections {
        let unheld_max = unheld_max.max(1);
        Connections {
            connections: Slab::new(),
            first_token,
            unheld_max,
            sockets_max: feeds + unheld_max,
            waiting: VecDeque::new(),
            staging,
            outcomes: Vec::new(),
        }
    }

    /// When [`expire`](Connections::expire) is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.connections.iter().map(|(_, connection)| connection.due()).min()
    }

    /// What has ended since.
    pub(super) fn take_outcomes(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.outcomes)
    }

    /// Drops every exchange and connection. What has come of large contents is of use to the next source.
    pub(super) fn cancel_all(&mut self, now: Instant) {
        let under_way =
            std::mem::take(&mut self.connections).into_iter().filter_map(|(_, connection)| connection.exchange);
        let waiting = std::mem::take(&mut self.waiting);
        under_way.chain(waiting).for_each(|exchange| exchange.keep(now, &mut self.staging));
        for (_, outcome) in self.outcomes.drain(..) {
            if let Ok((_, Body::Staged(id))) = outcome {
                self.staging.discard(id);
            }
        }
    }

    /// Takes a request. It begins with the next [`begin_waiting`](Connections::begin_waiting), if there is room.
    pub(super) fn ask(&mut self, io: &mut Io<'_>, now: Instant, request: Request) {
        let host = io.addresses.url(request.source).authority();
        let staging = match request.kind {
            RequestKind::LargeContent { hash } => self.staging.resume(&hash),
            _ => None,
        };
        let range = staging.as_ref().map(|staging| format!("bytes={}-", staging.len()));
        let headers =
            [("User-Agent", "acms-receiver")].into_iter().chain(range.as_deref().map(|range| ("Range", range)));
        let exchange = Box::new(Exchange {
            head: encode_request("GET", &host, &request.target, &headers.collect::<Vec<_>>()),
            sent: 0,
            parser: ResponseParser::new(false, request.body_len_max.max(4 << 10)),
            memory: Vec::new(),
            staging,
            has_begun: false,
            deadline: now,
            addresses_tried: 0,
            request,
        });
        self.waiting.push_back(exchange);
    }

    /// Begins as many of the requests that wait as there is room for.
    pub(super) fn begin_waiting(&mut self, io: &mut Io<'_>, now: Instant) {
        let exchanges = self.connections.iter().filter_map(|(_, connection)| connection.exchange.as_ref());
        let mut room = self.unheld_max.saturating_sub(exchanges.filter(|exchange| !exchange.is_held()).count());
        let mut at = 0;
        while let Some(exchange) = self.waiting.get(at) {
            if !exchange.is_held() {
                if room == 0 {
                    at += 1;
                    continue;
                }
                room -= 1;
            }
            if let Some(exchange) = self.waiting.remove(at) {
                self.begin(io, now, exchange);
            }
        }
    }

    /// Begins an exchange, on an idle connection if there is one.
    fn begin(&mut self, io: &mut Io<'_>, now: Instant, mut exchange: Box<Exchange>) {
        let request = &exchange.request;
        let overall = match request.kind {
            RequestKind::LargeContent { .. } => Duration::from_secs(request.body_len_max / RATE_MIN_BYTES_PER_S),
            _ => Duration::ZERO,
        };
        exchange.deadline = now.after(request.timeout * TIMEOUTS_MAX + overall);
        let idle = |(_, connection): &(usize, &mut Connection)| {
            connection.phase == Phase::Idle && connection.source == exchange.request.source
        };
        if let Some((key, connection)) = self.connections.iter_mut().find(idle) {
            connection.phase = Phase::Sending;
            connection.deadline = now.after(exchange.request.timeout);
            connection.exchange = Some(exchange);
            self.drive(io, now, key);
            return;
        }
        let is_idle = |(_, connection): &(usize, &Connection)| connection.phase == Phase::Idle;
        if self.connections.len() >= self.sockets_max
            && let Some((key, _)) = self.connections.iter().find(is_idle)
        {
            self.connections.remove(key);
        }
        let none = Failure::Unreachable("its name has no address".into());
        self.connect(io, now, exchange, none);
    }

    /// Connects to the next address; `last` is why there is no other.
    fn connect(&mut self, io: &mut Io<'_>, now: Instant, mut exchange: Box<Exchange>, mut last: Failure) {
        let source = exchange.request.source;
        while exchange.addresses_tried < io.addresses.count(source) && self.connections.len() < TOKENS {
            exchange.addresses_tried += 1;
            let Some(address) = io.addresses.current(source) else { break };
            let connected = TcpStream::connect(address).and_then(|tcp| {
                let mut stream = Stream::connecting(tcp, io.addresses.session(source)?);
                stream.register(io.registry, Token(self.first_token + self.connections.vacant_key()))?;
                net::prepare(stream.tcp());
                Ok(stream)
            });
            match connected {
                Ok(stream) => {
                    self.connections.insert(Connection {
                        stream,
                        source,
                        phase: Phase::Connecting,
                        deadline: now.after(CONNECT_TIMEOUT),
                        exchange: Some(exchange),
                        used: false,
                    });
                    return;
                }
                Err(error) => {
                    last = Failure::Unreachable(error.to_string());
                    io.addresses.turn_to_next(source);
                }
            }
        }
        io.addresses.none_would_do(source, now);
        self.outcomes.push((exchange.request.id, Err(last)));
        exchange.keep(now, &mut self.staging);
    }

    /// A connection is ready for something.
    pub(super) fn handle_event(&mut self, io: &mut Io<'_>, now: Instant, event: &Event) {
        let Some(key) = event.token().0.checked_sub(self.first_token) else { return };
        if let Some(connection) = self.connections.get_mut(key) {
            connection.stream.note(event);
            self.drive(io, now, key);
        }
    }

    /// Ends what has taken too long.
    pub(super) fn expire(&mut self, io: &mut Io<'_>, now: Instant) {
        self.staging.expire(now);
        let due = |(_, connection): &(usize, &Connection)| connection.due() <= now;
        let keys: Vec<usize> = self.connections.iter().filter(due).map(|(key, _)| key).collect();
        for key in keys {
            let connecting = self.connections[key].phase == Phase::Connecting;
            let failure = if connecting { Failure::Unreachable("no answer".into()) } else { Failure::TimedOut };
            self.fail(io, now, key, failure);
        }
        // After a first walk most of them are gone for good.
        if self.connections.capacity() > 4 * self.connections.len().max(1) {
            self.connections.shrink_to_fit();
        }
    }

    /// Goes on with a connection as far as it goes.
    fn drive(&mut self, io: &mut Io<'_>, now: Instant, key: usize) {
        let connection = &mut self.connections[key];
        match connection.step(now, io.buffer, &mut self.staging) {
            Ok(Stepped::Waits) => {}
            Ok(Stepped::ReadsOn) => {
                // Readiness is told once only: asking for it anew brings the connection its next turn.
                let token = Token(self.first_token + key);
                if let Err(error) = connection.stream.announce_again(io.registry, token) {
                    self.fail(io, now, key, Failure::Broken(error.to_string()));
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
                self.outcomes.push(exchange.outcome());
            }
            Err(failure) => self.fail(io, now, key, failure),
        }
    }

    fn fail(&mut self, io: &mut Io<'_>, now: Instant, key: usize, failure: Failure) {
        let connection = self.connections.remove(key);
        let Some(mut exchange) = connection.exchange else { return };
        // A connection that was kept may have been closed before the request reached the source.
        let silent = connection.used && !exchange.parser.has_begun() && matches!(failure, Failure::Broken(_));
        if connection.phase == Phase::Connecting {
            io.addresses.turn_to_next(connection.source);
            self.connect(io, now, exchange, failure);
        } else if silent {
            exchange.sent = 0;
            exchange.addresses_tried = 0;
            self.connect(io, now, exchange, failure);
        } else {
            let may_go_on = !matches!(failure, Failure::Disk(_));
            self.outcomes.push((exchange.request.id, Err(failure)));
            if may_go_on {
                exchange.keep(now, &mut self.staging);
            }
        }
    }
}

enum Stepped {
    Waits,
    ReadsOn,
    Done { keeps: bool },
}

fn broken(error: impl ToString) -> Failure {
    Failure::Broken(error.to_string())
}

impl Connection {
    fn due(&self) -> Instant {
        self.exchange.as_ref().map_or(self.deadline, |exchange| self.deadline.min(exchange.deadline))
    }

    fn step(&mut self, now: Instant, buffer: &mut [u8], staging: &mut StagingArea) -> Result<Stepped, Failure> {
        if self.phase == Phase::Connecting {
            if let Ok(Some(error)) | Err(error) = self.stream.tcp().take_error() {
                return Err(Failure::Unreachable(error.to_string()));
            }
            match self.stream.peer_addr() {
                Ok(_) => self.phase = Phase::Sending,
                Err(error) if matches!(error.kind(), ErrorKind::NotConnected | ErrorKind::WouldBlock) => {
                    return Ok(Stepped::Waits);
                }
                Err(error) => return Err(Failure::Unreachable(error.to_string())),
            }
            self.renew(now);
        }
        if self.phase == Phase::Sending && !self.send()? {
            return Ok(Stepped::Waits);
        }
        self.receive(now, buffer, staging)
    }

    fn renew(&mut self, now: Instant) {
        if let Some(exchange) = &self.exchange {
            self.deadline = now.after(exchange.request.timeout);
        }
    }

    /// Whether all of the request is sent.
    fn send(&mut self) -> Result<bool, Failure> {
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

    fn receive(&mut self, now: Instant, buffer: &mut [u8], staging: &mut StagingArea) -> Result<Stepped, Failure> {
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
            if len == 0 {
                exchange.parser.end().map_err(broken)?;
                exchange.take(staging)?;
                return Ok(Stepped::Done { keeps: false });
            }
            let progress = exchange.parser.push(&buffer[..len]).map_err(|error: ResponseError| broken(error))?;
            exchange.take(staging)?;
            if let Progress::Done { unread } = progress {
                return Ok(Stepped::Done { keeps: unread == 0 && exchange.parser.keeps_alive() });
            }
            self.renew(now);
        }
        Ok(Stepped::ReadsOn)
    }
}

impl Exchange {
    /// Whether the source may hold the answer back until something happens.
    fn is_held(&self) -> bool {
        self.request.kind == RequestKind::Changes
    }

    /// Moves what has come of the body to where it goes.
    fn take(&mut self, staging: &mut StagingArea) -> Result<(), Failure> {
        let Some(head) = self.parser.head() else { return Ok(()) };
        let goes_on = head.status == 206 && self.staging.is_some();
        let large = matches!(self.request.kind, RequestKind::LargeContent { .. }) && (head.status == 200 || goes_on);
        let stored = |error: io::Error| Failure::Disk(error.to_string());
        if large
            && !std::mem::replace(&mut self.has_begun, true)
            && let Some(staging) = &mut self.staging
        {
            let start = head.header("content-range").and_then(|range| range.strip_prefix("bytes ")?.split('-').next());
            if !goes_on {
                staging.begin_anew().map_err(stored)?;
            } else if start.and_then(|start| start.parse().ok()) != Some(staging.len()) {
                self.staging = None;
                return Err(broken("it sent another part than it was asked for"));
            }
        }
        let part = self.parser.take_body();
        if !large {
            if self.memory.is_empty() {
                self.memory = part
            } else {
                self.memory.extend_from_slice(&part)
            };
            return Ok(());
        }
        if self.staging.is_none() {
            self.staging = Some(staging.begin().map_err(stored)?);
        }
        self.staging.as_mut().map_or(Ok(()), |staging| staging.write(&part)).map_err(stored)
    }

    fn outcome(self) -> Outcome {
        let (id, kind) = (self.request.id, self.request.kind);
        let status = self.parser.head().map_or(0, |head| head.status);
        match (kind, self.staging) {
            (RequestKind::LargeContent { hash }, Some(staging)) if self.has_begun => {
                let is_resumed = staging.is_resumed();
                match staging.finish(hash) {
                    Some(staged) => (id, Ok((200, Body::Staged(staged)))),
                    // Nobody knows which part was wrong, and who sent it.
                    None if is_resumed => (id, Err(broken("its parts are not the content; it is fetched anew"))),
                    None => (id, Err(Failure::WrongHash)),
                }
            }
            _ => (id, Ok((status, Body::Bytes(self.memory.into())))),
        }
    }

    /// Keeps what has come of a large content: the exchange comes to nothing.
    fn keep(self, now: Instant, area: &mut StagingArea) {
        if let (RequestKind::LargeContent { hash }, Some(staging)) = (self.request.kind, self.staging) {
            area.keep(now, hash, staging);
        }
    }
}
