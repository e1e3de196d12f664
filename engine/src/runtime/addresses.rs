//! Where the sources are: looked up at the start, and again after none of a name's addresses would do, by a thread of
//! its own, so that a slow answer of the name service keeps nobody waiting.

use crate::{
    client::Url,
    protocol::{Duration, Instant},
    tls::{ClientTls, Session},
};
use mio::Waker;
use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    sync::{
        Arc,
        mpsc::{Receiver as Incoming, Sender, channel},
    },
};

/// Time between two look-ups of a name.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(5);

type Found = (usize, Vec<SocketAddr>);

/// The addresses of all sources of a process.
#[derive(Debug)]
pub(super) struct AddressBook {
    sources: Vec<Source>,
    tls: Option<ClientTls>,
    look_up: fn(&Url) -> Vec<SocketAddr>,
    waker: Arc<Waker>,
    sender: Sender<Found>,
    found: Incoming<Found>,
}

#[derive(Debug)]
struct Source {
    url: Url,
    addresses: Vec<SocketAddr>,
    /// The address that worked last.
    at: usize,
    /// When its name may be looked up again; never while that is being done, or if it is an address.
    again_at: Option<Instant>,
}

/// The addresses of a name; none if it has none, or the name service does not answer.
fn look_up(url: &Url) -> Vec<SocketAddr> {
    (url.host(), url.port()).to_socket_addrs().map(Iterator::collect).unwrap_or_default()
}

impl AddressBook {
    /// Looks all sources up. `waker` is woken when a later look-up is done.
    pub(super) fn new(urls: Vec<Url>, tls: Option<ClientTls>, waker: Arc<Waker>) -> AddressBook {
        AddressBook { tls, ..AddressBook::with(urls, waker, look_up) }
    }

    fn with(urls: Vec<Url>, waker: Arc<Waker>, look_up: fn(&Url) -> Vec<SocketAddr>) -> AddressBook {
        let source = |url: Url| {
            let again_at = url.host().parse::<IpAddr>().is_err().then_some(Instant(0));
            Source { addresses: look_up(&url), at: 0, again_at, url }
        };
        let (sender, found) = channel();
        AddressBook { sources: urls.into_iter().map(source).collect(), tls: None, look_up, waker, sender, found }
    }

    /// The sources, in the order of their numbers.
    pub(super) fn urls(&self) -> impl Iterator<Item = &Url> {
        self.sources.iter().map(|source| &source.url)
    }

    pub(super) fn url(&self, source: usize) -> &Url {
        &self.sources[source].url
    }

    /// TLS with a source, if it is to be spoken there.
    pub(super) fn session(&self, source: usize) -> io::Result<Option<Session>> {
        let url = self.url(source);
        self.tls.as_ref().filter(|_| url.is_https()).map(|tls| tls.connect(url.host())).transpose()
    }

    pub(super) fn count(&self, source: usize) -> usize {
        self.sources[source].addresses.len()
    }

    /// The address to connect to.
    pub(super) fn current(&self, source: usize) -> Option<SocketAddr> {
        let Source { addresses, at, .. } = &self.sources[source];
        addresses.get(at % addresses.len().max(1)).copied()
    }

    /// The address to connect to was of no use.
    pub(super) fn turn_to_next(&mut self, source: usize) {
        let source = &mut self.sources[source];
        source.at = (source.at + 1) % source.addresses.len().max(1);
    }

    /// No address of a source would do: its name may have others by now.
    pub(super) fn none_would_do(&mut self, at: usize, now: Instant) {
        let source = &mut self.sources[at];
        if source.again_at.take_if(|again_at| *again_at <= now).is_none() {
            return;
        }
        let (url, look_up) = (source.url.clone(), self.look_up);
        let (sender, waker) = (self.sender.clone(), Arc::clone(&self.waker));
        let thread = std::thread::Builder::new().name("look-up".into());
        let started = thread.spawn(move || {
            let _ = sender.send((at, look_up(&url)));
            let _ = waker.wake();
        });
        if started.is_err() {
            self.sources[at].again_at = Some(now.after(LOOK_UP_AGAIN));
        }
    }

    /// Takes over what look-ups have found. A name without any address keeps those that it had.
    pub(super) fn take_found(&mut self, now: Instant) {
        while let Ok((at, addresses)) = self.found.try_recv() {
            let source = &mut self.sources[at];
            source.again_at = Some(now.after(LOOK_UP_AGAIN));
            if !addresses.is_empty() && addresses != source.addresses {
                tracing::info!("{} is at {addresses:?} now", source.url);
                (source.addresses, source.at) = (addresses, 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use mio::{Poll, Token};
    use std::sync::atomic::{AtomicU16, Ordering};

    /// The port at which the name is found.
    static PORT: AtomicU16 = AtomicU16::new(0);

    fn moving(_: &Url) -> Vec<SocketAddr> {
        match PORT.load(Ordering::Relaxed) {
            0 => Vec::new(),
            port => vec![SocketAddr::from(([127, 0, 0, 1], port))],
        }
    }

    #[test]
    fn a_name_that_has_moved_is_looked_up_again_but_not_all_the_time() {
        let (mut poll, mut events) = (Poll::new().unwrap(), mio::Events::with_capacity(1));
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let urls = ["http://sp.example:1", "http://127.0.0.9:2"].map(|url| url.parse().unwrap());
        let mut book = AddressBook::with(urls.into(), waker, moving);
        assert_eq!((book.count(0), book.current(0)), (0, None));
        let mut port = |book: &mut AddressBook, seconds: u64, looks: bool| {
            let now = Instant(seconds * 1_000_000_000);
            book.none_would_do(0, now);
            // An address stays what it is.
            book.none_would_do(1, now);
            assert_eq!(book.sources[0].again_at.is_none(), looks);
            if looks {
                poll.poll(&mut events, None).unwrap();
            }
            book.take_found(now);
            book.current(0).map(|address| address.port())
        };
        PORT.store(7, Ordering::Relaxed);
        assert_eq!(port(&mut book, 1, true), Some(7));
        PORT.store(8, Ordering::Relaxed);
        assert_eq!(port(&mut book, 2, false), Some(7), "too soon after the last look-up");
        assert_eq!(port(&mut book, 7, true), Some(8));
        PORT.store(0, Ordering::Relaxed);
        assert_eq!(port(&mut book, 20, true), Some(8), "better than none");
        assert_eq!(book.sources[1].again_at, None);
    }
}
