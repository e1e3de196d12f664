//! Scripts: a command on a line that begins with a word, then what happened, indented; a blank line between.

use super::source::{Mood, Source};
use acms_engine::protocol::{
    Duration, Hash, Instant, Path, Receiver,
    api::Changes,
    receiver::{
        Action, Applied, BatchId, Body, Change, Content, Event, Failure, Held, Output, Presence, Reached,
        ReceiverConfig, Recovered, Request, RequestKind, StagedId,
    },
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
};

/// The script with its results as they are now.
pub(crate) fn rewrite(text: &str) -> String {
    let mut world = World::default();
    let mut out = String::new();
    for line in text.lines() {
        if line.starts_with("  ") {
            continue;
        }
        out.push_str(line);
        out.push('\n');
        if !line.is_empty() && !line.starts_with('#') {
            world.command(line);
            for line in std::mem::take(&mut world.log).lines() {
                writeln!(out, "  {line}").unwrap();
            }
        }
    }
    out
}

#[derive(Default)]
struct World {
    now: Instant,
    names: Vec<String>,
    sources: BTreeMap<String, Source>,
    receiver: Option<Receiver>,
    config: Option<ReceiverConfig>,
    waiting: Vec<Request>,
    batch: Option<(BatchId, Vec<Change>, Option<Reached>)>,
    /// What is durable beside the entries.
    reached: Option<Reached>,
    /// Caches, and the sources that answer for them: of several each one question for changes, the last one all others.
    fronts: BTreeMap<String, VecDeque<String>>,
    /// How long answers of a source take.
    delays: BTreeMap<String, Duration>,
    slow_disk: bool,
    full_disk: bool,
    /// Large contents find no room.
    staging_fails: bool,
    blocked: Vec<String>,
    failing: Vec<String>,
    /// Files that nobody may find at their places any more.
    vanished: Vec<String>,
    names_of: BTreeMap<Hash, String>,
    log: String,
}

fn option<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

fn duration(text: &str) -> Duration {
    acms_engine::runtime::units::parse_duration(text).unwrap()
}

impl World {
    fn command(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[0] {
            "receiver" => self.new_receiver(&words),
            "restart" => self.restart(&words),
            "front" => {
                let behind = words[2].split(',').map(str::to_owned).collect();
                self.fronts.insert(words[1].to_owned(), behind);
            }
            "delay" => drop(self.delays.insert(words[1].to_owned(), duration(words[2]))),
            "rewind" => self.of(words[1]).behind = duration(words[2]),
            "cluster" => self.of(words[1]).cluster = words[2].to_owned(),
            "publish" => self.publish(&words[1..]),
            "mint" => self.of(words[1]).mint(),
            "forget-changes" => self.of(words[1]).forget_changes(),
            "restart-source" => self.of(words[1]).restart(),
            "mood" => self.set_mood(words[1], words[2]),
            "disk" => (self.slow_disk, self.full_disk) = (words[1] == "slow", words[1] == "full"),
            "staging" => self.staging_fails = words[1] == "fails",
            "block" => self.blocked = words[1..].iter().map(|word| (*word).to_owned()).collect(),
            "fail" => self.failing = words[1..].iter().map(|word| (*word).to_owned()).collect(),
            "vanish" => self.vanished = words[1..].iter().map(|word| (*word).to_owned()).collect(),
            "lose" => self.lose(words[1]),
            "go" => self.go(),
            "wait" => self.wait(duration(words[1])),
            "held" => self.show_held(),
            "counters" => {
                let counters = self.receiver.as_ref().unwrap().counters();
                writeln!(self.log, "{counters:?}").unwrap();
            }
            other => panic!("no command {other:?}"),
        }
    }

    fn of(&mut self, name: &str) -> &mut Source {
        self.sources.get_mut(name).unwrap()
    }

    fn new_receiver(&mut self, words: &[&str]) {
        self.names = option(words, "sources").unwrap().split(',').map(str::to_owned).collect();
        for name in &self.names {
            let sp = u8::try_from(self.sources.len() + 1).unwrap();
            self.sources.entry(name.clone()).or_insert_with(|| Source::new(sp));
        }
        let prefixes = option(words, "subscribe").unwrap_or("").split(',').map(|text| text.parse().unwrap());
        let config = ReceiverConfig {
            id: option(words, "id").unwrap_or("r1").into(),
            sources: self.names.clone(),
            prefixes: prefixes.collect(),
            poll: option(words, "poll").map(duration),
        };
        self.receiver = Some(Receiver::new(config.clone(), 1, Recovered::default()).unwrap());
        self.waiting.clear();
        (self.batch, self.reached) = (None, None);
        self.config = Some(config);
    }

