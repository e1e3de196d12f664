//! The durable store of a storage point: a log of records, and contents by hash.
//!
//! Invariant: what [`Log::commit`] acknowledged, [`Store::open`] returns, after any crash; otherwise it refuses.
//! `docs/LOG.md` has the format byte for byte.

mod contents;
mod error;
mod format;
mod identity;
mod log;
mod memory;
mod pacer;
mod recovery;
mod segment;
mod storage;

pub use contents::{Contents, Staging};
pub use error::StoreError;
pub use identity::StoreIdentity;
pub use log::Log;
pub use memory::{MemoryFile, MemoryLock, MemoryStorage};
pub use pacer::Pacer;
pub use storage::{DirStorage, Storage, StorageFile};

use crate::protocol::Durable;
use format::Seal;

/// Who makes the next segment of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Prepare {
    /// A thread, ahead of need.
    #[default]
    Background,
    /// The commit that begins a segment makes the one after it: every run does the same, as simulations want.
    Foreground,
}

/// Choices of a store. They may differ from one opening to the next.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of a new segment of the log; no record with its contents may be longer.
    pub segment_len: u64,
    /// Who makes it.
    pub prepare: Prepare,
}

impl Default for Options {
    fn default() -> Options {
        Options { segment_len: 64 << 20, prepare: Prepare::Background }
    }
}

impl Options {
    /// For small disks: segments of 8 MiB.
    pub fn small() -> Options {
        Options { segment_len: 8 << 20, ..Options::default() }
    }
}

/// Bytes of the first segment: making a store is quick, and an empty log is told from a lost one.
const FIRST_SEGMENT_LEN: u64 = 1 << 20;
const SEGMENT_LEN_MIN: u64 = 4096;

/// Makes and opens stores.
pub struct Store;

/// An open store.
pub struct Opened<S: Storage> {
    /// Whose it is.
    pub identity: StoreIdentity,
    /// All that the log holds, in the order in which it was committed. Contents are left in the store.
    pub records: Vec<Durable>,
    /// Takes what comes next.
    pub log: Log<S>,
    /// Contents of the records, and large ones.
    pub contents: Contents<S>,
}

impl Store {
    /// Makes an empty store. Refuses if there is one already.
    pub fn create<S: Storage>(storage: S, identity: &StoreIdentity) -> Result<(), StoreError> {
        Store::create_with(storage, identity, FIRST_SEGMENT_LEN)
    }

    /// Makes an empty store whose first segment has `first_segment_len` bytes.
    pub fn create_with<S: Storage>(
        storage: S,
        identity: &StoreIdentity,
        first_segment_len: u64,
    ) -> Result<(), StoreError> {
        let _lock = lock(&storage)?;
        let names = list(&storage)?;
        if names.iter().any(|name| name == identity::IDENTITY_NAME) {
            return Err(StoreError::Exists);
        }
        // What an interrupted creation left. Without an identity nothing was ever acknowledged.
        let first = segment::segment_name(1);
        for name in names.iter().filter(|name| segment::is_leftover(name) || **name == first) {
            storage.remove(name).map_err(StoreError::io("tidying the store"))?;
        }
        if names.iter().any(|name| segment::generation_of(name).is_some_and(|generation| generation > 1)) {
            return Err(StoreError::Exists);
        }
        let len = first_segment_len.clamp(SEGMENT_LEN_MIN, format::SEGMENT_LEN_MAX);
        segment::prepare(&storage, Seal::new(identity.binding(), 1), len, None)
            .map_err(StoreError::io("preparing a segment of the log"))?;
        // Last, for the identity says that the log must be there.
        identity.write(&storage)
    }

    /// Opens a store and reads its log.
    pub fn open<S: Storage>(storage: S) -> Result<Opened<S>, StoreError> {
        Store::open_with(storage, Options::default())
    }

    /// Opens a store with these options.
    pub fn open_with<S: Storage>(storage: S, options: Options) -> Result<Opened<S>, StoreError> {
        let segment_len = options.segment_len.clamp(SEGMENT_LEN_MIN, format::SEGMENT_LEN_MAX);
        let options = Options { segment_len, ..options };
        let lock = lock(&storage)?;
        let identity = StoreIdentity::read(&storage)?;
        let names = tidy(&storage)?;
        let contents = Contents::new(storage, lock, &names)?;
        let mut generations: Vec<u64> = names.iter().filter_map(|name| segment::generation_of(name)).collect();
        generations.sort_unstable();
        let binding = identity.binding();
        let recovered = recovery::recover(&contents, binding, &generations)?;
        let (log, records) = Log::recovered(contents.clone(), options, binding, recovered);
        Ok(Opened { identity, records, log, contents })
    }
}

fn lock<S: Storage>(storage: &S) -> Result<S::Lock, StoreError> {
    storage.lock().map_err(StoreError::io("locking the store"))?.ok_or(StoreError::Locked)
}

fn list<S: Storage>(storage: &S) -> Result<Vec<String>, StoreError> {
    storage.list().map_err(StoreError::io("listing the store"))
}

/// Removes what was never finished, and makes the names of what was durable: a process can die between a rename and
/// the flush of its directory. Returns the names that stay.
fn tidy<S: Storage>(storage: &S) -> Result<Vec<String>, StoreError> {
    let (leftovers, names): (Vec<_>, Vec<_>) =
        list(storage)?.into_iter().partition(|name| segment::is_leftover(name) || contents::is_leftover(name));
    let tidied = leftovers.iter().try_for_each(|name| storage.remove(name)).and_then(|()| storage.sync_dir());
    tidied.map_err(StoreError::io("tidying the store"))?;
    Ok(names)
}
