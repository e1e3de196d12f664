//! The bytes of a client's connection, plain or encrypted. Nothing here blocks; [`Wire::flags`] says what to wait for.

use crate::tls::{ClientTls, Session};
use nix::poll::PollFlags;
use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::TcpStream,
};

/// A socket, and what is between it and the bytes that are meant.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) tcp: TcpStream,
    session: Option<Box<Session>>,
}

impl Wire {
    /// Over a socket that is connected to `host`; with TLS if there is a configuration for it.
    pub(super) fn new(tcp: TcpStream, tls: Option<&ClientTls>, host: &str) -> io::Result<Wire> {
        let session = tls.map(|tls| tls.connect(host)).transpose()?.map(Box::new);
        Ok(Wire { tcp, session })
    }

    /// Goes on with the handshake; whether it is over.
    pub(super) fn handshake(&mut self) -> io::Result<bool> {
        let Some(session) = &mut self.session else { return Ok(true) };
        match session.handshake(&mut self.tcp).and_then(|()| session.flush(&mut self.tcp)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What to wait for, where `more` says whether there is something to write.
    pub(super) fn flags(&self, more: bool) -> PollFlags {
        let wants_write = self.session.as_ref().is_some_and(|session| session.wants_write());
        if more || wants_write { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN }
    }

    /// Whether reading may give something though the socket has nothing.
    pub(super) fn may_have_more(&self) -> bool {
        self.session.is_some()
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.session {
            None => self.tcp.read(buffer),
            Some(session) => session.read(&mut self.tcp, buffer),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.session {
            None => self.tcp.write(bytes),
            Some(session) => session.write(&mut self.tcp, bytes),
        }
    }
}
