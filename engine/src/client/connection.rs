//! One connection: connects, sends a request, reads its answer; asks every 100 ms whether to stop.

use super::{
    ClientError, Stop, Url,
    response::{Head, Progress, ResponseParser},
    wire::Wire,
};
use crate::tls::{Cause, ClientTls, Fault};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::{
    io::{self, ErrorKind, Read},
    mem,
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    os::fd::AsFd,
    time::{Duration, Instant},
};

const SLICE_MS: u16 = 100;
const BUFFER_LEN: usize = 64 << 10;
/// Bytes sent before it is looked whether the server has answered early.
const SEND_BUDGET: usize = 1 << 20;

/// The body of a request.
pub(super) enum Source<'a> {
    Bytes(&'a [u8]),
    /// So many bytes of it.
    Reader(&'a mut dyn Read, u64),
}

impl Source<'_> {
    fn left(&self) -> u64 {
        match self {
            Source::Bytes(bytes) => bytes.len() as u64,
            Source::Reader(_, left) => *left,
        }
    }
}

/// Where the body of an answer goes.
pub(super) type Sink<'a> = &'a mut dyn FnMut(&Head, &[u8]) -> io::Result<()>;

/// Why an exchange came to nothing.
#[derive(Debug)]
pub(super) struct Failure {
    /// Whether the server can have got anything of the request.
    pub sent: bool,
    /// Whether the connection was kept from an earlier request, and found closed before the server said anything.
    pub stale: bool,
    pub error: ClientError,
}

/// Time-outs of one exchange, and whom to ask whether to stop.
pub(super) struct Patience<'a> {
    pub io_timeout: Duration,
    pub deadline: Option<Instant>,
    pub should_stop: &'a Stop,
}

pub(super) struct Connection {
    wire: Wire,
    pub used_at: Instant,
    /// It has had a request before.
    is_kept: bool,
}

pub(super) fn connect(
    url: &Url,
    tls: Option<&ClientTls>,
    timeout: Duration,
    should_stop: &Stop,
) -> Result<Connection, ClientError> {
    let unreachable = |detail: String| ClientError::Unreachable { url: url.to_string(), detail };
    let addresses = (url.host(), url.port()).to_socket_addrs().map_err(|error| unreachable(error.to_string()))?;
    let mut last = unreachable("the name has no address".into());
    for address in addresses {
        match connect_address(address, timeout, should_stop) {
            Ok(Some(tcp)) => match greet(tcp, url, tls.filter(|_| url.is_https()), timeout, should_stop) {
                Ok(Some(wire)) => return Ok(Connection { wire, used_at: now(), is_kept: false }),
                Ok(None) => return Err(ClientError::Interrupted),
                Err(error) => last = distrusted(url, &error).unwrap_or_else(|| unreachable(error.to_string())),
            },
            Ok(None) => return Err(ClientError::Interrupted),
            Err(error) => last = unreachable(error.to_string()),
        }
    }
    Err(last)
}

/// The TLS handshake, if there is to be one: before it is over nothing of a request is sent.
fn greet(
    tcp: TcpStream,
    url: &Url,
    tls: Option<&ClientTls>,
    timeout: Duration,
    should_stop: &Stop,
) -> io::Result<Option<Wire>> {
    let mut wire = Wire::new(tcp, tls, url.host())?;
    let give_up = now() + timeout;
    while !wire.handshake()? {
        if should_stop.asked() {
            return Ok(None);
        }
        if now() >= give_up {
            return Err(io::Error::new(ErrorKind::TimedOut, format!("no TLS handshake within {timeout:?}")));
        }
        ready(&wire.tcp, wire.flags(false))?;
    }
    Ok(Some(wire))
}

/// The error for a fault of TLS.
fn distrusted(url: &Url, error: &io::Error) -> Option<ClientError> {
    let Fault { problem, remedy, .. } = Fault::of(error)?;
    Some(ClientError::Tls { url: url.to_string(), problem: problem.clone(), remedy })
}

