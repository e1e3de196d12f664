//! A disk in memory that forgets what a real one may forget, the same way for the same seed.
//!
//! Between a write and its flush a real disk may hold any of the written sectors; between a rename and the flush of the
//! directory, either name. [`MemoryStorage::crash`] draws one of these states. A flush that fails leaves what was
//! written readable but never durable, as Linux does.

use super::{Storage, StorageFile};
use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

const SECTOR_LEN: usize = 512;

#[derive(Clone, Default)]
struct FileState {
    current: Vec<u8>,
    durable: Vec<u8>,
    /// Written since the last flush.
    pending: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone)]
enum NameChange {
    Set(String, usize),
    Rename(String, String),
    Remove(String),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Set(name, file) => {
                names.insert(name.clone(), *file);
            }
            NameChange::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            NameChange::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

#[derive(Clone, Default)]
struct Disk {
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<NameChange>,
    files: Vec<FileState>,
    syncs: u64,
    fail_at_sync: Option<u64>,
    stop_at_sync: Option<u64>,
    stopped: bool,
    capacity: Option<u64>,
    locked: bool,
}

fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

impl Disk {
    fn powered(&self) -> io::Result<()> {
        if self.stopped { Err(power_is_off()) } else { Ok(()) }
    }

    /// Counts a flush and lets the fault that is set for it happen.
    fn begin_sync(&mut self) -> io::Result<()> {
        self.powered()?;
        self.syncs += 1;
        if self.stop_at_sync == Some(self.syncs) {
            self.stopped = true;
            return Err(power_is_off());
        }
        if self.fail_at_sync == Some(self.syncs) {
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(())
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    fn named(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// Whether `more` bytes still fit.
    fn reserve(&self, more: u64) -> io::Result<()> {
        let used: u64 = self.names.values().map(|file| self.files[*file].current.len() as u64).sum();
        match self.capacity {
            Some(capacity) if used + more > capacity => Err(io::Error::from(io::ErrorKind::StorageFull)),
            _ => Ok(()),
        }
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, written: &[u8]) {
    if bytes.len() < offset + written.len() {
        bytes.resize(offset + written.len(), 0);
    }
    bytes[offset..offset + written.len()].copy_from_slice(written);
}

/// Splitmix64: what survives a crash, drawn from a seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

impl FileState {
    /// What of the unflushed writes is on the disk: none, all, those up to a sector, or any of their sectors.
    fn crash(&mut self, draw: &mut Draw) {
        let mode = draw.below(4);
        let total: usize = self.pending.iter().map(|(_, bytes)| bytes.len()).sum();
        let mut left = if mode == 2 { draw.below(total as u64 + 1) as usize } else { usize::MAX };
        for (offset, bytes) in std::mem::take(&mut self.pending) {
            let mut at = 0;
            while mode != 0 && at < bytes.len() {
                let step = (SECTOR_LEN - (offset + at) % SECTOR_LEN).min(bytes.len() - at);
                let survives = if mode == 3 { draw.below(2) == 1 } else { left >= step };
                if survives {
                    put(&mut self.durable, offset + at, &bytes[at..at + step]);
                    left -= if mode == 2 { step } else { 0 };
                } else {
                    left = if mode == 2 { 0 } else { left };
                }
                at += step;
            }
        }
        self.current.clone_from(&self.durable);
    }
}

/// A disk in memory; clones are the same disk.
#[derive(Clone, Default)]
pub struct MemoryStorage(Arc<Mutex<Disk>>);

impl MemoryStorage {
    /// An empty disk.
    pub fn new() -> MemoryStorage {
        MemoryStorage::default()
    }

    // Every change of the disk is whole before anything can panic.
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn restarted(mut disk: Disk) -> MemoryStorage {
        (disk.locked, disk.stopped, disk.fail_at_sync, disk.stop_at_sync) = (false, false, None, None);
        disk.syncs = 0;
        MemoryStorage(Arc::new(Mutex::new(disk)))
    }

    /// The disk after a power failure now; `seed` chooses what of the unflushed survives. This one stays as it was.
    #[must_use]
    pub fn crash(&self, seed: u64) -> MemoryStorage {
        let mut disk = self.disk().clone();
        let mut draw = Draw(seed);
        disk.files.iter_mut().for_each(|file| file.crash(&mut draw));
        let survive = draw.below(disk.pending_names.len() as u64 + 1) as usize;
        let mut names = disk.durable_names.clone();
        disk.pending_names.drain(..).take(survive).for_each(|change| change.apply(&mut names));
        (disk.durable_names, disk.names) = (names.clone(), names);
        MemoryStorage::restarted(disk)
    }

    /// The disk after the process was killed now: all that was written can be read, flushed or not.
    #[must_use]
    pub fn kill(&self) -> MemoryStorage {
        MemoryStorage::restarted(self.disk().clone())
    }

    /// Flushes since the start, failed ones too.
    pub fn syncs(&self) -> u64 {
        self.disk().syncs
    }

    /// The `n`-th flush from the start fails, and what it should have made durable never will be.
    pub fn fail_at_sync(&self, n: u64) {
        self.disk().fail_at_sync = Some(n);
    }

    /// The power goes off in the `n`-th flush from the start: it and all after it fail.
    pub fn stop_at_sync(&self, n: u64) {
        self.disk().stop_at_sync = Some(n);
    }

    /// Bytes that the files may take; writing beyond is a full disk.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.disk().capacity = capacity;
    }

    /// Bytes of a file as they can be read now.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.disk();
        disk.named(name).ok().map(|file| disk.files[file].current.clone())
    }

    /// Bit rot: inverts the bits of `mask` in the byte at `offset`.
    pub fn rot(&self, name: &str, offset: usize, mask: u8) {
        let mut disk = self.disk();
        if let Ok(file) = disk.named(name) {
            let file = &mut disk.files[file];
            for bytes in [&mut file.current, &mut file.durable] {
                if let Some(byte) = bytes.get_mut(offset) {
                    *byte ^= mask;
                }
            }
        }
    }
}

/// Unlocks a [`MemoryStorage`].
pub struct MemoryLock(MemoryStorage);

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.0.disk().locked = false;
    }
}

/// A file of a [`MemoryStorage`].
pub struct MemoryFile {
    storage: MemoryStorage,
    file: usize,
}

impl Storage for MemoryStorage {
    type File = MemoryFile;
    type Lock = MemoryLock;

