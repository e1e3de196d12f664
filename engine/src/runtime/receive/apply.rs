//! Puts batches of entries in place, so that a crash at any point leaves the old or the new version of each file whole
//! and the receiver's memory not behind its files.
//!
//! The order of a batch: contents into temporaries, and the intent; flush; removals and renames; flush of the
//! directories; the state's lines; flush. Batches of more than a few files flush the file system instead of each file.

use super::{
    state::{self, State, StateError},
    tree::{OWN, Tree, TreeError},
};
use crate::protocol::{
    Hash, Path,
    receiver::{Action, Applied, Change, Content, Held, Presence, StagedId},
};
use nix::{fcntl::OFlag, sys::stat::Mode};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::OwnedFd,
    path::PathBuf,
};

/// Up to so many files or directories are flushed one by one.
const SINGLE_FLUSHES_MAX: usize = 2;

/// A directory that cannot be kept. Nothing was changed in it but `~acms`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The system refused.
    #[error("{file}: {error}")]
    System {
        /// Which file or directory.
        file: String,
        /// What it said.
        error: io::Error,
    },
    /// Another receiver has it.
    #[error("{0} is kept by another receiver that runs now")]
    Locked(String),
    /// The state is of no use.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Steps of a batch, so that tests can stop after each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Prepared,
    Flushed,
    /// After each path.
    Placed,
    Recorded,
}

/// The directory with its state.
#[derive(Debug)]
pub(super) struct Applier {
    tree: Tree,
    own: OwnedFd,
    own_path: PathBuf,
    state: State,
    /// On a file system that ignores case: folded path -> path.
    folded: Option<BTreeMap<String, Path>>,
    _lock: File,
    /// Told of each step; false ends the batch there, as a crash would.
    #[cfg(test)]
    pub(super) goes_on: fn(Step, usize) -> bool,
}

/// Name of a staged content in `~acms/tmp`.
pub(super) fn staged_name(id: StagedId) -> String {
    format!("large-{}", id.0)
}

impl Applier {
    /// Takes `directory` (made if absent), recovers its state, and removes leftovers. Gives the entries that a crash
    /// had kept from the state.
    pub(super) fn open(directory: &std::path::Path) -> Result<(Applier, Vec<(Path, Held)>), OpenError> {
        let own_path = directory.join(OWN);
        let system = |file: &std::path::Path, error| OpenError::System { file: file.display().to_string(), error };
        std::fs::create_dir_all(own_path.join("tmp")).map_err(|error| system(&own_path, error))?;
        let lock_path = own_path.join("lock");
        let lock = File::options().write(true).create(true).truncate(false).open(&lock_path);
        let lock = lock.map_err(|error| system(&lock_path, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(OpenError::Locked(directory.display().to_string())),
            Err(std::fs::TryLockError::Error(error)) => return Err(system(&lock_path, error)),
        }
        let tree = Tree::open(directory).map_err(|error| system(directory, error))?;
        let tmp = own_path.join("tmp");
        let own = clear(&tmp).and_then(|()| File::open(&tmp)).map_err(|error| system(&tmp, error))?;
        let state = State::load(own_path.clone())?;
        let mut applier = Applier {
            tree,
            own: own.into(),
            state,
            folded: None,
            _lock: lock,
            own_path,
            #[cfg(test)]
            goes_on: |_, _| true,
        };
        let adopted = applier.recover().map_err(|error| system(directory, error))?;
        Ok((applier, adopted))
    }

    /// Where staged contents go.
    pub(super) fn staging_directory(&self) -> PathBuf {
        self.own_path.join("tmp")
    }

    /// What is held.
    pub(super) fn held(&self) -> &BTreeMap<Path, Held> {
        &self.state.held
    }

    /// Compares state, intent and files.
    fn recover(&mut self) -> io::Result<Vec<(Path, Held)>> {
        let (mut lines, mut adopted) = (String::new(), Vec::new());
        for (path, intended) in self.state.intended()? {
            let known = self.state.held.get(&path).map(|held| held.uid);
            if known.is_some_and(|uid| uid > intended.uid) {
                continue;
            }
            let in_place = self.is_in_place(&path, &intended)?;
            if known == Some(intended.uid) {
                if let Some(held) = self.state.held.get_mut(&path).filter(|_| !in_place) {
                    held.presence = Presence::Missing;
                }
            } else if in_place {
                lines.push_str(&state::line(&path, &intended));
                self.state.held.insert(path.clone(), intended.clone());
                adopted.push((path, intended));
            }
        }
        if !lines.is_empty() {
            self.tree.sync_all()?;
            self.state.append(&lines, File::sync_data)?;
        }
        for (path, held) in &mut self.state.held {
            let has_file = held.presence == Presence::Whole && !held.flags.deleted;
            if has_file && !self.tree.is_file_of(path.as_str(), held.size)? {
                held.presence = Presence::Missing;
            }
        }
        if self.ignores_case()? {
            let live = self.state.held.iter().filter(|(_, held)| !held.flags.deleted);
            self.folded = Some(live.map(|(path, _)| (fold(path), path.clone())).collect());
        }
        Ok(adopted)
    }

    /// Whether an intended entry was put in place before the crash.
    fn is_in_place(&self, path: &Path, intended: &Held) -> io::Result<bool> {
        if intended.flags.deleted || intended.presence == Presence::Hidden {
            return Ok(self.tree.stat(path.as_str())?.is_none());
        }
        if !self.tree.is_file_of(path.as_str(), intended.size)? {
            return Ok(false);
        }
        let (mut file, mut hasher) = (self.tree.open_file(path.as_str())?, blake3::Hasher::new());
        let mut buffer = vec![0; 64 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(Hash(*hasher.finalize().as_bytes()) == intended.hash),
                len => hasher.update(&buffer[..len]),
            };
        }
    }

