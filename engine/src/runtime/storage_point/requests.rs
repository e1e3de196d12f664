//! What a storage point answers: reads, publications, and who may do what.

use crate::{
    protocol::Instant,
    runtime::{
        http::{
            answer::{HttpDate, Outbox},
            cause::Cause,
            connection::{ConnectionId, Role},
            head::{Framing, Head, Method},
            service::{Client, HttpCounters, Next, Progress, Refusal, Refused, Service},
            target::{self, BadTarget, Resource},
        },
        storage_point::{
            core::Core,
            publish::{self, PublishMeta, Receiving},
            read,
        },
    },
};
use rustls::ServerConfig;
use std::sync::Arc;

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

    fn tls(&self, role: Role) -> Option<Arc<ServerConfig>> {
        self.access.tls(role)
    }

    fn handle_request(
        &mut self,
        client: &Client,
        head: &Head<'_>,
        rest: &[u8],
        out: &mut Outbox<'_>,
    ) -> Result<(Next<Box<Receiving>>, usize), Refused> {
        if head.path == "*" && head.method == Method::Options {
            options(allowed(client.role, true), out);
            return Ok((Next::Answered, 0));
        }
        let who = self.access.identify(client, head)?;
        let resource = target::resource(head.path, head.query).map_err(|bad| match bad {
            BadTarget::NotFound => Refused::new(404, "no such resource", "the resources are under /v1/"),
            BadTarget::Malformed(reason) => {
                Refused::new(400, reason, "correct the request's target").because(Cause::Target)
            }
        });
        self.access.authorize(client.role, &who, resource.as_ref().ok(), head.method)?;
        let (id, role, resource) = (client.id, client.role, resource?);
        let allowed = allowed(role, matches!(resource, Resource::Config(_)));
        match (head.method, resource) {
            (Method::Get | Method::Head, Resource::PublicationByKey { key, .. }) if who.is_known() => {
                let resource = Resource::PublicationByKey { key, publisher: who.name(head)? };
                Ok(read::answer(self, id, resource, head, out)?)
            }
            (Method::Get | Method::Head, Resource::Upload { key, .. }) if who.is_known() => {
                let resource = Resource::Upload { key, publisher: who.name(head)? };
                Ok(read::answer(self, id, resource, head, out)?)
            }
            (Method::Get | Method::Head, resource) => Ok(read::answer(self, id, resource, head, out)?),
            (Method::Options, _) => {
                options(allowed, out);
                Ok((Next::Answered, 0))
            }
            (Method::Put, Resource::Config(path)) if role == Role::Publish => {
                let meta = PublishMeta::new(path, who.name(head)?, head, false)?;
                Ok(publish::begin_put(self, id, meta, head, rest, out)?)
            }
            (Method::Delete, Resource::Config(path)) if role == Role::Publish => {
                let meta = PublishMeta::new(path, who.name(head)?, head, true)?;
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
        publish::break_off(self, *body);
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
