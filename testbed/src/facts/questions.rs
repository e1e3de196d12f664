//! What checks and metrics ask of the facts, and how facts are named in violations.

use super::{Facts, Held, Key, KeyId, PathFacts, PathId, Process, ProcessId, Said, Version, VersionId};
use crate::trace::{Kind, Text};
use acms_engine::protocol::{Hash, SpSet, Uid, quorum::Quorum};

impl Facts {
    pub(crate) fn version(&self, id: VersionId) -> &Version {
        &self.versions[id.0.get() as usize - 1]
    }

    /// The UID of a version; `None`, which is below every UID, of none.
    pub(crate) fn uid(&self, id: Option<VersionId>) -> Option<Uid> {
        id.map(|id| self.version(id).uid)
    }

    pub(crate) fn process(&self, id: ProcessId) -> &Process {
        &self.processes[id as usize]
    }

    /// All processes, in the order in which they were first heard of.
    pub(crate) fn processes(&self) -> impl Iterator<Item = (ProcessId, &Process)> {
        (0..).zip(&self.processes)
    }

    pub(crate) fn path(&self, id: PathId) -> &PathFacts {
        &self.paths[id as usize]
    }

    pub(crate) fn path_name(&self, id: PathId) -> &Text {
        self.path_names.text(id)
    }

    /// Paths in the order of their names.
    pub(crate) fn paths_by_name(&self) -> Vec<PathId> {
        let mut paths: Vec<PathId> = (0..self.path_names.len()).collect();
        paths.sort_by(|a, b| self.path_name(*a).cmp(self.path_name(*b)));
        paths
    }

    pub(crate) fn key(&self, id: KeyId) -> Option<&Key> {
        self.keys[id as usize].as_ref()
    }

    pub(crate) fn key_called(&self, text: &str) -> Option<&Key> {
        self.key_ids.get(text).and_then(|id| self.key(*id))
    }

