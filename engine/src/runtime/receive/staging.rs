//! Large contents on their way: written to a temporary and hashed as they come, never held in memory. A receiver that
//! keeps no files only hashes them.
//!
//! What has come of one when the exchange breaks off is kept for a while, and the next source is asked for the rest. Only
//! the whole is compared with its hash: if it is something else, it begins anew.

use super::files::staged_name;
use crate::{
    client::growing,
    mutant::{self, Mutant},
    protocol::{Duration, Hash, Instant, receiver::StagedId},
};
use std::{collections::VecDeque, fs::File, io, path::PathBuf};

/// Contents that broke off are kept for so long ...
const KEPT_TIME: Duration = Duration::from_secs(300);
/// ... and no more of them than this, the latest ones.
const KEPT_MAX: usize = 4;

/// Where large contents go, and the next one's name.
#[derive(Debug)]
pub(super) struct StagingArea {
    /// None: nowhere.
    directory: Option<PathBuf>,
    next: u64,
    /// What has come of contents that broke off, and when they did.
    kept: VecDeque<(Instant, Hash, Staging)>,
}

impl StagingArea {
    pub(super) fn new(directory: Option<PathBuf>) -> StagingArea {
        StagingArea { directory, next: 1, kept: VecDeque::new() }
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
        Ok(Staging { id, file, hasher: Box::new(blake3::Hasher::new()), len: 0, is_resumed: false, kept: false })
    }

    /// The exchange that brought this content broke off.
    pub(super) fn keep(&mut self, now: Instant, hash: Hash, staging: Staging) {
        if staging.len > 0 {
            self.kept.push_back((now, hash, staging));
        }
        while self.kept.len() > KEPT_MAX {
            self.kept.pop_front();
        }
    }

    /// What is here of a content that broke off: the rest is to be asked for.
    pub(super) fn resume(&mut self, hash: &Hash) -> Option<Staging> {
        let at = self.kept.iter().position(|(_, kept, _)| kept == hash)?;
        let (_, _, mut staging) = self.kept.remove(at)?;
        staging.is_resumed = true;
        Some(staging)
    }

    /// Gives up what nobody has asked for again.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.kept.front().is_some_and(|(at, _, _)| at.after(KEPT_TIME) <= now) {
            self.kept.pop_front();
        }
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
    /// Bytes so far.
    len: u64,
    /// The first of them came by an exchange that broke off.
    is_resumed: bool,
    kept: bool,
}

impl Staging {
    /// More bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some((_, file)) = &self.file {
            growing::append(file, self.len, bytes)?;
        }
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Whether the first of them came by an exchange that broke off.
    pub(super) fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// The source sends all of it after all.
    pub(super) fn begin_anew(&mut self) -> io::Result<()> {
        self.hasher.reset();
        (self.len, self.is_resumed) = (0, false);
        self.file.as_ref().map_or(Ok(()), |(_, file)| file.set_len(0))
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
