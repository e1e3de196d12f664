//! Receivers wired to the storage points of a cluster in one thread, each with a directory in memory. Everything that is
//! put in place is checked by its hash, every UID must grow, and every as-of that is said is held against all that was
//! accepted.

use crate::support::cluster::{Cluster, Options, Setup};
use acms_engine::protocol::{
    Duration, Hash, Instant, Outcome, Path, Receiver, SpId, Uid,
    api::Cursor,
    receiver::{
        Action, Applied, BatchId, Body, Change, Content, Counters, Event, Failure, Held, Output, Presence, Reached,
        ReceiverConfig, Recovered, Request, RequestKind, StagedId,
    },
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Time passes in steps of this.
const STEP: Duration = Duration::from_millis(50);
const HOLD: Duration = Duration::from_secs(25);

#[derive(Clone, Copy, PartialEq, Eq)]
enum DiskMood {
    Works,
    Hangs,
    IsFull,
}

struct Member {
    config: ReceiverConfig,
    sources: Vec<SpId>,
    receiver: Option<Receiver>,
    disk: DiskMood,
    source: u8,
    waiting: Vec<(Instant, Request)>,
    held: BTreeMap<Path, (Held, Option<Bytes>)>,
    staged: BTreeMap<StagedId, Bytes>,
    reached: Option<Reached>,
    batch: Option<(BatchId, Vec<Change>, Option<Reached>)>,
    as_of_us: u64,
}

/// A cluster with receivers.
pub(crate) struct Fleet {
    pub(crate) cluster: Cluster,
    /// Storage points whose objects come damaged.
    pub(crate) corrupt: BTreeSet<u8>,
    members: Vec<Member>,
    /// Path, UID and the true time by which it was accepted.
    accepted: Vec<(Path, Uid, u64)>,
    published: u64,
}

impl Fleet {
    pub(crate) fn new(storage_points: u8) -> Fleet {
        let cluster = Cluster::new(storage_points, Setup::default());
        Fleet { cluster, corrupt: BTreeSet::new(), members: Vec::new(), accepted: Vec::new(), published: 0 }
    }

    /// Adds a receiver and gives its number.
    pub(crate) fn add(&mut self, sources: &[u8], prefixes: &[&str], poll: Option<Duration>) -> usize {
        let config = ReceiverConfig {
            id: format!("receiver {}", self.members.len()),
            sources: sources.iter().map(|sp| format!("http://sp{sp}")).collect(),
            prefixes: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(),
            poll,
        };
        let receiver = Receiver::new(config.clone(), self.members.len() as u64, Recovered::default()).unwrap();
        self.members.push(Member {
            config,
            sources: sources.iter().map(|sp| SpId(*sp)).collect(),
            receiver: Some(receiver),
            disk: DiskMood::Works,
            source: 0,
            waiting: Vec::new(),
            held: BTreeMap::new(),
            staged: BTreeMap::new(),
            reached: None,
            batch: None,
            as_of_us: 0,
        });
        self.members.len() - 1
    }

    /// Publishes and waits for *accepted*; no content is a deletion.
    pub(crate) fn publish(&mut self, sp: u8, path: &str, content: Option<&str>) {
        self.published += 1;
        let name = format!("publication {}", self.published);
        self.cluster.submit(&name, SpId(sp), path, content.map(str::as_bytes), Options::default());
        for _ in 0..200 {
            if let Some(told) = self.cluster.told.get(&name) {
                let Outcome::Accepted { uid } = told.outcome else { panic!("{path}: {:?}", told.outcome) };
                self.accepted.push((path.parse().unwrap(), uid, self.cluster.wall().0));
                return;
            }
            self.run_for(STEP);
        }
        panic!("{path} is not accepted");
    }

    /// Lets time pass for all.
    pub(crate) fn run_for(&mut self, duration: Duration) {
        let end = self.cluster.now.after(duration);
        while self.cluster.now < end {
            self.cluster.run_for(STEP);
            for member in &mut self.members {
                member.turn(&self.cluster, &self.corrupt, &self.accepted);
            }
        }
    }

    /// Ends a receiver in the middle of whatever it does, and starts it from what it has.
    pub(crate) fn restart(&mut self, number: usize) {
        self.stop(number);
        let member = &mut self.members[number];
        let held = member.held.iter().map(|(path, (held, _))| (path.clone(), held.clone())).collect();
        let recovered = Recovered { held, reached: member.reached.clone() };
        member.receiver = Some(Receiver::new(member.config.clone(), self.cluster.now.0, recovered).unwrap());
    }

    pub(crate) fn stop(&mut self, number: usize) {
        let member = &mut self.members[number];
        (member.receiver, member.batch) = (None, None);
        member.waiting.clear();
        member.staged.clear();
    }

    /// Its disk takes a batch and says no more.
    pub(crate) fn hang(&mut self, number: usize) {
        self.members[number].disk = DiskMood::Hangs;
    }

    pub(crate) fn fill_disk(&mut self, number: usize) {
        self.members[number].disk = DiskMood::IsFull;
    }

    /// What is in the directory.
    pub(crate) fn files(&self, number: usize) -> Vec<(&str, &str)> {
        let files = self.members[number].held.iter().filter_map(|(path, (_, file))| Some((path, file.as_ref()?)));
        files.map(|(path, bytes)| (path.as_str(), std::str::from_utf8(bytes).unwrap())).collect()
    }

    /// The storage point that it turned to last.
    pub(crate) fn source(&self, number: usize) -> u8 {
        self.members[number].source
    }

    /// What it said last.
    pub(crate) fn as_of_us(&self, number: usize) -> u64 {
        self.members[number].as_of_us
    }

    pub(crate) fn counters(&self, number: usize) -> Counters {
        self.members[number].receiver.as_ref().unwrap().counters()
    }
}

impl Member {
    fn turn(&mut self, cluster: &Cluster, corrupt: &BTreeSet<u8>, accepted: &[(Path, Uid, u64)]) {
        let now = cluster.now;
        let Some(mut receiver) = self.receiver.take() else { return };
        if receiver.poll_timeout().is_some_and(|at| at <= now) {
            receiver.handle_timeout(now);
        }
        for _ in 0..100_000 {
            while let Some(output) = receiver.poll_output() {
                match output {
                    Output::Request(request) => self.waiting.push((now, request)),
                    Output::CancelRequests => self.waiting.clear(),
                    Output::Discard(id) => drop(self.staged.remove(&id)),
                    Output::Apply { id, changes, reached } => self.batch = Some((id, changes, reached)),
                    Output::Event(Event::Source { source }) => self.source = self.sources[source].0,
                    Output::Event(Event::Current { snapshot }) => self.check_current(snapshot.as_of_us, accepted),
                    Output::Event(_) => {}
                }
            }
            if !self.answer(&mut receiver, cluster, corrupt) && !self.apply(&mut receiver, now) {
                self.receiver = Some(receiver);
                return;
            }
        }
        panic!("a receiver never rests");
    }

    /// Nothing that was accepted before the as-of is missing; the condition on clocks holds, as all are right.
    fn check_current(&mut self, as_of_us: u64, accepted: &[(Path, Uid, u64)]) {
        assert!(as_of_us >= self.as_of_us, "as-of falls");
        self.as_of_us = as_of_us;
        let subscribed = |path: &Path| self.config.prefixes.iter().any(|prefix| prefix.covers(path.as_str()));
        for (path, uid, _) in accepted.iter().filter(|(path, _, at)| *at < as_of_us && subscribed(path)) {
            let held = self.held.get(path).map(|(held, _)| held.uid);
            assert!(held >= Some(*uid), "{path}@{uid} is missing, as of {as_of_us}");
        }
    }

    fn answer(&mut self, receiver: &mut Receiver, cluster: &Cluster, corrupt: &BTreeSet<u8>) -> bool {
        let now = cluster.now;
        for at in 0..self.waiting.len() {
            let (asked, request) = &self.waiting[at];
            let sp = self.sources[request.source];
            let (id, kind) = (request.id, request.kind);
            if !cluster.is_up(sp) {
                self.waiting.remove(at);
                receiver.handle_failure(now, id, Failure::Unreachable("refused".into()));
                return true;
            }
            let waited = now.since(*asked);
            let Some((status, mut body)) = answer(cluster, sp, &request.target, waited) else {
                if waited >= request.timeout {
                    self.waiting.remove(at);
                    receiver.handle_failure(now, id, Failure::TimedOut);
                    return true;
                }
                continue;
            };
            let is_object = matches!(kind, RequestKind::Node | RequestKind::Content | RequestKind::LargeContent { .. });
            if corrupt.contains(&sp.0) && is_object && !body.is_empty() {
                body[0] ^= 1;
            }
            self.waiting.remove(at);
            let body = Bytes::from(body);
            match kind {
                RequestKind::LargeContent { hash } if status == 200 && Hash::of(&body) != hash => {
                    receiver.handle_failure(now, id, Failure::WrongHash);
                }
                RequestKind::LargeContent { .. } if status == 200 => {
                    self.staged.insert(StagedId(id.0), body);
                    receiver.handle_response(now, id, status, Body::Staged(StagedId(id.0)));
                }
                _ => receiver.handle_response(now, id, status, Body::Bytes(body)),
            }
            return true;
        }
        false
    }

    fn apply(&mut self, receiver: &mut Receiver, now: Instant) -> bool {
        if self.disk == DiskMood::Hangs {
            return false;
        }
        let Some((id, changes, reached)) = self.batch.take() else { return false };
        let is_full = self.disk == DiskMood::IsFull;
        let mut results = Vec::new();
        for change in changes {
            let staged = change.staged().and_then(|id| self.staged.remove(&id));
            if is_full {
                results.push((change.path, Applied::Failed("no space left on device".into())));
                continue;
            }
            let before = self.held.get(&change.path);
            assert!(before.is_none_or(|(before, _)| before.uid <= change.entry.uid), "{} goes back", change.path);
            let file = match change.action {
                Action::Write(Content::Bytes(bytes)) => Some(bytes),
                Action::Write(Content::Staged(_)) => staged,
                Action::SetMode | Action::Record => before.and_then(|(_, file)| file.clone()),
                Action::Delete | Action::Hide => None,
            };
            let has_file = change.entry.presence == Presence::Whole && !change.entry.flags.deleted;
            assert_eq!(file.as_ref().map(|bytes| Hash::of(bytes)), has_file.then_some(change.entry.hash));
            self.held.insert(change.path.clone(), (change.entry, file));
            results.push((change.path, Applied::Done));
        }
        let is_noted = reached.is_some() && !is_full;
        if is_noted {
            self.reached = reached;
        }
        receiver.handle_applied(now, id, results, is_noted);
        true
    }
}

/// What a storage point answers; none while it holds the request.
fn answer(cluster: &Cluster, sp: SpId, target: &str, waited: Duration) -> Option<(u16, Vec<u8>)> {
    let machine = cluster.sp(sp);
    if target == "/v1/snapshot" {
        return Some((200, serde_json::to_vec(&machine.snapshot(cluster.wall())).unwrap()));
    }
    if let Some(rest) = target.strip_prefix("/v1/changes/") {
        let (cursor, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let cursor: Cursor = cursor.parse().unwrap();
        let changes = machine.changes_now(cluster.wall(), cursor, &prefix.parse().unwrap());
        let has_news = changes.full || !changes.entries.is_empty();
        let is_over = waited >= HOLD && changes.next > cursor;
        return (has_news || is_over).then(|| (200, serde_json::to_vec(&changes).unwrap()));
    }
    let name = target.strip_prefix("/v1/objects/").unwrap();
    let hash: Hash = name.split('?').next().unwrap().parse().unwrap();
    Some(cluster.object(sp, &hash).map_or((404, Vec::new()), |body| (200, body)))
}
