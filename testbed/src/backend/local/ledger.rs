//! What a run has made outside of its own memory, written down where it is made, so that [`clean`] undoes what a run left
//! behind that was killed.
//!
//! Processes end with the testbed, namespaces, interfaces and filters with the processes. What stays are directories, the image
//! of a run in containers and those of them that were paused, and, if the worst comes to the worst, a process that was killed so
//! little ago that it is still there.

use super::{super::docker, process::stat};
use crate::results;
use nix::{sys::signal::Signal, unistd::Pid};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// Every directory of a run begins with one of these.
const PREFIXES: [&str; 2] = ["acms-testbed-", "acms-cluster-"];
const LEDGER: &str = "ledger.json";
/// With what every process of a run is started.
const MARK: &[u8] = b"--exit-with-parent";

/// Who made a directory, and what else.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Entry {
    /// The testbed's process.
    pid: u32,
    /// When it was started, in ticks since the machine was: with the number, its name for good.
    started: u64,
    /// Where results go.
    results: Option<PathBuf>,
}

/// A directory that goes away when it is dropped, or by [`clean`].
pub(super) fn make_directory(kind: Kind, results: Option<&Path>) -> io::Result<TempDir> {
    let made = tempfile::Builder::new().prefix(PREFIXES[kind as usize]).tempdir()?;
    let pid = std::process::id();
    let results = results.map(std::path::absolute).transpose()?;
    let entry = Entry { pid, started: started(pid).unwrap_or(0), results };
    fs::write(made.path().join(LEDGER), serde_json::to_vec(&entry).map_err(io::Error::other)?)?;
    Ok(made)
}

/// From now on the directory is that of whoever wanted it kept, and [`clean`] passes it over.
pub(super) fn let_go(dir: &Path) -> io::Result<()> {
    fs::remove_file(dir.join(LEDGER))
}

/// Whose directory it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Of a run.
    Run,
    /// Of a cluster that somebody started by itself.
    Cluster,
}

/// Undoes what runs left in the directory for temporary files whose testbed is gone. What was undone, a line for each.
pub fn clean() -> io::Result<Vec<String>> {
    // While the directories are there that tell whose the containers are.
    let mut done = docker::clean(is_over).map_err(io::Error::other)?;
    done.extend(clean_in(&std::env::temp_dir())?);
    Ok(done)
}

/// Runs whose testbed is alive: its process, and the directory.
pub fn living() -> io::Result<Vec<(u32, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(std::env::temp_dir())? {
        let dir = entry?.path();
        let text = if is_ours(&dir) { fs::read(dir.join(LEDGER)).ok() } else { None };
        let entry = text.and_then(|text| serde_json::from_slice::<Entry>(&text).ok());
        found.extend(entry.filter(Entry::is_alive).map(|entry| (entry.pid, dir)));
    }
    Ok(found)
}

/// The directory of the run that this process is in the middle of, if it is.
pub fn own_directory() -> Option<PathBuf> {
    living().ok()?.into_iter().find_map(|(pid, dir)| (pid == std::process::id()).then_some(dir))
}

