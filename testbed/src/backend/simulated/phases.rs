//! The phases of a run, those of the local backend: start, load, updates with faults, quiesce, audit, stop.

use super::{
    Observer, Summary,
    disk::Disk,
    fleet::{add_fleet, receivers_hold_the_latest},
    host::{HostId, Process, Role},
    publisher::Publisher,
    record::Record,
    shared::WALL_START_US,
    storage_point::StoragePointHost,
    world::{Kill, World},
};
use crate::{
    backend::{BackendError, Stop, clock::Clock},
    checks::DELIVERY_BOUND,
    faults::plan,
    scenario::{Delivery, Scenario},
    trace::{Kind, Sink, Template, preamble},
    workload::{Attempt, Contents, Random, attempts, load},
};
use acms_engine::protocol::{Config, Hash, Limits, Prefix, SpId, StoreId, api::ListedEntry};
use std::{sync::Arc, time::Duration};

pub(super) const MS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000 * MS;
/// The bound of promise P6 in nanoseconds.
pub(super) const BOUND_NS: u64 = DELIVERY_BOUND.as_nanos() as u64;
/// Of each SP's index, this many contents are read back and hashed.
const CONTENTS_MAX: usize = 200;
/// A publication of the first load is tried so often.
const LOAD_TRIES: usize = 5;
/// Processes have so long to become ready at the start.
const READY_WITHIN_NS: u64 = 60 * SECOND;

/// Runs a scenario from beginning to end.
pub(super) fn run<'s>(
    scenario: &'s Scenario,
    sink: &'s mut dyn Sink,
    observer: Option<&'s mut dyn Observer>,
    stop: &Stop,
) -> Result<Summary, BackendError> {
    let contents = Contents::of(&scenario.workload, scenario.seed)?;
    preamble(scenario, "simulated", 0, WALL_START_US).into_iter().for_each(|event| sink.record(event));
    let mut run =
        Run { scenario, world: make(scenario, sink, observer, stop)?, publishers: Vec::new(), notes: Vec::new() };
    run.publishers = run.add_publishers();
    let publications = run.all(&contents);
    if run.world.is_stopped {
        return Err(BackendError::Interrupted);
    }
    Ok(Summary {
        faults: std::mem::take(&mut run.world.faults.counts),
        publications: publications?,
        events: run.world.shared.record.events(),
        duration: Duration::from_nanos(run.world.shared.now_ns),
        notes: run.notes,
    })
}

/// The world of a scenario, nothing of which runs yet.
fn make<'s>(
    scenario: &Scenario,
    sink: &'s mut dyn Sink,
    observer: Option<&'s mut dyn Observer>,
    stop: &Stop,
) -> Result<World<'s>, BackendError> {
    let network = scenario.network().map_err(|error| BackendError::Simulated(error.to_string()))?;
    let datagrams = scenario.network.delivery == Delivery::Datagram;
    let mut world = World::new(scenario.seed, network, datagrams, Record::new(sink), observer, stop.clone());
    let config = config(scenario);
    for (place, sp) in config.members.clone().into_iter().enumerate() {
        let name = format!("sp{sp}");
        let others = config.members.iter().enumerate().filter(|(other, _)| *other != place);
        let others = others.map(|(other, sp)| (*sp, HostId(other as u32))).collect();
        let disk = Disk::new(&scenario.disk, Random::new(scenario.seed, &format!("disk of {name}")));
        let host = StoragePointHost::new(sp, Arc::clone(&config), others, disk);
        let host = host.map_err(|error| BackendError::Simulated(error.to_string()))?;
        world.add(&name, Clock::of(scenario, &name), Role::StoragePoint(Box::new(host)));
    }
    add_fleet(scenario, &mut world);
    Ok(world)
}

fn config(scenario: &Scenario) -> Arc<Config> {
    let members: Vec<SpId> = (1..=scenario.fleet.storage_points).map(SpId).collect();
    Arc::new(Config {
        cluster: "testbed".to_owned(),
        epoch: 1,
        me: members[0],
        store: StoreId { number: 0, nonce: 0 },
        members,
        mode: scenario.acms.mode,
        order: scenario.acms.order,
        quorum: scenario.acms.quorum.clone(),
        max_drift: scenario.acms.max_drift.map_or(Duration::from_secs(3_600), |span| span.0),
        limits: Limits::default(),
    })
}

pub(super) struct Run<'s> {
    pub(super) scenario: &'s Scenario,
    pub(super) world: World<'s>,
    /// Publishers beside each storage point.
    pub(super) publishers: Vec<HostId>,
    notes: Vec<String>,
}

