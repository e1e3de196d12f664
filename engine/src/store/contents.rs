//! Contents: small ones lie in the segment they were committed in, large ones are files named by their hash.
//!
//! A small content is compared with its hash whenever it is read. Of a large one parts are read and sent as they are; so
//! it is compared as a whole once in the life of a process before any of it goes out ([`Contents::needs_comparing`]), and
//! again if somebody doubts it.

use super::{
    Storage, StorageFile, StoreError,
    format::{Placed, Position},
    ledger::Place,
    segment::{Pool, Segment, segment_name},
};
use crate::protocol::{Durable, Duration, Hash, Instant, durable::INLINE_LEN_MAX};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, HashMap},
    io,
    ops::Range,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

const STAGING: &str = "staging-";
const CONTENT: &str = "content-";
/// Bytes between two flushes of a large content, so that no flush of the log waits behind a big one.
const FLUSH_LEN: usize = 256 << 10;
/// Bytes of a large content that are compared with its hash in one step.
const COMPARE_LEN: u64 = 1 << 20;
/// A content that is doubted again within this time is believed: reading all of it must not be anyone's to order.
const DOUBTED_EVERY: Duration = Duration::from_secs(60);

/// Whether a file of this name is a content that was never finished.
pub(super) fn is_leftover(name: &str) -> bool {
    name.starts_with(STAGING)
}

fn content_name(hash: &Hash) -> String {
    format!("{CONTENT}{hash}")
}

/// What is known of the bytes of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Nobody has looked in this life of the process.
    Nothing,
    /// They have their hash, or had when they were looked at.
    Good,
    Corrupt,
}

#[derive(Clone, Copy)]
struct File {
    len: u64,
    /// Tells it from an earlier or later file of the same name.
    stamp: u64,
    known: Known,
    doubted_at: Option<Instant>,
}

impl File {
    fn new(len: u64, stamp: u64, known: Known) -> File {
        File { len, stamp, known, doubted_at: None }
    }
}

/// Where each content is: in at most one of both maps.
struct Index<F> {
    small: HashMap<Hash, Place>,
    files: HashMap<Hash, File>,
    /// By generation: all that hold contents or may.
    segments: BTreeMap<u64, (Arc<F>, u64)>,
}

/// A change of the store, on its way to [`Maintenance`](super::Maintenance).
pub(super) enum Notice {
    /// These records are durable, with their contents in this segment.
    Committed { end: Position, len: u64, records: Vec<Durable>, placed: Vec<Placed> },
    /// A content became a file.
    Stored { hash: Hash, len: u64, stamp: u64 },
}

struct Inner<S: Storage> {
    storage: S,
    index: RwLock<Index<S::File>>,
    /// What was not yet looked at; `None` if nobody looks.
    notices: Mutex<Option<Vec<Notice>>>,
    /// Held while the file of a content gets or loses its name.
    naming: Mutex<()>,
    staged: AtomicU64,
    /// Segments to be used again.
    pool: Arc<Pool<S::File>>,
    /// Held as long as anyone can read or write here.
    _lock: S::Lock,
}

/// The contents of a store, by hash; shared by all who read them.
pub struct Contents<S: Storage>(Arc<Inner<S>>);

impl<S: Storage> Clone for Contents<S> {
    fn clone(&self) -> Contents<S> {
        Contents(Arc::clone(&self.0))
    }
}

