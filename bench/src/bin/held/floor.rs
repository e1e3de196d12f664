//! The least that a server can do: one event loop that knows no HTTP beyond the first letter of a request. A `PUT` is
//! answered, then every connection that has sent something else.

use super::Failure;
use mio::{Events, Interest, Poll, Token, net::TcpListener, net::TcpStream};
use slab::Slab;
use std::io::{ErrorKind, Read, Write};

struct Connection {
    stream: TcpStream,
    is_held: bool,
}

/// Serves on loopback until it is killed, or nobody is left.
pub(super) fn run(answer_len: usize) -> Result<(), Failure> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    socket2::SockRef::from(&listener).listen(4096)?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?);
    acms_engine::runtime::process::exit_with_parent()?;
    let mut listener = TcpListener::from_std(listener);
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, Token(usize::MAX - 1), Interest::READABLE)?;
    let answer = answer(answer_len);
    let (mut connections, mut events) = (Slab::<Connection>::new(), Events::with_capacity(1024));
    let mut buffer = vec![0; 64 << 10];
    loop {
        poll.poll(&mut events, None)?;
        let mut wake = false;
        for event in &events {
            if event.token().0 == usize::MAX - 1 {
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    let entry = connections.vacant_entry();
                    poll.registry().register(&mut stream, Token(entry.key()), Interest::READABLE)?;
                    entry.insert(Connection { stream, is_held: false });
                }
                continue;
            }
            let Some(connection) = connections.get_mut(event.token().0) else { continue };
            match connection.stream.read(&mut buffer) {
                Ok(len) if len > 0 && buffer[0] == b'P' => {
                    connection.stream.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")?;
                    wake = true;
                }
                Ok(len) if len > 0 => connection.is_held = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ => drop(connections.remove(event.token().0)),
            }
        }
        if wake {
            for (_, connection) in connections.iter_mut().filter(|(_, connection)| connection.is_held) {
                connection.is_held = false;
                connection.stream.write_all(&answer)?;
            }
        }
    }
}

/// An answer of `len` bytes with a cursor in it, as the client wants it.
fn answer(len: usize) -> Vec<u8> {
    let body = |len: usize| format!("{{\"next\":\"1.0-1.1\",\"filler\":\"{}\"}}\n", "x".repeat(len));
    let whole = |filler: usize| {
        let body = body(filler);
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    };
    (0..=len).map(whole).find(|answer| answer.len() >= len).unwrap_or_default()
}
