//! The directory that a simulated receiver keeps: a [`Disk`] in memory that forgets what a real one may forget.
//!
//! Without power everything that was not flushed may be there or not: lines of state and intent, renames and removals
//! (of each directory in their order), and the contents of files that were renamed before they were flushed.

use crate::{faults::FaultKind, workload::Random};
use acms_engine::{
    protocol::{
        Hash, Path,
        receiver::{Content, Held, Reached, Recovered, StagedId},
    },
    runtime::receive::{Disk, DiskError, Line, StateError},
};
use bytes::Bytes;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
    rc::Rc,
};

/// Bytes a second that a flush writes at most.
const BYTES_PER_S: u64 = 200_000_000;
/// The pool forgets what nobody has any more when it has grown by so many contents.
const POOL_STEP: usize = 4_096;

/// Contents that many receivers have, each in memory once. Equal bytes are found by comparison, not by what anybody
/// says of them.
#[derive(Clone, Default, Debug)]
pub(super) struct ContentPool(Rc<RefCell<Pool>>);

#[derive(Default, Debug)]
struct Pool {
    contents: BTreeMap<(usize, [u8; 24]), Bytes>,
    swept_at: usize,
}

impl ContentPool {
    /// The same bytes, in memory once.
    pub(super) fn share(&self, bytes: &Bytes) -> Bytes {
        let mut beginning = [0; 24];
        let len = bytes.len().min(24);
        beginning[..len].copy_from_slice(&bytes[..len]);
        let mut pool = self.0.borrow_mut();
        let key = (bytes.len(), beginning);
        if let Some(known) = pool.contents.get(&key)
            && known == bytes
        {
            return known.clone();
        }
        if pool.contents.len() > pool.swept_at + POOL_STEP {
            pool.contents.retain(|_, bytes| !bytes.is_unique());
            pool.swept_at = pool.contents.len();
        }
        // A slice would keep the whole answer that it came in.
        let own = Bytes::copy_from_slice(bytes);
        pool.contents.insert(key, own.clone());
        own
    }
}

#[derive(Clone, Debug)]
struct File {
    content: Bytes,
    executable: bool,
    is_flushed: bool,
}

/// An entry of a directory that has changed and is not flushed.
#[derive(Debug)]
enum Unflushed {
    /// A file, with what was there before.
    Entry { path: Path, before: Option<File> },
    /// A directory was made.
    Made { directory: String },
}

/// A line of the state.
#[derive(Debug)]
enum Appended {
    Entry(Line),
    Reached(Reached),
}

/// What faults do to the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Faults {
    /// No room for contents.
    pub(super) is_full: bool,
    /// Flushes fail.
    pub(super) fails: bool,
    /// Added to each flush.
    pub(super) slower_by_ns: u64,
}

/// The directory and what the receiver notes about it.
#[derive(Debug)]
pub(super) struct Directory {
    pool: ContentPool,
    random: Random,
    flush_ns: u64,
    pub(super) faults: Faults,
    /// Faults that have refused something, until somebody takes note.
    pub(super) refused: BTreeSet<FaultKind>,
    files: BTreeMap<Path, File>,
    directories: BTreeSet<String>,
    unflushed: Vec<(String, Unflushed)>,
    temporaries: BTreeMap<usize, File>,
    staged: BTreeMap<StagedId, Bytes>,
    next_staged: u64,
    state: BTreeMap<Path, Held>,
    reached: Option<Reached>,
    appended: Vec<Appended>,
    /// Of `appended`, how many were there before the last append.
    appended_before: usize,
    /// The last durable one, and the other one.
    intents: [Vec<Line>; 2],
    /// What the other one was before it was written and not flushed.
    intent_before: Option<Vec<Line>>,
    /// So many more operations take effect; then the machine stops.
    operations_left: Option<u64>,
}

/// The directory part of a path.
fn directory_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

