//! The receiver: keeps a local copy of the subscribed paths equal to the latest agreed publications.
//!
//! It stays with one source until that fails, or another of its first few is found to be nearer. On a new source it reads the
//! snapshot and compares index trees top-down under its subscriptions; from there on it follows the source's changes.
//! Everything is checked by hash.
//!
//! Invariant (P4): it never goes back to a smaller UID on a path, whatever its sources say.

mod batch;
mod feeds;
mod holdings;
mod io;
mod nearest;
mod progress;
mod sources;
mod walk;

pub use feeds::FEEDS_MAX;
pub use io::{
    Action, Applied, BatchId, Body, CONTENT_LEN_MAX, Change, Content, Counters, Event, Failure, Held,
    IN_MEMORY_LEN_MAX, Output, Presence, Reached, ReceiverConfig, ReceiverConfigError, Recovered, Request, RequestId,
    RequestKind, StagedId,
};

use crate::{
    mutant::{self, Mutant},
    protocol::{
        Duration, Hash, Instant, Node, NodePlace, Path,
        api::{Changes, Snapshot},
        random::Random,
    },
};
use bytes::Bytes;
use feeds::{Feed, Step};
use holdings::{Holdings, READY_LEN_MAX};
use nearest::Look;
use progress::Progress;
use sources::Sources;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use walk::{Complete, Walk, Walked};

/// Most nodes and contents asked for at once.
pub const OBJECTS_IN_FLIGHT_MAX: usize = 8;
/// Most entries that wait for their content before the walk pauses.
const UNFETCHED_MAX: usize = 4096;
/// So many walks in a row that find nodes or contents gone make a receiver leave the source.
const RESTARTS_MAX: u32 = 4;
/// Names that objects are asked for by after a wrong hash: so many times as many as the time before.
const NAMES_TIMES: u64 = 4;
const NAMES_MAX: u64 = 1 << 24;

/// So many answers in a row that say "walk" make no sense.
const FULLS_MAX: u32 = 4;
/// How long verified entries wait for company, while following and while walking: a batch costs a few flushes.
const FLUSH_AFTER: Duration = Duration::from_millis(100);
const FLUSH_AFTER_WALKING: Duration = Duration::from_secs(1);
/// Time between tries to apply what failed.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Time between tries to apply what is blocked by something that is not the receiver's; at once when that may be gone.
const BLOCKED_RETRY: Duration = Duration::from_secs(60);

/// Room for outputs that is kept while there are none.
const OUTPUTS_KEPT: usize = 16;

const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(5);
const OBJECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A hold and some more.
const CHANGES_TIMEOUT: Duration = Duration::from_secs(35);
/// Polled snapshots may be the same for so long, and for three polls.
const STUCK_TIME_MIN: Duration = Duration::from_secs(5);
const SNAPSHOT_LEN_MAX: u64 = 64 << 10;
const CHANGES_LEN_MAX: u64 = 64 << 20;

/// What objects are asked for by after one came with a wrong hash.
#[derive(Clone, Copy, Debug)]
struct Spoilt {
    /// The name is one of so many ...
    names: u64,
    /// ... this one.
    name: u64,
}

#[derive(Debug)]
enum Asked {
    Snapshot(Why),
    Changes {
        feed: usize,
    },
    Node {
        walk: u64,
        place: NodePlace,
        hash: Hash,
    },
    Content {
        path: Path,
    },
    /// A snapshot, for the time that it takes.
    Time {
        source: usize,
        asked_at: Instant,
    },
}

/// Why the snapshot is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Begin,
    Poll,
    /// To see whether a feed shows the past.
    Look,
}

/// What is known of the current source.
#[derive(Debug, Default)]
struct Session {
    asked: BTreeMap<RequestId, Asked>,
    objects: usize,
    feeds: Vec<Feed>,
    walk: Option<Walk>,
    walks: u64,
    restarts: u32,
    /// Answers in a row that say "walk".
    fulls: u32,
    poll_at: Option<Instant>,
    /// Something of this source is reached.
    is_settled: bool,
    look: Option<Look>,
    /// The latest time at which a snapshot that was polled was issued, and when that came.
    issued: Option<(u64, Instant)>,
}

