//! A simulated receiver: the engine's own state machine and its own way of applying, on a directory in memory.

use super::{
    client::{Client, Ended},
    connection::Segment,
    directory::Directory,
    host::{HostId, Input},
    http::Answer,
    queue::Happening,
    shared::{Ending, Shared},
};
use crate::{
    faults::FaultKind,
    trace::{Kind, Template},
};
use acms_engine::{
    mutant::{self, Mutant},
    protocol::{
        Duration, Hash, Path, Prefix, Uid,
        receiver::{
            Action, BatchId, Body, Change, Content, Event, Failure, Output, Reached, Receiver, ReceiverConfig, Request,
            RequestId, RequestKind,
        },
    },
    runtime::receive::Applier,
};
use std::{collections::BTreeMap, rc::Rc};

/// What receivers of a fleet have in common, or nearly so.
#[derive(Debug)]
pub(super) struct Subscription {
    /// Where it asks: storage points or caches, with their names.
    pub(super) sources: Vec<HostId>,
    pub(super) names: Vec<String>,
    /// What it subscribes to.
    pub(super) prefixes: Vec<Prefix>,
    /// It reads the snapshot this often instead of following changes.
    pub(super) poll: Option<Duration>,
}

/// A receiver's machine: its directory, and its process if that runs.
#[derive(Debug)]
pub(super) struct ReceiverHost {
    subscription: Rc<Subscription>,
    /// While no process has it.
    directory: Option<Box<Directory>>,
    running: Option<Box<Running>>,
    /// Power fails in the middle of the next batch; the number of the fault.
    pub(super) power_fails_in_batch: Option<usize>,
}

#[derive(Debug)]
struct Running {
    receiver: Receiver,
    applier: Applier<Directory>,
    client: Client<Asked>,
    /// The batch that is being applied.
    batch: Option<(BatchId, Vec<Change>, Option<Reached>)>,
    is_stopping: bool,
}

/// A request that is out.
#[derive(Debug)]
struct Asked {
    id: RequestId,
    kind: RequestKind,
    body_len_max: u64,
}

impl ReceiverHost {
    /// A machine with an empty directory and no process.
    pub(super) fn new(subscription: Rc<Subscription>, directory: Directory) -> ReceiverHost {
        ReceiverHost { subscription, directory: Some(Box::new(directory)), running: None, power_fails_in_batch: None }
    }

    /// The directory.
    pub(super) fn directory(&self) -> &Directory {
        match (&self.running, &self.directory) {
            (Some(running), _) => running.applier.disk(),
            (None, Some(directory)) => directory,
            (None, None) => unreachable!("a process that ends leaves its directory"),
        }
    }

    /// The directory, for faults.
    pub(super) fn directory_mut(&mut self) -> &mut Directory {
        match (&mut self.running, &mut self.directory) {
            (Some(running), _) => running.applier.disk_mut(),
            (None, Some(directory)) => directory,
            (None, None) => unreachable!("a process that ends leaves its directory"),
        }
    }

    /// UID that is durably held of a path, while the process runs.
    pub(super) fn held(&self, path: &str) -> Option<Uid> {
        Some(self.running.as_ref()?.applier.held().get(path)?.uid)
    }

    /// What it subscribes to.
    pub(super) fn prefixes(&self) -> &[Prefix] {
        &self.subscription.prefixes
    }

    /// The process is gone. Gives what the loss of power has left of the batch at hand: which publication a path's file
    /// is of, and the hash of what is there.
    pub(super) fn end(&mut self, loses_power: bool) -> Vec<(Path, Uid, Hash)> {
        let mut uids: BTreeMap<Path, Uid> = BTreeMap::new();
        if let Some(mut running) = self.running.take() {
            if let Some((_, changes, reached)) = running.batch.take() {
                uids.extend(changes.iter().map(|change| (change.path.clone(), change.entry.uid)));
                running.applier.disk_mut().stop_within(changes.len());
                running.applier.apply(changes, reached);
            }
            self.directory = Some(Box::new(running.applier.into_disk()));
        }
        let Some(directory) = &mut self.directory else { return Vec::new() };
        if loses_power {
            let mut exposed = directory.lose_power();
            exposed.sort_unstable();
            exposed.dedup();
            let what = |path: Path| {
                let hash = Hash::of(directory.content(&path)?);
                Some((uids.get(&path).copied()?, hash)).map(|(uid, hash)| (path, uid, hash))
            };
            return exposed.into_iter().filter_map(what).collect();
        }
        directory.kill();
        Vec::new()
    }

