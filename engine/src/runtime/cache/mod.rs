//! `acms cache`: a pull-through cache between receivers and storage points, or other caches. One event loop for clients and
//! sources; a thread compares large objects of an earlier life with their names.
//!
//! Invariant: nobody gets the whole of an object whose bytes are not those of its name. A large object is passed on while it
//! comes in, but its last byte only once its hash is known to be right.

mod answers;
mod arrivals;
mod compare;
mod fetch;
mod listener;
mod service;
mod sources;
mod status;
mod store;

pub use store::StoreError;

use crate::{
    client::Url,
    protocol::{Duration, Instant},
    runtime::{
        clock,
        events::EventStream,
        http::{
            connection::Role,
            server::{HttpServer, Tokens},
        },
        net,
        notify::Notify,
        process,
        signal::StopSignals,
        upstream::Io,
        wait::wait,
    },
    tls::{ClientTls, LoadError, PairFiles},
};
use compare::Comparer;
use listener::Certificate;
use mio::{Events, Poll, Token, Waker};
use service::Cache;
use sources::Sources;
use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};
use store::ObjectStore;

const SIGNALS: Token = Token(0);
/// Something was compared, or looked up.
const WAKER: Token = Token(1);
/// Connections to sources have the tokens from here on, those of clients from there on.
const UPSTREAM: usize = 1 << 10;
const HTTP: Tokens = Tokens { listeners: 2, connections: 1 << 20 };

/// Descriptors kept for sources, objects and the rest.
const DESCRIPTORS_KEPT: u64 = 2048;
const CONNECTIONS_MAX: u64 = 100_000;
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// What is under way when the process is told to stop has this long.
const STOP_TIME: Duration = Duration::from_secs(10);

/// What to keep, and for whom.
#[derive(Debug)]
pub struct Options {
    /// Storage points or other caches.
    pub sources: Vec<Url>,
    /// How https:// sources are trusted.
    pub tls: Option<ClientTls>,
    /// Where clients are served.
    pub listen: SocketAddr,
    /// What they are shown there; nothing: they are spoken to in plain text.
    pub certificate: Option<PairFiles>,
    /// Plain text is meant also where other machines hear it.
    pub plain_text: bool,
    /// Where objects are kept.
    pub store: PathBuf,
    /// Bytes of disk that they may take.
    pub bytes_max: u64,
}

/// Why a cache cannot run. Each message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Others would hear what is said in plain text.
    #[error(
        "others than this machine reach {addr}, and nothing said there would be encrypted; make a certificate with \
         `acms certificate cache` and name it with --listen-certificate and --listen-key, or, on a network that you trust, \
         give --plain-text"
    )]
    PlainText {
        /// The address.
        addr: SocketAddr,
    },
    /// Both were asked for.
    #[error("a listener with a certificate says nothing in plain text: leave out --plain-text or --listen-certificate")]
    Both,
    /// The certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] LoadError),
    /// The address cannot be listened at.
    #[error("cannot listen at {addr}: {source}; stop the process that has the address, or choose another one")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused something that an event loop needs.
    #[error("the event loop cannot go on: {0}")]
    System(#[from] io::Error),
}

struct Loop {
    poll: Poll,
    http: HttpServer<Cache>,
    cache: Cache,
    sources: Vec<Url>,
    signals: StopSignals,
    events: EventStream,
    notify: Notify,
    swept_at: Instant,
    stopping_since: Option<Instant>,
}