    fn ignores_case(&self) -> io::Result<bool> {
        let probe = self.own_path.join("tmp/case");
        File::create(&probe)?;
        let ignores = self.own_path.join("tmp/CASE").exists();
        std::fs::remove_file(probe)?;
        Ok(ignores)
    }

    /// Applies a batch; a result for each path. Staged contents of the batch are used up, whatever becomes of it.
    pub(super) fn apply(&mut self, changes: Vec<Change>) -> Vec<(Path, Applied)> {
        let result = self.try_apply(&changes);
        for id in changes.iter().filter_map(Change::staged) {
            let _ = std::fs::remove_file(self.own_path.join("tmp").join(staged_name(id)));
        }
        match result {
            Ok(results) => changes.into_iter().map(|change| change.path).zip(results).collect(),
            Err(error) => {
                let failed = |change: Change| (change.path, Applied::Failed(error.to_string()));
                changes.into_iter().map(failed).collect()
            }
        }
    }

    #[cfg_attr(not(test), allow(clippy::unused_self, reason = "only tests stop a batch half way"))]
    fn passes(&self, step: Step, at: usize) -> io::Result<()> {
        #[cfg(test)]
        if !(self.goes_on)(step, at) {
            return Err(io::Error::other("stopped by the test"));
        }
        let _ = (step, at);
        Ok(())
    }

    fn try_apply(&mut self, changes: &[Change]) -> io::Result<Vec<Applied>> {
        let mut temporaries = Vec::new();
        let mut intent = String::new();
        for (at, change) in changes.iter().enumerate() {
            intent.push_str(&state::line(&change.path, &change.entry));
            if let Action::Write(content) = &change.action {
                temporaries.push(self.prepare(at, content, change.entry.flags.executable)?);
            }
        }
        self.state.write_intent(&intent)?;
        self.passes(Step::Prepared, 0)?;
        if temporaries.len() > SINGLE_FLUSHES_MAX {
            drop(temporaries);
            self.tree.sync_all()?;
        } else {
            temporaries.iter().try_for_each(File::sync_all)?;
            self.state.intent().sync_data()?;
        }
        self.passes(Step::Flushed, 0)?;
        let (mut results, mut lines, mut touched) = (Vec::new(), String::new(), Vec::new());
        for (at, change) in changes.iter().enumerate() {
            let result = match self.place(at, change, &mut touched) {
                Ok(applied) => applied,
                Err(TreeError::Blocked(cause)) => Applied::Blocked(cause),
                Err(TreeError::System(error)) => Applied::Failed(error.to_string()),
            };
            if result == Applied::Done {
                lines.push_str(&state::line(&change.path, &change.entry));
            } else if matches!(change.action, Action::Write(_)) {
                let _ = std::fs::remove_file(self.own_path.join("tmp").join(temporary_name(at)));
            }
            results.push(result);
            self.passes(Step::Placed, at)?;
        }
        let touched: BTreeSet<String> = touched.into_iter().collect();
        let tree = &self.tree;
        if touched.len() > SINGLE_FLUSHES_MAX {
            self.state.append(&lines, |_| tree.sync_all())?;
        } else {
            touched.iter().try_for_each(|directory| tree.sync_directory(directory))?;
            self.state.append(&lines, File::sync_data)?;
        }
        self.passes(Step::Recorded, 0)?;
        for (change, result) in changes.iter().zip(&results) {
            if *result == Applied::Done {
                self.remember(change);
            }
        }
        if let Err(error) = self.state.tidy() {
            tracing::warn!("the state could not be written anew: {error}");
        }
        Ok(results)
    }