    /// All keys that are kept.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter().flatten()
    }

    pub(crate) fn held(&self, process: ProcessId, path: PathId) -> Held {
        self.process(process).held.at(path)
    }

    /// What the audit at the end found of a path.
    pub(crate) fn found(&self, process: ProcessId, path: PathId) -> Option<VersionId> {
        self.process(process).finals.at(path)
    }

    /// Whether a receiver has subscribed to a path.
    pub(crate) fn wants(&self, process: ProcessId, path: PathId) -> bool {
        self.process(process).group.is_some_and(|group| self.groups[group as usize].wants[path as usize])
    }

    /// Whether another live path, above or below this one, has the greater UID and so hides it.
    pub(crate) fn is_hidden(&self, path: PathId) -> bool {
        let Some(latest) = self.path(path).latest.map(|latest| self.version(latest)) else { return false };
        let mut others = self.path_names.above_and_below(self.path_name(path)).filter_map(|id| self.path(id).latest);
        others.any(|other| !self.version(other).is_deletion && self.version(other).uid > latest.uid)
    }

    /// Whether, by what a receiver itself holds, a path above or below hides a version. Of paths that it does not want
    /// it says nothing: those hide if they ever did.
    pub(crate) fn is_hidden_from(&self, process: ProcessId, id: VersionId) -> bool {
        let version = self.version(id);
        let hides = |other: &PathId| {
            let held = match self.wants(process, *other) {
                true => self.held(process, *other).kept,
                false => self.path(*other).latest_live,
            };
            held.map(|held| self.version(held)).is_some_and(|held| !held.is_deletion && held.uid > version.uid)
        };
        self.path_names.above_and_below(self.path_name(version.path)).any(|other| hides(&other))
    }

    /// The quorums of the run.
    pub(crate) fn quorum(&self) -> Option<Quorum> {
        self.settings.quorum(self.started)
    }

    /// The latest of a path that everyone can be expected to have at the end: what became known as agreed while
    /// the audit went on came too late.
    pub(crate) fn latest(&self, path: PathId) -> Option<VersionId> {
        let is_late =
            |said: Said| said.kind != Kind::AuditSp && self.audit_ns.is_some_and(|audit_ns| said.time_ns >= audit_ns);
        self.path(path).latest.filter(|latest| !self.version(*latest).agreed.is_some_and(is_late))
    }

    /// All storage points.
    pub(crate) fn sps(&self) -> impl Iterator<Item = (ProcessId, &Process)> {
        self.sps.iter().map(|id| (*id, self.process(*id)))
    }

    /// Whether a receiver has subscribed to anything.
    pub(crate) fn has_subscribed(&self, process: ProcessId) -> bool {
        self.process(process).group.is_some()
    }

    /// All receivers that have subscribed to a path.
    pub(crate) fn subscribers(&self, path: PathId) -> impl Iterator<Item = (ProcessId, &Process)> {
        let wanting = (0..).zip(&self.groups).filter(move |(_, group)| group.wants[path as usize]);
        let members = wanting.flat_map(|(number, group): (u32, _)| group.members.iter().map(move |id| (number, *id)));
        members.map(|(group, id)| (group, id, self.process(id))).filter_map(|(group, id, process)| {
            (process.group == Some(group) && process.is_receiver()).then_some((id, process))
        })
    }

    /// Whether something may be in the way of a path in a receiver's directory: another path, or, on real file systems,
    /// whatever is there.
    pub(crate) fn may_be_blocked(&self, path: PathId) -> bool {
        let name = self.path_name(path).to_lowercase();
        let begins = |one: &str, other: &str| {
            one.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let is_in_the_way = |other: u32| {
            let other = self.path_names.text(other).to_lowercase();
            begins(&name, &other) || begins(&other, &name)
        };
        self.settings.backend.as_deref() != Some("simulated")
            || (0..self.path_names.len()).any(|other| other != path && is_in_the_way(other))
    }

    /// Paths above and below one.
    pub(crate) fn above_and_below(&self, path: PathId) -> impl Iterator<Item = PathId> {
        self.path_names.above_and_below(self.path_name(path))
    }

    /// Faults that are open, with their targets.
    pub(crate) fn open_faults(&self) -> String {
        let names = self.faults.keys().map(|(kind, target)| format!("{kind} {target}"));
        names.collect::<Vec<_>>().join(", ")
    }

    /// Whether a fault has damaged this content there.
    pub(crate) fn is_rotted(&self, process: ProcessId, hash: Option<Hash>) -> bool {
        hash.is_some_and(|hash| self.rotted.contains(&(process, hash)))
    }

    /// Entries of other publications' with the UID of this one: same UID, another path.
    pub(crate) fn same_uid(&self, id: VersionId) -> impl Iterator<Item = VersionId> {
        let uid = self.version(id).uid;
        let all = self.version_ids.range((uid, PathId::MIN)..=(uid, PathId::MAX));
        all.map(|(_, other)| *other).filter(move |other| *other != id)
    }

    /// The version of a path with a UID, if it was ever heard of.
    pub(crate) fn version_named(&self, path: PathId, uid: Uid) -> Option<VersionId> {
        self.version_ids.get(&(uid, path)).copied()
    }

    /// Storage points whose audit is complete.
    pub(crate) fn audited_sps(&self) -> Vec<ProcessId> {
        let sps = self.sps().filter(|(_, process)| process.is_audited);
        let mut sps: Vec<_> = sps.map(|(id, process)| (process.sp(), id)).collect();
        sps.sort_unstable();
        sps.into_iter().map(|(_, id)| id).collect()
    }

    /// The version, and who said first that it is agreed.
    pub(crate) fn show(&self, id: VersionId) -> String {
        let version = self.version(id);
        let about = self.about(version);
        let Some(said) = version.agreed else { return format!("[{about}]") };
        let (at, who) = (seconds(said.time_ns), &self.process(said.process).name);
        let life = if said.incarnation > 0 { format!("#{}", said.incarnation) } else { String::new() };
        format!("[{at} {who}{life} {} {about}]", said.kind)
    }

    /// The version, and when it was accepted.
    pub(crate) fn show_accepted(&self, id: VersionId) -> String {
        let version = self.version(id);
        format!("[{} accepted {}]", version.accepted_ns.map_or(String::new(), seconds), self.about(version))
    }

    fn about(&self, version: &Version) -> String {
        let key = version.key.and_then(|key| self.key(key)).map_or(String::new(), |key| format!("{} ", key.text));
        format!("{key}{} uid {}", self.path_name(version.path), version.uid)
    }
}

/// A time of the trace as events show it.
fn seconds(time_ns: u64) -> String {
    format!("{}.{:09}", time_ns / 1_000_000_000, time_ns % 1_000_000_000)
}

/// Storage points by number.
pub(crate) fn names(sps: SpSet) -> String {
    sps.iter().map(|sp| format!("sp{sp}")).collect::<Vec<_>>().join(", ")
}