    /// Takes an input and does all that follows from it now.
    pub(super) fn handle(&mut self, shared: &mut Shared<'_>, me: HostId, input: Input) {
        if matches!(input, Input::Boot) {
            self.boot(shared, me);
        }
        let Some(running) = self.running.as_mut() else { return };
        match input {
            Input::Timer => running.time(shared, me),
            Input::Stop => running.stop(shared, me),
            Input::Applied => running.applied(shared),
            Input::Connected { connection } => running.client.connected(shared, me, connection),
            Input::Closed { connection } => {
                let ended = running.client.closed(shared, me, connection);
                running.ended(shared, ended);
            }
            Input::Segment { connection, segment: Segment::Answer(answer) } => {
                let ended = running.client.answered(connection, answer);
                running.ended(shared, ended);
            }
            _ => {}
        }
        let begun = running.turn(shared, me, &self.subscription.sources, &self.subscription.names);
        for kind in std::mem::take(&mut running.applier.disk_mut().refused) {
            shared.bite(me, kind);
        }
        if let Some(took_ns) = begun
            && let Some(number) = self.power_fails_in_batch.take()
        {
            shared.queue.push(shared.now_ns + took_ns / 2, Happening::Fault { number });
        }
    }

    fn boot(&mut self, shared: &mut Shared<'_>, me: HostId) {
        let Some(mut directory) = self.directory.take() else { return };
        // A process that cannot open its directory is started again until it can; that is taken as done here.
        let faults = std::mem::take(&mut directory.faults);
        let (mut applier, adopted) = match Applier::open(*directory) {
            Ok(opened) => opened,
            Err(error) => return shared.ended.push((me, Ending::Unexpected(error.to_string()))),
        };
        applier.disk_mut().faults = faults;
        let config = ReceiverConfig {
            id: shared.host(me).name.to_string(),
            sources: self.subscription.names.clone(),
            prefixes: self.subscription.prefixes.clone(),
            poll: self.subscription.poll,
        };
        let mut random = shared.random(me, &format!("process {}", shared.host(me).starts));
        let mut receiver = match Receiver::new(config, random.bits(), applier.recovered()) {
            Ok(receiver) => receiver,
            Err(error) => return shared.ended.push((me, Ending::Unexpected(error.to_string()))),
        };
        shared.say(me, Kind::Ready, Template::default());
        for (path, held) in &adopted {
            say_entry(shared, me, Kind::Applied, path, (held.uid, held.hash, held.flags.deleted));
        }
        if shared.host(me).incarnation() > 0 {
            let count = applier.held().len().to_string();
            shared.say(me, Kind::Recovered, Template { cause: Some(&count), ..Template::default() });
            for (path, held) in applier.held() {
                say_entry(shared, me, Kind::Recovered, path, (held.uid, held.hash, held.flags.deleted));
            }
        }
        let undone = std::mem::take(&mut shared.host_mut(me).undone_when_ready);
        shared.undone.extend(undone);
        receiver.handle_timeout(shared.instant());
        let client = Client::new();
        self.running = Some(Box::new(Running { receiver, applier, client, batch: None, is_stopping: false }));
    }
}

fn say_entry(shared: &mut Shared<'_>, me: HostId, kind: Kind, path: &Path, (uid, hash, deleted): (Uid, Hash, bool)) {
    let about = Template {
        path: Some(path.as_str()),
        uid: Some(uid),
        hash: Some(hash),
        outcome: deleted.then_some("deleted"),
        ..Template::default()
    };
    shared.say(me, kind, about);
}

impl Running {
    fn time(&mut self, shared: &mut Shared<'_>, me: HostId) {
        for ended in self.client.expire(shared, me) {
            self.ended(shared, Some(ended));
        }
        let now = shared.instant();
        if self.receiver.poll_timeout().is_some_and(|at| at <= now) {
            self.receiver.handle_timeout(now);
        }
    }

    /// Lets the batch at hand end.
    fn stop(&mut self, shared: &mut Shared<'_>, me: HostId) {
        if !std::mem::replace(&mut self.is_stopping, true) {
            shared.say(me, Kind::Stopping, Template::default());
            self.client.cancel_all(shared, me);
        }
    }

    /// A request has its answer, or never gets one.
    fn ended(&mut self, shared: &mut Shared<'_>, ended: Option<Ended<Asked>>) {
        let Some((asked, result)) = ended else { return };
        let result = result.and_then(|answer| self.body(&asked, answer));
        match result {
            Ok((status, body)) => self.receiver.handle_response(shared.instant(), asked.id, status, body),
            Err(failure) => self.receiver.handle_failure(shared.instant(), asked.id, failure),
        }
    }

