//! A whole cluster in one thread: the real state machines, the real frames, the real store over a disk in memory that
//! loses unsynced writes at a crash. Nothing happens unless it is asked for, so that every order can be tried.

use acms_engine::{
    protocol::{
        Config, Durable, Entry, Flags, Hash, Instant, Limits, Message, Micros, Mode, Now, Order, Outcome, Path,
        QuorumSystem, SpId, StoragePoint, StoreId, Uid,
        durable::{INLINE_LEN_MAX, InlineContent},
        io::{Environment, Event, Submission, Ticket, WriteId, drain},
        message::{Header, Wanted},
    },
    runtime::storage_point::parts::{Incoming, read_chunk},
    store::{self, Contents, Log, Maintenance, MemoryStorage, Options as StoreOptions, Store, StoreIdentity},
    wire::{self, Decoder, Frame},
};
use acms_spec::engine::{Input, Step};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

/// What an SP asked for in a cycle.
#[derive(Default)]
struct Asked {
    messages: BTreeMap<SpId, Vec<Message>>,
    writes: Vec<(WriteId, Vec<Durable>)>,
    reads: Vec<(SpId, Hash, u64, u32)>,
    stages: Vec<(Hash, u64, u64, Bytes)>,
    aborted: Vec<Hash>,
    events: Vec<Event>,
}

impl Environment for Asked {
    fn send(&mut self, to: SpId, message: Message) {
        self.messages.entry(to).or_default().push(message);
    }

    fn persist(&mut self, id: WriteId, records: Vec<Durable>) {
        self.writes.push((id, records));
    }

    fn send_content(&mut self, to: SpId, hash: Hash, offset: u64, len: u32) {
        self.reads.push((to, hash, offset, len));
    }

    fn stage(&mut self, hash: Hash, offset: u64, total: u64, bytes: Bytes) {
        self.stages.push((hash, offset, total, bytes));
    }

    fn abort_stage(&mut self, hash: Hash) {
        self.aborted.push(hash);
    }

    fn event(&mut self, _: &StoragePoint, event: Event) {
        self.events.push(event);
    }
}

struct Running {
    sp: StoragePoint,
    log: Log<MemoryStorage>,
    contents: Contents<MemoryStorage>,
    maintenance: Maintenance<MemoryStorage>,
    writes: VecDeque<(WriteId, Vec<Durable>)>,
    incoming: Incoming<MemoryStorage, ()>,
}

struct Node {
    disk: MemoryStorage,
    clock_offset_us: i64,
    running: Option<Running>,
}

/// Every step since the recording began.
#[derive(Default)]
pub struct Recording {
    pub steps: Vec<Step>,
    sent: Vec<(SpId, Message)>,
    events: Vec<Event>,
    begun: BTreeMap<SpId, Vec<Durable>>,
    replaced: BTreeSet<SpId>,
    starting: bool,
    /// Frames that were on their way when their link broke: (from, to, frame).
    pub late: Vec<(SpId, SpId, Vec<u8>)>,
}

/// What publishers were told, by the name that the test gave the submission.
#[derive(Clone, Debug)]
pub struct Told {
    pub sp: SpId,
    pub path: Path,
    pub hash: Hash,
    pub outcome: Outcome,
}

/// An entry's UID and content (none: deleted).
pub type Served = (Uid, Option<Vec<u8>>);

/// The cluster, its network and its publishers.
pub struct Cluster {
    pub setup: Setup,
    /// Chunks of contents asked for since the start.
    pub chunks_asked: usize,
    /// Disks that take no write.
    pub full: BTreeSet<SpId>,
    pub now: Instant,
    nodes: BTreeMap<SpId, Node>,
    links: BTreeSet<(SpId, SpId)>,
    cut: BTreeSet<(SpId, SpId)>,
    frames: BTreeMap<(SpId, SpId), VecDeque<Vec<u8>>>,
    tickets: BTreeMap<(SpId, Ticket), (String, Path, Hash)>,
    /// Outcomes by name of submission.
    pub told: BTreeMap<String, Told>,
    /// Lines of what happened since they were last taken.
    pub news: Vec<String>,
    /// If there is one, all steps are recorded, and messages are handled one by one.
    pub recording: Option<Recording>,
    crashes: u64,
}