impl Session {
    /// Whether the snapshots that are polled have stood still for too long: no cache keeps one that long, so this one would
    /// show the past for ever.
    fn is_stuck(&mut self, now: Instant, issued_at_us: u64, interval: Duration) -> bool {
        match self.issued {
            Some((newest, since)) if issued_at_us <= newest => now.since(since) >= STUCK_TIME_MIN.max(interval * 3),
            _ => {
                self.issued = Some((issued_at_us, now));
                false
            }
        }
    }
}

/// A place that the receiver has reached once all entries before it are applied.
#[derive(Debug)]
struct Place {
    snapshot: Snapshot,
    walked: Vec<Walked>,
}

/// See the module. Inputs are the `handle_` methods; after each, take all of [`poll_output`](Receiver::poll_output),
/// then wait until [`poll_timeout`](Receiver::poll_timeout).
#[derive(Debug)]
pub struct Receiver {
    config: ReceiverConfig,
    random: Random,
    sources: Sources,
    session: Option<Session>,
    /// When to turn to the source of choice.
    resume_at: Option<Instant>,
    /// When to look for a nearer source.
    look_at: Option<Instant>,
    cluster: Option<String>,
    /// Sources of another cluster, in a row.
    strangers: BTreeSet<usize>,
    complete: Complete,
    holdings: Holdings<Place>,
    /// An object has come with a wrong hash since all of a snapshot was here.
    spoilt: Option<Spoilt>,
    progress: Progress,
    flush_at: Option<Instant>,
    retry_at: Option<Instant>,
    retry_after: Duration,
    /// When to see whether what is in the way of blocked entries is gone.
    blocked_at: Option<Instant>,
    last_request: u64,
    outputs: VecDeque<Output>,
    counters: Counters,
}

/// Why a source is left.
enum Leave {
    Failed(String),
    Malformed(String),
    WrongHash(String),
    StuckChain,
    StuckSnapshot,
}

impl Receiver {
    /// A receiver that goes on from `recovered`. It turns to its first source at its first time-out, which is due.
    pub fn new(config: ReceiverConfig, seed: u64, recovered: Recovered) -> Result<Receiver, ReceiverConfigError> {
        if config.sources.is_empty() {
            return Err(ReceiverConfigError::NoSource);
        }
        if config.prefixes.is_empty() {
            return Err(ReceiverConfigError::NoPrefix);
        }
        let Recovered { held, reached } = recovered;
        Ok(Receiver {
            random: Random::new(seed),
            sources: Sources::new(&config.id, &config.sources),
            session: None,
            resume_at: Some(Instant(0)),
            look_at: None,
            cluster: reached.as_ref().map(|reached| reached.snapshot.cluster.clone()),
            strangers: BTreeSet::new(),
            complete: Complete::default(),
            holdings: Holdings::new(config.prefixes.clone(), held),
            spoilt: None,
            progress: Progress::new(config.prefixes.clone(), reached),
            flush_at: None,
            retry_at: None,
            retry_after: RETRY_MIN,
            blocked_at: None,
            last_request: 0,
            outputs: VecDeque::new(),
            counters: Counters::default(),
            config,
        })
    }

    /// How it was set up.
    pub fn config(&self) -> &ReceiverConfig {
        &self.config
    }

    /// What is held: entries that are durably applied, and what recovery found.
    pub fn held(&self) -> &BTreeMap<Path, Held> {
        &self.holdings.held
    }

    /// How often things happened.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether an entry cannot be put in place.
    pub fn has_blocked(&self) -> bool {
        self.holdings.has_blocked()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        let next = self.outputs.pop_front();
        // A first walk fills it as nothing does again, and thousands of receivers share a process.
        if next.is_none() && self.outputs.capacity() > OUTPUTS_KEPT {
            self.outputs = VecDeque::new();
        }
        next
    }

