//! Contents in parts: those that peers ask for, those that are fetched from peers, and bodies of publications. The content
//! thread of the process works by it, and so do the simulated storage point and the tests' clusters.

use crate::{
    mutant::{self, Mutant},
    protocol::{
        Hash, Message,
        io::Staged,
        message::{CHUNK_LEN, Wanted},
    },
    store::{Contents, Staging, Storage, StoreError},
};
use std::collections::BTreeMap;

/// A message with the bytes `offset..offset + len` of a content, or that it is missing; its size if it is damaged.
pub fn read_chunk<S: Storage>(contents: &Contents<S>, hash: Hash, offset: u64, len: u32) -> Result<Message, u64> {
    let missing = Message::Missing { what: Wanted::Content(hash) };
    let Some(total) = contents.len(&hash).filter(|total| offset <= *total) else { return Ok(missing) };
    match contents.read(&hash, offset, len.min(CHUNK_LEN).into()) {
        Ok(bytes) => Ok(Message::ContentChunk { hash, offset, total, bytes }),
        Err(StoreError::CorruptContent(_)) => Err(total),
        Err(error) => {
            tracing::error!("content {hash} cannot be read for a peer: {error}");
            Ok(missing)
        }
    }
}

/// Contents on their way in: fetched from peers by hash, and bodies of publications by `U`.
pub struct Incoming<S: Storage, U> {
    contents: Contents<S>,
    fetched: BTreeMap<Hash, Staging<S>>,
    /// `Err`: it has failed.
    uploads: BTreeMap<U, Result<Staging<S>, StoreError>>,
}

impl<S: Storage, U> std::fmt::Debug for Incoming<S, U> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("fetched", &self.fetched.len()).finish_non_exhaustive()
    }
}

impl<S: Storage, U: Ord> Incoming<S, U> {
    /// Into this store.
    pub fn new(contents: Contents<S>) -> Incoming<S, U> {
        Incoming { contents, fetched: BTreeMap::new(), uploads: BTreeMap::new() }
    }

    /// Appends a part of a content of `total` bytes, which begins anew at offset 0. An error is a failure of the disk.
    pub fn stage(&mut self, hash: Hash, offset: u64, total: u64, bytes: &[u8]) -> Result<Staged, StoreError> {
        self.try_to_stage(hash, offset, total, bytes).or_else(|error| {
            self.fetched.remove(&hash);
            if error.is_disk_failure() {
                return Err(error);
            }
            tracing::error!("content {hash} cannot be stored: {error}");
            Ok(Staged::Failed)
        })
    }

    fn try_to_stage(&mut self, hash: Hash, offset: u64, total: u64, bytes: &[u8]) -> Result<Staged, StoreError> {
        if offset == 0 {
            self.fetched.insert(hash, self.contents.stage());
        }
        let Some(staging) = self.fetched.get_mut(&hash).filter(|staging| staging.len() == offset) else {
            return Ok(Staged::Failed);
        };
        staging.write(bytes)?;
        if staging.len() < total {
            return Ok(Staged::Part);
        }
        let is_checked = offset == 0 || !mutant::active(Mutant::ResumedTransferUnchecked);
        match self.fetched.remove(&hash).map(|staging| staging.finish(is_checked.then_some(hash))) {
            Some(Err(StoreError::WrongHash { .. })) => Ok(Staged::HashMismatch),
            Some(finished) => finished.map(|_| Staged::Whole),
            None => Ok(Staged::Failed),
        }
    }

    /// How many contents have come in part.
    pub fn fetching(&self) -> usize {
        self.fetched.len()
    }

    /// What was fetched of a content is of no use.
    pub fn abort_stage(&mut self, hash: &Hash) {
        self.fetched.remove(hash);
    }

    /// Appends to a body, which begins with its first piece.
    pub fn upload(&mut self, upload: U, bytes: &[u8]) {
        let staging = self.uploads.entry(upload).or_insert_with(|| Ok(self.contents.stage()));
        if let Ok(Err(error)) = staging.as_mut().map(|staging| staging.write(bytes)) {
            tracing::error!("a body cannot be stored: {error}");
            *staging = Err(error);
        }
    }

    /// The body is complete: makes it durable under its hash. Hash and bytes, or why not.
    pub fn finish(&mut self, upload: &U) -> Result<(Hash, u64), StoreError> {
        let staging = self.uploads.remove(upload).unwrap_or_else(|| Ok(self.contents.stage()));
        staging.and_then(|staging| staging.finish(None))
    }

    /// Nobody wants the body any more.
    pub fn abort(&mut self, upload: &U) {
        self.uploads.remove(upload);
    }
}
