//! A router of real packets: the modelled [`Network`] between hosts of this machine.
//!
//! Each host's only interface is a TUN device in a [`Namespace`] of its own; one thread reads what hosts send, asks the model
//! when it arrives, and writes it to the receiver then. So the kernel's own TCP meets the modelled delays and losses, without
//! any help from the kernel's traffic control.
//!
//! The router tells how late it was: a machine that is too busy makes the network slower than the model, and a run on it means
//! nothing ([`RouterStats::lateness_ns`]). A [`Prober`] measures round trips as the hosts' kernels see them, beside what the
//! model wanted them to be.

mod capture;
mod echo;
mod namespace;
mod packets;
mod priority;
mod prober;
mod waits;

pub use echo::ping;
pub use namespace::{InterfaceSettings, Namespace, become_root, join};
pub use prober::{Probe, Prober};

use self::capture::Captures;
use super::{Burst, HostId, Network};
use crate::trace::now_ns;
use hdrhistogram::Histogram;
use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    eventfd::{EfdFlags, EventFd},
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use packets::{Cut, HEAD_LEN, InFlight, destination, echo_key};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, ErrorKind, Read as _, Write as _},
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use waits::{Backlog, RunDelay, Unseen};

/// Addresses of hosts follow this one, in their order.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The router wakes up so long before a packet is due, and then waits awake: a thread that sleeps wakes up late.
const AWAKE_NS: u64 = 20_000;
/// While there is much to do it looks no more often than this: waking up for each packet would cost more than carrying it.
const PAUSE_NS: u64 = 200_000;
/// So many packets at a time are much.
const BUSY: usize = 4;
/// The greatest packet that an interface may send, and its head.
const PACKET_LEN_MAX: usize = 65_535 + HEAD_LEN;
/// Packets of one host before the others have their turn, and bytes: who sends much is not to hold up who sends little.
const PACKETS_MAX: usize = 32;
const BYTES_MAX: usize = 128 << 10;
/// After so many what is due meanwhile is delivered.
const PACKETS_BETWEEN: usize = 16;
/// A wait that is shorter was none: what was there had been there before.
const SLEPT_NS_MIN: u64 = 10_000;
const WAKE: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;
/// The greatest lateness that is told apart.
const LATENESS_NS_MAX: u64 = 60_000_000_000;

/// How far a packet, or a round trip, of this length may be off: 2 ms or 2 %.
pub fn tolerance_ns(length_ns: u64) -> u64 {
    (length_ns / 50).max(2_000_000)
}

/// What the router did so far.
#[derive(Clone, Debug)]
pub struct RouterStats {
    /// Packets that have arrived.
    pub arrived: u64,
    /// Their bytes, with all headers, those of packets that travel together once.
    pub arrived_bytes: u64,
    /// Packets that the model lost, or that found no room in its queue.
    pub lost: u64,
    /// Packets that met a cut.
    pub cut: u64,
    /// Packets to nobody, and what is no IPv4.
    pub stray: u64,
    /// Packets that the receiver's kernel did not take.
    pub refused: u64,
    /// How much later than the model says packets arrived, in nanoseconds: behind their time, and what they have waited before
    /// they were taken, as far as that can be told.
    pub lateness_ns: Histogram<u64>,
    /// Packets that were later than is tolerated.
    pub late: u64,
}

impl RouterStats {
    fn new() -> RouterStats {
        let lateness_ns = Histogram::new_with_max(LATENESS_NS_MAX, 3).expect("the bounds are good");
        RouterStats { arrived: 0, arrived_bytes: 0, lost: 0, cut: 0, stray: 0, refused: 0, lateness_ns, late: 0 }
    }
}

struct Shared {
    network: Mutex<Network>,
    hosts: Mutex<Vec<Namespace>>,
    stats: Mutex<RouterStats>,
    /// How long the packets of each awaited echo have been on their way so far, as the model wants it.
    echoes: Mutex<BTreeMap<u32, u64>>,
    /// Hosts that have got an interface anew.
    renewed: Mutex<Vec<(HostId, File)>>,
    captures: Captures,
    stop: AtomicBool,
    wake: EventFd,
}

