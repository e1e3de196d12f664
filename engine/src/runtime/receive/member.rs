//! One receiver of a process: its protocol, its connections, and the directory that it keeps.

use super::watch::Watch;
use super::{
    Ended, ReceiveError,
    appliers::{Appliers, Done, Job},
    apply::Applier,
    connections::Connections,
    disk::Line,
    files::FileDisk,
};
use crate::{
    protocol::{
        Hash, Instant, Path, Uid,
        receiver::{Applied, BatchId, Change, Event, Output, Reached, Receiver},
    },
    runtime::{
        clock,
        events::{EventStream, Fields},
        upstream::Io,
    },
};
use std::path::PathBuf;

/// Where a receiver's entries go.
#[derive(Debug)]
pub(super) enum Keeper {
    /// Nowhere: what it holds is in its memory alone, as hashes.
    Memory,
    /// The files of a directory. The applier is away while a batch is applied.
    Files(Option<Box<Applier<FileDisk>>>),
}

/// What a receiver shares with the others of its process, beside [`Io`].
pub(super) struct Common<'a> {
    pub(super) events: &'a mut EventStream,
    pub(super) appliers: &'a Appliers,
    pub(super) once: bool,
}

/// A receiver.
#[derive(Debug)]
pub(super) struct Member {
    /// Its place in the process.
    pub(super) at: usize,
    /// What events call it; none if it is the only one.
    pub(super) number: Option<u64>,
    pub(super) directory: PathBuf,
    pub(super) receiver: Receiver,
    pub(super) connections: Connections,
    pub(super) keeper: Keeper,
    pub(super) watch: Watch,
    /// When it has something to do.
    pub(super) due: Option<Instant>,
    /// How it will end: nothing is followed any more, and commands are waited for.
    pub(super) ending: Option<Ended>,
    /// How it ended, if it did.
    pub(super) ended: Option<Result<Ended, ReceiveError>>,
}

impl Member {
    /// It is there, and goes on from what a crash had kept from its state.
    pub(super) fn begin(&self, adopted: &[Line], events: &mut EventStream) {
        events.emit("ready", |fields| self.sign(fields));
        for (path, held) in adopted {
            self.emit_entry(events, "applied", path, held.uid, held.hash, held.flags.deleted);
        }
    }

