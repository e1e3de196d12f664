//! Puts batches of entries in place, so that a crash at any point leaves the old or the new version of each file whole
//! and the receiver's memory not behind its files.
//!
//! The order of a batch: contents into temporaries, and the intent; flush; removals and renames; flush of the
//! directories; the state's lines, with what the receiver has come to by them; flush. Batches of more than a few files flush the file system instead of each file.

use super::{
    disk::{Disk, DiskError, Line},
    state::StateError,
};
use crate::{
    mutant::{self, Mutant},
    protocol::{
        Path,
        receiver::{Action, Applied, Change, Held, Presence, Reached, Recovered},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

/// Up to so many files or directories are flushed one by one.
pub(super) const SINGLE_FLUSHES_MAX: usize = 2;

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
    /// The last that is durable.
    reached: Option<Reached>,
    /// Lines that are not in the state although their files are in place, or may be.
    unrecorded: Vec<Line>,
    /// Folded path -> path of what is live. Made once a file is found where none should be, which may be another path's
    /// on a file system, or in a directory, that ignores case.
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
            reached: None,
            unrecorded: Vec::new(),
            folded: None,
            #[cfg(test)]
            goes_on: |_, _| true,
        };
        Recovered { held: applier.held, reached: applier.reached } = applier.disk.load_state()?;
        match applier.recover() {
            Ok(adopted) => Ok((applier, adopted)),
            Err(error) => Err(OpenError::System { file: applier.disk.name(), error }),
        }
    }

    /// What is held.
    pub fn held(&self) -> &BTreeMap<Path, Held> {
        &self.held
    }

    /// What a receiver goes on from.
    pub fn recovered(&self) -> Recovered {
        Recovered { held: self.held.clone(), reached: self.reached.clone() }
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
            if known != Some(intended.uid) {
                if in_place {
                    self.held.insert(path.clone(), intended.clone());
                    adopted.push((path, intended));
                }
                continue;
            }
            // Its line may have reached the disk before the change itself has: a removal must be done again, too.
            if let Some(held) = self.held.get_mut(&path).filter(|_| !in_place) {
                held.presence = Presence::Missing;
            }
        }
        if !adopted.is_empty() {
            self.disk.flush_all()?;
            self.unrecorded.clone_from(&adopted);
            self.record(None, D::flush_state)?;
        }
        for (path, held) in &mut self.held {
            let has_file = held.presence == Presence::Whole && !held.flags.deleted;
            if has_file && !self.disk.is_file_of(path, held.size, held.flags.executable)? {
                held.presence = Presence::Missing;
            }
        }
        Ok(adopted)
    }

    /// Marks every file as missing that does not have its content any more, whatever its size says; how many there are.
    pub fn verify(&mut self) -> usize {
        let mut spoilt = 0;
        for (path, held) in &mut self.held {
            let has_file = held.presence == Presence::Whole && !held.flags.deleted;
            if has_file && self.disk.hash_of(path).ok() != Some(held.hash) {
                held.presence = Presence::Missing;
                spoilt += 1;
            }
        }
        spoilt
    }

    /// Whether an intended entry was put in place before the crash.
    fn is_in_place(&self, path: &Path, intended: &Held) -> io::Result<bool> {
        if intended.flags.deleted || intended.presence == Presence::Hidden {
            return self.disk.is_absent(path);
        }
        let is_file = self.disk.is_file_of(path, intended.size, intended.flags.executable)?;
        Ok(is_file && self.disk.hash_of(path)? == intended.hash)
    }

    /// Applies a batch; a result for each path, and whether `reached` is durable: it is if all of them are done. Staged
    /// contents of the batch are used up, whatever becomes of it.
    pub fn apply(&mut self, changes: Vec<Change>, reached: Option<Reached>) -> (Vec<(Path, Applied)>, bool) {
        let expected = reached.clone();
        let result = self.try_apply(&changes, reached);
        let is_noted = result.is_ok() && expected.is_some() && self.reached == expected;
        for id in changes.iter().filter_map(Change::staged) {
            self.disk.remove_staged(id);
        }
        let results = match result {
            Ok(results) => changes.into_iter().map(|change| change.path).zip(results).collect(),
            Err(error) => {
                (0..changes.len()).for_each(|at| self.disk.remove_temporary(at));
                let failed = |change: Change| (change.path, Applied::Failed(error.to_string()));
                if changes.is_empty() {
                    tracing::warn!("what was reached cannot be noted: {error}");
                }
                changes.into_iter().map(failed).collect()
            }
        };
        (results, is_noted)
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

    fn try_apply(&mut self, changes: &[Change], reached: Option<Reached>) -> io::Result<Vec<Applied>> {
        let is_owed = self.is_owed();
        if changes.is_empty() {
            self.record(reached, if is_owed { D::flush_all } else { D::flush_state })?;
            self.tidy();
            return Ok(Vec::new());
        }
        let (temporaries, mut refused) = self.prepare(changes)?;
        self.passes(Step::Prepared, 0)?;
        let late = mutant::active(Mutant::RenameBeforeFlush);
        if late {
            self.disk.flush_intent()?;
        } else {
            self.flush_temporaries(&temporaries)?;
        }
        self.passes(Step::Flushed, 0)?;
        let (mut results, mut touched) = (Vec::new(), Vec::new());
        for (at, change) in changes.iter().enumerate() {
            let placed = match refused.remove(&at) {
                Some(error) => Err(DiskError::System(error)),
                None => self.place(at, change, &mut touched),
            };
            let result = match placed {
                Ok(applied) => applied,
                Err(DiskError::Blocked(cause)) => Applied::Blocked(cause),
                Err(DiskError::System(error)) => Applied::Failed(error.to_string()),
            };
            if result == Applied::Done {
                // Whatever fails from here on, the file may be there to stay.
                let is_same = |(path, held): &Line| *path == change.path && held.uid == change.entry.uid;
                self.unrecorded.retain(|line| !is_same(line));
                self.unrecorded.push((change.path.clone(), change.entry.clone()));
            } else if matches!(change.action, Action::Write(_)) {
                self.disk.remove_temporary(at);
            }
            results.push(result);
            self.passes(Step::Placed, at)?;
        }
        let touched: BTreeSet<String> = touched.into_iter().collect();
        let reached = reached.filter(|_| results.iter().all(|result| *result == Applied::Done));
        if late || is_owed || touched.len() > SINGLE_FLUSHES_MAX {
            self.record(reached, D::flush_all)?;
        } else {
            touched.iter().try_for_each(|directory| self.disk.flush_directory(directory))?;
            self.record(reached, D::flush_state)?;
        }
        self.passes(Step::Recorded, 0)?;
        self.tidy();
        Ok(results)
    }

    fn tidy(&mut self) {
        if let Err(error) = self.disk.tidy_state(&self.held, self.reached.as_ref()) {
            tracing::warn!("the state could not be written anew: {error}");
        }
    }

    /// Whether files of an earlier batch could not be recorded: they may not be durable themselves.
    pub(super) fn is_owed(&self) -> bool {
        !self.unrecorded.is_empty()
    }

    /// The first half of a batch without entries, for a flush of the file system that many share. Only where nothing is
    /// [owed](Applier::is_owed).
    pub(super) fn begin_note(&mut self, reached: Option<&Reached>) -> io::Result<()> {
        self.disk.append_state(&self.unrecorded, reached)
    }

    /// The second half: whether it is durable.
    pub(super) fn end_note(&mut self, reached: Option<Reached>, flushed: io::Result<()>) -> bool {
        let has_reached = reached.is_some();
        match self.settle(reached, flushed) {
            Ok(()) => self.tidy(),
            Err(error) => {
                tracing::warn!("what was reached cannot be noted: {error}");
                return false;
            }
        }
        has_reached
    }

    /// Writes contents to their temporaries, and what is about to be put in place. Gives the temporaries' numbers, and
    /// the numbers of those that the disk refused: a content that is too large for it keeps no other one away.
    fn prepare(&mut self, changes: &[Change]) -> io::Result<(Vec<usize>, BTreeMap<usize, io::Error>)> {
        let (mut temporaries, mut refused) = (Vec::new(), BTreeMap::new());
        let mut intent = self.unrecorded.clone();
        for (at, change) in changes.iter().enumerate() {
            if let Action::Write(content) = &change.action {
                if let Err(error) = self.disk.write_temporary(at, content, change.entry.flags.executable) {
                    // Its part that was written takes the room of the others.
                    self.disk.remove_temporary(at);
                    refused.insert(at, error);
                    continue;
                }
                temporaries.push(at);
            }
            intent.push((change.path.clone(), change.entry.clone()));
        }
        self.disk.write_intent(&intent)?;
        Ok((temporaries, refused))
    }

    fn flush_temporaries(&mut self, temporaries: &[usize]) -> io::Result<()> {
        if temporaries.len() > SINGLE_FLUSHES_MAX {
            return self.disk.flush_all();
        }
        temporaries.iter().try_for_each(|at| self.disk.flush_temporary(*at))?;
        self.disk.flush_intent()
    }

    /// Adds what is not recorded to the state, and what was reached, and makes them durable by `flush`. On failure the
    /// lines are kept for the next time.
    fn record(&mut self, reached: Option<Reached>, flush: impl FnOnce(&mut D) -> io::Result<()>) -> io::Result<()> {
        let appended = self.disk.append_state(&self.unrecorded, reached.as_ref());
        let written = appended.and_then(|()| flush(&mut self.disk));
        self.settle(reached, written)
    }

    /// Takes over what was appended to the state last, or takes it out again.
    fn settle(&mut self, reached: Option<Reached>, written: io::Result<()>) -> io::Result<()> {
        if written.is_err() {
            self.disk.undo_append();
            return written;
        }
        std::mem::take(&mut self.unrecorded).into_iter().for_each(|line| self.remember(line));
        if reached.is_some() {
            self.reached = reached;
        }
        Ok(())
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

    /// Whether a file at `path` is expected to be this receiver's.
    fn holds(&self, path: &Path) -> bool {
        self.held.get(path).is_some_and(|held| held.presence == Presence::Whole && !held.flags.deleted)
    }

    /// Another live path that differs from this one only in case.
    fn same_but_for_case(&mut self, path: &Path) -> Option<Path> {
        let held = &self.held;
        let folded = self.folded.get_or_insert_with(|| {
            let live = held.iter().filter(|(_, held)| !held.flags.deleted);
            live.map(|(path, _)| (fold(path), path.clone())).collect()
        });
        let key = fold(path);
        let is_other = |(other, held): &&Line| other != path && !held.flags.deleted && fold(other) == key;
        let in_batch = self.unrecorded.iter().find(is_other).map(|(other, _)| other);
        let before = || {
            let other = folded.get(&key).filter(|other| *other != path)?;
            let is_gone = |(gone, held): &Line| gone == other && held.flags.deleted;
            (!self.unrecorded.iter().any(is_gone)).then_some(other)
        };
        in_batch.or_else(before).cloned()
    }

    fn place(&mut self, at: usize, change: &Change, touched: &mut Vec<String>) -> Result<Applied, DiskError> {
        let path = &change.path;
        match &change.action {
            Action::Write(_) => {
                if !self.holds(path)
                    && !self.disk.is_absent(path)?
                    && let Some(other) = self.same_but_for_case(path)
                {
                    let cause = format!("this file system cannot hold it beside {other}");
                    return Err(DiskError::Blocked(cause));
                }
                self.disk.place(at, path, touched)?;
            }
            // A file that was never put there by a receiver is left alone.
            Action::Delete | Action::Hide => {
                let whole = |held: &Held| held.presence == Presence::Whole && !held.flags.deleted;
                let unrecorded = self.unrecorded.iter().any(|(placed, held)| placed == path && whole(held));
                let is_own = |held: &Held| whole(held) || held.presence == Presence::Missing;
                if unrecorded || self.held.get(path).is_some_and(is_own) {
                    self.disk.remove(path, touched)?;
                }
            }
            Action::SetMode => {
                if !self.disk.set_mode(path, change.entry.flags.executable)? {
                    return Ok(Applied::Lost);
                }
            }
            Action::Record => {
                if !self.disk.is_file_of(path, change.entry.size, change.entry.flags.executable)? {
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
pub(super) mod tests;

#[cfg(test)]
#[path = "case_tests.rs"]
mod case_tests;
