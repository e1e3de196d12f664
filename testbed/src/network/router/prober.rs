//! Measures round trips between hosts, again and again, beside what the model wanted each of them to be.

use super::{HostId, Namespace, Router, Shared, address, echo::EchoSocket, lock, priority::go_first};
use crate::trace::now_ns;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// An answer that takes longer is none.
const ANSWER_WITHIN_NS: u64 = 20_000_000_000;

/// A round trip that was measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Probe {
    /// Who asked.
    pub from: HostId,
    /// Whose kernel answered.
    pub to: HostId,
    /// What the model wanted: the delays of these very two packets, with jitter, queues and faults.
    pub asked_ns: u64,
    /// How long it took.
    pub got_ns: u64,
}

impl Probe {
    /// How far it was off.
    pub fn error_ns(&self) -> u64 {
        self.got_ns.abs_diff(self.asked_ns)
    }
}

/// A thread that measures round trips. Dropping it ends it.
#[derive(Debug)]
pub struct Prober {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Prober {
    /// Measures the round trips of `pairs`, one after the other and again from the first, `per_s` a second; the first time
    /// `first_per_s`. Each that was answered is told to `tell`.
    pub fn start(
        router: &Router,
        pairs: Vec<(HostId, HostId)>,
        first_per_s: f64,
        per_s: f64,
        tell: impl FnMut(Probe) + Send + 'static,
    ) -> io::Result<Prober> {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let period = |per_s: f64| Duration::from_secs_f64(1.0 / per_s.max(0.001)).as_nanos() as u64;
        let mut work = Work {
            shared: Arc::clone(&router.shared),
            stop: Arc::clone(&stop),
            asked: Arc::clone(&asked),
            sockets: BTreeMap::new(),
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            periods_ns: (period(first_per_s), period(per_s)),
            pairs: pairs.clone(),
            numbers: BTreeMap::new(),
            awaited: BTreeMap::new(),
            tell,
        };
        pairs.into_iter().try_for_each(|(from, _)| work.open(from))?;
        let thread = std::thread::Builder::new().name("prober".into()).spawn(move || work.run())?;
        Ok(Prober { stop, asked, thread: Some(thread) })
    }

    /// How many round trips were begun so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Acquire)
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Awaited {
    to: HostId,
    /// By the wall clock, as the kernel's stamps are.
    sent_ns: u64,
    /// By the monotonic clock.
    until_ns: u64,
}

struct Work<T> {
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    /// With where each was made: a host may have got another place.
    sockets: BTreeMap<HostId, (Namespace, EchoSocket)>,
    epoll: Epoll,
    /// Of the first round, and later.
    periods_ns: (u64, u64),
    pairs: Vec<(HostId, HostId)>,
    /// The last sequence number of each host.
    numbers: BTreeMap<HostId, u16>,
    awaited: BTreeMap<u32, Awaited>,
    tell: T,
}

impl<T: FnMut(Probe)> Work<T> {
    fn run(mut self) {
        const LOOK_EVERY_NS: u64 = 50_000_000;
        // So that it does not lose its turn between a look at the clock and a question.
        go_first();
        let (mut events, mut next, mut due_ns) = ([EpollEvent::empty(); 64], 0, now_ns());
        while !self.stop.load(Ordering::Acquire) && !self.pairs.is_empty() {
            let before_ns = now_ns();
            if before_ns >= due_ns {
                let (from, to) = self.pairs[next % self.pairs.len()];
                self.ask(from, to);
                next += 1;
                self.asked.store(next, Ordering::Release);
                let period_ns = if next < self.pairs.len() { self.periods_ns.0 } else { self.periods_ns.1 };
                // What was missed is not made up for.
                due_ns = (due_ns + period_ns).max(before_ns);
                self.expire(before_ns);
            }
            let wait_ns = due_ns.saturating_sub(now_ns()).min(LOOK_EVERY_NS);
            // In whole milliseconds, rounded up: it need not be exact, and is not to spin.
            let timeout = EpollTimeout::from(wait_ns.div_ceil(1_000_000) as u16);
            let count = self.epoll.wait(&mut events, timeout).unwrap_or(0);
            for event in &events[..count] {
                self.take(HostId(event.data() as u32));
            }
        }
        let mut echoes = lock(&self.shared.echoes);
        echoes.retain(|key, _| !self.awaited.contains_key(key));
    }

    /// Opens a host's socket, if it has none where it is now.
    fn open(&mut self, host: HostId) -> io::Result<()> {
        let namespace = self.shared.namespace(host);
        if !self.sockets.get(&host).is_some_and(|(made_in, _)| *made_in == namespace) {
            let socket = EchoSocket::new(&namespace)?;
            self.epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, host.0.into()))?;
            self.sockets.insert(host, (namespace, socket));
        }
        Ok(())
    }

    fn ask(&mut self, from: HostId, to: HostId) {
        // Where it cannot be opened it is tried again at the next turn.
        let _ = self.open(from);
        let number = self.numbers.entry(from).or_default();
        *number = number.wrapping_add(1);
        let key = from.0 << 16 | u32::from(*number);
        lock(&self.shared.echoes).insert(key, 0);
        match self.sockets[&from].1.ask(address(to), key) {
            Ok(sent_ns) => {
                self.awaited.insert(key, Awaited { to, sent_ns, until_ns: now_ns() + ANSWER_WITHIN_NS });
            }
            // A full queue: the next one may find room.
            Err(_) => {
                lock(&self.shared.echoes).remove(&key);
            }
        }
    }

    fn take(&mut self, from: HostId) {
        while let Some((key, came_ns)) = self.sockets[&from].1.answer() {
            let Some(Awaited { to, sent_ns, .. }) = self.awaited.remove(&key) else { continue };
            let Some(asked_ns) = lock(&self.shared.echoes).remove(&key) else { continue };
            (self.tell)(Probe { from, to, asked_ns, got_ns: came_ns.saturating_sub(sent_ns) });
        }
    }

    /// Forgets what will not be answered any more.
    fn expire(&mut self, now_ns: u64) {
        let echoes = &self.shared.echoes;
        self.awaited.retain(|key, awaited| {
            let is_alive = awaited.until_ns > now_ns;
            if !is_alive {
                lock(echoes).remove(key);
            }
            is_alive
        });
    }
}