    fn remember(&mut self, change: &Change) {
        if let Some(folded) = &mut self.folded {
            if change.entry.flags.deleted {
                folded.remove(&fold(&change.path));
            } else {
                folded.insert(fold(&change.path), change.path.clone());
            }
        }
        self.state.held.insert(change.path.clone(), change.entry.clone());
    }

    /// Writes a content to its temporary, not flushed.
    fn prepare(&self, at: usize, content: &Content, executable: bool) -> io::Result<File> {
        let name = temporary_name(at);
        let create = OFlag::O_CREAT | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = match content {
            Content::Bytes(bytes) => {
                let flags = create | OFlag::O_TRUNC;
                let mut file =
                    File::from(nix::fcntl::openat(&self.own, name.as_str(), flags, Mode::from_bits_truncate(0o600))?);
                file.write_all(bytes)?;
                file
            }
            Content::Staged(id) => {
                nix::fcntl::renameat(&self.own, staged_name(*id).as_str(), &self.own, name.as_str())?;
                File::from(nix::fcntl::openat(
                    &self.own,
                    name.as_str(),
                    OFlag::O_WRONLY | OFlag::O_CLOEXEC,
                    Mode::empty(),
                )?)
            }
        };
        nix::sys::stat::fchmod(&file, self.tree.mode(executable))?;
        file.flush()?;
        Ok(file)
    }

    fn place(&self, at: usize, change: &Change, touched: &mut Vec<String>) -> Result<Applied, TreeError> {
        let path = change.path.as_str();
        let before = self.state.held.get(&change.path);
        match &change.action {
            Action::Write(_) => {
                if let Some(other) = self.folded.as_ref().and_then(|folded| folded.get(&fold(&change.path)))
                    && *other != change.path
                {
                    let cause = format!("this file system cannot hold it beside {other}");
                    return Err(TreeError::Blocked(cause));
                }
                self.tree.place(&self.own, &temporary_name(at), path, touched)?;
            }
            // A file that was never put there by a receiver is left alone.
            Action::Delete | Action::Hide => {
                let whole = |held: &Held| held.presence == Presence::Whole && !held.flags.deleted;
                if before.is_some_and(|held| whole(held) || held.presence == Presence::Missing) {
                    self.tree.remove(path, touched)?;
                }
            }
            Action::SetMode => {
                if !self.tree.set_mode(path, change.entry.flags.executable)? {
                    return Ok(Applied::Lost);
                }
            }
            Action::Record => {
                if !self.tree.is_file_of(path, change.entry.size).map_err(TreeError::System)? {
                    return Ok(Applied::Lost);
                }
            }
        }
        Ok(Applied::Done)
    }
}

fn temporary_name(at: usize) -> String {
    format!("new-{at}")
}

fn fold(path: &Path) -> String {
    path.as_str().to_ascii_lowercase()
}

/// Removes what a receiver before left in its temporary directory.
fn clear(tmp: &std::path::Path) -> io::Result<()> {
    for entry in std::fs::read_dir(tmp)? {
        std::fs::remove_file(entry?.path())?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
