//! `acms receive` as a process: one event loop for the sources and the receiver's protocol, and one thread that puts
//! entries in place, so that the disk keeps no delivery waiting.

mod apply;
mod connections;
mod disk;
mod files;
mod staging;
mod state;
mod tree;

pub use apply::{Applier, OpenError};
pub use disk::{Disk, DiskError, Line};
pub use state::{StateError, format_line, line as state_line, reached_line};

use crate::{
    client::Url,
    protocol::{
        Hash, Path, Prefix,
        receiver::{Applied, BatchId, Change, Event, Output, Reached, Receiver, ReceiverConfig, ReceiverConfigError},
    },
    runtime::{clock, events::EventStream, process, signal::StopSignals},
};
use connections::Connections;
use files::FileDisk;
use mio::{Events, Poll, Token, Waker};
use staging::StagingArea;
use std::{
    io,
    path::PathBuf,
    sync::mpsc::{Receiver as Incoming, Sender, channel},
    thread::JoinHandle,
    time::Duration,
};

const STOP: Token = Token(0);
const APPLIED: Token = Token(1);
const FIRST_CONNECTION: usize = 2;
/// Enough for paths and system calls; a fleet's receivers run by the hundred on one machine.
const APPLY_STACK_LEN: usize = 256 << 10;

/// What to keep, and where.
#[derive(Debug)]
pub struct Options {
    /// Storage points or caches.
    pub sources: Vec<Url>,
    /// What is subscribed to.
    pub prefixes: Vec<Prefix>,
    /// The directory to keep.
    pub into: PathBuf,
    /// The receiver's name; none: made from host and directory.
    pub id: Option<String>,
    /// Read the snapshot this often instead of following changes.
    pub poll: Option<Duration>,
    /// End once everything of the first snapshot is applied.
    pub once: bool,
}

/// Why a receiver cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The directory cannot be kept.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The options make no receiver.
    #[error(transparent)]
    Config(#[from] ReceiverConfigError),
    /// The directory holds what another cluster published.
    #[error("{directory} is of the cluster {held:?}, and all sources are of {found:?}; choose another directory")]
    OtherCluster {
        /// Which directory.
        directory: String,
        /// The cluster of what it holds.
        held: String,
        /// The cluster of the sources.
        found: String,
    },
    /// The system refused something that an event loop needs.
    #[error("the event loop cannot go on: {0}")]
    System(#[from] io::Error),
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// Everything of the first snapshot is applied.
    Current,
    /// The same, but for some paths that cannot be put in place.
    Blocked,
}

type Batch = (BatchId, Vec<Change>, Option<Reached>);
type Results = (BatchId, Vec<(Path, Applied)>, bool);

struct Loop {
    poll: Poll,
    receiver: Receiver,
    connections: Connections,
    sources: Vec<Url>,
    events: EventStream,
    once: bool,
    directory: PathBuf,
    ended: Option<Result<Ended, ReceiveError>>,
    batches: Option<Sender<Batch>>,
    results: Incoming<Results>,
    applier: Option<JoinHandle<()>>,
}

/// Runs until `stop` says so, the reader of the events is gone, or, with `once`, everything is applied.
pub fn run(options: Options, events: EventStream, stop: &StopSignals) -> Result<Ended, ReceiveError> {
    let (applier, adopted) = Applier::open(FileDisk::open(&options.into)?)?;
    let poll = Poll::new()?;
    stop.register(poll.registry(), STOP)?;
    let id = options.id.unwrap_or_else(|| default_id(&options.into));
    let config = ReceiverConfig {
        sources: options.sources.iter().map(Url::to_string).collect(),
        prefixes: options.prefixes,
        poll: options.poll,
        id,
    };
    let receiver = Receiver::new(config, process::random_seed()?, applier.recovered())?;
    let staging = StagingArea::new(applier.disk().staging_directory());
    let connections = Connections::new(options.sources.clone(), FIRST_CONNECTION, staging);
    let waker = Waker::new(poll.registry(), APPLIED)?;
    let (batches, todo) = channel();
    let (done, results) = channel();
    let applier = std::thread::Builder::new()
        .name("apply".into())
        .stack_size(APPLY_STACK_LEN)
        .spawn(move || apply_all(applier, &todo, &done, &waker))?;
    let mut running = Loop {
        poll,
        receiver,
        connections,
        sources: options.sources,
        events,
        once: options.once,
        directory: options.into,
        ended: None,
        batches: Some(batches),
        results,
        applier: Some(applier),
    };
    running.events.emit("ready", |_| {});
    for (path, held) in &adopted {
        running.emit_entry("applied", path, held.uid, held.hash, held.flags.deleted);
    }
    let result = running.run(stop);
    running.finish();
    result
}

fn apply_all(mut applier: Applier<FileDisk>, todo: &Incoming<Batch>, done: &Sender<Results>, waker: &Waker) {
    while let Ok((id, changes, reached)) = todo.recv() {
        let (results, is_noted) = applier.apply(changes, reached);
        if done.send((id, results, is_noted)).is_err() || waker.wake().is_err() {
            return;
        }
    }
}

/// Differs between receivers, stays the same for one.
fn default_id(into: &std::path::Path) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let into = std::fs::canonicalize(into).unwrap_or_else(|_| into.to_owned());
    format!("{}:{}", host.trim(), into.display())
}

