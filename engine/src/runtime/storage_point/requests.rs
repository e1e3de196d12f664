//! From the bytes of a connection to requests, and from each request to its answer or its place among those that wait.

use crate::runtime::{
    http::{
        answer::Outbox,
        body::{BodyReader, Piece},
        head::{self, BadHead, Framing, Head, Method},
        target::{self, BadTarget, Resource},
    },
    storage_point::{
        connection::{Connection, ConnectionId, ReplyForm, Role, State},
        core::Core,
        publish::{self, Progress, PublishMeta, Refusal},
        read,
    },
};

/// An unwanted body of at most this many bytes is passed over; a longer one ends the connection.
const DISCARDED_LEN_MAX: u64 = 64 << 10;
/// Answers of a pipeline are gathered up to about this before they are written.
const GATHERED_LEN_MAX: usize = 128 << 10;

/// Who asks. Until clients have keys everybody is the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Identity {
    /// Somebody who can reach the listener.
    Anonymous(Role),
}

/// Whether `identity` may do `method` to `path`. Every request passes here.
pub(super) fn authorize(identity: Identity, _path: &str, method: Method) -> bool {
    match (identity, method) {
        (Identity::Anonymous(Role::Publish), _) | (_, Method::Get | Method::Head | Method::NotAllowed) => true,
        (Identity::Anonymous(Role::Deliver), Method::Put | Method::Delete) => false,
    }
}

/// Works through `input`. Returns how much was taken, and whether the rest waits for something else than more bytes.
pub(super) fn process(
    core: &mut Core,
    connection: &mut Connection,
    input: &[u8],
    gathered: &mut Vec<u8>,
) -> (usize, bool) {
    let mut at = 0;
    loop {
        match connection.take_state() {
            State::Head => {
                if at == input.len() {
                    return (at, false);
                }
                if gathered.len() > GATHERED_LEN_MAX || !connection.is_flushed() {
                    return (at, true);
                }
                match take_head(core, connection, &input[at..], gathered) {
                    Some(taken) => at += taken,
                    None => return (at, false),
                }
            }
            State::Receiving(mut receiving) => {
                match publish::receive(core, connection.id, &mut receiving, &input[at..]) {
                    Ok((taken, progress)) => {
                        at += taken;
                        match progress {
                            Progress::Complete => {
                                connection.state = publish::complete(core, connection.id, *receiving);
                            }
                            Progress::NeedMore | Progress::Paused => {
                                connection.state = State::Receiving(receiving);
                                return (at, matches!(progress, Progress::Paused));
                            }
                        }
                    }
                    Err(refusal) => {
                        receiving.upload.into_iter().for_each(|upload| core.abort_upload(upload));
                        connection.form.close = true;
                        refusal.write(&mut connection.outbox(gathered, &core.date), None);
                        connection.state = State::Closing;
                    }
                }
            }
            State::Discarding(mut reader) => match reader.next(&input[at..]) {
                Ok((taken, Piece::End)) => at += taken,
                Ok((taken, Piece::Data(_))) => {
                    at += taken;
                    connection.state = State::Discarding(reader);
                }
                Ok((taken, Piece::NeedMore)) => {
                    connection.state = State::Discarding(reader);
                    return (at + taken, false);
                }
                Err(_) => connection.state = State::Closing,
            },
            State::Lingering => {
                connection.state = State::Lingering;
                return (input.len(), false);
            }
            waiting @ (State::Finishing(_) | State::Submitted | State::Held | State::Closing) => {
                connection.state = waiting;
                return (at, true);
            }
        }
    }
}

/// Takes a head off the input and begins its request. `None`: more of it has to come.
fn take_head(core: &mut Core, connection: &mut Connection, input: &[u8], gathered: &mut Vec<u8>) -> Option<usize> {
    let mut room = head::header_room();
    match head::parse(input, &mut room) {
        Ok(None) => {
            connection.is_mid_head = true;
            None
        }
        Ok(Some((head, len))) => {
            connection.is_mid_head = false;
            core.counters.requests_total += 1;
            Some(len + begin(core, connection, &head, &input[len..], gathered))
        }
        Err(bad) => {
            core.counters.bad_requests_total += 1;
            connection.form = ReplyForm { close: true, ..ReplyForm::default() };
            Refusal::from(bad).write(&mut connection.outbox(gathered, &core.date), None);
            connection.state = State::Closing;
            Some(input.len())
        }
    }
}

