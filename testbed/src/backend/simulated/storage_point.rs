//! A simulated storage point: the engine's own state machine, frames and store, on a disk in memory.
//!
//! What `runtime/storage_point` does with threads and sockets is done here with virtual time: one cycle for each input,
//! one flush at a time, and everything that is asked for while one runs goes into the next.

mod effects;

use self::effects::{Effects, say_recovered, say_stored};
use super::{
    Step, Taken,
    connection::{ConnectionId, Segment, Service},
    disk::Disk,
    host::{HostId, Input},
    http::{PublishAnswer, PublishRequest},
    peer::{LinkEvent, Peers},
    reads::{Found, Reads, Source},
    shared::{Ending, Shared},
};
use crate::{
    faults::FaultKind,
    trace::{Kind, Template, Text},
    workload::Random,
};
use acms_engine::{
    protocol::{
        Config, Durable, Entry, Flags, Hash, Message, Path, SpId, StoragePoint, StoreId,
        durable::{INLINE_LEN_MAX, InlineContent},
        io::{Submission, Ticket, WriteId},
        message::{Header, Wanted},
    },
    runtime::storage_point::{
        committer::{Answer, Batch, Committed, Committer, Unanswered, Write},
        object::carry_out,
        parts::{Incoming, read_chunk},
        upkeep::{Turn, Upkeep},
    },
    store::{Contents, MemoryStorage, Store, StoreError},
    wire::{self, Hello, Versions},
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

/// How long a process takes from its start until it has opened its store.
pub(super) const BOOT_NS: u64 = 20_000_000;
/// What is under way when the process is told to stop has this long.
const STOP_TIME_NS: u64 = 2_000_000_000;
/// Records that the mutant `hold-records` has said to be durable are written this much later.
const HELD_NS: u64 = 1_000_000_000;

/// A storage point's machine: its disk, and its process if that runs.
#[derive(Debug)]
pub(super) struct StoragePointHost {
    pub(super) sp: SpId,
    /// The store on the disk.
    pub(super) store: StoreId,
    pub(super) disk: Disk,
    /// The log has no blank space left, and there is none on the disk.
    pub(super) log_is_full: bool,
    /// Power fails in the middle of the next flush; the number of the fault.
    pub(super) power_fails_in_flush: Option<usize>,
    /// The configuration of its cluster; `me` and `store` are filled in.
    config: Arc<Config>,
    /// The other storage points.
    others: Vec<(SpId, HostId)>,
    running: Option<Box<Running>>,
}

/// Something that the disk has done.
#[derive(Debug)]
pub(super) enum Done {
    /// The flush under way.
    Flush,
    /// It is time for the next step of keeping the log short.
    Maintain,
    /// What the mutant `hold-records` held.
    Held(Vec<Durable>),
    /// A part of a content was read for a peer.
    Read { to: SpId, hash: Hash, offset: u64, len: u32 },
    /// All of a large content was read, to be compared with its hash before it is sent to who asks for it.
    Compare { connection: ConnectionId, target: Text, hash: Hash },
    /// A part of a content that is being fetched was written.
    Stage { hash: Hash, offset: u64, total: u64, bytes: Bytes },
    /// What was written of a content is of no use.
    AbortStage { hash: Hash },
    /// The large content of a request was written.
    Upload { connection: ConnectionId, request: Box<PublishRequest> },
    /// The time to stop is over.
    StopNow,
}

/// A submission whose outcome has not come yet.
#[derive(Debug)]
struct Pending {
    connection: ConnectionId,
    path: Path,
    hash: Hash,
    key: Option<String>,
}

struct Running {
    machine: StoragePoint,
    contents: Contents<MemoryStorage>,
    /// Has the log, and what no flush has begun with.
    committer: Committer<MemoryStorage>,
    unanswered: Unanswered,
    /// What the flush under way carries.
    flushing: Option<Batch>,
    /// Writes for the mutant `hold-records`.
    held: Vec<(WriteId, Vec<Durable>)>,
    upkeep: Upkeep<MemoryStorage>,
    incoming: Incoming<MemoryStorage, ConnectionId>,
    /// Publishers whose large contents are on their way to the disk.
    uploading: BTreeSet<ConnectionId>,
    peers: Peers,
    reads: Reads,
    tickets: BTreeMap<Ticket, Pending>,
    /// Of the frames to come.
    header: Header,
    /// Links to the other storage points are made and taken.
    has_peers: bool,
    /// Publishers and readers are let in.
    is_open: bool,
    is_stopping: bool,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("machine", &self.machine).finish_non_exhaustive()
    }
}

