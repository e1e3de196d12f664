//! The real file system as a [`Disk`]: the directory that is kept, and what is the receiver's own in `~acms`.

use super::{
    apply::OpenError,
    disk::{Disk, DiskError, Line},
    state::{StateError, StateFile},
    tree::{OWN, Tree},
};
use crate::protocol::{
    Hash, Path,
    receiver::{Content, Held, Reached, Recovered, StagedId},
};
use nix::{
    fcntl::{OFlag, openat, renameat},
    sys::stat::Mode,
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Write as _},
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::PathBuf,
};

/// A directory that this process alone keeps.
#[derive(Debug)]
pub(super) struct FileDisk {
    root: PathBuf,
    /// Number of the file system that has `~acms`.
    device: u64,
    tmp_path: PathBuf,
    /// Open, but while the receiver [rests](FileDisk::rest).
    open: Option<Open>,
    state: StateFile,
    /// Of the batch at hand, by number.
    temporaries: BTreeMap<usize, File>,
    _lock: File,
}

#[derive(Debug)]
struct Open {
    tree: Tree,
    tmp: OwnedFd,
}

/// Name of a staged content in `~acms/tmp`.
pub(super) fn staged_name(id: StagedId) -> String {
    format!("large-{}", id.0)
}

fn temporary_name(at: usize) -> String {
    format!("new-{at}")
}

impl FileDisk {
    /// Takes `directory` (made if absent) and removes what a receiver before left in its temporary directory.
    pub(super) fn open(directory: &std::path::Path) -> Result<FileDisk, OpenError> {
        let own_path = directory.join(OWN);
        let tmp_path = own_path.join("tmp");
        let system = |file: &std::path::Path, error| OpenError::System { file: file.display().to_string(), error };
        std::fs::create_dir_all(&tmp_path).map_err(|error| system(&own_path, error))?;
        let lock_path = own_path.join("lock");
        let lock = File::options().write(true).create(true).truncate(false).open(&lock_path);
        let lock = lock.map_err(|error| system(&lock_path, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(OpenError::Locked(directory.display().to_string())),
            Err(std::fs::TryLockError::Error(error)) => return Err(system(&lock_path, error)),
        }
        let tree = Tree::open(directory).map_err(|error| system(directory, error))?;
        let tmp = clear(&tmp_path).and_then(|()| File::open(&tmp_path)).map_err(|error| system(&tmp_path, error))?;
        let state = StateFile::open(own_path.clone())?;
        let device = lock.metadata().map_err(|error| system(&lock_path, error))?.dev();
        let (root, open) = (directory.to_owned(), Some(Open { tree, tmp: tmp.into() }));
        Ok(FileDisk { root, device, tmp_path, open, state, temporaries: BTreeMap::new(), _lock: lock })
    }

    /// The directory of what is the receiver's own, with the state.
    pub(super) fn own(&self) -> PathBuf {
        self.root.join(OWN)
    }

    /// Number of the file system that has it.
    pub(super) fn device(&self) -> u64 {
        self.device
    }

    /// Makes durable what was made just now, so that it is not lost with what will be written into it.
    pub(super) fn sync_made(&self) -> Result<(), OpenError> {
        let above = std::path::absolute(&self.root).ok().and_then(|root| Some(root.parent()?.to_owned()));
        for made in [Some(self.root.join(OWN)), Some(self.root.clone()), above].into_iter().flatten() {
            let synced = File::open(&made).and_then(|made| made.sync_all());
            synced.map_err(|error| OpenError::System { file: made.display().to_string(), error })?;
        }
        Ok(())
    }

    /// Closes everything but the lock: a process that keeps thousands of directories cannot have all of them open.
    pub(super) fn rest(&mut self) {
        self.open = None;
        self.state.rest();
    }

    /// Opens again what [`rest`](FileDisk::rest) has closed; without entries, only what notes what was reached.
    pub(super) fn wake(&mut self, has_entries: bool) -> io::Result<()> {
        if has_entries && self.open.is_none() {
            self.open = Some(Open { tree: Tree::open(&self.root)?, tmp: File::open(&self.tmp_path)?.into() });
        }
        self.state.wake(has_entries)
    }

    fn open_files(&self) -> io::Result<&Open> {
        self.open.as_ref().ok_or_else(|| io::Error::other("the directory is not open"))
    }

    fn tree(&self) -> io::Result<&Tree> {
        Ok(&self.open_files()?.tree)
    }

    /// Where staged contents go.
    pub(super) fn staging_directory(&self) -> PathBuf {
        self.tmp_path.clone()
    }
}

impl Disk for FileDisk {
    fn name(&self) -> String {
        self.root.display().to_string()
    }