/// How all SPs of a cluster are configured.
#[derive(Clone, Default)]
pub struct Setup {
    pub mode: Mode,
    pub order: Order,
    pub quorum: QuorumSystem,
}

/// Small segments, made by the commits that need them, so that every run does the same.
const STORE: StoreOptions = StoreOptions::foreground(1 << 20);

/// The wall clock at the start.
const WALL: u64 = 1_700_000_000_000_000;

impl Cluster {
    /// `n` SPs, all started and connected, nothing pending.
    pub fn new(n: u8, setup: Setup) -> Cluster {
        let mut cluster = Cluster {
            setup,
            chunks_asked: 0,
            full: BTreeSet::new(),
            now: Instant(1_000_000_000),
            nodes: BTreeMap::new(),
            links: BTreeSet::new(),
            cut: BTreeSet::new(),
            frames: BTreeMap::new(),
            tickets: BTreeMap::new(),
            told: BTreeMap::new(),
            news: Vec::new(),
            recording: None,
            crashes: 0,
        };
        for sp in (1..=n).map(SpId) {
            cluster.nodes.insert(sp, Node { disk: empty_store(sp, 0), clock_offset_us: 0, running: None });
        }
        let sps: Vec<SpId> = cluster.sps().collect();
        sps.into_iter().for_each(|sp| cluster.start(sp));
        cluster.run();
        cluster.news.clear();
        cluster
    }

