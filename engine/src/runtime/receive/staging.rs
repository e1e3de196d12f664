//! Large contents on their way: written to a temporary and hashed as they come, never held in memory.

use super::files::staged_name;
use crate::{
    mutant::{self, Mutant},
    protocol::{Hash, receiver::StagedId},
};
use std::{
    fs::File,
    io::{self, Write as _},
    path::PathBuf,
};

/// Where large contents go, and the next one's name.
#[derive(Debug)]
pub(super) struct StagingArea {
    directory: PathBuf,
    next: u64,
}

impl StagingArea {
    pub(super) fn new(directory: PathBuf) -> StagingArea {
        StagingArea { directory, next: 1 }
    }

    /// Begins a content.
    pub(super) fn begin(&mut self) -> io::Result<Staging> {
        let id = StagedId(self.next);
        self.next += 1;
        let path = self.directory.join(staged_name(id));
        let file = File::options().write(true).create_new(true).open(&path)?;
        Ok(Staging { id, path, file, hasher: Box::new(blake3::Hasher::new()), kept: false })
    }

    /// Removes a finished content that nobody wants any more.
    pub(super) fn discard(&self, id: StagedId) {
        let _ = std::fs::remove_file(self.directory.join(staged_name(id)));
    }
}

/// One content on its way; dropped before its end it is removed.
#[derive(Debug)]
pub(super) struct Staging {
    id: StagedId,
    path: PathBuf,
    file: File,
    hasher: Box<blake3::Hasher>,
    kept: bool,
}

impl Staging {
    /// More bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)
    }

    /// All bytes are here; the content if it has this hash. It is not flushed yet.
    pub(super) fn finish(mut self, expected: Hash) -> Option<StagedId> {
        let right = Hash(*self.hasher.finalize().as_bytes()) == expected;
        self.kept = right || mutant::active(Mutant::UnverifiedHash);
        self.kept.then_some(self.id)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