impl StoragePointHost {
    /// A machine with an empty store and no process.
    pub(super) fn new(
        sp: SpId,
        config: Arc<Config>,
        others: Vec<(SpId, HostId)>,
        disk: Disk,
    ) -> Result<StoragePointHost, StoreError> {
        let store = StoreId { number: 0, nonce: u64::from(sp.0) };
        disk.create(&config.cluster, sp, store)?;
        let (log_is_full, power_fails_in_flush, running) = (false, None, None);
        Ok(StoragePointHost { sp, store, disk, log_is_full, power_fails_in_flush, config, others, running })
    }

    /// A machine with an empty store that takes the place of this one.
    pub(super) fn successor(&self, store: StoreId, random: Random) -> Result<StoragePointHost, StoreError> {
        let (config, others, disk) = (Arc::clone(&self.config), self.others.clone(), self.disk.another(random));
        let mut successor = StoragePointHost::new(self.sp, config, others, disk)?;
        successor.replace_store(store)?;
        Ok(successor)
    }

    /// The process is at another host now.
    pub(super) fn moved(&mut self, at: HostId) {
        if let Some(running) = &mut self.running {
            running.peers.moved(at);
        }
    }

    /// The state machine, while the process runs.
    pub(super) fn machine(&self) -> Option<&StoragePoint> {
        self.running.as_ref().map(|running| &running.machine)
    }

    /// The stored contents, while the process runs.
    pub(super) fn contents(&self) -> Option<&Contents<MemoryStorage>> {
        self.running.as_ref().map(|running| &running.contents)
    }

    /// The records of the flush under way.
    pub(super) fn flushing(&self) -> Vec<Durable> {
        let batch = self.running.as_ref().and_then(|running| running.flushing.as_ref());
        batch.map_or(Vec::new(), |batch| batch.records().cloned().collect())
    }

    /// The disk is gone; a new one with an empty store takes its place.
    pub(super) fn replace_store(&mut self, store: StoreId) -> Result<(), StoreError> {
        self.store = store;
        self.disk.storage = MemoryStorage::new();
        self.disk.create(&self.config.cluster, self.sp, store)
    }

    /// The process is gone, and with it what it had in memory.
    pub(super) fn end(&mut self, loses_power: bool) {
        if let Some(mut running) = self.running.take()
            && let Some(flushing) = running.flushing.take()
            && (loses_power || self.disk.draw(2) == 0)
        {
            // The write was begun, its flush did not return.
            self.disk.storage.stop_at_sync(self.disk.storage.syncs() + 1);
            running.committer.commit(flushing);
        }
        if loses_power { self.disk.lose_power() } else { self.disk.kill() }
    }

    /// Takes an input and does all that follows from it now.
    pub(super) fn handle(&mut self, shared: &mut Shared<'_>, me: HostId, input: Input) {
        if matches!(input, Input::Boot) {
            self.boot(shared, me);
        } else {
            let Some(running) = self.running.as_mut() else { return };
            match input {
                Input::Timer => running.time(shared, me),
                Input::Stop => running.stop(shared, me),
                Input::Accepted { connection, service: Service::Peer, .. } => {
                    running.peers.accepted(shared, connection);
                }
                Input::Connected { connection } => running.peers.connected(connection),
                // What is queued goes out at the end of the cycle.
                Input::Writable => {}
                Input::Closed { connection } => {
                    running.uploading.remove(&connection);
                    running.reads.closed(connection);
                    running.peers.closed(shared, connection);
                }
                Input::Segment { connection, segment } => self.segment(shared, me, connection, segment),
                Input::Done(done) => self.done(shared, me, done),
                Input::Accepted { .. } | Input::Applied | Input::Boot => {}
            }
        }
        self.end_cycle(shared, me);
    }

