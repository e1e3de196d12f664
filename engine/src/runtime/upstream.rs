//! HTTP connections to storage points or caches, all on one event loop: one request at a time on each, kept for the next
//! one. What comes is handed on as it comes; nothing of a body is gathered here.
//!
//! Bounded: a connection for each request under way, and a buffer for each cycle.

use crate::{
    client::{
        Url,
        response::{Head, Progress, ResponseError, ResponseParser, encode_request},
    },
    protocol::{Duration, Instant},
    runtime::{
        addresses::AddressBook,
        net,
        stream::{ReadResult, Stream},
    },
    tls::ClientTls,
};
use mio::{Registry, Token, Waker, event::Event, net::TcpStream};
use slab::Slab;
use std::{io::ErrorKind, sync::Arc};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Idle connections are closed after this, long before a source does so.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
const READ_LEN: usize = 64 << 10;
/// So many reads of one socket before the others have their turn.
const READS_MAX: usize = 8;

/// Names a request; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ExchangeId(pub u64);

/// A `GET`.
#[derive(Debug)]
pub struct UpstreamRequest {
    /// Comes back with what comes of it.
    pub id: ExchangeId,
    /// Which of the sources.
    pub source: usize,
    /// Path and query.
    pub target: String,
    /// Headers beside Host.
    pub headers: Vec<(&'static str, String)>,
    /// An answer with more bytes of body is a failure.
    pub body_len_max: u64,
    /// Time without any byte of the answer after which the request has failed.
    pub timeout: Duration,
    /// Time after which it has failed if the answer is not complete, however it dribbles.
    pub timeout_in_all: Duration,
}

/// What comes of a request: a head, then parts of the body, then the end; or a failure at any time.
#[derive(Debug)]
pub enum Arrival {
    /// Status and headers.
    Head(Head),
    /// A part of the body.
    Body(Vec<u8>),
    /// The answer is complete.
    End,
    /// There will be no more.
    Failed(UpstreamError),
}

/// Why an answer is not complete.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// Nothing came in time.
    #[error("it does not answer in time")]
    TimedOut,
    /// The connection broke, or what came is no sound HTTP.
    #[error("{0}")]
    Broken(String),
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
    exchange: Option<Exchange>,
    /// When the current phase has taken too long.
    deadline: Instant,
    used: bool,
}

/// A request and its answer so far.
#[derive(Debug)]
struct Exchange {
    request: UpstreamRequest,
    head: Vec<u8>,
    sent: usize,
    parser: ResponseParser,
    head_told: bool,
    deadline: Instant,
    addresses_tried: usize,
}

type Arrivals = Vec<(ExchangeId, Arrival)>;

/// All connections.
#[derive(Debug)]
pub struct Upstream {
    registry: Registry,
    urls: Vec<Url>,
    addresses: AddressBook,
    connections: Slab<Connection>,
    first_token: usize,
    buffer: Vec<u8>,
    arrivals: Arrivals,
}

impl Upstream {
    /// Looks up the sources' addresses; `waker` is woken when a later look-up is done. Tokens from `first_token` on are its
    /// own.
    pub fn new(
        urls: Vec<Url>,
        tls: Option<ClientTls>,
        registry: Registry,
        waker: Arc<Waker>,
        first_token: usize,
    ) -> Upstream {
        Upstream {
            registry,
            addresses: AddressBook::new(urls.clone(), tls, waker),
            urls,
            connections: Slab::new(),
            first_token,
            buffer: vec![0; READ_LEN],
            arrivals: Vec::new(),
        }
    }

    /// The sources, in the order of their numbers.
    pub fn urls(&self) -> impl Iterator<Item = &Url> {
        self.urls.iter()
    }

