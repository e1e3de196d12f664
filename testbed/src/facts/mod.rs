//! What is known of a run at each moment, gathered event by event: what checks and metrics judge the next event by.
//!
//! Each event is seen here first; what it changed comes with it as [`Seen`]. Memory grows with processes, paths and
//! receivers' holdings, with the keys of the last 24 h, and by about 130 bytes for every publication: any publication
//! ever agreed may be delivered, so none can be forgotten. It does not grow with the number of events.

mod holdings;
mod key;
mod names;
mod process;
mod questions;
mod settings;
mod stores;

pub(crate) use holdings::{Held, Pages};
pub(crate) use key::Key;
pub(crate) use process::{Process, Role};
pub(crate) use questions::names;
pub(crate) use settings::Clocks;

use crate::trace::{Event, Kind, Text};
use acms_engine::protocol::{Hash, SpId, SpSet, Uid};
use names::Names;
use process::Group;
use settings::Settings;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    num::NonZeroU32,
};
use stores::Stores;

pub(crate) type ProcessId = u32;
pub(crate) type PathId = u32;
pub(crate) type KeyId = u32;

/// A publication's entry for one path: path and UID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct VersionId(NonZeroU32);

/// Who said something first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    pub(crate) time_ns: u64,
    process: ProcessId,
    incarnation: u32,
    pub(crate) kind: Kind,
}

/// What is known of a version.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) path: PathId,
    pub(crate) uid: Uid,
    /// Of its content; known once it is agreed.
    pub(crate) hash: Option<Hash>,
    /// Whether it deletes its path.
    pub(crate) is_deletion: bool,
    /// Who first said that it is agreed.
    pub(crate) agreed: Option<Said>,
    /// When someone was first told that it is accepted.
    pub(crate) accepted_ns: Option<u64>,
    /// Under which key.
    pub(crate) key: Option<KeyId>,
    /// When its submission began, if its key is known.
    invoked_ns: Option<u64>,
}

impl Version {
    /// Whether an event about it names other content; or deletes, where this does not, for a deletion has the hash of no
    /// content at all.
    pub(crate) fn differs(&self, hash: Option<Hash>, is_deletion: bool) -> bool {
        self.hash.is_some() && hash.is_some() && (self.hash != hash || self.is_deletion != is_deletion)
    }

    /// A time before which nobody can have known it: its submission, or else a minute before it was first known.
    pub(crate) fn born_ns(&self) -> u64 {
        const MINUTE_NS: u64 = 60_000_000_000;
        let known_ns = self.agreed.map_or(u64::MAX, |said| said.time_ns).min(self.accepted_ns.unwrap_or(u64::MAX));
        self.invoked_ns.unwrap_or(known_ns.saturating_sub(MINUTE_NS))
    }
}

/// What is known of a path.
#[derive(Debug, Default)]
pub(crate) struct PathFacts {
    /// The agreed version with the greatest UID.
    pub(crate) latest: Option<VersionId>,
    /// The agreed version with the greatest UID that is no deletion.
    latest_live: Option<VersionId>,
    /// The accepted version with the greatest UID.
    pub(crate) accepted: Option<VersionId>,
    /// The version that was looked up last: most events are about the same few.
    recent: Option<VersionId>,
}

/// An event, and what it changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'e> {
    pub(crate) event: &'e Event,
    pub(crate) process: ProcessId,
    pub(crate) path: Option<PathId>,
    /// The version that it is about.
    pub(crate) version: Option<VersionId>,
    pub(crate) key: Option<KeyId>,
    /// What the process held of the path before.
    pub(crate) before: Held,
    /// It is the first to say that the version is agreed.
    pub(crate) is_first_agreed: bool,
    /// It is the first to say that the version is accepted.
    pub(crate) is_first_accepted: bool,
    /// It is the first to say which key an agreed version has.
    pub(crate) is_first_keyed: bool,
    /// Who stops running by it, by death or by a pause.
    pub(crate) went_down: Option<ProcessId>,
}

