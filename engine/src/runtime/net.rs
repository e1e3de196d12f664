//! Sockets as the engine wants them.

use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, Socket, Type};
use std::{io, net::SocketAddr};

const BACKLOG: i32 = 4096;

/// A listener on `addr`. Another listener there is an error, never shared.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier process that are winding down must not keep this one away.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Sends without waiting for more to send.
pub fn prepare(stream: &TcpStream) {
    // A socket that is gone already shows that when it is used.
    let _ = stream.set_nodelay(true);
}
