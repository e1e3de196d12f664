//! The receivers of a process on one event loop.

use super::{
    Ended, Options, ReceiveError,
    alarm::Alarm,
    appliers::Appliers,
    apply::Applier,
    connections::{Connections, TOKENS},
    files::FileDisk,
    hook::Hook,
    member::{Common, Keeper, Member},
    staging::StagingArea,
    status::StatusFile,
    watch::Watch,
};
use crate::{
    client::Url,
    protocol::{
        Duration, Instant,
        receiver::{FEEDS_MAX, OBJECTS_IN_FLIGHT_MAX, Receiver, ReceiverConfig, Recovered},
    },
    runtime::{clock, events::EventStream, process, signal::StopSignals, upstream::Io, wait::wait},
};
use mio::{Events, Poll, Token, Waker};
use std::{
    collections::BTreeSet,
    io,
    path::{Path as FilePath, PathBuf},
    sync::Arc,
};

const STOP: Token = Token(0);
const WAKE: Token = Token(1);
const FIRST_CONNECTION: usize = 2;

/// Receivers of one process do not all begin at once: so much later each.
const BEGIN_AFTER: Duration = Duration::from_micros(500);
/// With more receivers than this, their directories are only open while something is put in place.
const OPEN_DIRECTORIES_MAX: usize = 64;
/// How often events that wait for a slow reader are tried.
const FLUSH_EVERY: Duration = Duration::from_millis(20);
/// Files that a process has open beside those of its receivers, and then some.
const OPEN_FILES_BESIDE: u64 = 64;
/// Files of an open directory.
const OPEN_FILES_OF_DIRECTORY: u64 = 8;

/// What a process may have open for each of its receivers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Budget {
    /// Requests that a source holds.
    feeds: usize,
    /// Requests at once beside those that a source holds.
    unheld_max: usize,
    /// Directories are closed between batches.
    rests: bool,
}

impl Budget {
    /// For `count` receivers of so many feeds each, within `limit` open files.
    fn new(count: usize, feeds: usize, keeps_files: bool, limit: u64) -> Result<Budget, ReceiveError> {
        let rests = keeps_files && count > OPEN_DIRECTORIES_MAX;
        let directory = match (keeps_files, rests) {
            (false, _) => 0,
            (true, true) => 1,
            (true, false) => OPEN_FILES_OF_DIRECTORY,
        };
        let room = (limit.saturating_sub(OPEN_FILES_BESIDE) / count as u64).saturating_sub(directory + feeds as u64);
        if room == 0 {
            let needed = count as u64 * (directory + feeds as u64 + 1) + OPEN_FILES_BESIDE;
            return Err(ReceiveError::OpenFiles { count, needed, limit });
        }
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        Ok(Budget { feeds, unheld_max: room.min(OBJECTS_IN_FLIGHT_MAX + 1), rests })
    }
}

pub(super) struct Fleet {
    poll: Poll,
    io: Io,
    events: EventStream,
    appliers: Appliers,
    members: Vec<Member>,
    /// When each receiver has something to do.
    timers: BTreeSet<(Instant, usize)>,
    once: bool,
    running: usize,
}

impl Fleet {
    /// Opens all directories.
    pub(super) fn open(options: Options, mut events: EventStream, stop: &StopSignals) -> Result<Fleet, ReceiveError> {
        let count = options.count.unwrap_or(1) as usize;
        let feeds = options.prefixes.len().clamp(1, FEEDS_MAX);
        let budget = Budget::new(count, feeds, options.into.is_some(), process::raise_open_files())?;
        let poll = Poll::new()?;
        stop.register(poll.registry(), STOP)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let registry = poll.registry().try_clone()?;
        let io = Io::new(options.sources.clone(), options.tls.clone(), registry, Arc::clone(&waker));
        let threads = if options.into.is_some() { count } else { 0 };
        let appliers = Appliers::start(threads, budget.rests, &waker)?;
        let mut members = Vec::with_capacity(count);
        for at in 0..count {
            members.push(open_member(&options, at, budget, &waker, &mut events)?);
        }
        if let Some(into) = options.into.as_deref().filter(|_| budget.rests) {
            nix::unistd::syncfs(std::fs::File::open(into)?).map_err(io::Error::from)?;
        }
        let (timers, once) = (BTreeSet::new(), options.once);
        Ok(Fleet { poll, io, events, appliers, members, timers, once, running: count })
    }

