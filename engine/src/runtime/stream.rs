//! A connection's bytes, whichever way they travel, with what the kernel has said of its readiness: read until it blocks,
//! write until it blocks, nothing is waited for.
//!
//! Invariant: what [`Stream::write`] counts as written has left for the socket. Nothing is held back here that its caller
//! believes sent.

use mio::{Interest, Registry, Token, event::Event, net::TcpStream};
use nix::sys::sendfile::sendfile;
use std::{
    fs::File,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr},
    os::fd::AsFd as _,
};

/// A connection that does not block.
#[derive(Debug)]
pub struct Stream {
    transport: Transport,
    readable: bool,
    writable: bool,
    /// The other end has ended its side, or the kernel says so.
    ended: bool,
}

#[derive(Debug)]
enum Transport {
    Plain(TcpStream),
}

/// What reading gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadResult {
    /// So many bytes.
    Bytes(usize),
    /// Nothing for now.
    Blocked,
    /// The other end has said all.
    End,
}

impl Stream {
    /// A plain connection that someone has made to this process: ready until it is found not to be.
    pub fn accepted(tcp: TcpStream) -> Stream {
        Stream { transport: Transport::Plain(tcp), readable: true, writable: true, ended: false }
    }

    /// A plain connection that this process makes: not ready before the kernel says so.
    pub fn connecting(tcp: TcpStream) -> Stream {
        Stream { transport: Transport::Plain(tcp), readable: false, writable: false, ended: false }
    }

    /// The socket below.
    pub fn tcp(&self) -> &TcpStream {
        match &self.transport {
            Transport::Plain(tcp) => tcp,
        }
    }

    fn tcp_mut(&mut self) -> &mut TcpStream {
        match &mut self.transport {
            Transport::Plain(tcp) => tcp,
        }
    }

    /// Has readiness of both kinds announced as `token`.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(self.tcp_mut(), token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Has the kernel announce anew what it has announced already.
    pub fn announce_again(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.reregister(self.tcp_mut(), token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Notes what the kernel says.
    pub fn note(&mut self, event: &Event) {
        self.ended |= event.is_read_closed() || event.is_error();
        self.readable |= event.is_readable() || self.ended;
        self.writable |= event.is_writable() || event.is_error();
    }

    /// Whether reading may give something.
    pub fn is_readable(&self) -> bool {
        self.readable
    }

    /// Whether writing may get something across.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Whether the other end has ended its side, as far as the kernel has said.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The address of the other end, once there is a connection.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().peer_addr()
    }

    /// Reads into `buffer`.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<ReadResult> {
        while self.readable {
            let result = match &mut self.transport {
                Transport::Plain(tcp) => tcp.read(buffer),
            };
            match result {
                Ok(0) => return Ok(ReadResult::End),
                Ok(len) => {
                    // A short read has emptied the socket: what comes later is announced anew, and so is its end.
                    self.readable = len == buffer.len() || self.ended;
                    return Ok(ReadResult::Bytes(len));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(ReadResult::Blocked)
    }

    /// Writes the beginning of `bytes`: how much of it. 0: nothing more for now; the next call brings the same bytes again.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        while self.writable && !bytes.is_empty() {
            let result = match &mut self.transport {
                Transport::Plain(tcp) => tcp.write(bytes),
            };
            if let Some(len) = self.written(result)? {
                return Ok(len);
            }
        }
        Ok(0)
    }

    /// Writes from `offset` of a file, `len_max` bytes at most, as [`write`](Stream::write) does.
    pub fn write_file(&mut self, file: &File, offset: u64, len_max: usize) -> io::Result<usize> {
        while self.writable && len_max > 0 {
            let result = match &mut self.transport {
                Transport::Plain(tcp) => {
                    let mut at = offset as i64;
                    sendfile(tcp.as_fd(), file.as_fd(), Some(&mut at), len_max).map_err(io::Error::from)
                }
            };
            match self.written(result)? {
                // Shorter than its length was: the other end must not take it for whole.
                Some(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Some(len) => return Ok(len),
                None => {}
            }
        }
        Ok(0)
    }

    fn written(&mut self, result: io::Result<usize>) -> io::Result<Option<usize>> {
        match result {
            Ok(len) => Ok(Some(len)),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => {
                    self.writable = false;
                    Ok(None)
                }
                ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Ends this side; the other may still be read.
    pub fn end(&mut self) {
        // One that is gone already needs no end.
        let _ = self.tcp().shutdown(Shutdown::Write);
    }
}
