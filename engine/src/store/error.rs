//! What can go wrong in the store, and what is then true of it.

use crate::protocol::Hash;
use std::io;

/// Why the store did not do what was asked. Each variant says whether the state changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk is full. Nothing was written; the same may succeed once there is room.
    #[error("the disk is full: {0}")]
    Full(#[source] io::Error),
    /// No descriptor is free. Nothing was written; the same may succeed once there is one.
    #[error("no file can be opened: {0}; raise the limit of open files")]
    NoDescriptor(#[source] io::Error),
    /// A write or flush of the log failed: what it carried may or may not be durable. The log takes nothing more until
    /// the store is opened again.
    #[error("writing the log failed, it takes nothing more until the storage point is started again: {0}")]
    Failed(#[source] io::Error),
    /// An earlier commit failed. Nothing was written.
    #[error("the log stopped at an earlier write error")]
    Poisoned,
    /// A record or content is above its bound. Nothing was written.
    #[error("{len} bytes are more than the {max} that fit")]
    TooLarge {
        /// Its bytes.
        len: u64,
        /// The bound.
        max: u64,
    },
    /// What was acknowledged can't be read back, so the store is of no use as it is. Nothing was changed.
    #[error(
        "{file} is corrupt at byte {offset}: {what}. What this storage point acknowledged is partly lost: \
         give it a new store with `acms replace`"
    )]
    Corrupt {
        /// File in the store's directory.
        file: String,
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// A record that only a later version understands. Nothing was changed.
    #[error("{file} holds something at byte {offset} that this version does not know: {what}")]
    Unknown {
        /// File in the store's directory.
        file: String,
        /// Where in the file.
        offset: u64,
        /// What it is.
        what: String,
    },
    /// A content no longer has its hash; a peer has it. Nothing was changed.
    #[error("content {0} is corrupt")]
    CorruptContent(Hash),
    /// A content is not here. Nothing was changed.
    #[error("content {0} is not here")]
    Missing(Hash),
    /// A staged content has another hash than was said. It was removed; nothing else changed.
    #[error("content has hash {actual}, not {expected}")]
    WrongHash {
        /// What was said.
        expected: Hash,
        /// What came.
        actual: Hash,
    },
    /// Another process has this store. Nothing was changed.
    #[error("another process has this store open")]
    Locked,
    /// There is a store already. Nothing was changed.
    #[error("there is a store already")]
    Exists,
    /// There is no store. Nothing was changed.
    #[error(
        "there is no store here: `acms init` makes those of a new cluster, `acms replace` makes one for a lost one"
    )]
    Absent,
    /// Reading, or writing beside the log, failed. Nothing that was acknowledged is affected.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl StoreError {
    /// Whether it says no more than that nothing was written: the same may succeed later.
    pub fn is_refusal(&self) -> bool {
        matches!(self, StoreError::Full(_) | StoreError::NoDescriptor(_) | StoreError::TooLarge { .. })
    }

    /// Whether the disk fails, which ends the process: what it still holds cannot be known by going on.
    pub fn is_disk_failure(&self) -> bool {
        match self {
            StoreError::Failed(_) | StoreError::Poisoned => true,
            StoreError::Io { source, .. } => source.raw_os_error() == Some(nix::libc::EIO),
            _ => false,
        }
    }

    /// For `map_err`: a full disk, no descriptor, or the failure of `what`.
    pub(super) fn io(what: &'static str) -> impl FnOnce(io::Error) -> StoreError {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full(source),
            _ if is_out_of_descriptors(&source) => StoreError::NoDescriptor(source),
            _ => StoreError::Io { what, source },
        }
    }
}

/// Whether a file could not be opened because the process, or the machine, has as many open as it may.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    [nix::libc::EMFILE, nix::libc::ENFILE].map(Some).contains(&error.raw_os_error())
}
