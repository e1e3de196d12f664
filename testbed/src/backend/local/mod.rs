//! Real processes, real sockets and real disks on this machine: on loopback addresses, or, if the scenario asks for a
//! network, in namespaces with an emulated one between them.

pub mod audit;
mod clocks;
pub mod cluster;
mod disk;
mod events;
mod faults;
mod front;
mod hosts;
mod ledger;
mod phases;
pub mod process;
mod seccomp;
mod wan;

pub use disk::Disk;
pub use hosts::{CacheOptions, Ending, Hosts, ReceiverOptions, Receivers};
pub use ledger::{clean, living, own_directory};
pub(super) use seccomp::{Listener, intercept};
pub(super) use wan::Wan;

use super::{Backend, BackendError, Context, docker::Containers};
use crate::{
    scenario::Scenario,
    trace::{Kind, Sink, Trace, now_ns, preamble},
};
use std::{
    path::Path,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// Runs every host as a process of this machine.
#[derive(Clone, Copy, Default, Debug)]
pub struct LocalBackend;

impl Backend for LocalBackend {
    fn name(&self) -> &'static str {
        "local"
    }

    fn run(&self, scenario: &Scenario, context: &Context, sink: &mut dyn Sink) -> Result<Vec<String>, BackendError> {
        run_here(self.name(), scenario, context, sink, |_| Ok(None))
    }
}

/// Runs a scenario with real processes, in the containers that `contain` prepares for the directory of the run, or in none.
/// With the containers comes what is to be said of them.
pub(super) fn run_here(
    backend: &str,
    scenario: &Scenario,
    context: &Context,
    sink: &mut dyn Sink,
    contain: impl FnOnce(&Path) -> Result<Option<(Containers, String)>, BackendError>,
) -> Result<Vec<String>, BackendError> {
    let system = |what: &'static str| move |source| BackendError::System { what: what.to_owned(), source };
    check_limits(scenario)?;
    let results = context.logs.as_deref().and_then(Path::parent);
    let work = ledger::make_directory(ledger::Kind::Run, results);
    let mut work = work.map_err(system("making a temporary directory"))?;
    work.disable_cleanup(context.keep);
    let (containers, said) = contain(work.path())?.unzip();
    let containers = containers.map(Arc::new);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(system("starting the testbed's threads"))?;
    let wall_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
    let preamble = preamble(scenario, backend, now_ns(), wall_us);
    let result = runtime.block_on(phases::run(scenario, context, work.path(), containers.clone()));
    // Whatever is still going on there cannot matter any more.
    runtime.shutdown_background();
    let fell = |trace: &Trace| trace.of(Kind::Exit).any(|exit| exit.outcome.as_deref() == Some("unexpected"));
    let has_fallen = result.as_ref().is_ok_and(|(trace, _)| fell(trace));
    if let Some(logs) = context.logs.as_ref().filter(|_| result.is_err() || has_fallen) {
        keep_logs(work.path(), logs);
    }
    // Those of a run that did not come to its end.
    drop(containers);
    let kept = context.keep.then(|| {
        // Its maker is gone soon, which is no reason to remove it.
        let _ = ledger::let_go(work.path());
        format!("stores and receivers' directories were kept in {}", work.path().display())
    });
    match &kept {
        // Also where the run has failed.
        Some(kept) => context.progress.note(kept),
        None => {
            context.progress.phase("removing stores and directories");
            remove_all(work.path());
        }
    }
    let (trace, mut notes) = result?;
    notes.extend(said);
    if let Some(logs) = context.logs.as_ref().filter(|_| has_fallen) {
        notes.push(format!("logs of the processes, some of which ended by themselves, are in {}", logs.display()));
    }
    preamble.into_iter().for_each(|event| sink.record(event));
    trace.feed(sink);
    notes.extend(kept);
    Ok(notes)
}

/// Takes all the open files that this process may have, and refuses a fleet that would need more.
fn check_limits(scenario: &Scenario) -> Result<(), BackendError> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    /// Of each process: its events, its log; of each host on a network: its namespace, its interface, what measures it; of each
    /// container: what it is asked by, and its process.
    const EACH: u64 = 7;
    /// Publishers' connections, the testbed itself.
    const BESIDE: u64 = 1_000;
    let failed = |error: nix::Error| BackendError::System { what: "reading limits".to_owned(), source: error.into() };
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).map_err(failed)?;
    let fleet = &scenario.by_process().fleet;
    let processes = u64::from(fleet.storage_points) + u64::from(fleet.caches) + u64::from(fleet.receivers);
    let needed = processes * EACH + BESIDE;
    if needed > most {
        return Err(BackendError::Limits { needed, most, processes });
    }
    Ok(())
}

/// Removes what hosts have left, many at once: some file systems wait for the disk at each file that was flushed.
fn remove_all(work: &Path) {
    const THREADS: usize = 16;
    let homes = walkdir::WalkDir::new(work).min_depth(2).max_depth(2).into_iter().flatten();
    let homes: Vec<_> = homes.filter(|entry| entry.file_type().is_dir()).map(walkdir::DirEntry::into_path).collect();
    std::thread::scope(|scope| {
        for share in homes.chunks(homes.len().div_ceil(THREADS).max(1)) {
            // What fails here is tried again, and for the last time, when the temporary directory goes.
            scope.spawn(move || share.iter().for_each(|home| drop(std::fs::remove_dir_all(home))));
        }
    });
}

/// Copies the processes' logs to where the results are.
fn keep_logs(work: &Path, logs: &Path) {
    let files = walkdir::WalkDir::new(work).max_depth(2).into_iter().flatten();
    for log in files.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "log")) {
        // Best effort: the error that is about to be told matters more.
        let _ = std::fs::create_dir_all(logs);
        let _ = std::fs::copy(log.path(), logs.join(log.file_name()));
    }
}
