//! The serving side of HTTP on an event loop: listeners, connections, budgets and time-outs. What is answered is the
//! matter of a [`Service`].

use crate::{
    protocol::{Duration, Instant},
    runtime::{
        http::{
            answer::Outbox,
            cause::Cause,
            connection::{Connection, ConnectionId, HttpTimes, Overdue, ReplyForm, Role, State},
            requests,
            service::{IncomingBody as _, Refused, Service},
            shared::SharedAnswer,
        },
        net,
        stream::{ReadResult, Stream},
    },
    tls::{Fault, Session},
};
use mio::{Interest, Registry, Token, event::Event, net::TcpListener};
use slab::Slab;
use std::{collections::VecDeque, io, mem};

/// Connections taken from one listener before others have their turn.
const ACCEPT_BUDGET: usize = 64;
/// Bytes read from one connection before others have their turn ...
const READ_BUDGET: usize = 512 << 10;
/// ... where a read counts as so many at least: who asks again as soon as it is answered would keep its turn.
const READ_COST: usize = 8 << 10;
const SWEEP_EVERY: Duration = Duration::from_millis(500);

/// Room that all connections share, one after the other.
#[derive(Debug)]
struct Buffers {
    read: Box<[u8]>,
    gathered: Vec<u8>,
}

#[derive(Debug)]
struct Listener {
    listener: TcpListener,
    role: Role,
    ready: bool,
}

/// Where a server's tokens begin.
#[derive(Clone, Copy, Debug)]
pub struct Tokens {
    /// Of the listeners.
    pub listeners: usize,
    /// Of the connections; all from there on are theirs.
    pub connections: usize,
}

/// How much of an answer was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Written {
    /// Nothing yet.
    Nothing,
    /// Some of it; the rest comes later.
    Part,
    /// All of it.
    Whole,
}

/// All HTTP connections of a process.
#[derive(Debug)]
pub struct HttpServer<S: Service> {
    registry: Registry,
    tokens: Tokens,
    listeners: Vec<Listener>,
    connections: Slab<Connection<S::Body>>,
    connections_max: usize,
    times: HttpTimes,
    next_serial: u64,
    /// Connections with something to do that no readiness will announce.
    ready: VecDeque<ConnectionId>,
    buffers: Buffers,
    is_open: bool,
    swept_at: Instant,
}

/// What becomes of a connection after it was driven.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Wait,
    Again,
    Close,
}

impl<S: Service> HttpServer<S> {
    /// A server that takes nobody yet.
    pub fn new(
        registry: Registry,
        tokens: Tokens,
        listeners: Vec<(TcpListener, Role)>,
        connections_max: usize,
        now: Instant,
    ) -> HttpServer<S> {
        let listeners = listeners.into_iter().map(|(listener, role)| Listener { listener, role, ready: false });
        HttpServer {
            registry,
            tokens,
            listeners: listeners.collect(),
            connections: Slab::new(),
            connections_max,
            times: HttpTimes::default(),
            next_serial: 0,
            ready: VecDeque::new(),
            buffers: Buffers { read: vec![0; 72 << 10].into(), gathered: Vec::with_capacity(16 << 10) },
            is_open: false,
            swept_at: now,
        }
    }

    /// The same with other time limits.
    #[must_use]
    pub fn with_times(self, times: HttpTimes) -> HttpServer<S> {
        HttpServer { times, ..self }
    }

    /// Begins to take connections.
    pub fn open(&mut self) -> io::Result<()> {
        self.is_open = true;
        for (at, listener) in self.listeners.iter_mut().enumerate() {
            let token = Token(self.tokens.listeners + at);
            self.registry.register(&mut listener.listener, token, Interest::READABLE)?;
            listener.ready = true;
        }
        Ok(())
    }

    /// Whether connections are taken.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether there is something to do without waiting.
    pub fn is_busy(&self) -> bool {
        !self.ready.is_empty() || self.listeners.iter().any(|listener| listener.ready)
    }

