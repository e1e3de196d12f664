//! Connections that each ask for one object again and again, all on one event loop. Bodies are passed over in the
//! kernel, so that the server is what is measured.

use super::{Case, Failure};
use acms_engine::client::response::{ResponseParser, encode_request};
use mio::{Events, Interest, Poll, Token, net::TcpStream};
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};
use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

/// Answers of one connection before others have their turn.
const ANSWERS_MAX: usize = 4;

struct Connection {
    stream: TcpStream,
    /// Bytes of the current answer that are still to come; none: no answer is under way.
    left: usize,
    is_asking: bool,
}

/// All connections to one server.
pub(super) struct Clients {
    poll: Poll,
    connections: Vec<Connection>,
    request: Vec<u8>,
    answer_len: usize,
    buffer: Vec<u8>,
}

impl Clients {
    /// Connects, and learns how long an answer is: from then on only its bytes are counted.
    pub(super) fn connect(address: SocketAddr, case: &Case) -> Result<Clients, Failure> {
        let plain = encode_request("GET", "bench", &case.target, &[]);
        let (head, body) = ask(address, &plain)?;
        if body.len() != case.size {
            return Err(format!("the answer has {} bytes instead of {}", body.len(), case.size).into());
        }
        let request = match case.answer {
            304 => {
                let tag = head.header("etag").ok_or("no entity tag")?;
                encode_request("GET", "bench", &case.target, &[("If-None-Match", tag)])
            }
            _ => plain,
        };
        let answer_len = whole_len(address, &request, case.answer)?;
        let poll = Poll::new()?;
        let mut connections = Vec::new();
        for number in 0..case.connections {
            let stream = std::net::TcpStream::connect(address)?;
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(number), Interest::READABLE)?;
            connections.push(Connection { stream, left: 0, is_asking: false });
        }
        Ok(Clients { poll, connections, request, answer_len, buffer: vec![0; 1 << 20] })
    }

    /// Asks on all connections for so long, then lets what is under way end. How many answers came, and the time it took.
    pub(super) fn run(&mut self, time: Duration) -> Result<(u64, Duration), Failure> {
        let (began, mut answers, mut under_way) = (Instant::now(), 0, self.connections.len());
        for connection in &mut self.connections {
            connection.ask(&self.request, self.answer_len)?;
        }
        let mut events = Events::with_capacity(1024);
        while under_way > 0 {
            self.poll.poll(&mut events, Some(Duration::from_secs(10)))?;
            if events.is_empty() {
                return Err("no answer for ten seconds".into());
            }
            let is_over = began.elapsed() >= time;
            for event in &events {
                let connection = &mut self.connections[event.token().0];
                let mut turns = 0;
                while connection.is_asking && connection.take(&mut self.buffer)? {
                    answers += 1;
                    turns += 1;
                    if is_over {
                        connection.is_asking = false;
                        under_way -= 1;
                    } else {
                        connection.ask(&self.request, self.answer_len)?;
                        if turns == ANSWERS_MAX {
                            // Readiness is told once only: register it anew, for what has come meanwhile.
                            let interest = Interest::READABLE;
                            self.poll.registry().reregister(&mut connection.stream, event.token(), interest)?;
                            break;
                        }
                    }
                }
            }
        }
        Ok((answers, began.elapsed()))
    }
}

impl Connection {
    fn ask(&mut self, request: &[u8], answer_len: usize) -> Result<(), Failure> {
        self.stream.write_all(request)?;
        (self.left, self.is_asking) = (answer_len, true);
        Ok(())
    }

    /// Passes over what has come; whether the answer is whole.
    fn take(&mut self, buffer: &mut [u8]) -> Result<bool, Failure> {
        while self.left > 0 {
            let want = self.left.min(buffer.len());
            match recv(self.stream.as_raw_fd(), &mut buffer[..want], MsgFlags::MSG_TRUNC) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(len) => self.left -= len,
                Err(Errno::EAGAIN) => return Ok(false),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}

/// Head and body of one answer.
fn ask(address: SocketAddr, request: &[u8]) -> Result<(acms_engine::client::response::Head, Vec<u8>), Failure> {
    let (parser, _) = exchange(address, request)?;
    let mut parser = parser;
    let body = parser.take_body();
    Ok((parser.head().ok_or("no head")?.clone(), body))
}

/// Bytes of one answer, which must have this status.
fn whole_len(address: SocketAddr, request: &[u8], status: u16) -> Result<usize, Failure> {
    let (parser, len) = exchange(address, request)?;
    match parser.head().map(|head| head.status) {
        Some(found) if found == status => Ok(len),
        found => Err(format!("the answer is {found:?} instead of {status}").into()),
    }
}

fn exchange(address: SocketAddr, request: &[u8]) -> Result<(ResponseParser, usize), Failure> {
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(request)?;
    let (mut parser, mut buffer, mut total) = (ResponseParser::new(false, 1 << 31), vec![0; 64 << 10], 0);
    while !parser.is_done() {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Err("the server closed the connection".into());
        }
        total += len;
        parser.push(&buffer[..len])?;
    }
    Ok((parser, total))
}
