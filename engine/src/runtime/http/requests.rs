//! From the bytes of a connection to requests, and from each request to its answer or its place among those that wait.

use crate::runtime::http::{
    answer::Outbox,
    body::{BodyReader, Piece},
    cause::Cause,
    connection::{Connection, ReplyForm, State},
    head::{self, Framing, Head, Method},
    service::{Next, Progress, Refused, Service},
};

/// An unwanted body of at most this many bytes is passed over; a longer one ends the connection.
const DISCARDED_LEN_MAX: u64 = 64 << 10;
/// Answers of a pipeline are gathered up to about this before they are written.
const GATHERED_LEN_MAX: usize = 128 << 10;

impl<B> From<Next<B>> for State<B> {
    fn from(next: Next<B>) -> State<B> {
        match next {
            Next::Answered => State::Head,
            Next::Receive(body) => State::Receiving(body),
            Next::Work => State::Working,
            Next::Hold => State::Held,
        }
    }
}

/// Works through `input`. Returns how much was taken, and whether the rest waits for something else than more bytes.
pub(super) fn process<S: Service>(
    service: &mut S,
    connection: &mut Connection<S::Body>,
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
                match take_head(service, connection, &input[at..], gathered) {
                    Some(taken) => at += taken,
                    None => return (at, false),
                }
            }
            State::Receiving(mut body) => match service.handle_body(connection.id, &mut body, &input[at..]) {
                Ok((taken, Progress::Complete)) => {
                    at += taken;
                    connection.state = service.handle_complete_body(connection.id, body).into();
                }
                Ok((taken, progress)) => {
                    connection.state = State::Receiving(body);
                    return (at + taken, progress == Progress::Paused);
                }
                Err(refusal) => {
                    service.handle_broken_body(body);
                    connection.form.close = true;
                    let date = service.date().clone();
                    refuse(service, Some(Method::Put), &refusal.into(), &mut connection.outbox(gathered, &date));
                    connection.state = State::Closing;
                }
            },
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
                Err(_) => {
                    service.counters().refused.count(Cause::Chunk);
                    connection.state = State::Closing;
                }
            },
            lingering @ State::Lingering { .. } => {
                connection.state = lingering;
                return (input.len(), false);
            }
            waiting @ (State::Working | State::Held | State::Closing) => {
                connection.state = waiting;
                return (at, true);
            }
        }
    }
}

/// Answers what is refused, and counts it.
pub(super) fn refuse<S: Service>(service: &mut S, method: Option<Method>, refused: &Refused, out: &mut Outbox<'_>) {
    service.counters().refused.count(refused.refusal.cause);
    service.refuse(method, refused, out);
}

/// Takes a head off the input and begins its request. `None`: more of it has to come.
fn take_head<S: Service>(
    service: &mut S,
    connection: &mut Connection<S::Body>,
    input: &[u8],
    gathered: &mut Vec<u8>,
) -> Option<usize> {
    let mut room = head::header_room();
    match head::parse(input, &mut room) {
        Ok(None) => {
            connection.is_mid_head = true;
            None
        }
        Ok(Some((head, len))) => {
            connection.is_mid_head = false;
            service.counters().requests_total += 1;
            Some(len + begin(service, connection, &head, &input[len..], gathered))
        }
        Err(bad) => {
            service.counters().bad_requests_total += 1;
            connection.form = ReplyForm { close: true, ..ReplyForm::default() };
            let date = service.date().clone();
            refuse(service, None, &bad.into(), &mut connection.outbox(gathered, &date));
            connection.state = State::Closing;
            Some(input.len())
        }
    }
}

/// Begins a request; how much of what follows its head was taken.
fn begin<S: Service>(
    service: &mut S,
    connection: &mut Connection<S::Body>,
    head: &Head<'_>,
    rest: &[u8],
    gathered: &mut Vec<u8>,
) -> usize {
    let has_body = !matches!(head.framing, Framing::None | Framing::Length(0));
    connection.form = ReplyForm {
        head_only: head.method == Method::Head,
        // A body where none belongs is not passed over: the connection ends.
        close: !head.keep_alive || service.is_stopping() || (has_body && head.method != Method::Put),
        is_http10: !head.is_http11,
    };
    let can_discard =
        matches!(head.framing, Framing::Length(len) if len <= DISCARDED_LEN_MAX) && !head.expects_continue;
    let client = connection.client();
    let (state, taken, close) = {
        let date = service.date().clone();
        let mut out = connection.outbox(gathered, &date);
        let (state, taken) = match service.handle_request(&client, head, rest, &mut out) {
            Ok((next, taken)) => (next.into(), taken),
            Err(refused) => {
                out.close |= has_body && !can_discard;
                refuse(service, Some(head.method), &refused, &mut out);
                (State::Discarding(BodyReader::new(head.framing)), 0)
            }
        };
        (state, taken, out.close)
    };
    connection.form.close = close;
    connection.state = match state {
        // An answer was written, so the request is over.
        State::Head | State::Discarding(_) if close => State::Closing,
        other => other,
    };
    taken
}