impl Directory {
    /// An empty one. A flush takes `flush_ns` and a little more for each byte.
    pub(super) fn new(pool: ContentPool, flush_ns: u64, random: Random) -> Directory {
        Directory {
            pool,
            random,
            flush_ns,
            faults: Faults::default(),
            refused: BTreeSet::new(),
            files: BTreeMap::new(),
            directories: BTreeSet::new(),
            unflushed: Vec::new(),
            temporaries: BTreeMap::new(),
            staged: BTreeMap::new(),
            next_staged: 1,
            state: BTreeMap::new(),
            reached: None,
            appended: Vec::new(),
            appended_before: 0,
            intents: [Vec::new(), Vec::new()],
            intent_before: None,
            operations_left: None,
        }
    }

    /// Time that a batch of so many contents takes with so many bytes in all.
    /// One of no changes only notes what was reached.
    pub(super) fn batch_ns(&self, changes: usize, contents: usize, bytes: u64) -> u64 {
        let flushes = if changes == 0 { 1 } else { 2 + contents.clamp(1, 2) as u64 };
        flushes * (self.flush_ns + self.faults.slower_by_ns) + bytes.saturating_mul(1_000_000_000) / BYTES_PER_S
    }

    /// Takes in a large content whose hash was checked.
    pub(super) fn stage(&mut self, bytes: &Bytes) -> io::Result<StagedId> {
        self.takes_bytes()?;
        let id = StagedId(self.next_staged);
        self.next_staged += 1;
        self.staged.insert(id, self.pool.share(bytes));
        Ok(id)
    }

    /// From now on only so many operations take effect, as if the machine stopped in the middle of a batch that has
    /// `changes` changes. Which one is the last is drawn.
    pub(super) fn stop_within(&mut self, changes: usize) {
        self.operations_left = Some(self.random.below(4 * changes as u64 + 8));
    }

    /// The process is gone; what it wrote is there.
    pub(super) fn kill(&mut self) {
        self.operations_left = None;
        self.temporaries.clear();
        self.staged.clear();
    }

    /// The power is gone. Gives the paths at which something is there now that was not durable.
    pub(super) fn lose_power(&mut self) -> Vec<Path> {
        self.kill();
        let kept = self.random.below(self.appended.len() as u64 + 1) as usize;
        self.appended.truncate(kept);
        if let Some(before) = self.intent_before.take() {
            let written = &mut self.intents[1];
            match self.random.below(3) {
                0 => *written = before,
                1 => {}
                _ => written.truncate(self.random.below(written.len() as u64 + 1) as usize),
            }
        }
        let exposed = self.lose_entries();
        for file in self.files.values_mut().filter(|file| !file.is_flushed) {
            // Size without data, a part, or nothing: all have been seen.
            let len = file.content.len();
            file.content = match self.random.below(3) {
                0 => Bytes::new(),
                1 => file.content.slice(..self.random.below(len as u64 + 1) as usize),
                _ => Bytes::from(vec![0; len]),
            };
            file.is_flushed = true;
        }
        self.flush_state_lines();
        exposed
    }

    /// Undoes entries that were not flushed: of each directory all from a drawn one on.
    fn lose_entries(&mut self) -> Vec<Path> {
        let mut survive: BTreeMap<String, u64> = BTreeMap::new();
        for (directory, _) in &self.unflushed {
            *survive.entry(directory.clone()).or_default() += 1;
        }
        for count in survive.values_mut() {
            *count = self.random.below(*count + 1);
        }
        let (mut lost, mut exposed) = (Vec::new(), Vec::new());
        for (directory, change) in std::mem::take(&mut self.unflushed) {
            let left = survive.entry(directory).or_default();
            if *left > 0 {
                *left -= 1;
                if let Unflushed::Entry { path, .. } = change {
                    exposed.push(path);
                }
            } else {
                lost.push(change);
            }
        }
        for change in lost.into_iter().rev() {
            match change {
                Unflushed::Entry { path, before } => drop(match before {
                    Some(file) => self.files.insert(path, file),
                    None => self.files.remove(&path),
                }),
                Unflushed::Made { directory } => {
                    let below = format!("{directory}/");
                    self.files.retain(|path, _| !path.as_str().starts_with(&below));
                }
            }
        }
        self.directories.clear();
        for path in self.files.keys() {
            for (at, _) in path.as_str().match_indices('/') {
                self.directories.insert(path.as_str()[..at].to_owned());
            }
        }
        exposed
    }