impl Run<'_> {
    pub(super) fn now_ns(&self) -> u64 {
        self.world.shared.now_ns
    }

    /// All phases. How many publications there were.
    fn all(&mut self, contents: &Contents) -> Result<u64, BackendError> {
        self.start()?;
        let publications = if self.scenario.workload.publications.is_empty() { self.load(contents)? } else { 0 };
        let updates = self.updates(contents);
        self.quiesce();
        let probes = self.probe();
        self.read_back();
        self.black_out();
        self.audit();
        self.stop();
        Ok(publications + updates + probes)
    }

    pub(super) fn phase(&mut self, name: &str) {
        let now_ns = self.now_ns();
        self.world.shared.record.phase(now_ns, name);
    }

    fn add_publishers(&mut self) -> Vec<HostId> {
        let storage_points: Vec<(HostId, SpId)> = self.world.storage_points().map(|(id, sp)| (id, sp.sp)).collect();
        let add = |(to, sp): (HostId, SpId)| {
            let publisher = Publisher::new(to, sp, self.scenario.acms.order);
            let id = self.world.add("publisher", Clock::default(), Role::Publisher(Box::new(publisher)));
            // They are the testbed's own and run from first to last.
            let host = self.world.shared.host_mut(id);
            (host.process, host.starts) = (Process::Runs, 1);
            id
        };
        storage_points.into_iter().map(add).collect()
    }

    fn start(&mut self) -> Result<(), BackendError> {
        let storage_points: Vec<HostId> = self.world.storage_points().map(|(id, _)| id).collect();
        for id in storage_points {
            self.world.note_clock(id);
            self.world.start(id);
        }
        let all_serve = |world: &World<'_>| world.storage_points().all(|(id, _)| world.shared.host(id).listens_http);
        if !self.world.run_while(10 * MS, READY_WITHIN_NS, all_serve) {
            return Err(BackendError::Simulated("the storage points did not become ready".to_owned()));
        }
        self.phase("start");
        self.start_fleet();
        Ok(())
    }

    pub(super) fn plan(&mut self, at_ns: u64, attempt: Attempt) {
        let id = self.publishers[attempt.to % self.publishers.len()];
        if let Role::Publisher(publisher) = &mut self.world.roles[id.0 as usize] {
            publisher.plan(&mut self.world.shared, id, at_ns, attempt);
        }
    }

    /// Publishes every file, spread over the storage points, and waits until all have them. How many there were.
    fn load(&mut self, contents: &Contents) -> Result<u64, BackendError> {
        self.phase("load");
        let kib = contents.bytes().div_ceil(1024);
        self.notes.push(format!("published {} files ({}), {kib} KiB", contents.files.len(), contents.source));
        let concurrency = self.scenario.workload.concurrency as usize;
        let mut waiting = load(self.scenario, contents);
        let total = waiting.len() as u64;
        for number in 1..=LOAD_TRIES {
            waiting.reverse();
            while let Some(mut attempt) = waiting.pop() {
                if number > 1 {
                    attempt.key = attempt.key.map(|key| format!("{key}-{number}"));
                }
                let now_ns = self.now_ns();
                self.plan(now_ns, attempt);
                self.world.run_while(MS, 60 * SECOND, |world| world.shared.attempts_open < concurrency);
            }
            self.world.run_while(MS, 60 * SECOND, |world| world.shared.attempts_open == 0);
            waiting = std::mem::take(&mut self.world.shared.refused).into_iter().map(|(attempt, _)| attempt).collect();
            if waiting.is_empty() {
                break;
            }
        }
        if !waiting.is_empty() {
            return Err(BackendError::Load(format!("{} of {total} publications were not accepted", waiting.len())));
        }
        self.wait_until_all_hold_the_latest();
        Ok(total)
    }

    /// Publishes updates as they are due while faults come and go. How many there were.
    fn updates(&mut self, contents: &Contents) -> u64 {
        self.phase("updates");
        let begun_ns = self.now_ns();
        let due_ns = |at: Duration| begun_ns + u64::try_from(at.as_nanos()).unwrap_or(u64::MAX / 2);
        let end_ns = due_ns(self.scenario.duration.0);
        // A retry due after the end would come after the faults' last.
        let planned = attempts(self.scenario, contents).take_while(|attempt| attempt.at < self.scenario.duration.0);
        let planned: Vec<_> = planned.collect();
        let count = planned.len() as u64;
        planned.into_iter().for_each(|attempt| self.plan(due_ns(attempt.at), attempt));
        for step in plan(&self.scenario.faults, &self.scenario.hosts(), self.scenario.duration.0) {
            self.world.run_until(due_ns(step.at));
            self.world.take_step(&step, &self.scenario.faults, begun_ns, end_ns);
        }
        self.world.run_until(end_ns);
        // Every attempt has an outcome before the end is judged.
        self.world.run_while(10 * MS, 60 * SECOND, |world| world.shared.attempts_open == 0);
        self.world.shared.refused.clear();
        count
    }

    fn quiesce(&mut self) {
        self.phase("quiesce");
        self.wait_until_all_hold_the_latest();
    }

    /// Gives up at the bound of promise P6, and says what was waited for.
    pub(super) fn wait_until_all_hold_the_latest(&mut self) {
        let (mut still, mut last_behind) = (Still::default(), None);
        let all_hold =
            |world: &World<'_>| still.is_settled(world) && receivers_hold_the_latest(world, &mut last_behind);
        if !self.world.run_while(50 * MS, BOUND_NS, all_hold) {
            let what = still.what.unwrap_or_else(|| "receivers are behind".to_owned());
            self.unsettled(&what);
        }
    }

    /// Something did not come about in time.
    pub(super) fn unsettled(&mut self, what: &str) {
        self.notes.push(format!("after {DELIVERY_BOUND:?} not all was settled: {what}"));
        let now_ns = self.now_ns();
        let about = Template { cause: Some(what), ..Template::default() };
        self.world.shared.record.testbed(now_ns, Kind::Unsettled, about);
    }

    /// Reads of every storage point's contents as clients do, which also makes it mend what it finds damaged.
    fn read_back(&mut self) {
        let samples = self.read_samples();
        for (id, publisher, entries) in &samples {
            for entry in entries {
                let Role::Publisher(publisher) = &self.world.roles[publisher.0 as usize] else { continue };
                if let Some(problem) = publisher.reader.problem(&entry.hash).map(str::to_owned) {
                    let about = Template {
                        path: Some(entry.path.as_str()),
                        uid: Some(entry.uid),
                        hash: Some(entry.hash),
                        cause: Some(&problem),
                        ..Template::default()
                    };
                    let (name, now_ns) = (Arc::clone(&self.world.shared.host(*id).name), self.world.shared.now_ns);
                    self.world.shared.record.note(now_ns, &name, 0, Kind::Unread, about);
                }
            }
        }
        let end_ns = self.now_ns() + BOUND_NS;
        while self.is_any_unread() && self.now_ns() < end_ns {
            let at_ns = self.now_ns() + SECOND;
            self.world.run_until(at_ns);
            self.read_samples();
        }
    }

    fn is_any_unread(&self) -> bool {
        self.publishers.iter().any(|id| match &self.world.roles[id.0 as usize] {
            Role::Publisher(publisher) => publisher.reader.has_problem(),
            _ => false,
        })
    }

    /// Reads a sample of each storage point's contents: storage point, who reads there, and what.
    fn read_samples(&mut self) -> Vec<(HostId, HostId, Vec<ListedEntry>)> {
        let mut samples = Vec::new();
        for reader in self.publishers.clone() {
            let Role::Publisher(publisher) = &self.world.roles[reader.0 as usize] else { continue };
            let id = publisher.to;
            let (sample, _) = self.sample(id);
            let mut hashes: Vec<Hash> = sample.iter().map(|entry| entry.hash).collect();
            hashes.sort_unstable();
            hashes.dedup();
            if let Role::Publisher(publisher) = &mut self.world.roles[reader.0 as usize] {
                publisher.read(&mut self.world.shared, reader, hashes);
            }
            samples.push((id, reader, sample));
        }
        let all_read = |world: &World<'_>| {
            samples.iter().all(|(_, reader, _)| match &world.roles[reader.0 as usize] {
                Role::Publisher(publisher) => publisher.reader.is_done(),
                _ => true,
            })
        };
        self.world.run_while(MS, BOUND_NS, all_read);
        samples
    }

    /// The power of all storage points goes at once: what they promised since the last crash is put to the proof.
    fn black_out(&mut self) {
        self.phase("blackout");
        let ids: Vec<HostId> = self.world.storage_points().map(|(id, _)| id).collect();
        for id in &ids {
            self.world.kill(*id, Kill::Power);
        }
        let at_ns = self.now_ns() + SECOND;
        self.world.run_until(at_ns);
        for id in ids {
            self.world.start(id);
        }
        self.wait_until_all_hold_the_latest();
        self.wait_for_as_of();
    }

    /// The whole index of a storage point, and which of its contents the audit reads.
    pub(super) fn sample(&self, id: HostId) -> (Vec<ListedEntry>, Vec<ListedEntry>) {
        let Role::StoragePoint(sp) = &self.world.roles[id.0 as usize] else { return Default::default() };
        let Some(machine) = sp.machine() else { return Default::default() };
        let all: Prefix = "".parse().expect("the empty prefix");
        let entries = machine.list(&all, "", usize::MAX);
        let mut order: Vec<usize> = (0..entries.len()).filter(|i| !entries[*i].flags.deleted).collect();
        Random::new(self.scenario.seed, &self.world.shared.host(id).name).shuffle(&mut order);
        let sample = order.into_iter().take(CONTENTS_MAX).map(|i| entries[i].clone()).collect();
        (sample, entries)
    }

    fn audit(&mut self) {
        self.phase("audit");
        let samples = self.read_samples();
        for (id, reader, _) in samples {
            let (_, entries) = self.sample(id);
            let World { shared, roles, .. } = &mut self.world;
            let (Role::StoragePoint(sp), Role::Publisher(publisher)) =
                (&roles[id.0 as usize], &roles[reader.0 as usize])
            else {
                continue;
            };
            let (name, now_ns) = (Arc::clone(&shared.host(id).name), shared.now_ns);
            let machine = sp.machine().filter(|_| shared.host(id).listens_http);
            let root = machine.map(|machine| machine.snapshot(shared.now_at(id).wall).root);
            for entry in entries.iter().filter(|_| root.is_some()) {
                let outcome = match publisher.reader.problem(&entry.hash) {
                    _ if entry.flags.deleted => Some("deleted"),
                    _ if !publisher.reader.was_asked(&entry.hash) => None,
                    None => Some("content-same"),
                    Some(_) => Some("content-differs"),
                };
                let about = Template {
                    path: Some(entry.path.as_str()),
                    uid: Some(entry.uid),
                    hash: Some(entry.hash),
                    outcome,
                    cause: publisher.reader.problem(&entry.hash).filter(|_| !entry.flags.deleted),
                    ..Template::default()
                };
                shared.record.note(now_ns, &name, 0, Kind::AuditSp, about);
            }
            let cause = root.is_none().then_some("it does not answer");
            let outcome = Some(if root.is_some() { "complete" } else { "incomplete" });
            let about = Template { outcome, cause, hash: root, ..Template::default() };
            shared.record.note(now_ns, &name, 0, Kind::AuditEnd, about);
        }
        self.audit_receivers();
    }

    /// The end: every process stops.
    fn stop(&mut self) {
        for id in self.world.ids() {
            if !matches!(self.world.roles[id.0 as usize], Role::Publisher(_)) {
                self.world.stop_for_good(id);
            }
        }
    }
}

