#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use mio::Poll;
use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream as Accepted},
};

const START: Instant = Instant(1_000_000_000);
const WAKER: Token = Token(0);
const TIMEOUT: Duration = Duration::from_secs(3);
const IN_ALL: Duration = Duration::from_secs(5);

/// Writes down how requests have ended, by their numbers; `full` says that no body is taken.
#[derive(Default, Debug)]
struct Notes {
    ended: Vec<(u32, Result<u16, UpstreamError>)>,
    full: bool,
}

impl Sink for Notes {
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
    type Incoming = u32;

    fn take(&mut self, _: &mut u32, _: &Head, part: Vec<u8>) -> Result<(), UpstreamError> {
        if self.full && !part.is_empty() { Err(UpstreamError::Disk("no room".into())) } else { Ok(()) }
    }

    fn complete(&mut self, number: u32, status: u16) {
        self.ended.push((number, Ok(status)));
    }

    fn fail(&mut self, _: Instant, number: u32, error: UpstreamError) {
        self.ended.push((number, Err(error)));
    }
}

/// Two sources, played by the test, and one who asks them.
struct World {
    poll: Poll,
    io: Io,
    upstream: Upstream<Notes>,
    sources: Vec<TcpListener>,
}

impl World {
    fn new(sockets_max: usize) -> World {
        let sources: Vec<_> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        sources.iter().for_each(|source| source.set_nonblocking(true).unwrap());
        let url = |source: &TcpListener| format!("http://{}", source.local_addr().unwrap()).parse().unwrap();
        let urls = sources.iter().map(url).collect();
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).unwrap());
        let io = Io::new(urls, None, poll.registry().try_clone().unwrap(), waker);
        World { poll, io, upstream: Upstream::new(1, sockets_max, Notes::default()), sources }
    }

    fn begin(&mut self, source: usize, number: u32) {
        let (target, headers) = ("/x", &[("User-Agent", "test")][..]);
        let request =
            UpstreamRequest { source, target, headers, body_len_max: 100, timeout: TIMEOUT, timeout_in_all: IN_ALL };
        self.upstream.begin(&mut self.io, START, &request, number);
    }

    /// One turn of the loop, at this time.
    fn turn(&mut self, now: Instant) {
        let mut events = mio::Events::with_capacity(16);
        self.poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
        events.iter().for_each(|event| self.upstream.handle_event(&mut self.io, now, event));
    }

    /// Accepts a connection, reads its request and writes `answer`.
    fn answer(&mut self, source: usize, answer: &str) -> Accepted {
        let mut accepted = loop {
            match self.sources[source].accept() {
                Ok((accepted, _)) => break accepted,
                Err(_) => self.turn(START),
            }
        };
        accepted.set_nonblocking(false).unwrap();
        while self.upstream.connections.iter().all(|(_, connection)| connection.phase != Phase::Receiving) {
            self.turn(START);
        }
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            accepted.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        accepted.write_all(answer.as_bytes()).unwrap();
        accepted
    }

    fn ended(&mut self) -> (u32, Result<u16, UpstreamError>) {
        while self.upstream.sink.ended.is_empty() {
            self.turn(START);
        }
        self.upstream.sink.ended.remove(0)
    }
}

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";

#[test]
fn a_request_on_a_kept_connection_that_the_source_has_closed_is_sent_anew() {
    let mut world = World::new(8);
    world.begin(0, 1);
    let first = world.answer(0, ANSWER);
    assert_eq!(world.ended(), (1, Ok(200)));
    drop(first);
    world.begin(0, 2);
    let _second = world.answer(0, ANSWER);
    assert_eq!(world.ended(), (2, Ok(200)));
    // A source that has not kept its first connection open has failed, without a second try.
    world.upstream.cancel_all().for_each(drop);
    world.begin(0, 3);
    drop(world.answer(0, ""));
    assert!(matches!(world.ended(), (3, Err(UpstreamError::Broken(_)))));
}

#[test]
fn idle_connections_make_room() {
    let mut world = World::new(1);
    world.begin(0, 1);
    let mut first = world.answer(0, ANSWER);
    assert_eq!(world.ended(), (1, Ok(200)));
    world.begin(1, 2);
    assert_eq!(world.upstream.connections.len(), 1);
    assert_eq!(first.read(&mut [0]).unwrap(), 0, "closed");
    let _second = world.answer(1, ANSWER);
    assert_eq!(world.ended(), (2, Ok(200)));
}

#[test]
fn silence_and_dribbling_come_to_an_end() {
    let mut world = World::new(8);
    world.begin(0, 1);
    let mut accepted = world.answer(0, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n");
    assert_eq!(world.upstream.poll_timeout(), Some(START.after(TIMEOUT)));
    for byte in [b"a", b"b"] {
        accepted.write_all(byte).unwrap();
        world.turn(START.after(Duration::from_secs(2)));
    }
    // Each byte gives it more time, but only so much.
    assert_eq!(world.upstream.poll_timeout(), Some(START.after(IN_ALL)));
    world.upstream.expire(&mut world.io, START.after(TIMEOUT));
    assert_eq!(world.upstream.incoming().count(), 1);
    world.upstream.expire(&mut world.io, START.after(IN_ALL));
    assert_eq!(world.ended(), (1, Err(UpstreamError::TimedOut)));
    assert_eq!(world.upstream.poll_timeout(), None);
}

#[test]
fn what_the_sink_refuses_ends_the_exchange_and_what_is_cancelled_is_not_told() {
    let mut world = World::new(8);
    world.upstream.sink.full = true;
    world.begin(0, 1);
    let mut accepted = world.answer(0, ANSWER);
    assert_eq!(world.ended(), (1, Err(UpstreamError::Disk("no room".into()))));
    assert_eq!(accepted.read(&mut [0]).unwrap(), 0, "closed");
    (2..4).for_each(|number| world.begin(0, number));
    world.upstream.cancel(|number| *number == 2);
    assert_eq!(world.upstream.incoming().collect::<Vec<_>>(), [&3]);
    assert_eq!(world.upstream.cancel_all().collect::<Vec<_>>(), [3]);
    assert_eq!(world.upstream.sink.ended, []);
}