    fn lock(&self) -> io::Result<Option<MemoryLock>> {
        let before = std::mem::replace(&mut self.disk().locked, true);
        Ok((!before).then(|| MemoryLock(self.clone())))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let disk = self.disk();
        disk.powered()?;
        Ok(disk.names.keys().cloned().collect())
    }

    fn create(&self, name: &str, len: u64) -> io::Result<MemoryFile> {
        let mut disk = self.disk();
        disk.powered()?;
        if disk.names.contains_key(name) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        disk.reserve(len)?;
        let file = disk.files.len();
        disk.files.push(FileState { current: vec![0; len as usize], ..FileState::default() });
        disk.change_name(NameChange::Set(name.into(), file));
        Ok(MemoryFile { storage: self.clone(), file })
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        let disk = self.disk();
        disk.powered()?;
        Ok(MemoryFile { storage: self.clone(), file: disk.named(name)? })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.powered()?;
        disk.named(from)?;
        disk.change_name(NameChange::Rename(from.into(), to.into()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.powered()?;
        disk.named(name)?;
        disk.change_name(NameChange::Remove(name.into()));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut disk = self.disk();
        let begun = disk.begin_sync();
        if disk.stopped {
            return begun;
        }
        disk.pending_names.clear();
        begun?;
        disk.durable_names = disk.names.clone();
        Ok(())
    }

    fn path(&self, _name: &str) -> Option<PathBuf> {
        None
    }
}

impl StorageFile for MemoryFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let disk = self.storage.disk();
        disk.powered()?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = disk.files[self.file].current.get(offset..offset.saturating_add(buffer.len()));
        buffer.copy_from_slice(bytes.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.storage.disk();
        disk.powered()?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let more = (offset + bytes.len()).saturating_sub(disk.files[self.file].current.len());
        if more > 0 {
            disk.reserve(more as u64)?;
        }
        let file = &mut disk.files[self.file];
        put(&mut file.current, offset, bytes);
        file.pending.push((offset, bytes.to_vec()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.storage.disk();
        let begun = disk.begin_sync();
        if disk.stopped {
            return begun;
        }
        let file = &mut disk.files[self.file];
        let pending = std::mem::take(&mut file.pending);
        begun?;
        if file.durable.len() < file.current.len() {
            let len = file.current.len();
            file.durable.resize(len, 0);
        }
        for (offset, bytes) in pending {
            put(&mut file.durable, offset, &bytes);
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let disk = self.storage.disk();
        disk.powered()?;
        Ok(disk.files[self.file].current.len() as u64)
    }
}