    fn boot(&mut self, shared: &mut Shared<'_>, me: HostId) {
        let opened = match Store::open_with(self.disk.storage.clone(), self.disk.options()) {
            Ok(opened) => opened,
            Err(error) => return shared.ended.push((me, self.disk.ending(&error))),
        };
        let config = Config { me: self.sp, store: opened.identity.store, ..Config::clone(&self.config) };
        let now = shared.now_at(me);
        let mut random = shared.random(me, &format!("process {}", shared.host(me).starts));
        say_stored(shared, me, (self.store, &opened.contents), &opened.records);
        let mut machine = match StoragePoint::new(config, random.bits(), opened.records, now) {
            Ok(machine) => machine,
            Err(error) => return shared.ended.push((me, Ending::Unexpected(error.to_string()))),
        };
        let hello =
            Hello { cluster: self.config.cluster.clone(), header: machine.header(), versions: Versions::default() };
        let peers = Peers::new((self.sp, me), hello, self.others.iter().copied(), random, now.instant);
        opened.lost.into_iter().for_each(|(hash, size)| machine.handle_damaged(now, hash, size));
        shared.observe(me, Step::Started, &machine);
        if shared.host(me).incarnation() > 0 {
            say_recovered(shared, me, &machine);
        }
        let header = machine.header();
        self.running = Some(Box::new(Running {
            machine,
            incoming: Incoming::new(opened.contents.clone()),
            contents: opened.contents,
            committer: Committer::new(opened.log),
            unanswered: Unanswered::default(),
            flushing: None,
            held: Vec::new(),
            upkeep: Upkeep::new(opened.maintenance),
            uploading: BTreeSet::new(),
            peers,
            reads: Reads::default(),
            tickets: BTreeMap::new(),
            header,
            has_peers: false,
            is_open: false,
            is_stopping: false,
        }));
        shared.later(me, 0, Input::Done(Done::Maintain));
    }

    fn segment(&mut self, shared: &mut Shared<'_>, me: HostId, connection: ConnectionId, segment: Segment) {
        let Some(running) = self.running.as_mut() else { return };
        match segment {
            Segment::Hello(_) | Segment::Frame(_) => running.peers.received(shared, connection, &segment),
            Segment::Publish(request) => {
                if running.is_stopping {
                    return shared.close(connection, me);
                }
                let len = request.content.as_ref().map_or(0, Bytes::len) as u64;
                if len > self.config.limits.content_len_max {
                    let cause =
                        Some(format!("the content is longer than {} bytes", self.config.limits.content_len_max));
                    let answer = PublishAnswer { outcome: "rejected", uid: None, cause };
                    shared.send(connection, me, Segment::Published(Box::new(answer)));
                } else if len > INLINE_LEN_MAX {
                    let took_ns = self.disk.stage_ns(shared.now_ns, len);
                    running.uploading.insert(connection);
                    shared.later(me, took_ns, Input::Done(Done::Upload { connection, request }));
                } else {
                    let bytes = request.content.clone().unwrap_or_default();
                    running.submit(shared, me, connection, *request, Content::of(bytes));
                }
            }
            Segment::Request(request) => {
                running.read(shared, me, &mut self.disk, (connection, request.target), false);
            }
            _ => {}
        }
    }

    fn done(&mut self, shared: &mut Shared<'_>, me: HostId, done: Done) {
        let Some(running) = self.running.as_mut() else { return };
        match done {
            Done::Flush => {
                let Some(flushing) = running.flushing.take() else { return };
                self.flushed(shared, me, flushing);
            }
            Done::Maintain => self.maintain(shared, me),
            Done::Held(records) => {
                if let Err(error) = running.committer.log().commit(&records) {
                    shared.ended.push((me, self.disk.ending(&error)));
                }
            }
            Done::Read { to, hash, offset, len } => running.read_for(shared, me, to, hash, offset, len),
            Done::Compare { connection, target, hash } => {
                running.compare(shared, me, hash);
                running.read(shared, me, &mut self.disk, (connection, target), true);
            }
            Done::Stage { hash, offset, total, bytes } => {
                let end = offset + bytes.len() as u64;
                let staged = match running.incoming.stage(hash, offset, total, &bytes) {
                    Ok(staged) => staged,
                    Err(error) => return shared.ended.push((me, self.disk.ending(&error))),
                };
                running.machine.handle_staged(shared.now_at(me), hash, end, staged);
                shared.observe(me, Step::Other, &running.machine);
            }
            Done::AbortStage { hash } => running.incoming.abort_stage(&hash),
            Done::Upload { connection, request } => {
                if let Err(error) = running.uploaded(shared, me, connection, *request) {
                    shared.ended.push((me, self.disk.ending(&error)));
                }
            }
            Done::StopNow => shared.ended.push((me, Ending::Stopped)),
        }
    }