    fn load_state(&mut self) -> Result<Recovered, StateError> {
        self.state.load()
    }

    fn intended(&mut self) -> io::Result<Vec<Line>> {
        self.state.intended()
    }

    fn write_intent(&mut self, lines: &[Line]) -> io::Result<()> {
        self.state.write_intent(lines)
    }

    fn flush_intent(&mut self) -> io::Result<()> {
        self.state.flush_intent()
    }

    fn append_state(&mut self, lines: &[Line], reached: Option<&Reached>) -> io::Result<()> {
        self.state.append(lines, reached)
    }

    fn flush_state(&mut self) -> io::Result<()> {
        self.state.flush()
    }

    fn undo_append(&mut self) {
        self.state.undo_append();
    }

    fn tidy_state(&mut self, held: &BTreeMap<Path, Held>, reached: Option<&Reached>) -> io::Result<()> {
        self.state.tidy(held, reached)
    }

    fn write_temporary(&mut self, at: usize, content: &Content, executable: bool) -> io::Result<()> {
        let (name, Open { tree, tmp }) = (temporary_name(at), self.open_files()?);
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let mut file = match content {
            Content::Bytes(bytes) => {
                let flags = flags | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_TRUNC;
                let mut file = File::from(openat(tmp, name.as_str(), flags, Mode::from_bits_truncate(0o600))?);
                file.write_all(bytes)?;
                file
            }
            Content::Staged(id) => {
                renameat(tmp, staged_name(*id).as_str(), tmp, name.as_str())?;
                File::from(openat(tmp, name.as_str(), flags, Mode::empty())?)
            }
        };
        nix::sys::stat::fchmod(&file, tree.mode(executable))?;
        file.flush()?;
        self.temporaries.insert(at, file);
        Ok(())
    }

    fn flush_temporary(&mut self, at: usize) -> io::Result<()> {
        self.temporaries.get(&at).map_or(Ok(()), File::sync_all)
    }

    fn remove_temporary(&mut self, at: usize) {
        self.temporaries.remove(&at);
        let _ = std::fs::remove_file(self.tmp_path.join(temporary_name(at)));
    }

    fn remove_staged(&mut self, id: StagedId) {
        let _ = std::fs::remove_file(self.tmp_path.join(staged_name(id)));
    }

    fn place(&mut self, at: usize, path: &Path, touched: &mut Vec<String>) -> Result<(), DiskError> {
        self.temporaries.remove(&at);
        let Open { tree, tmp } = self.open_files()?;
        tree.place(tmp, &temporary_name(at), path.as_str(), touched)
    }

    fn remove(&mut self, path: &Path, touched: &mut Vec<String>) -> Result<(), DiskError> {
        self.tree()?.remove(path.as_str(), touched)
    }

    fn set_mode(&mut self, path: &Path, executable: bool) -> Result<bool, DiskError> {
        self.tree()?.set_mode(path.as_str(), executable)
    }

    fn flush_directory(&mut self, directory: &str) -> io::Result<()> {
        self.tree()?.sync_directory(directory)
    }

    fn flush_all(&mut self) -> io::Result<()> {
        self.tree()?.sync_all()?;
        self.state.intent_is_durable();
        Ok(())
    }

    fn is_absent(&self, path: &Path) -> io::Result<bool> {
        Ok(self.tree()?.stat(path.as_str())?.is_none())
    }

    fn is_file_of(&self, path: &Path, size: u64, executable: bool) -> io::Result<bool> {
        self.tree()?.is_file_of(path.as_str(), size, executable)
    }

    fn hash_of(&self, path: &Path) -> io::Result<Hash> {
        let (mut file, mut hasher) = (self.tree()?.open_file(path.as_str())?, blake3::Hasher::new());
        let mut buffer = vec![0; 64 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(Hash(*hasher.finalize().as_bytes())),
                len => hasher.update(&buffer[..len]),
            };
        }
    }
}

/// Removes what a receiver before left in its temporary directory.
fn clear(tmp: &std::path::Path) -> io::Result<()> {
    for entry in std::fs::read_dir(tmp)? {
        std::fs::remove_file(entry?.path())?;
    }
    Ok(())
}
