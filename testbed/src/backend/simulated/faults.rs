//! What faults do to hosts, disks, clocks and links of the world, and the ledger of those that last.
//!
//! A process that several faults keep down starts again when the last of them ends.

use super::{
    directory::Faults,
    host::{HostId, Input, Process, Role},
    queue::Happening,
    shared::Ending,
    storage_point::StoragePointHost,
    world::{Kill, World},
};
use crate::{
    backend::clock::Skew,
    faults::{FaultKind, Step, links, replies::Misbehaviour},
    network::PPM,
    scenario::{Fault, Span},
    trace::{Kind, Template},
    workload::Random,
};
use acms_engine::protocol::{Hash, StoreId};
use std::{collections::BTreeMap, time::Duration};

/// Faults that have begun, by number.
#[derive(Default, Debug)]
pub(super) struct Ledger {
    entries: Vec<Entry>,
    /// How many took effect, by kind.
    pub(super) counts: BTreeMap<FaultKind, u64>,
    /// Faults of clocks that nobody has looked at yet.
    unread: Vec<usize>,
}

#[derive(Debug)]
struct Entry {
    fault: Fault,
    /// The fault's place in the scenario.
    index: usize,
    host: HostId,
    stage: Stage,
    /// It was noted that it has begun.
    is_noted: bool,
    /// Whether it keeps the process down now.
    holds_down: bool,
    /// How far the clock was moved, in microseconds.
    moved_us: i64,
    /// When it ends, by plan.
    end_ns: u64,
    /// Where the process is whose place another has taken.
    displaced: Option<HostId>,
    /// A full disk: the log has no blank space left either.
    fills_log: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Lasts,
    Over,
}