    /// Starts it anew; options that are given are new.
    fn restart(&mut self, words: &[&str]) {
        let held = self.receiver.take().unwrap().held().clone();
        let mut config = self.config.clone().unwrap();
        if let Some(prefixes) = option(words, "subscribe") {
            config.prefixes = prefixes.split(',').map(|text| text.parse().unwrap()).collect();
        }
        self.start(config, held);
    }

    /// The file of a path is found missing at a restart.
    fn lose(&mut self, path: &str) {
        let mut held = self.receiver.take().unwrap().held().clone();
        held.get_mut(path).unwrap().presence = Presence::Missing;
        self.start(self.config.clone().unwrap(), held);
    }

    fn start(&mut self, config: ReceiverConfig, held: BTreeMap<Path, Held>) {
        let recovered = Recovered { held, reached: self.reached.clone() };
        self.receiver = Some(Receiver::new(config.clone(), 2, recovered).unwrap());
        self.config = Some(config);
        self.waiting.clear();
        self.batch = None;
    }

    fn publish(&mut self, words: &[&str]) {
        let [sources, path, uid, content @ ..] = words else { panic!("publish SOURCES PATH UID CONTENT") };
        let uid = format!("{uid}.1.0").parse().unwrap();
        let text = content.join(" ");
        let (executable, text) = text.strip_prefix("+x ").map_or((false, text.as_str()), |rest| (true, rest));
        let big = text.strip_prefix("big ").map(|seed| seed.repeat(200 << 10));
        let bytes = (text != "deleted").then(|| big.as_deref().unwrap_or(text).as_bytes());
        if let Some(bytes) = bytes {
            self.names_of.insert(Hash::of(bytes), text.to_owned());
        }
        for name in sources.split(',') {
            self.of(name).publish(&path.parse().unwrap(), uid, bytes, executable);
        }
    }

    fn set_mood(&mut self, name: &str, mood: &str) {
        let moods = [
            ("good", Mood::Good),
            ("down", Mood::Down),
            ("silent", Mood::Silent),
            ("corrupt", Mood::Corrupt),
            ("garbage", Mood::Garbage),
            ("forgetful", Mood::Forgetful),
            ("stuck", Mood::Stuck),
            ("full", Mood::Full),
            ("overloaded", Mood::Overloaded),
            ("withholding", Mood::Withholding),
            ("stale", Mood::Stale),
            ("poisoned", Mood::Poisoned),
        ];
        self.of(name).mood = moods.iter().find(|(word, _)| *word == mood).unwrap().1;
        if mood == "down" {
            // Its connections break.
            let (broken, waiting): (Vec<Request>, Vec<Request>) =
                std::mem::take(&mut self.waiting).into_iter().partition(|request| self.names[request.source] == name);
            self.waiting = waiting;
            let failure = || Failure::Broken("connection reset".into());
            broken.iter().for_each(|request| self.receiver().handle_failure_now(request, failure()));
        }
    }

