//! Any sequence of publications, failures, stale and broken answers: no path ever goes back, nothing from before an as-of
//! that was said is missing, as-of never falls, and once the sources are well again everything newest is held.

use super::source::{Mood, Source};
use acms_engine::protocol::{
    Duration, Hash, Instant, Path, Prefix, Receiver, Uid,
    receiver::{
        Action, Applied, BatchId, Body, Change, Event, Failure, Held, Output, Presence, Reached, ReceiverConfig,
        Recovered, Request, RequestKind, StagedId,
    },
};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const PATHS: [&str; 7] = ["a", "a/b", "a/b/c", "a/d", "e/f", "e/g", "h"];
const MOODS: [Mood; 12] = [
    Mood::Good,
    Mood::Down,
    Mood::Silent,
    Mood::Corrupt,
    Mood::Garbage,
    Mood::Forgetful,
    Mood::Stuck,
    Mood::Full,
    Mood::Overloaded,
    Mood::Withholding,
    Mood::Stale,
    Mood::Poisoned,
];

#[derive(Clone, Debug)]
enum Step {
    /// Path, content (0 is a deletion), executable, bits of the sources that get it.
    Publish(usize, u8, bool, u8),
    Mood(usize, usize),
    Mint(usize),
    Forget(usize),
    RestartSource(usize),
    Wait(u64),
    /// How many of the next batches' entries fail, by turns: 0 none.
    Disk(u8),
    RestartReceiver,
    /// The same, and the file of a path is gone.
    Lose(usize),
    /// The third source is a cache, which asks this storage point from now on.
    Front(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..PATHS.len(), 0..6u8, any::<bool>(), 1..8u8).prop_map(|(p, c, x, s)| Step::Publish(p, c, x, s)),
        2 => (0..3usize, 0..MOODS.len()).prop_map(|(s, m)| Step::Mood(s, m)),
        1 => (0..3usize).prop_map(Step::Mint),
        1 => (0..3usize).prop_map(Step::Forget),
        1 => (0..3usize).prop_map(Step::RestartSource),
        4 => (1..20_000u64).prop_map(Step::Wait),
        1 => (0..3u8).prop_map(Step::Disk),
        1 => Just(Step::RestartReceiver),
        1 => (0..PATHS.len()).prop_map(Step::Lose),
        2 => (0..3usize).prop_map(Step::Front),
    ]
}

struct World {
    now: Instant,
    sources: Vec<Source>,
    receiver: Receiver,
    config: ReceiverConfig,
    waiting: Vec<(Instant, Request)>,
    /// What the directory has: as the batches said.
    disk: BTreeMap<Path, (Held, Option<Hash>)>,
    staged: BTreeMap<StagedId, Hash>,
    batch: Option<(BatchId, Vec<Change>, Option<Reached>)>,
    /// What is durable beside the entries.
    reached: Option<Reached>,
    disk_fails: u8,
    /// Which of the sources answers for the third.
    front: usize,
    /// All that was published, and when.
    published: Vec<(Path, Uid, Instant)>,
    blocked: BTreeSet<Path>,
    /// The greatest as-of that was said.
    as_of_us: u64,
}

fn content(byte: u8) -> Option<Vec<u8>> {
    match byte {
        0 => None,
        1 => Some(Vec::new()),
        // Inline, fetched, and large enough to be staged.
        2 | 3 => Some(vec![byte; 8]),
        4 => Some(vec![byte; 100]),
        _ => Some(vec![byte; 200 << 10]),
    }
}

impl World {
    fn new(prefixes: &[&str], poll: bool) -> World {
        let config = ReceiverConfig {
            id: "r".into(),
            sources: vec!["x".into(), "y".into(), "z".into()],
            prefixes: prefixes.iter().map(|text| text.parse().unwrap()).collect(),
            poll: poll.then_some(Duration::from_secs(2)),
        };
        World {
            now: Instant(0),
            sources: (1..=3).map(Source::new).collect(),
            receiver: Receiver::new(config.clone(), 7, Recovered::default()).unwrap(),
            config,
            waiting: Vec::new(),
            disk: BTreeMap::new(),
            staged: BTreeMap::new(),
            batch: None,
            reached: None,
            disk_fails: 0,
            front: 2,
            published: Vec::new(),
            blocked: BTreeSet::new(),
            as_of_us: 0,
        }
    }

