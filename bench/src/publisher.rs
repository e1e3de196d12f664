//! A publisher on a kept connection, for event loops that drive many.

use crate::Failure;
use acms_engine::client::response::{ResponseParser, encode_request};
use mio::{Interest, Registry, Token, net::TcpStream};
use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    time::{Duration, Instant},
};

const BODY_LEN_MAX: u64 = 1 << 20;

/// A publisher, with one publication under way at most.
#[derive(Debug)]
pub struct Publisher {
    stream: TcpStream,
    parser: ResponseParser,
    request: Vec<u8>,
    written: usize,
    /// From when its latency counts; none: nothing is under way.
    began: Option<Instant>,
}

impl Publisher {
    /// Connects to a storage point, and has events of the connection come as `token`.
    pub fn connect(address: SocketAddr, registry: &Registry, token: Token) -> Result<Publisher, Failure> {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let mut stream = TcpStream::from_std(stream);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let parser = ResponseParser::new(false, BODY_LEN_MAX);
        Ok(Publisher { stream, parser, request: Vec::new(), written: 0, began: None })
    }

    /// Has `content` published; it goes out with the next [`advance`](Publisher::advance).
    pub fn begin(&mut self, path: &str, headers: &[(&str, &str)], content: &[u8], began: Instant) {
        let length = content.len().to_string();
        let headers: Vec<_> = headers.iter().copied().chain([("Content-Length", &*length)]).collect();
        self.request = encode_request("PUT", "bench", &format!("/v1/config/{path}"), &headers);
        self.request.extend_from_slice(content);
        self.written = 0;
        self.parser = ResponseParser::new(false, BODY_LEN_MAX);
        self.began = Some(began);
    }

    /// Writes and reads what goes. The status of the outcome and how long it took, once it is there.
    pub fn advance(&mut self) -> Result<Option<(u16, Duration)>, Failure> {
        let Some(began) = self.began else { return Ok(None) };
        let mut buffer = [0; 4096];
        loop {
            let is_written = self.written == self.request.len();
            let moved = match is_written {
                false => self.stream.write(&self.request[self.written..]),
                true => self.stream.read(&mut buffer),
            };
            match moved {
                Ok(0) => return Err("the storage point closed the connection".into()),
                Ok(len) if is_written => drop(self.parser.push(&buffer[..len])?),
                Ok(len) => self.written += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            if self.parser.is_done() {
                self.began = None;
                return Ok(self.parser.head().map(|head| (head.status, began.elapsed())));
            }
        }
    }
}
