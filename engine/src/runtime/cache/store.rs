//! The objects that a cache keeps: files named by hash, within a bound of disk; what was not used for longest goes first.
//!
//! Invariant: an object is given out only after its bytes were compared with its name in the life of this process. Small
//! ones are compared at every read. Nothing is flushed: what a power failure takes or spoils is noticed then, and fetched
//! again.

use crate::protocol::{Hash, Instant, durable::INLINE_LEN_MAX};
use bytes::Bytes;
use nix::{
    fcntl::{Flock, FlockArg},
    sys::{stat::futimens, time::TimeSpec},
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Objects up to this are read, compared and kept in one step.
pub(super) const SMALL_LEN_MAX: u64 = INLINE_LEN_MAX;
/// What a file takes at least.
const BLOCK_LEN: u64 = 4096;
/// How exactly the time of use is known after a restart.
const TOUCH_EVERY: Duration = Duration::from_secs(600);
/// A large object is compared again because of a doubt so often at most.
const DOUBT_EVERY: Duration = Duration::from_secs(60);

/// Why a directory cannot be used. Each message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The system does not give it.
    #[error("the cache's directory {path} cannot be used: {source}")]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another cache runs there.
    #[error("another cache uses the directory {0}: stop it, or choose another directory")]
    Locked(PathBuf),
    /// There are other things in it.
    #[error(
        "{0} is neither empty nor a cache's directory: choose another, or empty it yourself (a cache removes what is in \
         its own)"
    )]
    Foreign(PathBuf),
}

/// What is known of a kept object.
#[derive(Clone, Copy, Debug)]
struct Kept {
    len: u64,
    /// When it was used last, as a number that grows.
    used: u64,
    touched_at: Instant,
    /// When its bytes were compared with its name.
    compared_at: Option<Instant>,
}

/// An object as it is kept.
#[derive(Debug)]
pub(super) enum Found {
    /// These bytes.
    Small(Bytes),
    /// A file with so many.
    Large(Arc<File>, u64),
    /// A large object of an earlier life: to be compared first, as it lies there.
    Uncompared(PathBuf),
    /// It is kept, and cannot be read now.
    Unreadable(io::Error),
    /// It is not kept, or was spoilt and is not kept any more.
    Missing,
}

/// Objects on disk.
#[derive(Debug)]
pub(super) struct ObjectStore {
    directory: PathBuf,
    bytes_max: u64,
    bytes: u64,
    kept: BTreeMap<Hash, Kept>,
    by_use: BTreeMap<u64, Hash>,
    uses: u64,
    next_temporary: u64,
    /// Objects that made room for others.
    pub(super) evictions_total: u64,
    /// Objects whose bytes were not those of their name any more.
    pub(super) spoilt_total: u64,
    /// Reads of objects that failed.
    pub(super) unreadable_total: u64,
    _lock: Flock<File>,
}

/// What a file of so many bytes takes.
fn cost(len: u64) -> u64 {
    len.max(1).next_multiple_of(BLOCK_LEN)
}