    /// When [`handle_timeout`](HttpServer::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.connections.is_empty()).then(|| self.swept_at.after(SWEEP_EVERY))
    }

    // ---- What is ready --------------------------------------------------------------------------------------------

    /// A listener or connection is ready for something. Tokens of others are passed over.
    pub fn handle_event(&mut self, service: &mut S, event: &Event) {
        let Token(token) = event.token();
        if let Some(key) = token.checked_sub(self.tokens.connections) {
            return self.handle_connection(service, key, event);
        }
        let at = token.checked_sub(self.tokens.listeners);
        if let Some(listener) = at.and_then(|at| self.listeners.get_mut(at)) {
            listener.ready = true;
        }
    }

    fn handle_connection(&mut self, service: &mut S, key: usize, event: &Event) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.stream.note(event);
        let id = connection.id;
        let is_gone =
            connection.is_lost(event) || (connection.stream.has_ended() && matches!(connection.state, State::Held));
        if is_gone { self.close(service, id) } else { self.drive(service, id) }
    }

    /// What budgets left over from earlier cycles.
    pub fn go_on(&mut self, service: &mut S) {
        for _ in 0..self.ready.len() {
            let Some(id) = self.ready.pop_front() else { break };
            if let Some(connection) = self.connection(id) {
                connection.is_listed = false;
                self.drive(service, id);
            }
        }
        (0..self.listeners.len()).for_each(|at| self.accept(service, at));
    }

    /// Ends what has taken too long.
    pub fn handle_timeout(&mut self, service: &mut S) {
        let now = service.now();
        if self.swept_at.after(SWEEP_EVERY) > now {
            return;
        }
        self.swept_at = now;
        let overdue = |connection: &Connection<S::Body>| (connection.id, connection.overdue(&self.times, now));
        let found: Vec<_> = self.connections.iter().map(|(_, connection)| overdue(connection)).collect();
        for (id, overdue) in found {
            match overdue {
                Overdue::No => {}
                Overdue::Idle => self.close(service, id),
                Overdue::Close => {
                    service.counters().refused.count(Cause::Timeout);
                    self.close(service, id);
                }
                Overdue::Say408 => self.say_408(service, id),
            }
        }
        // A failed accept (no descriptor left) leaves nobody to announce those that wait.
        self.listeners.iter_mut().for_each(|listener| listener.ready = true);
    }

    fn say_408(&mut self, service: &mut S, id: ConnectionId) {
        let Some(connection) = self.connection(id) else { return };
        connection.form = ReplyForm { close: true, ..ReplyForm::default() };
        if let State::Receiving(body) = connection.take_state() {
            service.handle_broken_body(body);
        }
        let late = Refused::new(408, "the request did not come in time", "correct the request");
        self.answer(service, id, |service, out| {
            requests::refuse(service, None, &late, out);
            Written::Whole
        });
    }

    // ---- Answers to requests that waited --------------------------------------------------------------------------

    /// Has the answer written that a connection waits for, as far as it is there, and goes on with the connection.
    pub fn answer(
        &mut self,
        service: &mut S,
        id: ConnectionId,
        write: impl FnOnce(&mut S, &mut Outbox<'_>) -> Written,
    ) {
        let Some(connection) = self.connections.get_mut(id.key).filter(|connection| connection.id == id) else {
            return;
        };
        let mut out = connection.outbox(&mut self.buffers.gathered, service.date());
        match write(service, &mut out) {
            Written::Nothing => {}
            Written::Part => self.drive_gathered(service, id),
            Written::Whole => self.answered(service, id),
        }
    }

    /// Writes an answer that many connections are sent, where one waits for it.
    pub fn answer_shared(&mut self, service: &mut S, id: ConnectionId, answer: SharedAnswer) {
        let Some(connection) = self.connections.get_mut(id.key).filter(|connection| connection.id == id) else {
            return;
        };
        if connection.form == ReplyForm::default() {
            connection.push_shared(answer.whole);
        } else {
            answer.write(&mut connection.outbox(&mut self.buffers.gathered, service.date()));
        }
        self.answered(service, id);
    }

    /// The answer that a connection waited for is gathered or queued: writes it and goes on with the connection.
    fn answered(&mut self, service: &mut S, id: ConnectionId) {
        let now = service.now();
        if let Some(connection) = self.connection(id) {
            connection.touch(now);
            connection.state = if connection.form.close { State::Closing } else { State::Head };
        }
        self.drive_gathered(service, id);
    }

    /// The body that a connection takes in, dealt with further elsewhere; the connection is driven in the next cycle.
    pub fn resume_body(&mut self, id: ConnectionId) -> Option<&mut S::Body> {
        self.list(id);
        match &mut self.connection(id)?.state {
            State::Receiving(body) => Some(body),
            _ => None,
        }
    }

    // ---- Connections ----------------------------------------------------------------------------------------------

    fn accept(&mut self, service: &mut S, at: usize) {
        if !self.is_open || service.is_stopping() {
            self.listeners[at].ready = false;
        }
        for _ in 0..ACCEPT_BUDGET {
            let listener = &mut self.listeners[at];
            if !listener.ready {
                return;
            }
            match listener.listener.accept() {
                Ok((tcp, _)) => {
                    let role = listener.role;
                    match service.tls(role).map(|config| Session::server(&config)).transpose() {
                        Ok(session) => self.take_connection(service, Stream::accepted(tcp, session), role),
                        Err(error) => tracing::warn!("a connection cannot be taken: {error}"),
                    }
                }
                Err(error) => {
                    listener.ready = error.kind() == io::ErrorKind::Interrupted;
                    if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
                        tracing::warn!("a connection cannot be taken: {error}");
                    }
                }
            }
        }
    }

    fn take_connection(&mut self, service: &mut S, mut stream: Stream, role: Role) {
        if self.connections.len() >= self.connections_max {
            return refuse_connection(service, stream);
        }
        net::prepare(stream.tcp());
        let entry = self.connections.vacant_entry();
        let id = ConnectionId { key: entry.key(), serial: self.next_serial };
        if stream.register(&self.registry, Token(self.tokens.connections + id.key)).is_ok() {
            self.next_serial += 1;
            entry.insert(Connection::new(stream, id, role, service.now()));
            let counters = service.counters();
            counters.connections_total += 1;
            counters.connections = self.connections.len() as u64;
            self.drive(service, id);
        }
    }

    fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection<S::Body>> {
        self.connections.get_mut(id.key).filter(|connection| connection.id == id)
    }

    /// Has a connection driven in the next cycle.
    fn list(&mut self, id: ConnectionId) {
        let Some(connection) = self.connection(id) else { return };
        if !mem::replace(&mut connection.is_listed, true) {
            self.ready.push_back(id);
        }
    }

    /// Ends a connection, whatever it is doing.
    pub fn close(&mut self, service: &mut S, id: ConnectionId) {
        if self.connection(id).is_none() {
            return;
        }
        let connection = self.connections.remove(id.key);
        service.counters().connections = self.connections.len() as u64;
        service.handle_closed(id);
        if let State::Receiving(body) = connection.state {
            service.handle_broken_body(body);
        }
    }

    /// Reads, answers and writes as far as budgets and sockets allow.
    fn drive(&mut self, service: &mut S, id: ConnectionId) {
        debug_assert!(self.buffers.gathered.is_empty());
        self.drive_gathered(service, id);
    }

    /// The same where an answer is gathered already.
    fn drive_gathered(&mut self, service: &mut S, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id.key).filter(|connection| connection.id == id) else {
            self.buffers.gathered.clear();
            return;
        };
        let verdict = drive(service, connection, &mut self.buffers);
        let verdict = verdict.unwrap_or_else(|error| broken(service, connection, &error));
        self.buffers.gathered.clear();
        match verdict {
            Verdict::Wait => {}
            Verdict::Again => self.list(id),
            Verdict::Close => self.close(service, id),
        }
    }

    // ---- Stopping -------------------------------------------------------------------------------------------------

    /// Takes nobody any more, and ends the connections that wait or do nothing. The service says that it is stopping.
    pub fn stop(&mut self, service: &mut S) {
        self.listeners.clear();
        let is_idle = |connection: &Connection<S::Body>| match connection.state {
            State::Held => true,
            State::Head => connection.is_flushed(),
            _ => false,
        };
        let idle = self.connections.iter().filter(|(_, connection)| is_idle(connection));
        let idle: Vec<_> = idle.map(|(_, connection)| connection.id).collect();
        idle.into_iter().for_each(|id| self.close(service, id));
    }

    /// Whether everything that was under way is done.
    pub fn is_done(&self) -> bool {
        self.connections.iter().all(|(_, connection)| matches!(connection.state, State::Lingering { .. }))
    }
}