/// Runs until SIGTERM or SIGINT comes, or the events are not read any more.
pub fn run(options: Options, events: EventStream) -> Result<(), CacheError> {
    let signals = StopSignals::with_reload()?;
    let now = clock::now();
    let certificate = certificate(&options, now.instant)?;
    let store = ObjectStore::open(&options.store, options.bytes_max, now.instant)?;
    let listener = net::listen(options.listen).map_err(|source| CacheError::Listen { addr: options.listen, source })?;
    let listen = listener.local_addr()?;
    let connections_max = process::raise_open_files().saturating_sub(DESCRIPTORS_KEPT).clamp(64, CONNECTIONS_MAX);
    let poll = Poll::new()?;
    signals.register(poll.registry(), SIGNALS)?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let comparer = Comparer::start(Arc::clone(&waker))?;
    let seed = process::random_seed()?;
    let io = Io::new(options.sources.clone(), options.tls, poll.registry().try_clone()?, waker);
    let sources = Sources::new(&format!("{listen} {}", options.store.display()), &options.sources, seed);
    let name = format!("acms-cache-{:016x}", process::random_seed()?);
    let mut http = HttpServer::new(
        poll.registry().try_clone()?,
        HTTP,
        vec![(listener, Role::Deliver)],
        connections_max as usize,
        now.instant,
    );
    http.open()?;
    let scheme = if certificate.is_some() { "https" } else { "http" };
    let cache = Cache::new(store, io, sources, comparer, certificate, name, now);
    let mut running = Loop {
        poll,
        http,
        cache,
        sources: options.sources,
        signals,
        events,
        notify: Notify::from_environment(),
        swept_at: now.instant,
        stopping_since: None,
    };
    running.events.emit("ready", |fields| {
        fields.plain("listen", listen);
    });
    let (objects, bytes) = (running.cache.store.len(), running.cache.store.bytes());
    tracing::info!("cache at {scheme}://{listen}, with {objects} objects in {bytes} bytes of disk");
    running.notify.ready();
    running.run()?;
    Ok(())
}

/// What clients are to be shown. Fails where others than this machine would hear plain text that nobody has asked for.
fn certificate(options: &Options, now: Instant) -> Result<Option<Certificate>, CacheError> {
    match &options.certificate {
        Some(_) if options.plain_text => Err(CacheError::Both),
        Some(pair) => Ok(Some(Certificate::load(pair.clone(), now)?)),
        None if options.plain_text || options.listen.ip().is_loopback() => Ok(None),
        None => Err(CacheError::PlainText { addr: options.listen }),
    }
}

impl Loop {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        while !self.has_stopped() {
            let timeout = self.timeout();
            wait(&mut self.poll, &mut events, timeout)?;
            self.cache.set_now(clock::now());
            let now = self.cache.now.instant;
            for event in &events {
                match event.token() {
                    SIGNALS => self.handle_signals(),
                    WAKER => self.cache.io.addresses.take_found(now),
                    Token(token) if (UPSTREAM..HTTP.connections).contains(&token) => {
                        self.cache.upstream.handle_event(&mut self.cache.io, now, event);
                    }
                    _ => self.http.handle_event(&mut self.cache, event),
                }
            }
            self.http.go_on(&mut self.cache);
            self.cache.upstream.expire(&mut self.cache.io, now);
            self.take_arrivals();
            self.http.handle_timeout(&mut self.cache);
            if now.since(self.swept_at) >= SWEEP_EVERY {
                self.swept_at = now;
                self.cache.answers.sweep(now);
            }
            if let Some(certificate) = &mut self.cache.certificate {
                certificate.look(now);
            }
            self.notify.handle_timeout(now);
            if self.events.is_broken() {
                self.stop("its events are not read any more");
            }
        }
        Ok(())
    }

    fn timeout(&self) -> Option<Duration> {
        if self.http.is_busy() {
            return Some(Duration::ZERO);
        }
        let sweep = (self.cache.answers.len() > 0).then(|| self.swept_at.after(SWEEP_EVERY));
        let stop = self.stopping_since.map(|since| since.after(STOP_TIME));
        let times = [
            self.http.poll_timeout(),
            self.cache.upstream.poll_timeout(),
            self.cache.certificate.as_ref().and_then(Certificate::poll_timeout),
            self.notify.poll_timeout(),
            sweep,
            stop,
        ];
        Some(times.into_iter().flatten().min()?.since(clock::monotonic()))
    }

    fn handle_signals(&mut self) {
        let asked = self.signals.take_all();
        if asked.reload
            && let Some(certificate) = &mut self.cache.certificate
        {
            certificate.reload();
        }
        if asked.stop {
            self.stop("told by a signal");
        }
    }

    fn stop(&mut self, why: &str) {
        if self.stopping_since.is_none() {
            tracing::info!("stopping: {why}");
            self.notify.stopping();
            self.stopping_since = Some(self.cache.now.instant);
            self.cache.is_stopping = true;
            self.events.emit("stopping", |_| {});
            self.http.stop(&mut self.cache);
        }
    }

    fn has_stopped(&self) -> bool {
        let Some(since) = self.stopping_since else { return false };
        self.http.is_done() || self.cache.now.instant.since(since) >= STOP_TIME
    }
}