    pub fn sps(&self) -> impl Iterator<Item = SpId> + '_ {
        self.nodes.keys().copied()
    }

    pub fn disk(&self, sp: SpId) -> &MemoryStorage {
        &self.nodes[&sp].disk
    }

    pub fn set_clock(&mut self, sp: SpId, offset: i64) {
        self.nodes.get_mut(&sp).expect("a member").clock_offset_us = offset;
    }

    fn now_at(&self, sp: SpId) -> Now {
        let wall = WALL as i64 + (self.now.0 / 1_000) as i64 + self.nodes[&sp].clock_offset_us;
        Now { instant: self.now, wall: Micros(wall as u64) }
    }

    /// A UID so far ahead of the true time.
    pub fn uid_ahead(&self, ahead: Duration) -> Uid {
        Uid { micros: WALL + self.now.after(ahead).0 / 1_000, sp: SpId(1), store: 0 }
    }

    pub fn is_up(&self, sp: SpId) -> bool {
        self.nodes[&sp].running.is_some()
    }

    /// The state machine of a running SP.
    pub fn sp(&self, sp: SpId) -> &StoragePoint {
        &self.nodes[&sp].running.as_ref().expect("the SP runs").sp
    }

    // ---- Faults -----------------------------------------------------------------------------------------------------

    /// Starts `sp` from its disk and connects it.
    pub fn start(&mut self, sp: SpId) {
        let members: Vec<SpId> = self.sps().collect();
        let node = self.nodes.get_mut(&sp).expect("a member");
        assert!(node.running.is_none(), "{sp} runs already");
        let opened = Store::open_with(node.disk.clone(), STORE).expect("the store opens");
        let config = Config {
            cluster: "test".into(),
            epoch: 1,
            me: sp,
            store: opened.identity.store,
            members,
            mode: self.setup.mode,
            order: self.setup.order,
            quorum: self.setup.quorum.clone(),
            max_drift: Duration::from_secs(3_600),
            limits: Limits::default(),
        };
        let now = self.now_at(sp);
        let mut machine =
            StoragePoint::new(config, u64::from(sp.0), opened.records, now).expect("a valid configuration");
        opened.lost.into_iter().for_each(|(hash, size)| machine.handle_damaged(now, hash, size));
        let running = Running {
            sp: machine,
            log: opened.log,
            incoming: Incoming::new(opened.contents.clone()),
            contents: opened.contents,
            maintenance: opened.maintenance,
            writes: VecDeque::new(),
        };
        self.nodes.get_mut(&sp).expect("a member").running = Some(running);
        self.set_starting(true);
        self.cycle(sp);
        while self.flush(sp) {}
        self.set_starting(false);
        if let Some(recording) = &mut self.recording {
            let begun = recording.begun.remove(&sp).unwrap_or_default();
            let replaced = recording.replaced.remove(&sp);
            self.record(sp, if replaced { Input::Replaced } else { Input::Restarted { begun } });
        }
        self.connect(sp);
    }

    fn set_starting(&mut self, starting: bool) {
        if let Some(recording) = &mut self.recording {
            recording.starting = starting;
        }
    }

    /// Notes the step that `sp` has just made.
    fn record(&mut self, at: SpId, input: Input) {
        let now = self.now_at(at);
        let inspection = self.sp(at).inspect();
        let entry = self.sp(at).lookup(&"p".parse().expect("a path")).map(|entry| entry.uid);
        if let Some(recording) = self.recording.as_mut().filter(|recording| !recording.starting) {
            let (sent, events) = (std::mem::take(&mut recording.sent), std::mem::take(&mut recording.events));
            recording.steps.push(Step { at, now, input, sent, events, inspection, entry });
        }
    }

    /// The process of `sp` dies, and so does the power of its disk: what was not synced is gone.
    pub fn crash(&mut self, sp: SpId) {
        let node = self.nodes.get_mut(&sp).expect("a member");
        node.running = None;
        self.crashes += 1;
        node.disk = node.disk.crash(self.crashes);
        self.disconnect(sp);
        self.tickets.retain(|(at, _), _| *at != sp);
    }

    /// The disk of `sp`, which is down, is lost, and a new store made in its place.
    pub fn replace(&mut self, sp: SpId) {
        let numbers = self.nodes.values().filter_map(|node| node.running.as_ref());
        let known = numbers.flat_map(|running| running.sp.header().stores).filter(|(of, _)| *of == sp);
        let number = known.map(|(_, store)| store.number).max().unwrap_or_default() + 1;
        let node = self.nodes.get_mut(&sp).expect("a member");
        assert!(node.running.is_none(), "{sp} runs");
        node.disk = empty_store(sp, number);
        if let Some(recording) = &mut self.recording {
            recording.replaced.insert(sp);
        }
    }

    pub fn cut(&mut self, a: SpId, b: SpId) {
        self.cut.extend([(a, b), (b, a)]);
        self.disconnect_pair(a, b);
    }

    pub fn heal(&mut self, a: SpId, b: SpId) {
        self.cut.remove(&(a, b));
        self.cut.remove(&(b, a));
        self.connect(a);
    }

    fn connect(&mut self, sp: SpId) {
        let others: Vec<SpId> = self.sps().filter(|other| *other != sp && self.is_up(*other)).collect();
        for other in others {
            if self.is_up(sp) && !self.cut.contains(&(sp, other)) && self.links.insert((sp, other)) {
                self.links.insert((other, sp));
                for (at, peer) in [(sp, other), (other, sp)] {
                    let now = self.now_at(at);
                    self.machine(at).handle_connected(now, peer);
                    self.cycle(at);
                    self.record(at, Input::Other(format!("connected to sp{peer}")));
                }
            }
        }
    }

    fn disconnect(&mut self, sp: SpId) {
        let others: Vec<SpId> = self.sps().filter(|other| *other != sp).collect();
        others.into_iter().for_each(|other| self.disconnect_pair(sp, other));
    }

    fn disconnect_pair(&mut self, a: SpId, b: SpId) {
        for (at, peer) in [(a, b), (b, a)] {
            let lost = self.frames.remove(&(at, peer));
            if let Some(recording) = &mut self.recording {
                recording.late.extend(lost.into_iter().flatten().map(|frame| (at, peer, frame)));
            }
            if self.links.remove(&(at, peer)) && self.is_up(at) {
                let now = self.now_at(at);
                self.machine(at).handle_disconnected(now, peer);
                self.cycle(at);
                self.record(at, Input::Other(format!("disconnected from sp{peer}")));
            }
        }
    }

    // ---- Steps ------------------------------------------------------------------------------------------------------

    fn machine(&mut self, sp: SpId) -> &mut StoragePoint {
        &mut self.nodes.get_mut(&sp).expect("a member").running.as_mut().expect("the SP runs").sp
    }

    /// Hands in a publication (`content` none: a deletion) under the name that the test gives it.
    pub fn submit(&mut self, name: &str, sp: SpId, path: &str, content: Option<&[u8]>, options: Options) {
        let bytes = Bytes::copy_from_slice(content.unwrap_or_default());
        let hash = Hash::of(&bytes);
        let path: Path = path.parse().expect("a path");
        let entry = Entry {
            path: path.clone(),
            hash,
            size: bytes.len() as u64,
            content_type: String::new(),
            flags: Flags { executable: false, deleted: content.is_none() },
        };
        let mut contents = Vec::new();
        if entry.size > INLINE_LEN_MAX {
            let running = self.nodes.get_mut(&sp).and_then(|node| node.running.as_mut()).expect("the SP runs");
            running.incoming.upload((), &bytes);
            assert_eq!(running.incoming.finish(&()).expect("a healthy disk"), (hash, entry.size));
        } else {
            contents.push(InlineContent { hash, bytes });
        }
        let key = ("test".to_owned(), options.key.clone().unwrap_or_default());
        let submission = Submission {
            publisher: key.0.clone(),
            key: options.key,
            known: options.known,
            order: None,
            entries: vec![entry],
            contents,
        };
        let now = self.now_at(sp);
        let ticket = self.machine(sp).submit(now, submission);
        self.tickets.insert((sp, ticket), (name.to_owned(), path, hash));
        self.cycle(sp);
        self.record(sp, Input::Submitted { ticket, key });
    }

    /// Carries out what `sp` asks for, as far as that needs no one else.
    fn cycle(&mut self, sp: SpId) {
        let now = self.now_at(sp);
        loop {
            let running = self.nodes.get_mut(&sp).and_then(|node| node.running.as_mut()).expect("the SP runs");
            let mut asked = Asked::default();
            drain(&mut running.sp, &mut asked);
            running.writes.extend(asked.writes);
            let header = running.sp.header();
            let mut damaged = Vec::new();
            for (to, hash, offset, len) in asked.reads {
                if running.contents.needs_comparing(&hash) {
                    running.contents.compare(&hash).ok();
                }
                let message = read_chunk(&running.contents, hash, offset, len).unwrap_or_else(|size| {
                    damaged.push((hash, size));
                    Message::Missing { what: Wanted::Content(hash) }
                });
                asked.messages.entry(to).or_default().push(message);
            }
            let goes_on = !asked.stages.is_empty() || !damaged.is_empty();
            damaged.into_iter().for_each(|(hash, size)| running.sp.handle_damaged(now, hash, size));
            for (hash, offset, total, bytes) in asked.stages {
                let end = offset + bytes.len() as u64;
                let result = running.incoming.stage(hash, offset, total, &bytes).expect("a healthy disk");
                running.sp.handle_staged(now, hash, end, result);
            }
            for hash in asked.aborted {
                running.incoming.abort_stage(&hash);
            }
            for (to, messages) in asked.messages {
                self.put_on_wire(sp, to, &header, &messages);
                if let Some(recording) = &mut self.recording {
                    recording.sent.extend(messages.into_iter().map(|message| (to, message)));
                }
            }
            if let Some(recording) = &mut self.recording {
                recording.events.extend(asked.events.iter().cloned());
            }
            for event in asked.events {
                self.note(sp, event);
            }
            if !goes_on {
                return;
            }
        }
    }

    fn put_on_wire(&mut self, from: SpId, to: SpId, header: &Header, messages: &[Message]) {
        if self.links.contains(&(from, to)) {
            let is_asked = |message: &&Message| matches!(message, Message::ContentRequest { .. });
            self.chunks_asked += messages.iter().filter(is_asked).count();
            let encoded = wire::encode_frames(header, messages);
            assert_eq!(encoded.left_out, 0, "every message fits a frame");
            self.frames.entry((from, to)).or_default().extend(encoded.frames);
        }
    }

    fn note(&mut self, sp: SpId, event: Event) {
        match event {
            Event::Outcome { ticket, outcome } => {
                let Some((name, path, hash)) = self.tickets.remove(&(sp, ticket)) else { return };
                self.news.push(format!("{name}: {}", describe(&outcome)));
                self.told.insert(name, Told { sp, path, hash, outcome });
            }
            Event::Agreed { manifest } => {
                self.news.push(format!("sp{sp}: agreed {} {}", short(manifest.uid), manifest.entries[0].path));
            }
            Event::Merged { entry } => self.news.push(format!("sp{sp}: merged {} {}", short(entry.uid), entry.path)),
            Event::Dropped { uid, superseded_by } => {
                self.news.push(format!("sp{sp}: dropped {}, superseded by {}", short(uid), short(superseded_by)));
            }
            Event::Joined => self.news.push(format!("sp{sp}: joined")),
            Event::StoreIsVoid { newer } => self.news.push(format!("sp{sp}: void, store {newer} is newer")),
            Event::PeerProblem { peer, detail } => self.news.push(format!("sp{sp}: sp{peer} {detail}")),
            _ => {}
        }
    }

    /// The oldest write of `sp` becomes durable. False: there is none.
    pub fn flush(&mut self, sp: SpId) -> bool {
        let now = self.now_at(sp);
        let Some(running) = self.nodes.get_mut(&sp).and_then(|node| node.running.as_mut()) else { return false };
        let Some((id, records)) = running.writes.pop_front() else { return false };
        if self.full.contains(&sp) {
            running.sp.handle_refused(now, id, "no space left");
            self.cycle(sp);
            return true;
        }
        if running.log.commit(&records).is_err() {
            // The power went during this flush; what follows is the test's to say.
            if let Some(recording) = &mut self.recording {
                recording.begun.insert(sp, records);
            }
            return true;
        }
        running.sp.handle_persisted(now, id);
        self.cycle(sp);
        self.record(sp, Input::Flushed { records });
        true
    }

    /// Somebody finds at `sp` that the content of `path` is damaged.
    pub fn damage(&mut self, sp: SpId, path: &str) {
        let now = self.now_at(sp);
        let machine = self.machine(sp);
        let entry = machine.lookup(&path.parse().expect("a path")).expect("a path of the index");
        machine.handle_damaged(now, entry.hash, entry.size);
        self.cycle(sp);
    }

    /// Contents of which `sp` has staged a part.
    pub fn staging(&self, sp: SpId) -> usize {
        self.nodes[&sp].running.as_ref().map_or(0, |running| running.incoming.fetching())
    }

    /// The store of `sp` makes a checkpoint, and what its maintenance does besides. False: its disk failed.
    pub fn maintain(&mut self, sp: SpId) -> bool {
        let now = self.now;
        let running = self.nodes.get_mut(&sp).and_then(|node| node.running.as_mut()).expect("the SP runs");
        if running.maintenance.checkpoint(now).is_err() {
            return false;
        }
        loop {
            match running.maintenance.step(now) {
                Ok(store::Step::Again) => {}
                Ok(store::Step::Wait(_)) => return true,
                Ok(store::Step::Copy(copies)) if running.log.commit_writes([], &copies).is_ok() => {}
                Ok(store::Step::Copy(_)) | Err(_) => return false,
            }
        }
    }

    /// The oldest frame from `from` to `to` arrives. False: there is none.
    pub fn deliver(&mut self, from: SpId, to: SpId) -> bool {
        let Some(bytes) = self.frames.get_mut(&(from, to)).and_then(VecDeque::pop_front) else { return false };
        self.arrive(from, to, &bytes);
        true
    }

    /// A frame that may be any but the oldest arrives; it may do so again.
    pub fn deliver_any(&mut self, from: SpId, to: SpId, choice: u64, again: bool) {
        let Some(frames) = self.frames.get_mut(&(from, to)).filter(|frames| !frames.is_empty()) else { return };
        let place = (choice % frames.len() as u64) as usize;
        let bytes = frames[place].clone();
        if !again {
            frames.remove(place);
        }
        self.arrive(from, to, &bytes);
    }

    /// One of the frames whose link broke arrives after all. False: there is none, or its receiver is down.
    pub fn deliver_late(&mut self, choice: u64) -> bool {
        let Some(recording) = self.recording.as_mut().filter(|recording| !recording.late.is_empty()) else {
            return false;
        };
        let place = (choice % recording.late.len() as u64) as usize;
        let (from, to, bytes) = recording.late.swap_remove(place);
        if self.is_up(to) {
            self.arrive(from, to, &bytes);
        }
        true
    }

    fn arrive(&mut self, from: SpId, to: SpId, bytes: &[u8]) {
        let mut decoder = Decoder::new();
        decoder.push(bytes);
        let frame = decoder.next().expect("a good frame").expect("a whole frame");
        let Frame::Messages(header, messages) = frame else { panic!("a frame of messages") };
        let now = self.now_at(to);
        let recording = self.recording.is_some();
        if self.machine(to).handle_header(now, &header) {
            for message in messages {
                self.machine(to).handle_message(now, from, message.clone());
                if recording {
                    self.cycle(to);
                    self.record(to, Input::Message { from, message });
                }
            }
        }
        self.cycle(to);
    }

    /// The next timer of `sp` fires, and time passes up to then if need be. False: it has none.
    pub fn fire(&mut self, sp: SpId) -> bool {
        let Some(at) = self.nodes[&sp].running.as_ref().and_then(|running| running.sp.poll_timeout()) else {
            return false;
        };
        self.now = self.now.max(at);
        let now = self.now_at(sp);
        self.machine(sp).handle_timeout(now);
        self.cycle(sp);
        self.record(sp, Input::Other("timeout".to_owned()));
        true
    }

    /// The oldest frame is lost.
    pub fn drop_frame(&mut self, from: SpId, to: SpId) -> bool {
        self.frames.get_mut(&(from, to)).and_then(VecDeque::pop_front).is_some()
    }

    /// SPs with a write, and links with a frame, that could go on now.
    pub fn enabled(&self) -> (Vec<SpId>, Vec<(SpId, SpId)>) {
        let has_writes = |node: &Node| node.running.as_ref().is_some_and(|running| !running.writes.is_empty());
        let writes = self.nodes.iter().filter(|(_, node)| has_writes(node)).map(|(sp, _)| *sp);
        let frames = self.frames.iter().filter(|(_, frames)| !frames.is_empty()).map(|(link, _)| *link);
        (writes.collect(), frames.collect())
    }

    /// Everything that can go on without time passing: flushes first, then frames, each in order of SP.
    pub fn run(&mut self) {
        loop {
            let (writes, links) = self.enabled();
            if let Some(sp) = writes.first() {
                self.flush(*sp);
            } else if let Some((from, to)) = links.first() {
                self.deliver(*from, *to);
            } else {
                return;
            }
        }
    }

    /// Time passes; timers fire when due, and everything goes on as in [`run`](Self::run).
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        loop {
            self.run();
            let due = |node: &Node| node.running.as_ref().and_then(|running| running.sp.poll_timeout());
            let next = self.nodes.iter().filter_map(|(sp, node)| Some((due(node)?, *sp))).min();
            let Some((at, sp)) = next.filter(|(at, _)| *at <= end) else { break };
            self.now = self.now.max(at);
            let now = self.now_at(sp);
            self.machine(sp).handle_timeout(now);
            self.cycle(sp);
            self.record(sp, Input::Other("timeout".to_owned()));
        }
        self.now = end;
    }

    /// How long before now nothing accepted is missing at an SP, by the true time.
    pub fn as_of_age(&self, sp: SpId) -> Option<Duration> {
        let as_of = self.sp(sp).snapshot(Micros(0)).as_of_us;
        let now = WALL + self.now.0 / 1_000;
        (as_of > 0).then(|| Duration::from_micros(now.saturating_sub(as_of)))
    }

    /// The true time.
    pub fn wall(&self) -> Micros {
        Micros(WALL + self.now.0 / 1_000)
    }

    /// An index node or a content that an SP has.
    pub fn object(&self, sp: SpId, hash: &Hash) -> Option<Vec<u8>> {
        let running = self.nodes[&sp].running.as_ref()?;
        if let Some(node) = running.sp.node(hash) {
            return Some(node.to_vec());
        }
        let len = running.contents.len(hash)?;
        Some(running.contents.read(hash, 0, len).expect("what is there can be read").to_vec())
    }

    /// What an SP would answer for `path`: the UID and the content read back from its store.
    pub fn read(&self, sp: SpId, path: &str) -> Option<Served> {
        self.try_read(sp, path).expect("an indexed content is held")
    }

    /// The same, or why the store does not have the content as it was published.
    pub fn try_read(&self, sp: SpId, path: &str) -> Result<Option<Served>, String> {
        let Some(running) = self.nodes[&sp].running.as_ref() else { return Ok(None) };
        let Some(entry) = running.sp.lookup(&path.parse().expect("a path")) else { return Ok(None) };
        if entry.flags.deleted {
            return Ok(Some((entry.uid, None)));
        }
        let content = match entry.size {
            0 => Vec::new(),
            size => running.contents.read(&entry.hash, 0, size).map_err(|error| error.to_string())?.to_vec(),
        };
        match Hash::of(&content) == entry.hash {
            true => Ok(Some((entry.uid, Some(content)))),
            false => Err(format!("{} bytes with another hash", content.len())),
        }
    }
}

fn empty_store(sp: SpId, number: u32) -> MemoryStorage {
    let disk = MemoryStorage::new();
    let store = StoreId { number, nonce: u64::from(sp.0) + u64::from(number) * 1_000 };
    let identity = StoreIdentity { cluster: "test".into(), sp, store };
    Store::create_with(disk.clone(), &identity, STORE.segment_len).expect("an empty disk");
    disk
}

/// What a submission may come with.
#[derive(Clone, Default)]
pub struct Options {
    pub key: Option<String>,
    pub known: Option<Uid>,
}

/// A UID as scripts show it: seconds since the start, SP.
pub fn short(uid: Uid) -> String {
    let since = uid.micros as i64 - WALL as i64;
    format!("{}us.{}", since, uid.sp)
}

fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Accepted { uid } => format!("accepted {}", short(*uid)),
        Outcome::Rejected { reason } => format!("rejected: {reason}"),
        Outcome::Undetermined { uid, superseded_by: Some(by), .. } => {
            format!("undetermined {}, superseded by {}", uid.map(short).unwrap_or_default(), short(*by))
        }
        Outcome::Undetermined { uid, reason, .. } => {
            format!("undetermined {}: {reason}", uid.map(short).unwrap_or_default())
        }
    }
}