    /// When [`expire`](Upstream::expire) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.connections.iter().map(|(_, connection)| connection.due()).min()
    }

    /// What has come since the last call.
    pub fn take_arrivals(&mut self) -> Vec<(ExchangeId, Arrival)> {
        std::mem::take(&mut self.arrivals)
    }

    /// Begins a request, on an idle connection if there is one.
    pub fn begin(&mut self, now: Instant, request: UpstreamRequest) {
        let host = self.urls[request.source].authority();
        let headers: Vec<(&str, &str)> = request.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let exchange = Exchange {
            head: encode_request("GET", &host, &request.target, &headers),
            sent: 0,
            parser: ResponseParser::new(false, request.body_len_max.max(4 << 10)),
            head_told: false,
            deadline: now.after(request.timeout_in_all),
            addresses_tried: 0,
            request,
        };
        let idle = |(_, connection): &(usize, &mut Connection)| {
            connection.phase == Phase::Idle && connection.source == exchange.request.source
        };
        if let Some((key, connection)) = self.connections.iter_mut().find(idle) {
            connection.phase = Phase::Sending;
            connection.deadline = now.after(exchange.request.timeout);
            connection.exchange = Some(exchange);
            return self.drive(now, key);
        }
        let none = UpstreamError::Unreachable("its name has no address".into());
        self.connect(now, exchange, none);
    }

    /// Nobody wants the answer any more.
    pub fn cancel(&mut self, id: ExchangeId) {
        self.connections.retain(|_, connection| connection.exchange.as_ref().is_none_or(|e| e.request.id != id));
        self.arrivals.retain(|(of, _)| *of != id);
    }

    /// Connects to the next address; `last` is why there is no other.
    fn connect(&mut self, now: Instant, mut exchange: Exchange, mut last: UpstreamError) {
        let source = exchange.request.source;
        while exchange.addresses_tried < self.addresses.count(source) {
            exchange.addresses_tried += 1;
            let Some(address) = self.addresses.current(source) else { break };
            let connected = TcpStream::connect(address).and_then(|tcp| {
                let mut stream = Stream::connecting(tcp, self.addresses.session(source)?);
                stream.register(&self.registry, Token(self.first_token + self.connections.vacant_key()))?;
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
                    last = UpstreamError::Unreachable(error.to_string());
                    self.addresses.turn_to_next(source);
                }
            }
        }
        self.addresses.none_would_do(source, now);
        self.arrivals.push((exchange.request.id, Arrival::Failed(last)));
    }

    /// A connection is ready for something.
    pub fn handle_event(&mut self, now: Instant, event: &Event) {
        let Some(key) = event.token().0.checked_sub(self.first_token) else { return };
        if let Some(connection) = self.connections.get_mut(key) {
            connection.stream.note(event);
            self.drive(now, key);
        }
    }

    /// Ends what has taken too long, and takes over what look-ups have found.
    pub fn expire(&mut self, now: Instant) {
        self.addresses.take_found(now);
        let due = |(_, connection): &(usize, &Connection)| connection.due() <= now;
        let keys: Vec<usize> = self.connections.iter().filter(due).map(|(key, _)| key).collect();
        for key in keys {
            let is_connecting = self.connections[key].phase == Phase::Connecting;
            let error =
                if is_connecting { UpstreamError::Unreachable("no answer".into()) } else { UpstreamError::TimedOut };
            self.fail(now, key, error);
        }
    }

    /// Goes on with a connection as far as it goes.
    fn drive(&mut self, now: Instant, key: usize) {
        let connection = &mut self.connections[key];
        match connection.step(now, &mut self.buffer, &mut self.arrivals) {
            Ok(Stepped::Waits) => {}
            Ok(Stepped::ReadsOn) => {
                // Readiness is told once only: asking for it anew brings the connection its next turn.
                let token = Token(self.first_token + key);
                if let Err(error) = connection.stream.announce_again(&self.registry, token) {
                    self.fail(now, key, UpstreamError::Broken(error.to_string()));
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
                self.arrivals.push((exchange.request.id, Arrival::End));
            }
            Err(error) => self.fail(now, key, error),
        }
    }

    fn fail(&mut self, now: Instant, key: usize, error: UpstreamError) {
        let connection = self.connections.remove(key);
        let Some(mut exchange) = connection.exchange else { return };
        // A connection that was kept may have been closed before the request reached the source.
        let silent = connection.used && !exchange.parser.has_begun() && matches!(error, UpstreamError::Broken(_));
        if connection.phase == Phase::Connecting {
            self.addresses.turn_to_next(connection.source);
            self.connect(now, exchange, error);
        } else if silent {
            exchange.sent = 0;
            exchange.addresses_tried = 0;
            self.connect(now, exchange, error);
        } else {
            self.arrivals.push((exchange.request.id, Arrival::Failed(error)));
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

impl Connection {
    fn due(&self) -> Instant {
        self.exchange.as_ref().map_or(self.deadline, |exchange| self.deadline.min(exchange.deadline))
    }

    fn step(&mut self, now: Instant, buffer: &mut [u8], arrivals: &mut Arrivals) -> Result<Stepped, UpstreamError> {
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
        self.receive(now, buffer, arrivals)
    }

    fn renew(&mut self, now: Instant) {
        if let Some(exchange) = &self.exchange {
            self.deadline = now.after(exchange.request.timeout);
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

    fn receive(&mut self, now: Instant, buffer: &mut [u8], arrivals: &mut Arrivals) -> Result<Stepped, UpstreamError> {
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
                return Ok(Stepped::Done { keeps: false });
            }
            let progress = exchange.parser.push(&buffer[..len]).map_err(|error: ResponseError| broken(error))?;
            exchange.tell(arrivals);
            if let Progress::Done { unread } = progress {
                return Ok(Stepped::Done { keeps: unread == 0 && exchange.parser.keeps_alive() });
            }
            self.renew(now);
        }
        Ok(Stepped::ReadsOn)
    }
}

impl Exchange {
    /// Hands on what has come.
    fn tell(&mut self, arrivals: &mut Arrivals) {
        let Some(head) = self.parser.head() else { return };
        if !self.head_told {
            self.head_told = true;
            arrivals.push((self.request.id, Arrival::Head(head.clone())));
        }
        let body = self.parser.take_body();
        if !body.is_empty() {
            arrivals.push((self.request.id, Arrival::Body(body)));
        }
    }
}
