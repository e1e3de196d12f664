//! Who took part, what it cost, and what went wrong on purpose.

use super::{
    FaultRecord, HostCounts, MachineUsage, Resources, RoleUsage,
    growth::{Growth, figures},
};
use crate::{
    facts::{Facts, ProcessId, Role},
    trace::{Event, Kind},
};
use std::collections::BTreeMap;

/// The last reading of each figure in the present life of each process, and the sums over lives that ended.
#[derive(Debug, Default)]
pub(super) struct Usages {
    lives: BTreeMap<ProcessId, (u32, BTreeMap<String, u64>)>,
    sums: [RoleUsage; 3],
    machine: Growth,
    in_updates: bool,
}

impl Usages {
    pub(super) fn observe(&mut self, process: ProcessId, event: &Event, facts: &Facts) {
        if self.lives.get(&process).is_some_and(|(incarnation, _)| *incarnation != event.incarnation) {
            self.end(process, facts);
        }
        let (_, readings) = self.lives.entry(process).or_insert_with(|| (event.incarnation, BTreeMap::new()));
        for (name, value) in figures(event.cause.as_deref().unwrap_or_default()) {
            readings.insert(name.to_owned(), value);
        }
    }

    /// The machine as a whole, told at the beginning of each phase.
    pub(super) fn observe_machine(&mut self, event: &Event) {
        let cause = event.cause.as_deref().unwrap_or_default();
        match event.kind {
            Kind::Phase => self.in_updates |= cause == "updates",
            Kind::Machine => self.machine.take(cause, self.in_updates),
            _ => {}
        }
    }

    fn machine(&self) -> Option<MachineUsage> {
        let [busy, idle, stolen] = ["busy", "idle", "stolen"].map(|name| self.machine.of(name));
        let all = Some(busy + idle + stolen).filter(|all| *all > 0)?;
        let pct = |part: u64| (part as f64 * 1000.0 / all as f64).round() / 10.0;
        Some(MachineUsage { processors: self.machine.last("processors"), busy_pct: pct(busy), stolen_pct: pct(stolen) })
    }

    fn end(&mut self, process: ProcessId, facts: &Facts) {
        let Some((_, readings)) = self.lives.remove(&process) else { return };
        let usage = match facts.process(process).role {
            Role::StoragePoint(_) => &mut self.sums[0],
            Role::Cache => &mut self.sums[1],
            Role::Receiver => &mut self.sums[2],
            Role::Other => return,
        };
        for (name, value) in readings {
            match name.as_str() {
                "cpu_us" => *usage.cpu_s.get_or_insert(0.0) += value as f64 / 1e6,
                "rss_kib_max" => {
                    let mib = value as f64 / 1024.0;
                    usage.rss_mib_max = Some(usage.rss_mib_max.map_or(mib, |max| max.max(mib)));
                }
                "bytes_out" => *usage.bytes_out.get_or_insert(0) += value,
                _ => {}
            }
        }
    }

    pub(super) fn finish(mut self, facts: &Facts) -> Resources {
        let processes: Vec<ProcessId> = self.lives.keys().copied().collect();
        processes.into_iter().for_each(|process| self.end(process, facts));
        for usage in &mut self.sums {
            for figure in [&mut usage.cpu_s, &mut usage.rss_mib_max].into_iter().flatten() {
                *figure = (*figure * 100.0).round() / 100.0;
            }
        }
        let machine = self.machine();
        let [storage_point, cache, receiver] = self.sums;
        Resources { storage_point, cache, receiver, machine }
    }
}

pub(super) fn hosts(facts: &Facts) -> HostCounts {
    let mut hosts = HostCounts::default();
    for (_, process) in facts.processes().filter(|(_, process)| process.is_started) {
        match process.role {
            Role::StoragePoint(_) => hosts.storage_points += 1,
            Role::Cache => hosts.caches += 1,
            Role::Receiver => hosts.receivers += 1,
            Role::Other => {}
        }
    }
    hosts
}

/// Faults in the order in which they began.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<(u64, FaultRecord)>);

impl Faults {
    pub(super) fn observe(&mut self, event: &Event) {
        let (Some(kind), Some(target)) = (event.outcome.as_deref(), event.cause.as_deref()) else { return };
        if event.kind == Kind::Fault {
            let (kind, target) = (kind.to_owned(), target.to_owned());
            let record = FaultRecord { kind, target, at_s: 0.0, lasted_s: None, undone: false };
            self.0.push((event.time_ns, record));
            return;
        }
        let is_open =
            |fault: &&mut (u64, FaultRecord)| !fault.1.undone && fault.1.kind == kind && fault.1.target == target;
        // Few are open at a time, and those began last.
        if let Some((from_ns, fault)) = self.0.iter_mut().rev().find(is_open) {
            fault.undone = true;
            fault.lasted_s = Some(((event.time_ns - *from_ns) as f64 / 1e6).round() / 1e3);
        }
    }

    /// With times counted from `begin_ns`.
    pub(super) fn finish(self, begin_ns: u64) -> Vec<FaultRecord> {
        let at_s = |ns: u64| ((ns as f64 - begin_ns as f64) / 1e9 * 1000.0).round() / 1000.0;
        self.0.into_iter().map(|(ns, fault)| FaultRecord { at_s: at_s(ns), ..fault }).collect()
    }
}
