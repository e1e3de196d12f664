//! Puts batches of entries in place, so that a crash at any point leaves the old or the new version of each file whole
//! and the receiver's memory not behind its files.
//!
//! The order of a batch: contents into temporaries, and the intent; flush; removals and renames; flush of the
//! directories; the state's lines; flush. Batches of more than a few files flush the file system instead of each file.

use super::{
    disk::{Disk, DiskError, Line},
    state::StateError,
};
use crate::{
    mutant::{self, Mutant},
    protocol::{
        Path,
        receiver::{Action, Applied, Change, Held, Presence},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
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

/// A disk with what is known of it.
#[derive(Debug)]
pub struct Applier<D> {
    pub(super) disk: D,
    held: BTreeMap<Path, Held>,
    /// Lines that could not be appended although their files are in place.
    unrecorded: Vec<Line>,
    /// On a file system that ignores case: folded path -> path.
    folded: Option<BTreeMap<String, Path>>,
    /// Told of each step; false ends the batch there, as a crash would.
    #[cfg(test)]
    pub(super) goes_on: fn(Step, usize) -> bool,
}

impl<D: Disk> Applier<D> {
    /// Recovers what `disk` has. Gives the entries that a crash had kept from the state.
    pub fn open(disk: D) -> Result<(Applier<D>, Vec<Line>), OpenError> {
        let mut applier = Applier {
            disk,
            held: BTreeMap::new(),
            unrecorded: Vec::new(),
            folded: None,
            #[cfg(test)]
            goes_on: |_, _| true,
        };
        applier.held = applier.disk.load_state()?;
        match applier.recover() {
            Ok(adopted) => Ok((applier, adopted)),
            Err(error) => Err(OpenError::System { file: applier.disk.name(), error }),
        }
    }

    /// What is held.
    pub fn held(&self) -> &BTreeMap<Path, Held> {
        &self.held
    }

    /// The disk.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// The disk, for what has nothing to do with batches.
    pub fn disk_mut(&mut self) -> &mut D {
        &mut self.disk
    }

    /// Leaves everything as it is.
    pub fn into_disk(self) -> D {
        self.disk
    }

    /// Compares state, intent and files.
    fn recover(&mut self) -> io::Result<Vec<Line>> {
        let mut adopted: Vec<Line> = Vec::new();
        for (path, intended) in self.disk.intended()? {
            let known = self.held.get(&path).map(|held| held.uid);
            if known.is_some_and(|uid| uid > intended.uid) {
                continue;
            }
            let in_place = self.is_in_place(&path, &intended)?;
            if known == Some(intended.uid) {
                if let Some(held) = self.held.get_mut(&path).filter(|_| !in_place) {
                    held.presence = Presence::Missing;
                }
            } else if in_place {
                self.held.insert(path.clone(), intended.clone());
                adopted.push((path, intended));
            }
        }
        if !adopted.is_empty() {
            self.disk.flush_all()?;
            self.record(&adopted, D::flush_state)?;
        }
        for (path, held) in &mut self.held {
            let has_file = held.presence == Presence::Whole && !held.flags.deleted;
            if has_file && !self.disk.is_file_of(path, held.size)? {
                held.presence = Presence::Missing;
            }
        }
        if self.disk.ignores_case()? {
            let live = self.held.iter().filter(|(_, held)| !held.flags.deleted);
            self.folded = Some(live.map(|(path, _)| (fold(path), path.clone())).collect());
        }
        Ok(adopted)
    }

    /// Whether an intended entry was put in place before the crash.
    fn is_in_place(&self, path: &Path, intended: &Held) -> io::Result<bool> {
        if intended.flags.deleted || intended.presence == Presence::Hidden {
            return self.disk.is_absent(path);
        }
        Ok(self.disk.is_file_of(path, intended.size)? && self.disk.hash_of(path)? == intended.hash)
    }

    /// Applies a batch; a result for each path. Staged contents of the batch are used up, whatever becomes of it.
    pub fn apply(&mut self, changes: Vec<Change>) -> Vec<(Path, Applied)> {
        let result = self.try_apply(&changes);
        for id in changes.iter().filter_map(Change::staged) {
            self.disk.remove_staged(id);
        }
        match result {
            Ok(results) => changes.into_iter().map(|change| change.path).zip(results).collect(),
            Err(error) => {
                (0..changes.len()).for_each(|at| self.disk.remove_temporary(at));
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
        let temporaries = self.prepare(changes)?;
        self.passes(Step::Prepared, 0)?;
        let late = mutant::active(Mutant::RenameBeforeFlush);
        if late {
            self.disk.flush_intent()?;
        } else {
            self.flush_temporaries(&temporaries)?;
        }
        self.passes(Step::Flushed, 0)?;
        let (mut results, mut lines, mut touched) = (Vec::new(), Vec::new(), Vec::new());
        for (at, change) in changes.iter().enumerate() {
            let result = match self.place(at, change, &mut touched) {
                Ok(applied) => applied,
                Err(DiskError::Blocked(cause)) => Applied::Blocked(cause),
                Err(DiskError::System(error)) => Applied::Failed(error.to_string()),
            };
            if result == Applied::Done {
                lines.push((change.path.clone(), change.entry.clone()));
            } else if matches!(change.action, Action::Write(_)) {
                self.disk.remove_temporary(at);
            }
            results.push(result);
            self.passes(Step::Placed, at)?;
        }
        let touched: BTreeSet<String> = touched.into_iter().collect();
        if late || touched.len() > SINGLE_FLUSHES_MAX {
            self.record(&lines, D::flush_all)?;
        } else {
            touched.iter().try_for_each(|directory| self.disk.flush_directory(directory))?;
            self.record(&lines, D::flush_state)?;
        }
        self.passes(Step::Recorded, 0)?;
        lines.into_iter().for_each(|line| self.remember(line));
        if self.unrecorded.is_empty()
            && let Err(error) = self.disk.tidy_state(&self.held)
        {
            tracing::warn!("the state could not be written anew: {error}");
        }
        Ok(results)
    }

    /// Writes contents to their temporaries, and what is about to be put in place. Gives the temporaries' numbers.
    fn prepare(&mut self, changes: &[Change]) -> io::Result<Vec<usize>> {
        let (mut temporaries, mut intent) = (Vec::new(), self.unrecorded.clone());
        for (at, change) in changes.iter().enumerate() {
            intent.push((change.path.clone(), change.entry.clone()));
            if let Action::Write(content) = &change.action {
                self.disk.write_temporary(at, content, change.entry.flags.executable)?;
                temporaries.push(at);
            }
        }
        self.disk.write_intent(&intent)?;
        Ok(temporaries)
    }

    fn flush_temporaries(&mut self, temporaries: &[usize]) -> io::Result<()> {
        if temporaries.len() > SINGLE_FLUSHES_MAX {
            return self.disk.flush_all();
        }
        temporaries.iter().try_for_each(|at| self.disk.flush_temporary(*at))?;
        self.disk.flush_intent()
    }

    /// Adds lines to the state, and makes them durable by `flush`. On failure they are kept for the next time.
    fn record(&mut self, lines: &[Line], flush: impl FnOnce(&mut D) -> io::Result<()>) -> io::Result<()> {
        self.unrecorded.extend_from_slice(lines);
        let written = self.disk.append_state(&self.unrecorded).and_then(|()| flush(&mut self.disk));
        if written.is_ok() {
            self.unrecorded.clear();
        } else {
            self.disk.undo_append();
        }
        written
    }

    fn remember(&mut self, (path, entry): Line) {
        if let Some(folded) = &mut self.folded {
            if entry.flags.deleted {
                folded.remove(&fold(&path));
            } else {
                folded.insert(fold(&path), path.clone());
            }
        }
        self.held.insert(path, entry);
    }

    fn place(&mut self, at: usize, change: &Change, touched: &mut Vec<String>) -> Result<Applied, DiskError> {
        let path = &change.path;
        match &change.action {
            Action::Write(_) => {
                if let Some(other) = self.folded.as_ref().and_then(|folded| folded.get(&fold(path)))
                    && other != path
                {
                    let cause = format!("this file system cannot hold it beside {other}");
                    return Err(DiskError::Blocked(cause));
                }
                self.disk.place(at, path, touched)?;
            }
            // A file that was never put there by a receiver is left alone.
            Action::Delete | Action::Hide => {
                let whole = |held: &Held| held.presence == Presence::Whole && !held.flags.deleted;
                if self.held.get(path).is_some_and(|held| whole(held) || held.presence == Presence::Missing) {
                    self.disk.remove(path, touched)?;
                }
            }
            Action::SetMode => {
                if !self.disk.set_mode(path, change.entry.flags.executable)? {
                    return Ok(Applied::Lost);
                }
            }
            Action::Record => {
                if !self.disk.is_file_of(path, change.entry.size)? {
                    return Ok(Applied::Lost);
                }
            }
        }
        Ok(Applied::Done)
    }
}

fn fold(path: &Path) -> String {
    path.as_str().to_ascii_lowercase()
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