impl ObjectStore {
    /// Opens a directory, which is made if absent, and takes in what an earlier process has left there.
    pub(super) fn open(directory: &Path, bytes_max: u64, now: Instant) -> Result<ObjectStore, StoreError> {
        let unusable = |source| StoreError::Unusable { path: directory.to_owned(), source };
        fs::create_dir_all(directory).map_err(unusable)?;
        let lock_path = directory.join("lock");
        let is_new = !lock_path.exists();
        if is_new && fs::read_dir(directory).map_err(unusable)?.next().is_some() {
            return Err(StoreError::Foreign(directory.to_owned()));
        }
        let lock = File::options().create(true).truncate(false).write(true).open(lock_path).map_err(unusable)?;
        let lock =
            Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|_| StoreError::Locked(directory.to_owned()))?;
        let mut store = ObjectStore {
            directory: directory.to_owned(),
            bytes_max,
            bytes: 0,
            kept: BTreeMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            next_temporary: 0,
            evictions_total: 0,
            spoilt_total: 0,
            unreadable_total: 0,
            _lock: lock,
        };
        store.recover(now).map_err(unusable)?;
        Ok(store)
    }

    /// Removes temporaries, and takes in objects in the order of their use.
    fn recover(&mut self, now: Instant) -> io::Result<()> {
        let temporaries = self.directory.join("tmp");
        match fs::remove_dir_all(&temporaries) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir(&temporaries)?,
        }
        let mut found: Vec<(SystemTime, Hash, u64)> = Vec::new();
        for first in 0..=u8::MAX {
            let part = self.directory.join(format!("objects/{first:02x}"));
            fs::create_dir_all(&part)?;
            for file in fs::read_dir(part)? {
                let file = file?;
                let data = file.metadata()?;
                match file.file_name().to_str().and_then(|name| name.parse().ok()) {
                    Some(hash) if data.is_file() => {
                        found.push((data.modified().unwrap_or(UNIX_EPOCH), hash, data.len()))
                    }
                    _ => tracing::warn!("{} is no object, and left alone", file.path().display()),
                }
            }
        }
        found.sort_unstable();
        for (_, hash, len) in found {
            self.insert(hash, len, now, None);
        }
        self.make_room(0);
        Ok(())
    }

    /// How many objects there are.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Bytes of disk that they take.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The bound of that.
    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    fn path(&self, hash: &Hash) -> PathBuf {
        let name = hash.to_string();
        self.directory.join("objects").join(&name[..2]).join(name)
    }

    fn insert(&mut self, hash: Hash, len: u64, now: Instant, compared_at: Option<Instant>) {
        self.forget(&hash);
        self.uses += 1;
        self.bytes += cost(len);
        self.by_use.insert(self.uses, hash);
        self.kept.insert(hash, Kept { len, used: self.uses, touched_at: now, compared_at });
    }

    fn forget(&mut self, hash: &Hash) {
        if let Some(kept) = self.kept.remove(hash) {
            self.by_use.remove(&kept.used);
            self.bytes -= cost(kept.len);
        }
    }

    /// Finds an object.
    pub(super) fn find(&mut self, hash: &Hash, now: Instant) -> Found {
        let Some(kept) = self.kept.get_mut(hash) else { return Found::Missing };
        self.uses += 1;
        self.by_use.remove(&kept.used);
        self.by_use.insert(self.uses, *hash);
        kept.used = self.uses;
        let is_due = now.since(kept.touched_at) >= TOUCH_EVERY;
        if is_due {
            kept.touched_at = now;
        }
        let (len, is_compared) = (kept.len, kept.compared_at.is_some());
        let path = self.path(hash);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) => return self.unreadable(hash, error),
        };
        if is_due {
            // Only the order after a restart depends on it.
            let _ = futimens(&file, &TimeSpec::UTIME_NOW, &TimeSpec::UTIME_NOW);
        }
        if len > SMALL_LEN_MAX {
            return if is_compared { Found::Large(Arc::new(file), len) } else { Found::Uncompared(path) };
        }
        let mut bytes = Vec::with_capacity(len as usize + 1);
        match file.take(SMALL_LEN_MAX + 1).read_to_end(&mut bytes) {
            Ok(_) if Hash::of(&bytes) == *hash => Found::Small(bytes.into()),
            Ok(_) => self.spoilt(hash),
            Err(error) => self.unreadable(hash, error),
        }
    }

    /// Somebody got something else under this name: a large object is compared again before it is given out.
    /// Not again and again, for that costs more than asking.
    pub(super) fn doubt(&mut self, hash: &Hash, now: Instant) {
        if let Some(kept) = self.kept.get_mut(hash) {
            kept.compared_at = kept.compared_at.filter(|at| now.since(*at) < DOUBT_EVERY);
        }
    }

    /// A large object was compared with its name, if it could be read. Gives what is found of it now.
    pub(super) fn compared(&mut self, hash: &Hash, is_right: io::Result<bool>, now: Instant) -> Found {
        let Some(kept) = self.kept.get_mut(hash) else { return Found::Missing };
        match is_right {
            Ok(true) => {
                kept.compared_at = Some(now);
                self.find(hash, now)
            }
            Ok(false) => self.spoilt(hash),
            Err(error) => self.unreadable(hash, error),
        }
    }

    /// What cannot be read may be sound, unless it is gone.
    fn unreadable(&mut self, hash: &Hash, error: io::Error) -> Found {
        if error.kind() == io::ErrorKind::NotFound {
            return self.spoilt(hash);
        }
        self.unreadable_total += 1;
        tracing::warn!("object {hash} cannot be read: {error}");
        Found::Unreadable(error)
    }

    fn spoilt(&mut self, hash: &Hash) -> Found {
        self.spoilt_total += 1;
        tracing::warn!("object {hash} is spoilt on the disk; it is fetched again");
        self.remove(hash);
        Found::Missing
    }

    fn remove(&mut self, hash: &Hash) {
        self.forget(hash);
        if let Err(error) = fs::remove_file(self.path(hash))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("object {hash} cannot be removed: {error}");
        }
    }

    /// Removes what was not used for longest until `len` bytes more fit in. Whether they do.
    fn make_room(&mut self, len: u64) -> bool {
        let needed = cost(len);
        while self.bytes + needed > self.bytes_max
            && let Some((_, oldest)) = self.by_use.first_key_value()
        {
            let oldest = *oldest;
            self.evictions_total += 1;
            self.remove(&oldest);
        }
        self.bytes + needed <= self.bytes_max
    }

    /// Keeps a small object whose hash was found right. Whether it is kept.
    pub(super) fn keep_small(&mut self, hash: Hash, bytes: &[u8], now: Instant) -> io::Result<bool> {
        let mut temporary = self.begin(bytes.len() as u64)?;
        temporary.append(bytes)?;
        self.keep(hash, temporary, now)
    }

    /// Begins an object that is coming in, of so many bytes.
    pub(super) fn begin(&mut self, len: u64) -> io::Result<Temporary> {
        self.make_room(len);
        self.next_temporary += 1;
        let path = self.directory.join("tmp").join(self.next_temporary.to_string());
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        Ok(Temporary { path, file: Arc::new(file), len: 0 })
    }

    /// Keeps an object whose hash was found right. Whether it is kept: one that is greater than the bound is not.
    pub(super) fn keep(&mut self, hash: Hash, mut temporary: Temporary, now: Instant) -> io::Result<bool> {
        if !self.make_room(temporary.len) {
            return Ok(false);
        }
        fs::rename(&temporary.path, self.path(&hash))?;
        temporary.path = PathBuf::new();
        self.insert(hash, temporary.len, now, Some(now));
        Ok(true)
    }
}