fn is_ours(dir: &Path) -> bool {
    let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether the testbed is gone to which the directory of a run belongs.
fn is_over(dir: &Path) -> bool {
    match fs::read(dir.join(LEDGER)) {
        Ok(text) => serde_json::from_slice::<Entry>(&text).is_ok_and(|entry| !entry.is_alive()),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

impl Entry {
    /// Whether the testbed that wrote it still runs.
    fn is_alive(&self) -> bool {
        started(self.pid) == Some(self.started)
    }
}

fn clean_in(place: &Path) -> io::Result<Vec<String>> {
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(place)? {
        let dir = entry?.path();
        if !is_ours(&dir) {
            continue;
        }
        // What has no ledger, or one that cannot be read, is not known to be ours.
        let Ok(text) = fs::read(dir.join(LEDGER)) else { continue };
        let Ok(entry) = serde_json::from_slice::<Entry>(&text) else { continue };
        if !entry.is_alive() {
            // What cannot be undone keeps nothing else from it.
            failed.extend(clean_run(&dir, entry, &mut done).err());
        }
    }
    match failed.is_empty() {
        true => Ok(done),
        false => Err(io::Error::other([done, failed].concat().join("\n"))),
    }
}

/// Undoes what one run left; what could not be undone.
fn clean_run(dir: &Path, entry: Entry, done: &mut Vec<String>) -> Result<(), String> {
    let at = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    for pid in processes_of(dir) {
        match nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL) {
            Ok(()) => done.push(format!("killed\tprocess {pid}")),
            // It has ended by itself.
            Err(nix::Error::ESRCH) => {}
            Err(error) => return Err(format!("process {pid}: {error}")),
        }
    }
    if let Some(results) = entry.results.filter(|results| !results.join(results::LAST).exists())
        && results::remove(&results).map_err(|error| at(&results, error))?
    {
        done.push(format!("removed\t{}", results.display()));
    }
    fs::remove_dir_all(dir).map_err(|error| at(dir, error))?;
    done.push(format!("removed\t{}", dir.display()));
    Ok(())
}

/// Processes that a run started with a path in this directory.
fn processes_of(dir: &Path) -> Vec<i32> {
    let dir = dir.as_os_str().as_encoded_bytes();
    let own = std::process::id().cast_signed();
    let is_of_it = |pid: &i32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut arguments = arguments.split(|byte| *byte == 0);
        let is_within =
            |argument: &[u8]| argument.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"));
        // People may look into it with programs of their own.
        arguments.clone().any(|argument| argument == MARK) && arguments.any(is_within)
    };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|pid| *pid != own && is_of_it(pid)).collect()
}

/// When a process was started, if it is there and not dead.
fn started(pid: u32) -> Option<u64> {
    stat(pid).filter(|stat| stat.state != 'Z').map(|stat| stat.started)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn what_a_dead_testbed_left_goes_and_what_a_living_one_has_stays() {
        let place = tempfile::tempdir().unwrap();
        let within = |name: &str| {
            let dir = place.path().join(name);
            fs::create_dir_all(dir.join("sp1")).unwrap();
            dir
        };
        let (dead, alive, other) =
            (within("acms-testbed-dead"), within("acms-testbed-alive"), within("acms-testbed-x"));
        let (unfinished, finished) = (within("unfinished"), within("finished"));
        fs::remove_dir(unfinished.join("sp1")).unwrap();
        fs::write(unfinished.join("events.arrow"), "").unwrap();
        fs::write(finished.join(results::LAST), "").unwrap();
        let (gone, kept) = (within("acms-testbed-gone"), within("acms-testbed-kept"));
        let pid = std::process::id();
        let write = |dir: &Path, started: u64, results: &Path| {
            let entry = Entry { pid, started, results: Some(results.to_owned()) };
            fs::write(dir.join(LEDGER), serde_json::to_vec(&entry).unwrap()).unwrap();
        };
        write(&dead, 1, &unfinished);
        write(&alive, started(pid).unwrap(), &finished);
        write(&gone, 1, &place.path().join("removed-by-somebody"));
        write(&kept, 1, &finished);
        let_go(&kept).unwrap();
        // Takes its arguments and does nothing with them.
        let mut left = Command::new("sh");
        left.args(["-c", "read line", "--exit-with-parent"]).arg(dead.join("sp1")).stdin(Stdio::piped());
        let mut left = left.spawn().unwrap();
        let mut looks = Command::new("sh");
        let mut looks = looks.args(["-c", "read line"]).arg(dead.join("sp1")).stdin(Stdio::piped()).spawn().unwrap();
        // The kernel shows its arguments a little after it lets the parent go on.
        while processes_of(&dead).is_empty() {
            std::thread::yield_now();
        }
        let done = clean_in(place.path()).unwrap();
        assert_eq!(done.len(), 4, "{done:?}");
        assert!(!left.wait().unwrap().success());
        assert!(looks.try_wait().unwrap().is_none(), "somebody's own program");
        looks.kill().unwrap();
        looks.wait().unwrap();
        assert!(!dead.exists() && !unfinished.exists() && !gone.exists());
        assert!(alive.exists() && other.exists() && finished.exists() && kept.exists());
        assert_eq!(clean_in(place.path()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_directory_names_its_maker() {
        let made = make_directory(Kind::Run, None).unwrap();
        let entry: Entry = serde_json::from_slice(&fs::read(made.path().join(LEDGER)).unwrap()).unwrap();
        assert_eq!((entry.pid, Some(entry.started)), (std::process::id(), started(std::process::id())));
    }
}
