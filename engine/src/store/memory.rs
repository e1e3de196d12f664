//! A disk in memory that forgets what a real one may forget, the same way for the same seed.
//!
//! Between a write and its flush a real disk may hold any of the written sectors; between a rename and the flush of the
//! directory, either name. [`MemoryStorage::crash`] draws one of these states. A flush that fails leaves what was
//! written readable but never durable, as Linux does.

use super::{Storage, StorageFile};
use std::{
    collections::{BTreeMap, BTreeSet},
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
    /// How often it is open.
    handles: usize,
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
    files: BTreeMap<usize, FileState>,
    /// Number of the next file.
    next_file: usize,
    /// Files that have lost a name: those that may have none left.
    unnamed: BTreeSet<usize>,
    syncs: u64,
    fail_at_sync: Option<u64>,
    stop_at_sync: Option<u64>,
    stopped: bool,
    failing: bool,
    /// Writes and flushes that failed because of that.
    failures: u64,
    capacity: Option<u64>,
    locked: bool,
}

fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}

/// What a disk says that takes nothing any more.
fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl Disk {
    fn powered(&self) -> io::Result<()> {
        if self.stopped { Err(power_is_off()) } else { Ok(()) }
    }

    /// Whether it takes writes.
    fn writable(&mut self) -> io::Result<()> {
        self.powered()?;
        if self.failing {
            self.failures += 1;
            return Err(eio());
        }
        Ok(())
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
            return Err(eio());
        }
        self.writable()
    }

    fn change_name(&mut self, change: NameChange) {
        let loses_name = match &change {
            NameChange::Set(..) => None,
            NameChange::Rename(_, name) | NameChange::Remove(name) => self.names.get(name).copied(),
        };
        self.unnamed.extend(loses_name);
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    fn file(&self, file: usize) -> &FileState {
        self.files.get(&file).expect("a file is there as long as it has a name or is open")
    }

    fn file_mut(&mut self, file: usize) -> &mut FileState {
        self.files.get_mut(&file).expect("a file is there as long as it has a name or is open")
    }

    /// Frees what has no name that can come back, and is not open.
    fn free_unnamed(&mut self) {
        if self.unnamed.is_empty() || !self.pending_names.is_empty() {
            return;
        }
        let Disk { names, durable_names, files, unnamed, .. } = self;
        unnamed.retain(|file| {
            if names.values().any(|named| named == file) {
                return false;
            }
            let is_needed = durable_names.values().any(|named| named == file)
                || files.get(file).is_some_and(|state| state.handles > 0);
            if !is_needed {
                files.remove(file);
            }
            is_needed
        });
    }

    /// Only files with a name are left, for nobody has any open. For a disk whose process is gone.
    fn keep_named(&mut self) {
        let mut named: BTreeSet<usize> = self.names.values().chain(self.durable_names.values()).copied().collect();
        named.extend(self.pending_names.iter().filter_map(|change| match change {
            NameChange::Set(_, file) => Some(*file),
            _ => None,
        }));
        self.files.retain(|file, _| named.contains(file));
        self.files.values_mut().for_each(|file| file.handles = 0);
        named.retain(|file| !self.names.values().any(|one| one == file));
        self.unnamed = named;
    }

    fn named(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// Whether `more` bytes still fit.
    fn reserve(&self, more: u64) -> io::Result<()> {
        let used: u64 = self.names.values().map(|file| self.file(*file).current.len() as u64).sum();
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
        disk.keep_named();
        (disk.locked, disk.stopped, disk.fail_at_sync, disk.stop_at_sync) = (false, false, None, None);
        disk.syncs = 0;
        MemoryStorage(Arc::new(Mutex::new(disk)))
    }

    /// The disk after a power failure now; `seed` chooses what of the unflushed survives. This one stays as it was.
    #[must_use]
    pub fn crash(&self, seed: u64) -> MemoryStorage {
        let mut disk = self.disk().clone();
        disk.keep_named();
        let mut draw = Draw(seed);
        disk.files.values_mut().for_each(|file| file.crash(&mut draw));
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

    /// From now on every write and every flush fails, in later lives of the process too, or no longer. Reading goes on.
    pub fn set_failing(&self, failing: bool) {
        self.disk().failing = failing;
    }

    /// Writes and flushes that have failed so, ever.
    pub fn failures(&self) -> u64 {
        self.disk().failures
    }

    /// Bytes that all files take in memory: those with a name, and those that are open without one.
    pub fn bytes_kept(&self) -> usize {
        self.disk().files.values().map(|file| file.current.len() + file.durable.len()).sum()
    }

    /// Bytes that the files may take; writing beyond is a full disk.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.disk().capacity = capacity;
    }

    /// Bytes of a file as they can be read now.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.disk();
        disk.named(name).ok().map(|file| disk.file(file).current.clone())
    }

    /// Bit rot: inverts the bits of `mask` in the byte at `offset`.
    pub fn rot(&self, name: &str, offset: usize, mask: u8) {
        let mut disk = self.disk();
        if let Ok(file) = disk.named(name) {
            let file = disk.file_mut(file);
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

impl Drop for MemoryFile {
    fn drop(&mut self) {
        let mut disk = self.storage.disk();
        disk.file_mut(self.file).handles -= 1;
        disk.free_unnamed();
    }
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
        disk.writable()?;
        if disk.names.contains_key(name) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        disk.reserve(len)?;
        let file = disk.next_file;
        disk.next_file += 1;
        disk.files.insert(file, FileState { current: vec![0; len as usize], handles: 1, ..FileState::default() });
        disk.change_name(NameChange::Set(name.into(), file));
        Ok(MemoryFile { storage: self.clone(), file })
    }

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        let mut disk = self.disk();
        disk.powered()?;
        let file = disk.named(name)?;
        disk.file_mut(file).handles += 1;
        Ok(MemoryFile { storage: self.clone(), file })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.writable()?;
        disk.named(from)?;
        disk.change_name(NameChange::Rename(from.into(), to.into()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.writable()?;
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
        disk.free_unnamed();
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
        let bytes = disk.file(self.file).current.get(offset..offset.saturating_add(buffer.len()));
        buffer.copy_from_slice(bytes.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.storage.disk();
        disk.writable()?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let more = (offset + bytes.len()).saturating_sub(disk.file(self.file).current.len());
        if more > 0 {
            disk.reserve(more as u64)?;
        }
        let file = disk.file_mut(self.file);
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
        let file = disk.file_mut(self.file);
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
        Ok(disk.file(self.file).current.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(disk: &MemoryStorage, name: &str, len: usize) -> MemoryFile {
        let file = disk.create(name, 0).expect("there is room");
        file.write_at(0, &vec![7; len]).expect("a healthy disk");
        file.sync_data().expect("a healthy disk");
        file
    }

    #[test]
    fn a_file_goes_with_its_last_name_and_the_last_who_has_it_open() {
        let disk = MemoryStorage::new();
        let file = write(&disk, "a", 1_000);
        disk.sync_dir().expect("a healthy disk");
        disk.remove("a").expect("it is there");
        disk.sync_dir().expect("a healthy disk");
        assert_eq!(disk.bytes_kept(), 2_000, "it is open");
        drop(file);
        assert_eq!(disk.bytes_kept(), 0);
        for _ in 0..100 {
            drop(write(&disk, "new", 1_000));
            disk.rename("new", "b").expect("it is there");
            // Until the directory is flushed the one before may come back.
            disk.sync_dir().expect("a healthy disk");
        }
        assert_eq!(disk.bytes_kept(), 2_000);
        drop(write(&disk, "new", 500));
        disk.rename("new", "b").expect("it is there");
        assert_eq!(disk.bytes_kept(), 3_000);
        let lens: BTreeSet<usize> = (0..50).filter_map(|seed| Some(disk.crash(seed).bytes("b")?.len())).collect();
        assert_eq!(lens, BTreeSet::from([500, 1_000]));
        assert_eq!(disk.kill().bytes("b").map(|bytes| bytes.len()), Some(500));
    }

    #[test]
    fn a_failing_disk_takes_nothing_and_gives_what_it_has() {
        let disk = MemoryStorage::new();
        let file = write(&disk, "a", 10);
        disk.set_failing(true);
        let failed =
            [file.write_at(0, b"x"), file.sync_data(), disk.sync_dir(), disk.remove("a"), disk.rename("a", "b")];
        assert!(failed.iter().all(|one| one.as_ref().is_err_and(|error| error.raw_os_error() == Some(5))));
        assert!(disk.create("c", 0).is_err() && disk.kill().create("c", 0).is_err());
        assert_eq!((disk.failures(), disk.bytes("a")), (6, Some(vec![7; 10])));
        disk.set_failing(false);
        disk.remove("a").expect("a healthy disk");
    }
}
