//! A connection's bytes, whichever way they travel, with what the kernel has said of its readiness: read until it blocks,
//! write until it blocks, nothing is waited for.
//!
//! Invariant: what [`Stream::write`] counts as written has left for the socket. Nothing is held back here that its caller
//! believes sent.

use crate::tls::{Identity, Session};
use mio::{Interest, Registry, Token, event::Event, net::TcpStream};
use nix::sys::sendfile::sendfile;
use std::{
    fs::File,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr},
    os::{fd::AsFd as _, unix::fs::FileExt as _},
};

/// Bytes of a file that are read to be encrypted at a time.
const FILE_PART_LEN: usize = 64 << 10;

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
    /// In a box, so that plain connections, which are many, stay small.
    Tls(Box<Tls>),
}

#[derive(Debug)]
struct Tls {
    tcp: TcpStream,
    session: Session,
    is_abandoned: bool,
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
    /// A connection that someone has made to this process: ready until it is found not to be. Without a session: plain.
    pub fn accepted(tcp: TcpStream, session: Option<Session>) -> Stream {
        Stream { readable: true, writable: true, ..Stream::connecting(tcp, session) }
    }

    /// A connection that this process makes: not ready before the kernel says so. Without a session: plain.
    pub fn connecting(tcp: TcpStream, session: Option<Session>) -> Stream {
        let transport = match session {
            None => Transport::Plain(tcp),
            Some(session) => Transport::Tls(Box::new(Tls { tcp, session, is_abandoned: false })),
        };
        Stream { transport, readable: false, writable: false, ended: false }
    }

    /// The socket below.
    pub fn tcp(&self) -> &TcpStream {
        match &self.transport {
            Transport::Plain(tcp) => tcp,
            Transport::Tls(tls) => &tls.tcp,
        }
    }

    fn tcp_mut(&mut self) -> &mut TcpStream {
        match &mut self.transport {
            Transport::Plain(tcp) => tcp,
            Transport::Tls(tls) => &mut tls.tcp,
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
        self.writable && !self.is_handshaking()
    }

    /// Whether it is not known yet who is at the other end.
    pub fn is_handshaking(&self) -> bool {
        matches!(&self.transport, Transport::Tls(tls) if tls.session.is_handshaking() && !tls.is_abandoned)
    }

    /// Who the certificate of the other end says that it is; nobody on plain connections.
    pub fn identity(&self) -> Option<Identity> {
        match &self.transport {
            Transport::Plain(_) => None,
            Transport::Tls(tls) => tls.session.identity(),
        }
    }

    /// Whether the other end has ended its side, as far as the kernel has said.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The address of the other end, once there is a connection.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().peer_addr()
    }

