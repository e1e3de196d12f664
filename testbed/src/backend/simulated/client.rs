//! GETs of a process over connections that it keeps, one at a time over each: of receivers to their sources, of caches
//! to what is behind them.
//!
//! Like the runtime's `receive/connections.rs`, with virtual time for sockets.

use super::{
    connection::{ConnectionId, Segment, Service},
    host::HostId,
    http::{Answer, Request},
    shared::Shared,
};
use crate::trace::Text;
use acms_engine::protocol::{Duration, receiver::Failure};
use std::collections::BTreeMap;

/// A connection that is not there by then never comes.
const CONNECT_TIME_NS: u64 = 3_000_000_000;

/// What a request comes back with: `T` says whose it is.
pub(super) type Ended<T> = (T, Result<Answer, Failure>);

#[derive(Debug)]
enum Phase {
    /// The connection is being made.
    Connecting,
    /// The request is out.
    Asked,
    /// Nothing is.
    Idle,
}

#[derive(Debug)]
struct Exchange<T> {
    whose: T,
    target: Text,
    timeout_ns: u64,
}

#[derive(Debug)]
struct Line<T> {
    to: HostId,
    phase: Phase,
    exchange: Option<Exchange<T>>,
    /// When what is awaited has not come.
    deadline_ns: u64,
    /// It has carried an answer before.
    is_used: bool,
}

/// The connections of one process.
#[derive(Debug)]
pub(super) struct Client<T> {
    lines: BTreeMap<ConnectionId, Line<T>>,
}

impl<T> Client<T> {
    pub(super) fn new() -> Client<T> {
        Client { lines: BTreeMap::new() }
    }

    /// Asks `to` for `target`, on an idle connection if there is one. `timeout`: without anything of the answer.
    pub(super) fn ask(
        &mut self,
        shared: &mut Shared<'_>,
        me: HostId,
        to: HostId,
        target: Text,
        timeout: Duration,
        whose: T,
    ) {
        let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        let exchange = Exchange { whose, target, timeout_ns };
        let idle = |(_, line): &(&ConnectionId, &mut Line<T>)| matches!(line.phase, Phase::Idle) && line.to == to;
        let Some((id, line)) = self.lines.iter_mut().find(idle) else {
            return self.connect(shared, me, to, exchange);
        };
        line.send(shared, me, *id, exchange);
    }

    fn connect(&mut self, shared: &mut Shared<'_>, me: HostId, to: HostId, exchange: Exchange<T>) {
        let id = shared.dial(me, to, Service::Http);
        let deadline_ns = shared.now_ns + CONNECT_TIME_NS;
        let line = Line { to, phase: Phase::Connecting, exchange: Some(exchange), deadline_ns, is_used: false };
        self.lines.insert(id, line);
    }

    /// A connection is there.
    pub(super) fn connected(&mut self, shared: &mut Shared<'_>, me: HostId, id: ConnectionId) {
        if let Some(line) = self.lines.get_mut(&id)
            && let Some(exchange) = line.exchange.take()
        {
            line.send(shared, me, id, exchange);
        }
    }

    /// An answer has come.
    pub(super) fn answered(&mut self, id: ConnectionId, answer: Answer) -> Option<Ended<T>> {
        let line = self.lines.get_mut(&id)?;
        let exchange = line.exchange.take()?;
        (line.phase, line.is_used) = (Phase::Idle, true);
        let result =
            if answer.is_cut { Err(Failure::Broken("the answer ended too soon".to_owned())) } else { Ok(answer) };
        Some((exchange.whose, result))
    }

    /// A connection is gone. One that was kept may have been closed before the request came to it: that one is sent
    /// again.
    pub(super) fn closed(&mut self, shared: &mut Shared<'_>, me: HostId, id: ConnectionId) -> Option<Ended<T>> {
        let line = self.lines.remove(&id)?;
        let exchange = line.exchange?;
        match line.phase {
            Phase::Connecting => Some((exchange.whose, Err(Failure::Unreachable("connection refused".to_owned())))),
            _ if line.is_used => {
                self.connect(shared, me, line.to, exchange);
                None
            }
            _ => Some((exchange.whose, Err(Failure::Broken("connection closed".to_owned())))),
        }
    }

    /// Ends what has taken too long: since it was asked for, or since the last byte of its answer came.
    pub(super) fn expire(&mut self, shared: &mut Shared<'_>, me: HostId) -> Vec<Ended<T>> {
        let now_ns = shared.now_ns;
        let due = |line: &Line<T>| line.exchange.is_some() && line.deadline_ns <= now_ns;
        let ids: Vec<ConnectionId> = self.lines.iter().filter(|(_, line)| due(line)).map(|(id, _)| *id).collect();
        let mut ended = Vec::new();
        for id in ids {
            let Some(line) = self.lines.get_mut(&id) else { continue };
            let timeout_ns = line.exchange.as_ref().map_or(0, |exchange| exchange.timeout_ns);
            let heard_ns = shared.heard_ns(id, me);
            if matches!(line.phase, Phase::Asked) && heard_ns + timeout_ns > now_ns {
                line.deadline_ns = heard_ns + timeout_ns;
                continue;
            }
            let Some(Line { phase, exchange: Some(exchange), .. }) = self.lines.remove(&id) else { continue };
            shared.close(id, me);
            let failure = match phase {
                Phase::Connecting => Failure::Unreachable("no answer".to_owned()),
                _ => Failure::TimedOut,
            };
            ended.push((exchange.whose, Err(failure)));
        }
        ended
    }

    /// When [`expire`](Client::expire) has something to do.
    pub(super) fn next_deadline_ns(&self) -> Option<u64> {
        self.lines.values().filter(|line| line.exchange.is_some()).map(|line| line.deadline_ns).min()
    }

    /// Drops every request, with its connection. Those that are idle stay.
    pub(super) fn cancel_all(&mut self, shared: &mut Shared<'_>, me: HostId) {
        self.lines.retain(|id, line| {
            if line.exchange.is_some() {
                shared.close(*id, me);
            }
            line.exchange.is_none()
        });
    }
}

impl<T> Line<T> {
    fn send(&mut self, shared: &mut Shared<'_>, me: HostId, id: ConnectionId, exchange: Exchange<T>) {
        self.phase = Phase::Asked;
        self.deadline_ns = shared.now_ns.saturating_add(exchange.timeout_ns);
        shared.send(id, me, Segment::Request(Request { target: Text::clone(&exchange.target) }));
        self.exchange = Some(exchange);
    }
}
