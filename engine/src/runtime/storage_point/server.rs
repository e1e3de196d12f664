//! The event loop of a storage point: HTTP, links to peers and protocol in one thread.
//!
//! One cycle: take what is ready, feed the protocol, drain it once, send each peer one frame, answer publishers, wake
//! held requests.

use crate::{
    protocol::{Duration, Hash, Instant, Outcome},
    runtime::{
        clock,
        http::{
            connection::{ConnectionId, Role},
            server::{HttpServer, Tokens, Written},
        },
        notify::Notify,
        signal::StopSignals,
        storage_point::{
            completion::{Completion, UploadId},
            core::{Core, Upload},
            held,
            object::carry_out,
            peer, publish, read,
        },
        wait::wait,
    },
    wire::link::LinkEvent,
};
use mio::{Events, Interest, Poll, Token, net::TcpListener};
use std::{io, mem, sync::mpsc::Receiver};

pub(super) const WAKER: Token = Token(0);
pub(super) const SIGNALS: Token = Token(1);
const PEER_LISTENER: Token = Token(2);
const HTTP: Tokens = Tokens { listeners: 3, connections: 1024 };

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

/// Everything that the loop owns.
pub(super) struct Server {
    poll: Poll,
    core: Core,
    completions: Receiver<Completion>,
    signals: StopSignals,
    notify: Notify,
    peer_listener: TcpListener,
    /// Publishers and readers.
    http: HttpServer<Core>,
    /// Links to the other storage points are made and taken.
    has_peers: bool,
    stopping_since: Option<Instant>,
    failed: Option<String>,
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
    ) -> io::Result<Server> {
        let registry = poll.registry().try_clone()?;
        Ok(Server {
            http: HttpServer::new(registry, HTTP, listeners, connections_max, core.now.instant)
                .with_times(core.config.times),
            poll,
            core,
            completions,
            signals,
            notify: Notify::from_environment(),
            peer_listener,
            has_peers: false,
            stopping_since: None,
            failed: None,
        })
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
            wait(&mut self.poll, &mut events, timeout)?;
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
        if self.http.is_busy() || self.core.io.peers.has_more() || self.core.holds.is_due() {
            return Some(Duration::ZERO);
        }
        let peers = self.has_peers.then(|| self.core.io.peers.poll_timeout()).flatten();
        let stop = self.stopping_since.map(|since| since.after(STOP_TIME));
        let times = [
            self.core.sp.poll_timeout(),
            peers,
            self.core.holds.poll_timeout(),
            self.http.poll_timeout(),
            self.core.access.poll_timeout(),
            self.notify.poll_timeout(),
            stop,
        ];
        let first = times.into_iter().flatten().min()?;
        Some(first.since(clock::monotonic()))
    }

    // ---- What is ready --------------------------------------------------------------------------------------------

    fn handle(&mut self, event: &mio::event::Event) {
        match event.token() {
            WAKER => {}
            SIGNALS => {
                let asked = self.signals.take_all();
                if asked.reload && self.core.access.reload() {
                    self.core.io.peers.set_tls(self.core.access.peer_tls());
                }
                if asked.stop {
                    self.stop("told by a signal");
                }
            }
            PEER_LISTENER => self.accept_peers(),
            token if peer::is_peer(token) => {
                self.core.io.peers.handle_ready(event, self.core.now.instant);
            }
            _ => self.http.handle_event(&mut self.core, event),
        }
    }

    /// What budgets and time left over from earlier cycles, and what other threads have done.
    fn go_on(&mut self) {
        self.http.go_on(&mut self.core);
        self.core.io.peers.read_on(self.core.now.instant);
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
                let id = self.core.uploads.get(&upload).map(|upload| upload.from);
                if let Some(receiving) = id.and_then(|id| self.http.resume_body(id)) {
                    receiving.in_flight = receiving.in_flight.saturating_sub(len);
                }
            }
            Completion::UploadFinished { upload, result } => self.finish_upload(upload, result),
        }
    }

    fn finish_upload(&mut self, upload: UploadId, result: Result<(Hash, u64), String>) {
        let Some(Upload { from, complete: Some(meta) }) = self.core.uploads.remove(&upload) else { return };
        match result {
            Ok((hash, size)) => publish::submit(&mut self.core, from, meta, hash, size, Vec::new()),
            Err(detail) => {
                let outcome = meta.outcome_of_refused(&self.core.sp, detail);
                self.tell_outcome(from, &outcome);
            }
        }
    }

    fn tell_outcome(&mut self, id: ConnectionId, outcome: &Outcome) {
        self.http.answer(&mut self.core, id, |_, out| {
            publish::write_outcome(out, outcome);
            Written::Whole
        });
    }

    // ---- Time -----------------------------------------------------------------------------------------------------

    fn handle_time(&mut self) {
        self.core.set_now(clock::now());
        let now = self.core.now;
        for upload in self.core.broken.expire(now.instant) {
            self.core.abort_upload(upload);
        }
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
        self.http.handle_timeout(&mut self.core);
        if self.core.access.look(now.instant) {
            self.core.io.peers.set_tls(self.core.access.peer_tls());
        }
        self.notify.handle_timeout(now.instant);
        if self.core.io.events.is_broken() {
            self.stop("its events are not read any more");
        }
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
        if !self.http.is_open() && self.core.sp.is_serving() && self.stopping_since.is_none() {
            self.open()?;
        }
        for (id, outcome) in mem::take(&mut self.core.io.outcomes) {
            self.tell_outcome(id, &outcome);
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
            self.core.counters.changes_answered_total += 1;
            self.http.answer_shared(&mut self.core, id, answer);
        }
    }

    /// Looks again at a held read. `compared`: its content was compared with its hash just now.
    fn try_read(&mut self, id: ConnectionId, compared: bool) {
        let Some(read) = held::take_read(&mut self.core, id) else { return };
        self.http.answer(&mut self.core, id, |core, out| match read::try_read(core, &read, compared, out) {
            None => Written::Whole,
            Some(wait) => {
                read::hold(core, id, read, wait);
                Written::Nothing
            }
        });
    }

    // ---- Opening and stopping -------------------------------------------------------------------------------------

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
        self.http.open()?;
        let Core { sp, io, config, .. } = &mut self.core;
        io.events.emit("ready", |fields| {
            fields.number("sp", config.me.0.into()).plain("deliver", config.deliver);
            fields.plain("publish", config.publish).plain("peer", config.peer);
            fields.plain("incarnation", sp.incarnation());
        });
        tracing::info!("storage point {} of {} serves at {}", config.me, config.cluster, config.publish_url());
        self.notify.ready();
        Ok(())
    }

    fn accept_peers(&mut self) {
        while let Ok((tcp, _)) = self.peer_listener.accept() {
            self.core.io.peers.accept(tcp, self.core.now.instant);
        }
    }

    fn stop(&mut self, why: &str) {
        if self.stopping_since.is_some() {
            return;
        }
        tracing::info!("stopping: {why}");
        self.notify.stopping();
        self.stopping_since = Some(self.core.now.instant);
        self.core.stopping = true;
        self.core.io.events.emit("stopping", |_| {});
        self.core.sp.shut_down(self.core.now);
        self.http.stop(&mut self.core);
    }

    fn has_stopped(&self) -> bool {
        let Some(since) = self.stopping_since else { return false };
        self.http.is_done() || self.core.now.instant.since(since) >= STOP_TIME
    }
}