/// Longer than the longest interval after which pending vectors are sent again.
const STILL_NS: u64 = 11 * SECOND;

/// Watches whether everything has come to rest.
#[derive(Default)]
struct Still {
    /// Publications pending at all storage points, and since when there are so many.
    pending: usize,
    since_ns: u64,
    /// What was not settled when it was looked at last.
    what: Option<String>,
}

impl Still {
    /// Whether all storage points serve the same index with nothing under way. Publications that nobody will ever agree
    /// on may stay pending: that is believed once their number has not changed for long.
    fn is_settled(&mut self, world: &World<'_>) -> bool {
        let pending = world.storage_points().filter_map(|(_, sp)| sp.machine()).map(|machine| machine.status().pending);
        let pending = pending.sum();
        self.what = unsettled(world);
        if self.what.is_some() || pending != self.pending {
            (self.pending, self.since_ns) = (pending, world.shared.now_ns);
        }
        if self.what.is_none() && pending > 0 && world.shared.now_ns - self.since_ns < STILL_NS {
            self.what = Some(format!("{pending} publications are pending"));
        }
        self.what.is_none()
    }
}

/// What keeps the storage points from all serving the same index.
fn unsettled(world: &World<'_>) -> Option<String> {
    if let Some(name) = world.displaced_runs() {
        return Some(format!("{name} still runs"));
    }
    let mut first: Option<(SpId, Hash)> = None;
    for (id, sp) in world.storage_points() {
        let me = sp.sp;
        let Some(machine) = sp.machine().filter(|_| world.shared.host(id).listens_http) else {
            return Some(format!("sp{me} does not serve"));
        };
        let snapshot = machine.snapshot(world.shared.now_at(id).wall);
        if snapshot.sequence != machine.cursor().sequence {
            return Some(format!("the root of sp{me} is behind"));
        }
        let (other, root) = *first.get_or_insert((me, snapshot.root));
        if root != snapshot.root {
            return Some(format!("the roots of sp{other} and sp{me} differ"));
        }
    }
    None
}