    /// The flush of these writes ends now.
    fn flushed(&mut self, shared: &mut Shared<'_>, me: HostId, batch: Batch) {
        let Some(running) = self.running.as_mut() else { return };
        let now = shared.now_at(me);
        let records: Vec<Durable> = batch.records().cloned().collect();
        let Committed { answer, copies } = match self.log_is_full {
            true => running.committer.turn_away(batch),
            false => running.committer.commit(batch),
        };
        match answer {
            None => {}
            Some(Answer::Persisted(ids)) => {
                say_stored(shared, me, (self.store, &running.contents), &records);
                running.unanswered.persisted(&ids);
                ids.iter().for_each(|id| running.machine.handle_persisted(now, *id));
                shared.observe(me, Step::Persisted(&records), &running.machine);
            }
            Some(Answer::Refused(detail)) => {
                shared.bite(me, FaultKind::DiskFull);
                let ids = running.unanswered.refused();
                running.committer.take(Write::RefusalNoted);
                ids.iter().for_each(|id| running.machine.handle_refused(now, *id, &detail));
                shared.observe(me, Step::Refused(&ids), &running.machine);
            }
            Some(Answer::Failed(error)) => shared.ended.push((me, self.disk.ending(&error))),
        }
        if let Some(result) = copies {
            let turn = running.upkeep.copied(shared.instant(), result);
            self.go_on(shared, me, turn);
        }
    }

    /// One step of keeping the log short.
    fn maintain(&mut self, shared: &mut Shared<'_>, me: HostId) {
        let Some(running) = self.running.as_mut() else { return };
        let turn = running.upkeep.turn(shared.instant());
        for (hash, size) in running.upkeep.take_corrupt() {
            running.machine.handle_damaged(shared.now_at(me), hash, size);
        }
        self.go_on(shared, me, turn);
    }

    fn go_on(&mut self, shared: &mut Shared<'_>, me: HostId, turn: Turn) {
        let Some(running) = self.running.as_mut() else { return };
        match turn {
            // It goes on once they are committed.
            Turn::Copy(copies) => running.committer.take(Write::Copies(copies)),
            Turn::Again => {
                let took_ns = self.disk.flush_ns();
                shared.later(me, took_ns, Input::Done(Done::Maintain));
            }
            Turn::At(at) => {
                let wait_ns = at.0.saturating_sub(shared.instant().0);
                shared.later(me, wait_ns, Input::Done(Done::Maintain));
            }
        }
    }

    /// Drains the protocol and carries out what that brought.
    fn end_cycle(&mut self, shared: &mut Shared<'_>, me: HostId) {
        let Some(running) = self.running.as_mut() else { return };
        running.take_link_events(shared, me);
        running.drain(shared, me, &mut self.disk);
        if running.machine.has_started() && !running.has_peers && !running.is_stopping {
            running.has_peers = true;
            shared.host_mut(me).listens_peer = true;
            running.peers.handle_timeout(shared);
        }
        if running.machine.is_serving() && !running.is_open && !running.is_stopping {
            running.open(shared, me);
        }
        if !running.held.is_empty() {
            let (ids, records): (Vec<WriteId>, Vec<Vec<Durable>>) = mem::take(&mut running.held).into_iter().unzip();
            shared.later(me, HELD_NS, Input::Done(Done::Held(records.concat())));
            let now = shared.now_at(me);
            ids.into_iter().for_each(|id| running.machine.handle_persisted(now, id));
            return self.end_cycle(shared, me);
        }
        if running.flushing.is_none() && !running.committer.waiting().is_empty() {
            running.flushing = Some(running.committer.begin());
            let took_ns = self.disk.flush_ns();
            if self.disk.slower_by_ns > 0 {
                shared.bite(me, FaultKind::DiskSlow);
            }
            shared.later(me, took_ns, Input::Done(Done::Flush));
            if let Some(number) = self.power_fails_in_flush.take() {
                shared.queue.push(shared.now_ns + took_ns / 2, super::queue::Happening::Fault { number });
            }
        }
        if running.is_stopping && running.tickets.is_empty() && running.flushing.is_none() {
            let _ = running.committer.log().close();
            // Only makes the next start shorter.
            let _ = running.upkeep.finish(shared.instant());
            shared.ended.push((me, Ending::Stopped));
        }
        running.peers.flush(shared);
        let peers = running.has_peers.then(|| running.peers.poll_timeout()).flatten();
        running.reads.wake(shared, me, &Source { machine: &running.machine, contents: &running.contents });
        let times = [running.machine.poll_timeout(), peers, running.reads.poll_timeout()];
        shared.set_timer(me, times.into_iter().flatten().min());
    }
}

