//! What a server answers with: the part of HTTP that differs between a storage point and a cache.

use crate::{
    protocol::Instant,
    runtime::http::{
        answer::{HttpDate, Outbox},
        cause::{Cause, CauseCounts},
        connection::{ConnectionId, Role},
        head::{BadHead, Head, Method},
    },
    runtime::refusals::Refusals,
    tls::Identity,
};
use rustls::ServerConfig;
use std::sync::Arc;

/// Answers the requests of a [`HttpServer`](super::server::HttpServer).
pub trait Service {
    /// The body of a request on its way in.
    type Body: IncomingBody;

    /// The time of this cycle.
    fn now(&self) -> Instant;

    /// The same as the value of a header.
    fn date(&self) -> &HttpDate;

    /// The process is ending: no connection stays open.
    fn is_stopping(&self) -> bool;

    /// What the server counts.
    fn counters(&mut self) -> &mut HttpCounters;

    /// How TLS is spoken at a listener of this role; nothing: it is plain.
    fn tls(&self, role: Role) -> Option<Arc<ServerConfig>> {
        let _ = role;
        None
    }

    /// Begins a request; `rest` is what has come behind its head. How it goes on, and how much of `rest` was taken.
    fn handle_request(
        &mut self,
        client: &Client,
        head: &Head<'_>,
        rest: &[u8],
        out: &mut Outbox<'_>,
    ) -> Result<(Next<Self::Body>, usize), Refused>;

    /// More of a body: how much of it was taken, and how far it has come.
    fn handle_body(
        &mut self,
        id: ConnectionId,
        body: &mut Self::Body,
        input: &[u8],
    ) -> Result<(usize, Progress), Refusal>;

    /// All of a body is here.
    fn handle_complete_body(&mut self, id: ConnectionId, body: Self::Body) -> Next<Self::Body>;

    /// The rest of a body will not come, or is not wanted.
    fn handle_broken_body(&mut self, body: Self::Body);

    /// A connection is gone; nothing that it waited for is wanted any more.
    fn handle_closed(&mut self, id: ConnectionId);

    /// Writes a refusal. `method` is absent where there is no sound head, or the request did not come in time.
    fn refuse(&self, method: Option<Method>, refused: &Refused, out: &mut Outbox<'_>) {
        let _ = method;
        refused.write(out);
    }
}

/// Who sends a request.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its connection.
    pub id: ConnectionId,
    /// What the listener is for.
    pub role: Role,
    /// Who its certificate says that it is.
    pub identity: Option<Arc<Identity>>,
}

/// The body of a request on its way in.
pub trait IncomingBody {
    /// Whether what has come has to be dealt with before more is read.
    fn is_paused(&self) -> bool;

    /// Whether nothing keeps it back but the client.
    fn waits_for_client(&self) -> bool;
}

/// How a request goes on.
#[derive(Debug)]
pub enum Next<B> {
    /// Its answer is written.
    Answered,
    /// Its body is to be taken in.
    Receive(B),
    /// Its answer is being worked out, whether or not the client stays.
    Work,
    /// Its answer waits for something; without the client nobody wants it.
    Hold,
}

/// How far the receiving of a body has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Everything was taken; more has to come.
    NeedMore,
    /// What was taken has to be dealt with first.
    Paused,
    /// The body is complete.
    Complete,
}

/// A request is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// For the client.
    pub reason: String,
    /// What to do about it.
    pub remedy: &'static str,
    /// For those who count.
    pub cause: Cause,
}

impl Refusal {
    /// A refusal, for the cause that its status is about.
    pub fn new(status: u16, reason: impl Into<String>, remedy: &'static str) -> Refusal {
        Refusal { status, reason: reason.into(), remedy, cause: Cause::of_status(status) }
    }

    /// The same for another cause.
    #[must_use]
    pub fn because(self, cause: Cause) -> Refusal {
        Refusal { cause, ..self }
    }
}

impl From<BadHead> for Refusal {
    fn from(bad: BadHead) -> Refusal {
        Refusal::new(bad.status, bad.reason, "correct the request").because(bad.cause)
    }
}

/// A request that gets an error, and the methods that its resource takes, where it takes others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The error.
    pub refusal: Refusal,
    /// Value of the header Allow.
    pub allow: Option<&'static str>,
}

impl Refused {
    /// A refusal for another reason than the method.
    pub fn new(status: u16, reason: impl Into<String>, remedy: &'static str) -> Refused {
        Refusal::new(status, reason, remedy).into()
    }

    /// The same for another cause.
    #[must_use]
    pub fn because(self, cause: Cause) -> Refused {
        Refused { refusal: self.refusal.because(cause), ..self }
    }

    /// The resource takes other methods only.
    pub fn method(allow: &'static str) -> Refused {
        let refusal = Refusal::new(405, "the resource does not take this method", "see the header Allow");
        Refused { refusal, allow: Some(allow) }
    }

    /// Writes it as the errors of reads are written.
    pub fn write(&self, out: &mut Outbox<'_>) {
        let Refusal { status, reason, remedy, .. } = &self.refusal;
        out.error(*status, reason, remedy, |out| {
            if let Some(allow) = self.allow {
                out.header("Allow", allow);
            }
        });
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        Refused { refusal, allow: None }
    }
}

impl From<BadHead> for Refused {
    fn from(bad: BadHead) -> Refused {
        Refusal::from(bad).into()
    }
}

/// What a server counts.
#[derive(Clone, Debug, Default)]
pub struct HttpCounters {
    /// Connections that came to nothing because of TLS.
    pub refusals: Refusals,
    /// Open connections.
    pub connections: u64,
    /// Connections taken.
    pub connections_total: u64,
    /// Connections over the limit.
    pub connections_refused_total: u64,
    /// Requests with a sound head.
    pub requests_total: u64,
    /// Requests with a malformed head.
    pub bad_requests_total: u64,
    /// What was refused, and why.
    pub refused: CauseCounts,
    /// Bytes of answers.
    pub bytes_out_total: u64,
}
