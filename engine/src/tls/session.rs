//! One TLS connection over something that does not block: the handshake, and bytes in both directions.
//!
//! Invariant: what [`Session::write`] counts as written has left for what is below, encrypted.

use super::{Fault, Identity};
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection, pki_types::ServerName};
use std::{
    io::{self, ErrorKind, Read, Write},
    mem,
    sync::Arc,
};

/// Bytes encrypted at a time: four records, written at once.
const WRITE_LEN_MAX: usize = 64 << 10;

/// The state of one connection: keys, and what is between bytes and records. About 8 KiB when nothing moves, connection and held
/// request included; while bytes move, 64 KiB of them on their way out and a record or two on their way in.
pub struct Session {
    connection: Connection,
    /// Bytes that are encrypted and whose records have not all left: they count as written once they have.
    in_flight_len: usize,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("in_flight_len", &self.in_flight_len).finish_non_exhaustive()
    }
}

impl Session {
    /// The end that was connected to.
    pub fn server(config: &Arc<ServerConfig>) -> io::Result<Session> {
        let connection = ServerConnection::new(config.clone()).map_err(Fault::from)?;
        Ok(Session { connection: connection.into(), in_flight_len: 0 })
    }

    /// The end that has connected, to who has this name.
    pub fn client(config: &Arc<ClientConfig>, name: ServerName<'static>) -> io::Result<Session> {
        let connection = ClientConnection::new(config.clone(), name).map_err(Fault::from)?;
        Ok(Session { connection: connection.into(), in_flight_len: 0 })
    }

    /// Whether it is not yet known who the other end is.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Whether bytes wait for what is below to take them.
    pub fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    /// What the certificate of the other end says; nothing if it presented none that names somebody of a cluster.
    pub fn identity(&self) -> Option<Identity> {
        Identity::of(self.connection.peer_certificates()?.first()?).ok()
    }

    /// Goes on until it is known who the other end is.
    pub fn handshake(&mut self, io: &mut (impl Read + Write)) -> io::Result<()> {
        while self.is_handshaking() {
            self.flush(io)?;
            self.take_in(io)?;
        }
        Ok(())
    }

    /// Reads what the other end has said. 0: it has said all.
    pub fn read(&mut self, io: &mut (impl Read + Write), buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => return other,
            }
            self.take_in(io)?;
        }
    }

    /// Writes the beginning of `bytes`: how much of it. After `WouldBlock` the same bytes must come again.
    pub fn write(&mut self, io: &mut (impl Read + Write), bytes: &[u8]) -> io::Result<usize> {
        self.handshake(io)?;
        if self.in_flight_len == 0 {
            self.in_flight_len = self.connection.writer().write(&bytes[..bytes.len().min(WRITE_LEN_MAX)])?;
        }
        self.finish_write(io)
    }

    /// Goes on with the write that was blocked: how many of its bytes are written now. 0: there was none.
    pub fn finish_write(&mut self, io: &mut impl Write) -> io::Result<usize> {
        self.flush(io)?;
        Ok(mem::take(&mut self.in_flight_len))
    }

    /// Has what is below take all records that wait.
    pub fn flush(&mut self, io: &mut impl Write) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(io) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                other => drop(other?),
            }
        }
        Ok(())
    }

    /// Says that nothing more will be said, as far as what is below takes it.
    pub fn end(&mut self, io: &mut impl Write) {
        self.connection.send_close_notify();
        let _ = self.flush(io);
    }

    /// Takes in records, and says what the handshake has to say.
    fn take_in(&mut self, io: &mut (impl Read + Write)) -> io::Result<()> {
        match self.connection.read_tls(io) {
            Ok(0) if self.is_handshaking() => return Err(Fault::cut().into()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.try_flush(io)?;
                return Err(error);
            }
            Err(error) => return Err(error),
        }
        let processed = self.connection.process_new_packets().map_err(Fault::from);
        // The alert that says why goes out too; the fault counts, not whether that could be said.
        let flushed = self.try_flush(io);
        processed?;
        flushed
    }

    fn try_flush(&mut self, io: &mut impl Write) -> io::Result<()> {
        match self.flush(io) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            other => other,
        }
    }
}
