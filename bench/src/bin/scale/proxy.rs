//! A TCP proxy that counts what passes, and can cut everything that passes through it.

use crate::Failure;
use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

#[derive(Default)]
struct Shared {
    up: AtomicU64,
    down: AtomicU64,
    /// Connections are cut once so many bytes have come down.
    cut_at: AtomicU64,
    cuts: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

/// Stands before one server. Lives as long as the process.
#[derive(Clone)]
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    pub(crate) url: String,
}

impl Proxy {
    pub(crate) fn start(to: SocketAddr) -> Result<Proxy, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared { cut_at: AtomicU64::new(u64::MAX), ..Shared::default() });
        let theirs = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(to) else { continue };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else { continue };
                let mut open = theirs.open.lock().unwrap_or_else(PoisonError::into_inner);
                open.extend(client.try_clone().into_iter().chain(server.try_clone()));
                drop(open);
                let (up, down) = (Arc::clone(&theirs), Arc::clone(&theirs));
                std::thread::spawn(move || {
                    pass(client, server, |len| {
                        up.up.fetch_add(len, Ordering::Relaxed);
                    });
                });
                std::thread::spawn(move || {
                    pass(server_too, client_too, |len| {
                        let total = down.down.fetch_add(len, Ordering::Relaxed) + len;
                        if total >= down.cut_at.load(Ordering::Relaxed) {
                            down.cut_at.store(u64::MAX, Ordering::Relaxed);
                            down.cut();
                        }
                    });
                });
            }
        });
        Ok(Proxy { shared, url })
    }

    /// Bytes that went up and came down since the last call.
    pub(crate) fn take_counts(&self) -> (u64, u64) {
        (self.shared.up.swap(0, Ordering::Relaxed), self.shared.down.swap(0, Ordering::Relaxed))
    }

    /// Cuts all connections, once, when so many bytes have come down since the last [`Proxy::take_counts`].
    pub(crate) fn cut_at(&self, bytes: u64) {
        self.shared.cut_at.store(bytes, Ordering::Relaxed);
    }

    /// Cuts all connections now.
    pub(crate) fn cut(&self) {
        self.shared.cut();
    }

    pub(crate) fn up(&self) -> u64 {
        self.shared.up.load(Ordering::Relaxed)
    }

    pub(crate) fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn cut(&self) {
        self.cuts.fetch_add(1, Ordering::Relaxed);
        for stream in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            stream.shutdown(Shutdown::Both).ok();
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, count: impl Fn(u64)) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        count(len as u64);
        if to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    from.shutdown(Shutdown::Both).ok();
    to.shutdown(Shutdown::Both).ok();
}
