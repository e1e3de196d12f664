//! What a storage point answers: reads, publications, and who may do what.

use crate::{
    protocol::Instant,
    runtime::{
        http::{
            answer::{HttpDate, Outbox},
            cause::Cause,
            connection::{ConnectionId, Role},
            head::{Framing, Head, Method},
            service::{HttpCounters, Next, Progress, Refusal, Refused, Service},
            target::{self, BadTarget, Resource},
        },
        storage_point::{
            core::Core,
            publish::{self, PublishMeta, Receiving},
            read,
        },
    },
};

/// Who asks. Until clients have keys everybody is the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Identity {
    /// Somebody who can reach the listener.
    Anonymous(Role),
}

/// Whether `identity` may do `method` to `path`. Every request passes here. (What a listener does not take at all is
/// no matter of rights: 405.)
pub(super) fn authorize(identity: Identity, _path: &str, _method: Method) -> bool {
    match identity {
        Identity::Anonymous(_) => true,
    }
}

/// The methods that a resource takes at a listener.
fn allowed(role: Role, can_be_published: bool) -> &'static str {
    match (role, can_be_published) {
        (Role::Publish, true) => "GET, HEAD, PUT, DELETE, OPTIONS",
        _ => "GET, HEAD, OPTIONS",
    }
}

fn options(allowed: &'static str, out: &mut Outbox<'_>) {
    out.begin(204).header("Allow", allowed).header("Cache-Control", "no-store").no_body();
}

impl Service for Core {
    type Body = Box<Receiving>;

    fn now(&self) -> Instant {
        self.now.instant
    }

    fn date(&self) -> &HttpDate {
        &self.date
    }

    fn is_stopping(&self) -> bool {
        self.stopping
    }

    fn counters(&mut self) -> &mut HttpCounters {
        &mut self.http
    }

    fn handle_request(
        &mut self,
        id: ConnectionId,
        role: Role,
        head: &Head<'_>,
        rest: &[u8],
        out: &mut Outbox<'_>,
    ) -> Result<(Next<Box<Receiving>>, usize), Refused> {
        if !authorize(Identity::Anonymous(role), head.path, head.method) {
            return Err(Refused::new(403, "this may not be done here", "ask the one who runs the storage point"));
        }
        if head.path == "*" {
            options(allowed(role, true), out);
            return Ok((Next::Answered, 0));
        }
        let resource = target::resource(head.path, head.query).map_err(|bad| match bad {
            BadTarget::NotFound => Refused::new(404, "no such resource", "the resources are under /v1/"),
            BadTarget::Malformed(reason) => {
                Refused::new(400, reason, "correct the request's target").because(Cause::Target)
            }
        })?;
        let allowed = allowed(role, matches!(resource, Resource::Config(_)));
        match (head.method, resource) {
            (Method::Get | Method::Head, resource) => Ok(read::answer(self, id, resource, head, out)?),
            (Method::Options, _) => {
                options(allowed, out);
                Ok((Next::Answered, 0))
            }
            (Method::Put, Resource::Config(path)) if role == Role::Publish => {
                let meta = PublishMeta::new(path, head, false)?;
                Ok(publish::begin_put(self, id, meta, head, rest, out)?)
            }
            (Method::Delete, Resource::Config(path)) if role == Role::Publish => {
                let meta = PublishMeta::new(path, head, true)?;
                if !matches!(head.framing, Framing::None | Framing::Length(0)) {
                    return Err(Refused::new(400, "a deletion has no content", "send no body"));
                }
                publish::submit_delete(self, id, meta);
                Ok((Next::Work, 0))
            }
            _ => Err(Refused::method(allowed)),
        }
    }

    fn handle_body(
        &mut self,
        id: ConnectionId,
        body: &mut Box<Receiving>,
        input: &[u8],
    ) -> Result<(usize, Progress), Refusal> {
        publish::receive(self, id, body, input)
    }

    fn handle_complete_body(&mut self, id: ConnectionId, body: Box<Receiving>) -> Next<Box<Receiving>> {
        publish::complete(self, id, *body);
        Next::Work
    }

    fn handle_broken_body(&mut self, body: Box<Receiving>) {
        body.upload.into_iter().for_each(|upload| self.abort_upload(upload));
    }

    fn handle_closed(&mut self, id: ConnectionId) {
        self.holds.release(id);
        // A content that is not durable yet is not published without its publisher.
        self.uploads.retain(|_, upload| upload.from != id || upload.complete.is_none());
    }

    /// Where something may have been published, the refusal says that nothing was.
    fn refuse(&self, method: Option<Method>, refused: &Refused, out: &mut Outbox<'_>) {
        match method {
            None | Some(Method::Put | Method::Delete) => publish::write_refused(refused, out),
            Some(_) => refused.write(out),
        }
    }
}