    /// When to call [`handle_timeout`](Receiver::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        let poll_at = self.session.as_ref().and_then(|session| session.poll_at);
        let flush_at = self.flush_at.filter(|_| !self.is_applying());
        [self.resume_at, poll_at, flush_at, self.retry_at, self.blocked_at, self.look_at].into_iter().flatten().min()
    }

    /// The time asked for has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = |at: &mut Option<Instant>| at.take_if(|at| *at <= now).is_some();
        if due(&mut self.resume_at) {
            self.begin();
        }
        if self.session.as_mut().is_some_and(|session| due(&mut session.poll_at)) {
            self.ask_snapshot(Why::Poll);
        }
        if due(&mut self.look_at) {
            self.look(now);
        }
        let look = due(&mut self.blocked_at);
        self.holdings.freed |= look;
        if due(&mut self.retry_at) || look {
            self.holdings.retry();
            self.progress.has_failed = false;
        }
        self.pump(now);
    }

    /// A source has answered, whole and within its bounds.
    pub fn handle_response(&mut self, now: Instant, id: RequestId, status: u16, body: Body) {
        let Some(asked) = self.take_asked(id) else {
            if let Body::Staged(staged) = body {
                self.outputs.push_back(Output::Discard(staged));
            }
            return;
        };
        let result = match (status, asked) {
            (_, Asked::Time { source, asked_at }) => {
                let body = if let (200, Body::Bytes(bytes)) = (status, &body) { parse(bytes).ok() } else { None };
                self.on_time(now, source, asked_at, body);
                Ok(())
            }
            (200, Asked::Content { path }) => self.on_content(id, &path, body),
            (200, asked) => match body {
                Body::Bytes(bytes) => self.on_answer(now, asked, &bytes),
                Body::Staged(staged) => {
                    self.outputs.push_back(Output::Discard(staged));
                    Ok(())
                }
            },
            (404, Asked::Node { .. } | Asked::Content { .. }) => self.restart(),
            (status, _) => Err(Leave::Failed(format!("it answered {status}"))),
        };
        if let Err(leave) = result {
            self.leave(now, leave);
        }
        self.pump(now);
    }

    /// A request has failed.
    pub fn handle_failure(&mut self, now: Instant, id: RequestId, failure: Failure) {
        let Some(asked) = self.take_asked(id) else { return };
        match (failure, asked) {
            (_, Asked::Time { source, asked_at }) => self.on_time(now, source, asked_at, None),
            (Failure::Disk(cause), Asked::Content { path }) => {
                self.outputs.push_back(problem(format!("{path} cannot be stored: {cause}")));
                self.holdings.fetch_failed_here(id, &path);
            }
            (Failure::WrongHash, Asked::Content { path }) => {
                let leave = self.spoilt(path.to_string());
                self.leave(now, leave);
            }
            (failure, _) => self.leave(now, Leave::Failed(failure.to_string())),
        }
        self.pump(now);
    }

    /// A batch has been applied, as far as it could be; `is_noted`: and what was reached with it is durable.
    pub fn handle_applied(&mut self, now: Instant, id: BatchId, results: Vec<(Path, Applied)>, is_noted: bool) {
        self.holdings.applied(id, results, &mut self.outputs);
        let (marks, may_rise) = (self.take_reached(), !self.holdings.has_blocked());
        self.progress.noted(id, is_noted, marks, may_rise, &mut self.outputs);
        if (self.holdings.stuck.is_empty() || self.holdings.freed) && !self.progress.has_failed {
            self.retry_after = RETRY_MIN;
        }
        self.pump(now);
    }

    fn is_applying(&self) -> bool {
        self.holdings.applying.is_some() || self.progress.is_noting()
    }

    fn begin(&mut self) {
        self.session = Some(Session::default());
        self.outputs.push_back(Output::Event(Event::Source { source: self.sources.current() }));
        self.ask_snapshot(Why::Begin);
    }

    fn leave(&mut self, now: Instant, why: Leave) {
        let why = match why {
            Leave::Failed(why) => why,
            Leave::Malformed(why) => {
                self.counters.malformed += 1;
                format!("its answer makes no sense: {why}")
            }
            Leave::WrongHash(what) => {
                self.counters.wrong_hashes += 1;
                format!("it sent {what} with a wrong hash")
            }
            Leave::StuckChain => {
                self.counters.stuck_chains += 1;
                "its changes do not advance".to_owned()
            }
            Leave::StuckSnapshot => {
                self.counters.stuck_chains += 1;
                "its snapshot stays the same".to_owned()
            }
        };
        let source = &self.config.sources[self.sources.current()];
        self.outputs.push_back(problem(format!("leaving {source}: {why}")));
        self.counters.sources_left += 1;
        self.drop_session();
        self.resume_at = Some(now.after(self.sources.fail(&mut self.random)));
    }

    fn drop_session(&mut self) {
        self.session = None;
        self.outputs.push_back(Output::CancelRequests);
        if self.holdings.forget_unfetched() {
            self.complete.clear();
        }
    }

    /// The source has dropped a node or content that the walk needs: begins again with its snapshot of now.
    fn restart(&mut self) -> Result<(), Leave> {
        let restarts = self.session.as_ref().map_or(0, |session| session.restarts) + 1;
        if restarts > RESTARTS_MAX {
            return Err(Leave::Failed("it names nodes or contents that it does not have".into()));
        }
        self.counters.restarts += 1;
        self.drop_session();
        self.session = Some(Session { restarts, ..Session::default() });
        self.ask_snapshot(Why::Begin);
        Ok(())
    }

    fn on_answer(&mut self, now: Instant, asked: Asked, body: &Bytes) -> Result<(), Leave> {
        match asked {
            Asked::Snapshot(why) => self.on_snapshot(now, why, parse(body)?),
            Asked::Changes { feed } => self.on_changes(now, feed, parse(body)?),
            Asked::Node { walk, place, hash } => self.on_node(walk, &place, hash, body),
            Asked::Content { .. } | Asked::Time { .. } => Ok(()),
        }
    }

    /// Looks for a nearer source, unless there is enough to do with the current one.
    fn look(&mut self, now: Instant) {
        let Some(session) = self.session.as_mut().filter(|session| session.is_settled) else {
            self.look_at = Some(now.after(nearest::wait(&mut self.random, true)));
            return;
        };
        self.look_at = Some(now.after(nearest::wait(&mut self.random, false)));
        session.look = Some(Look::new(self.sources.order(), self.sources.current()));
        self.ask_time(now);
    }

    /// Asks the next source of the look, or ends it.
    fn ask_time(&mut self, now: Instant) {
        let Some(look) = self.session.as_mut().and_then(|session| session.look.as_mut()) else { return };
        if let Some(source) = look.next() {
            let (asked, target) = (Asked::Time { source, asked_at: now }, "/v1/snapshot".to_owned());
            self.ask_of(source, asked, target, RequestKind::Snapshot, SNAPSHOT_LEN_MAX, SNAPSHOT_TIMEOUT);
            return;
        }
        let better = look.better();
        self.session.iter_mut().for_each(|session| session.look = None);
        if let Some(source) = better {
            self.counters.moves += 1;
            self.sources.turn_to(source);
            self.drop_session();
            self.begin();
        }
    }

    fn on_time(&mut self, now: Instant, source: usize, asked_at: Instant, snapshot: Option<Snapshot>) {
        let ours = |snapshot: &Snapshot| self.cluster.as_ref() == Some(&snapshot.cluster);
        let snapshot = snapshot.filter(ours);
        let Some(look) = self.session.as_mut().and_then(|session| session.look.as_mut()) else { return };
        match snapshot {
            Some(snapshot) => look.answered(source, now.since(asked_at), &snapshot),
            None => look.failed(source),
        }
        self.ask_time(now);
    }

    fn on_content(&mut self, id: RequestId, path: &Path, body: Body) -> Result<(), Leave> {
        self.counters.contents += 1;
        if self.holdings.fetched(id, path, body, &mut self.outputs).is_err() {
            return Err(self.spoilt(path.to_string()));
        }
        Ok(())
    }

    /// An object came with a wrong hash. A cache may keep it as it is for a year, and others with it: until all of a snapshot
    /// is here other URLs name all objects, drawn among four the first time and among four times as many each further
    /// time. So many receivers ask for few copies at first, and what one of them has met does not lie in wait for another.
    fn spoilt(&mut self, what: String) -> Leave {
        let names = self.spoilt.map_or(1, |spoilt| spoilt.names);
        let names = (names * NAMES_TIMES).min(NAMES_MAX);
        self.spoilt = Some(Spoilt { names, name: 1 + self.random.below(names) });
        Leave::WrongHash(what)
    }

    /// The URL's path of an object.
    fn object_target(&self, hash: Hash) -> String {
        match self.spoilt {
            None => format!("/v1/objects/{hash}"),
            Some(Spoilt { name, .. }) => format!("/v1/objects/{hash}?again={name}"),
        }
    }

    fn check_cluster(&mut self, snapshot: &Snapshot) -> Result<(), Leave> {
        let known = self.cluster.get_or_insert_with(|| snapshot.cluster.clone());
        if *known == snapshot.cluster {
            self.strangers.clear();
            return Ok(());
        }
        self.strangers.insert(self.sources.current());
        if self.strangers.len() == self.config.sources.len() {
            let (held, found) = (known.clone(), snapshot.cluster.clone());
            self.outputs.push_back(Output::Event(Event::OtherCluster { held, found }));
        }
        Err(Leave::Failed(format!("it is of the cluster {:?}, not {known:?}", snapshot.cluster)))
    }

    fn on_snapshot(&mut self, now: Instant, why: Why, snapshot: Snapshot) -> Result<(), Leave> {
        self.check_cluster(&snapshot)?;
        if self.look_at.is_none() && self.config.sources.len() > 1 {
            self.look_at = Some(now.after(nearest::wait(&mut self.random, true)));
        }
        if mutant::active(Mutant::StaleAnswerRaisesAsOf) {
            self.progress.say_wrongly(snapshot.clone(), &mut self.outputs);
        }
        let Some(session) = &mut self.session else { return Ok(()) };
        if let Some(interval) = self.config.poll {
            session.poll_at = Some(now.after(self.random.jitter(interval)));
            if session.is_stuck(now, snapshot.issued_at_us, interval) {
                return Err(Leave::StuckSnapshot);
            }
            let walking = session.walk.is_some();
            let same = self.complete.has(&NodePlace::root(), snapshot.root);
            if why == Why::Poll && (walking || same) {
                if !walking {
                    self.holdings.mark(Place { snapshot, walked: Vec::new() });
                }
                return Ok(());
            }
        } else if why == Why::Look
            && (session.walk.is_some() || !session.feeds.iter().any(|feed| feed.is_behind(&snapshot)))
        {
            return Ok(());
        }
        self.walk(snapshot);
        Ok(())
    }

    /// Compares trees from the root of `snapshot`; all feeds begin there.
    fn walk(&mut self, snapshot: Snapshot) {
        let Some(session) = &mut self.session else { return };
        if self.config.poll.is_none() {
            // What is on its way is of the past. A feed that began at a snapshot whose walk this one ends must not go on.
            session.asked.retain(|_, asked| !matches!(asked, Asked::Changes { .. }));
            session.feeds = Feed::all(&self.config.prefixes, &snapshot);
        }
        session.walks += 1;
        session.walk = Some(Walk::new(session.walks, snapshot, &self.complete));
    }

    fn on_changes(&mut self, now: Instant, feed: usize, changes: Changes) -> Result<(), Leave> {
        self.check_cluster(&changes.snapshot)?;
        let Some(session) = &mut self.session else { return Ok(()) };
        let Some(feed) = session.feeds.get_mut(feed) else { return Ok(()) };
        let look = match feed.step(now, &changes) {
            Step::Stuck => return Err(Leave::StuckChain),
            Step::Walk => {
                session.fulls += 1;
                if session.fulls > FULLS_MAX {
                    return Err(Leave::StuckChain);
                }
                self.walk(changes.snapshot);
                return Ok(());
            }
            Step::Follow { look } => look,
        };
        session.fulls = 0;
        for entry in changes.entries {
            let path = entry.path.clone();
            let offered = self.holdings.offer(entry, &mut self.outputs);
            offered.map_err(|_| Leave::WrongHash(path.to_string()))?;
        }
        self.mark_feeds();
        if look {
            self.ask_snapshot(Why::Look);
        }
        Ok(())
    }

    /// All feeds have reached the least of their cursors.
    fn mark_feeds(&mut self) {
        let Some(session) = self.session.as_ref().filter(|session| session.walk.is_none()) else { return };
        let Some(least) = session.feeds.iter().min_by_key(|feed| feed.cursor) else { return };
        let as_of_us = session.feeds.iter().map(|feed| feed.last.as_of_us).min().unwrap_or(0);
        let one_life = |feed: &Feed| {
            (feed.cursor.sp, feed.cursor.incarnation) == (least.cursor.sp, least.cursor.incarnation)
                && feed.cursor.sp.0 == feed.last.sp
        };
        if session.feeds.iter().all(one_life) {
            let snapshot = Snapshot { sequence: least.cursor.sequence, as_of_us, ..least.last.clone() };
            self.holdings.mark(Place { snapshot, walked: Vec::new() });
        }
    }

    fn on_node(&mut self, number: u64, place: &NodePlace, hash: Hash, body: &Bytes) -> Result<(), Leave> {
        if Hash::of(body) != hash && !mutant::active(Mutant::UnverifiedHash) {
            return Err(self.spoilt("an index node".into()));
        }
        let node = Node::decode(body).and_then(|node| place.check(&node).map(|()| node));
        let node = node.map_err(|error| Leave::Malformed(format!("index node: {error}")))?;
        self.counters.nodes += 1;
        let walk = self.session.as_mut().and_then(|session| session.walk.as_mut());
        let Some(walk) = walk.filter(|walk| walk.number == number) else { return Ok(()) };
        for entry in walk.node(place, hash, &node, &self.config.prefixes, &self.complete) {
            let path = entry.path.clone();
            let offered = self.holdings.offer(entry, &mut self.outputs);
            offered.map_err(|_| Leave::Malformed(format!("the entry of {path}")))?;
        }
        Ok(())
    }

    /// Asks for all that may be asked for now, and hands on what has become ready.
    fn pump(&mut self, now: Instant) {
        self.finish_walk();
        let may_rise = !self.holdings.has_blocked();
        for (_, snapshot) in self.take_reached() {
            self.progress.reach(snapshot, may_rise, &mut self.outputs);
        }
        self.apply(now);
        self.ask_feeds(now);
        self.ask_objects();
        if (self.holdings.wants_retry() || self.progress.has_failed) && self.retry_at.is_none() {
            self.retry_at = Some(now.after(self.random.jitter(self.retry_after)));
            self.retry_after = (self.retry_after * 2).min(RETRY_MAX);
        }
        match self.holdings.has_blocked() {
            true if self.blocked_at.is_none() => {
                self.blocked_at = Some(now.after(self.random.jitter(BLOCKED_RETRY)));
            }
            true => {}
            false => self.blocked_at = None,
        }
    }

    /// The snapshots of which all is applied by now, by the numbers of their marks.
    fn take_reached(&mut self) -> Vec<(u64, Snapshot)> {
        let mut marks = Vec::new();
        while let Some((mark, place)) = self.holdings.reached() {
            self.sources.succeed();
            self.spoilt = None;
            self.session.iter_mut().for_each(|session| (session.restarts, session.is_settled) = (0, true));
            place.walked.into_iter().for_each(|walked| self.complete.add(walked));
            marks.push((mark, place.snapshot));
        }
        marks
    }

    fn ask_feeds(&mut self, now: Instant) {
        let Some(session) = &mut self.session else { return };
        // A slow disk slows the feeds down, so that what waits for it stays bounded.
        if self.holdings.ready_len > READY_LEN_MAX || self.holdings.unfetched() > UNFETCHED_MAX {
            return;
        }
        let idle = session.feeds.iter_mut().enumerate().filter(|(_, feed)| feed.asked_at.is_none());
        let targets: Vec<(usize, String)> = idle
            .map(|(at, feed)| {
                feed.asked_at = Some(now);
                (at, feed.target())
            })
            .collect();
        for (feed, target) in targets {
            self.ask(Asked::Changes { feed }, target, RequestKind::Changes, CHANGES_LEN_MAX, CHANGES_TIMEOUT);
        }
    }

    fn ask_snapshot(&mut self, why: Why) {
        let target = "/v1/snapshot".to_owned();
        self.ask(Asked::Snapshot(why), target, RequestKind::Snapshot, SNAPSHOT_LEN_MAX, SNAPSHOT_TIMEOUT);
    }

    fn ask_objects(&mut self) {
        while self.session.as_ref().is_some_and(|session| session.objects < OBJECTS_IN_FLIGHT_MAX) {
            if self.holdings.ready_len < READY_LEN_MAX
                && let Some((path, hash, size)) = self.holdings.next_fetch(RequestId(self.last_request + 1))
            {
                let large = size > IN_MEMORY_LEN_MAX;
                let kind = if large { RequestKind::LargeContent { hash } } else { RequestKind::Content };
                let target = self.object_target(hash);
                self.ask(Asked::Content { path }, target, kind, size, OBJECT_TIMEOUT);
                continue;
            }
            let unfetched = self.holdings.unfetched();
            let walk = self.session.as_mut().and_then(|session| session.walk.as_mut());
            let Some(walk) = walk.filter(|_| unfetched < UNFETCHED_MAX) else { return };
            let Some((place, hash)) = walk.next_node() else { return };
            let asked = Asked::Node { walk: walk.number, place, hash };
            let target = self.object_target(hash);
            self.ask(asked, target, RequestKind::Node, Node::LEN_MAX as u64, OBJECT_TIMEOUT);
        }
    }

    fn ask(&mut self, asked: Asked, target: String, kind: RequestKind, body_len_max: u64, timeout: Duration) {
        self.ask_of(self.sources.current(), asked, target, kind, body_len_max, timeout);
    }

    fn ask_of(
        &mut self,
        source: usize,
        asked: Asked,
        target: String,
        kind: RequestKind,
        body_len_max: u64,
        timeout: Duration,
    ) {
        let Some(session) = &mut self.session else { return };
        self.last_request += 1;
        let id = RequestId(self.last_request);
        session.objects += usize::from(is_object(&asked));
        session.asked.insert(id, asked);
        self.outputs.push_back(Output::Request(Request { id, source, target, kind, body_len_max, timeout }));
    }

    fn take_asked(&mut self, id: RequestId) -> Option<Asked> {
        let session = self.session.as_mut()?;
        let asked = session.asked.remove(&id)?;
        session.objects -= usize::from(is_object(&asked));
        Some(asked)
    }

    fn finish_walk(&mut self) {
        let Some(session) = &mut self.session else { return };
        let Some(Walk { snapshot, walked, .. }) = session.walk.take_if(|walk| walk.is_done()) else { return };
        self.holdings.mark(Place { snapshot, walked });
    }

    fn apply(&mut self, now: Instant) {
        if self.is_applying() {
            return;
        }
        if self.holdings.ready.is_empty() {
            self.flush_at = None;
            return self.note();
        }
        let holdings = &mut self.holdings;
        let walking = self.session.as_ref().is_some_and(|session| session.walk.is_some());
        let full = holdings.ready_len >= READY_LEN_MAX || holdings.ready.len() >= batch::BATCH_COUNT_MAX;
        let more_to_come = walking || holdings.unfetched() > 0;
        let after = if walking { FLUSH_AFTER_WALKING } else { FLUSH_AFTER };
        let flush_at = *self.flush_at.get_or_insert(now.after(after));
        if (full || !more_to_come || flush_at <= now)
            && let Some((id, changes)) = holdings.take_batch(&mut self.outputs)
        {
            self.flush_at = None;
            let foreseen = holdings.foreseen().map(|(mark, place)| (mark, place.snapshot.clone()));
            let reached = self.progress.note_with(id, foreseen, !holdings.has_blocked());
            self.outputs.push_back(Output::Apply { id, changes, reached });
        }
    }

    /// Makes durable what is reached without any entry.
    fn note(&mut self) {
        let id = self.holdings.next_batch();
        if let Some(reached) = self.progress.note_alone(id) {
            self.outputs.push_back(Output::Apply { id, changes: Vec::new(), reached: Some(reached) });
        }
    }
}

fn is_object(asked: &Asked) -> bool {
    matches!(asked, Asked::Node { .. } | Asked::Content { .. })
}

fn problem(cause: String) -> Output {
    Output::Event(Event::Problem { cause })
}

fn parse<T: serde::de::DeserializeOwned>(body: &Bytes) -> Result<T, Leave> {
    serde_json::from_slice(body).map_err(|error| Leave::Malformed(error.to_string()))
}