    /// Runs until `stop` says so, the reader of the events is gone, or all receivers have ended.
    pub(super) fn run(&mut self, stop: &StopSignals) -> Result<Ended, ReceiveError> {
        let mut events = Events::with_capacity(1024);
        let now = clock::monotonic();
        for at in 0..self.members.len() {
            self.set_due(at, Some(now.after(BEGIN_AFTER * at as u32)));
        }
        loop {
            if self.running == 0 {
                return self.how_all_ended();
            }
            if self.events.is_broken() {
                return Ok(Ended::Stopped);
            }
            let deadline = self.timers.first().map(|(at, _)| *at);
            let mut timeout = deadline.map(|deadline| deadline.since(clock::monotonic()));
            if self.events.flush() {
                timeout = Some(timeout.map_or(FLUSH_EVERY, |timeout| timeout.min(FLUSH_EVERY)));
            }
            wait(&mut self.poll, &mut events, timeout)?;
            let now = clock::monotonic();
            for event in &events {
                match event.token() {
                    STOP if stop.take() => return Ok(Ended::Stopped),
                    STOP => {}
                    WAKE => {
                        self.io.addresses.take_found(now);
                        self.take_applied();
                        self.take_ran();
                    }
                    Token(token) => {
                        let at = (token - FIRST_CONNECTION) / TOKENS;
                        self.with(at, |member, io| member.connections.handle_event(io, now, event));
                    }
                }
            }
            self.handle_due(now);
        }
    }

    /// Lets the batches at hand end.
    pub(super) fn finish(&mut self) {
        self.members.iter_mut().for_each(|member| member.connections.cancel_all(clock::monotonic()));
        self.appliers.finish();
        let is_quiet = self.events.is_on();
        while let Some(done) = self.appliers.take_done() {
            self.members[done.member].handle_applied(done, is_quiet);
        }
        let mut common = Common { events: &mut self.events, appliers: &self.appliers, once: self.once };
        self.members.iter_mut().for_each(|member| member.finish(&mut common));
    }

    /// Does something with a receiver, and all that follows from it.
    fn with(&mut self, at: usize, what: impl FnOnce(&mut Member, &mut Io)) {
        let Some(member) = self.members.get_mut(at).filter(|member| member.ended.is_none()) else { return };
        let mut common = Common { events: &mut self.events, appliers: &self.appliers, once: self.once };
        what(member, &mut self.io);
        member.turn(&mut self.io, &mut common);
        if member.ended.is_some() {
            member.connections.cancel_all(clock::monotonic());
            self.running = if matches!(member.ended, Some(Err(_))) { 0 } else { self.running - 1 };
        }
        let due = member.next_due().filter(|_| member.ended.is_none());
        self.set_due(at, due);
    }

    fn set_due(&mut self, at: usize, due: Option<Instant>) {
        let member = &mut self.members[at];
        if member.due == due {
            return;
        }
        if let Some(before) = std::mem::replace(&mut member.due, due) {
            self.timers.remove(&(before, at));
        }
        self.timers.extend(due.map(|due| (due, at)));
    }

    /// What is due by `now`, once that is handled which had come by then.
    fn handle_due(&mut self, now: Instant) {
        while let Some((_, at)) = self.timers.first().copied().filter(|(due, _)| *due <= now) {
            self.set_due(at, None);
            self.with(at, |member, io| member.handle_due(io, now));
        }
    }

    fn take_applied(&mut self) {
        let is_quiet = self.events.is_on();
        while let Some(done) = self.appliers.take_done() {
            self.with(done.member, |member, _| member.handle_applied(done, is_quiet));
        }
    }

    /// Commands may have ended; only a single receiver has any.
    fn take_ran(&mut self) {
        if self.members.len() == 1 {
            self.with(0, |_, _| {});
        }
    }

    fn how_all_ended(&mut self) -> Result<Ended, ReceiveError> {
        let mut all = Ended::Current;
        for ended in self.members.iter_mut().filter_map(|member| member.ended.take()) {
            let ended = ended?;
            if ended != Ended::Current {
                all = ended;
            }
        }
        Ok(all)
    }
}