impl Loop {
    fn run(&mut self, stop: &StopSignals) -> Result<Ended, ReceiveError> {
        let mut events = Events::with_capacity(64);
        self.receiver.handle_timeout(clock::monotonic());
        loop {
            self.turn();
            if let Some(ended) = self.ended.take() {
                return ended;
            }
            if self.events.is_broken() {
                return Ok(Ended::Stopped);
            }
            let deadlines = [self.receiver.poll_timeout(), self.connections.next_deadline()];
            let deadline = deadlines.into_iter().flatten().min();
            let timeout = deadline.map(|deadline| deadline.since(clock::monotonic()));
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            let now = clock::monotonic();
            for event in &events {
                match event.token() {
                    STOP if stop.take() => return Ok(Ended::Stopped),
                    STOP => {}
                    APPLIED => self.take_results(),
                    _ => self.connections.handle_event(self.poll.registry(), now, event),
                }
            }
            self.connections.expire(self.poll.registry(), now);
            if self.receiver.poll_timeout().is_some_and(|at| at <= now) {
                self.receiver.handle_timeout(now);
            }
        }
    }

    /// Carries everything out that follows from what has happened.
    fn turn(&mut self) {
        loop {
            while let Some(output) = self.receiver.poll_output() {
                self.carry_out(output);
            }
            let outcomes = self.connections.take_outcomes();
            if outcomes.is_empty() {
                return;
            }
            let now = clock::monotonic();
            for (id, outcome) in outcomes {
                match outcome {
                    Ok((status, body)) => self.receiver.handle_response(now, id, status, body),
                    Err(failure) => self.receiver.handle_failure(now, id, failure),
                }
            }
        }
    }

    fn take_results(&mut self) {
        while let Ok((id, results, is_noted)) = self.results.try_recv() {
            let applied = results.iter().filter(|(_, result)| *result == Applied::Done).count();
            if !self.events.is_on() && !results.is_empty() {
                tracing::info!("{applied} of {} entries are in place", results.len());
            }
            self.receiver.handle_applied(clock::monotonic(), id, results, is_noted);
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Request(request) => {
                self.connections.begin(self.poll.registry(), clock::monotonic(), request);
            }
            Output::CancelRequests => self.connections.cancel_all(),
            Output::Apply { id, changes, reached } => {
                if self.batches.as_ref().is_none_or(|batches| batches.send((id, changes, reached)).is_err()) {
                    tracing::error!("the thread that applies entries has ended");
                    self.ended = Some(Ok(Ended::Blocked));
                }
            }
            Output::Discard(id) => self.connections.staging.discard(id),
            Output::Event(event) => self.tell(event),
        }
    }

    fn tell(&mut self, event: Event) {
        match event {
            Event::Source { source } => {
                let url = &self.sources[source];
                self.events.emit("source", |fields| {
                    fields.plain("source", url);
                });
                tracing::debug!("source {url}");
            }
            Event::Verified { path, uid, hash, deleted } => self.emit_entry("verified", &path, uid, hash, deleted),
            Event::Applied { path, uid, hash, deleted } => self.emit_entry("applied", &path, uid, hash, deleted),
            Event::Blocked { path, cause } => {
                self.events.emit("blocked", |fields| {
                    fields.plain("path", &path).text("cause", &cause);
                });
                tracing::warn!("{path} cannot be put in place: {cause}");
            }
            Event::Problem { cause } => {
                self.events.emit("error", |fields| {
                    fields.text("cause", &cause);
                });
                tracing::warn!("{cause}");
            }
            Event::Current { snapshot } => {
                self.events.emit("current", |fields| {
                    fields.number("sp", snapshot.sp.into()).plain("incarnation", snapshot.incarnation);
                    fields.number("sequence", snapshot.sequence).number("as_of_us", snapshot.as_of_us);
                });
                if self.once {
                    self.ended = Some(Ok(if self.receiver.has_blocked() { Ended::Blocked } else { Ended::Current }));
                }
            }
            Event::OtherCluster { held, found } => {
                let directory = self.directory.display().to_string();
                self.ended = Some(Err(ReceiveError::OtherCluster { directory, held, found }));
            }
        }
    }

    fn emit_entry(&mut self, kind: &str, path: &Path, uid: crate::protocol::Uid, hash: Hash, deleted: bool) {
        self.events.emit(kind, |fields| {
            fields.plain("path", path).plain("uid", uid).plain("hash", hash);
            if deleted {
                fields.flag("deleted", true);
            }
        });
    }

    /// Lets the batch at hand end.
    fn finish(&mut self) {
        self.events.emit("stopping", |_| {});
        self.connections.cancel_all();
        self.batches = None;
        if let Some(applier) = self.applier.take() {
            let _ = applier.join();
        }
        self.take_results();
        while let Some(output) = self.receiver.poll_output() {
            if let Output::Event(event) = output {
                self.tell(event);
            }
        }
    }
}
