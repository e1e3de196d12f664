//! All hosts of a run on this machine: storage points, caches and receivers, by name, and what keeps them from running.

use super::{
    cluster::{ClusterError, LocalCluster},
    disk::Disk,
    process::{Launch, Place, Process, ProcessError, Readiness, stop_all},
};
use crate::{
    backend::{Stop, docker::Container},
    system::{Program, cache_args, receive_args},
    trace::{Kind, Recorder, Template, Text},
};
use acms_engine::protocol::Prefix;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Receivers have so long to follow a source, caches to serve.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// A process that is asked to end has so long.
const END_WITHIN: Duration = Duration::from_secs(10);

/// A process with one receiver, or several, and where they keep their files.
#[derive(Debug)]
pub struct Receivers {
    /// The process.
    pub process: Process,
    /// What each of its receivers keeps equal to the latest publications.
    pub dirs: Vec<PathBuf>,
}

/// What receivers are made of.
#[derive(Clone, Debug)]
pub struct ReceiverOptions {
    /// How to start `acms`.
    pub program: Program,
    /// URLs of what they may follow.
    pub sources: Vec<String>,
    /// What they subscribe to.
    pub subscriptions: Vec<Prefix>,
    /// They read the snapshot this often instead of following changes.
    pub poll: Option<Duration>,
    /// Variables beside the testbed's own.
    pub env: Vec<(OsString, OsString)>,
    /// Where they run.
    pub place: Place,
    /// Their disk, if that may be in trouble.
    pub disk: Option<Disk>,
}

impl ReceiverOptions {
    /// Receivers that follow `sources`, with defaults.
    pub fn new(program: Program, sources: Vec<String>, subscriptions: Vec<Prefix>) -> ReceiverOptions {
        let (poll, env, place, disk) = (None, Vec::new(), Place::Here, None);
        ReceiverOptions { program, sources, subscriptions, poll, env, place, disk }
    }
}

/// What a cache is made of.
#[derive(Clone, Debug)]
pub struct CacheOptions {
    /// How to start `acms`.
    pub program: Program,
    /// URLs of what it pulls from.
    pub sources: Vec<String>,
    /// Where it serves.
    pub listen: SocketAddr,
    /// Where it runs.
    pub place: Place,
}

impl Receivers {
    /// The receivers `numbers` in one process, not started, with their directories and their log below `home`.
    pub fn new(
        numbers: std::ops::Range<u32>,
        home: &Path,
        options: &ReceiverOptions,
        recorder: &Recorder,
    ) -> Result<Receivers, ClusterError> {
        let members: Vec<Text> = numbers.clone().map(|number| format!("receiver{number}").into()).collect();
        let name = Text::clone(&members[0]);
        let dir = home.join(&*name);
        let is_one = members.len() == 1;
        let within = |at: usize| if is_one { dir.clone() } else { dir.join((at + 1).to_string()) };
        let dirs: Vec<PathBuf> = (0..members.len()).map(within).collect();
        for dir in &dirs {
            fs::create_dir_all(dir).map_err(|source| ClusterError::Io { path: dir.clone(), source })?;
        }
        let ReceiverOptions { program, sources, subscriptions, poll, env, place, disk } = options.clone();
        let count = (!is_one).then_some(members.len() as u32);
        let launch = Launch {
            args: receive_args(&name, &sources, &subscriptions, poll, count, &dir),
            log: home.join(format!("{name}.log")),
            name,
            members,
            program,
            env,
            place,
            disk,
        };
        let process = Process::new(launch, Some(recorder.clone()));
        for (name, prefix) in process.names().iter().flat_map(|name| subscriptions.iter().map(move |it| (name, it))) {
            let subscribed = Template { path: Some(prefix.as_str()), ..Template::default() };
            recorder.note(name, 0, Kind::Subscribe, subscribed);
        }
        Ok(Receivers { process, dirs })
    }
}

/// Storage points, caches and receivers of a run.
#[derive(Debug)]
pub struct Hosts {
    /// The storage points.
    pub cluster: LocalCluster,
    /// The caches.
    pub caches: Vec<Process>,
    /// The receivers.
    pub receivers: Vec<Receivers>,
    /// How many faults keep a process down.
    held_down: BTreeMap<String, u32>,
    /// How many faults keep it from going on.
    held_still: BTreeMap<String, u32>,
    /// All have been stopped; faults that come later find nobody.
    is_over: bool,
}

impl Hosts {
    /// A cluster without caches and receivers yet.
    pub fn new(cluster: LocalCluster) -> Hosts {
        let (held_down, held_still) = (BTreeMap::new(), BTreeMap::new());
        Hosts { cluster, caches: Vec::new(), receivers: Vec::new(), held_down, held_still, is_over: false }
    }

    /// Starts `count` receivers, `per_process` to a process, each process with the options of its first; at return all
    /// follow a source.
    pub fn start_receivers(
        &mut self,
        count: u32,
        per_process: u32,
        home: &Path,
        options: impl Fn(u32) -> ReceiverOptions,
        recorder: &Recorder,
        stop: &Stop,
    ) -> Result<(), ClusterError> {
        let first = self.receivers.iter().map(|receivers| receivers.dirs.len() as u32).sum::<u32>() + 1;
        let (mut readiness, last) = (Vec::new(), first + count);
        for number in (first..last).step_by(per_process.max(1) as usize) {
            if stop.is_requested() {
                return Err(ProcessError::Interrupted.into());
            }
            let numbers = number..last.min(number + per_process.max(1));
            let mut receivers = Receivers::new(numbers, home, &options(number), recorder)?;
            readiness.push(receivers.process.start()?);
            self.receivers.push(receivers);
        }
        for ready in readiness {
            ready.wait(READY_WITHIN, Some(stop))?;
        }
        Ok(())
    }