    /// What is there: each file's content.
    pub(super) fn files(&self) -> impl Iterator<Item = (&Path, &Bytes)> {
        self.files.iter().map(|(path, file)| (path, &file.content))
    }

    /// The content of the file at `path`.
    pub(super) fn content(&self, path: &Path) -> Option<&Bytes> {
        self.files.get(path).map(|file| &file.content)
    }

    /// What the state says.
    pub(super) fn state(&self) -> BTreeMap<&Path, &Held> {
        let appended = self.appended.iter().filter_map(|line| match line {
            Appended::Entry((path, held)) => Some((path, held)),
            Appended::Reached(_) => None,
        });
        self.state.iter().chain(appended).collect()
    }

    /// Whether the next operation takes effect.
    fn goes_on(&mut self) -> io::Result<()> {
        match &mut self.operations_left {
            None => Ok(()),
            Some(0) => Err(io::Error::other("the machine has stopped")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn flushes(&mut self) -> io::Result<()> {
        self.goes_on()?;
        self.refused.extend(self.faults.fails.then_some(FaultKind::DiskFail));
        if self.faults.fails { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }

    fn takes_bytes(&mut self) -> io::Result<()> {
        self.refused.extend(self.faults.is_full.then_some(FaultKind::DiskFull));
        if self.faults.is_full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn flush_state_lines(&mut self) {
        for line in self.appended.drain(..) {
            match line {
                Appended::Entry((path, held)) => drop(self.state.insert(path, held)),
                Appended::Reached(reached) => self.reached = Some(reached),
            }
        }
        self.appended_before = 0;
    }

    fn intent_is_durable(&mut self) {
        if self.intent_before.take().is_some() {
            self.intents.swap(0, 1);
        }
    }

    fn change(&mut self, path: &Path, after: Option<File>, touched: &mut Vec<String>) {
        let before = match after {
            Some(file) => self.files.insert(path.clone(), file),
            None => self.files.remove(path),
        };
        let directory = directory_of(path.as_str()).to_owned();
        touched.push(directory.clone());
        self.unflushed.push((directory, Unflushed::Entry { path: path.clone(), before }));
    }

    fn make_directory(&mut self, directory: &str, touched: &mut Vec<String>) -> Result<(), DiskError> {
        let ends = directory.match_indices('/').map(|(at, _)| at).chain([directory.len()]);
        for above in ends.map(|end| &directory[..end]).filter(|above| !above.is_empty()) {
            if self.files.contains_key(above) {
                return Err(DiskError::Blocked(format!("{above} is there and is no directory")));
            }
            if self.directories.insert(above.to_owned()) {
                let parent = directory_of(above).to_owned();
                touched.push(parent.clone());
                self.unflushed.push((parent, Unflushed::Made { directory: above.to_owned() }));
            }
        }
        Ok(())
    }

    fn has_below(&self, path: &str) -> bool {
        let start = format!("{path}/");
        let range = (std::ops::Bound::Included(start.as_str()), std::ops::Bound::Unbounded);
        self.files.range::<str, _>(range).next().is_some_and(|(other, _)| other.as_str().starts_with(&start))
    }
}

impl Disk for Directory {
    fn name(&self) -> String {
        "the simulated directory".to_owned()
    }

    fn load_state(&mut self) -> Result<Recovered, StateError> {
        self.flush_state_lines();
        Ok(Recovered { held: self.state.clone(), reached: self.reached.clone() })
    }

    fn intended(&mut self) -> io::Result<Vec<Line>> {
        Ok(self.intents.concat())
    }

    fn write_intent(&mut self, lines: &[Line]) -> io::Result<()> {
        self.goes_on()?;
        let before = std::mem::replace(&mut self.intents[1], lines.to_vec());
        self.intent_before.get_or_insert(before);
        Ok(())
    }

    fn flush_intent(&mut self) -> io::Result<()> {
        self.flushes()?;
        self.intent_is_durable();
        Ok(())
    }

    fn append_state(&mut self, lines: &[Line], reached: Option<&Reached>) -> io::Result<()> {
        self.goes_on()?;
        self.appended_before = self.appended.len();
        self.appended.extend(lines.iter().cloned().map(Appended::Entry));
        self.appended.extend(reached.cloned().map(Appended::Reached));
        Ok(())
    }

    fn flush_state(&mut self) -> io::Result<()> {
        self.flushes()?;
        self.flush_state_lines();
        Ok(())
    }

    fn undo_append(&mut self) {
        if self.goes_on().is_ok() {
            self.appended.truncate(self.appended_before);
        }
    }

    fn tidy_state(&mut self, _held: &BTreeMap<Path, Held>, _reached: Option<&Reached>) -> io::Result<()> {
        // Superseded lines are never kept here.
        Ok(())
    }

    fn write_temporary(&mut self, at: usize, content: &Content, executable: bool) -> io::Result<()> {
        self.goes_on()?;
        self.takes_bytes()?;
        let content = match content {
            Content::Bytes(bytes) => self.pool.share(bytes),
            Content::Staged(id) => self.staged.remove(id).ok_or(io::ErrorKind::NotFound)?,
        };
        self.temporaries.insert(at, File { content, executable, is_flushed: false });
        Ok(())
    }

    fn flush_temporary(&mut self, at: usize) -> io::Result<()> {
        self.flushes()?;
        self.temporaries.get_mut(&at).into_iter().for_each(|file| file.is_flushed = true);
        Ok(())
    }

    fn remove_temporary(&mut self, at: usize) {
        self.temporaries.remove(&at);
    }

    fn remove_staged(&mut self, id: StagedId) {
        self.staged.remove(&id);
    }

    fn place(&mut self, at: usize, path: &Path, touched: &mut Vec<String>) -> Result<(), DiskError> {
        self.goes_on()?;
        self.make_directory(directory_of(path.as_str()), touched)?;
        if self.has_below(path.as_str()) {
            return Err(DiskError::Blocked(format!("a directory is at {path}")));
        }
        self.directories.remove(path.as_str());
        let file = self.temporaries.remove(&at).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        self.change(path, Some(file), touched);
        Ok(())
    }

    fn remove(&mut self, path: &Path, touched: &mut Vec<String>) -> Result<(), DiskError> {
        self.goes_on()?;
        if self.files.contains_key(path) {
            self.change(path, None, touched);
        }
        let mut directory = directory_of(path.as_str());
        while !directory.is_empty() && !self.has_below(directory) && self.directories.remove(directory) {
            directory = directory_of(directory);
        }
        Ok(())
    }

    fn set_mode(&mut self, path: &Path, executable: bool) -> Result<bool, DiskError> {
        self.flushes()?;
        Ok(self.files.get_mut(path).map(|file| file.executable = executable).is_some())
    }

    fn flush_directory(&mut self, directory: &str) -> io::Result<()> {
        self.flushes()?;
        self.unflushed.retain(|(changed, _)| changed != directory);
        Ok(())
    }

    fn flush_all(&mut self) -> io::Result<()> {
        self.flushes()?;
        for file in self.temporaries.values_mut() {
            file.is_flushed = true;
        }
        for (_, change) in self.unflushed.drain(..) {
            if let Unflushed::Entry { path, .. } = change
                && let Some(file) = self.files.get_mut(&path)
            {
                file.is_flushed = true;
            }
        }
        self.intent_is_durable();
        self.flush_state_lines();
        Ok(())
    }

    fn is_absent(&self, path: &Path) -> io::Result<bool> {
        Ok(!self.files.contains_key(path) && !self.directories.contains(path.as_str()))
    }

    fn is_file_of(&self, path: &Path, size: u64, executable: bool) -> io::Result<bool> {
        let right = |file: &File| file.content.len() as u64 == size && file.executable == executable;
        Ok(self.files.get(path).is_some_and(right))
    }

    fn hash_of(&self, path: &Path) -> io::Result<Hash> {
        self.files.get(path).map(|file| Hash::of(&file.content)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