    fn step(&mut self, step: &Step, uid: Uid) {
        match *step {
            Step::Publish(path, byte, executable, to) => {
                let (path, bytes) = (PATHS[path].parse().unwrap(), content(byte));
                for source in self.sources.iter_mut().filter(|source| to & (1 << (source.sp - 1)) != 0) {
                    source.publish(&path, uid, bytes.as_deref(), executable);
                }
                self.published.push((path, uid, self.now));
                self.be_honest();
            }
            Step::Lose(path) => {
                self.disk.get_mut(PATHS[path]).into_iter().for_each(|(_, file)| *file = None);
                self.restart();
            }
            Step::Front(source) => self.front = source,
            Step::Mood(source, mood) => self.sources[source].mood = MOODS[mood],
            Step::Mint(source) => self.sources[source].mint(),
            Step::Forget(source) => self.sources[source].forget_changes(),
            Step::RestartSource(source) => self.sources[source].restart(),
            Step::Wait(ms) => self.wait(Duration::from_millis(ms)),
            Step::Disk(fails) => self.disk_fails = fails,
            Step::RestartReceiver => self.restart(),
        }
        self.go();
    }

    /// No source says an as-of above the time of something that it does not have.
    fn be_honest(&mut self) {
        for source in &mut self.sources {
            let missing = self.published.iter().filter(|(path, uid, _)| !source.has(path, *uid));
            source.as_of_max = missing.map(|(_, _, at)| *at).min();
        }
    }

    /// All from before this as-of is there, and the as-of is durable.
    fn check_current(&mut self, as_of_us: u64) {
        assert!(as_of_us >= self.as_of_us, "as-of falls from {} to {as_of_us}", self.as_of_us);
        self.as_of_us = as_of_us;
        assert!(as_of_us == 0 || self.reached.as_ref().is_some_and(|r| r.snapshot.as_of_us >= as_of_us), "not durable");
        let clash = |a: &Path, b: &Path| a.is_above(b.as_str()) || b.is_above(a.as_str());
        let subscribed = |path: &Path| self.config.prefixes.iter().any(|prefix| prefix.covers(path.as_str()));
        let before = self.published.iter().filter(|(_, _, at)| at.0 / 1000 < as_of_us);
        for (path, uid, _) in before.filter(|(path, ..)| subscribed(path) && !self.blocked.contains(path)) {
            let Some((held, file)) = self.disk.get(path) else { panic!("{path}@{uid} is missing, as of {as_of_us}") };
            assert!(held.uid >= *uid, "{path}@{uid} is missing, as of {as_of_us}: {held:?}");
            let hidden = || self.published.iter().any(|(other, newer, _)| clash(other, path) && *newer > held.uid);
            let has_file = held.presence == Presence::Whole && !held.flags.deleted;
            assert!(!has_file || file.is_some() || hidden(), "{path}@{uid} has no file, as of {as_of_us}");
        }
    }

    fn restart(&mut self) {
        let as_found = |held: &Held, file: Option<Hash>| {
            let is_lost = held.presence == Presence::Whole && !held.flags.deleted && file.is_none();
            let presence = if is_lost { Presence::Missing } else { held.presence };
            Held { presence, ..held.clone() }
        };
        let held = self.disk.iter().map(|(path, (held, file))| (path.clone(), as_found(held, *file))).collect();
        let recovered = Recovered { held, reached: self.reached.clone() };
        self.receiver = Receiver::new(self.config.clone(), 7, recovered).unwrap();
        self.waiting.clear();
        self.batch = None;
        self.staged.clear();
    }

    /// Lets time pass, time-out by time-out.
    fn wait(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        for _ in 0..10_000 {
            let requests = self.waiting.iter().map(|(at, request)| at.after(request.timeout)).min();
            let next = self.receiver.poll_timeout().into_iter().chain(requests).min().filter(|at| *at <= end);
            let Some(next) = next else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            self.go();
        }
        panic!("the receiver never rests");
    }