    /// Goes on with the handshake, and says what it had to say and the socket did not take before. For a connection that
    /// waits to be written to, as reading and writing do the same.
    pub fn advance(&mut self) -> io::Result<()> {
        let Transport::Tls(tls) = &mut self.transport else { return Ok(()) };
        let Tls { tcp, session, is_abandoned: false } = &mut **tls else { return Ok(()) };
        let was_handshaking = session.is_handshaking();
        let done = if was_handshaking { session.handshake(tcp) } else { session.flush(tcp) };
        // What came with its end is here, and nobody announces it any more.
        self.readable |= was_handshaking && !session.is_handshaking();
        match done {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads into `buffer`.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<ReadResult> {
        self.advance()?;
        while self.readable {
            let (result, is_plain) = match &mut self.transport {
                Transport::Plain(tcp) => (tcp.read(buffer), true),
                Transport::Tls(tls) if tls.is_abandoned => (tls.tcp.read(buffer), true),
                Transport::Tls(tls) => (tls.session.read(&mut tls.tcp, buffer), false),
            };
            match result {
                Ok(0) => return Ok(ReadResult::End),
                Ok(len) => {
                    // A short read has emptied the socket: what comes later is announced anew, and so is its end.
                    self.readable = len == buffer.len() || self.ended || !is_plain;
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
        if self.is_handshaking() {
            self.advance()?;
        }
        while self.is_writable() && !bytes.is_empty() {
            let result = match &mut self.transport {
                Transport::Plain(tcp) => tcp.write(bytes),
                Transport::Tls(tls) => tls.session.write(&mut tls.tcp, bytes),
            };
            if let Some(len) = self.written(result)? {
                return Ok(len);
            }
        }
        Ok(0)
    }

    /// Writes from `offset` of a file, `len_max` bytes at most, as [`write`](Stream::write) does.
    pub fn write_file(&mut self, file: &File, offset: u64, len_max: usize) -> io::Result<usize> {
        while self.is_writable() && len_max > 0 {
            let result = match &mut self.transport {
                Transport::Plain(tcp) => {
                    let mut at = offset as i64;
                    sendfile(tcp.as_fd(), file.as_fd(), Some(&mut at), len_max).map_err(io::Error::from)
                }
                Transport::Tls(tls) => encrypt_file(tls, file, offset, len_max),
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

    /// TLS has failed, and this end has said so: what still comes is read as it is, to be passed over. Were the connection
    /// closed at once, the other end might see that instead of the reason.
    pub fn abandon_tls(&mut self) {
        if let Transport::Tls(tls) = &mut self.transport {
            tls.is_abandoned = true;
        }
    }

    /// Ends this side; the other may still be read.
    pub fn end(&mut self) {
        if let Transport::Tls(tls) = &mut self.transport {
            tls.session.end(&mut tls.tcp);
        }
        // One that is gone already needs no end.
        let _ = self.tcp().shutdown(Shutdown::Write);
    }
}

/// Reads a part of a file and writes it, encrypted; the part that was blocked before, if there is one.
fn encrypt_file(tls: &mut Tls, file: &File, offset: u64, len_max: usize) -> io::Result<usize> {
    let blocked = tls.session.finish_write(&mut tls.tcp)?;
    if blocked > 0 {
        return Ok(blocked);
    }
    let mut part = vec![0; len_max.min(FILE_PART_LEN)];
    let len = file.read_at(&mut part, offset)?;
    if len == 0 { Ok(0) } else { tls.session.write(&mut tls.tcp, &part[..len]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{Authority, ClientTls, Identity, ListenerTls, PairFiles};
    use rustls::time_provider::DefaultTimeProvider;
    use std::{sync::Arc, time::Duration};

    /// The client's end: what it says is gathered until it is told to go.
    struct Client {
        tcp: std::net::TcpStream,
        said: Vec<u8>,
    }

    impl io::Read for Client {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.tcp.read(buffer)
        }
    }

    impl io::Write for Client {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.said.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Client {
        /// All of it at once, until the server's socket has it.
        fn send(&mut self, server: &Stream) {
            let said = std::mem::take(&mut self.said);
            self.tcp.write_all(&said).unwrap();
            while server.tcp().peek(&mut [0; 8192]).unwrap_or(0) < said.len() {
                std::thread::yield_now();
            }
        }
    }

    /// Both ends of a connection with TLS, of which nothing has been said yet.
    fn pair(dir: &std::path::Path) -> (Stream, Client, Session) {
        let authority = Authority::create("test", dir).unwrap();
        let identity = Identity::StoragePoint { cluster: "test".into(), sp: crate::protocol::SpId(1) };
        let issued = authority.issue(&identity, &["127.0.0.1".into()], Duration::from_secs(600)).unwrap();
        issued.write(dir).unwrap();
        let files = PairFiles { certificate: dir.join("certificate.pem"), key: dir.join("key.pem") };
        let server = ListenerTls::load(&files, Arc::new(DefaultTimeProvider)).unwrap();
        let client = ClientTls::load(Some(&dir.join("authority.pem")), (None, None)).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        [&tcp, &far].into_iter().for_each(|end| end.set_nonblocking(true).unwrap());
        let session = Session::server(&server.config).unwrap();
        let far = Stream::accepted(TcpStream::from_std(far), Some(session));
        (far, Client { tcp, said: Vec::new() }, client.connect("127.0.0.1").unwrap())
    }

    #[test]
    fn what_comes_with_the_end_of_a_handshake_is_read_though_nothing_to_read_was_announced() {
        let dir = tempfile::tempdir().unwrap();
        let (mut server, mut client, mut session) = pair(dir.path());
        let mut buffer = [0; 64];
        assert!(session.handshake(&mut client).is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
        client.send(&server);
        assert_eq!(server.read(&mut buffer).unwrap(), ReadResult::Blocked, "hello, and the server's answer");
        assert!(!server.readable && server.is_handshaking());
        while let Err(error) = session.handshake(&mut client) {
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
        }
        assert_eq!(session.write(&mut client, b"GET / HTTP/1.1").unwrap(), 14);
        client.send(&server);
        // It looks because there is room to write: that it can read would be announced afterwards, if it had not.
        assert_eq!(server.read(&mut buffer).unwrap(), ReadResult::Bytes(14));
        assert_eq!(&buffer[..14], b"GET / HTTP/1.1");
        assert_eq!(server.read(&mut buffer).unwrap(), ReadResult::Blocked);
    }
}
