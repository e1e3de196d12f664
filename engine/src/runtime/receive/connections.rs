//! A receiver's requests, and where their answers go: into memory, and large contents to the staging area. Requests beyond
//! its share of the open files of the process wait here.

use super::staging::{Staging, StagingArea};
use crate::{
    client::response::Head,
    protocol::{
        Duration, Instant,
        receiver::{Body, Failure, Request, RequestId, RequestKind, StagedId},
    },
    runtime::upstream::{Io, Sink, Upstream, UpstreamError, UpstreamRequest},
};
use mio::event::Event;
use std::{collections::VecDeque, io};

/// An answer in memory must be complete after so many time-outs, however it dribbles.
const TIMEOUTS_MAX: u32 = 4;
/// Slowest rate at which a large content may come.
const RATE_MIN_BYTES_PER_S: u64 = 16 << 10;
/// Tokens of one receiver's connections, and so the most that it can have.
pub(super) const TOKENS: usize = 64;

/// How a request ended.
pub(super) type Outcome = (RequestId, Result<(u16, Body), Failure>);

/// All connections, and what waits for one.
#[derive(Debug)]
pub(super) struct Connections {
    upstream: Upstream<Answers>,
    /// Most requests at once that sources hold.
    feeds: usize,
    /// Most requests at once beside those that a source holds.
    unheld_max: usize,
    waiting: VecDeque<Request>,
}

/// Where answers go.
#[derive(Debug)]
struct Answers {
    staging: StagingArea,
    outcomes: Vec<Outcome>,
}

/// An answer so far.
#[derive(Debug)]
struct Incoming {
    id: RequestId,
    kind: RequestKind,
    memory: Vec<u8>,
    staging: Option<Staging>,
    /// What is staged is as the head of the answer has it.
    has_begun: bool,
}

/// Whether the source may hold the answer back until something happens.
fn is_held(kind: RequestKind) -> bool {
    kind == RequestKind::Changes
}

impl Connections {
    /// None yet. Tokens are those from `first_token` on, [`TOKENS`] of them. Sources hold `feeds` requests at most.
    pub(super) fn new(first_token: usize, feeds: usize, unheld_max: usize, staging: StagingArea) -> Connections {
        let unheld_max = unheld_max.max(1);
        let sockets_max = feeds + unheld_max;
        assert!(sockets_max <= TOKENS, "each connection has a token");
        let upstream = Upstream::new(first_token, sockets_max, Answers { staging, outcomes: Vec::new() });
        Connections { upstream, feeds, unheld_max, waiting: VecDeque::new() }
    }

    /// When [`expire`](Connections::expire) is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.upstream.poll_timeout()
    }

    /// What has ended since.
    pub(super) fn take_outcomes(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.upstream.sink.outcomes)
    }

    /// Removes a finished content that nobody wants any more.
    pub(super) fn discard(&self, id: StagedId) {
        self.upstream.sink.staging.discard(id);
    }

    /// Drops every request and connection. What has come of large contents is of use to the next source.
    pub(super) fn cancel_all(&mut self, now: Instant) {
        self.waiting = VecDeque::new();
        let under_way = self.upstream.cancel_all();
        let answers = &mut self.upstream.sink;
        under_way.for_each(|incoming| answers.keep(now, incoming));
        for (_, outcome) in answers.outcomes.drain(..) {
            if let Ok((_, Body::Staged(id))) = outcome {
                answers.staging.discard(id);
            }
        }
    }

    /// Takes a request. It begins with the next [`begin_waiting`](Connections::begin_waiting), if there is room.
    pub(super) fn ask(&mut self, request: Request) {
        self.waiting.push_back(request);
    }

    /// Begins as many of the requests that wait as there is room for.
    pub(super) fn begin_waiting(&mut self, io: &mut Io, now: Instant) {
        let unheld = self.upstream.incoming().filter(|incoming| !is_held(incoming.kind)).count();
        let mut room = self.unheld_max.saturating_sub(unheld);
        let mut at = 0;
        while let Some(request) = self.waiting.get(at) {
            let held = is_held(request.kind);
            if !held {
                if room == 0 {
                    at += 1;
                    continue;
                }
                room -= 1;
            }
            if let Some(request) = self.waiting.remove(at) {
                if held {
                    self.make_room_for_a_feed();
                }
                self.begin(io, now, &request);
            }
        }
        if self.waiting.is_empty() {
            // That is nearly always: thousands of receivers keep no room for what may come.
            self.waiting = VecDeque::new();
        }
    }

    /// Drops what the receiver awaits no more: when it begins a walk in the middle of a session, all its feeds begin anew, and
    /// what it asked before is of the past. It awaits no more of them than it has feeds, so the oldest beyond are such.
    fn make_room_for_a_feed(&mut self) {
        let held = self.upstream.incoming().filter(|incoming| is_held(incoming.kind)).map(|incoming| incoming.id);
        let mut held: Vec<RequestId> = held.collect();
        held.sort_unstable();
        let beyond = (held.len() + 1).saturating_sub(self.feeds);
        for id in held.into_iter().take(beyond) {
            self.upstream.cancel(|incoming| incoming.id == id);
        }
    }

    fn begin(&mut self, io: &mut Io, now: Instant, request: &Request) {
        let Request { id, source, ref target, kind, body_len_max, timeout } = *request;
        let (staging, overall) = match kind {
            RequestKind::LargeContent { hash } => {
                let slowest = Duration::from_secs(body_len_max / RATE_MIN_BYTES_PER_S);
                (self.upstream.sink.staging.resume(&hash), slowest)
            }
            _ => (None, Duration::ZERO),
        };
        let range = staging.as_ref().map(|staging| format!("bytes={}-", staging.len()));
        let headers = [("User-Agent", "acms-receiver"), ("Range", range.as_deref().unwrap_or_default())];
        let headers = &headers[..1 + usize::from(range.is_some())];
        let timeout_in_all = timeout * TIMEOUTS_MAX + overall;
        let request = UpstreamRequest { source, target, headers, body_len_max, timeout, timeout_in_all };
        let incoming = Incoming { id, kind, memory: Vec::new(), staging, has_begun: false };
        self.upstream.begin(io, now, &request, incoming);
    }

    /// A connection is ready for something.
    pub(super) fn handle_event(&mut self, io: &mut Io, now: Instant, event: &Event) {
        self.upstream.handle_event(io, now, event);
    }

    /// Ends what has taken too long.
    pub(super) fn expire(&mut self, io: &mut Io, now: Instant) {
        self.upstream.sink.staging.expire(now);
        self.upstream.expire(io, now);
    }
}