impl Running {
    fn open(&mut self, shared: &mut Shared<'_>, me: HostId) {
        self.is_open = true;
        shared.host_mut(me).listens_http = true;
        let incarnation = self.machine.incarnation().to_string();
        shared.say(me, Kind::Ready, Template { cause: Some(&incarnation), ..Template::default() });
        let undone = mem::take(&mut shared.host_mut(me).undone_when_ready);
        shared.undone.extend(undone);
    }

    fn time(&mut self, shared: &mut Shared<'_>, me: HostId) {
        let now = shared.now_at(me);
        if self.machine.poll_timeout().is_some_and(|at| at <= now.instant) {
            self.machine.handle_timeout(now);
            shared.observe(me, Step::Timeout, &self.machine);
        }
        if self.has_peers && self.peers.poll_timeout().is_some_and(|at| at <= now.instant) {
            self.peers.handle_timeout(shared);
        }
    }

    fn stop(&mut self, shared: &mut Shared<'_>, me: HostId) {
        if mem::replace(&mut self.is_stopping, true) {
            return;
        }
        shared.say(me, Kind::Stopping, Template::default());
        shared.host_mut(me).listens_http = false;
        self.machine.shut_down(shared.now_at(me));
        shared.later(me, STOP_TIME_NS, Input::Done(Done::StopNow));
    }

