//! Clients that each hold one request of the changes feed, all on one event loop.

use super::Failure;
use acms_engine::client::response::{ResponseParser, encode_request};
use mio::{Events, Interest, Poll, Token, net::TcpStream};
use std::{
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

/// Longest wait for all answers of a wave.
const WAVE_TIME: Duration = Duration::from_secs(60);

struct Waiter {
    stream: TcpStream,
    /// Of the next request.
    cursor: Arc<str>,
    /// Part of an answer.
    input: Vec<u8>,
    answered_at: Option<Instant>,
}

/// What became of one publication.
pub(super) struct Wave {
    /// From the publisher's answer to each waiter's.
    pub(super) latencies: Vec<Duration>,
    pub(super) answer_len: usize,
}

/// All clients.
pub(super) struct Waiters {
    poll: Poll,
    events: Events,
    waiters: Vec<Waiter>,
    prefix: &'static str,
    buffer: Vec<u8>,
    /// The last whole answer and its cursor: most are the same.
    last: (Vec<u8>, Arc<str>),
    answered: u64,
    /// A wave's answers are not followed by a new request before the wave is over.
    asks_again: bool,
}

impl Waiters {
    pub(super) fn connect(address: SocketAddr, count: usize, prefix: &'static str) -> Result<Waiters, Failure> {
        let poll = Poll::new()?;
        let first: Arc<str> = "1.0-0.0".into();
        let mut waiters = Vec::with_capacity(count);
        for number in 0..count {
            let stream = std::net::TcpStream::connect(address)?;
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(number), Interest::READABLE)?;
            waiters.push(Waiter { stream, cursor: Arc::clone(&first), input: Vec::new(), answered_at: None });
        }
        let (events, buffer) = (Events::with_capacity(1024), vec![0; 64 << 10]);
        let last = (Vec::new(), first);
        Ok(Waiters { poll, events, waiters, prefix, buffer, last, answered: 0, asks_again: true })
    }

    /// Answers that have come so far.
    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    /// Sends every waiter's request.
    pub(super) fn ask_all(&mut self) -> Result<(), Failure> {
        (0..self.waiters.len()).try_for_each(|number| self.ask(number))
    }

    fn ask(&mut self, number: usize) -> Result<(), Failure> {
        let waiter = &mut self.waiters[number];
        waiter.answered_at = None;
        let target = format!("/v1/changes/{}/{}", waiter.cursor, self.prefix);
        waiter.stream.write_all(&encode_request("GET", "bench", &target, &[]))?;
        Ok(())
    }

    /// Goes on until no answer has come for a while: every request is held.
    pub(super) fn settle(&mut self, quiet: Duration) -> Result<(), Failure> {
        loop {
            let before = self.answered;
            let began = Instant::now();
            while began.elapsed() < quiet {
                self.turn(quiet.saturating_sub(began.elapsed()))?;
            }
            if self.answered == before {
                return Ok(());
            }
        }
    }

    /// Takes what comes within `time`, and asks again.
    pub(super) fn turn(&mut self, time: Duration) -> Result<(), Failure> {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        self.poll.poll(&mut events, Some(time))?;
        let taken = events.iter().try_for_each(|event| self.take(event.token().0));
        self.events = events;
        taken
    }

    /// Has everybody answered by one publication.
    pub(super) fn wave(&mut self, publish: impl FnOnce() -> Result<(), Failure>) -> Result<Wave, Failure> {
        self.asks_again = false;
        self.waiters.iter_mut().for_each(|waiter| waiter.answered_at = None);
        let until = self.answered + self.waiters.len() as u64;
        publish()?;
        let accepted_at = Instant::now();
        while self.answered < until {
            self.turn(Duration::from_millis(100))?;
            if accepted_at.elapsed() > WAVE_TIME {
                return Err(format!("{} waiters have no answer", until - self.answered).into());
            }
        }
        self.asks_again = true;
        let times = self.waiters.iter().filter_map(|waiter| waiter.answered_at);
        let latencies = times.map(|at| at.saturating_duration_since(accepted_at)).collect();
        let wave = Wave { latencies, answer_len: self.last.0.len() };
        self.ask_all()?;
        self.settle(Duration::from_millis(300))?;
        Ok(wave)
    }

    fn take(&mut self, number: usize) -> Result<(), Failure> {
        let waiter = &mut self.waiters[number];
        let len = match waiter.stream.read(&mut self.buffer) {
            Ok(0) => return Err("the server closed a held connection".into()),
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let at = Instant::now();
        let mut answer = &self.buffer[..len];
        if !waiter.input.is_empty() || answer != self.last.0 {
            waiter.input.extend_from_slice(answer);
            let mut parser = ResponseParser::new(false, 1 << 20);
            parser.push(&waiter.input)?;
            if !parser.is_done() {
                return Ok(());
            }
            let next: Arc<str> = next_cursor(&parser.take_body())?.into();
            self.last = (std::mem::take(&mut waiter.input), next);
            answer = &self.last.0;
        }
        debug_assert!(!answer.is_empty());
        waiter.cursor = Arc::clone(&self.last.1);
        waiter.answered_at = Some(at);
        self.answered += 1;
        if self.asks_again { self.ask(number) } else { Ok(()) }
    }
}

fn next_cursor(body: &[u8]) -> Result<String, Failure> {
    let body: serde_json::Value = serde_json::from_slice(body)?;
    Ok(body["next"].as_str().ok_or("an answer without a cursor")?.to_owned())
}

/// Publishes one content after the other, each once the last is accepted.
pub(super) struct Publisher {
    stream: std::net::TcpStream,
    count: u64,
}

impl Publisher {
    pub(super) fn connect(address: SocketAddr) -> Result<Publisher, Failure> {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Publisher { stream, count: 0 })
    }

    pub(super) fn publish(&mut self, path: &str, size: usize) -> Result<(), Failure> {
        self.count += 1;
        let mut request =
            encode_request("PUT", "bench", &format!("/v1/config/{path}"), &[("Content-Length", &size.to_string())]);
        request.extend(self.count.to_le_bytes().iter().cycle().take(size));
        self.stream.write_all(&request)?;
        let mut parser = ResponseParser::new(false, 1 << 20);
        let mut buffer = [0; 4096];
        while !parser.is_done() {
            let len = self.stream.read(&mut buffer)?;
            if len == 0 {
                return Err("the server closed the publisher's connection".into());
            }
            parser.push(&buffer[..len])?;
        }
        match parser.head().map(|head| head.status) {
            Some(201) => Ok(()),
            status => Err(format!("a publication got {status:?}").into()),
        }
    }
}