    fn go(&mut self) {
        let now = self.now;
        if self.receiver.poll_timeout().is_some_and(|at| at <= now) {
            self.receiver.handle_timeout(now);
        }
        let (late, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition::<Vec<_>, _>(|(at, request)| at.after(request.timeout) <= now);
        self.waiting = waiting;
        late.into_iter().for_each(|(_, request)| self.receiver.handle_failure(now, request.id, Failure::TimedOut));
        for _ in 0..10_000 {
            while let Some(output) = self.receiver.poll_output() {
                match output {
                    Output::Request(request) => self.waiting.push((now, request)),
                    Output::CancelRequests => self.waiting.clear(),
                    Output::Discard(id) => drop(self.staged.remove(&id).expect("staged and not yet used")),
                    Output::Apply { id, changes, reached } => {
                        assert!(self.batch.replace((id, changes, reached)).is_none());
                    }
                    Output::Event(Event::Blocked { path, .. }) => drop(self.blocked.insert(path)),
                    Output::Event(Event::Applied { path, .. }) => drop(self.blocked.remove(&path)),
                    Output::Event(Event::Current { snapshot }) => self.check_current(snapshot.as_of_us),
                    Output::Event(_) => {}
                }
            }
            if !self.answer_one() && !self.apply() {
                return;
            }
        }
        panic!("the receiver asks without end");
    }

    /// Who answers a request.
    fn behind(&self, request: &Request) -> usize {
        if request.source == 2 { self.front } else { request.source }
    }

    fn answer_one(&mut self) -> bool {
        let ready = |(_, request): &(Instant, Request)| {
            let source = &self.sources[self.behind(request)];
            source.mood != Mood::Silent && !source.holds(&request.target)
        };
        let Some(at) = self.waiting.iter().position(ready) else { return false };
        let (_, request) = self.waiting.remove(at);
        let behind = self.behind(&request);
        let source = &mut self.sources[behind];
        if source.mood == Mood::Down {
            self.receiver.handle_failure(self.now, request.id, Failure::Unreachable("refused".into()));
            return true;
        }
        let (status, body) = source.answer(self.now, &request.target);
        match request.kind {
            RequestKind::LargeContent { hash } if status == 200 => {
                if Hash::of(&body) == hash {
                    let id = StagedId(request.id.0);
                    self.staged.insert(id, hash);
                    self.receiver.handle_response(self.now, request.id, status, Body::Staged(id));
                } else {
                    self.receiver.handle_failure(self.now, request.id, Failure::WrongHash);
                }
            }
            _ => self.receiver.handle_response(self.now, request.id, status, Body::Bytes(Bytes::from(body))),
        }
        true
    }

    fn apply(&mut self) -> bool {
        let Some((id, changes, reached)) = self.batch.take() else { return false };
        let mut results = Vec::new();
        for (at, change) in changes.into_iter().enumerate() {
            let staged = change.staged().map(|id| self.staged.remove(&id).expect("staged and not yet used"));
            let result = match self.disk_fails {
                1 if at % 2 == 0 => Applied::Failed("full".into()),
                2 if at % 2 == 0 => Applied::Blocked("in the way".into()),
                _ if matches!(change.action, Action::Write(_)) && self.is_in_the_way(&change.path) => {
                    Applied::Blocked("in the way".into())
                }
                _ => Applied::Done,
            };
            if result == Applied::Done {
                self.put(&change, staged);
            }
            results.push((change.path, result));
        }
        let is_noted = reached.is_some() && results.iter().all(|(_, result)| *result == Applied::Done);
        if is_noted {
            self.reached = reached;
        }
        self.receiver.handle_applied(self.now, id, results, is_noted);
        true
    }

    fn is_in_the_way(&self, path: &Path) -> bool {
        let clash = |other: &Path| other.is_above(path.as_str()) || path.is_above(other.as_str());
        self.disk.iter().any(|(other, (_, file))| file.is_some() && clash(other))
    }

    fn put(&mut self, change: &Change, staged: Option<Hash>) {
        let before = self.disk.get(&change.path);
        if let Some((before, _)) = before {
            assert!(change.entry.uid >= before.uid, "{} went back to {}", change.path, change.entry.uid);
        }
        let file = match &change.action {
            Action::Write(acms_engine::protocol::receiver::Content::Bytes(bytes)) => Some(Hash::of(bytes)),
            Action::Write(_) => staged,
            Action::Record | Action::SetMode => before.and_then(|(_, file)| *file),
            Action::Delete | Action::Hide => None,
        };
        let has_file = change.entry.presence == Presence::Whole && !change.entry.flags.deleted;
        assert_eq!(file, has_file.then_some(change.entry.hash), "{change:?}");
        self.disk.insert(change.path.clone(), (change.entry.clone(), file));
        for (path, (_, file)) in &self.disk {
            let below = |(other, (_, theirs)): (&Path, &(Held, Option<Hash>))| {
                path.is_above(other.as_str()) && theirs.is_some() && change.path == *other
            };
            assert!(file.is_none() || !self.disk.iter().any(below), "{path} is a file above another");
        }
    }
}

/// What of `prefixes` should be there: path -> UID and content.
fn newest(published: &BTreeMap<Path, (Uid, u8)>, prefixes: &[Prefix]) -> BTreeMap<Path, Hash> {
    let clash = |a: &Path, b: &Path| a.is_above(b.as_str()) || b.is_above(a.as_str());
    let live = || published.iter().filter(|(_, (_, byte))| *byte != 0);
    live()
        .filter(|(path, _)| prefixes.iter().any(|prefix| prefix.covers(path.as_str())))
        .filter(|(path, (uid, _))| !live().any(|(other, (theirs, _))| clash(path, other) && theirs > uid))
        .map(|(path, (_, byte))| (path.clone(), Hash::of(&content(*byte).unwrap_or_default())))
        .collect()
}

fn check(steps: &[Step], prefixes: &[&str], poll: bool) {
    let mut world = World::new(prefixes, poll);
    world.go();
    let mut published: BTreeMap<Path, (Uid, u8)> = BTreeMap::new();
    let mut last = BTreeMap::new();
    for (at, step) in steps.iter().enumerate() {
        let uid = format!("{}.1.0", at + 1).parse().unwrap();
        if let Step::Publish(path, byte, executable, _) = *step {
            published.insert(PATHS[path].parse().unwrap(), (uid, byte));
            last.insert(path, (uid, byte, executable));
        }
        world.step(step, uid);
    }
    // Faults stop: every source gets everything.
    world.disk_fails = 0;
    for source in &mut world.sources {
        source.mood = Mood::Good;
        for (path, (uid, byte, executable)) in &last {
            source.publish(&PATHS[*path].parse().unwrap(), *uid, content(*byte).as_deref(), *executable);
        }
    }
    world.be_honest();
    world.wait(Duration::from_secs(300));
    let prefixes: Vec<Prefix> = prefixes.iter().map(|text| text.parse().unwrap()).collect();
    let files = world.disk.iter().filter_map(|(path, (_, file))| Some((path.clone(), (*file)?)));
    assert_eq!(files.collect::<BTreeMap<_, _>>(), newest(&published, &prefixes));
    assert!(world.staged.is_empty(), "staged contents are left over");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_back_and_in_the_end_the_newest(steps in proptest::collection::vec(step(), 1..60), poll: bool) {
        check(&steps, &[""], poll);
    }

    #[test]
    fn the_same_with_several_subscriptions(steps in proptest::collection::vec(step(), 1..60), poll: bool) {
        check(&steps, &["a/b", "e", "h"], poll);
    }
}

/// All orders of `items`.
fn orders<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let without = |at: usize| [&items[..at], &items[at + 1..]].concat();
    let first = |at: usize| orders(&without(at)).into_iter().map(move |rest| [&items[at..=at], &rest].concat());
    (0..items.len()).flat_map(first).collect()
}

#[test]
fn receivers_and_storage_points_agree_on_what_is_visible() {
    const PATHS: [&str; 4] = ["a", "a/b", "a/b/c", "a/d"];
    for uids in orders(&[1, 2, 3, 4]) {
        for (round, arrival) in orders(&[0, 1, 2, 3]).into_iter().enumerate() {
            // By the tree alone, or by changes as they come; with one of them deleted, or none.
            let (follows, deleted) = (round % 2 == 0, round % 5);
            let mut world = World::new(&[""], false);
            if follows {
                world.go();
            }
            for at in arrival {
                let content = (at != deleted).then(|| vec![at as u8; 8]);
                let uid = format!("{}.1.0", uids[at]).parse().unwrap();
                world.sources.iter_mut().for_each(|source| {
                    source.publish(&PATHS[at].parse().unwrap(), uid, content.as_deref(), false);
                });
                if follows {
                    world.wait(Duration::from_secs(2));
                }
            }
            world.wait(Duration::from_secs(30));
            let files = world.disk.iter().filter_map(|(path, (_, file))| Some((path.clone(), (*file)?)));
            assert_eq!(files.collect::<BTreeMap<_, _>>(), world.sources[0].visible(), "{uids:?} {round}");
        }
    }
}
