//! The world: hosts, what happens to them in the order of virtual time, and the ends and starts of their processes.

use super::{
    Observer, Step,
    faults::Ledger,
    host::{Host, HostId, Input, Process, Role},
    queue::{Happening, Queue},
    receiver::ReceiverHost,
    record::Record,
    shared::{Ending, Shared},
    storage_point::{BOOT_NS, StoragePointHost},
};
use crate::{
    backend::{Stop, clock::Clock},
    network::Network,
    trace::{Kind, Template, Text},
    workload::Random,
};
use acms_engine::protocol::{Hash, Instant, Path, StoragePoint, StoreId, Uid};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// All hosts and what happens to them.
pub(super) struct World<'s> {
    pub(super) shared: Shared<'s>,
    pub(super) roles: Vec<Role>,
    pub(super) faults: Ledger,
    /// Of which virtual second, and how many things happened in it so far.
    pace: (u64, u64),
    stop: Stop,
    /// The stop was requested.
    pub(super) is_stopped: bool,
}

/// More things in one virtual second, and for each host, are a storm: it would never come to an end.
const STEPS_MAX: u64 = 2_000_000;
const STEPS_OF_HOST_MAX: u64 = 20_000;
/// Steps of a virtual second between two looks at whether to stop.
const STEPS_PER_LOOK: u64 = 10_000;

/// How a process is ended from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kill {
    /// SIGKILL: the machine stays on.
    Process,
    /// The machine's power goes.
    Power,
}