impl Shared {
    fn namespace(&self, host: HostId) -> Namespace {
        lock(&self.hosts)[host.0 as usize].clone()
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// A network of hosts in namespaces, and the thread that carries their packets. Dropping it ends both.
#[derive(Debug)]
pub struct Router {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Router {
    /// Makes a namespace for each host of `network`, and begins to carry packets.
    pub fn start(network: Network, settings: &InterfaceSettings) -> io::Result<Router> {
        Router::start_in(network, |host| Namespace::make(address(host), settings))
    }

    /// Begins to carry packets of hosts that have their namespace, and the router's end of its interface, from `host`.
    pub fn start_in(network: Network, host: impl FnMut(HostId) -> io::Result<(Namespace, File)>) -> io::Result<Router> {
        let made = (0..network.hosts().len() as u32).map(HostId).map(host);
        let (hosts, tuns): (Vec<Namespace>, Vec<File>) = made.collect::<io::Result<Vec<_>>>()?.into_iter().unzip();
        let shared = Arc::new(Shared {
            network: Mutex::new(network),
            hosts: Mutex::new(hosts),
            stats: Mutex::new(RouterStats::new()),
            echoes: Mutex::default(),
            renewed: Mutex::default(),
            captures: Captures::default(),
            stop: AtomicBool::new(false),
            wake: EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
        });
        let carrier = Carrier::new(Arc::clone(&shared), tuns)?;
        let thread = std::thread::Builder::new().name("router".into()).spawn(move || carrier.run())?;
        Ok(Router { shared, thread: Some(thread) })
    }

    /// Where a host is now.
    pub fn namespace(&self, host: HostId) -> Namespace {
        self.shared.namespace(host)
    }

    /// A host has another namespace from now on; what is on its way to it arrives there.
    pub fn renew(&self, host: HostId, namespace: Namespace, tun: File) {
        lock(&self.shared.hosts)[host.0 as usize] = namespace;
        lock(&self.shared.renewed).push((host, tun));
        self.wake();
    }

    /// Writes what a host sends and receives to a file, from now on, as packet analysers read it.
    pub fn capture(&self, host: HostId, file: File) -> io::Result<()> {
        self.shared.captures.begin(host, file)
    }

    /// Writes no more packets; at return all that were written are in their files.
    pub fn finish_captures(&self) -> io::Result<()> {
        self.shared.captures.finish()
    }

    /// The thread looks around at its next turn, which this makes soon.
    fn wake(&self) {
        // Full it would wake the thread as well.
        let _ = self.shared.wake.write(1);
    }

    /// The model. Packets wait while this is held.
    pub fn network(&self) -> MutexGuard<'_, Network> {
        lock(&self.shared.network)
    }

    /// What was carried so far.
    pub fn stats(&self) -> RouterStats {
        lock(&self.shared.stats).clone()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Address of a host in its namespace.
pub fn address(host: HostId) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(FIRST_ADDRESS) + host.0)
}

fn host_at(address: Ipv4Addr, count: usize) -> Option<HostId> {
    let host = u32::from(address).checked_sub(u32::from(FIRST_ADDRESS))?;
    ((host as usize) < count).then_some(HostId(host))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The router's thread.
struct Carrier {
    shared: Arc<Shared>,
    tuns: Vec<File>,
    /// Of each of them.
    backlogs: Vec<Backlog>,
    /// Whether the last turns have left anything behind.
    has_backlog: bool,
    epoll: Epoll,
    timer: TimerFd,
    in_flight: InFlight,
    /// A packet is read into this.
    packet: Box<[u8]>,
    /// When the thread last looked at all hosts.
    looked_ns: u64,
}

impl Carrier {
    fn new(shared: Arc<Shared>, tuns: Vec<File>) -> io::Result<Carrier> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        epoll.add(&shared.wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
        for (host, tun) in tuns.iter().enumerate() {
            epoll.add(tun, EpollEvent::new(EpollFlags::EPOLLIN, host as u64))?;
        }
        let (backlogs, in_flight) = (vec![Backlog::default(); tuns.len()], InFlight::default());
        let packet = vec![0; PACKET_LEN_MAX].into();
        Ok(Carrier { shared, tuns, backlogs, has_backlog: false, epoll, timer, in_flight, packet, looked_ns: now_ns() })
    }

    fn run(mut self) {
        // Without it packets are late when other processes want the processors: that is counted.
        priority::go_first();
        let delay = RunDelay::of_this_thread();
        // All that have something: who is passed over waits longer than is counted.
        let mut events = vec![EpollEvent::empty(); self.tuns.len() + 2];
        while !self.shared.stop.load(Ordering::Acquire) {
            let (mut delivered, next) = self.deliver();
            let (mut taken, mut since) = (0, 0);
            let before_ns = now_ns();
            let waits = match next {
                Some(due_ns) if due_ns <= before_ns + AWAKE_NS => false,
                due_ns => self.set_timer(due_ns).is_ok(),
            };
            let (timeout, delayed_ns) = if waits { (EpollTimeout::NONE, delay.ns()) } else { (EpollTimeout::ZERO, 0) };
            let count = self.epoll.wait(&mut events, timeout).unwrap_or(0);
            let now_ns = now_ns();
            let unseen = if waits && now_ns - before_ns > SLEPT_NS_MIN {
                // While it slept there was nothing to see, until it was to wake up.
                Unseen::Exactly(delay.ns().saturating_sub(delayed_ns))
            } else {
                Unseen::Within(now_ns - self.looked_ns)
            };
            (self.looked_ns, self.has_backlog) = (now_ns, false);
            for event in &events[..count] {
                match event.data() {
                    WAKE => self.look_around(),
                    TIMER => {}
                    host => {
                        let count = self.take(HostId(host as u32), now_ns, unseen);
                        (taken, since) = (taken + count, since + count);
                    }
                }
                if since >= PACKETS_BETWEEN {
                    delivered += self.deliver().0;
                    since = 0;
                }
            }
            // What was left behind waits for nothing but its turn.
            if delivered + taken >= BUSY && !self.has_backlog {
                std::thread::sleep(Duration::from_nanos(PAUSE_NS));
            }
        }
    }

    /// Takes the interfaces that hosts have got anew in place of those they had.
    fn look_around(&mut self) {
        let _ = self.shared.wake.read();
        for (host, tun) in std::mem::take(&mut *lock(&self.shared.renewed)) {
            // Without it nothing of the host would be heard any more: its packets are missed, which its peers notice.
            let _ = self.epoll.add(&tun, EpollEvent::new(EpollFlags::EPOLLIN, host.0.into()));
            // With its descriptor the old one is forgotten.
            self.tuns[host.0 as usize] = tun;
        }
    }

    /// Wakes the thread shortly before `due_ns`; never, if there is nothing.
    fn set_timer(&self, due_ns: Option<u64>) -> nix::Result<()> {
        match due_ns {
            None => self.timer.unset(),
            Some(due_ns) => {
                let at = TimeSpec::from(Duration::from_nanos(due_ns - AWAKE_NS));
                self.timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)
            }
        }
    }

    /// Gives a host its turn. How many packets it had.
    fn take(&mut self, from: HostId, now_ns: u64, unseen: Unseen) -> usize {
        let unseen = unseen.or_longer(self.backlogs[from.0 as usize].waited_ns(now_ns));
        let (taken, has_more) = self.take_some(from, unseen.expected_ns());
        self.has_backlog |= has_more;
        self.backlogs[from.0 as usize].note(now_ns.saturating_sub(unseen.longest_ns()), now_ns, taken, has_more);
        taken
    }

    /// Takes what a host sends, until it has had its turn. How many packets, and whether there may be more.
    fn take_some(&mut self, from: HostId, unseen_ns: u64) -> (usize, bool) {
        let mut bytes = 0;
        let mut network = lock(&self.shared.network);
        let mut stats = lock(&self.shared.stats);
        for taken in 0..PACKETS_MAX {
            if bytes >= BYTES_MAX {
                return (taken, true);
            }
            let len = match (&self.tuns[from.0 as usize]).read(&mut self.packet) {
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return (taken, false),
            };
            bytes += len;
            let Some(packet) = self.packet[..len].get(HEAD_LEN..) else { continue };
            let Some(to) = destination(packet).and_then(|to| host_at(to, self.tuns.len())) else {
                stats.stray += 1;
                continue;
            };
            self.shared.captures.add(from, packet);
            let cut = Cut::of(&self.packet[..len]);
            let count = cut.map_or(1, |cut| cut.count);
            let (now_ns, wire_len) = (now_ns(), cut.map_or(packet.len(), |cut| cut.wire_len(packet.len())) as u64);
            if !network.has_room(now_ns, from, to, wire_len) {
                stats.lost += u64::from(count);
                continue;
            }
            let Some(sent_ns) = network.hand_over(now_ns, from, to, wire_len) else {
                stats.cut += u64::from(count);
                continue;
            };
            let Burst { arrivals, lost } = network.burst(from, to, sent_ns, count);
            stats.lost += u64::from(lost.count_ones());
            let frame = &self.packet[..len];
            match cut.filter(|_| lost != 0) {
                None => self.in_flight.add(now_ns, to, arrivals, unseen_ns, count, frame),
                Some(cut) => cut.survivors(frame, lost, |frame| {
                    let count = Cut::of(frame).map_or(1, |cut| cut.count);
                    self.in_flight.add(now_ns, to, arrivals, unseen_ns, count, frame);
                }),
            }
            if let (Some(key), Some(due_ns)) = (echo_key(packet), arrivals.into_iter().next())
                && let Some(asked_ns) = lock(&self.shared.echoes).get_mut(&key)
            {
                *asked_ns += due_ns - now_ns;
            }
        }
        (PACKETS_MAX, true)
    }

    /// Delivers what is due. How many packets, and when the next is.
    fn deliver(&mut self) -> (usize, Option<u64>) {
        let mut stats = lock(&self.shared.stats);
        for delivered in 0.. {
            let now_ns = now_ns();
            let Some(packet) = self.in_flight.pop(now_ns) else { return (delivered, self.in_flight.next_due_ns()) };
            match (&self.tuns[packet.to.0 as usize]).write(&packet.bytes) {
                Ok(_) => {
                    self.shared.captures.add(packet.to, &packet.bytes[HEAD_LEN..]);
                    let count = u64::from(packet.count);
                    stats.arrived += count;
                    stats.arrived_bytes += (packet.bytes.len() - HEAD_LEN) as u64;
                    let late_ns = now_ns - packet.due_ns + packet.unseen_ns;
                    stats.lateness_ns.saturating_record_n(late_ns, count);
                    stats.late += if late_ns > packet.tolerated_ns { count } else { 0 };
                }
                Err(_) => stats.refused += u64::from(packet.count),
            }
            self.in_flight.give_back(packet.bytes);
        }
        unreachable!("there are fewer packets than numbers")
    }
}

#[cfg(test)]
mod tests;
