//! Large contents on their way: written to a temporary and hashed as they come, never held in memory. A receiver that
//! keeps no files only hashes them.

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
    /// None: nowhere.
    directory: Option<PathBuf>,
    next: u64,
}

impl StagingArea {
    pub(super) fn new(directory: Option<PathBuf>) -> StagingArea {
        StagingArea { directory, next: 1 }
    }

    /// Begins a content.
    pub(super) fn begin(&mut self) -> io::Result<Staging> {
        let id = StagedId(self.next);
        self.next += 1;
        let path = self.directory.as_ref().map(|directory| directory.join(staged_name(id)));
        let create = |path: PathBuf| {
            let file = File::options().write(true).create_new(true).open(&path)?;
            Ok::<_, io::Error>((path, file))
        };
        let file = path.map(create).transpose()?;
        Ok(Staging { id, file, hasher: Box::new(blake3::Hasher::new()), kept: false })
    }

    /// Removes a finished content that nobody wants any more.
    pub(super) fn discard(&self, id: StagedId) {
        if let Some(directory) = &self.directory {
            let _ = std::fs::remove_file(directory.join(staged_name(id)));
        }
    }
}

/// One content on its way; dropped before its end it is removed.
#[derive(Debug)]
pub(super) struct Staging {
    id: StagedId,
    file: Option<(PathBuf, File)>,
    hasher: Box<blake3::Hasher>,
    kept: bool,
}

impl Staging {
    /// More bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.file.as_mut().map_or(Ok(()), |(_, file)| file.write_all(bytes))
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
        if let Some((path, _)) = self.file.as_ref().filter(|_| !self.kept) {
            let _ = std::fs::remove_file(path);
        }
    }
}
