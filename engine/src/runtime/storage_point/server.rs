//! The event loop of a storage point: HTTP, links to peers and protocol in one thread.
//!
//! One cycle: take what is ready, feed the protocol, drain it once, send each peer one frame, answer publishers, wake
//! held requests.

use crate::{
    protocol::{Duration, Instant},
    runtime::{
        clock,
        http::head::BadHead,
        signal::StopSignals,
        storage_point::{
            completion::Completion,
            connection::{Connection, ConnectionId, Overdue, ReplyForm, Role, State},
            core::Core,
            held,
            object::carry_out,
            peer,
            publish::{self, Refusal},
            read, requests,
        },
        stream::{ReadResult, Stream},
    },
    wire::link::LinkEvent,
};
use mio::{Events, Interest, Poll, Token, net::TcpListener};
use slab::Slab;
use std::{collections::VecDeque, io, mem, sync::mpsc::Receiver};

pub(super) const WAKER: Token = Token(0);
pub(super) const SIGNALS: Token = Token(1);
const PEER_LISTENER: Token = Token(2);
const HTTP_LISTENERS: usize = 3;
/// First token of HTTP connections.
const CONNECTIONS: usize = 1024;

/// Connections taken from one listener before others have their turn.
const ACCEPT_BUDGET: usize = 64;
/// Bytes read from one connection before others have their turn.
const READ_BUDGET: usize = 512 << 10;
const SWEEP_EVERY: Duration = Duration::from_millis(500);
/// What is under way when the process is told to stop has this long.
const STOP_TIME: Duration = Duration::from_secs(2);

/// How a storage point ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// It was told to stop, and has finished what was under way.
    Stopped,
    /// Its store failed.
    StoreFailed(String),
}

/// Room that all connections share, one after the other.
struct Buffers {
    read: Box<[u8]>,
    gathered: Vec<u8>,
}

struct HttpListener {
    listener: TcpListener,
    role: Role,
    ready: bool,
}

/// Everything that the loop owns.
pub(super) struct Server {
    poll: Poll,
    core: Core,
    completions: Receiver<Completion>,
    signals: StopSignals,
    peer_listener: TcpListener,
    listeners: Vec<HttpListener>,
    connections: Slab<Connection>,
    connections_max: usize,
    next_serial: u64,
    /// Connections with something to do that no readiness will announce.
    ready: VecDeque<ConnectionId>,
    buffers: Buffers,
    /// Publishers and readers are let in.
    is_open: bool,
    /// Links to the other storage points are made and taken.
    has_peers: bool,
    peers_have_more: bool,
    swept_at: Instant,
    stopping_since: Option<Instant>,
    failed: Option<String>,
}

/// What becomes of a connection after it was driven.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Wait,
    Again,
    Close,
}

impl Server {
    pub(super) fn new(
        poll: Poll,
        core: Core,
        completions: Receiver<Completion>,
        signals: StopSignals,
        peer_listener: TcpListener,
        listeners: Vec<(TcpListener, Role)>,
        connections_max: usize,
    ) -> Server {
        let listeners = listeners.into_iter().map(|(listener, role)| HttpListener { listener, role, ready: false });
        Server {
            swept_at: core.now.instant,
            poll,
            core,
            completions,
            signals,
            peer_listener,
            listeners: listeners.collect(),
            connections: Slab::new(),
            connections_max,
            next_serial: 0,
            ready: VecDeque::new(),
            buffers: Buffers { read: vec![0; 72 << 10].into(), gathered: Vec::with_capacity(16 << 10) },
            is_open: false,
            has_peers: false,
            peers_have_more: false,
            stopping_since: None,
            failed: None,
        }
    }

    /// Runs until the process is told to stop, or cannot go on.
    pub(super) fn run(mut self) -> io::Result<End> {
        let mut events = Events::with_capacity(1024);
        self.signals.register(self.poll.registry(), SIGNALS)?;
        loop {
            self.end_cycle()?;
            if let Some(problem) = self.failed.take() {
                return Ok(End::StoreFailed(problem));
            }
            if self.has_stopped() {
                break;
            }
            let timeout = self.timeout();
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            self.core.set_now(clock::now());
            events.iter().for_each(|event| self.handle(event));
            self.go_on();
            self.handle_time();
        }
        self.core.io.peers.flush(self.core.now.instant);
        // The commit thread ends when nobody can ask it for anything any more.
        let maintenance = self.core.io.maintenance.stop();
        self.core.io.commit.finish();
        if let Some(mut maintenance) = maintenance
            && let Err(error) = maintenance.finish(clock::monotonic())
        {
            tracing::warn!("no checkpoint was made, so the next start reads more of the log: {error}");
        }
        Ok(End::Stopped)
    }