/// Opens the receiver at this place of the process.
fn open_member(
    options: &Options,
    at: usize,
    budget: Budget,
    waker: &Arc<Waker>,
    events: &mut EventStream,
) -> Result<Member, ReceiveError> {
    let number = options.count.map(|_| at as u64 + 1);
    let into = options.into.as_ref().map(|into| match number {
        Some(number) => into.join(number.to_string()),
        None => into.clone(),
    });
    let id = match (&options.id, number) {
        (Some(id), Some(number)) => format!("{id}/{number}"),
        (Some(id), None) => id.clone(),
        (None, _) => default_id(into.as_deref(), number),
    };
    let (mut recovered, mut adopted, mut keeper) = (Recovered::default(), Vec::new(), Keeper::Memory);
    let mut staged_in = None;
    if let Some(into) = &into {
        let (mut applier, lines) = Applier::open(FileDisk::open(into)?)?;
        let spoilt = if options.verify { applier.verify() } else { 0 };
        if spoilt > 0 {
            tracing::warn!("{spoilt} files of {} were changed by others and are fetched again", into.display());
        }
        (recovered, adopted, staged_in) = (applier.recovered(), lines, Some(applier.disk().staging_directory()));
        if budget.rests {
            applier.disk_mut().rest();
        } else {
            applier.disk().sync_made()?;
        }
        keeper = Keeper::Files(Some(Box::new(applier)));
    }
    let config = ReceiverConfig {
        sources: options.sources.iter().map(Url::to_string).collect(),
        prefixes: options.prefixes.clone(),
        poll: options.poll,
        id,
    };
    let staging = StagingArea::new(staged_in);
    let receiver = Receiver::new(config, process::random_seed()?, recovered)?;
    let watch = watch(options, into.as_deref(), &receiver, waker);
    let member = Member {
        at,
        number,
        directory: into.unwrap_or_default(),
        receiver,
        watch,
        connections: Connections::new(FIRST_CONNECTION + at * TOKENS, budget.feeds, budget.unheld_max, staging),
        keeper,
        due: None,
        ending: None,
        ended: None,
    };
    member.begin(&adopted, events);
    Ok(member)
}

/// What the application wants to see of a receiver.
fn watch(options: &Options, into: Option<&FilePath>, receiver: &Receiver, waker: &Arc<Waker>) -> Watch {
    let mut watch = Watch::new(into.map(FilePath::to_owned), receiver.config().id.clone());
    let hook = |command: &String| Hook::new(command.clone(), options.command_limit, Arc::clone(waker));
    if let Some(after) = options.stale_after {
        watch.on_stale(Alarm::new(after, clock::now()), options.on_stale.as_ref().map(hook));
    }
    if let Some(command) = &options.on_change {
        watch.on_change(hook(command), receiver);
    }
    if let Some(into) = into.filter(|_| options.count.is_none()) {
        watch.keep_status(StatusFile::new(into));
    }
    watch
}

/// Differs between receivers, stays the same for one.
fn default_id(into: Option<&FilePath>, number: Option<u64>) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let place = match (into, number) {
        (Some(into), _) => std::fs::canonicalize(into).unwrap_or_else(|_| PathBuf::from(into)).display().to_string(),
        (None, Some(number)) => number.to_string(),
        (None, None) => std::process::id().to_string(),
    };
    format!("{}:{place}", host.trim())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn open_files_are_shared_out_and_too_few_are_told() {
        let budget = |count, feeds, keeps, limit| Budget::new(count, feeds, keeps, limit);
        let all = OBJECTS_IN_FLIGHT_MAX + 1;
        assert_eq!(budget(1, 1, true, 1024).unwrap(), Budget { feeds: 1, unheld_max: all, rests: false });
        assert_eq!(budget(5_000, 1, true, 20_000).unwrap(), Budget { feeds: 1, unheld_max: 1, rests: true });
        assert_eq!(budget(5_000, 1, false, 20_000).unwrap(), Budget { feeds: 1, unheld_max: 2, rests: false });
        let error = budget(5_000, 1, true, 4_096).unwrap_err().to_string();
        assert!(error.contains("15064 open files") && error.contains("4096"), "{error}");
    }
}