/// What is known at this moment.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) settings: Settings,
    pub(crate) clocks: Clocks,
    process_names: Names,
    processes: Vec<Process>,
    path_names: Names,
    paths: Vec<PathFacts>,
    versions: Vec<Version>,
    /// By UID first: a UID names one publication, on whatever paths.
    version_ids: BTreeMap<(Uid, PathId), VersionId>,
    /// Storage points in the order in which they were first heard of.
    sps: Vec<ProcessId>,
    groups: Vec<Group>,
    group_ids: BTreeMap<String, u32>,
    key_ids: BTreeMap<Text, KeyId>,
    keys: Vec<Option<Key>>,
    free_keys: Vec<KeyId>,
    /// Keys by when they may be forgotten.
    key_ends: VecDeque<(u64, KeyId)>,
    /// Keys that were forgotten by the last event.
    pub(crate) forgotten: Vec<Key>,
    /// Of all versions that were accepted, the one with the greatest UID.
    pub(crate) greatest_accepted: Option<VersionId>,
    /// Phases by number; the first is the time before any.
    pub(crate) phases: Vec<Text>,
    /// When the audit at the end began.
    pub(crate) audit_ns: Option<u64>,
    /// Faults that were injected and not yet undone, with their targets: how many of each.
    faults: BTreeMap<(Text, Text), u32>,
    /// How many these are.
    pub(crate) faults_open: u64,
    /// When a fault was last injected or undone.
    pub(crate) faults_end_ns: u64,
    /// SPs whose disk is lost and not yet replaced.
    lost: SpSet,
    /// SPs whose disks were lost at the same time and left no quorum.
    pub(crate) lost_too_many: Option<SpSet>,
    /// Storage points that were ever started.
    started: SpSet,
    /// Which stores hold what is not yet known to be agreed.
    pub(crate) stores: Stores,
    /// What the last event was the first to say to be agreed: its stores need not be remembered.
    proven: Option<Uid>,
    /// Contents that faults have damaged, by where that was.
    rotted: BTreeSet<(ProcessId, Hash)>,
    pub(crate) now_ns: u64,
}

impl Facts {
    pub(crate) fn new() -> Facts {
        Facts { phases: vec!["".into()], ..Facts::default() }
    }