    fn receiver(&mut self) -> Handle<'_> {
        Handle { now: self.now, receiver: self.receiver.as_mut().unwrap() }
    }

    /// Lets time pass, time-out by time-out.
    fn wait(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        loop {
            let requests = self.waiting.iter().map(|request| self.asked_at(request).after(request.timeout));
            let arrivals = self.waiting.iter().map(|request| self.arrives_at(request)).filter(|at| *at > self.now);
            let next = requests.chain(arrivals).chain(self.receiver.as_ref().unwrap().poll_timeout()).min();
            self.now = next.map_or(end, |next| next.clamp(self.now, end));
            self.go();
            if self.now == end {
                return;
            }
        }
    }

    /// Everything that can happen without time passing.
    fn go(&mut self) {
        let now = self.now;
        if self.receiver.as_ref().unwrap().poll_timeout().is_some_and(|at| at <= now) {
            self.receiver.as_mut().unwrap().handle_timeout(now);
        }
        let expired: Vec<Request> = {
            let due = |request: &Request| self.asked_at(request).after(request.timeout) <= now;
            self.waiting.iter().filter(|request| due(request)).cloned().collect()
        };
        for request in expired {
            self.waiting.retain(|other| other.id != request.id);
            writeln!(self.log, "{}: {} timed out", self.names[request.source], self.short(&request.target)).unwrap();
            self.receiver.as_mut().unwrap().handle_failure(now, request.id, Failure::TimedOut);
        }
        loop {
            while let Some(output) = self.receiver.as_mut().unwrap().poll_output() {
                self.output(output);
            }
            if !self.answer_one() && !self.apply() {
                return;
            }
        }
    }

    /// Who answers a request.
    fn behind(&self, request: &Request) -> &String {
        let name = &self.names[request.source];
        self.fronts.get(name).and_then(VecDeque::front).unwrap_or(name)
    }

    fn asked_at(&self, request: &Request) -> Instant {
        ASKED.with_borrow(|asked| asked.get(&request.id.0).copied()).unwrap_or(self.now)
    }

    /// When an answer that is not held is here.
    fn arrives_at(&self, request: &Request) -> Instant {
        let delay = self.delays.get(&self.names[request.source]).copied().unwrap_or_default();
        self.asked_at(request).after(delay)
    }

    fn answer_one(&mut self) -> bool {
        let answerable = |request: &Request| {
            let source = &self.sources[self.behind(request)];
            self.arrives_at(request) <= self.now && source.mood != Mood::Silent && !source.holds(&request.target)
        };
        let Some(at) = self.waiting.iter().position(answerable) else { return false };
        let request = self.waiting.remove(at);
        let (name, now) = (self.names[request.source].clone(), self.now);
        if self.of(&name).mood == Mood::Down {
            let failure = Failure::Unreachable("connection refused".into());
            self.receiver.as_mut().unwrap().handle_failure(now, request.id, failure);
            return true;
        }
        let behind = self.behind(&request).clone();
        let (status, body) = self.of(&behind).answer(now, &request.target);
        if let Some(front) = self.fronts.get_mut(&name).filter(|front| front.len() > 1)
            && request.target.starts_with("/v1/changes/")
        {
            front.pop_front();
        }
        assert!(body.len() as u64 <= request.body_len_max || status != 200);
        let told = if status == 200 { String::new() } else { format!(" -> {status}") };
        writeln!(self.log, "{name}: {}{told}{}", self.short(&request.target), self.gist(&body)).unwrap();
        let receiver = self.receiver.as_mut().unwrap();
        match request.kind {
            RequestKind::LargeContent { hash } if status == 200 && Hash::of(&body) != hash => {
                receiver.handle_failure(now, request.id, Failure::WrongHash);
            }
            RequestKind::LargeContent { .. } if status == 200 && self.staging_fails => {
                receiver.handle_failure(now, request.id, Failure::Disk("no space left on device".into()));
            }
            RequestKind::LargeContent { .. } if status == 200 => {
                receiver.handle_response(now, request.id, status, Body::Staged(StagedId(request.id.0)));
            }
            _ => receiver.handle_response(now, request.id, status, Body::Bytes(Bytes::from(body))),
        }
        true
    }

    /// The entries of an answer.
    fn gist(&self, body: &[u8]) -> String {
        let Ok(changes) = serde_json::from_slice::<Changes>(body) else { return String::new() };
        let entries = changes.entries.iter().map(|entry| format!("{}@{}", entry.path, entry.uid.micros));
        let entries: Vec<String> = entries.collect();
        let full = if changes.full { " full" } else { "" };
        format!(" -> [{}] next {}{full}", entries.join(" "), changes.next)
    }

    fn short(&self, target: &str) -> String {
        let Some(name) = target.strip_prefix("/v1/objects/") else { return target.to_owned() };
        let (hash, again) = name.split_at_checked(64).unwrap();
        match self.names_of.get(&hash.parse().unwrap()) {
            Some(content) => format!("content {content:?}{again}"),
            None => format!("node{again}"),
        }
    }

    fn apply(&mut self) -> bool {
        if self.slow_disk {
            return false;
        }
        let Some((id, changes, reached)) = self.batch.take() else { return false };
        let result = |change: &Change| match () {
            () if self.full_disk => Applied::Failed("no space left on device".into()),
            () if is_in(&self.blocked, change) => Applied::Blocked("in the way".into()),
            () if is_in(&self.failing, change) => Applied::Failed("input/output error".into()),
            () if is_in(&self.vanished, change) && matches!(change.action, Action::Record | Action::SetMode) => {
                Applied::Lost
            }
            () => Applied::Done,
        };
        let results: Vec<_> = changes.iter().map(|change| (change.path.clone(), result(change))).collect();
        let done = results.iter().all(|(_, result)| *result == Applied::Done) && !self.full_disk;
        let is_noted = reached.is_some() && done;
        if is_noted {
            self.reached = reached;
        }
        self.receiver.as_mut().unwrap().handle_applied(self.now, id, results, is_noted);
        true
    }

    fn output(&mut self, output: Output) {
        let log = &mut self.log;
        match output {
            Output::Request(request) => {
                ASKED.with_borrow_mut(|asked| asked.insert(request.id.0, self.now));
                self.waiting.push(request);
            }
            Output::CancelRequests => self.waiting.clear(),
            Output::Apply { id, changes, reached } => {
                let words: Vec<String> = changes.iter().map(describe).collect();
                if !changes.is_empty() {
                    let note = reached.as_ref().map(|_| ", and note").unwrap_or_default();
                    writeln!(log, "apply: {}{note}", words.join(", ")).unwrap();
                }
                assert!(self.batch.replace((id, changes, reached)).is_none(), "one batch at a time");
            }
            Output::Discard(id) => writeln!(log, "discard {}", id.0).unwrap(),
            Output::Event(event) => {
                let text = match event {
                    Event::Source { source } => format!("source {}", self.names[source]),
                    Event::Verified { path, uid, .. } => format!("verified {path}@{}", uid.micros),
                    Event::Applied { path, uid, deleted, .. } => {
                        format!("applied {path}@{}{}", uid.micros, if deleted { " deleted" } else { "" })
                    }
                    Event::Blocked { path, cause } => format!("blocked {path}: {cause}"),
                    Event::Problem { cause } => format!("problem: {cause}"),
                    Event::Current { snapshot } => {
                        format!("current {} as of {} ms", snapshot.cursor(), snapshot.as_of_us / 1000)
                    }
                    other => format!("{other:?}"),
                };
                writeln!(log, "{text}").unwrap();
            }
        }
    }

    fn show_held(&mut self) {
        let receiver = self.receiver.as_ref().unwrap();
        for (path, Held { uid, hash, flags, presence, .. }) in receiver.held() {
            let content = self.names_of.get(hash).cloned().unwrap_or_default();
            let flags: Vec<&str> = flags.names().collect();
            let presence = if *presence == Presence::Whole { String::new() } else { format!(" {presence:?}") };
            writeln!(self.log, "{path}@{} {content:?} {flags:?}{presence}", uid.micros).unwrap();
        }
        let next = receiver.poll_timeout().map(|at| at.since(self.now));
        writeln!(self.log, "next time-out: {next:?}").unwrap();
    }
}

fn is_in(paths: &[String], change: &Change) -> bool {
    paths.iter().any(|path| path == change.path.as_str())
}

thread_local! {
    static ASKED: std::cell::RefCell<BTreeMap<u64, Instant>> = const { std::cell::RefCell::new(BTreeMap::new()) };
}

struct Handle<'a> {
    now: Instant,
    receiver: &'a mut Receiver,
}

impl Handle<'_> {
    fn handle_failure_now(&mut self, request: &Request, failure: Failure) {
        self.receiver.handle_failure(self.now, request.id, failure);
    }
}

fn describe(change: &Change) -> String {
    let path: &Path = &change.path;
    match &change.action {
        Action::Write(Content::Bytes(bytes)) => format!("write {path} ({} bytes)", bytes.len()),
        Action::Write(Content::Staged(id)) => format!("write {path} (staged {})", id.0),
        Action::SetMode => format!("set mode of {path}"),
        Action::Record => format!("record {path}"),
        Action::Delete => format!("delete {path}"),
        Action::Hide => format!("hide {path}"),
    }
}