    /// Starts a cache; at return it serves.
    pub fn start_cache(
        &mut self,
        home: &Path,
        options: CacheOptions,
        recorder: &Recorder,
        stop: &Stop,
    ) -> Result<(), ClusterError> {
        let name = format!("cache{}", self.caches.len() + 1);
        let store = home.join(&name);
        fs::create_dir_all(&store).map_err(|source| ClusterError::Io { path: store.clone(), source })?;
        let launch = Launch {
            args: cache_args(&options.sources, options.listen, &store),
            log: home.join(format!("{name}.log")),
            name: name.into(),
            members: Vec::new(),
            program: options.program,
            env: Vec::new(),
            place: options.place,
            disk: None,
        };
        let mut process = Process::new(launch, Some(recorder.clone()));
        let ready = process.start();
        self.caches.push(process);
        Ok(ready?.wait(READY_WITHIN, Some(stop))?)
    }

    /// Names of the receivers that run.
    pub fn live_receivers(&self) -> Vec<Text> {
        let live = self.receivers.iter().filter(|receivers| receivers.process.is_running());
        live.flat_map(|receivers| receivers.process.names()).cloned().collect()
    }

    /// All processes.
    pub fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        let receivers = self.receivers.iter_mut().map(|receivers| &mut receivers.process);
        self.cluster.processes().chain(&mut self.caches).chain(receivers)
    }

    /// The process called `host`.
    pub fn process(&mut self, host: &str) -> Result<&mut Process, ProcessError> {
        let unknown = || ProcessError::NotRunning(host.to_owned());
        self.processes().find(|process| &**process.name() == host).ok_or_else(unknown)
    }

    /// Ends a host's process, and keeps it down until [`Hosts::let_up`]; at return it is gone. False if it was down before.
    pub fn take_down(&mut self, host: &str, how: Ending) -> Result<bool, ProcessError> {
        *self.held_down.entry(host.to_owned()).or_default() += 1;
        let is_still = self.held_still.contains_key(host);
        let process = self.process(host)?;
        if !process.is_running() {
            return Ok(false);
        }
        match how {
            Ending::Killed => process.kill()?,
            Ending::Asked => {
                if is_still {
                    // What stands still cannot do what it is asked.
                    process.resume()?;
                }
                process.stop_gracefully(END_WITHIN)?;
            }
        }
        Ok(true)
    }

    /// Starts it again, unless something else keeps it down. It has still to become ready.
    pub fn let_up(&mut self, host: &str) -> Result<Option<Readiness>, ProcessError> {
        if release(&mut self.held_down, host) && !self.is_over {
            return self.process(host)?.start().map(Some);
        }
        Ok(None)
    }

    /// The container that a host's process runs in, or will.
    pub(super) fn container(&mut self, host: &str) -> Result<Option<Arc<Container>>, ProcessError> {
        let is_over = self.is_over;
        Ok(match self.process(host)?.place() {
            Place::In(container) if !is_over => Some(Arc::clone(container)),
            _ => None,
        })
    }

    /// Notes that a host's process has ended for a reason, and keeps it down until [`Hosts::let_up`]. False if it runs.
    pub(super) fn take_end(&mut self, host: &str) -> Result<bool, ProcessError> {
        let has_ended = self.process(host)?.note_if_ended_as("killed");
        if has_ended {
            *self.held_down.entry(host.to_owned()).or_default() += 1;
        }
        Ok(has_ended)
    }

    /// Stops a host's process from running until [`Hosts::go_on`]; at return it stands still. False if it is down.
    pub fn hold_still(&mut self, host: &str) -> Result<bool, ProcessError> {
        *self.held_still.entry(host.to_owned()).or_default() += 1;
        let process = self.process(host)?;
        if process.is_running() { process.pause().map(|()| true) } else { Ok(false) }
    }

    /// Lets it go on, unless something else keeps it still.
    pub fn go_on(&mut self, host: &str) -> Result<(), ProcessError> {
        let is_free = release(&mut self.held_still, host);
        let process = self.process(host)?;
        if is_free && process.is_running() { process.resume() } else { Ok(()) }
    }

    /// Records processes that ended by themselves; whether there were any.
    pub fn note_ended(&mut self) -> bool {
        self.processes().map(Process::note_if_ended).fold(false, |any, ended| any | ended)
    }

    /// Ends all processes: SIGTERM, and SIGKILL after `grace`.
    pub fn stop(&mut self, grace: Duration) {
        self.is_over = true;
        for process in self.processes() {
            process.note_usage();
        }
        stop_all(self.processes(), grace);
    }
}

/// How a fault ends a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// By SIGKILL.
    Killed,
    /// By SIGTERM.
    Asked,
}

/// One fault less holds `host`; whether none does now.
fn release(held: &mut BTreeMap<String, u32>, host: &str) -> bool {
    let Some(count) = held.get_mut(host) else { return false };
    *count -= 1;
    if *count > 0 {
        return false;
    }
    held.remove(host);
    true
}
