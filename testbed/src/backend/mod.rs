//! What runs a scenario and brings back its trace.

pub(crate) mod clock;
pub mod docker;
pub mod local;
pub mod simulated;

use crate::{progress::Progress, scenario::Scenario, system::Program, trace::Sink};
use std::{net::Ipv4Addr, path::PathBuf, time::Duration};
use tokio::sync::watch;

/// Runs scenarios.
pub trait Backend {
    /// Its name in results.
    fn name(&self) -> &'static str;

    /// Runs `scenario` from beginning to end, gives every event to `sink` in the order of time, and leaves nothing
    /// behind. Returns notes: what a reader of the results should know.
    fn run(&self, scenario: &Scenario, context: &Context, sink: &mut dyn Sink) -> Result<Vec<String>, BackendError>;
}

/// What a run needs beside its scenario.
#[derive(Clone, Debug)]
pub struct Context {
    /// How to start `acms`.
    pub program: Program,
    /// Where people see how it goes.
    pub progress: Progress,
    /// Ends the run early.
    pub stop: Stop,
    /// Keep the stores and directories of all hosts.
    pub keep: bool,
    /// Where logs go if something goes wrong.
    pub logs: Option<PathBuf>,
    /// Hosts of an emulated network whose packets are written to a file.
    pub captures: Vec<(String, PathBuf)>,
    /// Publish no updates: when all hosts are there and have all files, show them, and wait until the stop is requested.
    pub linger: Option<fn(&[HostPlace])>,
}

/// Where a host of a run is, for people who want to look around.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostPlace {
    /// Its name, and that of its process in logs and traces.
    pub name: String,
    /// Its address; receivers on loopback have none.
    pub address: Option<Ipv4Addr>,
    /// The process, if it has one.
    pub pid: Option<u32>,
    /// A name of its network namespace, while the run lasts; none on loopback.
    pub namespace: Option<PathBuf>,
}

/// Why a scenario could not be run to its end. Everything that was started has been stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// Someone asked for it.
    #[error("interrupted")]
    Interrupted,
    /// The container engine did not do what it was asked for.
    #[error(transparent)]
    Engine(#[from] docker::EngineError),
    /// Containers' networks belong to root.
    #[error(
        "the backend `docker` needs root, who alone may reach into containers' networks: use sudo, or the backend `local`"
    )]
    NotRoot,
    /// There is nothing to publish.
    #[error(transparent)]
    Files(#[from] crate::workload::FilesError),
    /// A cluster could not be started.
    #[error(transparent)]
    Cluster(#[from] local::cluster::ClusterError),
    /// A process did not do what it was told.
    #[error(transparent)]
    Process(#[from] local::process::ProcessError),
    /// The first publications were not accepted, so that nothing after them would mean anything.
    #[error("loading the files failed: {0}")]
    Load(String),
    /// The scenario cannot be simulated.
    #[error("it cannot be simulated: {0}")]
    Simulated(String),
    /// The fleet needs more open files than this process may have.
    #[error(
        "{processes} processes need {needed} open files here, and only {most} are allowed: raise the hard limit (ulimit -Hn), \
         or put more receivers into each process with fleet.receivers_per_process"
    )]
    Limits {
        /// Open files that are needed.
        needed: u64,
        /// Open files that are allowed.
        most: u64,
        /// Processes that would be started.
        processes: u64,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// A request to end early, from Ctrl-C or a caller. Clones are the same request.
#[derive(Clone, Debug)]
pub struct Stop(watch::Sender<bool>);

impl Default for Stop {
    fn default() -> Stop {
        Stop(watch::Sender::new(false))
    }
}

impl Stop {
    /// Not yet requested.
    pub fn new() -> Stop {
        Stop::default()
    }

    /// Asks everything that watches this to end.
    pub fn request(&self) {
        self.0.send_replace(true);
    }

    /// Whether it was requested.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once it was requested.
    pub async fn requested(&self) {
        let mut watch = self.0.subscribe();
        // The sender lives in `self`, so this ends only by the request.
        let _ = watch.wait_for(|requested| *requested).await;
    }

    /// Sleeps; `Err` if the stop came first.
    pub async fn sleep(&self, duration: Duration) -> Result<(), BackendError> {
        tokio::select! {
            biased;
            () = self.requested() => Err(BackendError::Interrupted),
            () = tokio::time::sleep(duration) => Ok(()),
        }
    }

    /// Waits for `work`; `Err` if the stop came first.
    pub async fn unless<T>(&self, work: impl Future<Output = T>) -> Result<T, BackendError> {
        tokio::select! {
            biased;
            () = self.requested() => Err(BackendError::Interrupted),
            result = work => Ok(result),
        }
    }
}