fn connect_address(address: SocketAddr, timeout: Duration, should_stop: &Stop) -> io::Result<Option<TcpStream>> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&SockAddr::from(address)) {
        Ok(()) => return Ok(Some(socket.into())),
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => {}
        Err(error) => return Err(error),
    }
    let give_up = now() + timeout;
    while !ready(&socket, PollFlags::POLLOUT)? {
        if should_stop.asked() {
            return Ok(None);
        }
        if now() >= give_up {
            return Err(io::Error::new(ErrorKind::TimedOut, format!("no answer to connecting within {timeout:?}")));
        }
    }
    match socket.take_error()? {
        Some(error) => Err(error),
        None => Ok(Some(socket.into())),
    }
}

/// Waits for one slice. Errors of the socket count as ready: the next read or write tells.
fn ready(socket: &impl AsFd, flags: PollFlags) -> io::Result<bool> {
    let mut fds = [PollFd::new(socket.as_fd(), flags)];
    match poll(&mut fds, PollTimeout::from(SLICE_MS)) {
        Ok(count) => Ok(count > 0),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn now() -> Instant {
    Instant::now()
}

/// One request on its way.
struct Exchange<'a, 'b> {
    url: &'a Url,
    wire: &'a mut Wire,
    /// Bytes to hand over, and how many of them have been.
    pending: Vec<u8>,
    handed: usize,
    source: Source<'b>,
    sent: bool,
    /// The server takes no more; what it has said may still be read.
    refused: bool,
    /// The server has ended the connection.
    closed: bool,
    /// When nothing has moved until then, the connection counts as lost.
    give_up: Instant,
}

/// What one wait for the answer brought.
enum Received {
    Nothing,
    Part,
    /// Clean: nothing was left over behind the answer.
    Whole {
        clean: bool,
    },
}

impl Connection {
    /// Whether the other end has neither closed nor said anything since the last exchange.
    pub(super) fn is_quiet(&self) -> bool {
        let mut byte = [0];
        matches!(self.wire.tcp.peek(&mut byte), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Sends `head` and `source`, reads the answer. True: the connection can be used again.
    pub(super) fn exchange(
        &mut self,
        url: &Url,
        head: Vec<u8>,
        source: Source<'_>,
        parser: &mut ResponseParser,
        sink: Sink<'_>,
        patience: &Patience<'_>,
    ) -> Result<bool, Failure> {
        let is_kept = mem::replace(&mut self.is_kept, true);
        let mut exchange = Exchange {
            url,
            wire: &mut self.wire,
            pending: head,
            handed: 0,
            source,
            sent: false,
            refused: false,
            closed: false,
            give_up: now() + patience.io_timeout,
        };
        let run = exchange.run(parser, sink, patience);
        let (sent, whole, closed) = (exchange.sent, !exchange.has_unsent(), exchange.closed);
        self.used_at = now();
        match run {
            Ok(clean) => Ok(clean && whole && parser.keeps_alive()),
            // A certificate is refused before anything of the request is looked at.
            Err(error @ ClientError::Tls { .. }) => Err(Failure { sent: false, stale: false, error }),
            Err(error) => Err(Failure { sent, stale: is_kept && closed && !parser.has_begun(), error }),
        }
    }
}

impl Exchange<'_, '_> {
    /// True: nothing was left over behind the answer.
    fn run(
        &mut self,
        parser: &mut ResponseParser,
        sink: Sink<'_>,
        patience: &Patience<'_>,
    ) -> Result<bool, ClientError> {
        let mut buffer = vec![0; BUFFER_LEN];
        let mut ask_again = now();
        loop {
            if now() >= ask_again {
                if patience.should_stop.asked() {
                    return Err(ClientError::Interrupted);
                }
                ask_again = now() + Duration::from_millis(SLICE_MS.into());
            }
            if now() >= self.give_up {
                return Err(lost(format!("nothing came for {:?}", patience.io_timeout)));
            }
            if patience.deadline.is_some_and(|deadline| now() >= deadline) {
                return Err(lost("no answer in time"));
            }
            if self.send()? {
                self.give_up = now() + patience.io_timeout;
            }
            match self.receive(&mut buffer, parser, sink)? {
                Received::Nothing => {}
                Received::Part => self.give_up = now() + patience.io_timeout,
                Received::Whole { clean } => return Ok(clean),
            }
        }
    }

    fn has_unsent(&self) -> bool {
        self.handed < self.pending.len() || self.source.left() > 0
    }

    /// Hands over as much as the socket takes.
    fn send(&mut self) -> Result<bool, ClientError> {
        let (mut moved, mut budget) = (false, SEND_BUDGET);
        while !self.refused && self.has_unsent() && budget > 0 {
            if self.handed == self.pending.len() {
                self.refill()?;
            }
            match self.wire.write(&self.pending[self.handed..]) {
                Ok(count) => {
                    self.handed += count;
                    budget = budget.saturating_sub(count);
                    (self.sent, moved) = (true, true);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Its answer may say why.
                Err(_) => self.refused = true,
            }
        }
        Ok(moved)
    }

    fn refill(&mut self) -> Result<(), ClientError> {
        self.handed = 0;
        self.pending.clear();
        match &mut self.source {
            Source::Bytes(bytes) => {
                let (part, rest) = bytes.split_at(bytes.len().min(BUFFER_LEN));
                self.pending.extend_from_slice(part);
                *bytes = rest;
            }
            Source::Reader(reader, left) => {
                self.pending.resize((*left).min(BUFFER_LEN as u64) as usize, 0);
                let read = reader.read_exact(&mut self.pending);
                read.map_err(|error| ClientError::File {
                    detail: match error.kind() {
                        ErrorKind::UnexpectedEof => "it became shorter while it was read".into(),
                        _ => error.to_string(),
                    },
                })?;
                *left -= self.pending.len() as u64;
            }
        }
        Ok(())
    }

    /// Waits for one slice, and reads what there is.
    fn read(&mut self, buffer: &mut [u8], more: bool) -> Result<Option<usize>, ClientError> {
        let mut waited = false;
        loop {
            if waited || !self.wire.may_have_more() {
                let is_ready = ready(&self.wire.tcp, self.wire.flags(more));
                if !is_ready.map_err(|error| lost(error.to_string()))? {
                    return Ok(None);
                }
            }
            match self.wire.read(buffer) {
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.wire.may_have_more() && !waited => {
                    waited = true;
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    return Ok(None);
                }
                Err(error) => {
                    self.closed = true;
                    let refused = Fault::of(&error).filter(|fault| fault.cause == Cause::Alert);
                    let refused = refused.and_then(|_| distrusted(self.url, &error));
                    return Err(refused.unwrap_or_else(|| lost(error.to_string())));
                }
            }
        }
    }

    fn receive(
        &mut self,
        buffer: &mut [u8],
        parser: &mut ResponseParser,
        sink: Sink<'_>,
    ) -> Result<Received, ClientError> {
        let more = !self.refused && self.has_unsent();
        let Some(count) = self.read(buffer, more)? else { return Ok(Received::Nothing) };
        self.closed = count == 0;
        let progress = match count {
            0 => parser.end().map(|()| Progress::Done { unread: 0 }),
            _ => parser.push(&buffer[..count]),
        };
        let progress = progress.map_err(|error| lost(error.to_string()))?;
        let part = parser.take_body();
        if let Some(head) = parser.head() {
            sink(head, &part).map_err(|error| ClientError::File { detail: error.to_string() })?;
        }
        match progress {
            Progress::Done { unread } => Ok(Received::Whole { clean: count > 0 && unread == 0 }),
            _ => Ok(Received::Part),
        }
    }
}

fn lost(detail: impl Into<String>) -> ClientError {
    ClientError::Lost { detail: detail.into() }
}