/// Begins a request; how much of what follows its head was taken.
fn begin(core: &mut Core, connection: &mut Connection, head: &Head<'_>, rest: &[u8], gathered: &mut Vec<u8>) -> usize {
    let has_body = !matches!(head.framing, Framing::None | Framing::Length(0));
    connection.form = ReplyForm {
        head_only: head.method == Method::Head,
        // A body where none belongs is not passed over: the connection ends.
        close: !head.keep_alive || core.stopping || (has_body && head.method != Method::Put),
        is_http10: !head.is_http11,
    };
    let can_discard =
        matches!(head.framing, Framing::Length(len) if len <= DISCARDED_LEN_MAX) && !head.expects_continue;
    let (id, role) = (connection.id, connection.role);
    let (begun, close) = {
        let mut out = connection.outbox(gathered, &core.date);
        let mut begun = dispatch(core, id, role, head, rest, &mut out);
        if let Err(Refused { refusal, allow }) = &begun {
            out.close |= has_body && !can_discard;
            refuse(head.method, refusal, *allow, &mut out);
            begun = Ok((State::Discarding(BodyReader::new(head.framing)), 0));
        }
        (begun, out.close)
    };
    connection.form.close = close;
    let (state, taken) = begun.unwrap_or((State::Closing, 0));
    connection.state = match state {
        // An answer was written, so the request is over.
        State::Head | State::Discarding(_) if close => State::Closing,
        other => other,
    };
    taken
}

/// A request that gets an error, and the methods that its resource takes.
struct Refused {
    refusal: Refusal,
    allow: Option<&'static str>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        Refused { refusal, allow: None }
    }
}

impl From<BadHead> for Refused {
    fn from(bad: BadHead) -> Refused {
        Refused { refusal: bad.into(), allow: None }
    }
}

fn refused(status: u16, reason: impl Into<String>, remedy: &'static str) -> Refused {
    Refused { refusal: Refusal { status, reason: reason.into(), remedy }, allow: None }
}

fn refuse(method: Method, refusal: &Refusal, allow: Option<&str>, out: &mut Outbox<'_>) {
    match method {
        Method::Put | Method::Delete => refusal.write(out, allow),
        _ => out.error(refusal.status, &refusal.reason, refusal.remedy, |out| {
            if let Some(allow) = allow {
                out.header("Allow", allow);
            }
        }),
    }
}

fn dispatch(
    core: &mut Core,
    id: ConnectionId,
    role: Role,
    head: &Head<'_>,
    rest: &[u8],
    out: &mut Outbox<'_>,
) -> Result<(State, usize), Refused> {
    if !authorize(Identity::Anonymous(role), head.path, head.method) {
        return Err(refused(403, "this address is for reading only", "publish at the publish address"));
    }
    let resource = target::resource(head.path, head.query).map_err(|bad| match bad {
        BadTarget::NotFound => refused(404, "no such resource", "the resources are under /v1/"),
        BadTarget::Malformed(reason) => refused(400, reason, "correct the request's target"),
    })?;
    let is_config = matches!(resource, Resource::Config(_));
    match (head.method, resource) {
        (Method::Get | Method::Head, resource) => read::answer(core, id, resource, head, out).map_err(Refused::from),
        (Method::Put, Resource::Config(path)) => {
            let meta = PublishMeta::new(path, head, false)?;
            Ok(publish::begin_put(core, id, meta, head, rest, out)?)
        }
        (Method::Delete, Resource::Config(path)) => {
            let meta = PublishMeta::new(path, head, true)?;
            if !matches!(head.framing, Framing::None | Framing::Length(0)) {
                return Err(refused(400, "a deletion has no content", "send no body"));
            }
            publish::submit_delete(core, id, meta);
            Ok((State::Submitted, 0))
        }
        _ => {
            let allow = if is_config { "GET, HEAD, PUT, DELETE" } else { "GET, HEAD" };
            let error = refused(405, "the resource does not take this method", "see the header Allow");
            Err(Refused { allow: Some(allow), ..error })
        }
    }
}
