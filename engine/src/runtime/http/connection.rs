//! One HTTP connection: what was read and not yet understood, what was answered and not yet written, and what it is
//! doing. An idle or held connection has no buffers.

use crate::{
    protocol::{Duration, Instant},
    runtime::{
        http::{
            answer::{HttpDate, Outbox, Piece},
            body::BodyReader,
            service::{Client, IncomingBody},
        },
        stream::{ReadResult, Stream},
    },
    tls::Identity,
};
use bytes::Bytes;
use std::{collections::VecDeque, io, mem, sync::Arc};

/// Bytes written to one connection before others have their turn.
const WRITE_BUDGET: usize = 1 << 20;
/// After its last answer a client may be silent for this long ...
const LINGER_TIME: Duration = Duration::from_secs(2);
/// ... or go on sending for this long.
const LINGER_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a connection may do what it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HttpTimes {
    /// For the head of a request, from its first byte.
    pub head: Duration,
    /// A body without progress.
    pub body: Duration,
    /// An answer of which the client takes nothing.
    pub write: Duration,
    /// Between requests.
    pub idle: Duration,
}

impl Default for HttpTimes {
    fn default() -> HttpTimes {
        let seconds = Duration::from_secs;
        HttpTimes { head: seconds(10), body: seconds(30), write: seconds(30), idle: seconds(75) }
    }
}

/// Names a connection; never repeated.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ConnectionId {
    /// Place in the table.
    pub(super) key: usize,
    /// Tells apart those that had the same place.
    pub(super) serial: u64,
}

/// What a listener is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Everything.
    Publish,
    /// Reading only.
    Deliver,
}

/// What a connection is doing. `B`: a body on its way in.
#[derive(Debug)]
pub(super) enum State<B> {
    /// Between requests, or in a head.
    Head,
    /// Taking in the body of a request.
    Receiving(B),
    /// The answer is being worked out, whether or not the client stays.
    Working,
    /// The answer waits for something; without the client nobody wants it.
    Held,
    /// Passing over a body that nobody wants.
    Discarding(BodyReader),
    /// The last answer is being written.
    Closing,
    /// All is written; what still comes is passed over, so that the client sees the answer and not a reset.
    Lingering {
        /// Since then.
        since: Instant,
    },
}

/// How the answer to the current request is to be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ReplyForm {
    pub(super) head_only: bool,
    pub(super) close: bool,
    pub(super) is_http10: bool,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection<B> {
    pub(super) stream: Stream,
    pub(super) id: ConnectionId,
    pub(super) role: Role,
    /// Who the client is, once that was asked for the first time.
    identity: Option<Option<Arc<Identity>>>,
    pub(super) state: State<B>,
    pub(super) form: ReplyForm,
    /// Read and not yet understood.
    pub(super) input: Vec<u8>,
    /// `input` was not looked at for want of something else than more bytes.
    pub(super) input_waits: bool,
    queue: VecDeque<Piece>,
    progress_at: Instant,
    /// Part of a head is here: more of it is no progress, or a client could take its time for ever.
    pub(super) is_mid_head: bool,
    /// It stands in the list of those to be driven again.
    pub(super) is_listed: bool,
}

impl<B: IncomingBody> Connection<B> {
    pub(super) fn new(stream: Stream, id: ConnectionId, role: Role, now: Instant) -> Connection<B> {
        Connection {
            stream,
            id,
            role,
            identity: None,
            state: State::Head,
            form: ReplyForm::default(),
            input: Vec::new(),
            input_waits: false,
            queue: VecDeque::new(),
            progress_at: now,
            is_mid_head: false,
            is_listed: false,
        }
    }

    /// Whom the requests of this connection are from.
    pub(super) fn client(&mut self) -> Client {
        let identity = self.identity.get_or_insert_with(|| self.stream.identity().map(Arc::new)).clone();
        Client { id: self.id, role: self.role, identity }
    }

    /// Whether nothing can be sent to it any more.
    pub(super) fn is_lost(&self, event: &mio::event::Event) -> bool {
        event.is_error() || event.is_write_closed()
    }

    pub(super) fn read(&mut self, buffer: &mut [u8], now: Instant) -> io::Result<ReadResult> {
        let result = self.stream.read(buffer)?;
        if matches!(result, ReadResult::Bytes(_)) && !self.is_mid_head {
            self.progress_at = now;
        }
        Ok(result)
    }