    fn body(&mut self, asked: &Asked, answer: Answer) -> Result<(u16, Body), Failure> {
        let len_max = asked.body_len_max.max(4 << 10);
        if answer.body.len() as u64 > len_max {
            return Err(Failure::Broken(format!("the answer is longer than {len_max} bytes")));
        }
        let body = match asked.kind {
            RequestKind::LargeContent { hash } if answer.status == 200 => {
                if Hash::of(&answer.body) != hash && !mutant::active(Mutant::UnverifiedHash) {
                    return Err(Failure::WrongHash);
                }
                let staged = self.applier.disk_mut().stage(&answer.body);
                Body::Staged(staged.map_err(|error| Failure::Disk(error.to_string()))?)
            }
            _ => Body::Bytes(answer.body),
        };
        Ok((answer.status, body))
    }

    /// The time that a batch takes is over.
    fn applied(&mut self, shared: &mut Shared<'_>) {
        if let Some((id, changes, reached)) = self.batch.take() {
            let (results, is_noted) = self.applier.apply(changes, reached);
            self.receiver.handle_applied(shared.instant(), id, results, is_noted);
        }
    }

    /// Carries out all that the receiver asks for. If a batch begins: how long it takes.
    fn turn(&mut self, shared: &mut Shared<'_>, me: HostId, sources: &[HostId], names: &[String]) -> Option<u64> {
        let mut begun = None;
        while let Some(output) = self.receiver.poll_output() {
            match output {
                Output::Event(event) => tell(shared, me, names, event),
                Output::Discard(id) => acms_engine::runtime::receive::Disk::remove_staged(self.applier.disk_mut(), id),
                _ if self.is_stopping => {}
                Output::Request(Request { id, source, target, kind, body_len_max, timeout }) => {
                    let asked = Asked { id, kind, body_len_max };
                    self.client.ask(shared, me, sources[source], target.into(), timeout, asked);
                }
                Output::CancelRequests => self.client.cancel_all(shared, me),
                Output::Apply { id, changes, reached } => {
                    let written = |change: &Change| match &change.action {
                        Action::Write(Content::Bytes(bytes)) => Some(bytes.len() as u64),
                        Action::Write(Content::Staged(_)) => Some(change.entry.size),
                        _ => None,
                    };
                    let (count, bytes) =
                        (changes.iter().filter_map(written).count(), changes.iter().filter_map(written).sum());
                    let took_ns = self.applier.disk().batch_ns(changes.len(), count, bytes);
                    if self.applier.disk().faults.slower_by_ns > 0 {
                        shared.bite(me, FaultKind::DiskSlow);
                    }
                    self.batch = Some((id, changes, reached));
                    begun = Some(took_ns);
                    shared.later(me, took_ns, Input::Applied);
                }
            }
        }
        if self.is_stopping {
            if self.batch.is_none() {
                shared.ended.push((me, Ending::Stopped));
            }
            return begun;
        }
        let deadline = self.client.next_deadline_ns().map(|at_ns| shared.instant_of(at_ns));
        let times = [self.receiver.poll_timeout(), deadline];
        shared.set_timer(me, times.into_iter().flatten().min());
        begun
    }
}

fn tell(shared: &mut Shared<'_>, me: HostId, names: &[String], event: Event) {
    match event {
        Event::Source { source } => {
            shared.say(me, Kind::Source, Template { cause: Some(&names[source]), ..Template::default() });
        }
        Event::Verified { path, uid, hash, deleted } => {
            say_entry(shared, me, Kind::Verified, &path, (uid, hash, deleted));
        }
        Event::Applied { path, uid, hash, deleted } => {
            say_entry(shared, me, Kind::Applied, &path, (uid, hash, deleted));
        }
        Event::Blocked { path, cause } => {
            let about = Template { path: Some(path.as_str()), cause: Some(&cause), ..Template::default() };
            shared.say(me, Kind::Blocked, about);
        }
        Event::Problem { cause } => {
            shared.say(me, Kind::Error, Template { cause: Some(&cause), ..Template::default() });
        }
        Event::Current { snapshot } => {
            let as_of = snapshot.as_of_us.to_string();
            shared.say(me, Kind::Current, Template { cause: Some(&as_of), ..Template::default() });
        }
        _ => {}
    }
}