    /// When it has something to do next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        if self.ending.is_some() {
            return self.watch.due();
        }
        let all = [self.receiver.poll_timeout(), self.connections.next_deadline(), self.watch.due()];
        all.into_iter().flatten().min()
    }

    /// What is due by `now`.
    pub(super) fn handle_due(&mut self, io: &mut Io, now: Instant) {
        if self.ending.is_some() {
            return;
        }
        self.connections.expire(io, now);
        if self.receiver.poll_timeout().is_some_and(|at| at <= now) {
            self.receiver.handle_timeout(now);
        }
    }

    /// Carries everything out that follows from what has happened.
    pub(super) fn turn(&mut self, io: &mut Io, common: &mut Common<'_>) {
        if self.ending.is_none() {
            self.follow(io, common);
        }
        if self.ending.is_some() {
            self.connections.cancel_all(clock::monotonic());
            self.tell_rest(common);
        }
        self.watch.go_on(&self.receiver, common.events);
        if let Some(ended) = self.ending.filter(|_| self.ended.is_none() && !self.watch.is_busy()) {
            // A command that is not running although there is news has failed.
            let is_untold = ended == Ended::Current && self.watch.has_news();
            self.ended = Some(Ok(if is_untold { Ended::Untold } else { ended }));
        }
    }

    fn follow(&mut self, io: &mut Io, common: &mut Common<'_>) {
        loop {
            while let Some(output) = self.receiver.poll_output() {
                self.carry_out(common, output);
            }
            self.connections.begin_waiting(io, clock::monotonic());
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

    fn carry_out(&mut self, common: &mut Common<'_>, output: Output) {
        match output {
            Output::Request(request) => self.connections.ask(request),
            Output::CancelRequests => self.connections.cancel_all(clock::monotonic()),
            Output::Apply { id, changes, reached } => self.apply(common, id, changes, reached),
            Output::Discard(id) => self.connections.discard(id),
            Output::Event(event) => self.tell(common, event),
        }
    }

    fn apply(&mut self, common: &mut Common<'_>, id: BatchId, changes: Vec<Change>, reached: Option<Reached>) {
        match &mut self.keeper {
            Keeper::Memory => {
                let is_noted = reached.is_some();
                let results = changes.into_iter().map(|change| (change.path, Applied::Done)).collect();
                self.receiver.handle_applied(clock::monotonic(), id, results, is_noted);
            }
            Keeper::Files(applier) => {
                if !changes.is_empty() {
                    self.watch.before_apply(changes.iter().map(|change| &change.path));
                }
                let job = applier.take().map(|applier| Job { member: self.at, applier, id, changes, reached });
                if !job.is_some_and(|job| common.appliers.begin(job)) {
                    tracing::error!("the threads that apply entries have ended");
                    self.ended = Some(Ok(Ended::Blocked));
                }
            }
        }
    }

    /// A batch is over.
    pub(super) fn handle_applied(&mut self, done: Done, is_quiet: bool) {
        let Done { applier, id, results, is_noted, .. } = done;
        let applied = results.iter().filter(|(_, result)| *result == Applied::Done).count();
        if !is_quiet && !results.is_empty() {
            tracing::info!("{applied} of {} entries are in place", results.len());
        }
        self.keeper = Keeper::Files(Some(applier));
        self.watch.after_apply(&results);
        self.receiver.handle_applied(clock::monotonic(), id, results, is_noted);
    }

    /// Nothing more is asked or told but how the last batch has ended.
    pub(super) fn finish(&mut self, common: &mut Common<'_>) {
        self.tell_rest(common);
        self.watch.finish(&self.receiver);
        common.events.emit("stopping", |fields| self.sign(fields));
    }

    /// Tells what has happened. Whatever else the receiver wants is passed over.
    fn tell_rest(&mut self, common: &mut Common<'_>) {
        while let Some(output) = self.receiver.poll_output() {
            if let Output::Event(event) = output {
                self.tell(common, event);
            }
        }
    }

    fn sign(&self, fields: &mut Fields<'_>) {
        if let Some(number) = self.number {
            fields.number("receiver", number);
        }
    }

    fn tell(&mut self, common: &mut Common<'_>, event: Event) {
        let events = &mut *common.events;
        self.watch.note(&event, &self.receiver, events);
        match event {
            Event::Source { source } => {
                let url = &self.receiver.config().sources[source];
                events.emit("source", |fields| {
                    self.sign(fields);
                    fields.plain("source", url);
                });
                tracing::debug!("source {url}");
            }
            Event::Verified { path, uid, hash, deleted } => {
                self.emit_entry(events, "verified", &path, uid, hash, deleted);
            }
            Event::Applied { path, uid, hash, deleted } => {
                self.emit_entry(events, "applied", &path, uid, hash, deleted);
            }
            Event::Blocked { path, cause } => {
                events.emit("blocked", |fields| {
                    self.sign(fields);
                    fields.plain("path", &path).text("cause", &cause);
                });
                tracing::warn!("{path} cannot be put in place: {cause}");
            }
            Event::Problem { cause } => {
                events.emit("error", |fields| {
                    self.sign(fields);
                    fields.text("cause", &cause);
                });
                tracing::warn!("{cause}");
            }
            Event::Current { snapshot } => {
                events.emit("current", |fields| {
                    self.sign(fields);
                    fields.number("sp", snapshot.sp.into()).plain("incarnation", snapshot.incarnation);
                    fields.number("sequence", snapshot.sequence).number("as_of_us", snapshot.as_of_us);
                });
                if common.once {
                    let ended = if self.receiver.has_blocked() { Ended::Blocked } else { Ended::Current };
                    self.ending = self.ending.or(Some(ended));
                }
            }
            Event::OtherCluster { held, found } => {
                let directory = self.directory.display().to_string();
                self.ended = Some(Err(ReceiveError::OtherCluster { directory, held, found }));
            }
        }
    }

    fn emit_entry(&self, events: &mut EventStream, kind: &str, path: &Path, uid: Uid, hash: Hash, deleted: bool) {
        events.emit(kind, |fields| {
            self.sign(fields);
            fields.plain("path", path).plain("uid", uid).plain("hash", hash);
            if deleted {
                fields.flag("deleted", true);
            }
        });
    }
}