    fn timeout(&self) -> Option<Duration> {
        let is_busy = !self.ready.is_empty()
            || self.peers_have_more
            || self.core.holds.is_busy()
            || self.listeners.iter().any(|listener| listener.ready);
        if is_busy {
            return Some(Duration::ZERO);
        }
        let peers = self.has_peers.then(|| self.core.io.peers.poll_timeout()).flatten();
        let sweep =
            (!self.connections.is_empty() || self.stopping_since.is_some()).then(|| self.swept_at.after(SWEEP_EVERY));
        let times = [self.core.sp.poll_timeout(), peers, self.core.holds.poll_timeout(), sweep];
        let first = times.into_iter().flatten().min()?;
        Some(first.since(clock::monotonic()))
    }

    // ---- What is ready --------------------------------------------------------------------------------------------

    fn handle(&mut self, event: &mio::event::Event) {
        match event.token() {
            WAKER => {}
            SIGNALS => {
                if self.signals.take() {
                    self.stop("told by a signal");
                }
            }
            PEER_LISTENER => self.accept_peers(),
            Token(token) if token < HTTP_LISTENERS + self.listeners.len() => {
                self.listeners[token - HTTP_LISTENERS].ready = true;
            }
            token if peer::is_peer(token) => {
                self.core.io.peers.handle_ready(event, self.core.now.instant);
            }
            Token(token) => {
                if let Some(key) = token.checked_sub(CONNECTIONS) {
                    self.handle_connection(key, event);
                }
            }
        }
    }

