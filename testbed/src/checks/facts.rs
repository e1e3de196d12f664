//! What the checks know in common, gathered in one pass over the trace.

use crate::trace::{Event, Kind, Trace};
use acms_engine::protocol::{Hash, Uid};
use std::collections::{BTreeMap, BTreeSet};

/// A path and a publication of it.
pub(super) type Version<'t> = (&'t str, Uid);

/// Facts of one trace.
pub(super) struct Facts<'t> {
    pub(super) trace: &'t Trace,
    /// Every publication that some SP knew agreed (or that a quorum's final indices hold): the first event that says so.
    pub(super) agreed: BTreeMap<Version<'t>, &'t Event>,
    /// Events that give an agreed publication another hash than the first did.
    pub(super) contradictions: Vec<(&'t Event, &'t Event)>,
    /// The agreed publication with the greatest UID of each path.
    pub(super) latest: BTreeMap<&'t str, &'t Event>,
    /// Storage points that were ever started.
    pub(super) storage_points: BTreeSet<&'t str>,
    /// Processes whose audit is complete.
    pub(super) audited: BTreeSet<&'t str>,
    /// Final index of each audited SP: path to audit event.
    pub(super) indices: BTreeMap<&'t str, BTreeMap<&'t str, &'t Event>>,
    /// Receivers that lived when the audit began.
    pub(super) live_receivers: BTreeSet<&'t str>,
    /// When the last fault was undone; 0 without faults.
    pub(super) faults_end_ns: u64,
}

/// Path and UID of an event that has both.
pub(super) fn version(event: &Event) -> Option<Version<'_>> {
    Some((event.path.as_deref()?, event.uid?))
}

/// Whether a process is a storage point.
pub(super) fn is_storage_point(process: &str) -> bool {
    process.strip_prefix("sp").is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether a process is a receiver.
pub(super) fn is_receiver(process: &str) -> bool {
    process.starts_with("receiver")
}

impl<'t> Facts<'t> {
    pub(super) fn of(trace: &'t Trace) -> Facts<'t> {
        let mut facts = Facts {
            trace,
            agreed: BTreeMap::new(),
            contradictions: Vec::new(),
            latest: BTreeMap::new(),
            storage_points: BTreeSet::new(),
            audited: BTreeSet::new(),
            indices: BTreeMap::new(),
            live_receivers: BTreeSet::new(),
            faults_end_ns: 0,
        };
        let mut auditing = false;
        for event in trace.events() {
            let process = &*event.process;
            match event.kind {
                Kind::Agreed | Kind::Merged => facts.add_agreed(event),
                Kind::Start if is_storage_point(process) => drop(facts.storage_points.insert(process)),
                Kind::Start if is_receiver(process) && !auditing => drop(facts.live_receivers.insert(process)),
                Kind::Exit if !auditing => drop(facts.live_receivers.remove(process)),
                Kind::Phase => auditing |= event.cause.as_deref() == Some("audit"),
                Kind::AuditSp => facts.add_audited(event),
                Kind::AuditEnd => facts.add_audit_end(event),
                Kind::FaultUndone => facts.faults_end_ns = event.time_ns,
                _ => {}
            }
        }
        facts.add_held_by_quorum();
        facts.find_latest();
        facts
    }

    /// How many SPs are a quorum.
    pub(super) fn quorum(&self) -> usize {
        self.storage_points.len() / 2 + 1
    }

    /// The hash of an agreed publication.
    pub(super) fn agreed_hash(&self, version: Version<'t>) -> Option<Hash> {
        self.agreed.get(&version).and_then(|event| event.hash)
    }

    /// The audited SPs.
    pub(super) fn audited_sps(&self) -> impl Iterator<Item = (&'t str, Option<&BTreeMap<&'t str, &'t Event>>)> {
        let sps = self.audited.iter().filter(|process| is_storage_point(process));
        sps.map(|sp| (*sp, self.indices.get(sp)))
    }

    fn add_agreed(&mut self, event: &'t Event) {
        let Some(version) = version(event) else { return };
        let first = *self.agreed.entry(version).or_insert(event);
        if first.hash != event.hash {
            self.contradictions.push((first, event));
        }
    }

    fn add_audited(&mut self, event: &'t Event) {
        if let Some(path) = event.path.as_deref() {
            self.indices.entry(&event.process).or_default().insert(path, event);
        }
    }

    fn add_audit_end(&mut self, event: &'t Event) {
        if event.outcome.as_deref() == Some("complete") {
            self.audited.insert(&event.process);
        }
    }

    /// An SP may have been killed between knowing and saying so: what a quorum's indices hold is agreed, too.
    fn add_held_by_quorum(&mut self) {
        let mut holders: BTreeMap<Version<'t>, Vec<&'t Event>> = BTreeMap::new();
        for event in self.indices.values().flat_map(BTreeMap::values) {
            if let Some(version) = version(event) {
                holders.entry(version).or_default().push(event);
            }
        }
        let quorum = self.quorum();
        for event in holders.into_values().filter(|holders| holders.len() >= quorum).flatten() {
            self.add_agreed(event);
        }
    }

    fn find_latest(&mut self) {
        for ((path, _), event) in &self.agreed {
            // In the order of the map, later ones of a path have greater UIDs.
            self.latest.insert(path, event);
        }
    }
}