    fn take_link_events(&mut self, shared: &mut Shared<'_>, me: HostId) {
        while let Some(event) = self.peers.poll_event() {
            let now = shared.now_at(me);
            match event {
                LinkEvent::Up(peer, header) => {
                    shared.say(me, Kind::LinkUp, Template { cause: Some(&peer.to_string()), ..Template::default() });
                    if self.machine.handle_header(now, &header) {
                        self.machine.handle_connected(now, peer);
                    }
                    shared.observe(me, Step::Connected(peer), &self.machine);
                }
                LinkEvent::Down(peer, _) => {
                    shared.say(me, Kind::LinkDown, Template { cause: Some(&peer.to_string()), ..Template::default() });
                    self.machine.handle_disconnected(now, peer);
                    shared.observe(me, Step::Disconnected(peer), &self.machine);
                }
                LinkEvent::Failed(..) => {}
                LinkEvent::Messages(peer, header, messages) => {
                    if self.machine.handle_header(now, &header) {
                        for message in messages {
                            let seen = shared.observer.is_some().then(|| message.clone());
                            self.machine.handle_message(now, peer, message);
                            if let Some(message) = seen {
                                shared.observe(me, Step::Message(peer, &message), &self.machine);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Carries out everything that the machine asks for.
    fn drain(&mut self, shared: &mut Shared<'_>, me: HostId, disk: &mut Disk) {
        let mut effects = Effects {
            shared,
            me,
            disk,
            contents: &self.contents,
            peers: &mut self.peers,
            reads: &mut self.reads,
            committer: &mut self.committer,
            unanswered: &mut self.unanswered,
            held: &mut self.held,
            tickets: &mut self.tickets,
            header: &mut self.header,
            outgoing: BTreeMap::new(),
            damaged: Vec::new(),
            has_found: false,
            seen: None,
        };
        effects.seen = effects.shared.observer.is_some().then(Taken::default);
        let now = effects.shared.now_at(me);
        carry_out(&mut self.machine, &mut effects, now);
        effects.send_frames();
        let (has_found, seen) = (effects.has_found, effects.seen);
        if has_found {
            shared.observe(me, Step::Other, &self.machine);
        }
        if let Some(taken) = seen {
            shared.observe(me, Step::CycleEnded(&taken), &self.machine);
        }
    }

    fn submit(
        &mut self,
        shared: &mut Shared<'_>,
        me: HostId,
        connection: ConnectionId,
        request: PublishRequest,
        Content { hash, size, inline: contents }: Content,
    ) {
        let flags = Flags { deleted: request.content.is_none(), ..Flags::default() };
        let entry = Entry { path: request.path.clone(), hash, size, content_type: String::new(), flags };
        let PublishRequest { path, publisher, key, known, order, .. } = request;
        let pending = Pending { connection, path, hash, key: key.clone() };
        let submission = Submission { publisher, key, known, order, entries: vec![entry], contents };
        let seen = shared.observer.is_some().then(|| submission.clone());
        let ticket = self.machine.submit(shared.now_at(me), submission);
        self.tickets.insert(ticket, pending);
        if let Some(submission) = seen {
            shared.observe(me, Step::Submitted(&submission, ticket), &self.machine);
        }
    }

    /// Somebody reads. What is found damaged is fetched again; what was not compared with its hash is compared first.
    fn read(
        &mut self,
        shared: &mut Shared<'_>,
        me: HostId,
        disk: &mut Disk,
        (connection, target): (ConnectionId, Text),
        compared: bool,
    ) {
        let source = Source { machine: &self.machine, contents: &self.contents };
        match self.reads.request(shared, me, &source, (connection, &target), compared) {
            Found::Nothing => {}
            Found::Damaged(hash, size) => self.machine.handle_damaged(shared.now_at(me), hash, size),
            Found::Uncompared(hash, size) => {
                let took_ns = disk.read_ns(shared.now_ns, size);
                shared.later(me, took_ns, Input::Done(Done::Compare { connection, target, hash }));
            }
        }
    }

    /// All of a content was read.
    fn compare(&mut self, shared: &mut Shared<'_>, me: HostId, hash: Hash) {
        if self.contents.needs_comparing(&hash)
            && let Err(StoreError::CorruptContent(_)) = self.contents.compare(&hash)
        {
            let size = self.contents.len(&hash).unwrap_or_default();
            self.machine.handle_damaged(shared.now_at(me), hash, size);
        }
    }

    /// The large content of a request is on the disk, if that takes it. An error is a failure of the disk.
    fn uploaded(
        &mut self,
        shared: &mut Shared<'_>,
        me: HostId,
        connection: ConnectionId,
        request: PublishRequest,
    ) -> Result<(), StoreError> {
        self.incoming.upload(connection, &request.content.clone().unwrap_or_default());
        let finished = self.incoming.finish(&connection);
        if !self.uploading.remove(&connection) {
            // The publisher is gone.
            return finished.map(|_| ()).or_else(|error| if error.is_disk_failure() { Err(error) } else { Ok(()) });
        }
        match finished {
            Err(error) if error.is_disk_failure() => return Err(error),
            Ok((hash, size)) => {
                self.submit(shared, me, connection, request, Content { hash, size, inline: Vec::new() });
            }
            Err(error) => {
                if matches!(error, StoreError::Full(_)) {
                    shared.bite(me, FaultKind::DiskFull);
                }
                let key = request.key.as_deref();
                let outcome = self.machine.outcome_of_refused(&request.publisher, key, error.to_string());
                let (uid, cause) = (outcome.uid(), outcome.reason().map(ToString::to_string));
                let answer = PublishAnswer { outcome: outcome.word(), uid, cause };
                shared.send(connection, me, Segment::Published(Box::new(answer)));
            }
        }
        Ok(())
    }

    fn read_for(&mut self, shared: &mut Shared<'_>, me: HostId, to: SpId, hash: Hash, offset: u64, len: u32) {
        self.compare(shared, me, hash);
        let message = match read_chunk(&self.contents, hash, offset, len) {
            Ok(message) => message,
            Err(size) => {
                self.machine.handle_damaged(shared.now_at(me), hash, size);
                Message::Missing { what: Wanted::Content(hash) }
            }
        };
        if self.peers.is_up(to) {
            let frames = wire::encode_frames(&self.header, std::slice::from_ref(&message)).frames;
            self.peers.send(to, frames, true);
        }
    }
}

/// What is submitted: it is durable, or comes along.
struct Content {
    hash: Hash,
    size: u64,
    inline: Vec<InlineContent>,
}

impl Content {
    fn of(bytes: Bytes) -> Content {
        let (hash, size) = (Hash::of(&bytes), bytes.len() as u64);
        Content { hash, size, inline: vec![InlineContent { hash, bytes }] }
    }
}