    fn handle_connection(&mut self, key: usize, event: &mio::event::Event) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.stream.note(event);
        let id = connection.id;
        let is_gone =
            connection.is_lost(event) || (connection.stream.has_ended() && matches!(connection.state, State::Held));
        if is_gone { self.close(id) } else { self.drive(id) }
    }

    /// What budgets and time left over from earlier cycles, and what other threads have done.
    fn go_on(&mut self) {
        for _ in 0..self.ready.len() {
            let Some(id) = self.ready.pop_front() else { break };
            if let Some(connection) = self.connection(id) {
                connection.is_listed = false;
                self.drive(id);
            }
        }
        (0..self.listeners.len()).for_each(|at| self.accept(at));
        if self.peers_have_more {
            self.core.io.peers.read_on(self.core.now.instant);
        }
        self.take_link_events();
        while let Ok(completion) = self.completions.try_recv() {
            self.take_completion(completion);
        }
    }

    fn take_link_events(&mut self) {
        let Core { sp, io, now, .. } = &mut self.core;
        while let Some(event) = io.peers.poll_event(now.instant) {
            match event {
                LinkEvent::Up(peer, header) => {
                    io.events.emit("link_up", |fields| {
                        fields.number("peer", peer.0.into());
                    });
                    tracing::info!("the link to storage point {peer} is up");
                    if sp.handle_header(*now, &header) {
                        sp.handle_connected(*now, peer);
                    }
                }
                LinkEvent::Down(peer, _) => {
                    io.events.emit("link_down", |fields| {
                        fields.number("peer", peer.0.into());
                    });
                    sp.handle_disconnected(*now, peer);
                }
                LinkEvent::Messages(peer, header, messages) => {
                    if sp.handle_header(*now, &header) {
                        messages.into_iter().for_each(|message| sp.handle_message(*now, peer, message));
                    }
                }
                LinkEvent::Failed(..) => {}
            }
        }
        self.peers_have_more = io.peers.has_more();
    }

    fn take_completion(&mut self, completion: Completion) {
        let Core { sp, io, now, counters, .. } = &mut self.core;
        match completion {
            Completion::Persisted(ids) => {
                counters.commits_total += 1;
                io.commit.persisted(&ids);
                ids.into_iter().for_each(|id| sp.handle_persisted(*now, id));
            }
            Completion::Refused(detail) => {
                io.commit.refused().into_iter().for_each(|id| sp.handle_refused(*now, id, &detail));
            }
            Completion::StoreFailed(problem) => self.failed = Some(problem),
            Completion::Damaged { hash, size } => sp.handle_damaged(*now, hash, size),
            Completion::Compared { hash } => {
                for id in held::waiting_for(&self.core, hash) {
                    self.try_read(id, true);
                }
            }
            Completion::Staged { hash, offset_end, staged } => sp.handle_staged(*now, hash, offset_end, staged),
            Completion::Chunk { to, message } => crate::protocol::io::Environment::send(io, to, message),
            Completion::UploadWritten { upload, len } => {
                let Some(id) = self.core.uploads.get(&upload).copied() else { return };
                let Some(connection) = self.connection(id) else { return };
                if let State::Receiving(receiving) = &mut connection.state {
                    receiving.in_flight = receiving.in_flight.saturating_sub(len);
                    self.list(id);
                }
            }
            Completion::UploadFinished { upload, result } => {
                let Some(id) = self.core.uploads.remove(&upload) else { return };
                self.finish_upload(id, result);
            }
        }
    }

    fn finish_upload(&mut self, id: ConnectionId, result: Result<(crate::protocol::Hash, u64), String>) {
        let Some(connection) = self.connections.get_mut(id.key).filter(|connection| connection.id == id) else {
            return;
        };
        let State::Finishing(meta) = connection.take_state() else { return };
        match result {
            Ok((hash, size)) => {
                connection.state = State::Submitted;
                publish::submit(&mut self.core, id, *meta, hash, size, Vec::new());
            }
            Err(detail) => {
                let outcome = meta.outcome_of_refused(&self.core.sp, detail);
                publish::write_outcome(&mut connection.outbox(&mut self.buffers.gathered, &self.core.date), &outcome);
                self.answered(id);
            }
        }
    }

    // ---- Time -----------------------------------------------------------------------------------------------------

    fn handle_time(&mut self) {
        self.core.set_now(clock::now());
        let now = self.core.now;
        if self.core.sp.poll_timeout().is_some_and(|at| at <= now.instant) {
            self.core.sp.handle_timeout(now);
        }
        if self.has_peers && self.core.io.peers.poll_timeout().is_some_and(|at| at <= now.instant) {
            self.core.io.peers.handle_timeout(now.instant);
            self.take_link_events();
        }
        for id in held::take_overdue(&mut self.core) {
            self.try_read(id, false);
        }
        if self.swept_at.after(SWEEP_EVERY) <= now.instant {
            self.swept_at = now.instant;
            self.sweep();
        }
        if self.core.io.events.is_broken() {
            self.stop("its events are not read any more");
        }
    }

    fn sweep(&mut self) {
        let now = self.core.now.instant;
        let overdue = |connection: &Connection| (connection.id, connection.overdue(now));
        let found: Vec<_> = self.connections.iter().map(|(_, connection)| overdue(connection)).collect();
        for (id, overdue) in found {
            match overdue {
                Overdue::No => {}
                Overdue::Close => self.close(id),
                Overdue::Say408 => self.say_408(id),
            }
        }
        // A failed accept (no descriptor left) leaves nobody to announce those that wait.
        self.listeners.iter_mut().for_each(|listener| listener.ready = true);
    }

    fn say_408(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id.key).filter(|connection| connection.id == id) else {
            return;
        };
        let upload = match connection.take_state() {
            State::Receiving(receiving) => receiving.upload,
            _ => None,
        };
        connection.form = ReplyForm { close: true, ..ReplyForm::default() };
        let late = BadHead { status: 408, reason: "the request did not come in time" };
        Refusal::from(late).write(&mut connection.outbox(&mut self.buffers.gathered, &self.core.date), None);
        upload.into_iter().for_each(|upload| self.core.abort_upload(upload));
        self.answered(id);
    }

    // ---- The end of a cycle ---------------------------------------------------------------------------------------

    /// Drains the protocol and carries out what that brought.
    fn end_cycle(&mut self) -> io::Result<()> {
        carry_out(&mut self.core.sp, &mut self.core.io, self.core.now);
        self.core.io.send_frames();
        self.core.io.peers.flush(self.core.now.instant);
        if let Some(newer) = self.core.io.newer_store {
            self.failed = Some(format!(
                "store {newer} has taken this one's place in the cluster: this store is void and takes part in nothing \
                 any more; stop using it"
            ));
            return Ok(());
        }
        if !self.has_peers && self.core.sp.has_started() && self.stopping_since.is_none() {
            self.open_peers()?;
        }
        if !self.is_open && self.core.sp.is_serving() && self.stopping_since.is_none() {
            self.open()?;
        }
        for (id, outcome) in mem::take(&mut self.core.io.outcomes) {
            let Some(connection) = self.connections.get_mut(id.key).filter(|connection| connection.id == id) else {
                continue;
            };
            publish::write_outcome(&mut connection.outbox(&mut self.buffers.gathered, &self.core.date), &outcome);
            self.answered(id);
        }
        let changed = mem::take(&mut self.core.io.changed);
        for id in held::note_changes(&mut self.core, &changed) {
            self.try_read(id, false);
        }
        self.wake_held();
        Ok(())
    }

    /// Writes a slice of the current round of wake-ups.
    fn wake_held(&mut self) {
        for (id, answer) in held::next_answers(&mut self.core) {
            let Some(connection) = self.connections.get_mut(id.key).filter(|connection| connection.id == id) else {
                continue;
            };
            self.core.counters.changes_answered_total += 1;
            if connection.form == ReplyForm::default() {
                connection.push_shared(answer.whole);
            } else {
                answer.write(&mut connection.outbox(&mut self.buffers.gathered, &self.core.date));
            }
            self.answered(id);
        }
    }

    /// Looks again at a held read. `compared`: its content was compared with its hash just now.
    fn try_read(&mut self, id: ConnectionId, compared: bool) {
        let Some(read) = held::take_read(&mut self.core, id) else { return };
        let Some(connection) = self.connections.get_mut(id.key).filter(|connection| connection.id == id) else {
            return;
        };
        let date = self.core.date.clone();
        let mut out = connection.outbox(&mut self.buffers.gathered, &date);
        match read::try_read(&mut self.core, &read, compared, &mut out) {
            None => self.answered(id),
            Some(wait) => read::hold(&mut self.core, id, read, wait),
        }
    }

    /// The answer that a connection waited for is gathered or queued: writes it and goes on with the connection.
    fn answered(&mut self, id: ConnectionId) {
        let now = self.core.now.instant;
        let Some(connection) = self.connection(id) else {
            self.buffers.gathered.clear();
            return;
        };
        connection.touch(now);
        connection.state = if connection.form.close { State::Closing } else { State::Head };
        self.drive_gathered(id);
    }

    // ---- Connections ----------------------------------------------------------------------------------------------

    /// Begins to speak to the others: the start is durable.
    fn open_peers(&mut self) -> io::Result<()> {
        self.has_peers = true;
        let registry = self.poll.registry();
        registry.register(&mut self.peer_listener, PEER_LISTENER, Interest::READABLE)?;
        self.core.io.peers.handle_timeout(self.core.now.instant);
        if !self.core.sp.is_serving() {
            tracing::info!("the store is new; it is filled from the other storage points before this one serves");
        }
        Ok(())
    }

    /// Begins to serve: the store is filled.
    fn open(&mut self) -> io::Result<()> {
        self.is_open = true;
        let registry = self.poll.registry();
        for (at, listener) in self.listeners.iter_mut().enumerate() {
            registry.register(&mut listener.listener, Token(HTTP_LISTENERS + at), Interest::READABLE)?;
            listener.ready = true;
        }
        let Core { sp, io, config, .. } = &mut self.core;
        io.events.emit("ready", |fields| {
            fields.number("sp", config.me.0.into()).plain("deliver", config.deliver);
            fields.plain("publish", config.publish).plain("peer", config.peer);
            fields.plain("incarnation", sp.incarnation());
        });
        tracing::info!("storage point {} of {} serves at http://{}", config.me, config.cluster, config.publish);
        Ok(())
    }

    fn accept_peers(&mut self) {
        while let Ok((stream, _)) = self.peer_listener.accept() {
            self.core.io.peers.accept(Stream::accepted(stream), self.core.now.instant);
        }
    }

    fn accept(&mut self, at: usize) {
        if !self.is_open || self.stopping_since.is_some() {
            self.listeners[at].ready = false;
        }
        for _ in 0..ACCEPT_BUDGET {
            let listener = &mut self.listeners[at];
            if !listener.ready {
                return;
            }
            match listener.listener.accept() {
                Ok((stream, _)) => {
                    let role = listener.role;
                    self.take_connection(Stream::accepted(stream), role);
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

    fn take_connection(&mut self, mut stream: Stream, role: Role) {
        if self.connections.len() >= self.connections_max {
            self.core.counters.connections_refused_total += 1;
            let answer = b"HTTP/1.1 503 Service Unavailable\r\nCache-Control: no-store\r\nContent-Length: 0\r\n\
                ACMS-Outcome: rejected\r\nConnection: close\r\n\r\n";
            let _ = stream.write(answer);
            return;
        }
        crate::runtime::net::prepare(stream.tcp());
        let entry = self.connections.vacant_entry();
        let id = ConnectionId { key: entry.key(), serial: self.next_serial };
        if stream.register(self.poll.registry(), Token(CONNECTIONS + id.key)).is_ok() {
            self.next_serial += 1;
            self.core.counters.connections_total += 1;
            entry.insert(Connection::new(stream, id, role, self.core.now.instant));
            self.core.counters.connections = self.connections.len() as u64;
            self.drive(id);
        }
    }

    fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.get_mut(id.key).filter(|connection| connection.id == id)
    }

    /// Has a connection driven in the next cycle.
    fn list(&mut self, id: ConnectionId) {
        let Some(connection) = self.connection(id) else { return };
        if !mem::replace(&mut connection.is_listed, true) {
            self.ready.push_back(id);
        }
    }

    fn close(&mut self, id: ConnectionId) {
        if self.connection(id).is_none() {
            return;
        }
        let connection = self.connections.remove(id.key);
        self.core.holds.release(id);
        if let State::Receiving(receiving) = &connection.state {
            receiving.upload.into_iter().for_each(|upload| self.core.abort_upload(upload));
        }
        if matches!(connection.state, State::Finishing(_)) {
            self.core.uploads.retain(|_, owner| *owner != id);
        }
        self.core.counters.connections = self.connections.len() as u64;
    }

    /// Reads, answers and writes as far as budgets and sockets allow.
    fn drive(&mut self, id: ConnectionId) {
        debug_assert!(self.buffers.gathered.is_empty());
        self.drive_gathered(id);
    }

    /// The same where an answer is gathered already.
    fn drive_gathered(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id.key).filter(|connection| connection.id == id) else {
            self.buffers.gathered.clear();
            return;
        };
        let verdict = drive(&mut self.core, connection, &mut self.buffers).unwrap_or(Verdict::Close);
        self.buffers.gathered.clear();
        match verdict {
            Verdict::Wait => {}
            Verdict::Again => self.list(id),
            Verdict::Close => self.close(id),
        }
    }

    // ---- Stopping -------------------------------------------------------------------------------------------------

    fn stop(&mut self, why: &str) {
        if self.stopping_since.is_some() {
            return;
        }
        tracing::info!("stopping: {why}");
        self.stopping_since = Some(self.core.now.instant);
        self.core.stopping = true;
        self.core.io.events.emit("stopping", |_| {});
        self.core.sp.shut_down(self.core.now);
        self.listeners.clear();
        for id in self.core.holds.connections() {
            self.close(id);
        }
        let idle = |connection: &&Connection| matches!(connection.state, State::Head) && connection.is_flushed();
        let idle: Vec<_> = self.connections.iter().map(|(_, c)| c).filter(idle).map(|c| c.id).collect();
        idle.into_iter().for_each(|id| self.close(id));
    }

    fn has_stopped(&self) -> bool {
        let Some(since) = self.stopping_since else { return false };
        let is_done = |connection: &Connection| matches!(connection.state, State::Lingering);
        self.connections.iter().all(|(_, connection)| is_done(connection))
            || self.core.now.instant.since(since) >= STOP_TIME
    }
}

/// One turn of a connection.
fn drive(core: &mut Core, connection: &mut Connection, buffers: &mut Buffers) -> io::Result<Verdict> {
    let now = core.now.instant;
    let mut budget = READ_BUDGET;
    loop {
        core.counters.bytes_out_total += connection.write(&mut buffers.gathered, now)?;
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
            State::Held | State::Submitted | State::Finishing(_) => return Ok(Verdict::Wait),
            State::Receiving(receiving) if receiving.is_paused() => return Ok(Verdict::Wait),
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
                    budget = budget.saturating_sub(len);
                }
                ReadResult::Blocked => return Ok(Verdict::Wait),
                ReadResult::End => return Ok(Verdict::Close),
            }
        }
        let (taken, waits) = requests::process(core, connection, &buffers.read[..filled], &mut buffers.gathered);
        connection.input_waits = waits;
        if taken < filled {
            connection.input = buffers.read[taken..filled].to_vec();
        } else if kept > 0 {
            connection.input = Vec::new();
        }
    }
}