    /// Where an answer is written; `bytes` is what this connection gathers now.
    pub(super) fn outbox<'a>(&'a mut self, bytes: &'a mut Vec<u8>, date: &HttpDate) -> Outbox<'a> {
        let ReplyForm { head_only, close, is_http10 } = self.form;
        Outbox { bytes, queue: &mut self.queue, date: date.clone(), head_only, close, is_http10 }
    }

    /// Whether all that was answered is written.
    pub(super) fn is_flushed(&self) -> bool {
        self.queue.is_empty()
    }

    /// Writes `gathered` behind what is queued, as far as the socket takes it. Empties `gathered`. Returns how many bytes
    /// were written.
    pub(super) fn write(&mut self, gathered: &mut Vec<u8>, now: Instant) -> io::Result<u64> {
        let mut total = 0;
        let mut from = 0;
        while self.queue.is_empty() && self.stream.is_writable() && from < gathered.len() {
            from += self.stream.write(&gathered[from..])?;
        }
        total += from as u64;
        if from < gathered.len() {
            self.queue.push_back(Piece::Bytes(Bytes::copy_from_slice(&gathered[from..])));
        }
        gathered.clear();
        let mut budget = WRITE_BUDGET;
        while self.stream.is_writable() && budget > 0 && !self.queue.is_empty() {
            let written = self.write_piece(budget)?;
            budget = budget.saturating_sub(written);
            total += written as u64;
        }
        if total > 0 {
            self.progress_at = now;
        }
        if self.queue.is_empty() && self.queue.capacity() > 0 {
            self.queue = VecDeque::new();
        }
        Ok(total)
    }

    /// Whether a budget, not the socket, ended the writing.
    pub(super) fn can_write_on(&self) -> bool {
        self.stream.is_writable() && !self.queue.is_empty()
    }

    fn write_piece(&mut self, budget: usize) -> io::Result<usize> {
        let Some(piece) = self.queue.front_mut() else { return Ok(0) };
        let (len, is_done) = match piece {
            Piece::Bytes(bytes) => {
                let len = self.stream.write(&bytes[..bytes.len().min(budget)])?;
                *bytes = bytes.split_off(len);
                (len, bytes.is_empty())
            }
            Piece::File { file, offset, end } => {
                let len_max = usize::try_from(*end - *offset).unwrap_or(usize::MAX).min(budget);
                let len = self.stream.write_file(file, *offset, len_max)?;
                *offset += len as u64;
                (len, *offset >= *end)
            }
        };
        if is_done {
            self.queue.pop_front();
        }
        Ok(len)
    }

    /// Queues bytes that many connections may share.
    pub(super) fn push_shared(&mut self, answer: Bytes) {
        self.queue.push_back(Piece::Bytes(answer));
    }

    /// All is written: ends the sending side and waits for the client to end its own.
    pub(super) fn linger(&mut self, now: Instant) {
        self.stream.end();
        self.progress_at = now;
        self.state = State::Lingering { since: now };
        self.is_mid_head = false;
        self.input = Vec::new();
    }

    /// What is to be done about the time that has passed without progress.
    pub(super) fn overdue(&self, times: &HttpTimes, now: Instant) -> Overdue {
        let idle = now.since(self.progress_at);
        if !self.queue.is_empty() {
            return if idle >= times.write { Overdue::Close } else { Overdue::No };
        }
        match &self.state {
            State::Head if self.stream.is_handshaking() && idle >= times.head => Overdue::Close,
            State::Head if self.is_mid_head && idle >= times.head => Overdue::Say408,
            State::Head if idle >= times.idle => Overdue::Idle,
            State::Receiving(body) if body.waits_for_client() && idle >= times.body => Overdue::Say408,
            State::Discarding(_) if idle >= times.body => Overdue::Close,
            State::Closing if idle >= LINGER_TIME => Overdue::Idle,
            State::Lingering { since } if idle >= LINGER_TIME || now.since(*since) >= LINGER_TIME_MAX => Overdue::Idle,
            _ => Overdue::No,
        }
    }

    /// A change from outside counts as progress: the client could not have done anything before it.
    pub(super) fn touch(&mut self, now: Instant) {
        self.progress_at = now;
    }

    /// Takes the state out, for a request to be gone on with.
    pub(super) fn take_state(&mut self) -> State<B> {
        mem::replace(&mut self.state, State::Head)
    }
}

/// What a connection without progress gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Overdue {
    No,
    /// There is nothing to complain of.
    Idle,
    Close,
    Say408,
}