    /// Takes the next event.
    pub(crate) fn see<'e>(&mut self, event: &'e Event) -> Seen<'e> {
        self.now_ns = event.time_ns;
        self.forget_keys();
        if let Some(uid) = self.proven.take() {
            self.stores.forget(uid);
        }
        let process = self.process_id(&event.process);
        let path = event.path.as_ref().filter(|_| event.kind != Kind::Subscribe).map(|path| self.path_id(path));
        let mut seen = Seen {
            event,
            process,
            path,
            version: None,
            key: None,
            before: Held::default(),
            is_first_agreed: false,
            is_first_accepted: false,
            is_first_keyed: false,
            went_down: None,
        };
        self.see_key(&mut seen);
        self.see_version(&mut seen);
        let stores = match event.kind {
            Kind::Ready => self.processes[process as usize].sp(),
            Kind::Stored => storing(&event.process),
            _ => None,
        };
        if let Some(sp) = stores
            && !event.uid.is_some_and(|uid| self.is_agreed(uid))
        {
            self.stores.see(sp, event);
        }
        self.proven = event.uid.filter(|_| seen.is_first_agreed);
        match event.kind {
            Kind::Recovered if path.is_none() => self.see_recovery(process),
            Kind::Verified
            | Kind::Applied
            | Kind::Agreed
            | Kind::Merged
            | Kind::Recovered
            | Kind::AuditSp
            | Kind::AuditState => self.see_held(&mut seen),
            Kind::Rotted => drop(event.hash.map(|hash| self.rotted.insert((process, hash)))),
            Kind::Start | Kind::Exit => self.see_life(&mut seen),
            Kind::Fault | Kind::FaultUndone => self.see_fault(&mut seen),
            Kind::Subscribe => self.see_subscription(process, event),
            Kind::AuditEnd => {
                let process = &mut self.processes[process as usize];
                process.is_audited |= event.outcome.as_deref() == Some("complete");
                process.root = event.hash;
            }
            Kind::Phase => {
                let name = event.cause.clone().unwrap_or_else(|| "".into());
                if &*name == "audit" {
                    self.audit_ns.get_or_insert(event.time_ns);
                }
                self.phases.push(name);
            }
            Kind::Config => {
                let (name, value) = (event.outcome.as_deref(), event.cause.as_deref());
                self.settings.take(name.unwrap_or_default(), value.unwrap_or_default());
            }
            Kind::Wall => self.clocks.take_wall(event),
            Kind::Clock => {
                if let Some(sp) = self.processes[process as usize].sp() {
                    self.clocks.take_clock(sp, event);
                }
            }
            Kind::AsOf | Kind::Current => self.clocks.look(event.time_ns),
            _ => {}
        }
        seen
    }

    /// The end of the trace: an SP may have been killed between knowing and saying so, but what the final indices of a
    /// quorum hold is agreed, too.
    pub(crate) fn finish(&mut self) {
        let Some(quorum) = self.quorum() else { return };
        for path in 0..self.path_names.len() {
            let mut holders: BTreeMap<VersionId, (SpSet, ProcessId)> = BTreeMap::new();
            for id in &self.sps {
                let process = &self.processes[*id as usize];
                if let (Some(sp), Some(version)) = (process.sp(), process.finals.at(path)) {
                    let (set, _) = holders.entry(version).or_insert((SpSet::EMPTY, *id));
                    *set = set.union(SpSet::one(sp));
                }
            }
            for (id, (set, process)) in holders {
                let version = self.version(id);
                if version.agreed.is_none() && quorum.is_quorum(set) {
                    let (time_ns, kind) = (self.now_ns, Kind::AuditSp);
                    self.version_mut(id).agreed = Some(Said { time_ns, process, incarnation: 0, kind });
                    self.raise_latest(id);
                }
            }
        }
    }

    fn process_id(&mut self, name: &Text) -> ProcessId {
        let (id, is_new) = self.process_names.number(name);
        if is_new {
            self.processes.push(Process::new(name));
            if self.processes[id as usize].sp().is_some() {
                self.sps.push(id);
            }
        }
        id
    }

    fn path_id(&mut self, name: &Text) -> PathId {
        let (id, is_new) = self.path_names.number(name);
        if is_new {
            self.paths.push(PathFacts::default());
            for group in &mut self.groups {
                group.wants.push(group.covers(name));
            }
        }
        id
    }

    fn version_id(&mut self, path: PathId, uid: Uid) -> VersionId {
        if let Some(recent) = self.paths[path as usize].recent
            && self.version(recent).uid == uid
        {
            return recent;
        }
        let id = *self.version_ids.entry((uid, path)).or_insert_with(|| {
            let (hash, agreed, accepted_ns, key, invoked_ns) = (None, None, None, None, None);
            self.versions.push(Version { path, uid, hash, is_deletion: false, agreed, accepted_ns, key, invoked_ns });
            let number = u32::try_from(self.versions.len()).ok().and_then(NonZeroU32::new);
            VersionId(number.expect("fewer than 2^32 versions"))
        });
        self.paths[path as usize].recent = Some(id);
        id
    }

    /// Whether a publication is known to be agreed.
    pub(crate) fn is_agreed(&self, uid: Uid) -> bool {
        let mut all = self.version_ids.range((uid, PathId::MIN)..=(uid, PathId::MAX));
        all.any(|(_, id)| self.version(*id).agreed.is_some())
    }

    fn version_mut(&mut self, id: VersionId) -> &mut Version {
        &mut self.versions[id.0.get() as usize - 1]
    }

    /// Keeps in `place` the version with the greater UID.
    fn greater(&self, place: Option<VersionId>, version: VersionId) -> Option<VersionId> {
        if self.uid(place) < self.uid(Some(version)) { Some(version) } else { place }
    }

    fn raise_latest(&mut self, id: VersionId) {
        let path = self.version(id).path as usize;
        self.paths[path].latest = self.greater(self.paths[path].latest, id);
        if !self.version(id).is_deletion {
            self.paths[path].latest_live = self.greater(self.paths[path].latest_live, id);
        }
    }

    fn see_key(&mut self, seen: &mut Seen<'_>) {
        let event = seen.event;
        let Some(text) = &event.publication else { return };
        if !matches!(
            event.kind,
            Kind::Scheduled
                | Kind::Invoke
                | Kind::Outcome
                | Kind::Accepted
                | Kind::Rejected
                | Kind::Undetermined
                | Kind::Agreed
        ) {
            return;
        }
        let id = self.key_ids.get(text).copied().unwrap_or_else(|| self.new_key(text, event.time_ns));
        let (phase, after) = (self.phases.len() as u32 - 1, self.greatest_accepted);
        let is_fast = self.settings.is_fast;
        let key = self.keys[id as usize].as_mut().expect("a known key is kept");
        if event.kind == Kind::Invoke && key.first.is_none() {
            (key.path, key.phase, key.after) = (seen.path, phase, after);
        }
        key.take(event, is_fast);
        seen.key = Some(id);
        if event.kind == Kind::Outcome {
            seen.path = seen.path.or(key.path);
        }
    }

    fn new_key(&mut self, text: &Text, now_ns: u64) -> KeyId {
        let id = self.free_keys.pop().unwrap_or_else(|| {
            self.keys.push(None);
            self.keys.len() as KeyId - 1
        });
        self.keys[id as usize] = Some(Key::new(text));
        self.key_ids.insert(Text::clone(text), id);
        self.key_ends.push_back((now_ns + Key::KEPT_NS, id));
        id
    }

    fn forget_keys(&mut self) {
        self.forgotten.clear();
        while let Some((end_ns, id)) = self.key_ends.front().copied().filter(|(end_ns, _)| *end_ns < self.now_ns) {
            self.key_ends.pop_front();
            let Some(key) = &self.keys[id as usize] else { continue };
            let later_ns = key.last_ns + Key::KEPT_NS;
            if later_ns > end_ns && later_ns >= self.now_ns {
                self.key_ends.push_back((later_ns, id));
                continue;
            }
            let key = self.keys[id as usize].take().expect("it was there");
            self.key_ids.remove(&key.text);
            for version in &key.named {
                self.version_mut(*version).key = None;
            }
            self.free_keys.push(id);
            self.forgotten.push(key);
        }
    }

    fn see_version(&mut self, seen: &mut Seen<'_>) {
        let event = seen.event;
        let (Some(path), Some(uid)) = (seen.path, event.uid) else { return };
        let is_accepted = event.outcome.as_deref() == Some("accepted");
        match event.kind {
            // There the UID is another publication's.
            Kind::Invoke => return,
            Kind::Agreed | Kind::Merged | Kind::Recovered => {}
            Kind::Outcome | Kind::Accepted | Kind::Rejected => {}
            Kind::Verified | Kind::Applied | Kind::Exposed => {}
            Kind::AuditSp | Kind::AuditState | Kind::Unread => {}
            _ => return,
        }
        let id = self.version_id(path, uid);
        seen.version = Some(id);
        match event.kind {
            Kind::Agreed | Kind::Merged => self.see_agreed(seen, id),
            // What is in a storage point's index is agreed, whether or not it lived to say so.
            Kind::Recovered if self.processes[seen.process as usize].sp().is_some() => self.see_agreed(seen, id),
            Kind::Outcome | Kind::Accepted if is_accepted => {
                if self.version(id).accepted_ns.is_none() {
                    self.version_mut(id).accepted_ns = Some(event.time_ns);
                    seen.is_first_accepted = true;
                    self.greatest_accepted = self.greater(self.greatest_accepted, id);
                    self.paths[path as usize].accepted = self.greater(self.paths[path as usize].accepted, id);
                }
                if let Some(key) = seen.key {
                    self.name(id, key);
                }
            }
            Kind::AuditSp if self.version(id).agreed.is_none() => {
                let version = self.version_mut(id);
                (version.hash, version.is_deletion) = (event.hash, event.is_deletion());
            }
            _ => {}
        }
    }

    /// A version is of this key, unless it is known to be of another.
    fn name(&mut self, id: VersionId, key_id: KeyId) {
        if self.version(id).key.is_none() {
            let key = self.keys[key_id as usize].as_mut().expect("a known key is kept");
            key.named.push(id);
            let invoked_ns = key.first_ns();
            let version = self.version_mut(id);
            (version.key, version.invoked_ns) = (Some(key_id), version.invoked_ns.or(invoked_ns));
        }
    }

    fn see_agreed(&mut self, seen: &mut Seen<'_>, id: VersionId) {
        let event = seen.event;
        if self.version(id).agreed.is_none() {
            let said = Said {
                time_ns: event.time_ns,
                process: seen.process,
                incarnation: event.incarnation,
                kind: event.kind,
            };
            let version = self.version_mut(id);
            (version.agreed, version.hash, version.is_deletion) = (Some(said), event.hash, event.is_deletion());
            seen.is_first_agreed = true;
            self.raise_latest(id);
        }
        if let Some(key) = seen.key.and_then(|key| self.keys[key as usize].as_mut()) {
            key.agreed_by.insert((seen.process, event.incarnation));
        }
        let known = |key: &KeyId| self.key(*key).is_some_and(|key| key.versions.contains(&id));
        let Some(key_id) = seen.key.filter(|key| !known(key)) else { return };
        seen.is_first_keyed = true;
        let known = self.key(key_id).map_or(&[][..], |key| &key.versions);
        // Else it is another entry of a publication with several.
        let is_new = known.iter().all(|known| Some(self.version(*known).uid) != event.uid);
        let key = self.keys[key_id as usize].as_mut().expect("a known key is kept");
        if key.versions.is_empty() {
            key.invokes_when_agreed = key.invokes;
        }
        key.versions.push(id);
        key.publications += u32::from(is_new);
        if let (true, Some(uid)) = (is_new, event.uid) {
            key.at(uid.sp).publications += 1;
        }
        self.name(id, key_id);
    }

    fn see_held(&mut self, seen: &mut Seen<'_>) {
        let (Some(path), Some(version), process) = (seen.path, seen.version, seen.process as usize) else { return };
        if matches!(seen.event.kind, Kind::AuditSp | Kind::AuditState) {
            seen.before = self.processes[process].held.at(path);
            *self.processes[process].finals.at_mut(path) = Some(version);
            return;
        }
        let mut held = self.processes[process].held.at(path);
        seen.before = held;
        if seen.event.kind == Kind::Verified {
            if self.uid(held.verified) < self.uid(Some(version)) {
                (held.verified, held.verified_ns) = (Some(version), seen.event.time_ns);
            }
        } else {
            held.kept = self.greater(held.kept, version);
        }
        *self.processes[process].held.at_mut(path) = held;
    }

    /// A process says what it has from its former life. What a storage point said that it knew need not be durable, so
    /// what it says now counts; what a receiver applied is.
    fn see_recovery(&mut self, process: ProcessId) {
        let process = &mut self.processes[process as usize];
        process.has_said_recovered = true;
        if process.sp().is_some() {
            process.held = Pages::default();
        }
    }

    fn see_life(&mut self, seen: &mut Seen<'_>) {
        let (process, event) = (&mut self.processes[seen.process as usize], seen.event);
        if event.kind == Kind::Start {
            (process.is_started, process.is_up) = (true, true);
            (process.up_since_ns, process.life_ns) = (event.time_ns, event.time_ns);
            process.has_said_recovered = process.lives == 0;
            process.lives += 1;
            if let Some(sp) = process.sp() {
                self.started = self.started.union(SpSet::one(sp));
            }
        } else if self.audit_ns.is_none() && process.is_up {
            // All are stopped after the audit; that is no death.
            process.is_up = false;
            seen.went_down = Some(seen.process);
        }
    }

    fn see_fault(&mut self, seen: &mut Seen<'_>) {
        let event = seen.event;
        let begins = event.kind == Kind::Fault;
        self.faults_end_ns = event.time_ns;
        self.count_fault(event, begins);
        let (kind, target) = (event.outcome.as_deref().unwrap_or_default(), event.cause.as_ref());
        let Some(target) = target.and_then(|target| self.process_names.find(target)) else { return };
        let process = &mut self.processes[target as usize];
        match kind {
            "pause" if begins && process.is_up => {
                process.is_up = false;
                seen.went_down = Some(target);
            }
            "pause" if !begins && !process.is_up => {
                process.is_up = true;
                process.up_since_ns = event.time_ns;
            }
            "disk-lost" | "store-replaced" => {
                if begins {
                    process.held = Pages::default();
                }
                if let Some(sp) = process.sp() {
                    let one = SpSet::one(sp);
                    self.lost = if begins { self.lost.union(one) } else { self.lost.minus(one) };
                    self.see_lost();
                }
            }
            _ => {}
        }
    }

    /// A fault that ended without having begun leaves none open.
    fn count_fault(&mut self, event: &Event, begins: bool) {
        let empty = || Text::from("");
        let name = (event.outcome.clone().unwrap_or_else(empty), event.cause.clone().unwrap_or_else(empty));
        if begins {
            *self.faults.entry(name).or_default() += 1;
            self.faults_open += 1;
        } else if let Some(count) = self.faults.get_mut(&name) {
            *count -= 1;
            self.faults_open -= 1;
            if *count == 0 {
                self.faults.remove(&name);
            }
        }
    }

    fn see_lost(&mut self) {
        if let Some(quorum) = self.quorum()
            && !quorum.is_quorum(SpSet(u64::MAX).minus(self.lost))
        {
            self.lost_too_many.get_or_insert(self.lost);
        }
    }

    fn see_subscription(&mut self, id: ProcessId, event: &Event) {
        let Some(prefix) = event.path.as_deref().and_then(|path| path.parse().ok()) else { return };
        let process = &mut self.processes[id as usize];
        let mut prefixes = process.group.map_or(Vec::new(), |group| self.groups[group as usize].prefixes.clone());
        if prefixes.contains(&prefix) {
            return;
        }
        prefixes.push(prefix);
        // Prefixes have no line breaks.
        let name = prefixes.iter().map(|prefix| prefix.as_str()).collect::<Vec<_>>().join("\n");
        let group = self.group_ids.entry(name).or_insert_with(|| {
            let mut group = Group { prefixes, wants: Vec::new(), members: Vec::new() };
            group.wants = (0..self.path_names.len()).map(|path| group.covers(self.path_names.text(path))).collect();
            self.groups.push(group);
            self.groups.len() as u32 - 1
        });
        process.group = Some(*group);
        self.groups[*group as usize].members.push(id);
    }
}

/// Whose store this process writes: a storage point's own, or, of one that another process has taken the place of, the
/// store it had. That one counts until the new one is filled.
fn storing(name: &str) -> Option<SpId> {
    let number = name.strip_prefix("displaced-").unwrap_or(name).strip_prefix("sp")?;
    number.parse().ok().map(SpId)
}
