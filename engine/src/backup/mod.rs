//! A backup of a cluster: a directory with the entries of one index root, the kept versions behind them, and their
//! contents by hash. `docs/FORMATS.md` has the format.
//!
//! Invariants: a directory under the backup's own name is whole; nothing is restored from one that is not as it was when
//! it was made. What is restored keeps its UIDs, so that receivers never go back.

mod restore;
mod take;

pub use restore::{Backup, open};
pub use take::take;

use crate::{
    client::ClientError,
    protocol::{Hash, api::Snapshot},
    store::StoreError,
};
use std::{
    io,
    path::{Path, PathBuf},
};

const FORMAT: u32 = 1;
const HEAD: &str = "backup.json";
const VERSIONS: &str = "versions.jsonl";
const CONTENTS: &str = "contents";

/// `backup.json`: what the backup is of.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Head {
    /// Of this format: 1.
    pub format: u32,
    /// The snapshot whose root it has, wholly.
    pub snapshot: Snapshot,
    /// The greatest store number that a storage point had.
    pub store_number_max: u32,
    /// Lines of `versions.jsonl`.
    pub versions: u64,
    /// BLAKE3 of `versions.jsonl`.
    pub versions_hash: Hash,
    /// Files below `contents`.
    pub contents: u64,
    /// Their bytes.
    pub contents_bytes: u64,
}

/// Why a backup is not made, or not restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The directory is there.
    #[error("{0} exists; name another directory, for nothing is overwritten")]
    Exists(PathBuf),
    /// A storage point does not give what it should. What was fetched stays, and need not be fetched again.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// What the root needs went away while it was read, several times.
    #[error("the storage point let go what was being read, again and again; back up over a faster connection")]
    Moving,
    /// A file of the backup cannot be read or written.
    #[error("{file}: {source}")]
    File {
        /// Which.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the backup is not as it was. Nothing was made.
    #[error("{file} is damaged: {what}; take another backup")]
    Damaged {
        /// Which.
        file: PathBuf,
        /// How.
        what: String,
    },
    /// A newer version wrote it.
    #[error("{file} has format {format}, and this version knows format {FORMAT} only")]
    Unknown {
        /// Which.
        file: PathBuf,
        /// Its format.
        format: u32,
    },
    /// A store cannot be filled.
    #[error("the store cannot be filled: {0}")]
    Store(#[from] StoreError),
}

impl BackupError {
    fn file(file: &Path) -> impl FnOnce(io::Error) -> BackupError + '_ {
        |source| BackupError::File { file: file.to_owned(), source }
    }
}

/// Where a content lies: in one of 256 directories.
fn place_of(contents: &Path, hash: &Hash) -> PathBuf {
    let name = hash.to_string();
    contents.join(&name[..2]).join(name)
}

/// The BLAKE3 hash of a file.
fn hash_of(file: &Path) -> io::Result<Hash> {
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut std::fs::File::open(file)?, &mut hasher)?;
    Ok(Hash(*hasher.finalize().as_bytes()))
}