impl<'s> World<'s> {
    /// A world without hosts.
    pub(super) fn new(
        seed: u64,
        network: Network,
        frames_are_datagrams: bool,
        record: Record<'s>,
        observer: Option<&'s mut dyn Observer>,
        stop: Stop,
    ) -> World<'s> {
        let shared = Shared {
            seed,
            now_ns: 0,
            queue: Queue::default(),
            network,
            frames_are_datagrams,
            hosts: Vec::new(),
            connections: BTreeMap::new(),
            next_connection: 0,
            record,
            observer,
            told: Uid::ZERO,
            attempts_open: 0,
            refused: Vec::new(),
            undone: Vec::new(),
            bitten: Vec::new(),
            bites: Vec::new(),
            ended: Vec::new(),
            displaced: BTreeMap::new(),
            unwatched: BTreeSet::new(),
        };
        World { shared, roles: Vec::new(), faults: Ledger::default(), pace: (0, 0), stop, is_stopped: false }
    }

    /// Adds a host; hosts come in the order in which the network knows them.
    pub(super) fn add(&mut self, name: &str, clock: Clock, role: Role) -> HostId {
        let id = HostId(self.roles.len() as u32);
        self.shared.hosts.push(Host::new(name, clock));
        self.roles.push(role);
        id
    }

    /// The host called `name`.
    pub(super) fn find(&self, name: &str) -> Option<HostId> {
        let place = self.shared.hosts.iter().position(|host| &*host.name == name)?;
        Some(HostId(place as u32))
    }

    /// All hosts.
    pub(super) fn ids(&self) -> impl Iterator<Item = HostId> + use<> {
        (0..self.roles.len() as u32).map(HostId)
    }

    /// All storage points.
    pub(super) fn storage_points(&self) -> impl Iterator<Item = (HostId, &StoragePointHost)> {
        self.ids().zip(&self.roles).filter_map(|(id, role)| match role {
            Role::StoragePoint(sp) => Some((id, &**sp)),
            _ => None,
        })
    }

    /// All receivers.
    pub(super) fn receivers(&self) -> impl Iterator<Item = (HostId, &ReceiverHost)> {
        self.ids().zip(&self.roles).filter_map(|(id, role)| match role {
            Role::Receiver(receiver) => Some((id, &**receiver)),
            _ => None,
        })
    }

    // ---- Time -----------------------------------------------------------------------------------------------------

    /// Everything that happens until `until_ns`.
    pub(super) fn run_until(&mut self, until_ns: u64) {
        while self.step(until_ns) {}
        self.shared.now_ns = self.shared.now_ns.max(until_ns);
    }

    /// Runs until `done`, looked at every `every_ns`, or for `at_most_ns`. Whether it is done.
    pub(super) fn run_while(&mut self, every_ns: u64, at_most_ns: u64, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end_ns = self.shared.now_ns + at_most_ns;
        loop {
            if done(self) {
                return true;
            }
            if self.shared.now_ns >= end_ns {
                return false;
            }
            self.run_until((self.shared.now_ns + every_ns).min(end_ns));
        }
    }

    /// Panics in a storm: messages that beget more of their kind.
    fn count_step(&mut self, second: u64) {
        self.pace = if self.pace.0 == second { (second, self.pace.1 + 1) } else { (second, 1) };
        let most = STEPS_MAX + STEPS_OF_HOST_MAX * self.roles.len() as u64;
        assert!(self.pace.1 <= most, "a storm: more than {most} steps in the virtual second {second}");
    }

    /// The next thing, if it happens by `until_ns`. Once the stop was requested nothing happens any more.
    fn step(&mut self, until_ns: u64) -> bool {
        if self.is_stopped {
            return false;
        }
        let Some((time_ns, happening)) = self.shared.queue.pop(until_ns) else { return false };
        self.shared.now_ns = time_ns;
        self.count_step(time_ns / 1_000_000_000);
        self.is_stopped = self.pace.1 % STEPS_PER_LOOK == 1 && self.stop.is_requested();
        match happening {
            Happening::Arrival { connection, at, segment } => {
                if let Some((host, input)) = self.shared.arrive(connection, at, segment) {
                    self.deliver(host, input);
                }
            }
            Happening::GoOn { connection, from } => self.shared.go_on(connection, from),
            Happening::Input { host, life, input } => {
                let host = self.shared.whereabouts(host, life);
                if self.shared.host(host).starts == life {
                    self.deliver(host, input);
                }
            }
            Happening::Timer { host, life } => {
                let host = self.shared.whereabouts(host, life);
                if self.shared.is_due(host, life) {
                    self.shared.host_mut(host).timer_ns = None;
                    self.deliver(host, Input::Timer);
                }
            }
            Happening::Fault { number } => self.fault_goes_on(number),
        }
        self.settle();
        true
    }

    /// Hands an input to a host's process, now or when it runs again.
    fn deliver(&mut self, host: HostId, input: Input) {
        match self.shared.host(host).process {
            Process::Ended => {}
            Process::Paused => self.shared.host_mut(host).waiting.push_back(input),
            Process::Runs => {
                self.clock_is_read(host);
                match &mut self.roles[host.0 as usize] {
                    Role::StoragePoint(sp) | Role::Displaced(sp) => sp.handle(&mut self.shared, host, input),
                    Role::Publisher(publisher) => publisher.handle(&mut self.shared, host, input),
                    Role::Cache(cache) => cache.handle(&mut self.shared, host, input),
                    Role::Receiver(receiver) => receiver.handle(&mut self.shared, host, input),
                }
            }
        }
    }

    /// What hosts cannot do to themselves: end, and tell that a fault is undone.
    fn settle(&mut self) {
        let mut ended = BTreeSet::new();
        for (host, ending) in std::mem::take(&mut self.shared.ended) {
            // A life ends once: what else it said is not about the one that may have begun since.
            if ended.insert(host) {
                self.process_ends(host, &ending);
            }
        }
        self.note_bites();
        for number in std::mem::take(&mut self.shared.undone) {
            self.note_undone(number);
        }
    }

    // ---- Processes ------------------------------------------------------------------------------------------------

    /// Starts the process, if it does not run.
    pub(super) fn start(&mut self, id: HostId) {
        let host = self.shared.host_mut(id);
        if host.process != Process::Ended {
            return;
        }
        (host.process, host.is_powered, host.timer_ns) = (Process::Runs, true, None);
        host.starts += 1;
        self.shared.say(id, Kind::Start, Template::default());
        self.shared.later(id, BOOT_NS, Input::Boot);
    }

    /// Ends the process at once. Whether it ran.
    pub(super) fn kill(&mut self, id: HostId, how: Kill) -> bool {
        let runs = self.shared.host(id).process != Process::Ended;
        if how == Kill::Power {
            self.shared.host_mut(id).is_powered = false;
        }
        if runs {
            self.is_gone(id, how, "killed", if how == Kill::Power { "power lost" } else { "signal: 9" });
        } else if how == Kill::Power {
            // What an earlier process wrote and did not flush is at stake all the same.
            self.ends(id, how);
        }
        runs
    }

    /// Lets the process stand still. Whether it ran.
    pub(super) fn pause(&mut self, id: HostId) -> bool {
        let host = self.shared.host_mut(id);
        let ran = host.process == Process::Runs;
        if ran {
            host.process = Process::Paused;
        }
        ran
    }

    /// Lets a paused process run again, with all that has come meanwhile.
    pub(super) fn resume(&mut self, id: HostId) {
        let host = self.shared.host_mut(id);
        if host.process != Process::Paused {
            return;
        }
        host.process = Process::Runs;
        let life = host.starts;
        // It reads what has come before it looks at the clock.
        let (timers, others): (VecDeque<Input>, VecDeque<Input>) =
            std::mem::take(&mut host.waiting).into_iter().partition(|input| matches!(input, Input::Timer));
        for input in others.into_iter().chain(timers) {
            let host = self.shared.host(id);
            if (host.process, host.starts) != (Process::Runs, life) {
                break;
            }
            self.deliver(id, input);
            self.settle();
        }
    }

    /// The process of a storage point goes on at a machine of its own, with its store and its connections; another
    /// process, with an empty store, has its place. Where the old one is.
    pub(super) fn displace(&mut self, id: HostId, store: StoreId, random: Random) -> Option<HostId> {
        let Role::StoragePoint(sp) = &mut self.roles[id.0 as usize] else { return None };
        let successor = sp.successor(store, random).ok()?;
        let about = Template { outcome: Some("killed"), cause: Some("another has its place"), ..Template::default() };
        self.shared.say(id, Kind::Exit, about);
        let name: Text = format!("displaced-{}", self.shared.host(id).name).into();
        let new_id = self.shared.network.add_host(Text::clone(&name), id);
        assert_eq!(new_id.0 as usize, self.roles.len(), "the network knows all hosts");
        let Role::StoragePoint(sp) = &mut self.roles[id.0 as usize] else { return None };
        if let Some(machine) = sp.machine() {
            self.shared.observe(id, Step::Ended(&sp.flushing()), machine);
        }
        self.shared.unwatched.insert(sp.store);
        sp.moved(new_id);
        let old = std::mem::replace(&mut self.roles[id.0 as usize], Role::StoragePoint(Box::new(successor)));
        if let Role::StoragePoint(old) = old {
            self.roles.push(Role::Displaced(old));
        }
        let host = self.shared.host_mut(id);
        let mut place = Host::new(&host.name.clone(), host.clock.clone());
        (place.starts, place.undone_when_ready) = (host.starts, std::mem::take(&mut host.undone_when_ready));
        let mut old = std::mem::replace(host, place);
        (old.name, old.is_displaced) = (name, true);
        self.shared.displaced.insert((id, old.starts), new_id);
        for connection in &old.connections {
            self.shared.move_end(*connection, id, new_id);
        }
        self.shared.hosts.push(old);
        Some(new_id)
    }

    /// A process whose store was replaced elsewhere, and which has not found out yet.
    pub(super) fn displaced_runs(&self) -> Option<&str> {
        let mut hosts = self.shared.hosts.iter().zip(&self.roles);
        let found = hosts.find(|(host, role)| matches!(role, Role::Displaced(_)) && host.process == Process::Runs);
        found.map(|(host, _)| &*host.name)
    }

    /// The end of the run.
    pub(super) fn stop_for_good(&mut self, id: HostId) {
        if self.shared.host(id).process != Process::Ended {
            // One whose store is void should have found out and stopped.
            let is_wrong = self.is_displaced(id) && self.shared.host(id).process == Process::Runs;
            let (outcome, cause) =
                if is_wrong { ("unexpected", "it still ran at the end") } else { ("stopped", "exit status: 0") };
            self.is_gone(id, Kill::Process, outcome, cause);
        }
    }

    /// Says how far the host's clock is off, if it is.
    pub(super) fn note_clock(&mut self, id: HostId) {
        let clock = &self.shared.host(id).clock;
        let cause = clock.told(self.shared.now_ns);
        self.shared.say(id, Kind::Clock, Template { cause: Some(&cause), ..Template::default() });
    }

    /// A process ends by itself.
    fn process_ends(&mut self, id: HostId, ending: &Ending) {
        if self.shared.host(id).process == Process::Ended {
            return;
        }
        match ending {
            Ending::Stopped => self.is_gone(id, Kill::Process, "stopped", "exit status: 0"),
            Ending::DiskFailed(problem) => self.is_gone(id, Kill::Process, "killed", problem),
            // Nothing else is left to it.
            Ending::Unexpected(problem) if self.is_displaced(id) && problem.contains("has taken this one's place") => {
                self.is_gone(id, Kill::Process, "stopped", problem);
            }
            Ending::Unexpected(problem) => self.is_gone(id, Kill::Process, "unexpected", problem),
        }
        self.note_ended(id, ending);
    }

    fn is_displaced(&self, id: HostId) -> bool {
        matches!(self.roles[id.0 as usize], Role::Displaced(_))
    }

    /// What the end of a process, or of the power, leaves of what it wrote: of a receiver, publications whose files are
    /// there.
    fn ends(&mut self, id: HostId, how: Kill) -> Vec<(Path, Uid, Hash)> {
        match &mut self.roles[id.0 as usize] {
            Role::StoragePoint(sp) | Role::Displaced(sp) => {
                if let Some(machine) = sp.machine() {
                    self.shared.observe(id, Step::Ended(&sp.flushing()), machine);
                }
                sp.end(how == Kill::Power);
            }
            Role::Publisher(_) => {}
            Role::Cache(cache) => cache.end(),
            Role::Receiver(receiver) => return receiver.end(how == Kill::Power),
        }
        Vec::new()
    }

    fn is_gone(&mut self, id: HostId, how: Kill, outcome: &str, cause: &str) {
        let exposed = self.ends(id, how);
        let host = self.shared.host_mut(id);
        (host.process, host.timer_ns) = (Process::Ended, None);
        (host.listens_peer, host.listens_http) = (false, false);
        host.waiting.clear();
        self.shared.close_all(id, how == Kill::Process);
        let about = Template { outcome: Some(outcome), cause: Some(cause), ..Template::default() };
        self.shared.say(id, Kind::Exit, about);
        for (path, uid, hash) in exposed {
            let about = Template { path: Some(path.as_str()), uid: Some(uid), hash: Some(hash), ..Template::default() };
            self.shared.say(id, Kind::Exposed, about);
        }
    }
}

impl Shared<'_> {
    /// An event of a host's process.
    pub(super) fn say(&mut self, id: HostId, kind: Kind, about: Template<'_>) {
        let host = &self.hosts[id.0 as usize];
        // What a displaced process holds was said under its old name: its as-of cannot be judged.
        if host.is_displaced && kind == Kind::AsOf {
            return;
        }
        self.record.host(self.now_ns, host, kind, about);
    }

    /// Shows a step of a storage point's state machine to who wants to see it.
    pub(super) fn observe(&mut self, me: HostId, step: Step<'_>, machine: &StoragePoint) {
        if self.observer.is_none() || self.unwatched.contains(&machine.config().store) {
            return;
        }
        let now = self.now_at(me);
        if let Some(observer) = &mut self.observer {
            observer.step(now, machine.config().me, step, machine);
        }
    }

    /// The instant of a time of the run.
    pub(super) fn instant_of(&self, time_ns: u64) -> Instant {
        Instant(self.instant().0 - self.now_ns + time_ns)
    }
}