// Nothing can panic between the parts of a change, so a panic elsewhere leaves all of it usable.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Storage> Contents<S> {
    /// With the contents that are files among `names`.
    pub(super) fn new(storage: S, lock: S::Lock, names: &[String]) -> Result<Contents<S>, StoreError> {
        let mut files = HashMap::new();
        for name in names {
            if let Some(hash) = name.strip_prefix(CONTENT).and_then(|hex| hex.parse::<Hash>().ok()) {
                let file = storage.open(name).map_err(StoreError::io("opening a content"))?;
                let len = file.len().map_err(StoreError::io("opening a content"))?;
                files.insert(hash, File::new(len, 0, Known::Nothing));
            }
        }
        let index = Index { small: HashMap::new(), files, segments: BTreeMap::new() };
        let inner = Inner {
            storage,
            index: RwLock::new(index),
            notices: Mutex::new(None),
            naming: Mutex::new(()),
            staged: AtomicU64::new(1),
            pool: Arc::default(),
            _lock: lock,
        };
        Ok(Contents(Arc::new(inner)))
    }

    fn index(&self) -> RwLockReadGuard<'_, Index<S::File>> {
        self.0.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_mut(&self) -> RwLockWriteGuard<'_, Index<S::File>> {
        self.0.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn storage(&self) -> &S {
        &self.0.storage
    }

    pub(super) fn pool(&self) -> &Arc<Pool<S::File>> {
        &self.0.pool
    }

    // ---- Segments -------------------------------------------------------------------------------------------------

    /// Contents that are durable in `segment` from now on can be read. The notice is kept with the change, so that
    /// notices have the order of changes.
    pub(super) fn add(&self, segment: &Segment<S::File>, placed: &[Placed], notice: impl FnOnce() -> Option<Notice>) {
        let generation = segment.seal.generation;
        let mut index = self.index_mut();
        self.notify(notice);
        index.segments.entry(generation).or_insert_with(|| (Arc::clone(&segment.file), segment.len));
        for Placed { hash, offset, len } in placed {
            index.files.remove(hash);
            index.small.insert(*hash, Place { generation, offset: *offset, len: *len });
        }
    }

    /// The same for those that a checkpoint names. What is a file by now stays one.
    pub(super) fn add_places(&self, places: impl Iterator<Item = (Hash, Place)>) {
        let mut index = self.index_mut();
        for (hash, place) in places {
            if !index.files.contains_key(&hash) {
                index.small.insert(hash, place);
            }
        }
    }

    /// A file is better than a copy in the log: it was made because that was bad. For the opening of a store.
    pub(super) fn prefer_file(&self, hash: &Hash, len: u64) {
        let mut index = self.index_mut();
        index.small.remove(hash);
        index.files.insert(*hash, File::new(len, 0, Known::Nothing));
    }

    /// A file is not what its name says. The disk is left as it is.
    pub(super) fn forget_file(&self, hash: &Hash) {
        self.index_mut().files.remove(hash);
    }

    /// Contents that are files: hash and bytes, in order of hash.
    pub(super) fn files(&self) -> Vec<(Hash, u64)> {
        let index = self.index();
        let mut files: Vec<_> = index.files.iter().map(|(hash, file)| (*hash, file.len)).collect();
        files.sort_unstable();
        files
    }

    /// Segments and their bytes, ascending.
    pub(super) fn segments(&self) -> Vec<(u64, u64)> {
        self.index().segments.iter().map(|(generation, (_, len))| (*generation, *len)).collect()
    }

    /// Nothing is read from the segment any more, but by those who began before.
    pub(super) fn retire(&self, generation: u64) -> Option<(Arc<S::File>, u64)> {
        self.index_mut().segments.remove(&generation)
    }

    // ---- What maintenance does ------------------------------------------------------------------------------------

    /// Keeps notices from now on, or no longer.
    pub(super) fn keep_notices(&self, keep: bool) {
        *locked(&self.0.notices) = keep.then(Vec::new);
    }

    fn notify(&self, notice: impl FnOnce() -> Option<Notice>) {
        if let Some(notices) = &mut *locked(&self.0.notices) {
            notices.extend(notice());
        }
    }

    /// All notices since the last call, in order.
    pub(super) fn take_notices(&self) -> Vec<Notice> {
        locked(&self.0.notices).as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Forgets a content that lies at `place`, unless it is elsewhere by now.
    pub(super) fn remove_place(&self, hash: &Hash, place: Place) {
        let mut index = self.index_mut();
        if index.small.get(hash) == Some(&place) {
            index.small.remove(hash);
        }
    }

    /// Removes the file of a content, unless it was stored again since.
    pub(super) fn remove_file(&self, hash: &Hash, stamp: u64) -> io::Result<()> {
        let _naming = locked(&self.0.naming);
        let known = self.index().files.get(hash).copied();
        if known.is_some_and(|file| file.stamp != stamp) {
            return Ok(());
        }
        self.index_mut().files.remove(hash);
        match self.0.storage.remove(&content_name(hash)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    // ---- Reading --------------------------------------------------------------------------------------------------

    /// Bytes of a content, if it is here.
    pub fn len(&self, hash: &Hash) -> Option<u64> {
        let index = self.index();
        index.small.get(hash).map(|place| place.len.into()).or_else(|| index.files.get(hash).map(|file| file.len))
    }

    /// A content to read from. What it lies in is not used for anything else as long as this is there.
    pub fn reader(&self, hash: &Hash) -> Result<ContentReader<S>, StoreError> {
        let (len, file) = {
            let index = self.index();
            match (index.small.get(hash), index.files.get(hash)) {
                (Some(place), _) => {
                    let (segment, _) = index.segments.get(&place.generation).expect("a place is in a segment");
                    (place.len.into(), Some((Arc::clone(segment), place.offset.into())))
                }
                (None, Some(file)) if file.known == Known::Corrupt => return Err(StoreError::CorruptContent(*hash)),
                (None, Some(file)) => (file.len, None),
                (None, None) => return Err(StoreError::Missing(*hash)),
            }
        };
        let (source, is_small) = match file {
            Some((segment, offset)) => (Source::Segment(segment, offset), true),
            None => match self.0.storage.open(&content_name(hash)) {
                // It was there when the store was opened, or put there since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StoreError::CorruptContent(*hash)),
                opened => (Source::File(opened.map_err(StoreError::io("opening a content"))?), len <= INLINE_LEN_MAX),
            },
        };
        Ok(ContentReader { hash: *hash, len, source, is_small })
    }

    /// Up to `len` bytes of a content from `offset`; fewer at its end.
    ///
    /// A small content is checked against its hash on every read. Of a large one only a read of the whole is; a part of
    /// one that [`needs_comparing`](Contents::needs_comparing) may be anything.
    pub fn read(&self, hash: &Hash, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        self.reader(hash)?.read(offset, len)
    }

    /// The same as it is, compared with nothing: what `sendfile` would send.
    pub fn read_as_it_is(&self, hash: &Hash, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        let reader = self.reader(hash)?;
        reader.read_range(&(offset.min(reader.len)..offset.saturating_add(len).min(reader.len)))
    }

    /// The file of a large content, if it is on a real disk: for `sendfile`.
    pub fn path(&self, hash: &Hash) -> Option<PathBuf> {
        let is_file = self.index().files.contains_key(hash);
        is_file.then(|| self.0.storage.path(&content_name(hash))).flatten()
    }

    /// Where a content lies: name of the file, first byte, number of bytes. For who damages it on purpose.
    pub fn place(&self, hash: &Hash) -> Option<(String, u64, u64)> {
        let index = self.index();
        let in_segment = |place: &Place| (segment_name(place.generation), place.offset.into(), place.len.into());
        let as_file = || index.files.get(hash).map(|file| (content_name(hash), 0, file.len));
        index.small.get(hash).map(in_segment).or_else(as_file)
    }

    // ---- Comparing large contents ---------------------------------------------------------------------------------

    /// Whether parts of this content must not be given out before it was compared as a whole.
    pub fn needs_comparing(&self, hash: &Hash) -> bool {
        let index = self.index();
        let is_unknown = |file: &File| file.known == Known::Nothing && file.len > INLINE_LEN_MAX;
        !index.small.contains_key(hash) && index.files.get(hash).is_some_and(is_unknown)
    }

    /// Somebody got something else: it has to be compared again, unless that was said a short while ago.
    pub fn doubt(&self, hash: &Hash, now: Instant) {
        if let Some(file) = self.index_mut().files.get_mut(hash)
            && file.known == Known::Good
            && file.doubted_at.is_none_or(|before| now.since(before) >= DOUBTED_EVERY)
        {
            (file.known, file.doubted_at) = (Known::Nothing, Some(now));
        }
    }

    /// Begins to compare a content with its hash.
    pub fn comparison(&self, hash: &Hash) -> Result<Comparison<S>, StoreError> {
        let stamp = self.index().files.get(hash).map(|file| file.stamp);
        Ok(Comparison { contents: self.clone(), reader: self.reader(hash)?, stamp, hasher: Box::default(), at: 0 })
    }

    /// Compares all of a content at once.
    pub fn compare(&self, hash: &Hash) -> Result<(), StoreError> {
        let mut comparison = self.comparison(hash)?;
        while !comparison.step()? {}
        Ok(())
    }

    fn note_compared(&self, hash: &Hash, stamp: Option<u64>, known: Known) {
        if let Some(file) = self.index_mut().files.get_mut(hash)
            && Some(file.stamp) == stamp
        {
            file.known = known;
        }
    }

    /// Begins to store a content of more than [`INLINE_LEN_MAX`] bytes (smaller ones travel with their record).
    pub fn stage(&self) -> Staging<S> {
        let name = format!("{STAGING}{}", self.0.staged.fetch_add(1, Ordering::Relaxed));
        Staging { contents: self.clone(), name, file: None, hasher: Box::default(), buffer: Vec::new(), len: 0 }
    }
}

enum Source<F> {
    /// From this byte on.
    Segment(Arc<F>, u64),
    File(F),
}

/// One content, held in place while it is read.
pub struct ContentReader<S: Storage> {
    hash: Hash,
    len: u64,
    source: Source<S::File>,
    is_small: bool,
}

impl<S: Storage> ContentReader<S> {
    /// See [`Contents::read`].
    pub fn read(&self, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        let wanted = offset.min(self.len)..offset.saturating_add(len).min(self.len);
        let range = if self.is_small { 0..self.len } else { wanted.clone() };
        let bytes = self.read_range(&range)?;
        if range == (0..self.len) && Hash::of(&bytes) != self.hash {
            return Err(StoreError::CorruptContent(self.hash));
        }
        Ok(bytes.slice((wanted.start - range.start) as usize..(wanted.end - range.start) as usize))
    }

    /// Bytes within the content, compared with nothing.
    fn read_range(&self, range: &Range<u64>) -> Result<Bytes, StoreError> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        let result = match &self.source {
            Source::Segment(segment, start) => segment.read_at(start + range.start, &mut bytes),
            Source::File(file) => file.read_at(range.start, &mut bytes),
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(StoreError::CorruptContent(self.hash)),
            result => result.map(|()| bytes.into()).map_err(StoreError::io("reading a content")),
        }
    }
}

/// A content that is being compared with its hash, in steps.
pub struct Comparison<S: Storage> {
    contents: Contents<S>,
    reader: ContentReader<S>,
    /// Of the file that is looked at.
    stamp: Option<u64>,
    hasher: Box<blake3::Hasher>,
    at: u64,
}

impl<S: Storage> Comparison<S> {
    /// Which content.
    pub fn hash(&self) -> Hash {
        self.reader.hash
    }

    /// Reads 1 MiB more. True: that was the last, and the content has its hash.
    pub fn step(&mut self) -> Result<bool, StoreError> {
        let end = self.reader.len.min(self.at + COMPARE_LEN);
        let read = self.reader.read_range(&(self.at..end));
        let is_right = match &read {
            Ok(bytes) => {
                self.hasher.update(bytes);
                self.at = end;
                end < self.reader.len || self.hasher.finalize().as_bytes() == &self.reader.hash.0
            }
            Err(StoreError::CorruptContent(_)) => false,
            Err(_) => return read.map(|_| false),
        };
        if !is_right {
            self.contents.note_compared(&self.reader.hash, self.stamp, Known::Corrupt);
            return Err(StoreError::CorruptContent(self.reader.hash));
        }
        let is_last = self.at == self.reader.len;
        if is_last {
            self.contents.note_compared(&self.reader.hash, self.stamp, Known::Good);
        }
        Ok(is_last)
    }
}

/// A content on its way in; dropped unfinished, it leaves nothing behind.
pub struct Staging<S: Storage> {
    contents: Contents<S>,
    name: String,
    file: Option<S::File>,
    hasher: Box<blake3::Hasher>,
    buffer: Vec<u8>,
    /// Bytes written to the file, the buffer not among them.
    len: u64,
}

impl<S: Storage> Staging<S> {
    /// Appends. Every 256 KiB are flushed, which takes the disk's time.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let (taken, rest) = bytes.split_at(bytes.len().min(FLUSH_LEN - self.buffer.len()));
            self.hasher.update(taken);
            self.buffer.extend_from_slice(taken);
            bytes = rest;
            if self.buffer.len() == FLUSH_LEN {
                self.flush().map_err(StoreError::io("storing a content"))?;
            }
        }
        Ok(())
    }

    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.len + self.buffer.len() as u64
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn flush(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(self.contents.storage().create(&self.name, 0)?),
        };
        file.write_at(self.len, &self.buffer)?;
        file.sync_data()?;
        self.len += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Makes the content durable under its hash, which must be the expected one.
    pub fn finish(mut self, expected: Option<Hash>) -> Result<(Hash, u64), StoreError> {
        let hash = Hash(*self.hasher.finalize().as_bytes());
        if let Some(expected) = expected.filter(|expected| *expected != hash) {
            return Err(StoreError::WrongHash { expected, actual: hash });
        }
        let len = self.len();
        self.flush().map_err(StoreError::io("storing a content"))?;
        let storage = self.contents.storage();
        let stamp = self.contents.0.staged.fetch_add(1, Ordering::Relaxed);
        {
            let _naming = locked(&self.contents.0.naming);
            let name = || storage.rename(&self.name, &content_name(&hash)).and_then(|()| storage.sync_dir());
            name().map_err(StoreError::io("naming a content"))?;
            let mut index = self.contents.index_mut();
            index.small.remove(&hash);
            index.files.insert(hash, File::new(len, stamp, Known::Good));
            self.contents.notify(|| Some(Notice::Stored { hash, len, stamp }));
        }
        self.file = None;
        Ok((hash, len))
    }
}

impl<S: Storage> Drop for Staging<S> {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // What can't be removed now is removed when the store is opened.
            self.contents.storage().remove(&self.name).ok();
        }
    }
}

/// Contents above this are staged.
const _: () = assert!(INLINE_LEN_MAX <= u32::MAX as u64);
