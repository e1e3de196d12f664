//! Contents: small ones lie in the segment they were committed in, large ones are files named by their hash.

use super::{
    Storage, StorageFile, StoreError,
    format::Placed,
    segment::{Segment, generation_of},
};
use crate::protocol::{Hash, durable::INLINE_LEN_MAX};
use bytes::Bytes;
use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

const STAGING: &str = "staging-";
const CONTENT: &str = "content-";
/// Bytes between two flushes of a large content, so that no flush of the log waits behind a big one.
const FLUSH_LEN: usize = 256 << 10;

/// Whether a file of this name is a content that was never finished.
pub(super) fn is_leftover(name: &str) -> bool {
    name.starts_with(STAGING)
}

fn content_name(hash: &Hash) -> String {
    format!("{CONTENT}{hash}")
}

#[derive(Clone, Copy)]
struct Place {
    segment: u32,
    offset: u32,
    len: u32,
}

struct Index<F> {
    small: HashMap<Hash, Place>,
    large: HashMap<Hash, u64>,
    segments: Vec<Arc<F>>,
}

struct Inner<S: Storage> {
    storage: S,
    index: RwLock<Index<S::File>>,
    staged: AtomicU64,
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

impl<S: Storage> Contents<S> {
    /// With the large contents among the files `names`.
    pub(super) fn new(storage: S, lock: S::Lock, names: &[String]) -> Result<Contents<S>, StoreError> {
        let mut large = HashMap::new();
        for name in names {
            if let Some(hash) = name.strip_prefix(CONTENT).and_then(|hex| hex.parse::<Hash>().ok()) {
                let file = storage.open(name).map_err(StoreError::io("opening a content"))?;
                large.insert(hash, file.len().map_err(StoreError::io("opening a content"))?);
            }
        }
        debug_assert!(names.iter().all(|name| generation_of(name).is_none() || !name.starts_with(CONTENT)));
        let index = Index { small: HashMap::new(), large, segments: Vec::new() };
        let inner = Inner { storage, index: RwLock::new(index), staged: AtomicU64::new(0), _lock: lock };
        Ok(Contents(Arc::new(inner)))
    }

    // The index is only ever changed by whole insertions, so a panic elsewhere leaves it usable.
    fn index(&self) -> RwLockReadGuard<'_, Index<S::File>> {
        self.0.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_mut(&self) -> RwLockWriteGuard<'_, Index<S::File>> {
        self.0.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn storage(&self) -> &S {
        &self.0.storage
    }

    /// Contents that are durable in `segment` from now on can be read.
    pub(super) fn add(&self, segment: &Segment<S::File>, placed: &[Placed]) {
        if placed.is_empty() {
            return;
        }
        let mut index = self.index_mut();
        if !index.segments.last().is_some_and(|last| Arc::ptr_eq(last, &segment.file)) {
            index.segments.push(Arc::clone(&segment.file));
        }
        let segment = (index.segments.len() - 1) as u32;
        index.small.extend(placed.iter().map(|p| (p.hash, Place { segment, offset: p.offset, len: p.len })));
    }

    /// Bytes of a content, if it is here.
    pub fn len(&self, hash: &Hash) -> Option<u64> {
        let index = self.index();
        index.small.get(hash).map(|place| place.len.into()).or_else(|| index.large.get(hash).copied())
    }

    /// Up to `len` bytes of a content from `offset`; fewer at its end.
    ///
    /// A small content is checked against its hash on every read. Of a large one only a read of the whole is.
    pub fn read(&self, hash: &Hash, offset: u64, len: u64) -> Result<Bytes, StoreError> {
        let small = {
            let index = self.index();
            index.small.get(hash).map(|place| (*place, Arc::clone(&index.segments[place.segment as usize])))
        };
        if let Some((place, file)) = small {
            let mut bytes = vec![0; place.len as usize];
            file.read_at(place.offset.into(), &mut bytes).map_err(StoreError::io("reading a content"))?;
            if Hash::of(&bytes) != *hash {
                return Err(StoreError::CorruptContent(*hash));
            }
            let start = offset.min(place.len.into()) as usize;
            let end = offset.saturating_add(len).min(place.len.into()) as usize;
            return Ok(Bytes::from(bytes).slice(start..end));
        }
        let total = self.index().large.get(hash).copied().ok_or(StoreError::Missing(*hash))?;
        let len = len.min(total.saturating_sub(offset));
        let file = self.0.storage.open(&content_name(hash)).map_err(StoreError::io("opening a content"))?;
        let mut bytes = vec![0; len as usize];
        match file.read_at(offset, &mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(StoreError::CorruptContent(*hash));
            }
            read => read.map_err(StoreError::io("reading a content"))?,
        }
        if len == total && Hash::of(&bytes) != *hash {
            return Err(StoreError::CorruptContent(*hash));
        }
        Ok(bytes.into())
    }

    /// The file of a large content, if it is on a real disk: for `sendfile`. Nobody has compared it with its hash.
    pub fn path(&self, hash: &Hash) -> Option<PathBuf> {
        let large = self.index().large.contains_key(hash);
        large.then(|| self.0.storage.path(&content_name(hash))).flatten()
    }

    /// Begins to store a content of more than [`INLINE_LEN_MAX`] bytes (smaller ones travel with their record).
    pub fn stage(&self) -> Staging<S> {
        let name = format!("{STAGING}{}", self.0.staged.fetch_add(1, Ordering::Relaxed));
        Staging { contents: self.clone(), name, file: None, hasher: Box::default(), buffer: Vec::new(), len: 0 }
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
        let name = || storage.rename(&self.name, &content_name(&hash)).and_then(|()| storage.sync_dir());
        name().map_err(StoreError::io("naming a content"))?;
        self.contents.index_mut().large.insert(hash, len);
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