/// An object that is coming in; removed unless it is kept.
#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
    file: Arc<File>,
    len: u64,
}

impl Temporary {
    /// More bytes.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        (&*self.file).write_all(bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// What has come so far.
    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// How much that is.
    pub(super) fn len(&self) -> u64 {
        self.len
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::runtime::cache::compare;

    #[test]
    fn only_what_is_gone_or_wrong_is_given_up() {
        let now = Instant(1_000_000_000);
        let directory = tempfile::tempdir().unwrap();
        let mut store = ObjectStore::open(directory.path(), 1 << 30, now).unwrap();
        let (small, large) = (vec![1u8; 1_000], vec![2u8; SMALL_LEN_MAX as usize + 1]);
        for content in [&small, &large] {
            let hash = Hash::of(content);
            assert!(store.keep_small(hash, content, now).unwrap());
            // A link to itself cannot be opened, whoever asks.
            let (path, aside) = (store.path(&hash), directory.path().join("aside"));
            fs::rename(&path, &aside).unwrap();
            std::os::unix::fs::symlink(&path, &path).unwrap();
            assert!(matches!(store.find(&hash, now), Found::Unreadable(_)));
            let compared = compare::is_right(hash, &path);
            assert!(matches!(store.compared(&hash, compared, now), Found::Unreadable(_)));
            assert!(path.is_symlink(), "it is left where it is");
            fs::rename(&aside, &path).unwrap();
            assert!(matches!(store.find(&hash, now), Found::Small(_) | Found::Large(..)));
            assert!(matches!(compare::is_right(hash, &path), Ok(true)));
        }
        assert_eq!((store.len(), store.unreadable_total, store.spoilt_total), (2, 4, 0));
        fs::write(store.path(&Hash::of(&small)), "something else").unwrap();
        fs::remove_file(store.path(&Hash::of(&large))).unwrap();
        for content in [&small, &large] {
            assert!(matches!(store.find(&Hash::of(content), now), Found::Missing));
        }
        assert_eq!((store.len(), store.unreadable_total, store.spoilt_total), (0, 4, 2));
    }
}