/// Answers a connection over the limit, as far as its socket takes the answer at once.
fn refuse_connection<S: Service>(service: &mut S, mut stream: Stream) {
    service.counters().connections_refused_total += 1;
    let (mut bytes, mut queue, date) = (Vec::new(), VecDeque::new(), service.date().clone());
    let mut out = Outbox { close: true, ..Outbox::new(&mut bytes, &mut queue, date) };
    let refused = Refused::new(503, "too many connections", "try again after a while").because(Cause::Connections);
    requests::refuse(service, None, &refused, &mut out);
    let _ = stream.write(&bytes);
}

/// What becomes of a connection that has failed.
fn broken<S: Service>(service: &mut S, connection: &mut Connection<S::Body>, error: &io::Error) -> Verdict {
    if Fault::of(error).is_none() || !matches!(connection.state, State::Head) {
        return Verdict::Close;
    }
    let (from, now) = (connection.stream.peer_addr().ok(), service.now());
    service.counters().refusals.note("an HTTPS connection", from, error, now);
    connection.stream.abandon_tls();
    connection.linger(now);
    Verdict::Again
}

/// One turn of a connection.
fn drive<S: Service>(
    service: &mut S,
    connection: &mut Connection<S::Body>,
    buffers: &mut Buffers,
) -> io::Result<Verdict> {
    let now = service.now();
    let mut budget = READ_BUDGET;
    loop {
        service.counters().bytes_out_total += connection.write(&mut buffers.gathered, now)?;
        if !connection.is_flushed() {
            return Ok(if connection.can_write_on() { Verdict::Again } else { Verdict::Wait });
        }
        match &connection.state {
            State::Closing => {
                if connection.stream.has_ended() {
                    return Ok(Verdict::Close);
                }
                connection.linger(now);
            }
            State::Held | State::Working => return Ok(Verdict::Wait),
            State::Receiving(body) if body.is_paused() => return Ok(Verdict::Wait),
            _ => {}
        }
        if budget == 0 {
            return Ok(Verdict::Again);
        }
        let kept = connection.input.len();
        let mut filled = kept;
        buffers.read[..kept].copy_from_slice(&connection.input);
        if !connection.input_waits {
            match connection.read(&mut buffers.read[kept..], now)? {
                ReadResult::Bytes(len) => {
                    filled += len;
                    budget = budget.saturating_sub(len.max(READ_COST));
                }
                ReadResult::Blocked => return Ok(Verdict::Wait),
                ReadResult::End => return Ok(Verdict::Close),
            }
        }
        let (taken, waits) = requests::process(service, connection, &buffers.read[..filled], &mut buffers.gathered);
        connection.input_waits = waits;
        if taken < filled {
            connection.input = buffers.read[taken..filled].to_vec();
        } else if kept > 0 {
            connection.input = Vec::new();
        }
    }
}