impl Sink for Answers {
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
    type Incoming = Incoming;

    fn take(&mut self, incoming: &mut Incoming, head: &Head, part: Vec<u8>) -> Result<(), UpstreamError> {
        let goes_on = head.status == 206 && incoming.staging.is_some();
        let large = matches!(incoming.kind, RequestKind::LargeContent { .. }) && (head.status == 200 || goes_on);
        if !large {
            if incoming.memory.is_empty() {
                incoming.memory = part;
            } else {
                incoming.memory.extend_from_slice(&part);
            }
            return Ok(());
        }
        let stored = |error: io::Error| UpstreamError::Disk(error.to_string());
        if !std::mem::replace(&mut incoming.has_begun, true)
            && let Some(staging) = &mut incoming.staging
        {
            let start = head.header("content-range").and_then(|range| range.strip_prefix("bytes ")?.split('-').next());
            if !goes_on {
                staging.begin_anew().map_err(stored)?;
            } else if start.and_then(|start| start.parse().ok()) != Some(staging.len()) {
                incoming.staging = None;
                return Err(broken("it sent another part than it was asked for"));
            }
        }
        let staging = match &mut incoming.staging {
            Some(staging) => staging,
            none => none.insert(self.staging.begin().map_err(stored)?),
        };
        staging.write(&part).map_err(stored)
    }

    fn complete(&mut self, incoming: Incoming, status: u16) {
        let outcome = match (incoming.kind, incoming.staging) {
            (RequestKind::LargeContent { hash }, Some(staging)) if incoming.has_begun => {
                let is_resumed = staging.is_resumed();
                match staging.finish(hash) {
                    Some(staged) => Ok((200, Body::Staged(staged))),
                    // Nobody knows which part was wrong, and who sent it.
                    None if is_resumed => Err(broken("its parts are not the content; it is fetched anew").into()),
                    None => Err(Failure::WrongHash),
                }
            }
            _ => Ok((status, Body::Bytes(incoming.memory.into()))),
        };
        self.outcomes.push((incoming.id, outcome));
    }

    fn fail(&mut self, now: Instant, incoming: Incoming, error: UpstreamError) {
        let may_go_on = !matches!(error, UpstreamError::Disk(_));
        self.outcomes.push((incoming.id, Err(error.into())));
        if may_go_on {
            self.keep(now, incoming);
        }
    }
}

impl Answers {
    /// Keeps what has come of a large content: the exchange comes to nothing.
    fn keep(&mut self, now: Instant, incoming: Incoming) {
        if let (RequestKind::LargeContent { hash }, Some(staging)) = (incoming.kind, incoming.staging) {
            self.staging.keep(now, hash, staging);
        }
    }
}

fn broken(problem: &str) -> UpstreamError {
    UpstreamError::Broken(problem.to_owned())
}

impl From<UpstreamError> for Failure {
    fn from(error: UpstreamError) -> Failure {
        match error {
            UpstreamError::Unreachable(why) => Failure::Unreachable(why),
            UpstreamError::TimedOut => Failure::TimedOut,
            UpstreamError::Broken(why) => Failure::Broken(why),
            UpstreamError::Disk(why) => Failure::Disk(why),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use mio::{Poll, Token, Waker};
    use std::{net::TcpListener, sync::Arc};

    /// A walk in the middle of a session makes all feeds begin anew, while what they asked before is still held.
    #[test]
    fn feeds_that_begin_anew_take_the_places_of_the_old_ones() {
        let now = Instant(1_000_000_000);
        let source = TcpListener::bind("127.0.0.1:0").unwrap();
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let url = format!("http://{}", source.local_addr().unwrap()).parse().unwrap();
        let mut io = Io::new(vec![url], None, poll.registry().try_clone().unwrap(), waker);
        let mut connections = Connections::new(1, 2, 1, StagingArea::new(None));
        let mut ask = |id: u64, kind: RequestKind| {
            let (id, timeout) = (RequestId(id), Duration::from_secs(30));
            connections.ask(Request { id, source: 0, target: "/x".into(), kind, body_len_max: 100, timeout });
            connections.begin_waiting(&mut io, now);
            connections.upstream.incoming().map(|incoming| incoming.id.0).collect::<Vec<_>>()
        };
        for (id, kind) in [(1, RequestKind::Changes), (2, RequestKind::Changes), (3, RequestKind::Content)] {
            ask(id, kind);
        }
        assert_eq!(ask(4, RequestKind::Changes), [4, 2, 3]);
        assert_eq!(ask(5, RequestKind::Changes), [4, 5, 3]);
        assert_eq!(ask(6, RequestKind::Content), [4, 5, 3], "it waits");
    }
}