const FLAP: Duration = Duration::from_secs(1);
const LOOP_UP: Duration = Duration::from_secs(1);
const LOOP_DOWN: Duration = Duration::from_millis(100);
const SLOW_FLUSH: Duration = Duration::from_millis(100);
/// A power failure waits so long for a flush to hit.
const TEAR_WITHIN: Duration = Duration::from_secs(1);

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl World<'_> {
    /// A step of the plan; faults are `faults` of the scenario and end at `end_ns` at latest.
    pub(super) fn take_step(&mut self, step: &Step, faults: &[Fault], updates_from_ns: u64, end_ns: u64) {
        let Some(host) = self.find(&step.host) else { return };
        if step.begins {
            let fault = faults[step.fault].clone();
            let lasts_ns = fault.lasts.map_or(u64::MAX, |Span(lasts)| nanos(lasts));
            let planned_ns = updates_from_ns.saturating_add(nanos(step.at)).saturating_add(lasts_ns).min(end_ns);
            let number = self.faults.entries.len();
            self.faults.entries.push(Entry {
                fault,
                index: step.fault,
                host,
                stage: Stage::Lasts,
                is_noted: false,
                holds_down: false,
                moved_us: 0,
                end_ns: planned_ns,
                displaced: None,
                fills_log: false,
            });
            self.begin(number);
        } else {
            let is_it = |entry: &Entry| entry.index == step.fault && entry.host == host && entry.stage == Stage::Lasts;
            if let Some(number) = self.faults.entries.iter().position(is_it) {
                self.undo(number);
            }
        }
    }

    fn begin(&mut self, number: usize) {
        let Entry { fault, host, .. } = &self.faults.entries[number];
        let (host, kind) = (*host, fault.kind);
        match kind {
            FaultKind::Kill => self.kill_for(number, Kill::Process),
            FaultKind::Pause => {
                if self.pause(host) {
                    self.note_fault(number);
                }
            }
            FaultKind::Restart => {
                self.hold_down(number);
                self.ask_to_stop(number);
            }
            FaultKind::CrashLoop => {
                self.kill_for(number, Kill::Process);
                self.again(number, self.faults.entries[number].fault.down, LOOP_DOWN);
            }
            FaultKind::Isolate | FaultKind::Partition | FaultKind::Loss | FaultKind::SlowLink => self.disturb(number),
            FaultKind::Flap => {
                self.disturb(number);
                self.again(number, self.faults.entries[number].fault.down, FLAP);
            }
            FaultKind::StoreReplaced => self.take_place(number),
            FaultKind::ClockJump | FaultKind::ClockSkew => self.move_clock(number),
            FaultKind::CacheCorrupt | FaultKind::CacheTruncate | FaultKind::CacheStale | FaultKind::CacheRollback => {
                self.misbehave(number);
            }
            _ => self.break_disk(number),
        }
    }

    /// A fault that comes and goes, or that waits for its moment, goes on.
    pub(super) fn fault_goes_on(&mut self, number: usize) {
        let entry = &self.faults.entries[number];
        if entry.stage == Stage::Over {
            return;
        }
        let (up, down) = (entry.fault.up, entry.fault.down);
        match entry.fault.kind {
            FaultKind::CrashLoop if entry.holds_down => {
                self.let_up(number);
                self.again(number, up, LOOP_UP);
            }
            FaultKind::CrashLoop => {
                self.kill_for(number, Kill::Process);
                self.again(number, down, LOOP_DOWN);
            }
            FaultKind::Flap => {
                if self.shared.network.disturbances().end(number as u64) {
                    self.again(number, up, FLAP);
                } else {
                    self.disturb(number);
                    self.again(number, down, FLAP);
                }
            }
            FaultKind::DiskTorn if !entry.holds_down => self.kill_for(number, Kill::Power),
            _ => {}
        }
    }

    fn undo(&mut self, number: usize) {
        let entry = &mut self.faults.entries[number];
        entry.stage = Stage::Over;
        let (host, kind, moved_us, displaced) = (entry.host, entry.fault.kind, entry.moved_us, entry.displaced);
        match kind {
            FaultKind::Pause => self.resume(host),
            FaultKind::StoreReplaced => {
                if let Some(old) = displaced {
                    self.resume(old);
                }
            }
            FaultKind::ClockJump | FaultKind::ClockSkew => {
                let clock = &mut self.shared.host_mut(host).clock;
                clock.offset_us -= moved_us;
                clock.skews.retain(|skew| skew.fault != number);
                self.note_clock(host);
            }
            FaultKind::DiskTorn => self.power_stays(number),
            FaultKind::DiskLost => self.replace_store(host),
            FaultKind::CacheCorrupt | FaultKind::CacheTruncate | FaultKind::CacheStale | FaultKind::CacheRollback => {
                if let Role::Cache(cache) = &mut self.roles[host.0 as usize] {
                    cache.misbehaviours.retain(|misbehaviour| misbehaviour.fault != number);
                }
            }
            _ => {}
        }
        self.set_disk(host);
        self.shared.network.disturbances().end(number as u64);
        if self.faults.entries[number].holds_down {
            self.let_up(number);
            self.shared.host_mut(host).undone_when_ready.push(number);
        } else if kind != FaultKind::StoreReplaced {
            self.note_undone(number);
        }
    }

    // ---- Processes ------------------------------------------------------------------------------------------------

    fn hold_down(&mut self, number: usize) {
        self.faults.entries[number].holds_down = true;
    }

    /// This fault keeps the process down no more; it starts if no other does.
    fn let_up(&mut self, number: usize) {
        self.faults.entries[number].holds_down = false;
        let host = self.faults.entries[number].host;
        if !self.is_held_down(host) {
            self.start(host);
        }
    }

    fn is_held_down(&self, host: HostId) -> bool {
        self.faults.entries.iter().any(|entry| entry.host == host && entry.holds_down)
    }

    /// Kills the process and keeps it down.
    fn kill_for(&mut self, number: usize, how: Kill) {
        let host = self.faults.entries[number].host;
        let ran = self.kill(host, how);
        self.hold_down(number);
        if ran {
            self.note_fault(number);
        }
    }

    fn ask_to_stop(&mut self, number: usize) {
        let host = self.faults.entries[number].host;
        if self.shared.host(host).process != Process::Ended {
            self.shared.later(host, 0, Input::Stop);
        }
    }

    /// The process stands still, and another with an empty store takes its place.
    fn take_place(&mut self, number: usize) {
        let host = self.faults.entries[number].host;
        let mut random = self.random_of_fault(host);
        let Some(sp) = self.storage_point(host) else { return };
        let store = StoreId { number: sp.store.number + 1, nonce: random.bits() };
        if sp.machine().is_none() || !self.pause(host) {
            return;
        }
        self.faults.entries[number].displaced = self.displace(host, store, random);
        self.set_disk(host);
        self.note_fault(number);
        self.shared.host_mut(host).undone_when_ready.push(number);
        if !self.is_held_down(host) {
            self.start(host);
        }
    }

    /// A process has ended by itself: because a fault wanted it, or not.
    pub(super) fn note_ended(&mut self, host: HostId, ending: &Ending) {
        let wanted = match ending {
            Ending::Stopped => FaultKind::Restart,
            Ending::DiskFailed(_) => FaultKind::DiskFail,
            Ending::Unexpected(_) => return,
        };
        if let Some(number) = self.cause_of_end(host, wanted) {
            let is_news = !self.faults.entries[number].is_noted;
            self.note_fault(number);
            if self.faults.entries[number].stage == Stage::Lasts {
                self.hold_down(number);
            } else if is_news && wanted == FaultKind::DiskFail {
                // What it did shows only now, when it is over.
                self.shared.host_mut(host).undone_when_ready.push(number);
            }
        }
        if !self.is_held_down(host) {
            self.start(host);
        }
    }

    /// The fault of this kind that has ended a host's process: one that lasts, or else the last one, if it has not shown
    /// yet.
    fn cause_of_end(&self, host: HostId, kind: FaultKind) -> Option<usize> {
        let of_kind = |entry: &Entry| entry.host == host && entry.fault.kind == kind;
        let entries = || self.faults.entries.iter().enumerate().filter(|(_, entry)| of_kind(entry));
        let lasting =
            entries().filter(|(_, entry)| entry.stage == Stage::Lasts).min_by_key(|(_, entry)| entry.is_noted);
        let latent = || entries().rfind(|(_, entry)| !entry.is_noted);
        lasting.or_else(latent).map(|(number, _)| number)
    }

    fn again(&mut self, number: usize, after: Option<Span>, default: Duration) {
        let at_ns = self.shared.now_ns + nanos(after.map_or(default, |Span(after)| after));
        self.shared.queue.push(at_ns, Happening::Fault { number });
    }

    // ---- Links ----------------------------------------------------------------------------------------------------

    fn disturb(&mut self, number: usize) {
        let Entry { fault, host, end_ns, .. } = &self.faults.entries[number];
        let names: Vec<String> = self.shared.hosts.iter().map(|host| host.name.to_string()).collect();
        links::disturb(self.shared.network.disturbances(), number as u64, fault, *host, &names, *end_ns);
    }

    // ---- Clocks ---------------------------------------------------------------------------------------------------

    fn move_clock(&mut self, number: usize) {
        let now_ns = self.shared.now_ns;
        let entry = &mut self.faults.entries[number];
        let by_us = entry.fault.by.map_or(0, |by| by.0);
        let (host, kind, end_ns) = (entry.host, entry.fault.kind, entry.end_ns);
        entry.moved_us = if kind == FaultKind::ClockJump { by_us } else { 0 };
        let clock = &mut self.shared.host_mut(host).clock;
        if kind == FaultKind::ClockJump {
            clock.offset_us += by_us;
        } else {
            clock.skews.push(Skew { fault: number, from_ns: now_ns, to_ns: end_ns, by_us });
        }
        self.note_clock(host);
        self.faults.unread.push(number);
    }

    /// The process looks at its clock: faults of it bite if it shows something else than without them.
    pub(super) fn clock_is_read(&mut self, host: HostId) {
        if self.faults.unread.is_empty() {
            return;
        }
        let (now_ns, clock) = (self.shared.now_ns, &self.shared.hosts[host.0 as usize].clock);
        let Ledger { entries, unread, .. } = &mut self.faults;
        unread.retain(|number| {
            let entry = &entries[*number];
            let skewed = clock.skews.iter().any(|skew| skew.fault == *number && skew.at(now_ns) != 0);
            let is_bitten = entry.host == host && (entry.moved_us != 0 || skewed);
            if is_bitten {
                self.shared.bitten.push(*number);
            }
            !is_bitten && entry.stage == Stage::Lasts
        });
    }

    // ---- Caches ---------------------------------------------------------------------------------------------------

    /// Noted when the first reply is hit.
    fn misbehave(&mut self, number: usize) {
        let Entry { fault, host, .. } = &self.faults.entries[number];
        let part_ppm = fault.part.map_or(PPM, |part| part.0);
        if let Role::Cache(cache) = &mut self.roles[host.0 as usize] {
            cache.misbehaviours.push(Misbehaviour { kind: fault.kind, part_ppm, fault: number });
        }
    }

    // ---- Disks ----------------------------------------------------------------------------------------------------

    fn storage_point(&mut self, host: HostId) -> Option<&mut StoragePointHost> {
        match self.roles.get_mut(host.0 as usize)? {
            Role::StoragePoint(sp) => Some(sp),
            _ => None,
        }
    }

    /// Does to the host's disk what the faults do that last, and no more.
    fn set_disk(&mut self, host: HostId) {
        let lasting = |entry: &&Entry| entry.host == host && entry.stage == Stage::Lasts;
        let of_kind =
            |kind: FaultKind| self.faults.entries.iter().filter(lasting).filter(move |it| it.fault.kind == kind);
        let delays = of_kind(FaultKind::DiskSlow).map(|entry| nanos(entry.fault.delay.map_or(SLOW_FLUSH, |it| it.0)));
        let slower_by_ns = delays.max().unwrap_or(0);
        let (is_full, fails) = (of_kind(FaultKind::DiskFull).count() > 0, of_kind(FaultKind::DiskFail).count() > 0);
        let log_is_full = of_kind(FaultKind::DiskFull).any(|entry| entry.fills_log);
        match &mut self.roles[host.0 as usize] {
            Role::StoragePoint(sp) => {
                sp.disk.slower_by_ns = slower_by_ns;
                sp.disk.storage.set_capacity(is_full.then_some(0));
                sp.disk.storage.set_failing(fails);
                sp.log_is_full = log_is_full;
            }
            Role::Receiver(receiver) => receiver.directory_mut().faults = Faults { is_full, fails, slower_by_ns },
            _ => {}
        }
    }

    /// A power failure that waited for its moment does not come any more.
    fn power_stays(&mut self, number: usize) {
        let host = self.faults.entries[number].host;
        let awaited = match &mut self.roles[host.0 as usize] {
            Role::StoragePoint(sp) => &mut sp.power_fails_in_flush,
            Role::Receiver(receiver) => &mut receiver.power_fails_in_batch,
            _ => return,
        };
        *awaited = awaited.filter(|other| *other != number);
    }

    fn break_disk(&mut self, number: usize) {
        let Entry { fault, host, .. } = &self.faults.entries[number];
        let (host, kind, count) = (*host, fault.kind, fault.count.unwrap_or(1));
        match kind {
            // Half of the full disks have left the log a blank segment or two.
            FaultKind::DiskFull => {
                let fills_log = self.random_of_fault(host).below(2) == 0;
                self.faults.entries[number].fills_log = fills_log;
            }
            FaultKind::DiskTorn => {
                match &mut self.roles[host.0 as usize] {
                    Role::StoragePoint(sp) => sp.power_fails_in_flush = Some(number),
                    Role::Receiver(receiver) => receiver.power_fails_in_batch = Some(number),
                    _ => {}
                }
                self.again(number, None, TEAR_WITHIN);
            }
            FaultKind::DiskLost => {
                self.kill(host, Kill::Process);
                self.hold_down(number);
                self.note_fault(number);
            }
            FaultKind::DiskRot if self.rot(host, count) => self.note_fault(number),
            _ => {}
        }
        self.set_disk(host);
    }

    /// Damages up to `count` stored contents; whether there were any.
    fn rot(&mut self, host: HostId, count: u32) -> bool {
        let mut random = self.random_of_fault(host);
        let Some(sp) = self.storage_point(host) else { return false };
        let (Some(machine), Some(contents)) = (sp.machine(), sp.contents()) else { return false };
        let listed = machine.list(&"".parse().expect("the empty prefix"), "", usize::MAX);
        let mut hashes: Vec<(Hash, u64)> = listed.into_iter().map(|entry| (entry.hash, entry.size)).collect();
        hashes.retain(|(_, size)| *size > 0);
        hashes.sort_unstable();
        hashes.dedup();
        random.shuffle(&mut hashes);
        let contents = contents.clone();
        let rotted = hashes.into_iter().take(count as usize).filter(|(hash, _)| sp.disk.rot(&contents, hash));
        let rotted: Vec<Hash> = rotted.map(|(hash, _)| hash).collect();
        for hash in &rotted {
            self.shared.say(host, Kind::Rotted, Template { hash: Some(*hash), ..Template::default() });
        }
        !rotted.is_empty()
    }

    /// The store is gone; a new one takes its place.
    fn replace_store(&mut self, host: HostId) {
        let mut random = self.random_of_fault(host);
        let Some(sp) = self.storage_point(host) else { return };
        let store = StoreId { number: sp.store.number + 1, nonce: random.bits() };
        if let Err(error) = sp.replace_store(store) {
            self.shared.ended.push((host, Ending::Unexpected(error.to_string())));
        }
        self.set_disk(host);
    }

    fn random_of_fault(&self, host: HostId) -> Random {
        self.shared.random(host, &format!("fault at {}", self.shared.now_ns))
    }

    // ---- The trace ------------------------------------------------------------------------------------------------

    pub(super) fn note_fault(&mut self, number: usize) {
        let entry = &mut self.faults.entries[number];
        if std::mem::replace(&mut entry.is_noted, true) {
            return;
        }
        let kind = entry.fault.kind;
        *self.faults.counts.entry(kind).or_default() += 1;
        self.note(number, Kind::Fault);
    }

    /// A fault that did no harm has none undone.
    pub(super) fn note_undone(&mut self, number: usize) {
        if self.faults.entries[number].is_noted {
            self.note(number, Kind::FaultUndone);
        }
    }

    /// Notes the faults that have just done harm for the first time.
    pub(super) fn note_bites(&mut self) {
        let mut bitten = std::mem::take(&mut self.shared.bitten);
        bitten.extend(self.shared.network.disturbances().take_bitten().into_iter().map(|number| number as usize));
        for number in bitten {
            if self.faults.entries[number].stage == Stage::Lasts {
                self.note_fault(number);
            }
        }
        for (host, kind) in std::mem::take(&mut self.shared.bites) {
            let hit = |entry: &Entry| entry.host == host && entry.fault.kind == kind && entry.stage == Stage::Lasts;
            let numbers: Vec<usize> =
                (0..self.faults.entries.len()).filter(|number| hit(&self.faults.entries[*number])).collect();
            numbers.into_iter().for_each(|number| self.note_fault(number));
        }
    }

    fn note(&mut self, number: usize, kind: Kind) {
        let Entry { fault, host, .. } = &self.faults.entries[number];
        let name = self.shared.host(*host).name.to_string();
        let about = Template { cause: Some(&name), outcome: Some(fault.kind.name()), ..Template::default() };
        self.shared.record.testbed(self.shared.now_ns, kind, about);
    }
}
