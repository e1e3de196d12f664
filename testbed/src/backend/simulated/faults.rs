//! What faults do to hosts, disks, clocks and links of the world, and the ledger of those that last.
//!
//! A process that several faults keep down starts again when the last of them ends.

use super::{
    cache::Misbehaviour,
    clock::Skew,
    disk::Disk,
    host::{HostId, Role},
    queue::Happening,
    shared::Ending,
    storage_point::StoragePointHost,
    world::{Kill, World},
};
use crate::{
    faults::{FaultKind, Step},
    network::{Disturbance, Hosts, PPM},
    scenario::{Direction, Fault, Span},
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
            FaultKind::Kill => {
                self.kill(host, Kill::Process);
                self.hold_down(number);
                self.note_fault(number);
            }
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
                self.kill(host, Kill::Process);
                self.hold_down(number);
                self.note_fault(number);
                self.again(number, self.faults.entries[number].fault.down, LOOP_DOWN);
            }
            FaultKind::Isolate | FaultKind::Partition | FaultKind::Loss | FaultKind::SlowLink => {
                self.disturb(number);
                self.note_fault(number);
            }
            FaultKind::Flap => {
                self.disturb(number);
                self.note_fault(number);
                self.again(number, self.faults.entries[number].fault.down, FLAP);
            }
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
        let (host, up, down) = (entry.host, entry.fault.up, entry.fault.down);
        match entry.fault.kind {
            FaultKind::CrashLoop if entry.holds_down => {
                self.let_up(number);
                self.again(number, up, LOOP_UP);
            }
            FaultKind::CrashLoop => {
                self.kill(host, Kill::Process);
                self.hold_down(number);
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
            FaultKind::DiskTorn if !entry.is_noted => {
                self.kill(host, Kill::Power);
                self.hold_down(number);
                self.note_fault(number);
            }
            _ => {}
        }
    }

    fn undo(&mut self, number: usize) {
        let entry = &mut self.faults.entries[number];
        entry.stage = Stage::Over;
        let (host, kind, is_noted, moved_us) = (entry.host, entry.fault.kind, entry.is_noted, entry.moved_us);
        let is_receiver = matches!(self.roles[host.0 as usize], Role::Receiver(_));
        match kind {
            FaultKind::Pause => self.resume(host),
            FaultKind::ClockJump | FaultKind::ClockSkew => {
                let clock = &mut self.shared.host_mut(host).clock;
                if kind == FaultKind::ClockJump {
                    clock.offset_us -= moved_us
                } else {
                    clock.skew = None
                }
                self.note_clock(host);
            }
            FaultKind::DiskFull | FaultKind::DiskFail | FaultKind::DiskSlow | FaultKind::DiskTorn if is_receiver => {
                self.mend_directory(host, kind);
            }
            FaultKind::DiskFull => drop(self.disk(host).map(|disk| disk.storage.set_capacity(None))),
            FaultKind::DiskSlow => drop(self.disk(host).map(|disk| disk.slower_by_ns = 0)),
            FaultKind::DiskFail => {
                if let Some(sp) = self.storage_point(host) {
                    sp.disk_fails = false;
                    // One that was to fail may not have come.
                    sp.disk.storage.fail_at_sync(u64::MAX);
                }
            }
            FaultKind::DiskTorn => drop(self.storage_point(host).map(|sp| sp.power_fails_in_flush = None)),
            FaultKind::DiskLost => self.replace_store(host),
            FaultKind::CacheCorrupt | FaultKind::CacheTruncate | FaultKind::CacheStale | FaultKind::CacheRollback => {
                if let Role::Cache(cache) = &mut self.roles[host.0 as usize] {
                    cache.misbehaviours.retain(|misbehaviour| misbehaviour.fault != number);
                }
            }
            _ => {}
        }
        self.shared.network.disturbances().end(number as u64);
        if self.faults.entries[number].holds_down {
            self.let_up(number);
            self.shared.host_mut(host).undone_when_ready.push(number);
        } else if is_noted {
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

    fn ask_to_stop(&mut self, number: usize) {
        let host = self.faults.entries[number].host;
        if self.shared.host(host).process == super::host::Process::Ended {
            return self.note_fault(number);
        }
        self.shared.later(host, 0, super::host::Input::Stop);
    }

    /// A process has ended by itself: because a fault wanted it, or not.
    pub(super) fn note_ended(&mut self, host: HostId, ending: &Ending) {
        let wanted = match ending {
            Ending::Stopped => FaultKind::Restart,
            Ending::DiskFailed(_) => FaultKind::DiskFail,
            Ending::Unexpected(_) => return,
        };
        let is_it = |entry: &Entry| entry.host == host && entry.fault.kind == wanted && !entry.is_noted;
        if let Some(number) = self.faults.entries.iter().position(is_it) {
            self.note_fault(number);
            if self.faults.entries[number].stage == Stage::Lasts {
                self.hold_down(number);
            }
        }
        if !self.is_held_down(host) {
            self.start(host);
        }
    }

    fn again(&mut self, number: usize, after: Option<Span>, default: Duration) {
        let at_ns = self.shared.now_ns + nanos(after.map_or(default, |Span(after)| after));
        self.shared.queue.push(at_ns, Happening::Fault { number });
    }

    // ---- Links ----------------------------------------------------------------------------------------------------

    fn disturb(&mut self, number: usize) {
        let Entry { fault, host, end_ns, .. } = &self.faults.entries[number];
        let mut disturbance = Disturbance::default();
        match fault.kind {
            FaultKind::Loss => {
                disturbance.loss_ppm = fault.loss.map_or(0, |loss| loss.0);
                disturbance.loss_until_ns = *end_ns;
            }
            FaultKind::SlowLink => {
                disturbance.rate = fault.rate.map(|rate| rate.0);
                disturbance.delay_ns = fault.delay.map_or(0, |Span(delay)| nanos(delay));
            }
            _ => disturbance = Disturbance::CUT,
        }
        let here = Hosts::one(*host);
        let there = match &fault.peer {
            None => Hosts::All,
            Some(peer) => {
                let names: Vec<String> = self.shared.hosts.iter().map(|host| host.name.to_string()).collect();
                Hosts::Of(peer.select(&names).into_iter().filter_map(|name| self.find(name)).collect())
            }
        };
        let direction = fault.direction();
        let disturbances = self.shared.network.disturbances();
        if direction != Direction::In {
            disturbances.begin(number as u64, here.clone(), there.clone(), disturbance);
        }
        if direction != Direction::Out {
            disturbances.begin(number as u64, there, here, disturbance);
        }
    }

    // ---- Clocks ---------------------------------------------------------------------------------------------------

    fn move_clock(&mut self, number: usize) {
        let now_ns = self.shared.now_ns;
        let entry = &mut self.faults.entries[number];
        let by_us = entry.fault.by.map_or(0, |by| by.0);
        let (host, kind, end_ns) = (entry.host, entry.fault.kind, entry.end_ns);
        entry.moved_us = by_us;
        let clock = &mut self.shared.host_mut(host).clock;
        match kind {
            FaultKind::ClockJump => clock.offset_us += by_us,
            _ => clock.skew = Some(Skew { from_ns: now_ns, to_ns: end_ns, by_us }),
        }
        self.note_clock(host);
        self.note_fault(number);
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

    /// A receiver's disk is as it was, as far as this kind of fault goes.
    fn mend_directory(&mut self, host: HostId, kind: FaultKind) {
        let Role::Receiver(receiver) = &mut self.roles[host.0 as usize] else { return };
        match kind {
            FaultKind::DiskFull => receiver.directory_mut().faults.is_full = false,
            FaultKind::DiskFail => receiver.directory_mut().faults.fails = false,
            FaultKind::DiskSlow => receiver.directory_mut().faults.slower_by_ns = 0,
            _ => receiver.power_fails_in_batch = None,
        }
    }

    fn disk(&mut self, host: HostId) -> Option<&mut Disk> {
        self.storage_point(host).map(|sp| &mut sp.disk)
    }

    fn break_disk(&mut self, number: usize) {
        let Entry { fault, host, .. } = &self.faults.entries[number];
        let (host, delay, count) = (*host, fault.delay, fault.count.unwrap_or(1));
        let kind = fault.kind;
        if let Role::Receiver(receiver) = &mut self.roles[host.0 as usize] {
            match kind {
                FaultKind::DiskSlow => {
                    receiver.directory_mut().faults.slower_by_ns = nanos(delay.map_or(SLOW_FLUSH, |Span(delay)| delay));
                    self.note_fault(number);
                }
                FaultKind::DiskTorn => {
                    receiver.power_fails_in_batch = Some(number);
                    self.again(number, None, TEAR_WITHIN);
                }
                FaultKind::DiskFull => {
                    receiver.directory_mut().faults.is_full = true;
                    self.note_fault(number);
                }
                FaultKind::DiskFail => {
                    receiver.directory_mut().faults.fails = true;
                    self.note_fault(number);
                }
                _ => {}
            }
            return;
        }
        let Some(sp) = self.storage_point(host) else { return };
        match kind {
            FaultKind::DiskFull => sp.disk.storage.set_capacity(Some(0)),
            FaultKind::DiskSlow => sp.disk.slower_by_ns = nanos(delay.map_or(SLOW_FLUSH, |Span(delay)| delay)),
            FaultKind::DiskFail => {
                // Noted when it bites.
                sp.disk_fails = true;
                return;
            }
            FaultKind::DiskTorn => {
                sp.power_fails_in_flush = Some(number);
                return self.again(number, None, TEAR_WITHIN);
            }
            FaultKind::DiskLost => {
                self.kill(host, Kill::Process);
                self.hold_down(number);
            }
            FaultKind::DiskRot => {
                if !self.rot(host, count) {
                    return;
                }
            }
            _ => return,
        }
        self.note_fault(number);
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
        let mut any = false;
        for (hash, size) in hashes.into_iter().take(count as usize) {
            if let Ok(bytes) = contents.read(&hash, 0, size) {
                any |= sp.disk.rot(&hash, &bytes);
            }
        }
        any
    }

    /// The store is gone; a new one takes its place.
    fn replace_store(&mut self, host: HostId) {
        let mut random = self.random_of_fault(host);
        let Some(sp) = self.storage_point(host) else { return };
        let store = StoreId { number: sp.store.number + 1, nonce: random.bits() };
        if let Err(error) = sp.replace_store(store) {
            self.shared.ended.push((host, Ending::Unexpected(error.to_string())));
        }
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

    pub(super) fn note_undone(&mut self, number: usize) {
        self.note(number, Kind::FaultUndone);
    }

    fn note(&mut self, number: usize, kind: Kind) {
        let Entry { fault, host, .. } = &self.faults.entries[number];
        let name = self.shared.host(*host).name.to_string();
        let about = Template { cause: Some(&name), outcome: Some(fault.kind.name()), ..Template::default() };
        self.shared.record.testbed(self.shared.now_ns, kind, about);
    }
}
