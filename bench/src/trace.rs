//! Traces of a fleet that does well, of any length: five storage points, a thousand receivers in ten groups that subscribe
//! to 500 paths each, 100 publications a second, with retries, refusals, deletions, deaths of storage points and
//! receivers, as-of times, and the audit at the end.

use acms_engine::protocol::{Hash, SpId, Uid};
use acms_testbed::{
    trace::{Event, Kind, Text},
    workload::Random,
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
const GROUPS: usize = 10;
const PATHS_PER_GROUP: usize = 500;
const RECEIVERS: usize = 1_000;
const STORAGE_POINTS: usize = 5;
/// Between two publications.
const GAP_NS: u64 = 10 * MS;
/// True microseconds since 1970 at time 0.
const WALL_US: u64 = 1_700_000_000_000_000;

/// An event by time, then by when it was made.
struct Due(u64, u64, Event);

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

struct Host {
    name: Text,
    /// How often it was killed.
    deaths: u32,
    /// Its last death, and its return.
    dead_ns: std::ops::Range<u64>,
}

impl Host {
    fn new(name: String) -> Host {
        Host { name: name.into(), deaths: 0, dead_ns: 0..0 }
    }

    fn is_dead(&self, at_ns: u64) -> bool {
        self.dead_ns.contains(&at_ns)
    }

    /// Which of its lives it has at a time that is not before its last but one.
    fn life(&self, at_ns: u64) -> u32 {
        if at_ns < self.dead_ns.start { self.deaths - 1 } else { self.deaths }
    }
}

/// What is published.
struct Publication {
    key: Text,
    path: usize,
    uid: Uid,
    hash: Hash,
    is_deletion: bool,
}

/// Makes a trace of about so many events, in the order of time. The seed decides all.
pub struct Fleet {
    random: Random,
    due: BinaryHeap<Reverse<Due>>,
    sequence: u64,
    now_ns: u64,
    publications: u64,
    events: u64,
    events_max: u64,
    is_over: bool,
    sps: Vec<Host>,
    receivers: Vec<Host>,
    publisher: Text,
    testbed: Text,
    paths: Vec<Text>,
    deleted: Text,
    outcomes: BTreeMap<&'static str, Text>,
    /// What an SP missed while it was dead.
    missed: Vec<(usize, Event)>,
    latest: BTreeMap<usize, (Uid, Hash, bool)>,
}

impl Fleet {
    /// At least `events`, audit included.
    pub fn new(seed: u64, events: u64) -> Fleet {
        let paths = (0..GROUPS * PATHS_PER_GROUP).map(|i| format!("etc/{}/file-{i}", i % GROUPS).into());
        let words = ["accepted", "rejected", "undetermined", "complete"];
        let audit = (STORAGE_POINTS * GROUPS * PATHS_PER_GROUP + 2 * RECEIVERS * PATHS_PER_GROUP) as u64;
        let mut fleet = Fleet {
            random: Random::new(seed, "trace"),
            due: BinaryHeap::new(),
            sequence: 0,
            now_ns: 0,
            publications: 0,
            events: 0,
            events_max: events.saturating_sub(audit),
            is_over: false,
            sps: (1..=STORAGE_POINTS).map(|i| Host::new(format!("sp{i}"))).collect(),
            receivers: (1..=RECEIVERS).map(|i| Host::new(format!("receiver{i}"))).collect(),
            publisher: "publisher".into(),
            testbed: "testbed".into(),
            paths: paths.collect(),
            deleted: "deleted".into(),
            outcomes: words.into_iter().map(|word| (word, word.into())).collect(),
            missed: Vec::new(),
            latest: BTreeMap::new(),
        };
        fleet.begin();
        fleet
    }

    fn push(&mut self, event: Event) {
        self.sequence += 1;
        self.due.push(Reverse(Due(event.time_ns, self.sequence, event)));
    }

    fn own(&mut self, time_ns: u64, kind: Kind, outcome: Option<&str>, cause: &str) {
        let outcome = outcome.map(Text::from);
        let event = Event { outcome, cause: Some(cause.into()), ..Event::new(time_ns, &self.testbed, 0, kind) };
        self.push(event);
    }

    fn begin(&mut self) {
        let settings = [("scenario", "generated"), ("seed", "1"), ("storage_points", "5"), ("quorum", "majority")];
        settings.into_iter().for_each(|(name, value)| self.own(0, Kind::Config, Some(name), value));
        self.own(0, Kind::Wall, None, &WALL_US.to_string());
        for i in 0..STORAGE_POINTS {
            let start = Event::new(MS, &self.sps[i].name, 0, Kind::Start);
            self.push(start);
        }
        for i in 0..RECEIVERS {
            let name = Text::clone(&self.receivers[i].name);
            self.push(Event::new(2 * MS, &name, 0, Kind::Start));
            let path = Some(format!("etc/{}", i % GROUPS).into());
            self.push(Event { path, ..Event::new(3 * MS, &name, 0, Kind::Subscribe) });
        }
        self.own(4 * MS, Kind::Phase, None, "updates");
        self.now_ns = SECOND;
    }

    /// One publication, and all that comes of it.
    fn publish(&mut self) {
        let (due_ns, number) = (self.now_ns, self.publications);
        self.publications += 1;
        self.now_ns += GAP_NS;
        // A path comes again only when everybody has its last publication.
        let path = (number as usize * 7) % self.paths.len();
        let sp = self.random.below(STORAGE_POINTS as u64) as usize;
        let sp = if self.sps[sp].is_dead(due_ns + 30 * MS) { (sp + 1) % STORAGE_POINTS } else { sp };
        let uid = Uid { micros: WALL_US + due_ns / 1000, sp: SpId(sp as u8 + 1), store: 0 };
        let is_deletion = self.random.below(50) == 0;
        let hash = Hash::of(&number.to_le_bytes());
        let publication = Publication { key: format!("publisher-{number:08}").into(), path, uid, hash, is_deletion };
        self.attempt(&publication, due_ns, Kind::Scheduled, None);
        self.attempt(&publication, due_ns, Kind::Invoke, None);
        let fate = self.random.below(100);
        if fate == 0 {
            return self.attempt(&publication, due_ns + 5 * MS, Kind::Outcome, Some("rejected"));
        }
        let mut told_ns = due_ns + 7 * MS;
        if fate < 3 {
            self.attempt(&publication, due_ns + 9 * MS, Kind::Outcome, Some("undetermined"));
            self.attempt(&publication, due_ns + 20 * MS, Kind::Invoke, None);
            told_ns = due_ns + 22 * MS;
        }
        self.agree(&publication, due_ns, sp);
        let told = self.about(&publication, told_ns, &self.sps[sp], Kind::Accepted);
        self.push(Event { outcome: Some(Text::clone(&self.outcomes["accepted"])), ..told });
        self.attempt(&publication, told_ns + MS, Kind::Outcome, Some("accepted"));
        self.deliver(&publication, due_ns);
        self.latest.insert(path, (uid, hash, is_deletion));
    }

    fn attempt(&mut self, publication: &Publication, time_ns: u64, kind: Kind, outcome: Option<&'static str>) {
        let deleted = (publication.is_deletion && outcome.is_none()).then(|| Text::clone(&self.deleted));
        let event = Event {
            publication: Some(Text::clone(&publication.key)),
            path: Some(Text::clone(&self.paths[publication.path])),
            uid: (outcome == Some("accepted")).then_some(publication.uid),
            hash: (kind != Kind::Scheduled).then_some(publication.hash),
            outcome: outcome.map(|outcome| Text::clone(&self.outcomes[outcome])).or(deleted),
            ..Event::new(time_ns, &self.publisher, 0, kind)
        };
        self.push(event);
    }

    /// What a process says of a publication.
    fn about(&self, publication: &Publication, time_ns: u64, host: &Host, kind: Kind) -> Event {
        Event {
            publication: matches!(kind, Kind::Agreed | Kind::Accepted).then(|| Text::clone(&publication.key)),
            path: Some(Text::clone(&self.paths[publication.path])),
            uid: Some(publication.uid),
            hash: Some(publication.hash),
            outcome: publication.is_deletion.then(|| Text::clone(&self.deleted)),
            ..Event::new(time_ns, &host.name, host.life(time_ns), kind)
        }
    }

    fn agree(&mut self, publication: &Publication, due_ns: u64, accepting: usize) {
        for i in 0..STORAGE_POINTS {
            let at_ns = due_ns + 5 * MS + if i == accepting { 0 } else { MS + self.random.below(9 * MS) };
            let event = self.about(publication, at_ns, &self.sps[i], Kind::Agreed);
            if self.sps[i].is_dead(at_ns) {
                self.missed.push((i, Event { kind: Kind::Merged, publication: None, ..event }));
            } else {
                self.push(event);
            }
        }
    }

    fn deliver(&mut self, publication: &Publication, due_ns: u64) {
        let group = publication.path % GROUPS;
        for i in (group..RECEIVERS).step_by(GROUPS) {
            let at_ns = due_ns + 20 * MS + self.random.below(800 * MS);
            let at_ns = if self.receivers[i].is_dead(at_ns + 4 * MS) { at_ns + 1_200 * MS } else { at_ns };
            let verified = self.about(publication, at_ns, &self.receivers[i], Kind::Verified);
            let applied = Event { kind: Kind::Applied, time_ns: at_ns + 3 * MS, ..verified.clone() };
            self.push(verified);
            self.push(applied);
            // All that is older than this has come.
            let as_of_us = WALL_US + at_ns.saturating_sub(3 * SECOND) / 1000;
            let receiver = &self.receivers[i];
            let current = Event::new(at_ns + 4 * MS, &receiver.name, receiver.life(at_ns), Kind::Current);
            self.push(Event { cause: Some(as_of_us.to_string().into()), ..current });
        }
    }

    /// What happens beside publications, once a second.
    fn tick(&mut self) {
        let now_ns = self.now_ns;
        let second = now_ns / SECOND;
        for i in 0..STORAGE_POINTS {
            let sp = &self.sps[i];
            if sp.dead_ns.end + SECOND < now_ns && !sp.is_dead(now_ns) {
                let as_of = Event::new(now_ns, &sp.name, sp.life(now_ns), Kind::AsOf);
                let as_of_us = WALL_US + now_ns.saturating_sub(SECOND) / 1000;
                self.push(Event { cause: Some(as_of_us.to_string().into()), ..as_of });
            }
        }
        if second.is_multiple_of(100) {
            let sp = (second / 100) as usize % STORAGE_POINTS;
            let (name, back_ns) = (Text::clone(&self.sps[sp].name), now_ns + 5 * SECOND);
            self.own(now_ns + 100 * MS, Kind::Fault, Some("kill"), &name);
            kill(&mut self.sps[sp], now_ns + 100 * MS..back_ns).into_iter().for_each(|event| self.push(event));
            self.own(back_ns + MS, Kind::FaultUndone, Some("kill"), &name);
        }
        let receiver = self.random.below(RECEIVERS as u64) as usize;
        if second.is_multiple_of(10) && self.receivers[receiver].dead_ns.end + 5 * SECOND < now_ns {
            // What is under way to it comes before its death.
            let dead_ns = now_ns + 3 * SECOND..now_ns + 4 * SECOND;
            kill(&mut self.receivers[receiver], dead_ns).into_iter().for_each(|event| self.push(event));
        }
    }

    /// Those that are back take over what they missed.
    fn merge(&mut self) {
        let now_ns = self.now_ns;
        for (sp, event) in std::mem::take(&mut self.missed) {
            let host = &self.sps[sp];
            if host.dead_ns.end <= now_ns {
                let incarnation = host.life(now_ns);
                self.push(Event { time_ns: now_ns, incarnation, ..event });
            } else {
                self.missed.push((sp, event));
            }
        }
    }

    fn end(&mut self) {
        self.is_over = true;
        self.now_ns += 10 * SECOND;
        self.merge();
        self.own(self.now_ns, Kind::Phase, None, "quiesce");
        self.now_ns += 5 * SECOND;
        self.own(self.now_ns, Kind::Phase, None, "audit");
        self.now_ns += SECOND;
        let latest: Vec<_> = self.latest.iter().map(|(path, latest)| (*path, *latest)).collect();
        let complete = Some(Text::clone(&self.outcomes["complete"]));
        for i in 0..STORAGE_POINTS + RECEIVERS {
            let (host, kind, group) = match i.checked_sub(STORAGE_POINTS) {
                None => (&self.sps[i], Kind::AuditSp, None),
                Some(receiver) => (&self.receivers[receiver], Kind::AuditState, Some(receiver % GROUPS)),
            };
            let (name, at_ns) = (Text::clone(&host.name), self.now_ns);
            for (path, (uid, hash, is_deletion)) in &latest {
                if group.is_some_and(|group| path % GROUPS != group) {
                    continue;
                }
                let outcome = is_deletion.then(|| Text::clone(&self.deleted));
                let (path, hash) = (Some(Text::clone(&self.paths[*path])), Some(*hash));
                let about = Event { path, hash, ..Event::new(at_ns, &name, 0, kind) };
                self.push(Event { uid: Some(*uid), outcome, ..about.clone() });
                if group.is_some() && !is_deletion {
                    self.push(Event { kind: Kind::AuditFile, ..about });
                }
            }
            self.push(Event { outcome: complete.clone(), ..Event::new(at_ns, &name, 0, Kind::AuditEnd) });
            self.now_ns += MS;
        }
    }
}

/// Its death and its return.
fn kill(host: &mut Host, dead_ns: std::ops::Range<u64>) -> [Event; 2] {
    let exit = Event::new(dead_ns.start, &host.name, host.deaths, Kind::Exit);
    host.deaths += 1;
    let start = Event::new(dead_ns.end, &host.name, host.deaths, Kind::Start);
    host.dead_ns = dead_ns;
    [Event { outcome: Some("killed".into()), ..exit }, start]
}

impl Iterator for Fleet {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        // Nothing that is made later happens before now.
        while !self.is_over && self.due.peek().is_none_or(|Reverse(Due(at_ns, ..))| *at_ns >= self.now_ns) {
            if self.events + self.due.len() as u64 >= self.events_max {
                self.end();
                break;
            }
            if self.now_ns % SECOND < GAP_NS {
                self.tick();
            }
            self.merge();
            self.publish();
        }
        let Reverse(Due(.., event)) = self.due.pop()?;
        self.events += 1;
        Some(event)
    }
}
