//! The few things that the store asks of a disk, and the real one.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// A directory of files. What was written is durable once the file was synced, and its name once the directory was.
pub trait Storage: Clone + Send + Sync + 'static {
    /// An open file.
    type File: StorageFile;
    /// Keeps others out of the directory until dropped.
    type Lock: Send + Sync + 'static;

    /// Locks the directory; `None` if another has it.
    fn lock(&self) -> io::Result<Option<Self::Lock>>;
    /// Names of the files, in any order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A new file of `len` bytes that read as zero. Their room is reserved if the file system can do that.
    fn create(&self, name: &str, len: u64) -> io::Result<Self::File>;
    /// Opens for reading and writing.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Renames; a file of the new name is replaced.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes names durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// Where the file is, if it is on a real disk.
    fn path(&self, name: &str) -> Option<PathBuf>;
}

/// A file of a [`Storage`].
#[allow(clippy::len_without_is_empty, reason = "nobody asks whether a file is empty")]
pub trait StorageFile: Send + Sync + 'static {
    /// Fills `buffer` from `offset`; an error if the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes all that was written durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Bytes of the file.
    fn len(&self) -> io::Result<u64>;
}

/// A directory of the file system.
#[derive(Clone, Debug)]
pub struct DirStorage {
    dir: PathBuf,
}

impl DirStorage {
    /// In `dir`, which is made if absent.
    pub fn new(dir: impl AsRef<Path>) -> io::Result<DirStorage> {
        let dir = dir.as_ref();
        if !dir.is_dir() {
            fs::create_dir_all(dir)?;
            if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(DirStorage { dir: dir.to_owned() })
    }
}

const LOCK_NAME: &str = "lock";

impl Storage for DirStorage {
    type File = File;
    type Lock = File;

    fn lock(&self) -> io::Result<Option<File>> {
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(self.dir.join(LOCK_NAME))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str, len: u64) -> io::Result<File> {
        let path = self.dir.join(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let reserve = || {
            file.set_len(len)?;
            let Ok(len) = i64::try_from(len) else { return Ok(()) };
            match nix::fcntl::posix_fallocate(&file, 0, len) {
                Err(errno @ (nix::Error::ENOSPC | nix::Error::EDQUOT)) => Err(io::Error::from(errno)),
                _ => Ok(()), // not every file system can reserve
            }
        };
        if len > 0
            && let Err(error) = reserve()
        {
            fs::remove_file(&path).ok();
            return Err(error);
        }
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.dir.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.dir.join(name))
    }
}

impl StorageFile for File {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}
