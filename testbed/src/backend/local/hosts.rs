//! All hosts of a run on this machine: storage points and receivers, by name, and what faults do to them.

use super::{
    cluster::{ClusterError, LocalCluster},
    process::{Launch, Process, ProcessError, Readiness, stop_all},
};
use crate::{
    backend::Stop,
    faults::FaultKind,
    system::{Program, receive_args},
    trace::{Kind, Recorder, Template, Text},
};
use acms_engine::protocol::Prefix;
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// A receiver process and its directory.
#[derive(Debug)]
pub struct Receiver {
    /// The process.
    pub process: Process,
    /// What it keeps equal to the latest publications.
    pub dir: PathBuf,
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
}

impl Receiver {
    /// Receiver `number`, not started, with its directory and its log below `home`.
    pub fn new(
        number: u32,
        home: &Path,
        options: &ReceiverOptions,
        recorder: &Recorder,
    ) -> Result<Receiver, ClusterError> {
        let name = format!("receiver{number}");
        let dir = home.join(&name);
        fs::create_dir_all(&dir).map_err(|source| ClusterError::Io { path: dir.clone(), source })?;
        let launch = Launch {
            name: name.as_str().into(),
            program: options.program.clone(),
            args: receive_args(&name, &options.sources, &options.subscriptions, options.poll, &dir),
            env: options.env.clone(),
            log: home.join(format!("{name}.log")),
        };
        let process = Process::new(launch, Some(recorder.clone()));
        for prefix in &options.subscriptions {
            let subscribed = Template { path: Some(prefix.as_str()), ..Template::default() };
            recorder.note(process.name(), 0, Kind::Subscribe, subscribed);
        }
        Ok(Receiver { process, dir })
    }
}

/// Storage points and receivers of a run.
#[derive(Debug)]
pub struct Hosts {
    /// The storage points.
    pub cluster: LocalCluster,
    /// The receivers.
    pub receivers: Vec<Receiver>,
    /// Faults that have begun and not ended.
    active: Vec<(FaultKind, String)>,
}

impl Hosts {
    /// A cluster without receivers yet.
    pub fn new(cluster: LocalCluster) -> Hosts {
        Hosts { cluster, receivers: Vec::new(), active: Vec::new() }
    }

    /// Starts `count` receivers; at return all follow a source.
    pub fn start_receivers(
        &mut self,
        count: u32,
        home: &Path,
        options: &ReceiverOptions,
        recorder: &Recorder,
        stop: &Stop,
    ) -> Result<(), ClusterError> {
        let first = self.receivers.len() as u32 + 1;
        let mut readiness = Vec::new();
        for number in first..first + count {
            if stop.is_requested() {
                return Err(ProcessError::Interrupted.into());
            }
            let mut receiver = Receiver::new(number, home, options, recorder)?;
            readiness.push(receiver.process.start()?);
            self.receivers.push(receiver);
        }
        for ready in readiness {
            ready.wait(Duration::from_secs(60), Some(stop))?;
        }
        Ok(())
    }

    /// Names of the receivers that run.
    pub fn live_receivers(&self) -> Vec<Text> {
        let live = self.receivers.iter().filter(|receiver| receiver.process.is_running());
        live.map(|receiver| Text::clone(receiver.process.name())).collect()
    }

    /// All processes.
    pub fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        self.cluster.processes().chain(self.receivers.iter_mut().map(|receiver| &mut receiver.process))
    }

    /// The process called `host`.
    pub fn process(&mut self, host: &str) -> Result<&mut Process, ProcessError> {
        let unknown = || ProcessError::NotRunning(host.to_owned());
        self.processes().find(|process| &**process.name() == host).ok_or_else(unknown)
    }

    /// Begins a fault; at return it has had its effect.
    pub fn begin(&mut self, kind: FaultKind, host: &str) -> Result<(), ProcessError> {
        let process = self.process(host)?;
        match kind {
            FaultKind::Kill => process.kill()?,
            FaultKind::Pause => process.pause()?,
            FaultKind::Restart => process.stop_gracefully(Duration::from_secs(10))?,
            other => unreachable!("a scenario with {other} is refused for this backend"),
        }
        self.active.push((kind, host.to_owned()));
        Ok(())
    }

    /// Undoes a fault; a process that was started again has still to become ready.
    pub fn undo(&mut self, kind: FaultKind, host: &str) -> Result<Option<Readiness>, ProcessError> {
        let process = self.process(host)?;
        let readiness = match kind {
            FaultKind::Pause => {
                process.resume()?;
                None
            }
            _ => Some(process.start()?),
        };
        if let Some(undone) = self.active.iter().position(|active| active.0 == kind && active.1 == host) {
            self.active.remove(undone);
        }
        Ok(readiness)
    }

    /// Records processes that ended by themselves; whether there were any.
    pub fn note_ended(&mut self) -> bool {
        self.processes().map(Process::note_if_ended).fold(false, |any, ended| any | ended)
    }

    /// Ends all processes: SIGTERM, and SIGKILL after `grace`.
    pub fn stop(&mut self, grace: Duration) {
        for process in self.processes() {
            process.note_usage();
        }
        stop_all(self.processes(), grace);
    }
}
