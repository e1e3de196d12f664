//! A directory that counts what is written to it.

use acms_engine::store::{DirStorage, Storage, StorageFile};
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// A [`DirStorage`] that counts bytes.
#[derive(Clone, Debug)]
pub struct CountingStorage {
    dir: DirStorage,
    written: Arc<AtomicU64>,
}

impl CountingStorage {
    /// In `dir`.
    pub fn new(dir: &Path) -> io::Result<CountingStorage> {
        Ok(CountingStorage { dir: DirStorage::new(dir)?, written: Arc::default() })
    }

    /// Bytes written since it was made.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    fn count(&self, file: File) -> CountingFile {
        CountingFile { file, written: Arc::clone(&self.written) }
    }
}

/// A file of a [`CountingStorage`].
#[derive(Debug)]
pub struct CountingFile {
    file: File,
    written: Arc<AtomicU64>,
}

impl Storage for CountingStorage {
    type File = CountingFile;
    type Lock = File;

    fn lock(&self) -> io::Result<Option<File>> {
        self.dir.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.dir.list()
    }

    fn create(&self, name: &str, len: u64) -> io::Result<CountingFile> {
        Ok(self.count(self.dir.create(name, len)?))
    }

    fn open(&self, name: &str) -> io::Result<CountingFile> {
        Ok(self.count(self.dir.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.dir.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.dir.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.dir.sync_dir()
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.dir.path(name)
    }
}

impl StorageFile for CountingFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        StorageFile::read_at(&self.file, offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        StorageFile::write_at(&self.file, offset, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        StorageFile::sync_data(&self.file)
    }

    fn len(&self) -> io::Result<u64> {
        StorageFile::len(&self.file)
    }
}
